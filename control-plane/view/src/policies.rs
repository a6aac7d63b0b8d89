//! Policies, Pods and Namespaces folded into the world that policies are decided on.

mod read;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::Protocol;
use model::policy::{HostPod, Node, Peer, Peers, Pod, PodKey, Policy, PolicyKey, World};

use crate::event::{Event, Listing};
use crate::finding::{port_number, usable};
use crate::objects;
use crate::service::moment;

pub use read::{PolicyFindings, cluster_network_policy, network_policy};

/// What the watches said so far.
#[derive(Debug, Default)]
pub struct Policies {
    node_name: String,
    world: World,
    findings: BTreeMap<PolicyKey, PolicyFindings>,
    changed: bool,
    namespaced: Listing<PolicyKey>,
    cluster: Listing<PolicyKey>,
    /// Nobody serves ClusterNetworkPolicies.
    no_cluster: bool,
    pods: Listing<PodKey>,
    namespaces: Listing<Arc<str>>,
    nodes: Listing<Arc<str>>,
}

impl Policies {
    /// Nothing known yet. Pods on the node `node_name` are local.
    #[must_use]
    pub fn new(node_name: &str) -> Self {
        Policies {
            node_name: node_name.to_owned(),
            ..Policies::default()
        }
    }

    /// Folds what the watch of NetworkPolicies said.
    pub fn network_policy(&mut self, event: Event<objects::NetworkPolicy>) {
        match event {
            Event::Restarted => {
                let namespaced = |key: &&PolicyKey| matches!(key, PolicyKey::Namespaced(..));
                let known = self.world.policies.keys().filter(namespaced);
                self.namespaced.restart(known.cloned());
            }
            Event::Applied(object) => {
                let (key, policy, findings) = network_policy(&object);
                self.namespaced.mention(&key);
                self.put(key, policy, findings);
            }
            Event::Deleted { namespace, name } => {
                let key = PolicyKey::Namespaced(namespace.into(), name.into());
                self.namespaced.mention(&key);
                self.forget(&key);
            }
            Event::Synced => {
                self.changed |= !self.namespaced.complete_once();
                for key in self.namespaced.finish() {
                    self.forget(&key);
                }
            }
        }
    }

    /// Folds what the watch of ClusterNetworkPolicies said.
    pub fn cluster_network_policy(&mut self, event: Event<objects::ClusterNetworkPolicy>) {
        match event {
            Event::Restarted => {
                let cluster = |key: &&PolicyKey| matches!(key, PolicyKey::Cluster(_));
                let known = self.world.policies.keys().filter(cluster);
                self.cluster.restart(known.cloned());
            }
            Event::Applied(object) => {
                let (key, policy, findings) = cluster_network_policy(&object);
                self.cluster.mention(&key);
                self.put(key, policy, findings);
            }
            Event::Deleted { namespace: _, name } => {
                let key = PolicyKey::Cluster(name.into());
                self.cluster.mention(&key);
                self.forget(&key);
            }
            Event::Synced => {
                self.changed |= !self.cluster.complete_once();
                for key in self.cluster.finish() {
                    self.forget(&key);
                }
            }
        }
    }

    /// Says whether anybody serves ClusterNetworkPolicies. Where nobody does there are none.
    pub fn serves_cluster_policies(&mut self, served: bool) {
        if !served {
            let cluster = |key: &PolicyKey| matches!(key, PolicyKey::Cluster(_));
            let before = self.world.policies.len();
            self.world.policies.retain(|key, _| !cluster(key));
            self.findings.retain(|key, _| !cluster(key));
            self.world.altered.retain(|key| !cluster(key));
            self.changed |= before != self.world.policies.len();
            self.cluster = Listing::default();
        }
        self.changed |= self.no_cluster == served;
        self.no_cluster = !served;
    }

    /// Folds what the watch of all Pods said.
    pub fn pod(&mut self, event: Event<objects::Pod>) {
        match event {
            Event::Restarted => {
                let known = self.world.pods.keys().chain(self.world.host_pods.keys());
                self.pods.restart(known.cloned());
            }
            Event::Applied(object) => {
                let key = PodKey {
                    namespace: object.metadata.namespace.as_str().into(),
                    name: object.metadata.name.as_str().into(),
                };
                self.pods.mention(&key);
                self.note_host_pod(&key, &object);
                match pod(&object, &self.node_name) {
                    Some(pod) if self.world.pods.get(&key) == Some(&pod) => {}
                    Some(pod) => {
                        self.world.pods.insert(key, pod);
                        self.changed = true;
                    }
                    None => self.forget_pod(&key),
                }
            }
            Event::Deleted { namespace, name } => {
                let key = PodKey {
                    namespace: namespace.into(),
                    name: name.into(),
                };
                self.pods.mention(&key);
                self.changed |= self.world.host_pods.remove(&key).is_some();
                self.forget_pod(&key);
            }
            Event::Synced => {
                self.changed |= !self.pods.complete_once();
                for key in self.pods.finish() {
                    self.changed |= self.world.host_pods.remove(&key).is_some();
                    self.forget_pod(&key);
                }
            }
        }
    }

    /// Folds what the watch of Namespaces said.
    pub fn namespace(&mut self, event: Event<objects::Namespace>) {
        let held = &mut self.world.namespaces;
        self.changed |= fold(event, &mut self.namespaces, held, |object| {
            (object.metadata.name.into(), object.metadata.labels)
        });
    }

    /// Folds what the watch of Nodes said.
    pub fn node(&mut self, event: Event<objects::Node>) {
        let held = &mut self.world.nodes;
        self.changed |= fold(event, &mut self.nodes, held, |object| {
            let addresses = object.status.addresses.iter();
            let node = Node {
                addresses: addresses
                    .filter_map(|it| usable(&it.address).ok())
                    .collect(),
                labels: object.metadata.labels,
            };
            (object.metadata.name.into(), node)
        });
    }

    /// Whether every policy is known: before that, one that is not known may still hold.
    #[must_use]
    pub fn policies_synced(&self) -> bool {
        self.namespaced.complete_once() && (self.no_cluster || self.cluster.complete_once())
    }

    /// Whether there are policies, so that pods and namespaces are asked for.
    #[must_use]
    pub fn asks_for_pods(&self) -> bool {
        !self.world.policies.is_empty()
    }

    /// Whether a policy is about nodes, so that they are asked for.
    #[must_use]
    pub fn asks_for_nodes(&self) -> bool {
        let rules = self
            .world
            .policies
            .values()
            .flat_map(|policy| &policy.egress);
        rules.flatten().any(|rule| match &rule.peers {
            Peers::All => false,
            Peers::Some(peers) => peers.iter().any(|peer| matches!(peer, Peer::Nodes(_))),
        })
    }

    /// Whether what is known can be decided on.
    #[must_use]
    pub fn synced(&self) -> bool {
        let pods = self.pods.complete_once() && self.namespaces.complete_once();
        self.policies_synced()
            && (pods || !self.asks_for_pods())
            && (self.nodes.complete_once() || !self.asks_for_nodes())
    }

    /// Whether anything changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What is known.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What could not be understood, by policy.
    #[must_use]
    pub fn findings(&self) -> &BTreeMap<PolicyKey, PolicyFindings> {
        &self.findings
    }

    /// Pods of this node that a policy selects and that use the node's network.
    pub fn host_pods<'a>(
        &'a self,
        policy: &'a Policy,
    ) -> impl Iterator<Item = (&'a PodKey, &'a HostPod)> {
        let world = &self.world;
        let host_pods = world.host_pods.iter();
        host_pods.filter(move |(key, host)| world.selects(policy, key, &host.pod))
    }

    fn note_host_pod(&mut self, key: &PodKey, object: &objects::Pod) {
        let ended = matches!(object.status.phase.as_str(), "Succeeded" | "Failed");
        let is_one = object.spec.host_network && !ended && object.spec.node_name == self.node_name;
        if !is_one {
            self.changed |= self.world.host_pods.remove(key).is_some();
            return;
        }
        let host = HostPod {
            uid: cgroup_uid(object).to_owned(),
            pod: read_pod(object, &self.node_name),
        };
        if self.world.host_pods.get(key) != Some(&host) {
            self.world.host_pods.insert(key.clone(), host);
            self.changed = true;
        }
    }

    fn put(&mut self, key: PolicyKey, policy: Policy, findings: PolicyFindings) {
        if findings.is_empty() {
            self.findings.remove(&key);
            self.world.altered.remove(&key);
        } else {
            self.findings.insert(key.clone(), findings);
            self.world.altered.insert(key.clone());
        }
        if self.world.policies.get(&key) != Some(&policy) {
            self.world.policies.insert(key, policy);
            self.changed = true;
        }
    }

    fn forget(&mut self, key: &PolicyKey) {
        self.findings.remove(key);
        self.world.altered.remove(key);
        self.changed |= self.world.policies.remove(key).is_some();
    }

    fn forget_pod(&mut self, key: &PodKey) {
        self.changed |= self.world.pods.remove(key).is_some();
    }
}

/// Folds what a watch said of objects that their names tell apart; whether that changed anything.
fn fold<T, V: PartialEq>(
    event: Event<T>,
    listing: &mut Listing<Arc<str>>,
    held: &mut BTreeMap<Arc<str>, V>,
    read: impl FnOnce(T) -> (Arc<str>, V),
) -> bool {
    match event {
        Event::Restarted => {
            listing.restart(held.keys().cloned());
            false
        }
        Event::Applied(object) => {
            let (name, value) = read(object);
            listing.mention(&name);
            let differs = held.get(&name) != Some(&value);
            if differs {
                held.insert(name, value);
            }
            differs
        }
        Event::Deleted { namespace: _, name } => {
            let name: Arc<str> = name.into();
            listing.mention(&name);
            held.remove(&name).is_some()
        }
        Event::Synced => {
            let first = !listing.complete_once();
            let gone = listing.finish();
            let removed = gone.iter().filter(|name| held.remove(*name).is_some());
            removed.count() > 0 || first
        }
    }
}

/// Reads a pod; `None` for one that has no addresses of its own, not yet or no more.
fn pod(object: &objects::Pod, node_name: &str) -> Option<Pod> {
    let ended = matches!(object.status.phase.as_str(), "Succeeded" | "Failed");
    if object.spec.host_network || ended {
        return None;
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    let listed = object.status.pod_ips.iter().map(|ip| ip.ip.as_str());
    for addr in listed.chain([object.status.pod_ip.as_str()]) {
        if let Ok(addr) = usable(addr)
            && !addresses.contains(&addr)
        {
            addresses.push(addr);
        }
    }
    (!addresses.is_empty()).then(|| Pod {
        addresses,
        ..read_pod(object, node_name)
    })
}

/// Reads what a pod has whose addresses are its own or not.
fn read_pod(object: &objects::Pod, node_name: &str) -> Pod {
    let sidecars = object.spec.init_containers.iter();
    let sidecars = sidecars.filter(|container| container.restart_policy == "Always");
    let containers = object.spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| &container.ports);
    let named = ports
        .filter(|port| !port.name.is_empty())
        .filter_map(|port| {
            let number = port_number(port.container_port)?;
            Some((port.name.as_str().into(), protocol(&port.protocol)?, number))
        });
    Pod {
        created: moment(object.metadata.creation_timestamp.as_deref()),
        labels: object.metadata.labels.clone(),
        addresses: Vec::new(),
        local: object.spec.node_name == node_name,
        named_ports: named.collect(),
    }
}

/// The identifier that kubelet names a pod's cgroup after. Of a pod that it knows from elsewhere than the API server,
/// what stands there is a mirror with an identifier of its own.
#[must_use]
pub fn cgroup_uid(object: &objects::Pod) -> &str {
    let annotations = &object.metadata.annotations;
    match annotations.get("kubernetes.io/config.mirror") {
        Some(uid) => uid,
        None => &object.metadata.uid,
    }
}

/// Reads a protocol that policies know.
fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}
