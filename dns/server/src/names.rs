//! Names as lower-case wire octets: what tables are keyed by, and where suffixes are slices.

use std::fmt::Write as _;
use std::net::IpAddr;

use hickory_proto::rr::Name;
use ipnet::IpNet;

/// How many labels a name has, the root's not counted. A leading `*` counts as any other, which it does not in the
/// library's own `num_labels`.
#[must_use]
pub fn labels(name: &Name) -> usize {
    name.iter().len()
}

/// The name in wire form (RFC 1035, 3.1), letters in lower case, with the root's zero octet at its end.
#[must_use]
pub fn wire(name: &Name) -> Vec<u8> {
    let mut octets = Vec::with_capacity(name.len() + 1);
    for label in name.iter() {
        // A label of a parsed name has at most 63 octets.
        octets.push(u8::try_from(label.len()).unwrap_or(63));
        octets.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    octets.push(0);
    octets
}

/// The wire name itself, then its parent, and so on to the root.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(wire);
    std::iter::from_fn(move || {
        let current = rest?;
        rest = match current.first() {
            Some(&length) if length > 0 => current.get(usize::from(length) + 1..),
            _ => None,
        };
        Some(current)
    })
}

/// Reads a name as it is written in a Corefile or a hosts file: absolute with or without the dot at its end.
///
/// # Errors
///
/// When it is not a name; the text says why.
pub fn parse(text: &str) -> Result<Name, String> {
    if text.contains('\\') {
        return read(text);
    }
    let mut name =
        Name::from_ascii(text).map_err(|error| format!("{text:?} is not a name: {error}"))?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

/// Reads what [`text`] has written, and parts of it put together: as [`parse`], but any character is one.
///
/// # Errors
///
/// When it is not a name; the text says why.
pub fn read(text: &str) -> Result<Name, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{text:?} is not a name: {error}");
    let (labels, _) = labels_of(text).map_err(|error| wrong(&error))?;
    let mut name =
        Name::from_labels(labels.iter().map(Vec::as_slice)).map_err(|error| wrong(&error))?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

/// The name as master files write it, with the dot at its end. What means something there stands behind a backslash,
/// and octets that are no visible ASCII as `\DDD`, in decimal digits (RFC 1035, 5.1).
#[must_use]
pub fn text(name: &Name) -> String {
    let mut text = String::with_capacity(name.len() + 1);
    for label in name.iter() {
        for &octet in label {
            match octet {
                b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' => {
                    text.extend(['\\', char::from(octet)]);
                }
                b'!'..=b'~' => text.push(char::from(octet)),
                octet => {
                    let _ = write!(text, "\\{octet:03}");
                }
            }
        }
        text.push('.');
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

/// The labels of a name as master files write it, and whether a dot ends it. A backslash before three digits gives
/// any octet, before another character that character (RFC 1035 section 5.1).
pub(crate) fn labels_of(text: &str) -> Result<(Vec<Vec<u8>>, bool), &'static str> {
    if text == "." {
        return Ok((Vec::new(), true));
    }
    let mut labels = vec![Vec::new()];
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'.' => {
                if labels.last().is_some_and(Vec::is_empty) {
                    return Err("an empty label");
                }
                labels.push(Vec::new());
                continue;
            }
            b'\\' => match octets.next().ok_or("a backslash at its end")? {
                first @ b'0'..=b'9' => {
                    let mut number = u16::from(first - b'0');
                    for _ in 0..2 {
                        let digit = octets.next().filter(u8::is_ascii_digit);
                        let digit = digit.ok_or("a backslash before fewer than three digits")?;
                        number = number * 10 + u16::from(digit - b'0');
                    }
                    u8::try_from(number).map_err(|_| "an octet above 255")?
                }
                other => other,
            },
            other => other,
        };
        if let Some(label) = labels.last_mut() {
            label.push(octet);
        }
    }
    let absolute = labels.last().is_some_and(Vec::is_empty);
    if absolute {
        labels.pop();
    }
    if labels.is_empty() {
        return Err("nothing");
    }
    Ok((labels, absolute))
}

/// Reads a zone: a name, or a prefix that stands for the reverse zones that cover it.
///
/// # Errors
///
/// When it is neither.
pub fn zones(text: &str) -> Result<Vec<Name>, String> {
    match text.parse::<IpNet>() {
        Ok(prefix) => reverse_zones(prefix),
        Err(_) => Ok(vec![parse(text)?]),
    }
}

/// The reverse zones of a prefix. A prefix that ends inside an octet (a nibble in IPv6) is several zones, at most
/// 128.
fn reverse_zones(prefix: IpNet) -> Result<Vec<Name>, String> {
    let prefix = prefix.trunc();
    let (step, longest) = match prefix {
        IpNet::V4(_) => (8, 32),
        IpNet::V6(_) => (4, 128),
    };
    let length = prefix
        .prefix_len()
        .div_ceil(step)
        .saturating_mul(step)
        .min(longest);
    let subnets = prefix
        .subnets(length)
        .map_err(|error| format!("{prefix}: {error}"))?;
    subnets
        .map(|subnet| {
            let full = reverse(subnet.addr());
            let labels = usize::from(length / step) + 2;
            Ok(full.trim_to(labels))
        })
        .collect()
}

/// The name that a PTR question for an address asks (RFC 1035, 3.5; RFC 3596, 2.5).
#[must_use]
pub fn reverse(address: IpAddr) -> Name {
    Name::from(address)
}

/// The address that a reverse name stands for, if it names a whole one.
#[must_use]
pub fn address_of_reverse(name: &Name) -> Option<IpAddr> {
    let labels = labels(name);
    match name.parse_arpa_name().ok()? {
        IpNet::V4(net) if net.prefix_len() == 32 && labels == 6 => Some(IpAddr::V4(net.addr())),
        IpNet::V6(net) if net.prefix_len() == 128 && labels == 34 => Some(IpAddr::V6(net.addr())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_of_prefixes() {
        let table = [
            ("10.0.0.0/8", vec!["10.in-addr.arpa."]),
            ("10.1.2.0/24", vec!["2.1.10.in-addr.arpa."]),
            (
                "10.1.2.0/23",
                vec!["2.1.10.in-addr.arpa.", "3.1.10.in-addr.arpa."],
            ),
            ("0.0.0.0/0", vec!["in-addr.arpa."]),
            ("2001:db8::/32", vec!["8.b.d.0.1.0.0.2.ip6.arpa."]),
            ("10.0.0.1/32", vec!["1.0.0.10.in-addr.arpa."]),
            ("Example.ORG", vec!["example.org."]),
            (".", vec!["."]),
        ];
        for (text, expected) in table {
            let found: Vec<String> = zones(text)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, expected, "{text}");
        }
        assert!(zones("a..b").is_err());
    }

    #[test]
    fn octets_of_all_kinds_are_written_and_read() {
        let table: &[(&[&[u8]], &str)] = &[
            (&[], "."),
            (&[b"www", b"example", b"org"], "www.example.org."),
            (&[b"my printer", b"_ipp", b"lan"], "my\\ printer._ipp.lan."),
            (&[b"a@b", b"lan"], "a\\@b.lan."),
            (&[b"caf\xc3\xa9", b"lan"], "caf\\195\\169.lan."),
            (&[b"a.b\0", b"*"], "a\\.b\\000.*."),
            (&[b"0/25", b"10$"], "0/25.10$."),
        ];
        for (labels, expected) in table {
            let mut name = Name::from_labels(labels.iter().copied()).unwrap();
            name.set_fqdn(true);
            assert_eq!(text(&name), *expected);
            assert_eq!(read(expected).as_ref(), Ok(&name), "{expected}");
        }
        assert_eq!(parse("my\\032printer.lan"), read("my\\ printer.lan."));
        for wrong in ["a\\25", "a\\256", "a\\", "a..b", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn suffixes_go_up_to_the_root() {
        let octets = wire(&parse("a.Bc.d").unwrap());
        let found: Vec<&[u8]> = suffixes(&octets).collect();
        assert_eq!(
            found,
            [
                &b"\x01a\x02bc\x01d\0"[..],
                b"\x02bc\x01d\0",
                b"\x01d\0",
                b"\0"
            ]
        );
    }
}
