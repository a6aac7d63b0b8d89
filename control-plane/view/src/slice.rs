//! What one EndpointSlice offers, checked and in our words.

use std::net::IpAddr;
use std::sync::Arc;

use model::{Backend, Protocol};

use crate::annotations;
use crate::finding::{Finding, port_number, usable};
use crate::objects;
use crate::service::{ours, protocol};

/// An EndpointSlice of one IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ipv4: bool,
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Addresses of endpoints that nothing is sent to now.
    pub(crate) idle: Vec<IpAddr>,
    /// The weight of endpoints of which the Service says nothing.
    pub(crate) weight: u16,
    pub(crate) findings: Vec<Finding>,
}

/// A port that every endpoint of the slice answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// An endpoint that may be sent to in some circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) addr: IpAddr,
    pub(crate) local: bool,
    /// A node is named that it is on.
    pub(crate) on_node: bool,
    pub(crate) ready: bool,
    pub(crate) serving_terminating: bool,
    pub(crate) node_hint: Hint,
    /// Zones whose clients it is meant for; none where nobody said.
    pub(crate) zone_hints: Box<[Box<str>]>,
    /// The Pod behind it, where one is named.
    pub(crate) pod: Option<Box<str>>,
}

/// Whose clients an endpoint is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Nobody said.
    None,
    /// This node's.
    Here,
    /// Other nodes'.
    Elsewhere,
}

impl Endpoint {
    /// Whether its hints name a zone.
    pub(crate) fn is_meant_for(&self, zone: &str) -> bool {
        self.zone_hints.iter().any(|hint| **hint == *zone)
    }
}

/// Names the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Slice {
    /// Reads a slice and the name of the Service that it belongs to. `None` when it belongs to none, or names
    /// hosts.
    pub(crate) fn read<'a>(
        slice: &'a objects::EndpointSlice,
        node_name: &str,
    ) -> Option<(&'a str, Slice)> {
        let service = slice.metadata.labels.get(SERVICE_NAME)?;
        let ipv4 = match slice.address_type.as_str() {
            "IPv4" => true,
            "IPv6" => false,
            _ => return None,
        };
        if service.is_empty() || !ours(&slice.metadata) {
            return None;
        }
        let mut findings = Vec::new();
        let weight = annotations::weight(&slice.metadata, &mut findings);
        let mut read = Slice {
            ipv4,
            weight: weight.unwrap_or(Backend::WEIGHT),
            ports: Vec::with_capacity(slice.ports.len()),
            endpoints: Vec::with_capacity(slice.endpoints.len()),
            idle: Vec::new(),
            findings,
        };
        let at = || format!("EndpointSlice {}", slice.metadata.name);
        for port in &slice.ports {
            read.port(port, &at);
        }
        for endpoint in &slice.endpoints {
            read.endpoint(endpoint, node_name, &at);
        }
        Some((service, read))
    }

    fn port(&mut self, port: &objects::EndpointPort, at: &dyn Fn() -> String) {
        let Some(number) = port.port else {
            return; // every port: nothing that a Service could lead to
        };
        match (protocol(&port.protocol), port_number(number)) {
            (Some(protocol), Some(number)) => self.ports.push(Port {
                name: port.name.as_str().into(),
                protocol,
                port: number,
            }),
            (Some(_), None) => self.findings.push(Finding::Port {
                at: at(),
                port: number,
            }),
            (None, _) => self.findings.push(Finding::Protocol {
                at: at(),
                protocol: port.protocol.clone(),
            }),
        }
    }

    fn endpoint(&mut self, endpoint: &objects::Endpoint, node_name: &str, at: &dyn Fn() -> String) {
        // Further addresses are the same endpoint once more; Kubernetes gives them no use.
        let address = endpoint.addresses.first().map_or("", String::as_str);
        let checked = usable(address).and_then(|addr| {
            let fits = addr.is_ipv4() == self.ipv4;
            fits.then_some(addr).ok_or("not of the slice's addressType")
        });
        let addr = match checked {
            Ok(addr) => addr,
            Err(reason) => {
                return self.findings.push(Finding::Address {
                    at: at(),
                    address: address.to_owned(),
                    reason,
                });
            }
        };
        let conditions = endpoint.conditions;
        let ready = conditions.ready.unwrap_or(true);
        let serving = conditions.serving.unwrap_or(true);
        let read = Endpoint {
            addr,
            local: !node_name.is_empty() && endpoint.node_name.as_deref() == Some(node_name),
            on_node: endpoint
                .node_name
                .as_deref()
                .is_some_and(|name| !name.is_empty()),
            ready,
            serving_terminating: serving && conditions.terminating.unwrap_or(false),
            node_hint: node_hint(&endpoint.hints.for_nodes, node_name),
            zone_hints: endpoint
                .hints
                .for_zones
                .iter()
                .map(|hint| hint.name.as_str().into())
                .collect(),
            pod: endpoint
                .target_ref
                .as_ref()
                .filter(|target| target.kind == "Pod")
                .map(|target| target.name.as_str().into()),
        };
        if read.ready || read.serving_terminating {
            self.endpoints.push(read);
        } else {
            self.idle.push(read.addr);
        }
    }
}

fn node_hint(nodes: &[objects::EndpointHint], node_name: &str) -> Hint {
    if nodes.is_empty() {
        Hint::None
    } else if nodes.iter().any(|hint| hint.name == node_name) {
        Hint::Here
    } else {
        Hint::Elsewhere
    }
}
