//! Keys as our callers know them and as they stand in etcd.

use std::sync::Arc;

use bytes::Bytes;
use storage::Error;

/// One root in place of another.
#[derive(Debug)]
pub(crate) struct Keys {
    root: String,
    prefix: String,
}

impl Keys {
    /// A slash at an end means nothing, and etcd's prefix begins with one, as kube-apiserver has it.
    pub(crate) fn new(root: &str, prefix: &str) -> Self {
        let trimmed = prefix.trim_matches('/');
        Self {
            root: root.trim_end_matches('/').to_owned(),
            prefix: if trimmed.is_empty() {
                String::new()
            } else {
                format!("/{trimmed}")
            },
        }
    }

    /// As it stands in etcd.
    pub(crate) fn outer(&self, key: &str) -> Result<Bytes, Error> {
        match key.strip_prefix(&self.root) {
            Some(rest) if rest.starts_with('/') => Ok(format!("{}{rest}", self.prefix).into()),
            _ => Err(Error::Refused {
                reason: format!("key {key} does not begin with {}/", self.root),
            }),
        }
    }

    /// As callers know it; `None` where it is not one of ours.
    pub(crate) fn inner(&self, key: &[u8]) -> Option<Arc<str>> {
        let key = std::str::from_utf8(key).ok()?;
        let rest = key.strip_prefix(&self.prefix)?;
        if !rest.starts_with('/') {
            return None;
        }
        Some(if self.root == self.prefix {
            Arc::from(key)
        } else {
            Arc::from(format!("{}{rest}", self.root))
        })
    }

    /// From the first of ours to behind the last: a zero follows the slash.
    pub(crate) fn range(&self) -> (Bytes, Bytes) {
        (
            format!("{}/", self.prefix).into(),
            format!("{}0", self.prefix).into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_root_stands_for_another() {
        // Root, prefix, key of a caller, key in etcd.
        for (root, prefix, inner, outer) in [
            ("/registry", "/registry", "/registry/a/b", "/registry/a/b"),
            ("/registry", "k8s/one/", "/registry/a", "/k8s/one/a"),
            ("", "/t", "/a", "/t/a"),
            ("/registry", "", "/registry/a", "/a"),
        ] {
            let keys = Keys::new(root, prefix);
            assert_eq!(keys.outer(inner).unwrap(), outer);
            assert_eq!(keys.inner(outer.as_bytes()).as_deref(), Some(inner));
            let (first, end) = keys.range();
            assert!(*first < *outer.as_bytes() && *outer.as_bytes() < *end);
        }
        let keys = Keys::new("/registry", "/registry");
        for other in [
            &b"/registry2/a"[..],
            b"compact_rev_key",
            b"/registry",
            b"\xff",
        ] {
            assert_eq!(keys.inner(other), None, "{other:?}");
        }
        assert!(keys.outer("/elsewhere").is_err());
    }
}
