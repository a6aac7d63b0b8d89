//! Users whom a front proxy names in headers, as kube-apiserver names them to the API servers that it passes requests
//! on to.

use std::collections::BTreeMap;

use authorization::{ANONYMOUS, UNAUTHENTICATED, User};
use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::authenticated;
use crate::query;

/// The user's name.
pub(crate) const USER: &str = "x-remote-user";
/// One of his groups.
pub(crate) const GROUP: &str = "x-remote-group";
/// His uid.
pub(crate) const UID: &str = "x-remote-uid";
/// What begins the names of headers with more about him.
pub(crate) const EXTRA: &str = "x-remote-extra-";

/// Whom the headers name. `None`: nobody.
pub(crate) fn user(headers: &HeaderMap) -> Option<User> {
    let texts = |name: &str| -> Vec<String> {
        let all = headers.get_all(name).iter();
        all.filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let first = |name: &str| texts(name).into_iter().next();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = query::decode_segment(key).to_lowercase();
            extra.entry(key).or_default().extend(texts(name.as_str()));
        }
    }
    let user = User {
        name: first(USER)?,
        uid: first(UID).unwrap_or_default(),
        groups: texts(GROUP),
        extra,
    };
    let nobody = user.name == ANONYMOUS || user.is(UNAUTHENTICATED);
    Some(if nobody { user } else { authenticated(user) })
}

/// Takes whatever a client says in such headers from them.
pub(crate) fn clear(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            matches!(name, USER | GROUP | UID) || name.starts_with(EXTRA)
        })
        .cloned()
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Names the user, and nobody else.
///
/// # Errors
/// What is said of him cannot stand in a header.
pub(crate) fn name(headers: &mut HeaderMap, user: &User) -> Result<(), InvalidHeaderValue> {
    clear(headers);
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes());
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        // What was escaped is a name.
        let Ok(name) = HeaderName::try_from(format!("{EXTRA}{}", escaped(key))) else {
            continue;
        };
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

/// All but what RFC 9110 calls a token, and the sign of escaping itself, as `%XX`.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let key = "authentication.kubernetes.io/pod-name";
        let jane = User {
            uid: "u1".into(),
            extra: [
                (key.to_owned(), vec!["p".to_owned(), "ä".to_owned()]),
                ("a%2fb".to_owned(), vec!["c".to_owned()]),
            ]
            .into(),
            ..User::new("jane", &["dev", "system:authenticated"])
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (USER, "root"),
            (GROUP, "system:masters"),
            (UID, "0"),
            ("x-remote-extra-scopes", "all"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        name(&mut headers, &jane).unwrap();
        let escaped = "x-remote-extra-authentication.kubernetes.io%2fpod-name";
        assert_eq!(headers[escaped], "p");
        assert_eq!(headers["accept"], "*/*");
        assert_eq!(user(&headers), Some(jane));
        clear(&mut headers);
        assert_eq!((headers.len(), user(&headers)), (1, None));
        let bad = User::new("a\nb", &[]);
        assert!(name(&mut headers, &bad).is_err());
    }

    #[test]
    fn nobody_stays_nobody() {
        let mut headers = HeaderMap::new();
        let known = |headers: &HeaderMap| user(headers).map(|user| user.groups);
        headers.insert(USER, HeaderValue::from_static("system:anonymous"));
        assert_eq!(known(&headers), Some(vec![]));
        headers.insert(USER, HeaderValue::from_static("jane"));
        assert_eq!(
            known(&headers),
            Some(vec!["system:authenticated".to_owned()])
        );
    }
}
