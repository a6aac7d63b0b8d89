//! Views of NetworkPolicy and ClusterNetworkPolicy.

use std::collections::BTreeMap;

use api::Kind;
use serde::Deserialize;

use super::{IntOrString, Object, ObjectMeta, or_default};

/// `networking.k8s.io/v1` NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicy {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    #[serde(deserialize_with = "or_default")]
    pub spec: NetworkPolicySpec,
}

/// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicy {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What the administrator asks for.
    #[serde(deserialize_with = "or_default")]
    pub spec: ClusterNetworkPolicySpec,
}

macro_rules! kind {
    ($view:ident, $group:literal, $version:literal, $plural:literal, $namespaced:literal) => {
        impl Kind for $view {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = stringify!($view);
            const PLURAL: &'static str = $plural;
            const NAMESPACED: bool = $namespaced;
        }

        impl Object for $view {
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
        }
    };
}

kind!(
    NetworkPolicy,
    "networking.k8s.io",
    "v1",
    "networkpolicies",
    true
);
kind!(
    ClusterNetworkPolicy,
    "policy.networking.k8s.io",
    "v1alpha2",
    "clusternetworkpolicies",
    false
);

/// A `LabelSelector`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with one value each.
    #[serde(deserialize_with = "or_default")]
    pub match_labels: BTreeMap<String, String>,
    /// What else is asked.
    #[serde(deserialize_with = "or_default")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// One expression of a [`LabelSelector`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LabelSelectorRequirement {
    /// The label.
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    #[serde(deserialize_with = "or_default")]
    pub operator: String,
    /// What `In` and `NotIn` compare with.
    #[serde(deserialize_with = "or_default")]
    pub values: Vec<String>,
}

/// `spec` of a NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// Whom it selects.
    #[serde(deserialize_with = "or_default")]
    pub pod_selector: LabelSelector,
    /// What may reach them.
    #[serde(deserialize_with = "or_default")]
    pub ingress: Vec<NetworkPolicyIngressRule>,
    /// What they may reach.
    #[serde(deserialize_with = "or_default")]
    pub egress: Vec<NetworkPolicyEgressRule>,
    /// `Ingress`, `Egress`; empty where the rules tell.
    #[serde(deserialize_with = "or_default")]
    pub policy_types: Vec<String>,
}

/// What may reach pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicyIngressRule {
    /// The pods' ports; empty means all.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<NetworkPolicyPort>,
    /// Whose traffic; empty means everybody's.
    #[serde(deserialize_with = "or_default")]
    pub from: Vec<NetworkPolicyPeer>,
}

/// What pods may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicyEgressRule {
    /// The others' ports; empty means all.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<NetworkPolicyPort>,
    /// Whom; empty means everybody.
    #[serde(deserialize_with = "or_default")]
    pub to: Vec<NetworkPolicyPeer>,
}

/// Ports of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicyPort {
    /// Empty means `TCP`.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    /// The first, or its name; absent means all of the protocol.
    pub port: Option<IntOrString>,
    /// The last of a range.
    pub end_port: Option<i32>,
}

/// The other end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicyPeer {
    /// Pods; of the policy's namespace where no other is selected.
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces.
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses.
    pub ip_block: Option<IpBlock>,
}

/// Addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IpBlock {
    /// These.
    #[serde(deserialize_with = "or_default")]
    pub cidr: String,
    /// Without these.
    #[serde(deserialize_with = "or_default")]
    pub except: Vec<String>,
}

/// `spec` of a ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`.
    #[serde(deserialize_with = "or_default")]
    pub tier: String,
    /// Within the tier; the lower is asked first.
    #[serde(deserialize_with = "or_default")]
    pub priority: i32,
    /// Whom it is about.
    #[serde(deserialize_with = "or_default")]
    pub subject: ClusterNetworkPolicyPeer,
    /// What may reach them, the first that matches decides.
    #[serde(deserialize_with = "or_default")]
    pub ingress: Vec<ClusterNetworkPolicyRule>,
    /// What they may reach.
    #[serde(deserialize_with = "or_default")]
    pub egress: Vec<ClusterNetworkPolicyRule>,
}

/// A rule of a ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicyRule {
    /// `Accept`, `Deny` or `Pass`.
    #[serde(deserialize_with = "or_default")]
    pub action: String,
    /// Whose traffic; of an ingress rule.
    #[serde(deserialize_with = "or_default")]
    pub from: Vec<ClusterNetworkPolicyPeer>,
    /// Whom; of an egress rule.
    #[serde(deserialize_with = "or_default")]
    pub to: Vec<ClusterNetworkPolicyPeer>,
    /// Ports; absent means everything.
    #[serde(deserialize_with = "or_default")]
    pub protocols: Vec<ClusterNetworkPolicyProtocol>,
}

/// The other end of a rule, or the subject of a policy. One field is set; what this view does not know leaves none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicyPeer {
    /// All pods of namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of namespaces.
    pub pods: Option<NamespacedPod>,
    /// Addresses.
    #[serde(deserialize_with = "or_default")]
    pub networks: Vec<String>,
    /// Nodes; of an egress rule.
    pub nodes: Option<LabelSelector>,
    /// Fields that are not known here, by name.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

/// Pods of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NamespacedPod {
    /// The namespaces.
    #[serde(deserialize_with = "or_default")]
    pub namespace_selector: LabelSelector,
    /// The pods.
    #[serde(deserialize_with = "or_default")]
    pub pod_selector: LabelSelector,
}

/// Ports of a rule. One field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterNetworkPolicyProtocol {
    /// Of TCP.
    pub tcp: Option<ClusterNetworkPolicyPorts>,
    /// Of UDP.
    pub udp: Option<ClusterNetworkPolicyPorts>,
    /// Of SCTP.
    pub sctp: Option<ClusterNetworkPolicyPorts>,
    /// By name, of whatever protocol.
    #[serde(deserialize_with = "or_default")]
    pub destination_named_port: String,
}

/// Ports of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterNetworkPolicyPorts {
    /// Absent means all.
    pub destination_port: Option<ClusterNetworkPolicyPort>,
}

/// A port, or some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicyPort {
    /// One.
    #[serde(deserialize_with = "or_default")]
    pub number: i32,
    /// Several.
    pub range: Option<PortRange>,
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PortRange {
    /// The first.
    #[serde(deserialize_with = "or_default")]
    pub start: i32,
    /// The last.
    #[serde(deserialize_with = "or_default")]
    pub end: i32,
}
