//! URLs taken apart (RFC 3986), as far as validation rules ask.

use std::collections::BTreeMap;

/// A URL with a scheme, or a path from the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Url {
    /// As it was written.
    pub text: String,
    /// Lower case; empty for a path.
    pub scheme: String,
    /// Host and port as they stand.
    pub host: String,
    /// Still percent-encoded.
    pub path: String,
    /// Still percent-encoded; empty where there is none.
    pub query: String,
}

/// Whether the text is a URL with a scheme, or a path from the root.
pub fn is_absolute(text: &str) -> bool {
    Url::parse(text).is_some()
}

impl Url {
    /// `None` for anything relative or malformed.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f || b == b' ') {
            return None;
        }
        let rest = text.split_once('#').map_or(text, |(before, _)| before);
        let (scheme, rest) = match rest.split_once(':') {
            Some((scheme, after)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), after),
            _ if rest.starts_with('/') => (String::new(), rest),
            _ => return None,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(authority) => {
                let end = authority.find('/').unwrap_or(authority.len());
                (&authority[..end], &authority[end..])
            }
            None if rest.starts_with('/') => ("", rest),
            // An opaque address such as mailto:a@b has no path.
            None if !scheme.is_empty() && !rest.is_empty() => {
                return Some(Url::new(text, scheme, "", "", query));
            }
            None => return None,
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if !is_host(host) || !is_encoded(path) {
            return None;
        }
        Some(Url::new(text, scheme, host, path, query))
    }

    fn new(text: &str, scheme: String, host: &str, path: &str, query: &str) -> Self {
        Url {
            text: text.into(),
            scheme,
            host: host.into(),
            path: path.into(),
            query: query.into(),
        }
    }

    /// Without the port, and without the brackets of an IPv6 address.
    pub fn hostname(&self) -> &str {
        let host = &self.host;
        if let Some(inner) = host.strip_prefix('[') {
            return inner.split_once(']').map_or(inner, |(inside, _)| inside);
        }
        host.rsplit_once(':').map_or(host, |(name, _)| name)
    }

    /// Empty where there is none.
    pub fn port(&self) -> &str {
        let after = self
            .host
            .rsplit_once(']')
            .map_or(self.host.as_str(), |(_, after)| after);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    /// Names and their values, decoded.
    pub fn query_values(&self) -> BTreeMap<String, Vec<String>> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values
                .entry(decode(&name.replace('+', " ")))
                .or_default()
                .push(decode(&value.replace('+', " ")));
        }
        values
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn is_host(host: &str) -> bool {
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if let Some(inner) = host.strip_prefix('[') {
        return inner.split_once(']').is_some_and(|(address, after)| {
            let address = address
                .split_once('%')
                .map_or(address, |(address, _)| address);
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && (after.is_empty() || after.strip_prefix(':').is_some_and(port))
        });
    }
    let (name, after) = host.split_once(':').unwrap_or((host, ""));
    port(after)
        && is_encoded(name)
        && !name.contains(['<', '>', '"', '^', '`', '{', '}', '|', '\\', '[', ']'])
}

fn is_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        rest.get(..2)
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

/// Undoes percent-encoding.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = text
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        let url = Url::parse("https://user@[::1]:80/a%20b?k=v&k=w%20x#f").unwrap();
        assert_eq!(
            (url.scheme.as_str(), url.hostname(), url.port()),
            ("https", "::1", "80")
        );
        assert_eq!(url.path, "/a%20b");
        assert_eq!(url.query_values()["k"], ["v", "w x"]);
        for bad in [
            "",
            "a",
            "a/b",
            "../x",
            "https://a b",
            "https://[::1",
            "https://a:x/",
            "https://a/%zz",
            ":x",
        ] {
            assert!(!is_absolute(bad), "{bad}");
        }
        for good in ["/a/b", "https://a", "mailto:x@y", "http://192.168.0.1:8080"] {
            assert!(is_absolute(good), "{good}");
        }
    }
}
