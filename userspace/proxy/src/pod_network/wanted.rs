//! What a node needs so that pods of every node reach each other: from the Nodes and this host's links to routes and
//! the ends of a tunnel. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipam::NodeFile;
use ipnet::IpNet;
use view::NodeRanges;

/// How packets for pods of other nodes get there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overlay {
    /// Straight to nodes on a link with this one, in VXLAN to the others.
    #[default]
    Auto,
    /// In VXLAN to every node.
    Vxlan,
    /// Straight to nodes on a link with this one; what leads to the others is somebody else's.
    Off,
}

/// What this host has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Host {
    /// Subnets of links that lead to other hosts: index of the link, its MTU.
    pub(crate) subnets: Vec<(IpNet, u32, u32)>,
}

/// Where packets for another node's pods go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Hop {
    /// To the node itself, over the link with this index.
    Node(IpAddr, u32),
    /// Into the tunnel: to the end with this Ethernet address, which is at the node with this address.
    Tunnel([u8; 6], IpAddr),
}

/// This node's end of the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub(crate) hardware_address: [u8; 6],
    pub(crate) local: IpAddr,
    pub(crate) mtu: u32,
}

/// What there should be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wanted {
    /// What the plugin is told.
    pub(crate) node: NodeFile,
    pub(crate) hops: BTreeMap<IpNet, Hop>,
    pub(crate) end: Option<End>,
    /// Nodes whose pods are out of reach, and why.
    pub(crate) unreachable: BTreeSet<String>,
}

/// What VXLAN puts around a packet: Ethernet, VXLAN, UDP, and IPv4 or IPv6 (RFC 7348 section 5).
const AROUND4: u32 = 50;
const AROUND6: u32 = 70;
/// Where no link leads anywhere.
const MTU_DEFAULT: u32 = 1_500;

use Overlay::{Auto, Off, Vxlan};

/// Decides. `None` while this node is not among the nodes.
pub(crate) fn wanted(
    this: &str,
    nodes: &BTreeMap<String, NodeRanges>,
    host: &Host,
    overlay: Overlay,
) -> Option<Wanted> {
    let here = nodes.get(this)?;
    let mut wanted = Wanted::default();
    wanted.node.pod_cidrs.clone_from(&here.pod_cidrs);
    // The link that this node's own addresses are on, or else the narrowest.
    let own = here.addresses.iter().find_map(|addr| link(host, *addr));
    let least = host.subnets.iter().map(|(_, _, mtu)| *mtu).min();
    let plain = own.map(|(_, mtu)| mtu).or(least).unwrap_or(MTU_DEFAULT);
    let local = here.addresses.first().copied();
    if let (Auto | Vxlan, Some(local)) = (overlay, local) {
        let mtu = plain.saturating_sub(if local.is_ipv4() { AROUND4 } else { AROUND6 });
        wanted.end = Some(End {
            hardware_address: hardware_address(this, local),
            local,
            mtu,
        });
        wanted.node.mtu = Some(mtu);
    } else {
        wanted.node.mtu = Some(plain);
    }
    for (name, node) in nodes.iter().filter(|(name, _)| *name != this) {
        for range in &node.pod_cidrs {
            if here.pod_cidrs.iter().any(|ours| overlap(ours, range)) {
                wanted
                    .unreachable
                    .insert(format!("{name}: its range {range} is this node's, too"));
                continue;
            }
            let same_family = |addr: &&IpAddr| addr.is_ipv4() == range.addr().is_ipv4();
            let straight = || {
                let addr = *node.addresses.iter().find(same_family)?;
                link(host, addr).map(|(ifindex, _)| Hop::Node(addr, ifindex))
            };
            let tunnel = || {
                let local = wanted.end?.local;
                let mut addresses = node.addresses.iter();
                let remote = *addresses.find(|addr| addr.is_ipv4() == local.is_ipv4())?;
                // Its own end is at the first of its addresses.
                let first = *node.addresses.first()?;
                Some(Hop::Tunnel(hardware_address(name, first), remote))
            };
            let hop = match overlay {
                Auto => straight().or_else(tunnel),
                Vxlan => tunnel(),
                Off => straight(),
            };
            match hop {
                Some(hop) => {
                    wanted.hops.entry(*range).or_insert(hop);
                }
                None if node.addresses.is_empty() => {
                    wanted
                        .unreachable
                        .insert(format!("{name}: its object names no InternalIP"));
                }
                None => {
                    let addr = node.addresses.iter().find(same_family);
                    let addr = addr.or(node.addresses.first()).copied();
                    let addr = addr.map(|addr| addr.to_string()).unwrap_or_default();
                    wanted.unreachable.insert(format!(
                        "{name}: {addr} is on no link of this node, and no tunnel leads there"
                    ));
                }
            }
        }
    }
    Some(wanted)
}

/// The link that an address is on: index and MTU.
fn link(host: &Host, addr: IpAddr) -> Option<(u32, u32)> {
    let on = host
        .subnets
        .iter()
        .filter(|(subnet, _, _)| subnet.contains(&addr));
    let longest = on.max_by_key(|(subnet, _, _)| subnet.prefix_len());
    longest.map(|(_, ifindex, mtu)| (*ifindex, *mtu))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The Ethernet address of a node's end of the tunnel follows from its name and address, so that nobody has to tell
/// it: FNV-1a with the last step of MurmurHash3, locally administered.
fn hardware_address(name: &str, addr: IpAddr) -> [u8; 6] {
    let text = format!("{name}\0{addr}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let [_, _, first, a, b, c, d, e] = (hash ^ (hash >> 33)).to_be_bytes();
    [first & 0xfc | 0x02, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(addresses: &[&str], ranges: &[&str]) -> NodeRanges {
        NodeRanges {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            pod_cidrs: ranges.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn nodes() -> BTreeMap<String, NodeRanges> {
        let near = node(
            &["192.0.2.2", "2001:db8::2"],
            &["10.244.2.0/24", "fd10:244:2::/64"],
        );
        let far = node(
            &["198.51.100.3", "2001:db8:3::3"],
            &["10.244.3.0/24", "fd10:244:3::/64"],
        );
        BTreeMap::from([
            (
                "a".to_owned(),
                node(
                    &["192.0.2.1", "2001:db8::1"],
                    &["10.244.1.0/24", "fd10:244:1::/64"],
                ),
            ),
            ("near".to_owned(), near),
            ("far".to_owned(), far),
            ("mute".to_owned(), node(&[], &["10.244.4.0/24"])),
            (
                "twin".to_owned(),
                node(&["192.0.2.5"], &["10.244.1.128/25"]),
            ),
            ("bare".to_owned(), node(&["192.0.2.6"], &[])),
        ])
    }

    fn host() -> Host {
        let subnet = |text: &str, ifindex, mtu| (text.parse().unwrap(), ifindex, mtu);
        Host {
            subnets: vec![
                subnet("192.0.2.0/24", 2, 1500),
                subnet("2001:db8::/64", 2, 1500),
                subnet("0.0.0.0/8", 3, 1400),
            ],
        }
    }

    /// The hops in words: straight, tunnel, or nothing.
    fn words(overlay: Overlay) -> (Vec<String>, Wanted) {
        let wanted = wanted("a", &nodes(), &host(), overlay).unwrap();
        let hops = wanted.hops.iter().map(|(range, hop)| match hop {
            Hop::Node(addr, ifindex) => format!("{range} via {addr} over {ifindex}"),
            Hop::Tunnel(_, addr) => format!("{range} in a tunnel to {addr}"),
        });
        (hops.collect(), wanted)
    }

    #[test]
    fn what_is_on_a_link_goes_straight_and_the_rest_in_a_tunnel() {
        let near = [
            "10.244.2.0/24 via 192.0.2.2 over 2",
            "fd10:244:2::/64 via 2001:db8::2 over 2",
        ];
        let far = [
            "10.244.3.0/24 in a tunnel to 198.51.100.3",
            "fd10:244:3::/64 in a tunnel to 198.51.100.3",
        ];
        let (hops, auto) = words(Overlay::Auto);
        assert_eq!(hops, [near[0], far[0], near[1], far[1]]);
        assert_eq!(auto.node.mtu, Some(1450));
        assert_eq!(auto.node.pod_cidrs.len(), 2);
        let said: Vec<&String> = auto.unreachable.iter().collect();
        assert_eq!(
            said,
            [
                "mute: its object names no InternalIP",
                "twin: its range 10.244.1.128/25 is this node's, too"
            ]
        );

        let (hops, off) = words(Overlay::Off);
        assert_eq!(hops, near);
        assert_eq!((off.node.mtu, off.end), (Some(1500), None));
        assert!(
            off.unreachable
                .iter()
                .any(|why| why.starts_with("far: 198.51.100.3 is on no link"))
        );

        let (hops, vxlan) = words(Overlay::Vxlan);
        assert_eq!(hops[0], "10.244.2.0/24 in a tunnel to 192.0.2.2");
        assert_eq!(hops.len(), 4);
        assert_eq!(vxlan.end, auto.end);
    }

    #[test]
    fn both_ends_of_a_tunnel_agree() {
        let here = wanted("a", &nodes(), &host(), Overlay::Vxlan).unwrap();
        let there = wanted("near", &nodes(), &host(), Overlay::Vxlan).unwrap();
        let range: IpNet = "10.244.1.0/24".parse().unwrap();
        let Hop::Tunnel(address, remote) = there.hops[&range] else {
            panic!("no tunnel");
        };
        assert_eq!(
            Some((address, remote)),
            here.end.map(|end| (end.hardware_address, end.local))
        );
        assert_ne!(
            here.end.unwrap().hardware_address,
            there.end.unwrap().hardware_address
        );
    }

    #[test]
    fn a_node_that_is_not_there_wants_nothing() {
        assert_eq!(wanted("b", &nodes(), &host(), Overlay::Auto), None);
        let lonely = BTreeMap::from([("a".to_owned(), node(&[], &[]))]);
        let wanted = wanted("a", &lonely, &Host::default(), Overlay::Auto).unwrap();
        assert_eq!(
            (wanted.node.mtu, wanted.hops.len(), wanted.end),
            (Some(1500), 0, None)
        );
    }
}
