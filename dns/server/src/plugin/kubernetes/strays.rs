//! Names that only a resolver's search list makes: a whole name of the cluster with one of the node's own suffixes
//! behind it, as `web.default.svc.cluster.local.corp.example`. With `ndots:5` a pod asks for them before it asks for
//! the name itself, and nobody upstream knows them: each would be questions to servers outside of the cluster, for
//! nothing. They are denied here, so that the client's search goes on at once.

use std::sync::Arc;

use hickory_proto::rr::Name;
use zone::{Config, Question};

use crate::metrics::{Kind, Registry, Series};
use crate::names;

/// What stray names end in.
pub(super) struct Strays {
    /// In wire form: `svc` or `pod`, the cluster's zone, and a suffix of the node.
    ends: Vec<Vec<u8>>,
    denied: Arc<Series>,
}

impl Strays {
    pub(super) fn new(config: &Config, node_search: &[Name], metrics: &Registry) -> Self {
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
                ends.push([b"\x03svc", labels, &*suffix].concat());
                ends.push([b"\x03pod", labels, &*suffix].concat());
            }
        }
        Self {
            ends,
            denied: denied.with(&[]),
        }
    }

    /// Whether a name that is in none of the zones is one of them.
    pub(super) fn hold(&self, question: &Question) -> bool {
        let mut ends = self.ends.iter();
        ends.any(|end| question.labels_above(end).is_some_and(|above| above > 0))
    }

    pub(super) fn count(&self) {
        self.denied.increment();
    }
}
