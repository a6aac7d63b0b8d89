//! Where the pods of each node are: the ranges of addresses that its Node object gives it, and how it is reached.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::objects::Node;
use crate::{Event, Listing};

/// A node, as far as its pods' addresses go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeRanges {
    /// Its InternalIPs, in the order of its object.
    pub addresses: Vec<IpAddr>,
    /// Its podCIDRs; those that cannot be read are left out.
    pub pod_cidrs: Vec<IpNet>,
}

impl From<&Node> for NodeRanges {
    fn from(node: &Node) -> NodeRanges {
        let internal = node.status.addresses.iter();
        let internal = internal.filter(|address| address.type_ == "InternalIP");
        let all = &node.spec.pod_cidrs;
        let ranges = match all.as_slice() {
            [] => std::slice::from_ref(&node.spec.pod_cidr),
            all => all,
        };
        NodeRanges {
            addresses: internal
                .filter_map(|address| address.address.parse().ok())
                .collect(),
            pod_cidrs: ranges
                .iter()
                .filter_map(|range| range.parse::<IpNet>().ok())
                .map(|range| range.trunc())
                .collect(),
        }
    }
}

/// Every node, folded from what a watch says.
#[derive(Debug, Default)]
pub struct PodRanges {
    nodes: BTreeMap<String, NodeRanges>,
    listing: Listing<String>,
}

impl PodRanges {
    /// Takes in what the watch says; returns whether anything is different now.
    pub fn node(&mut self, event: Event<Node>) -> bool {
        match event {
            Event::Restarted => {
                self.listing.restart(self.nodes.keys().cloned());
                false
            }
            Event::Applied(node) => {
                let ranges = NodeRanges::from(&node);
                let name = node.metadata.name;
                self.listing.mention(&name);
                self.nodes.insert(name, ranges.clone()) != Some(ranges)
            }
            Event::Deleted { name, .. } => {
                self.listing.mention(&name);
                self.nodes.remove(&name).is_some()
            }
            Event::Synced => {
                let first = !self.listing.complete_once();
                let gone = self.listing.finish();
                gone.iter().for_each(|name| drop(self.nodes.remove(name)));
                first || !gone.is_empty()
            }
        }
    }

    /// Every node by its name, once a list was complete.
    #[must_use]
    pub fn nodes(&self) -> Option<&BTreeMap<String, NodeRanges>> {
        self.listing.complete_once().then_some(&self.nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        serde_json::from_str(text).unwrap_or_default()
    }

    #[test]
    fn nodes_come_and_go() {
        let mut ranges = PodRanges::default();
        let a = || {
            node(
                r#"{"metadata":{"name":"a"},"spec":{"podCIDR":"10.1.0.7/24","podCIDRs":["10.1.0.7/24","fd00::/64","x"]},
                "status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"},{"type":"Hostname","address":"a"}]}}"#,
            )
        };
        let b = node(r#"{"metadata":{"name":"b"},"spec":{"podCIDR":"10.2.0.0/24"}}"#);
        ranges.node(Event::Restarted);
        assert!(ranges.node(Event::Applied(a())) && ranges.node(Event::Applied(b)));
        assert_eq!(ranges.nodes(), None, "not all of them are known yet");
        assert!(ranges.node(Event::Synced));
        let nodes = ranges.nodes().unwrap();
        let words = |name: &str| {
            let NodeRanges {
                addresses,
                pod_cidrs,
            } = &nodes[name];
            format!("{addresses:?} {pod_cidrs:?}")
        };
        assert_eq!(words("a"), "[192.0.2.1] [10.1.0.0/24, fd00::/64]");
        assert_eq!(words("b"), "[] [10.2.0.0/24]");
        assert!(!ranges.node(Event::Applied(a())), "nothing new");
        ranges.node(Event::Restarted);
        assert!(!ranges.node(Event::Applied(a())));
        assert!(ranges.node(Event::Synced), "b is gone");
        assert_eq!(ranges.nodes().map(BTreeMap::len), Some(1));
        let gone = Event::Deleted {
            namespace: String::new(),
            name: "a".to_owned(),
        };
        assert!(ranges.node(gone));
    }
}
