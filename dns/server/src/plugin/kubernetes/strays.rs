//! Names that only a resolver's search list makes: a whole name of the cluster with one of the node's own suffixes
//! behind it, as `web.default.svc.cluster.local.corp.example`. With `ndots:5` a pod asks for them before it asks for
//! the name itself, and nobody upstream knows them: each would be questions to servers outside of the cluster, for
//! nothing. They are denied here, so that the client's search goes on at once.

use std::sync::Arc;

use zone::{Config, Name, Question};

use crate::metrics::{Kind, Registry, Series};
use crate::names;

/// What stray names end in.
pub(super) struct Strays {
    /// `svc` or `pod`, the cluster's zone, and a suffix of the node.
    ends: Vec<Name>,
    denied: Arc<Series>,
}

impl Strays {
    pub(super) fn new(
        config: &Config,
        node_search: &[hickory_proto::rr::Name],
        metrics: &Registry,
    ) -> Self {
        let denied = metrics.family(
            "fairlead_dns_search_denied_total",
            "Counter of names of the cluster with a suffix of the node's search list, denied without asking upstream.",
            Kind::Counter,
            &[],
        );
        let mut ends = Vec::new();
        let zones = config.zones.iter();
        for zone in zones.filter(|zone| zone.reverse_family().is_none()) {
            let labels = zone.wire().strip_suffix(&[0]).unwrap_or_default();
            for suffix in node_search.iter().filter(|suffix| !suffix.is_root()) {
                let suffix = names::wire(suffix);
                for kind in [b"\x03svc", b"\x03pod"] {
                    ends.extend(Name::from_wire(&[kind, labels, &*suffix].concat()));
                }
            }
        }
        Self {
            ends,
            denied: denied.with(&[]),
        }
    }

    /// What a name that is in none of the zones ends in, if it is one of them.
    pub(super) fn of(&self, question: &Question) -> Option<&Name> {
        let above = |end: &Name| question.labels_above(end.wire());
        let mut ends = self.ends.iter();
        ends.find(|end| above(end).is_some_and(|above| above > 0))
    }

    pub(super) fn count(&self) {
        self.denied.increment();
    }
}
