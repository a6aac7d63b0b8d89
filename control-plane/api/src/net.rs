//! Addresses and prefixes as texts: what Kubernetes accepts, and what it says when it doesn't.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address. Numbers of IPv4 may begin with zeros and are decimal all the same: fields that took such addresses once
/// go on to take them, with a warning.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let mut numbers = text.split('.').map(|number| {
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| number.parse::<u8>().ok()).flatten()
    });
    let mut next = || numbers.next().flatten();
    let ip = [next()?, next()?, next()?, next()?];
    numbers.next().is_none().then(|| IpAddr::from(ip))
}

/// An address in its usual spelling: no leading zeros.
pub fn parse_ip_strict(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// A prefix in its usual spelling: no leading zeros.
pub fn parse_cidr_strict(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let plain = parse_ip_strict(address).is_some() && (length == "0" || !length.starts_with('0'));
    parse_cidr(text).filter(|_| plain)
}

/// An address and a prefix length.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = parse_ip(address)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((address, length))
}

/// What is wrong with an address.
pub fn bad_ip(text: &str) -> Option<&'static str> {
    parse_ip(text)
        .is_none()
        .then_some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
}

/// What is wrong with a prefix.
pub fn bad_cidr(text: &str) -> Option<&'static str> {
    parse_cidr(text)
        .is_none()
        .then_some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
}

/// Why an address can't be that of an endpoint or an external address of a Service: it never leaves its machine.
pub fn not_special(text: &str) -> Vec<&'static str> {
    let Some(ip) = parse_ip(text) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    if ip.is_unspecified() {
        wrong.push("may not be unspecified (0.0.0.0 or ::)");
    }
    if ip.is_loopback() {
        wrong.push("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local(ip) {
        wrong.push("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast(ip) {
        wrong.push("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
    wrong
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == Ipv4Addr::new(224, 0, 0, 0).octets()[..3],
        IpAddr::V6(v6) => {
            v6.segments()[0] & 0xff0f == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0).segments()[0]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (text, fits) in [
            ("10.0.0.0/8", true),
            ("::/0", true),
            ("010.0.0.0/08", true),
            ("10.0.0.0/33", false),
            ("10.0.0.0", false),
            ("x/8", false),
            ("1.2.3.4/+8", false),
        ] {
            assert_eq!(parse_cidr(text).is_some(), fits, "{text}");
        }
    }

    #[test]
    fn numbers_are_decimal_whatever_zeros_they_begin_with() {
        for (text, read) in [
            ("10.1.2.3", Some("10.1.2.3")),
            ("010.001.2.0255", Some("10.1.2.255")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("+1.2.3.4", None),
            ("1.2.3", None),
            ("1.2.3.4.5", None),
            ("1..2.3", None),
            ("0256.1.1.1", None),
            ("", None),
        ] {
            let met = parse_ip(text).map(|ip| ip.to_string());
            assert_eq!(met.as_deref(), read, "{text}");
        }
        assert_eq!(parse_ip_strict("010.1.1.1"), None);
        assert_eq!(parse_cidr_strict("10.0.0.0/08"), None);
    }

    #[test]
    fn special_addresses() {
        for (text, count) in [
            ("0.0.0.0", 1),
            ("::1", 1),
            ("169.254.1.1", 1),
            ("224.0.0.1", 1),
            ("ff02::1", 1),
            ("10.1.1.1", 0),
            ("2001:db8::1", 0),
        ] {
            assert_eq!(not_special(text).len(), count, "{text}");
        }
    }
}
