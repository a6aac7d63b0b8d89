//! What the values of flags are read by.

use std::net::IpAddr;

use ipnet::IpNet;

/// A table without entries is none.
pub(super) fn entries() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// A range of addresses, or one alone.
pub(super) fn address(text: &str) -> Result<IpNet, String> {
    let alone = text.parse::<IpAddr>().map(IpNet::from);
    alone
        .or_else(|_| text.parse())
        .map_err(|_| "want an IP address or a range such as 10.244.0.0/16".to_owned())
}

/// A range of addresses.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    let (address, length) = text
        .split_once('/')
        .ok_or("want ADDRESS/LENGTH, for instance 10.96.0.0/12")?;
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("{address:?} is no IP address"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.parse().ok().filter(|length| *length <= most);
    let net = length.and_then(|length| IpNet::new(address, length).ok());
    net.ok_or_else(|| format!("the length after / is 0 to {most} for {address}"))
}

/// A protocol that a Service may name.
pub(crate) fn protocol(text: &str) -> Result<u8, String> {
    match text.to_ascii_uppercase().as_str() {
        "TCP" => Ok(abi::protocol::TCP),
        "UDP" => Ok(abi::protocol::UDP),
        "SCTP" => Ok(abi::protocol::SCTP),
        _ => Err("want TCP, UDP or SCTP".to_owned()),
    }
}

/// The least and the greatest port of a range.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let (min, max) = text
        .split_once('-')
        .ok_or("want MIN-MAX, for instance 30000-32767")?;
    let port = |s: &str| {
        s.parse::<u16>()
            .map_err(|e| format!("{s:?} is no port: {e}"))
    };
    match (port(min)?, port(max)?) {
        (0, _) => Err("a range of ports begins at 1".to_owned()),
        (min, max) if min > max => Err(format!("{min} is above {max}")),
        range => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use super::{cidr, port_range};

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("30000-32767"), Ok((30000, 32767)));
        for bad in ["", "1", "0-5", "9-3", "a-b", "1-70000"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_of_addresses() {
        assert_eq!(cidr("10.96.0.0/12"), Ok("10.96.0.0/12".parse().unwrap()));
        assert_eq!(cidr("fd00::/108"), Ok("fd00::/108".parse().unwrap()));
        for (bad, words) in [
            ("10.0.0.0/33", "0 to 32"),
            ("fd00::/129", "0 to 128"),
            ("10.0.0.0/-1", "0 to 32"),
            ("10.0.0.0", "ADDRESS/LENGTH"),
            ("10.0.0/8", "no IP address"),
        ] {
            let told = cidr(bad).unwrap_err();
            assert!(told.contains(words), "{bad}: {told}");
        }
    }
}
