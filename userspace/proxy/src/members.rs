//! The cluster's own addresses, as the programs are to know them: from what the Nodes say. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::members::flags::{HERE, KNOWN, NODE};
use abi::{Member, MemberKey};
use view::NodeRanges;

/// The bits before an IPv4 address that is mapped.
const MAPPED_BITS: u8 = 96;

/// The table of the cluster's addresses, as the node `here` has it.
pub(crate) fn members(
    nodes: &BTreeMap<String, NodeRanges>,
    here: &str,
) -> BTreeMap<MemberKey, Member> {
    let mut members = BTreeMap::new();
    for (name, node) in nodes {
        let here = if name == here { HERE } else { 0 };
        for range in &node.pod_cidrs {
            put(&mut members, range.addr(), Some(range.prefix_len()), here);
        }
        for addr in &node.addresses {
            put(&mut members, *addr, None, here | NODE);
        }
    }
    members
}

/// Notes a range of `len` bits, or one address.
fn put(members: &mut BTreeMap<MemberKey, Member>, addr: IpAddr, len: Option<u8>, flags: u32) {
    let (addr, len) = match addr {
        IpAddr::V4(addr) => (addr.to_ipv6_mapped(), MAPPED_BITS + len.unwrap_or(32)),
        IpAddr::V6(addr) => (addr, len.unwrap_or(128)),
    };
    let key = MemberKey {
        prefix_len: len.into(),
        addr: addr.octets(),
    };
    let member = members.entry(key).or_insert(Member { flags: KNOWN });
    member.flags |= flags;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_the_ranges_of_their_pods_are_told_apart() {
        let node = |address: &str, range: &str| NodeRanges {
            addresses: vec![address.parse().expect("an address")],
            pod_cidrs: vec![range.parse().expect("a range")],
        };
        let nodes = BTreeMap::from([
            ("a".to_owned(), node("192.0.2.1", "10.244.1.0/24")),
            ("b".to_owned(), node("2001:db8::2", "fd00:2::/64")),
        ]);
        let told = members(&nodes, "a");
        let words: Vec<String> = told
            .iter()
            .map(|(key, member)| {
                let addr = std::net::Ipv6Addr::from(key.addr);
                format!("{addr}/{} {}", key.prefix_len, member.flags & !KNOWN)
            })
            .collect();
        let (node, here) = (NODE, NODE | HERE);
        let mut expected = vec![
            format!("::ffff:10.244.1.0/120 {HERE}"),
            format!("::ffff:192.0.2.1/128 {here}"),
            format!("2001:db8::2/128 {node}"),
            "fd00:2::/64 0".to_owned(),
        ];
        expected.sort();
        let mut words = words;
        words.sort();
        assert_eq!(words, expected);
    }
}
