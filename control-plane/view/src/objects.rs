//! Typed views of the objects that the platform reads: the fields that somebody asks for and no others, each
//! optional or defaulted, `null` read as absent. What is unknown is skipped, so a view is never written back.

mod policies;
mod volumes;

use std::collections::BTreeMap;

use api::Kind;
use serde::{Deserialize, Deserializer};

pub use policies::{
    ClusterNetworkPolicy, ClusterNetworkPolicyPeer, ClusterNetworkPolicyPort,
    ClusterNetworkPolicyPorts, ClusterNetworkPolicyProtocol, ClusterNetworkPolicyRule,
    ClusterNetworkPolicySpec, IpBlock, LabelSelector, LabelSelectorRequirement, NamespacedPod,
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec, PortRange,
};
pub use volumes::{ClaimVolumeSource, EphemeralVolumeSource, Volume};

/// `v1` Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
    /// What was given.
    #[serde(deserialize_with = "or_default")]
    pub status: ServiceStatus,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(deserialize_with = "or_default")]
    pub address_type: String,
    /// What answers.
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that every endpoint of the slice answers on.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
}

/// `v1` Endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// Addresses with the ports that they share.
    #[serde(deserialize_with = "or_default")]
    pub subsets: Vec<EndpointSubset>,
}

/// `v1` Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    /// What the node says of itself.
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// `v1` Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// What became of it.
    #[serde(deserialize_with = "or_default")]
    pub status: PodStatus,
}

/// `v1` Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What keeps it from being removed.
    #[serde(deserialize_with = "or_default")]
    pub spec: NamespaceSpec,
    /// Its phase.
    #[serde(deserialize_with = "or_default")]
    pub status: NamespaceStatus,
}

macro_rules! kind {
    ($view:ident, $group:literal, $plural:literal, $namespaced:literal) => {
        impl Kind for $view {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = "v1";
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

kind!(Service, "", "services", true);
kind!(EndpointSlice, "discovery.k8s.io", "endpointslices", true);
kind!(Endpoints, "", "endpoints", true);
kind!(Node, "", "nodes", false);
kind!(Pod, "", "pods", true);
kind!(Namespace, "", "namespaces", false);

/// `multicluster.x-k8s.io/v1alpha1` ServiceImport (KEP-1645): a Service that some clusters of a set export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceImport {
    /// Object metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What was imported.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceImportSpec,
}

/// `spec` of a ServiceImport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceImportSpec {
    /// `ClusterSetIP` or `Headless`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub type_: String,
    /// Addresses in the cluster set; none when headless.
    #[serde(deserialize_with = "or_default")]
    pub ips: Vec<String>,
    /// Ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
}

impl Kind for ServiceImport {
    const GROUP: &'static str = "multicluster.x-k8s.io";
    const VERSION: &'static str = "v1alpha1";
    const KIND: &'static str = "ServiceImport";
    const PLURAL: &'static str = "serviceimports";
    const NAMESPACED: bool = true;
}

impl Object for ServiceImport {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// What every view has.
pub trait Object: Kind {
    /// The object's metadata.
    fn meta(&self) -> &ObjectMeta;
}

/// Metadata of any object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Unique within kind and namespace.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Empty for objects of the whole cluster.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Unique over all time.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    /// Opaque; changes with every write.
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
    /// Changes with every write of the spec.
    #[serde(deserialize_with = "or_default")]
    pub generation: i64,
    /// RFC 3339, UTC.
    pub creation_timestamp: Option<String>,
    /// RFC 3339, UTC: set while deletion waits for something.
    pub deletion_timestamp: Option<String>,
    /// How long deletion waits for a pod to stop; zero when it waits no more.
    pub deletion_grace_period_seconds: Option<i64>,
    /// What selectors match.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// What selectors do not match.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// What this object goes away with.
    #[serde(deserialize_with = "or_default")]
    pub owner_references: Vec<OwnerReference>,
    /// Who must agree before the object goes.
    #[serde(deserialize_with = "or_default")]
    pub finalizers: Vec<String>,
}

/// An object that another one goes away with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    /// Group and version.
    #[serde(deserialize_with = "or_default")]
    pub api_version: String,
    /// As in `kind:`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Name of the owner.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Uid of the owner.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    /// Whether this owner is the one that controls.
    #[serde(deserialize_with = "or_default")]
    pub controller: bool,
    /// Whether an owner that is deleted in the foreground waits for this object.
    #[serde(deserialize_with = "or_default")]
    pub block_owner_deletion: bool,
}

/// An object by name, for instance the pod behind an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ObjectReference {
    /// As in `kind:`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Its namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its uid.
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; empty means `ClusterIP`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub type_: String,
    /// The first of [`ServiceSpec::cluster_ips`], `None` for a headless Service.
    #[serde(rename = "clusterIP", deserialize_with = "or_default")]
    pub cluster_ip: String,
    /// One address per family.
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub cluster_ips: Vec<String>,
    /// Further addresses that the user routes to the nodes himself.
    #[serde(rename = "externalIPs", deserialize_with = "or_default")]
    pub external_ips: Vec<String>,
    /// `IPv4`, `IPv6`, or both in order of preference.
    #[serde(deserialize_with = "or_default")]
    pub ip_families: Vec<String>,
    /// `SingleStack`, `PreferDualStack` or `RequireDualStack`.
    #[serde(deserialize_with = "or_default")]
    pub ip_family_policy: String,
    /// Labels of the pods behind it; empty when somebody else writes the endpoints.
    #[serde(deserialize_with = "or_default")]
    pub selector: BTreeMap<String, String>,
    /// Ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
    /// `None` or `ClientIP`.
    #[serde(deserialize_with = "or_default")]
    pub session_affinity: String,
    /// How long affinity lasts.
    #[serde(deserialize_with = "or_default")]
    pub session_affinity_config: SessionAffinityConfig,
    /// Whether pods are endpoints before they are ready.
    #[serde(deserialize_with = "or_default")]
    pub publish_not_ready_addresses: bool,
    /// `Cluster` or `Local`.
    #[serde(deserialize_with = "or_default")]
    pub external_traffic_policy: String,
    /// `Cluster` or `Local`.
    #[serde(deserialize_with = "or_default")]
    pub internal_traffic_policy: String,
    /// `PreferClose`, `PreferSameZone` or `PreferSameNode`; empty where no endpoint is nearer than another.
    #[serde(deserialize_with = "or_default")]
    pub traffic_distribution: String,
    /// Prefixes of the clients that the load balancer serves; empty means all.
    #[serde(deserialize_with = "or_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Where a load balancer asks whether this node has endpoints of the Service; zero where it does not.
    #[serde(deserialize_with = "or_default")]
    pub health_check_node_port: i32,
    /// What the name of an `ExternalName` Service leads to.
    #[serde(deserialize_with = "or_default")]
    pub external_name: String,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Unique within the Service; may be empty when there is one port only.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`; empty means `TCP`.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    /// What clients connect to.
    #[serde(deserialize_with = "or_default")]
    pub port: i32,
    /// What pods listen on; absent means [`ServicePort::port`].
    pub target_port: Option<IntOrString>,
    /// What clients connect to on every node; zero when none was given.
    #[serde(deserialize_with = "or_default")]
    pub node_port: i32,
    /// What is spoken on this port.
    pub app_protocol: Option<String>,
}

/// `sessionAffinityConfig` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SessionAffinityConfig {
    /// For `ClientIP`.
    #[serde(rename = "clientIP", deserialize_with = "or_default")]
    pub client_ip: ClientIpConfig,
}

/// `sessionAffinityConfig.clientIP` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// Seconds; absent means 10,800.
    pub timeout_seconds: Option<i32>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    /// What a load balancer gave.
    #[serde(deserialize_with = "or_default")]
    pub load_balancer: LoadBalancerStatus,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Where the load balancer takes connections.
    #[serde(deserialize_with = "or_default")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// A point where a load balancer takes connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// An address; empty when only a name was given.
    #[serde(deserialize_with = "or_default")]
    pub ip: String,
    /// A name; empty when only an address was given.
    #[serde(deserialize_with = "or_default")]
    pub hostname: String,
    /// `VIP` or `Proxy`; empty means `VIP`. Behind `Proxy` nodes do not take the address over.
    #[serde(deserialize_with = "or_default")]
    pub ip_mode: String,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// Equivalent addresses of the same endpoint; proxies use the first.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// What state it is in.
    #[serde(deserialize_with = "or_default")]
    pub conditions: EndpointConditions,
    /// The host's name within a headless Service.
    pub hostname: Option<String>,
    /// The node that it runs on.
    pub node_name: Option<String>,
    /// The zone that it runs in.
    pub zone: Option<String>,
    /// Whose clients it is meant for.
    #[serde(deserialize_with = "or_default")]
    pub hints: EndpointHints,
    /// What is behind it.
    pub target_ref: Option<ObjectReference>,
}

/// `hints` of an endpoint: whose clients it is meant for. None means everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointHints {
    /// Zones.
    #[serde(deserialize_with = "or_default")]
    pub for_zones: Vec<EndpointHint>,
    /// Nodes.
    #[serde(deserialize_with = "or_default")]
    pub for_nodes: Vec<EndpointHint>,
}

/// A zone or a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointHint {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
}

/// `conditions` of an endpoint; absent means not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Takes new connections; absent means yes.
    pub ready: Option<bool>,
    /// Answers, though perhaps terminating; absent means as `ready`.
    pub serving: Option<bool>,
    /// Is going away; absent means no.
    pub terminating: Option<bool>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    /// The name of the Service's port.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`; empty means `TCP`.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    /// What endpoints listen on; absent means every port.
    pub port: Option<i32>,
    /// What is spoken on this port.
    pub app_protocol: Option<String>,
}

/// Addresses of an Endpoints object with the ports that they share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSubset {
    /// Those that are ready.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<EndpointAddress>,
    /// Those that are not.
    #[serde(deserialize_with = "or_default")]
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Ports of both.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
}

/// An address of an Endpoints object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointAddress {
    /// The address.
    #[serde(deserialize_with = "or_default")]
    pub ip: String,
    /// The host's name within a headless Service.
    pub hostname: Option<String>,
    /// The node that it runs on.
    pub node_name: Option<String>,
    /// What is behind it.
    pub target_ref: Option<ObjectReference>,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    /// Range of the node's pods.
    #[serde(rename = "podCIDR", deserialize_with = "or_default")]
    pub pod_cidr: String,
    /// Ranges of the node's pods, one per family.
    #[serde(rename = "podCIDRs", deserialize_with = "or_default")]
    pub pod_cidrs: Vec<String>,
    /// What keeps pods away.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
    /// Whether new pods stay away.
    #[serde(deserialize_with = "or_default")]
    pub unschedulable: bool,
}

/// What keeps pods away from a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub key: String,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// How it is reached.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<NodeAddress>,
    /// What state it is in.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<Condition>,
}

/// An address of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, `InternalDNS` or `ExternalDNS`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub type_: String,
    /// An address or a name.
    #[serde(deserialize_with = "or_default")]
    pub address: String,
}

/// A condition of any object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// What is judged.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// One word for programs.
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    /// RFC 3339, UTC: when the status last changed.
    #[serde(rename = "lastTransitionTime")]
    pub last_transition_time: Option<String>,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// The node that it is bound to.
    #[serde(deserialize_with = "or_default")]
    pub node_name: String,
    /// Name within [`PodSpec::subdomain`].
    #[serde(deserialize_with = "or_default")]
    pub hostname: String,
    /// The headless Service that names the pod.
    #[serde(deserialize_with = "or_default")]
    pub subdomain: String,
    /// Whether it shares the node's addresses.
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    /// What runs in it.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// What runs before; those that restart always keep running beside the containers.
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
    /// Those of its volumes that are claims.
    #[serde(deserialize_with = "volumes::claims")]
    pub volumes: Vec<Volume>,
}

/// A container of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Unique within the pod.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Ports that it tells of.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    #[serde(deserialize_with = "or_default")]
    pub restart_policy: String,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// What a Service's `targetPort` may name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The port.
    #[serde(deserialize_with = "or_default")]
    pub container_port: i32,
    /// `TCP`, `UDP` or `SCTP`; empty means `TCP`.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    /// The same on the node's addresses; zero where it is on the pod's alone.
    #[serde(deserialize_with = "or_default")]
    pub host_port: i32,
    /// Which of the node's addresses; empty means all.
    #[serde(rename = "hostIP", deserialize_with = "or_default")]
    pub host_ip: String,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
    /// What state it is in.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<Condition>,
    /// The first of [`PodStatus::pod_ips`].
    #[serde(rename = "podIP", deserialize_with = "or_default")]
    pub pod_ip: String,
    /// One address per family.
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pub pod_ips: Vec<PodIp>,
    /// The node's address.
    #[serde(rename = "hostIP", deserialize_with = "or_default")]
    pub host_ip: String,
}

/// An address of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    #[serde(deserialize_with = "or_default")]
    pub ip: String,
}

/// `spec` of a Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    /// Who must agree before the namespace goes.
    #[serde(deserialize_with = "or_default")]
    pub finalizers: Vec<String>,
}

/// `status` of a Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    /// `Active` or `Terminating`.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
}

/// A number or a name, as `targetPort` is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A name; or a number in quotation marks, which Kubernetes takes for a name.
    String(String),
}

/// Reads `null` as the default, for writers in whose language an empty list is null.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_and_absent_are_the_default() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": null, "managedFields": [{"manager": "x"}]},
            "addressType": "IPv4",
            "endpoints": null,
            "ports": [{"name": null, "protocol": null, "port": null}],
        }))
        .unwrap();
        assert_eq!(slice.metadata.name, "a");
        assert_eq!(slice.endpoints, []);
        assert_eq!(slice.ports, [EndpointPort::default()]);
        assert_eq!(
            serde_json::from_value::<Service>(json!({"spec": null})).unwrap(),
            Service::default()
        );
    }

    #[test]
    fn target_port_is_a_number_or_a_name() {
        let port = |target| -> Option<IntOrString> {
            serde_json::from_value::<ServicePort>(json!({"port": 80, "targetPort": target}))
                .unwrap()
                .target_port
        };
        assert_eq!(port(json!(8080)), Some(IntOrString::Int(8080)));
        assert_eq!(
            port(json!("http")),
            Some(IntOrString::String("http".into()))
        );
        assert_eq!(port(json!(null)), None);
    }
}
