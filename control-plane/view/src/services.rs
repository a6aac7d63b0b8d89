//! Services, EndpointSlices, the own Node and its Pods folded into model values: one change costs one Service.

mod host;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{NodeView, ServiceKey};

use crate::event::{Event, Listing};
use crate::finding::Finding;
use crate::host_ports::HostPorts;
use crate::node_ports::NodePortAddresses;
use crate::objects;
use crate::service::Declared;
use crate::slice::Slice;

/// What the watches said so far, as a proxy sees it.
#[derive(Debug, Default)]
pub struct Services {
    node: NodeView,
    node_own: Vec<IpAddr>,
    node_internal: Vec<IpAddr>,
    node_given: Vec<IpAddr>,
    /// Addresses that are this host's own: an external one may be a translator's before it.
    node_here: BTreeSet<IpAddr>,
    node_ports: NodePortAddresses,
    /// Addresses that serve NodePorts; a loopback one serves the host's own sockets.
    node_port_addresses: Vec<IpAddr>,
    node_port_loopback: Vec<IpAddr>,
    declared: BTreeMap<ServiceKey, Declared>,
    /// By name, in order. Nearly all services have one, so this is no map.
    slices: BTreeMap<ServiceKey, Vec<(Arc<str>, Slice)>>,
    slice_owners: BTreeMap<SliceKey, ServiceKey>,
    changed: BTreeSet<ServiceKey>,
    news: News,
    /// Each namespace once: many objects share it.
    namespaces: BTreeSet<Arc<str>>,
    /// Pods of this node with host ports, by [`Services::pod_key`].
    host_ports: BTreeMap<ServiceKey, HostPorts>,
    follows_pods: bool,
    pod_list: Listing<ServiceKey>,
    service_list: Listing<ServiceKey>,
    slice_list: Listing<SliceKey>,
    node_list: Listing<String>,
}

/// What became of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: ServiceKey,
    /// What is wanted now; `None` when it is gone or not ours to balance.
    pub service: Option<model::Service>,
    /// What could not be understood of it, all of it: the list before is void.
    pub findings: Vec<Finding>,
    /// What load balancers ask this node about it.
    pub health_check: Option<HealthCheck>,
}

/// How much the watches said, and what made them say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Services that changed.
    pub services: u64,
    /// EndpointSlices that changed.
    pub slices: u64,
    /// What the slices were changed for.
    pub triggers: Vec<Trigger>,
}

/// What an EndpointSlice was changed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Whether its endpoints are of IPv4.
    pub ipv4: bool,
    /// When it happened, RFC 3339, as the slice's controller noted it.
    pub at: String,
}

/// What load balancers ask a node about a Service whose external traffic stays on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port where they ask.
    pub port: u16,
    /// The addresses of the node where they ask; `None` for all of them.
    pub addresses: Option<Vec<IpAddr>>,
    /// How many endpoints of the node are ready.
    pub local_endpoints: usize,
}

type SliceKey = (Arc<str>, Arc<str>);

/// Annotation of an EndpointSlice: when that happened which it was changed for.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Triggers that are remembered between two calls of [`Services::take_news`].
const TRIGGERS_MAX: usize = 10_000;

impl Services {
    /// Nothing known yet. Endpoints on the node `node_name` are local; NodePorts are served on its addresses
    /// and on `given` ones.
    #[must_use]
    pub fn new(node_name: &str, given: Vec<IpAddr>) -> Self {
        let mut services = Services {
            node: NodeView {
                name: node_name.to_owned(),
                ..NodeView::default()
            },
            node_given: given,
            ..Services::default()
        };
        services.node_changed();
        services
    }

    /// Folds what the watch of Services said.
    pub fn service(&mut self, event: Event<objects::Service>) {
        match event {
            Event::Restarted => self.service_list.restart(self.declared.keys().cloned()),
            Event::Applied(service) => {
                let key = self.key(&service.metadata.namespace, &service.metadata.name);
                self.service_list.mention(&key);
                match Declared::read(&service) {
                    Some(declared) if self.declared.get(&key) == Some(&declared) => {}
                    Some(declared) => {
                        self.declared.insert(key.clone(), declared);
                        self.news.services += 1;
                        self.changed.insert(key);
                    }
                    None => self.drop_service(&key),
                }
            }
            Event::Deleted { namespace, name } => {
                let key = ServiceKey::new(&namespace, &name);
                self.service_list.mention(&key);
                self.drop_service(&key);
            }
            Event::Synced => {
                for key in self.service_list.finish() {
                    self.drop_service(&key);
                }
            }
        }
    }

    /// Folds what the watch of EndpointSlices said.
    pub fn slice(&mut self, event: Event<objects::EndpointSlice>) {
        match event {
            Event::Restarted => self.slice_list.restart(self.slice_owners.keys().cloned()),
            Event::Applied(slice) => {
                let namespace = self.namespace(&slice.metadata.namespace);
                let key: SliceKey = (namespace, slice.metadata.name.as_str().into());
                self.slice_list.mention(&key);
                let trigger = slice.metadata.annotations.get(TRIGGER).cloned();
                let Some((service, slice)) = Slice::read(&slice, &self.node.name) else {
                    return self.drop_slice(&key);
                };
                let service = self.key(&key.0, service);
                if self.slice_owners.get(&key).is_some_and(|s| *s != service) {
                    self.drop_slice(&key);
                }
                let trigger = trigger.map(|at| Trigger {
                    ipv4: slice.ipv4,
                    at,
                });
                let of_service = self.slices.entry(service.clone()).or_default();
                match of_service.binary_search_by(|(name, _)| name.cmp(&key.1)) {
                    Ok(at) if of_service[at].1 == slice => return,
                    Ok(at) => of_service[at].1 = slice,
                    Err(at) => {
                        of_service.reserve_exact(1);
                        of_service.insert(at, (key.1.clone(), slice));
                    }
                }
                self.slice_owners.insert(key, service.clone());
                self.changed.insert(service);
                self.news.slices += 1;
                // What a list tells of may have happened long ago.
                if self.slice_list.complete_once() && self.news.triggers.len() < TRIGGERS_MAX {
                    self.news.triggers.extend(trigger);
                }
            }
            Event::Deleted { namespace, name } => {
                let key: SliceKey = (namespace.into(), name.into());
                self.slice_list.mention(&key);
                self.drop_slice(&key);
            }
            Event::Synced => {
                for key in self.slice_list.finish() {
                    self.drop_slice(&key);
                }
            }
        }
    }

    /// This node, as known now.
    #[must_use]
    pub fn this_node(&self) -> &NodeView {
        &self.node
    }

    /// Those of some addresses that an EndpointSlice names, whatever state their endpoints are in.
    #[must_use]
    pub fn named(&self, addrs: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let slices = self.slices.values().flatten().map(|(_, slice)| slice);
        let all = slices.flat_map(|slice| {
            let used = slice.endpoints.iter().map(|endpoint| endpoint.addr);
            used.chain(slice.idle.iter().copied())
        });
        all.filter(|addr| addrs.contains(addr)).collect()
    }

    /// Whether each watch has listed everything once: before that, what is not known may still exist.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.service_list.complete_once()
            && self.slice_list.complete_once()
            && self.node_list.complete_once()
            && (!self.follows_pods || self.pod_list.complete_once())
    }

    /// The Services that changed since the last call, as they are wanted now.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|key| self.look_up(key))
            .collect()
    }

    /// What the watches said since the last call.
    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Every Service, as it is wanted now. Pending changes count as reported.
    pub fn all(&mut self) -> Vec<Change> {
        let all = self.declared.keys().chain(self.host_ports.keys());
        self.changed = all.cloned().collect();
        self.changes()
    }

    fn key(&mut self, namespace: &str, name: &str) -> ServiceKey {
        ServiceKey {
            namespace: self.namespace(namespace),
            name: name.into(),
        }
    }

    fn namespace(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.namespaces.insert(new.clone());
        new
    }

    fn drop_service(&mut self, key: &ServiceKey) {
        if self.declared.remove(key).is_some() {
            self.news.services += 1;
            self.changed.insert(key.clone());
        }
    }

    fn drop_slice(&mut self, key: &SliceKey) {
        let Some(service) = self.slice_owners.remove(key) else {
            return;
        };
        self.news.slices += 1;
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.retain(|(name, _)| *name != key.1);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.changed.insert(service);
    }
}
