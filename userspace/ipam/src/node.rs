//! What the agent of a node tells the plugin, in a file.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Range;

/// What pods of this node may have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeFile {
    /// `spec.podCIDRs` of the Node object.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// Largest packet that gets to every other node as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The agent serves the host ports that Pods of this node ask for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_ports: bool,
}

impl NodeFile {
    /// The ranges, a set for each family: a pod has an address of each set.
    #[must_use]
    pub fn sets(&self) -> Vec<Vec<Range>> {
        let (v4, v6): (Vec<Range>, Vec<Range>) = self
            .pod_cidrs
            .iter()
            .map(|cidr| Range::whole(*cidr))
            .partition(|range| !range.is_ipv6());
        let sets = [v4, v6].into_iter();
        sets.filter(|set| !set.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_for_each_family() {
        let cases = [
            (r#"{}"#, vec![]),
            (
                r#"{"podCIDRs":["10.1.0.0/24"],"mtu":1450,"hostPorts":true,"x":1}"#,
                vec![1],
            ),
            (
                r#"{"podCIDRs":["fd00::/64","10.1.0.0/24","10.2.0.0/24"]}"#,
                vec![2, 1],
            ),
        ];
        for (text, expected) in cases {
            let file: NodeFile = serde_json::from_str(text).unwrap();
            let sizes: Vec<usize> = file.sets().iter().map(Vec::len).collect();
            assert_eq!(sizes, expected, "{text}");
            let again = serde_json::to_string(&file).unwrap();
            assert_eq!(serde_json::from_str::<NodeFile>(&again).unwrap(), file);
        }
    }
}
