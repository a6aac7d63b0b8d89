//! A range of addresses that pods may have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses from a first to a last, in one subnet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    subnet: IpNet,
    first: u128,
    last: u128,
}

/// Why a range is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRange {
    /// A bound is not in the subnet.
    #[error("{bound} is not in {subnet}")]
    Outside {
        /// The bound.
        bound: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// The bounds are the wrong way round.
    #[error("the range in {0} ends before it begins")]
    Empty(IpNet),
}

impl Range {
    /// Every address of a subnet that a host may have: not the subnet's own (in IPv6 that of any router, RFC 4291
    /// section 2.6.1) and not its broadcast address, unless the subnet is so small that it has neither (RFC 3021,
    /// RFC 6164).
    #[must_use]
    pub fn whole(subnet: IpNet) -> Range {
        let subnet = subnet.trunc();
        let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
        let point_to_point = last - first < 2;
        let broadcast = u128::from(subnet.addr().is_ipv4());
        Range {
            subnet,
            first: if point_to_point { first } else { first + 1 },
            last: if point_to_point {
                last
            } else {
                last - broadcast
            },
        }
    }

    /// A part of a subnet, both bounds included.
    ///
    /// # Errors
    ///
    /// [`BadRange`] if the bounds do not fit the subnet or each other.
    pub fn part(
        subnet: IpNet,
        first: Option<IpAddr>,
        last: Option<IpAddr>,
    ) -> Result<Range, BadRange> {
        let mut range = Range::whole(subnet);
        for (bound, place) in [(first, &mut range.first), (last, &mut range.last)] {
            if let Some(bound) = bound {
                if !range.subnet.contains(&bound) {
                    let subnet = range.subnet;
                    return Err(BadRange::Outside { bound, subnet });
                }
                *place = number(bound);
            }
        }
        if range.first > range.last {
            return Err(BadRange::Empty(range.subnet));
        }
        Ok(range)
    }

    /// The subnet that it is in.
    #[must_use]
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// Of IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.subnet.addr().is_ipv6()
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv6() == self.is_ipv6() && (self.first..=self.last).contains(&number(addr))
    }

    /// How many addresses it has; as many as fit for the largest of IPv6.
    #[must_use]
    pub fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// The first address that is not taken, behind the one given and then from the beginning. `taken` gives, from an
    /// address on, taken addresses in order: so many are looked at as lie before the first gap.
    pub(crate) fn free<I>(
        &self,
        behind: Option<IpAddr>,
        taken: impl Fn(IpAddr) -> I,
    ) -> Option<IpAddr>
    where
        I: Iterator<Item = IpAddr>,
    {
        let behind = behind.filter(|addr| self.contains(*addr)).map(number);
        let start = behind
            .filter(|at| *at < self.last)
            .map_or(self.first, |at| at + 1);
        let gap = |from: u128, to: u128| {
            let mut candidate = from;
            for addr in taken(self.address(from)).map(number) {
                if addr != candidate {
                    break;
                }
                if candidate >= to {
                    return None;
                }
                candidate += 1;
            }
            (candidate <= to).then_some(candidate)
        };
        let found = gap(start, self.last);
        let found = found.or_else(|| (start > self.first).then(|| gap(self.first, start - 1))?);
        found.map(|number| self.address(number))
    }

    fn address(&self, number: u128) -> IpAddr {
        match (self.is_ipv6(), u32::try_from(number)) {
            (false, Ok(number)) => Ipv4Addr::from_bits(number).into(),
            _ => Ipv6Addr::from_bits(number).into(),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Range::whole(self.subnet) {
            return write!(f, "{}", self.subnet);
        }
        let (first, last) = (self.address(self.first), self.address(self.last));
        write!(f, "{first} to {last}")
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_keeps_what_no_host_may_have() {
        let cases = [
            ("10.244.1.7/24", "10.244.1.1", "10.244.1.254", 254),
            ("10.244.1.0/30", "10.244.1.1", "10.244.1.2", 2),
            ("10.244.1.0/31", "10.244.1.0", "10.244.1.1", 2),
            ("10.244.1.9/32", "10.244.1.9", "10.244.1.9", 1),
            ("255.255.255.0/24", "255.255.255.1", "255.255.255.254", 254),
            ("fd00::/126", "fd00::1", "fd00::3", 3),
            ("fd00::/127", "fd00::", "fd00::1", 2),
            ("fd00::5/128", "fd00::5", "fd00::5", 1),
            (
                "::/0",
                "::1",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                u128::MAX,
            ),
        ];
        for (subnet, first, last, size) in cases {
            let range = Range::whole(subnet.parse().unwrap());
            assert_eq!(range.address(range.first).to_string(), first, "{subnet}");
            assert_eq!(range.address(range.last).to_string(), last, "{subnet}");
            assert_eq!(range.size(), size, "{subnet}");
        }
    }

    #[test]
    fn bounds_must_fit() {
        let part = |subnet: &str, first: &str, last: &str| {
            let bound = |text: &str| text.parse().ok();
            let range = Range::part(subnet.parse().unwrap(), bound(first), bound(last));
            range.map_or_else(|error| error.to_string(), |range| range.to_string())
        };
        let cases = [
            ("10.0.0.0/24", "", "", "10.0.0.0/24"),
            ("10.0.0.0/24", "10.0.0.9", "", "10.0.0.9 to 10.0.0.254"),
            (
                "10.0.0.0/24",
                "10.0.0.9",
                "10.0.0.9",
                "10.0.0.9 to 10.0.0.9",
            ),
            (
                "10.0.0.0/24",
                "10.0.1.9",
                "",
                "10.0.1.9 is not in 10.0.0.0/24",
            ),
            (
                "10.0.0.0/24",
                "fd00::1",
                "",
                "fd00::1 is not in 10.0.0.0/24",
            ),
            (
                "10.0.0.0/24",
                "10.0.0.9",
                "10.0.0.8",
                "the range in 10.0.0.0/24 ends before it begins",
            ),
        ];
        for (subnet, first, last, expected) in cases {
            assert_eq!(part(subnet, first, last), expected);
        }
    }
}
