//! A Service as DNS sees it: what was declared, the hosts behind it, and its addresses as records ready to send.

use std::net::IpAddr;
use std::sync::Arc;

use view::objects;

use crate::host::{Host, Port, Protocol, Slice, label, number};
use crate::name::{LABEL_MAX, Name, push_label};
use crate::query::types;

/// Octets of an A record whose owner is a pointer.
pub(crate) const A_STRIDE: usize = 16;

/// Octets of an AAAA record whose owner is a pointer.
pub(crate) const AAAA_STRIDE: usize = 28;

/// Names a service or an import: its label and its namespace's, as both stand in every name of it.
pub(crate) type Key = Arc<[u8]>;

/// What a Service, or an import of one, declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) kind: Kind,
    /// In order.
    pub(crate) ports: Box<[Port]>,
    /// Hosts count although they are not ready.
    pub(crate) publish_not_ready: bool,
    /// Where it is reached from outside, for `k8s_external`.
    pub(crate) external: Box<[External]>,
}

/// What answers for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Addresses of its own, one of each family.
    ClusterIp(Box<[IpAddr]>),
    /// Its hosts themselves.
    Headless,
    /// Another name.
    External(Name),
    /// Nothing can: an external name that is an address, or no name at all.
    Nothing,
}

/// Where a Service is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum External {
    /// An address that a load balancer or the user gave.
    Address(IpAddr),
    /// A name that a load balancer gave.
    Name(Name),
}

/// A Service with everything that questions about it need.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) declared: Arc<Declared>,
    pub(crate) slices: Box<[Arc<Slice>]>,
    /// A records of the Service's own name.
    pub(crate) a: Box<[u8]>,
    /// AAAA records of the Service's own name.
    pub(crate) aaaa: Box<[u8]>,
}

/// The key of a service; `None` when its names can be no labels.
pub(crate) fn key(namespace: &str, name: &str) -> Option<Key> {
    let mut wire = Vec::with_capacity(namespace.len() + name.len() + 2);
    (push_label(&mut wire, name) && push_label(&mut wire, namespace)).then(|| wire.into())
}

impl Declared {
    /// Reads a Service.
    pub(crate) fn service(service: &objects::Service) -> Self {
        let spec = &service.spec;
        let ips = || {
            let first = std::iter::once(&spec.cluster_ip).filter(|_| spec.cluster_ips.is_empty());
            addresses(spec.cluster_ips.iter().chain(first))
        };
        let kind = if spec.type_ == "ExternalName" {
            external_name(&spec.external_name)
        } else if spec.cluster_ip == "None" || spec.cluster_ips.iter().any(|ip| ip == "None") {
            Kind::Headless
        } else {
            Kind::ClusterIp(ips())
        };
        let balancers = service.status.load_balancer.ingress.iter();
        let external = balancers
            .filter_map(|point| match point.ip.parse() {
                Ok(addr) => Some(External::Address(addr)),
                Err(_) if point.hostname.is_empty() => None,
                Err(_) => Name::parse(&point.hostname).ok().map(External::Name),
            })
            .chain(
                addresses(spec.external_ips.iter())
                    .into_iter()
                    .map(External::Address),
            );
        Declared {
            kind,
            ports: ports(&spec.ports),
            publish_not_ready: spec.publish_not_ready_addresses,
            external: external.collect(),
        }
    }

    /// Reads an import.
    pub(crate) fn import(import: &objects::ServiceImport) -> Self {
        let kind = if import.spec.type_ == "Headless" {
            Kind::Headless
        } else {
            Kind::ClusterIp(addresses(import.spec.ips.iter()))
        };
        Declared {
            kind,
            ports: ports(&import.spec.ports),
            publish_not_ready: false,
            external: Box::default(),
        }
    }
}

impl Entry {
    /// Renders a service.
    pub(crate) fn new(declared: Arc<Declared>, slices: Box<[Arc<Slice>]>) -> Self {
        let mut entry = Entry {
            declared,
            slices,
            a: Box::default(),
            aaaa: Box::default(),
        };
        let mut addresses: Vec<IpAddr> = match &entry.declared.kind {
            Kind::ClusterIp(ips) => ips.to_vec(),
            Kind::Headless => entry.hosts().map(|(_, host)| host.addr).collect(),
            Kind::External(_) | Kind::Nothing => Vec::new(),
        };
        if let Kind::Headless = entry.declared.kind {
            addresses.sort_unstable();
            addresses.dedup();
        }
        (entry.a, entry.aaaa) = render(&addresses);
        entry
    }

    /// The hosts that count, with the slice that names each.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&Slice, &Host)> {
        self.slices.iter().flat_map(move |slice| {
            let hosts = slice.hosts.iter();
            let counts = move |host: &&Host| host.ready || self.declared.publish_not_ready;
            hosts.filter(counts).map(move |host| (&**slice, host))
        })
    }

    /// Whether a host counts.
    pub(crate) fn has_hosts(&self) -> bool {
        self.hosts().next().is_some()
    }

    /// Hosts that answer reverse questions with a name of this service: those of headless services, and of
    /// others those that ask for a hostname.
    pub(crate) fn named_hosts(&self) -> impl Iterator<Item = (&Slice, &Host)> {
        let headless = matches!(self.declared.kind, Kind::Headless);
        let external = matches!(self.declared.kind, Kind::External(_) | Kind::Nothing);
        self.hosts()
            .filter(move |(_, host)| !external && (headless || host.hostname.is_some()))
    }
}

/// A and AAAA records with a pointer to the question as owner. Times to live are filled in when sent.
pub(crate) fn render(addresses: &[IpAddr]) -> (Box<[u8]>, Box<[u8]>) {
    let v6 = addresses.iter().filter(|a| a.is_ipv6()).count();
    let mut a = Vec::with_capacity((addresses.len() - v6) * A_STRIDE);
    let mut aaaa = Vec::with_capacity(v6 * AAAA_STRIDE);
    for addr in addresses {
        match addr {
            IpAddr::V4(addr) => push(&mut a, types::A, &addr.octets()),
            IpAddr::V6(addr) => push(&mut aaaa, types::AAAA, &addr.octets()),
        }
    }
    (a.into(), aaaa.into())
}

fn push(records: &mut Vec<u8>, rtype: u16, data: &[u8]) {
    records.extend_from_slice(&[0xc0, 12]);
    records.extend_from_slice(&rtype.to_be_bytes());
    records.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0]);
    records.push(u8::try_from(data.len()).unwrap_or(0));
    records.extend_from_slice(data);
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Box<[IpAddr]> {
    let mut out: Vec<IpAddr> = Vec::with_capacity(2);
    for addr in texts.filter_map(|text| text.parse().ok()) {
        if !out.contains(&addr) {
            out.push(addr);
        }
    }
    out.into()
}

fn ports(ports: &[objects::ServicePort]) -> Box<[Port]> {
    let mut out: Vec<Port> = ports
        .iter()
        .filter_map(|port| {
            Some(Port {
                name: port.name.to_ascii_lowercase().into(),
                protocol: Protocol::parse(&port.protocol)?,
                number: number(port.port)?,
            })
        })
        .collect();
    out.sort();
    out.dedup();
    out.into()
}

/// Kubernetes reads an address here as a name made of digits, which no resolver can answer.
fn external_name(text: &str) -> Kind {
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare.is_empty() || bare.parse::<IpAddr>().is_ok() {
        return Kind::Nothing;
    }
    Name::parse(text).map_or(Kind::Nothing, Kind::External)
}

/// A namespace's label; `None` when it can be none.
pub(crate) fn namespace_label(name: &str) -> Option<Arc<[u8]>> {
    debug_assert!(name.len() <= LABEL_MAX || label(name).is_none());
    label(name).map(|label| Arc::from(label.as_bytes()))
}
