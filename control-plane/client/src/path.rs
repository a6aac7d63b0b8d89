//! Where an object or a collection stands in the API.

use std::fmt;

use api::Kind;

/// A collection of the API: all objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    /// For instance `v1`.
    pub version: String,
    /// As in the path, for instance `services`.
    pub plural: String,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
}

impl Resource {
    /// The resource that a view reads.
    pub fn of<T: Kind>() -> Resource {
        Resource {
            group: T::GROUP.to_owned(),
            version: T::VERSION.to_owned(),
            plural: T::PLURAL.to_owned(),
            namespaced: T::NAMESPACED,
        }
    }

    /// Every object of the resource, in every namespace.
    pub fn everywhere(&self) -> Path {
        self.within("")
    }

    /// Every object of one namespace; of the cluster where the namespace is empty or the resource has none.
    pub fn within(&self, namespace: &str) -> Path {
        let mut text = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if self.namespaced && !namespace.is_empty() {
            text.push_str("/namespaces/");
            push_escaped(&mut text, namespace);
        }
        text.push('/');
        text.push_str(&self.plural);
        Path(text)
    }

    /// One object; `namespace` is empty for objects of the cluster.
    pub fn object(&self, namespace: &str, name: &str) -> Path {
        self.within(namespace).child(name)
    }
}

/// The path of a request, escaped where names need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub(crate) String);

impl Path {
    /// A path as it stands, for instance `/version`.
    pub fn raw(path: &str) -> Path {
        Path(path.to_owned())
    }

    /// A subresource, for instance `status`.
    pub fn subresource(self, name: &str) -> Path {
        self.child(name)
    }

    pub(crate) fn child(mut self, name: &str) -> Path {
        self.0.push('/');
        push_escaped(&mut self.0, name);
        self
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Key-value pairs after the question mark, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(String);

impl Query {
    /// Adds a pair; an empty value adds nothing.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Query {
        if !value.is_empty() {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(key);
            self.0.push('=');
            push_escaped(&mut self.0, value);
        }
        self
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 3986: all but unreserved characters become `%XX`.
fn push_escaped(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            const HEX: [char; 16] = [
                '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
            ];
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let core = Resource {
            group: String::new(),
            version: "v1".into(),
            plural: "services".into(),
            namespaced: true,
        };
        let slices = Resource {
            group: "discovery.k8s.io".into(),
            version: "v1".into(),
            plural: "endpointslices".into(),
            namespaced: true,
        };
        let nodes = Resource {
            plural: "nodes".into(),
            namespaced: false,
            ..core.clone()
        };
        for (path, expected) in [
            (core.everywhere(), "/api/v1/services"),
            (core.within("a"), "/api/v1/namespaces/a/services"),
            (
                slices.object("a", "b c/d"),
                "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/b%20c%2Fd",
            ),
            (
                core.object("a", "b").subresource("status"),
                "/api/v1/namespaces/a/services/b/status",
            ),
            (nodes.object("", "n"), "/api/v1/nodes/n"),
        ] {
            assert_eq!(path.to_string(), expected);
        }
    }

    #[test]
    fn queries() {
        let query = Query::default()
            .with("limit", "500")
            .with("continue", "")
            .with("labelSelector", "a=b,c!=d");
        assert_eq!(query.as_str(), "?limit=500&labelSelector=a%3Db%2Cc%21%3Dd");
    }
}
