//! The alphabets of names, labels and addresses (RFC 1035, RFC 1123, Kubernetes' qualified names). Each check returns
//! what is wrong in the words that Kubernetes uses; an empty list means that all is well.

use crate::table::NameRule;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
    must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
    '*.example.com', regex used for validation is \
    '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than \
    '='";

/// The most bytes in a label.
pub const LABEL_MAX: usize = 63;
/// The most bytes in a subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

/// Whether `name` is a fit name for an object. Of a prefix to generate from, the end is not looked at.
pub fn object_name(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // The suffix makes the name end well: whatever dashes the prefix ends in are inside.
    let whole = match name.strip_suffix('-') {
        Some(rest) if prefix => format!("{rest}a"),
        _ => name.to_owned(),
    };
    match rule {
        NameRule::Subdomain => subdomain(&whole),
        NameRule::Label => label(&whole),
        NameRule::Label1035 => label_1035(&whole),
        NameRule::PathSegment => path_segment(name),
        NameRule::Address => Vec::new(),
    }
}

/// Anything that can stand between two slashes of a path.
pub fn path_segment(name: &str) -> Vec<String> {
    if matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    ['/', '%']
        .into_iter()
        .filter(|mark| name.contains(*mark))
        .map(|mark| format!("may not contain '{mark}'"))
        .collect()
}

/// RFC 1123 subdomain.
pub fn subdomain(name: &str) -> Vec<String> {
    let mut wrong = longer_than(name, SUBDOMAIN_MAX);
    if !is_subdomain(name) {
        wrong.push(SUBDOMAIN.into());
    }
    wrong
}

/// RFC 1123 label.
pub fn label(name: &str) -> Vec<String> {
    let mut wrong = longer_than(name, LABEL_MAX);
    if !is_label(name) {
        wrong.push(if is_subdomain(name) {
            "must not contain dots".into()
        } else {
            LABEL.into()
        });
    }
    wrong
}

/// RFC 1035 label: a letter comes first.
pub fn label_1035(name: &str) -> Vec<String> {
    let mut wrong = longer_than(name, LABEL_MAX);
    if !(is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase())) {
        wrong.push(LABEL_1035.into());
    }
    wrong
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = longer_than(value, LABEL_MAX);
    if !value.is_empty() && !is_qualified_part(value) {
        wrong.push(LABEL_VALUE.into());
    }
    wrong
}

/// The key of a label, annotation or finalizer: `name` or `example.com/name`.
pub fn qualified_name(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(
                    subdomain(prefix)
                        .into_iter()
                        .map(|w| format!("prefix part {w}")),
                );
            }
            name
        }
        _ => {
            wrong.push(format!("a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"));
            return wrong;
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".into());
    } else {
        wrong.extend(
            longer_than(name, LABEL_MAX)
                .into_iter()
                .map(|w| format!("name part {w}")),
        );
    }
    if !is_qualified_part(name) {
        wrong.push(format!("name part {QUALIFIED}"));
    }
    wrong
}

/// A key in a ConfigMap or Secret.
pub fn config_key(key: &str) -> Vec<String> {
    let mut wrong = longer_than(key, SUBDOMAIN_MAX);
    if key.is_empty()
        || !key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        wrong.push(CONFIG_KEY.into());
    }
    if key == "." || key == ".." {
        wrong.push(format!("must not be '{key}'"));
    } else if key.starts_with("..") {
        wrong.push("must not start with '..'".into());
    }
    wrong
}

/// `*.` and a subdomain.
pub fn wildcard_subdomain(name: &str) -> Vec<String> {
    let mut wrong = longer_than(name, SUBDOMAIN_MAX);
    if !name.strip_prefix("*.").is_some_and(is_subdomain) {
        wrong.push(WILDCARD.into());
    }
    wrong
}

/// The name of an environment variable.
pub fn env_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        Vec::new()
    } else {
        vec![ENV_NAME.into()]
    }
}

/// The name of a port (IANA service name): at most 15 bytes, a letter in it, no two dashes beside each other.
pub fn port_name(name: &str) -> Vec<String> {
    let mut wrong = longer_than(name, 15);
    if name.is_empty()
        || !name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".into());
    }
    if name.contains("--") {
        wrong.push("must not contain consecutive hyphens".into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".into());
    }
    wrong
}

/// A port number.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65_535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".into()]
    }
}

/// Whether `name` is an RFC 1123 subdomain, its length apart.
pub fn is_subdomain(name: &str) -> bool {
    name.split('.').all(is_label)
}

/// Whether `name` is an RFC 1123 label, its length apart.
pub fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !name.is_empty()
        && name.bytes().all(|b| inner(b) || b == b'-')
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner)
}

fn is_qualified_part(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric())
        && name
            .bytes()
            .last()
            .is_some_and(|b| b.is_ascii_alphanumeric())
}

fn longer_than(text: &str, max: usize) -> Vec<String> {
    if text.len() > max {
        vec![format!("must be no more than {max} bytes")]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabets() {
        for (name, is_label, is_1035, is_sub) in [
            ("web", true, true, true),
            ("1web", true, false, true),
            ("web.example", false, false, true),
            ("-web", false, false, false),
            ("web-", false, false, false),
            ("Web", false, false, false),
            ("", false, false, false),
            ("a..b", false, false, false),
            ("wéb", false, false, false),
        ] {
            assert_eq!(label(name).is_empty(), is_label, "label {name:?}");
            assert_eq!(label_1035(name).is_empty(), is_1035, "1035 {name:?}");
            assert_eq!(subdomain(name).is_empty(), is_sub, "subdomain {name:?}");
        }
        assert_eq!(label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(label("a.b"), ["must not contain dots"]);
    }

    #[test]
    fn qualified_names() {
        for good in ["app", "App_1.x", "example.com/app", "a/B"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in [
            "",
            "/app",
            "example.com/",
            "a/b/c",
            "-a",
            "a b",
            "Example.com/app",
            "a/-",
        ] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn port_names() {
        for (name, fit) in [
            ("http", true),
            ("80", false),
            ("a--b", false),
            ("-a", false),
            ("abcdefghijklmnop", false),
        ] {
            assert_eq!(port_name(name).is_empty(), fit, "{name}");
        }
    }

    #[test]
    fn a_prefix_may_end_in_a_dash() {
        assert!(object_name(NameRule::Subdomain, "web-", true).is_empty());
        assert!(!object_name(NameRule::Subdomain, "web-", false).is_empty());
    }
}
