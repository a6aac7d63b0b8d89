//! How far packets in packets get (`dsr`): to which nodes, and for which of this node's addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::Range;

/// What the host's routes and this node's object say of packets in packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// This node's addresses that every node knows, in the order of its object. Other nodes take nothing for a node port
    /// at another one.
    named: Vec<IpAddr>,
    /// By how many bits count: whether what goes there goes in a tunnel, where nobody takes our header off. Without what
    /// is in no tunnel anyway.
    tunnels: BTreeMap<u8, BTreeMap<IpAddr, bool>>,
}

impl Reach {
    /// From this node's addresses that every node knows, and routes, each with whether it leads into a tunnel.
    #[must_use]
    pub fn new(named: Vec<IpAddr>, routes: &[(Range, bool)]) -> Reach {
        let mut reach = Reach {
            named,
            tunnels: BTreeMap::new(),
        };
        for (range, _) in routes.iter().filter(|(_, tunnel)| *tunnel) {
            reach.put(range, true);
        }
        // What is left out of a wider tunnel.
        for (range, _) in routes.iter().filter(|(_, tunnel)| !tunnel) {
            let wider = |(len, of): (&u8, &BTreeMap<IpAddr, bool>)| {
                Range::new(range.addr(), *len).and_then(|wider| of.get(&wider.addr()).copied())
            };
            let mut around = reach.tunnels.range(..=range.prefix_len()).rev();
            if around.any(|around| wider(around) == Some(true)) {
                reach.put(range, false);
            }
        }
        reach
    }

    fn put(&mut self, range: &Range, tunnel: bool) {
        let of = self.tunnels.entry(range.prefix_len()).or_default();
        // Of two routes to one range it is not known which one is taken.
        *of.entry(range.addr()).or_default() |= tunnel;
    }

    /// Whether a packet in a packet gets to a backend's node as it is.
    pub(crate) fn is_straight(&self, backend: IpAddr) -> bool {
        let of = |(len, of): (&u8, &BTreeMap<IpAddr, bool>)| {
            of.get(&Range::new(backend, *len)?.addr()).copied()
        };
        !self.tunnels.iter().rev().find_map(of).unwrap_or(false)
    }

    /// Whether other nodes know for whom a packet is that came for a node port at this address: they look for it at the
    /// first of their own. `is_served` says whether there is a node port at an address of this node's.
    pub(crate) fn is_known(&self, addr: IpAddr, is_served: impl Fn(IpAddr) -> bool) -> bool {
        let alike = |own: &&IpAddr| own.is_ipv4() == addr.is_ipv4();
        let first = self.named.iter().find(alike);
        self.is_own(addr) && first.is_some_and(|first| is_served(*first))
    }

    /// Whether an address is this node's, as every node knows: others would take what came for it for a node port's.
    pub(crate) fn is_own(&self, addr: IpAddr) -> bool {
        self.named.contains(&addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_longest_route_says_whether_a_backend_is_behind_a_tunnel() {
        let routes = [
            ("10.244.0.0/16", true),
            ("10.244.2.0/24", false),
            ("10.244.2.128/25", true),
            ("10.244.3.0/24", true),
            ("10.244.3.0/24", false),
            ("192.0.2.0/24", false),
            ("0.0.0.0/0", false),
            ("fd10:244:2::/64", true),
        ];
        let routes = routes.map(|(range, tunnel)| (range.parse().expect("a range"), tunnel));
        let reach = Reach::new(Vec::new(), &routes);
        for (backend, straight) in [
            ("10.244.1.9", false),
            ("10.244.2.9", true),
            ("10.244.2.129", false),
            ("10.244.3.9", false),
            ("192.0.2.9", true),
            ("198.51.100.9", true),
            ("fd10:244:2::9", false),
            ("fd10:244:3::9", true),
        ] {
            assert_eq!(reach.is_straight(addr(backend)), straight, "{backend}");
        }
        let plain: Vec<_> = routes.into_iter().filter(|(_, tunnel)| !tunnel).collect();
        assert_eq!(Reach::new(Vec::new(), &plain), Reach::default());
    }

    #[test]
    fn node_ports_are_known_at_the_addresses_of_the_node_object() {
        let named = ["192.0.2.1", "10.0.0.1", "2001:db8::1"];
        let reach = Reach::new(named.map(addr).into(), &[]);
        for (at, served, known) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("10.0.0.1", "192.0.2.1", true),
            // Other nodes serve theirs elsewhere, too.
            ("10.0.0.1", "10.0.0.1", false),
            ("192.0.2.50", "192.0.2.1", false),
            ("2001:db8::1", "2001:db8::1", true),
        ] {
            let is = reach.is_known(addr(at), |own| own == addr(served));
            assert_eq!(is, known, "{at}");
        }
    }
}
