//! Our words: a [`Service`] has ports; a [`ServicePort`] is what [`Frontend`]s share and [`Backend`]s answer.
//!
//! This crate knows nothing about Kubernetes objects, tables of the kernel, clocks or input and output.
#![forbid(unsafe_code)]

pub mod policy;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// What clients want balanced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Any number that grows with the time of creation: of two services that claim one frontend, the lower
    /// one has it.
    pub created: u64,
    /// How many flows it may have at most; zero where it does not say.
    pub flows_max: u32,
    /// Ports, one for each pair of port and family. Empty when there is nothing to balance.
    pub ports: Vec<ServicePort>,
}

/// Frontends of a service's port that lead to the same backends, in one address family: the unit that backends belong
/// to. A port whose traffic policies differ is two of these.
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
    /// Connections vanish while there is no backend, rather than being refused: there are backends, but on other
    /// nodes, and a traffic policy keeps clients of this node's from them.
    pub drops: bool,
    /// Who may connect to the [`FrontendKind::LoadBalancer`] frontends, each range once; empty means everybody.
    pub sources: Vec<Range>,
    /// How a backend is chosen for a new connection.
    pub choice: Choice,
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    /// By chance, each as often as its weight says.
    #[default]
    Random,
    /// By a hash of the packet's tuple in a Maglev table: every node with the same backends chooses the same one, and a
    /// change of the backends moves few others. Where a socket is balanced as it connects, by chance.
    Maglev,
    /// Of two that chance picks, the one to which this node's sockets have fewer connections. Packets that no socket
    /// of this node sends go by what those sockets do.
    LeastConnection,
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
    /// Who finds it.
    pub clients: Clients,
}

/// Who finds a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clients {
    /// Everybody who finds no closer one.
    All,
    /// Those outside of the cluster.
    External,
    /// The host's own sockets. A loopback address stands for all of its network.
    Host,
    /// The host's own sockets, at this very address.
    HostExactly,
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
    /// An address of this node, on a port that a container of this node asked for.
    HostPort,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    addr: IpAddr,
    len: u8,
}

impl Range {
    /// The addresses that share their first `len` bits with `addr`; `None` when it has fewer.
    #[must_use]
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(addr) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::from((addr.to_bits() & mask).to_be_bytes())
            }
            IpAddr::V6(addr) if len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::from((addr.to_bits() & mask).to_be_bytes())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Range { addr, len })
    }

    /// The lowest address.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// How many leading bits its addresses share.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        Range::new(addr, self.len) == Some(*self)
    }
}

/// Reads `ADDRESS/LEN`.
impl FromStr for Range {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let (addr, len) = text.split_once('/').ok_or(BadRange)?;
        let addr = addr.parse().map_err(|_| BadRange)?;
        let len = len.parse().map_err(|_| BadRange)?;
        Range::new(addr, len).ok_or(BadRange)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// Not a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRange;

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a range of addresses such as 192.0.2.0/24")
    }
}

impl std::error::Error for BadRange {}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// On this node.
    pub local: bool,
    /// On a node of the cluster, this one or another, as far as somebody said; otherwise it may be anywhere.
    pub on_node: bool,
    /// How many connections it gets in proportion to the others'; none where it is zero and another one's is not.
    pub weight: u16,
}

impl Backend {
    /// The weight where nobody says another one.
    pub const WEIGHT: u16 = 1;
}

/// Protocols that can be balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// IP protocol number (IANA).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
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
    /// What host ports of a Pod are known by, before the Pod's name: no Service has a name with a slash in it.
    pub const HOST_PORTS: &str = "pod/";

    /// The Pod whose host ports these are; `None` of a Service.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        self.name.strip_prefix(Self::HOST_PORTS)
    }

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
    /// The zone that it is in; empty where nobody said.
    pub zone: String,
    /// Its addresses, in order, each once.
    pub addresses: Vec<IpAddr>,
    /// It is about to go, so that load balancers should send nothing new to it.
    pub leaving: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_begins_alike() {
        for (range, addr, holds) in [
            ("192.0.2.77/24", "192.0.2.1", true),
            ("192.0.2.77/24", "192.0.3.1", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::", false),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.0", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::1/128", "::1", true),
            ("::/0", "10.0.0.1", false),
        ] {
            let range: Range = range.parse().unwrap();
            assert_eq!(
                range.contains(addr.parse().unwrap()),
                holds,
                "{range} {addr}"
            );
        }
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/-1",
            "a/8",
        ] {
            assert_eq!(bad.parse::<Range>(), Err(BadRange), "{bad}");
        }
    }
}
