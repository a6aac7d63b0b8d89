//! Ports of a node that its pods' containers ask for (`hostPort`): each pod is a service of one backend.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::{Backend, Clients, Frontend, FrontendKind, Protocol, Service, ServicePort};

use crate::finding::{port_number, usable};
use crate::objects;
use crate::service::{moment, protocol};

/// What one pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPorts {
    created: u64,
    /// At most one of each family.
    addresses: Vec<IpAddr>,
    ports: BTreeSet<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: Protocol,
    container_port: u16,
    host_port: u16,
    /// `None` for all.
    host_ip: Option<IpAddr>,
}

impl HostPorts {
    /// Reads a pod; `None` when it asks for nothing, runs elsewhere, has no address yet or has ended. A pod on the
    /// node's own network has its ports without us.
    pub(crate) fn read(pod: &objects::Pod, node_name: &str) -> Option<HostPorts> {
        let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        if pod.spec.host_network || ended || pod.spec.node_name != node_name {
            return None;
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        let listed = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str());
        for addr in listed.chain([pod.status.pod_ip.as_str()]) {
            if let Ok(addr) = usable(addr)
                && !addresses.iter().any(|a| a.is_ipv4() == addr.is_ipv4())
            {
                addresses.push(addr);
            }
        }
        let sidecars = pod.spec.init_containers.iter();
        let sidecars = sidecars.filter(|container| container.restart_policy == "Always");
        let containers = pod.spec.containers.iter().chain(sidecars);
        let ports = containers.flat_map(|container| &container.ports);
        let ports: BTreeSet<Port> = ports.filter_map(Port::read).collect();
        (!ports.is_empty() && !addresses.is_empty()).then_some(HostPorts {
            created: moment(pod.metadata.creation_timestamp.as_deref()),
            addresses,
            ports,
        })
    }

    /// The service that serves them on the addresses of this node, the `loopback` ones for the host's own sockets.
    pub(crate) fn model(&self, of_node: &[IpAddr], loopback: &[IpAddr]) -> Service {
        let mut ports = Vec::new();
        for pod in &self.addresses {
            for port in &self.ports {
                let serves = |addr: &&IpAddr| {
                    addr.is_ipv4() == pod.is_ipv4() && port.host_ip.is_none_or(|ip| ip == **addr)
                };
                let frontend = |clients| {
                    move |addr: &IpAddr| Frontend {
                        addr: *addr,
                        port: port.host_port,
                        kind: FrontendKind::HostPort,
                        clients,
                    }
                };
                let on_node = of_node.iter().filter(serves).map(frontend(Clients::All));
                let inside = loopback.iter().filter(serves);
                let sockets = match port.host_ip {
                    None => Clients::Host,
                    Some(_) => Clients::HostExactly,
                };
                ports.push(ServicePort {
                    name: port.name.as_str().into(),
                    protocol: port.protocol,
                    frontends: on_node.chain(inside.map(frontend(sockets))).collect(),
                    backends: vec![Backend {
                        addr: *pod,
                        port: port.container_port,
                        local: true,
                        on_node: true,
                        weight: Backend::WEIGHT,
                    }],
                    affinity_secs: 0,
                    drops: false,
                    sources: Vec::new(),
                    choice: model::Choice::Random,
                });
            }
        }
        ports.retain(|port| !port.frontends.is_empty());
        Service {
            created: self.created,
            flows_max: 0,
            ports,
        }
    }
}

impl Port {
    fn read(port: &objects::ContainerPort) -> Option<Port> {
        let host_ip = match port.host_ip.parse::<IpAddr>() {
            Ok(addr) if !addr.is_unspecified() => Some(addr),
            Ok(_) => None,
            Err(_) if port.host_ip.is_empty() => None,
            Err(_) => return None,
        };
        Some(Port {
            name: port.name.clone(),
            protocol: protocol(&port.protocol)?,
            container_port: port_number(port.container_port)?,
            host_port: port_number(port.host_port)?,
            host_ip,
        })
    }
}
