//! Services, EndpointSlices and the own Node folded into model values: one change costs one Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{Backend, Frontend, FrontendKind, NodeView, ServiceKey, ServicePort};

use crate::event::{Event, Listing};
use crate::finding::Finding;
use crate::objects;
use crate::service::Declared;
use crate::slice::Slice;

/// What the watches said so far, as a proxy sees it.
#[derive(Debug, Default)]
pub struct Services {
    node: NodeView,
    node_own: Vec<IpAddr>,
    node_given: Vec<IpAddr>,
    declared: BTreeMap<ServiceKey, Declared>,
    /// By name, in order. Nearly all services have one, so this is no map.
    slices: BTreeMap<ServiceKey, Vec<(Arc<str>, Slice)>>,
    slice_owners: BTreeMap<SliceKey, ServiceKey>,
    changed: BTreeSet<ServiceKey>,
    /// Each namespace once: many objects share it.
    namespaces: BTreeSet<Arc<str>>,
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
}

type SliceKey = (Arc<str>, Arc<str>);

impl Services {
    /// Nothing known yet. Endpoints on the node `node_name` are local; NodePorts are served on its addresses
    /// and on `given` ones.
    #[must_use]
    pub fn new(node_name: &str, given: Vec<IpAddr>) -> Self {
        let mut services = Services {
            node: NodeView {
                name: node_name.to_owned(),
                addresses: Vec::new(),
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
                let Some((service, slice)) = Slice::read(&slice, &self.node.name) else {
                    return self.drop_slice(&key);
                };
                let service = self.key(&key.0, service);
                if self.slice_owners.get(&key).is_some_and(|s| *s != service) {
                    self.drop_slice(&key);
                }
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

    /// Folds what the watch of Nodes said; other nodes than the own one are passed over.
    pub fn node(&mut self, event: Event<objects::Node>) {
        match event {
            Event::Restarted => self
                .node_list
                .restart(std::iter::once(self.node.name.clone())),
            Event::Applied(node) => {
                self.node_list.mention(&node.metadata.name);
                if node.metadata.name == self.node.name {
                    self.node_own = node_addresses(&node);
                    self.node_changed();
                }
            }
            Event::Deleted { namespace: _, name } => {
                if name == self.node.name {
                    self.node_own.clear();
                    self.node_changed();
                }
            }
            Event::Synced => {
                if !self.node_list.finish().is_empty() {
                    self.node_own.clear();
                    self.node_changed();
                }
            }
        }
    }

    /// Replaces the addresses that were given beside the Node object's.
    pub fn set_given_addresses(&mut self, given: Vec<IpAddr>) {
        self.node_given = given;
        self.node_changed();
    }

    /// This node, as known now.
    #[must_use]
    pub fn this_node(&self) -> &NodeView {
        &self.node
    }

    /// Whether each of the three watches has listed everything once: before that, what is not known may
    /// still exist.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.service_list.complete_once()
            && self.slice_list.complete_once()
            && self.node_list.complete_once()
    }

    /// The Services that changed since the last call, as they are wanted now.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|key| self.look_up(key))
            .collect()
    }

    /// Every Service, as it is wanted now. Pending changes count as reported.
    pub fn all(&mut self) -> Vec<Change> {
        self.changed = self.declared.keys().cloned().collect();
        self.changes()
    }

    fn look_up(&self, key: ServiceKey) -> Change {
        let Some(declared) = self.declared.get(&key) else {
            return Change {
                key,
                service: None,
                findings: Vec::new(),
            };
        };
        let slices = self.slices.get(&key).map_or(&[][..], |slices| slices);
        let mut findings = declared.findings.clone();
        for (_, slice) in slices {
            findings.extend(slice.findings.iter().cloned());
        }
        Change {
            service: Some(self.model(declared, slices)),
            key,
            findings,
        }
    }

    fn model(&self, declared: &Declared, slices: &[(Arc<str>, Slice)]) -> model::Service {
        let mut ports = Vec::with_capacity(declared.ports.len() * declared.cluster_ips.len());
        for cluster_ip in &declared.cluster_ips {
            let family = |addr: &IpAddr| addr.is_ipv4() == cluster_ip.is_ipv4();
            for port in &declared.ports {
                let at = |addr, port, kind| Frontend { addr, port, kind };
                let mut frontends = vec![at(*cluster_ip, port.port, FrontendKind::ClusterIp)];
                if let Some(node_port) = port.node_port {
                    let addresses = self.node.addresses.iter().copied().filter(family);
                    frontends.extend(addresses.map(|a| at(a, node_port, FrontendKind::NodePort)));
                }
                for (addr, kind) in &declared.further_ips {
                    if family(addr) {
                        frontends.push(at(*addr, port.port, *kind));
                    }
                }
                ports.push(ServicePort {
                    name: port.name.clone(),
                    protocol: port.protocol,
                    frontends,
                    backends: backends(slices, port, cluster_ip.is_ipv4()),
                    affinity_secs: declared.affinity_secs,
                });
            }
        }
        model::Service {
            created: declared.created,
            ports,
        }
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
            self.changed.insert(key.clone());
        }
    }

    fn drop_slice(&mut self, key: &SliceKey) {
        let Some(service) = self.slice_owners.remove(key) else {
            return;
        };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.retain(|(name, _)| *name != key.1);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.changed.insert(service);
    }

    fn node_changed(&mut self) {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for addr in self.node_own.iter().chain(&self.node_given) {
            if !addresses.contains(addr) {
                addresses.push(*addr);
            }
        }
        if addresses != self.node.addresses {
            self.node.addresses = addresses;
            let with_node_port = |d: &Declared| d.ports.iter().any(|p| p.node_port.is_some());
            let affected = self.declared.iter().filter(|(_, d)| with_node_port(d));
            self.changed.extend(affected.map(|(key, _)| key.clone()));
        }
    }
}

/// The endpoints of all slices that answer `port`: the ready ones, or where none is ready those that still
/// serve while they terminate (KEP-1669). An endpoint that two slices name counts once, at its best.
fn backends(slices: &[(Arc<str>, Slice)], port: &crate::service::Port, ipv4: bool) -> Vec<Backend> {
    #[derive(Default)]
    struct State {
        local: bool,
        ready: bool,
        serving_terminating: bool,
    }
    let mut states: BTreeMap<(IpAddr, u16), State> = BTreeMap::new();
    let slices = slices.iter().map(|(_, slice)| slice);
    for slice in slices.filter(|slice| slice.ipv4 == ipv4) {
        let answers = |p: &&crate::slice::Port| p.name == port.name && p.protocol == port.protocol;
        let Some(slice_port) = slice.ports.iter().find(answers) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let state = states.entry((endpoint.addr, slice_port.port)).or_default();
            state.local |= endpoint.local;
            state.ready |= endpoint.ready;
            state.serving_terminating |= endpoint.serving_terminating;
        }
    }
    let any_ready = states.values().any(|state| state.ready);
    states
        .into_iter()
        .filter(|(_, s)| {
            if any_ready {
                s.ready
            } else {
                s.serving_terminating
            }
        })
        .map(|((addr, port), state)| Backend {
            addr,
            port,
            local: state.local,
        })
        .collect()
}

/// Internal addresses first, so that what is translated carries one of these.
fn node_addresses(node: &objects::Node) -> Vec<IpAddr> {
    let of_type = |type_: &'static str| {
        let addresses = node
            .status
            .addresses
            .iter()
            .filter(move |a| a.type_ == type_);
        addresses.filter_map(|a| a.address.parse().ok())
    };
    of_type("InternalIP")
        .chain(of_type("ExternalIP"))
        .filter(|addr: &IpAddr| !addr.is_loopback() && !addr.is_unspecified())
        .collect()
}
