//! Which addresses of a range are free. A cache: what counts is in the store, and a choice that turns out to be
//! taken is remembered as taken and made again.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Of a vast IPv6 prefix, this many addresses are given out.
const OFFERED_MAX: u128 = 1 << 20;

/// One range of Service addresses.
pub(crate) struct AddressRange {
    network: IpNet,
    /// Offsets 1 to `offered` can be given out: neither the network's own address nor, with IPv4, the broadcast.
    offered: u128,
    /// Offsets up to this one are left to those who ask for an address of their own, as KEP-3070 has it.
    reserved: u128,
    used: HashSet<u128>,
}

impl AddressRange {
    pub(crate) fn new(network: IpNet) -> Self {
        let bits = u32::from(network.max_prefix_len() - network.prefix_len());
        let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
        let unusable = if network.addr().is_ipv4() { 2 } else { 1 };
        let offered = size.saturating_sub(unusable).min(OFFERED_MAX);
        // KEP-3070: a sixteenth, at least 16 and at most 256; a range too small for that reserves nothing.
        let reserved = if size < 32 {
            0
        } else {
            (size / 16).clamp(16, 256)
        };
        AddressRange {
            network: network.trunc(),
            offered,
            reserved: reserved.min(offered),
            used: HashSet::new(),
        }
    }

    pub(crate) fn network(&self) -> IpNet {
        self.network
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.network.addr().is_ipv4()
    }

    /// Whether the address can be given out at all.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.network.contains(&address) && {
            let offset = self.offset(address);
            offset > 0 && (!self.is_ipv4() || offset <= self.offered)
        }
    }

    /// The first address, which belongs to the API itself.
    pub(crate) fn first(&self) -> IpAddr {
        self.at(1)
    }

    /// A free address, marked as taken: at random from the upper band, from the lower one when that is full.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        let upper = (self.reserved + 1, self.offered);
        let lower = (1, self.reserved);
        for (low, high) in [upper, lower] {
            if low > high {
                continue;
            }
            let count = high - low + 1;
            let start = fastrand::u128(..count);
            let free = (0..count)
                .map(|step| low + (start + step) % count)
                .find(|offset| !self.used.contains(offset));
            if let Some(offset) = free {
                self.used.insert(offset);
                return Some(self.at(offset));
            }
        }
        None
    }

    pub(crate) fn mark(&mut self, address: IpAddr) {
        if self.network.contains(&address) {
            self.used.insert(self.offset(address));
        }
    }

    pub(crate) fn release(&mut self, address: IpAddr) {
        if self.network.contains(&address) {
            self.used.remove(&self.offset(address));
        }
    }

    /// Forgets everything, before what the store holds is marked again.
    pub(crate) fn clear(&mut self) {
        self.used.clear();
    }

    fn offset(&self, address: IpAddr) -> u128 {
        number(address).wrapping_sub(number(self.network.addr()))
    }

    fn at(&self, offset: u128) -> IpAddr {
        let sum = number(self.network.addr()) + offset;
        match self.network {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "an offset within an IPv4 network"
            )]
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(sum as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(sum)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_given_out_once() {
        for (network, count) in [
            ("10.0.0.0/28", 14),
            ("10.0.0.0/24", 254),
            ("fd00::/124", 15),
            ("10.0.0.0/31", 0),
        ] {
            let mut range = AddressRange::new(network.parse().unwrap());
            let mut seen = HashSet::new();
            while let Some(address) = range.take() {
                assert!(range.contains(address), "{address} in {network}");
                assert!(seen.insert(address), "{address} twice");
            }
            assert_eq!(seen.len(), count, "{network}");
        }
    }

    #[test]
    fn the_lower_band_is_left_for_last() {
        let mut range = AddressRange::new("10.96.0.0/24".parse().unwrap());
        for _ in 0..254 - 16 {
            let IpAddr::V4(address) = range.take().unwrap() else {
                panic!("IPv4")
            };
            assert!(address.octets()[3] > 16, "{address}");
        }
        let IpAddr::V4(address) = range.take().unwrap() else {
            panic!("IPv4")
        };
        assert!(address.octets()[3] <= 16, "{address}");
    }

    #[test]
    fn bounds() {
        let range = AddressRange::new("10.96.0.0/12".parse().unwrap());
        assert_eq!(range.first().to_string(), "10.96.0.1");
        for (address, within) in [
            ("10.96.0.0", false),
            ("10.96.0.1", true),
            ("10.111.255.254", true),
            ("10.111.255.255", false),
            ("10.112.0.0", false),
            ("fd00::1", false),
        ] {
            assert_eq!(
                range.contains(address.parse().unwrap()),
                within,
                "{address}"
            );
        }
        let wide = AddressRange::new("fd00::/64".parse().unwrap());
        assert!(wide.contains("fd00::ffff:ffff:1".parse().unwrap()));
    }
}
