//! Our words: a [`Service`] has ports; a [`ServicePort`] is what [`Frontend`]s share and [`Backend`]s answer.
//!
//! This crate knows nothing about Kubernetes objects, tables of the kernel, clocks or input and output.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What clients want balanced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Any number that grows with the time of creation: of two services that claim one frontend, the lower
    /// one has it.
    pub created: u64,
    /// Ports, one for each pair of port and family. Empty when there is nothing to balance.
    pub ports: Vec<ServicePort>,
}

/// A port of a service in one address family: the unit that frontends share and backends belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// As the user named the port; may be empty.
    pub name: Arc<str>,
    /// Protocol of frontends and backends.
    pub protocol: Protocol,
    /// Where clients connect, the most lasting address first. All of one family.
    pub frontends: Vec<Frontend>,
    /// What answers: of the frontends' family, in order, each once.
    pub backends: Vec<Backend>,
    /// Session affinity timeout in seconds; zero means no affinity.
    pub affinity_secs: u32,
}

/// Where clients connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// What gave it to the service.
    pub kind: FrontendKind,
}

/// What gave a frontend to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// The cluster's own range of service addresses.
    ClusterIp,
    /// An address of this node, on the port that every node gives to the service.
    NodePort,
    /// An address that the user routes to the nodes.
    ExternalIp,
    /// An address that a load balancer gave.
    LoadBalancer,
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// On this node.
    pub local: bool,
}

/// Protocols that can be balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// IP protocol number (IANA).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        })
    }
}

/// Names a service. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// The service `name` of `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        ServiceKey {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is known of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The node's name; endpoints that carry it are local.
    pub name: String,
    /// Addresses of this node that NodePorts are served on, in order, each once.
    pub addresses: Vec<IpAddr>,
}
