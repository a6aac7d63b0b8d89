//! What is known of this node: its addresses, its zone, the ports that its pods take of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::{Backend, ServiceKey};

use super::Services;
use crate::event::Event;
use crate::host_ports::HostPorts;
use crate::node_ports::NodePortAddresses;
use crate::objects;
use crate::service::Declared;

/// Names the zone of a Node.
const ZONE: &str = "topology.kubernetes.io/zone";

impl Services {
    /// Folds what the watch of Nodes said; other nodes than the own one are passed over.
    pub fn node(&mut self, event: Event<objects::Node>) {
        match event {
            Event::Restarted => self
                .node_list
                .restart(std::iter::once(self.node.name.clone())),
            Event::Applied(node) => {
                self.node_list.mention(&node.metadata.name);
                if node.metadata.name == self.node.name {
                    self.node.leaving = is_leaving(&node);
                    self.set_zone(node.metadata.labels.get(ZONE).map_or("", String::as_str));
                    self.node_internal = of_type(&node, "InternalIP").collect();
                    self.node_own = node_addresses(&node);
                    self.node_changed();
                }
            }
            Event::Deleted { namespace: _, name } => {
                if name == self.node.name {
                    self.forget_node();
                }
            }
            Event::Synced => {
                if !self.node_list.finish().is_empty() {
                    self.forget_node();
                }
            }
        }
    }

    /// Says that a watch of this node's Pods is followed as well.
    pub fn follow_pods(&mut self) {
        self.follows_pods = true;
    }

    /// Waits for the watch of Pods no longer, which may be forbidden; what it says is folded all the same. Says whether
    /// it was waited for.
    pub fn stop_waiting_for_pods(&mut self) -> bool {
        std::mem::take(&mut self.follows_pods) && !self.pod_list.complete_once()
    }

    /// Folds what the watch of Pods said; those of other nodes are passed over.
    pub fn pod(&mut self, event: Event<objects::Pod>) {
        match event {
            Event::Restarted => self.pod_list.restart(self.host_ports.keys().cloned()),
            Event::Applied(pod) => {
                let key = self.pod_key(&pod.metadata.namespace, &pod.metadata.name);
                self.pod_list.mention(&key);
                match HostPorts::read(&pod, &self.node.name) {
                    Some(ports) if self.host_ports.get(&key) == Some(&ports) => {}
                    Some(ports) => {
                        self.host_ports.insert(key.clone(), ports);
                        self.changed.insert(key);
                    }
                    None => self.drop_pod(&key),
                }
            }
            Event::Deleted { namespace, name } => {
                let key = self.pod_key(&namespace, &name);
                self.pod_list.mention(&key);
                self.drop_pod(&key);
            }
            Event::Synced => {
                for key in self.pod_list.finish() {
                    self.drop_pod(&key);
                }
            }
        }
    }

    /// Replaces the addresses that were given beside the Node object's.
    pub fn set_given_addresses(&mut self, given: Vec<IpAddr>) {
        self.node_given = given;
        self.node_changed();
    }

    /// Says which of the node's addresses serve NodePorts.
    pub fn set_node_port_addresses(&mut self, addresses: NodePortAddresses) {
        self.node_ports = addresses;
        self.node_changed();
    }

    fn pod_key(&mut self, namespace: &str, name: &str) -> ServiceKey {
        self.key(namespace, &format!("{}{name}", ServiceKey::HOST_PORTS))
    }

    fn drop_pod(&mut self, key: &ServiceKey) {
        if self.host_ports.remove(key).is_some() {
            self.changed.insert(key.clone());
        }
    }

    fn forget_node(&mut self) {
        self.node.leaving = true;
        self.set_zone("");
        self.node_internal.clear();
        self.node_own.clear();
        self.node_changed();
    }

    fn set_zone(&mut self, zone: &str) {
        if self.node.zone == zone {
            return;
        }
        zone.clone_into(&mut self.node.zone);
        let hinted = self.slices.iter().filter(|(_, slices)| {
            let mut endpoints = slices.iter().flat_map(|(_, slice)| &slice.endpoints);
            endpoints.any(|endpoint| !endpoint.zone_hints.is_empty())
        });
        self.changed.extend(hinted.map(|(key, _)| key.clone()));
    }

    pub(super) fn node_changed(&mut self) {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for addr in self.node_own.iter().chain(&self.node_given) {
            if !addresses.contains(addr) {
                addresses.push(*addr);
            }
        }
        let node_port_addresses = self.node_ports.of(&addresses, &self.node_own);
        let loopback = self.node_ports.loopback();
        if node_port_addresses != self.node_port_addresses || loopback != self.node_port_loopback {
            self.node_port_addresses = node_port_addresses;
            self.node_port_loopback = loopback;
            let with_node_port = |d: &Declared| d.ports.iter().any(|p| p.node_port.is_some());
            let affected = self.declared.iter().filter(|(_, d)| with_node_port(d));
            self.changed.extend(affected.map(|(key, _)| key.clone()));
        }
        if addresses != self.node.addresses {
            self.node.addresses = addresses;
            self.changed.extend(self.host_ports.keys().cloned());
        }
        let here = self.node_internal.iter().chain(&self.node_given);
        let here: BTreeSet<IpAddr> = here.copied().collect();
        if here != self.node_here {
            let moved: BTreeSet<IpAddr> = here
                .symmetric_difference(&self.node_here)
                .copied()
                .collect();
            self.node_here = here;
            let led = self.slices.iter().filter(|(_, slices)| {
                let mut endpoints = slices.iter().flat_map(|(_, slice)| &slice.endpoints);
                endpoints.any(|endpoint| !endpoint.on_node && moved.contains(&endpoint.addr))
            });
            self.changed.extend(led.map(|(key, _)| key.clone()));
        }
    }

    /// Says of backends that nobody named a node for that they are here, where their address is this host's: what comes
    /// from outside for them must keep its source, as the host takes nothing from the wire that has its own address.
    /// The traffic policies go by the name of the node alone.
    pub(super) fn find_here(&self, backends: &mut [Backend]) {
        for backend in backends {
            backend.local |= !backend.on_node && self.node_here.contains(&backend.addr);
        }
    }
}

/// Whether load balancers should send nothing new to a node (KEP-3836).
fn is_leaving(node: &objects::Node) -> bool {
    const AUTOSCALER: &str = "ToBeDeletedByClusterAutoscaler";
    let mut taints = node.spec.taints.iter();
    node.metadata.deletion_timestamp.is_some() || taints.any(|taint| taint.key == AUTOSCALER)
}

/// Internal addresses first, so that what is translated carries one of these.
fn node_addresses(node: &objects::Node) -> Vec<IpAddr> {
    of_type(node, "InternalIP")
        .chain(of_type(node, "ExternalIP"))
        .collect()
}

fn of_type<'n>(node: &'n objects::Node, type_: &'static str) -> impl Iterator<Item = IpAddr> + 'n {
    let addresses = node.status.addresses.iter();
    let addresses = addresses.filter(move |a| a.type_ == type_);
    addresses
        .filter_map(|a| a.address.parse().ok())
        .filter(|addr: &IpAddr| !addr.is_loopback() && !addr.is_unspecified())
}
