//! Kubernetes' named formats: what names and labels look like.

use std::net::IpAddr;

use crate::pattern::Pattern;

/// A format by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedFormat(&'static str);

const NAMES: [&str; 15] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
    "ip",
    "cidr",
];

/// The format of that name.
pub fn find(name: &str) -> Option<NamedFormat> {
    NAMES
        .iter()
        .find(|known| **known == name)
        .map(|name| NamedFormat(name))
}

impl NamedFormat {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// What is wrong with a text that is to be of the format.
    pub fn validate(self, text: &str) -> Option<String> {
        let (takes, why) = match self.0 {
            "dns1123Label" => (
                label(text),
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            ),
            "dns1123Subdomain" => (
                subdomain(text),
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            ),
            "dns1035Label" => (
                label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()),
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            ),
            "dns1123LabelPrefix" => (
                label(&prefix(text)),
                "must be the prefix of a lowercase RFC 1123 label",
            ),
            "dns1123SubdomainPrefix" => (
                subdomain(&prefix(text)),
                "must be the prefix of a lowercase RFC 1123 subdomain",
            ),
            "dns1035LabelPrefix" => (
                label(&prefix(text)) && text.starts_with(|c: char| c.is_ascii_lowercase()),
                "must be the prefix of a DNS-1035 label",
            ),
            "qualifiedName" => (
                qualified(text),
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            ),
            "labelValue" => (
                text.is_empty() || name(text),
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            ),
            "uri" => (crate::url::is_absolute(text), "must be a valid URI"),
            "uuid" => (
                matches(
                    "^(?i)[0-9A-F]{8}-?[0-9A-F]{4}-?[0-9A-F]{4}-?[0-9A-F]{4}-?[0-9A-F]{12}$",
                    text,
                ),
                "does not match the UUID format",
            ),
            "byte" => {
                use base64::Engine as _;
                let engine = base64::engine::general_purpose::STANDARD;
                (engine.decode(text).is_ok(), "invalid base64")
            }
            "date" => (
                text.len() == 10 && crate::value::timestamp(text).is_some(),
                "invalid date",
            ),
            "datetime" => (
                text.len() > 10 && crate::value::timestamp(text).is_some(),
                "invalid datetime",
            ),
            "ip" => (text.parse::<IpAddr>().is_ok(), "must be a valid IP address"),
            _ => (crate::net::cidr(text).is_some(), "must be a valid CIDR"),
        };
        (!takes).then(|| why.to_owned())
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(text))
}

/// A prefix becomes whole with one more character.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) => format!("{rest}a"),
        None => text.to_owned(),
    }
}

fn label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            part.bytes().next().is_some_and(plain)
                && part.bytes().last().is_some_and(plain)
                && part.bytes().all(|b| plain(b) || b == b'-')
        })
}

fn name(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, rest)) => subdomain(domain) && name(rest),
        None => name(text),
    }
}
