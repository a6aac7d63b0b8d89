//! What the `kubernetes` block of a Corefile sets about answers.

use std::net::IpAddr;
use std::sync::Arc;

use crate::name::Name;

/// How a zone answers. Several may look at one [`crate::Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Zones that are answered, reverse ones included, for instance `cluster.local` and `in-addr.arpa`.
    pub zones: Vec<Name>,
    /// Those of [`Config::zones`] that hold imports of a cluster set (KEP-1645) and nothing else.
    pub multicluster: Vec<Name>,
    /// Seconds that answers may be kept; 0 to 3,600.
    pub ttl: u32,
    /// Names made of pods' addresses.
    pub pods: Pods,
    /// Namespaces that are answered; empty for all.
    pub namespaces: Vec<Arc<str>>,
    /// A Service whose endpoints are all gone has no name.
    pub ignore_empty_service: bool,
    /// Names of headless endpoints by topology zone.
    pub zonal: bool,
    /// Names that do not exist below these zones, or only for those below them, are left to whoever is asked next. Nothing here reads this but
    /// who answers.
    pub fallthrough: Vec<Name>,
    /// Addresses of `ns.dns.<zone>`, where no DNS Service of the cluster gives them.
    pub nameservers: Vec<IpAddr>,
}

/// What is said of `a-b-c-d.<namespace>.pod.<zone>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pods {
    /// No such name.
    #[default]
    Disabled,
    /// The address that the name spells, if the namespace exists; as kube-dns did.
    Insecure,
    /// The address that the name spells, if a pod of the namespace has it.
    Verified,
}

/// Seconds that an answer may be kept unless set (CoreDNS's default).
pub const TTL_SECS: u32 = 5;

impl Config {
    /// The given zones, everything else as CoreDNS has it.
    #[must_use]
    pub fn new(zones: Vec<Name>) -> Self {
        Config {
            zones,
            multicluster: Vec::new(),
            ttl: TTL_SECS,
            pods: Pods::Disabled,
            namespaces: Vec::new(),
            ignore_empty_service: false,
            zonal: false,
            fallthrough: Vec::new(),
            nameservers: Vec::new(),
        }
    }

    /// The zone that names in answers to reverse questions lie in: the first that is not itself reverse.
    #[must_use]
    pub fn primary(&self) -> Option<&Name> {
        self.zones
            .iter()
            .find(|zone| zone.reverse_family().is_none() && !self.multicluster.contains(zone))
    }

    /// The longest zone that a name in wire form, in lower case, lies in.
    pub(crate) fn zone_of(&self, question: &crate::query::Question) -> Option<(&Name, usize)> {
        let zones = self.zones.iter();
        zones
            .filter_map(|zone| Some((zone, question.labels_above(zone.wire())?)))
            .min_by_key(|(_, above)| *above)
    }

    /// Whether a namespace is among those that are exposed, as far as their names decide: see
    /// [`crate::Snapshot::exposes`].
    pub(crate) fn lists(&self, namespace: &[u8]) -> bool {
        self.namespaces.is_empty()
            || self
                .namespaces
                .iter()
                .any(|n| n.as_bytes().eq_ignore_ascii_case(namespace))
    }
}
