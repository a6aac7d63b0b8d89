//! What an EndpointSlice offers to DNS: hosts with the ports that they share.

use std::net::IpAddr;
use std::sync::Arc;

use view::objects;

use crate::name::LABEL_MAX;

/// The hosts of one EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The cluster that it comes from (KEP-1645), a label in lower case; empty for our own.
    pub(crate) cluster: Box<str>,
    /// In order, each once.
    pub(crate) ports: Box<[Port]>,
    /// In the order of their addresses.
    pub(crate) hosts: Box<[Host]>,
}

/// A named or unnamed port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// In lower case; may be empty.
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// Protocols that SRV names know; others have no names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// An address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    pub(crate) addr: IpAddr,
    /// Takes new connections (a missing condition counts as yes).
    pub(crate) ready: bool,
    /// The label that the endpoint asks for, in lower case; otherwise it is made from the address.
    pub(crate) hostname: Option<Box<str>>,
    /// Topology zone, in lower case; empty when not known.
    pub(crate) zone: Arc<str>,
}

impl Protocol {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As names have it, without the underscore.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Names the Service that a slice belongs to.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Names the imported Service that a slice belongs to (KEP-1645).
pub(crate) const IMPORT_NAME: &str = "multicluster.kubernetes.io/service-name";

/// Names the cluster that an imported slice comes from (KEP-1645).
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";

impl Slice {
    /// Reads a slice. `pod_names` names endpoints without a hostname after their pods.
    pub(crate) fn read(
        slice: &objects::EndpointSlice,
        pod_names: bool,
        zones: &mut dyn FnMut(&str) -> Arc<str>,
    ) -> Option<Slice> {
        let ipv4 = match slice.address_type.as_str() {
            "IPv4" => true,
            "IPv6" => false,
            _ => return None, // FQDN is deprecated and never had records
        };
        let cluster = slice.metadata.labels.get(SOURCE_CLUSTER);
        let cluster = cluster.and_then(|c| label(c)).unwrap_or_default();
        let mut ports: Vec<Port> = slice
            .ports
            .iter()
            .filter_map(|port| {
                Some(Port {
                    name: port.name.to_ascii_lowercase().into(),
                    protocol: Protocol::parse(&port.protocol)?,
                    number: number(port.port?)?,
                })
            })
            .collect();
        ports.sort();
        ports.dedup();
        let mut hosts = Vec::with_capacity(slice.endpoints.len());
        for endpoint in &slice.endpoints {
            let pod = endpoint.target_ref.as_ref().filter(|_| pod_names);
            let wanted = endpoint.hostname.as_deref().filter(|h| !h.is_empty());
            let hostname = wanted.or(pod.map(|pod| pod.name.as_str())).and_then(label);
            let zone = endpoint.zone.as_deref().unwrap_or_default();
            let zone = zones(&zone.to_ascii_lowercase());
            for address in &endpoint.addresses {
                let Ok(addr) = address.parse::<IpAddr>() else {
                    continue;
                };
                if addr.is_ipv4() == ipv4 {
                    hosts.push(Host {
                        addr,
                        ready: endpoint.conditions.ready.unwrap_or(true),
                        hostname: hostname.clone(),
                        zone: zone.clone(),
                    });
                }
            }
        }
        hosts.sort();
        hosts.dedup();
        Some(Slice {
            cluster,
            ports: ports.into(),
            hosts: hosts.into(),
        })
    }
}

impl Host {
    /// The label that names this host below its Service.
    pub(crate) fn label<'a>(&'a self, made: &'a mut Dashed) -> &'a [u8] {
        match &self.hostname {
            Some(hostname) => hostname.as_bytes(),
            None => made.write(self.addr),
        }
    }

    /// Whether `label`, in lower case, names this host.
    pub(crate) fn is_named(&self, label: &[u8]) -> bool {
        match &self.hostname {
            Some(hostname) => hostname.as_bytes() == label,
            None => Dashed::default().write(self.addr) == label,
        }
    }
}

/// An address as a label: dots and colons become dashes, and a label that would end in one gets a zero.
#[derive(Debug)]
pub(crate) struct Dashed {
    octets: [u8; 48],
    length: usize,
}

impl Default for Dashed {
    fn default() -> Self {
        Dashed {
            octets: [0; 48],
            length: 0,
        }
    }
}

impl Dashed {
    pub(crate) fn write(&mut self, addr: IpAddr) -> &[u8] {
        use std::fmt::Write as _;
        self.length = 0;
        // 39 octets at most, 45 for an IPv4-mapped address: they fit.
        let _ = write!(self, "{addr}");
        let text = &mut self.octets[..self.length];
        for octet in text.iter_mut().filter(|o| matches!(o, b'.' | b':')) {
            *octet = b'-';
        }
        if self.length < self.octets.len() && self.octets[..self.length].ends_with(b"-") {
            self.octets[self.length] = b'0';
            self.length += 1;
        }
        &self.octets[..self.length]
    }
}

impl std::fmt::Write for Dashed {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let room = self
            .octets
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// A text as a single label in lower case; `None` when it can be none.
pub(crate) fn label(text: &str) -> Option<Box<str>> {
    let fits = !text.is_empty() && text.len() <= LABEL_MAX && !text.contains('.');
    fits.then(|| text.to_ascii_lowercase().into())
}

pub(crate) fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|n| *n != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_labels() {
        let cases = [
            ("10.0.0.7", "10-0-0-7"),
            ("1:2::3", "1-2--3"),
            ("fd00::", "fd00--0"),
            ("::1", "--1"),
            ("5678:abcd::1", "5678-abcd--1"),
        ];
        for (addr, want) in cases {
            let mut made = Dashed::default();
            assert_eq!(made.write(addr.parse().unwrap()), want.as_bytes(), "{addr}");
        }
    }
}
