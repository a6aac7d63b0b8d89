//! The cluster at one instant: maps that share their unchanged parts with the instants before and after.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{HashMap, OrdMap};

use crate::config::Config;
use crate::name::labels;
use crate::service::{Entry, External, Key};

/// What questions are answered from. Cheap to clone; never changes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) synced: bool,
    /// When it changed last, in seconds since 1970 (see [`crate::Store::publish`]).
    pub(crate) serial: u32,
    pub(crate) services: HashMap<Key, Arc<Entry>>,
    pub(crate) imports: HashMap<Key, Arc<Entry>>,
    /// Labels of namespaces that exist and that the store's selector exposes.
    pub(crate) namespaces: OrdMap<Arc<[u8]>, ()>,
    /// The store has a selector: what is in no namespace of those has no names.
    pub(crate) selective: bool,
    /// Who has an address.
    pub(crate) owners: OrdMap<IpAddr, Arc<[Owner]>>,
    /// Services that have an address outside.
    pub(crate) outside: OrdMap<IpAddr, Arc<[Key]>>,
    /// Namespaces and names of the pods that have an address.
    pub(crate) pods: HashMap<IpAddr, Arc<[PodName]>>,
}

/// What an address belongs to. Services sort before hosts, as they answer before them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// An address of a Service.
    Service(Key),
    /// A host of a Service, with its label where it is not made from the address.
    Host(Key, Option<Box<str>>),
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A Service as plugins beside `kubernetes` ask for it.
#[derive(Clone, Debug)]
pub struct ServiceView(pub(crate) Arc<Entry>);

impl Snapshot {
    /// Whether everything that exists was heard of once. Before that nobody may be told that a name does not
    /// exist.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// When it changed last, in seconds since 1970; it only grows (RFC 1982).
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// How many Services have names.
    #[must_use]
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// The Service of a namespace.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<ServiceView> {
        let key = crate::service::key(namespace, name)?;
        self.services.get(&key).cloned().map(ServiceView)
    }

    /// The first two labels, in wire form, of the name of every Service, in no order.
    pub fn service_keys(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.services.keys()
    }

    /// Whether a namespace exists and is exposed.
    #[must_use]
    pub fn namespace(&self, name: &str) -> bool {
        self.has_namespace(name.to_ascii_lowercase().as_bytes())
    }

    /// The pods that have an address; known only while pods are watched.
    #[must_use]
    pub fn pods(&self, addr: IpAddr) -> &[PodName] {
        self.pods.get(&addr).map_or(&[], |pods| pods)
    }

    /// The pods whose address a label spells, as the names of pods do (`10-244-1-2`).
    #[must_use]
    pub fn pods_spelled(&self, label: &[u8]) -> &[PodName] {
        crate::answer::spelled(label).map_or(&[], |addr| self.pods(addr))
    }

    /// Services whose load balancer, or whose user, gave this address.
    #[must_use]
    pub fn external_owners(&self, addr: IpAddr) -> Vec<(String, String)> {
        let owners = self.outside.get(&addr);
        owners.map_or_else(Vec::new, |keys| keys.iter().map(|key| names(key)).collect())
    }

    /// Namespaces and names of all Services, in no order.
    pub fn service_names(&self) -> impl Iterator<Item = (String, String)> {
        self.services.keys().map(|key| names(key))
    }

    /// Whether what is in a namespace has names for who is answered by `config`. Where nothing is selected by labels, the
    /// namespace itself need not have been heard of yet.
    #[must_use]
    pub fn exposes(&self, config: &Config, label: &[u8]) -> bool {
        config.lists(label) && (!self.selective || self.has_namespace(label))
    }

    pub(crate) fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.contains_key(label)
    }
}

impl ServiceView {
    /// Its own addresses; none of a headless Service's.
    #[must_use]
    pub fn cluster_ips(&self) -> &[IpAddr] {
        match &self.0.declared.kind {
            crate::service::Kind::ClusterIp(ips) => ips,
            crate::service::Kind::Headless
            | crate::service::Kind::External(_)
            | crate::service::Kind::Nothing => &[],
        }
    }

    /// Where it is reached from outside.
    #[must_use]
    pub fn external(&self) -> &[External] {
        &self.0.declared.external
    }

    /// Whether its hosts answer for themselves.
    #[must_use]
    pub fn headless(&self) -> bool {
        matches!(self.0.declared.kind, crate::service::Kind::Headless)
    }

    /// Names, protocols (`tcp`, `udp`, `sctp`) and numbers of its ports.
    pub fn ports(&self) -> impl Iterator<Item = (&str, &'static str, u16)> {
        let ports = self.0.declared.ports.iter();
        ports.map(|port| (&*port.name, port.protocol.label(), port.number))
    }

    /// Labels and addresses of the hosts that count, each with names, protocols and numbers of its ports.
    pub fn hosts(
        &self,
    ) -> impl Iterator<
        Item = (
            String,
            IpAddr,
            impl Iterator<Item = (&str, &'static str, u16)>,
        ),
    > {
        self.0.hosts().map(|(slice, host)| {
            let mut made = crate::host::Dashed::default();
            let label = String::from_utf8_lossy(host.label(&mut made)).into_owned();
            let ports = slice.ports.iter();
            let ports = ports.map(|port| (&*port.name, port.protocol.label(), port.number));
            (label, host.addr, ports)
        })
    }
}

/// Namespace and name that a key spells.
pub(crate) fn names(key: &[u8]) -> (String, String) {
    let mut labels = labels(key).map(|label| String::from_utf8_lossy(label).into_owned());
    let name = labels.next().unwrap_or_default();
    (labels.next().unwrap_or_default(), name)
}
