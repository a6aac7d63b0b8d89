//! Slices that repeat hand-made Endpoints, so that readers of slices need not read Endpoints as well.

use std::collections::BTreeMap;

use view::objects::{
    Endpoint, EndpointAddress, EndpointConditions, EndpointHints, EndpointPort, EndpointSubset,
    Endpoints,
};

use crate::fill::{Owner, Wanted, fill};
use crate::pods;
use crate::render::LAST_CHANGE;
use crate::slices::{MANAGED_BY, SERVICE_NAME};
use crate::snapshot::{Name, Snapshot};
use crate::write::Write;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";

/// Label of Endpoints that are not to be repeated.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that serve as a lock and not as endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotation that speaks of the Endpoints object itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Upstream's `--mirroring-max-endpoints-per-subset`.
const ENDPOINTS_MAX: usize = 1000;

pub(crate) fn reconcile(name: &Name, snapshot: &Snapshot) -> Vec<Write> {
    let mut existing = snapshot.slices_of(name);
    existing.retain(|(_, slice)| {
        slice
            .metadata
            .labels
            .get(MANAGED_BY)
            .is_some_and(|by| by == MANAGER)
    });
    let by_hand = snapshot
        .service(name)
        .is_some_and(|service| service.spec.selector.is_empty());
    let endpoints = snapshot
        .endpoints(name)
        .filter(|endpoints| by_hand && is_mirrored(endpoints));
    let Some(endpoints) = endpoints else {
        return existing
            .iter()
            .map(|(name, slice)| Write::delete_slice(name, slice))
            .collect();
    };
    let meta = &endpoints.metadata;
    let mut labels = meta.labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), name.name.to_string());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = meta.annotations.clone();
    let changed_at = annotations.remove(LAST_CHANGE);
    annotations.remove(LAST_APPLIED);
    let owner = Owner {
        name: name.clone(),
        kind: "Endpoints",
        uid: &meta.uid,
        labels,
        annotations,
        changed_at: changed_at.as_deref(),
        may_create: meta.deletion_timestamp.is_none() && snapshot.is_open(&name.namespace),
    };
    fill(&existing, wanted(endpoints), &owner, ENDPOINTS_MAX)
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.get(SKIP).is_some_and(|skip| skip == "true");
    !skipped && !meta.annotations.contains_key(LEADER)
}

/// One set of endpoints for each set of ports and family; what is no address is left out.
fn wanted(endpoints: &Endpoints) -> Vec<Wanted> {
    let mut groups: BTreeMap<(Vec<_>, bool), Wanted> = BTreeMap::new();
    for subset in &endpoints.subsets {
        for (address, ready) in addresses(subset).take(ENDPOINTS_MAX) {
            let Some(ipv6) = pods::is_ipv6(&address.ip) else {
                continue;
            };
            let group = groups
                .entry((order(&subset.ports), ipv6))
                .or_insert_with(|| Wanted {
                    address_type: if ipv6 { "IPv6" } else { "IPv4" },
                    ports: subset.ports.clone(),
                    endpoints: Vec::new(),
                });
            group.endpoints.push(endpoint(address, ready));
        }
    }
    groups.into_values().collect()
}

fn addresses(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().map(|address| (address, true));
    ready.chain(
        subset
            .not_ready_addresses
            .iter()
            .map(|address| (address, false)),
    )
}

fn order(ports: &[EndpointPort]) -> Vec<(String, String, Option<i32>, Option<String>)> {
    let parts = ports.iter().map(|port| {
        let app_protocol = port.app_protocol.clone();
        (
            port.name.clone(),
            port.protocol.clone(),
            port.port,
            app_protocol,
        )
    });
    let mut parts: Vec<_> = parts.collect();
    parts.sort();
    parts
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: EndpointConditions {
            ready: Some(ready),
            serving: None,
            terminating: None,
        },
        hostname: address
            .hostname
            .clone()
            .filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone().filter(|node| !node.is_empty()),
        zone: None,
        hints: EndpointHints::default(),
        target_ref: address.target_ref.clone(),
    }
}
