//! What is in the cluster, so that what pods send there keeps their addresses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::masquerade::{FAMILY_BITS, families, flags::PODS_HERE};
use abi::{InsideKey, Masquerade, family};
use ipnet::IpNet;
use view::NodeRanges;

/// The cluster's ranges: those of all nodes' pods, the nodes' own addresses, and `others`.
pub(super) fn inside(
    this: &str,
    nodes: &BTreeMap<String, NodeRanges>,
    others: &[IpNet],
) -> BTreeMap<InsideKey, u32> {
    let here: &[IpNet] = nodes.get(this).map_or(&[], |node| &node.pod_cidrs);
    let of_pods = nodes
        .values()
        .flat_map(|node| node.pod_cidrs.iter().copied());
    let of_nodes = nodes.values().flat_map(|node| &node.addresses);
    let all = of_pods
        .chain(of_nodes.map(|addr| IpNet::from(*addr)))
        .chain(others.iter().copied());
    all.map(|range| {
        // The longest range holds: one within this node's pods' is theirs, too.
        let pods = here.iter().any(|ours| ours.contains(&range));
        (key(&range), if pods { PODS_HERE } else { 0 })
    })
    .collect()
}

/// The families that pods of this node have addresses of.
pub(super) fn how(this: &str, nodes: &BTreeMap<String, NodeRanges>) -> Masquerade {
    let ranges = nodes.get(this).map(|node| node.pod_cidrs.iter());
    let families = ranges.into_iter().flatten().map(|range| match range {
        IpNet::V4(_) => families::V4,
        IpNet::V6(_) => families::V6,
    });
    Masquerade {
        families: families.fold(0, |all, family| all | family),
    }
}

fn key(range: &IpNet) -> InsideKey {
    let mut addr = [0; 16];
    let family = match range.network() {
        IpAddr::V4(network) => {
            addr[..4].copy_from_slice(&network.octets());
            family::V4
        }
        IpAddr::V6(network) => {
            addr = network.octets();
            family::V6
        }
    };
    InsideKey {
        prefix_len: FAMILY_BITS + u32::from(range.prefix_len()),
        family: family.into(),
        addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_nodes_and_what_was_named_are_inside() {
        let node = |addresses: &[&str], ranges: &[&str]| NodeRanges {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            pod_cidrs: ranges.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let nodes = BTreeMap::from([
            ("a".to_owned(), node(&["192.0.2.1"], &["10.244.1.0/24"])),
            (
                "b".to_owned(),
                node(
                    &["192.0.2.2", "2001:db8::2"],
                    &["10.244.2.0/24", "fd10:244:2::/64"],
                ),
            ),
        ]);
        let others = ["10.244.1.128/25", "0.0.0.0/0", "198.51.100.7/24"];
        let others: Vec<IpNet> = others.map(|text| text.parse().unwrap()).into();
        let of = |this: &str| {
            let expected = [
                ("10.244.1.0/24", this == "a"),
                ("10.244.2.0/24", this == "b"),
                ("fd10:244:2::/64", this == "b"),
                ("192.0.2.1/32", false),
                ("192.0.2.2/32", false),
                ("2001:db8::2/128", false),
                ("10.244.1.128/25", this == "a"),
                ("0.0.0.0/0", false),
                ("198.51.100.0/24", false),
            ];
            let expected = expected.map(|(range, here)| {
                let flags = if here { PODS_HERE } else { 0 };
                (key(&range.parse().unwrap()), flags)
            });
            assert_eq!(inside(this, &nodes, &others), expected.into(), "{this}");
            how(this, &nodes).families
        };
        assert_eq!(of("a"), families::V4);
        assert_eq!(of("b"), families::V4 | families::V6);
        assert_eq!(of("nobody"), 0);
    }
}
