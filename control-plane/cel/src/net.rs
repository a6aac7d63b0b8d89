//! Addresses and prefixes in the spelling that Kubernetes takes.

use std::net::IpAddr;

/// An address; IPv4 within IPv6 is none.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        other => Some(other),
    }
}

/// A prefix, host bits and all.
pub(crate) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = ip(address)?;
    if bits.len() > 1 && bits.starts_with('0') || bits.starts_with('+') {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    (bits <= width(address)).then_some((address, bits))
}

pub(crate) fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address without its host bits.
pub(crate) fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(bits.min(32)))
                .unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(bits.min(128)))
                .unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// Whether the prefix holds the address.
pub(crate) fn contains(prefix: (IpAddr, u8), address: IpAddr) -> bool {
    prefix.0.is_ipv4() == address.is_ipv4()
        && masked(prefix.0, prefix.1) == masked(address, prefix.1)
}
