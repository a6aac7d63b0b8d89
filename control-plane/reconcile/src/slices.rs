//! EndpointSlices of Services with selectors, as Kubernetes' endpointslice controller keeps them.

use std::collections::BTreeMap;

use view::objects::{
    Endpoint, EndpointConditions, EndpointHint, EndpointHints, EndpointPort, Pod, Service,
};

use crate::fill::{Owner, Wanted, fill};
use crate::pods;
use crate::snapshot::{Name, Snapshot};
use crate::write::Write;

/// Label of a slice: the Service that it is of.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of a slice: who writes it.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of slices and Endpoints whose Service has no address.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

const MANAGER: &str = "endpointslice-controller.k8s.io";

/// More endpoints go into another slice: the default of upstream's `--max-endpoints-per-slice`.
const ENDPOINTS_MAX: usize = 100;

pub(crate) fn reconcile(name: &Name, snapshot: &Snapshot) -> Vec<Write> {
    let mut existing = snapshot.slices_of(name);
    existing.retain(|(_, slice)| {
        slice
            .metadata
            .labels
            .get(MANAGED_BY)
            .is_some_and(|by| by == MANAGER)
    });
    let Some(service) = snapshot.service(name) else {
        return existing
            .iter()
            .map(|(name, slice)| Write::delete_slice(name, slice))
            .collect();
    };
    if !pods::follows_pods(service) {
        return Vec::new();
    }
    let pods = snapshot.pods_of(&name.namespace, service);
    let pods: Vec<&Pod> = pods
        .into_iter()
        .filter(|pod| !pods::is_finished(pod))
        .collect();
    let wanted = families(service)
        .into_iter()
        .flat_map(|ipv6| wanted(service, &pods, ipv6, snapshot))
        .collect();
    let created = service.metadata.creation_timestamp.as_deref();
    let owner = Owner {
        name: name.clone(),
        kind: "Service",
        uid: &service.metadata.uid,
        labels: labels(service, name),
        annotations: BTreeMap::new(),
        changed_at: pods
            .iter()
            .filter_map(|pod| pods::changed_at(pod))
            .chain(created)
            .max(),
        may_create: service.metadata.deletion_timestamp.is_none()
            && snapshot.is_open(&name.namespace),
    };
    fill(&existing, wanted, &owner, ENDPOINTS_MAX)
}

/// The families that slices are written for: false for IPv4, true for IPv6.
fn families(service: &Service) -> Vec<bool> {
    let spec = &service.spec;
    let given: Vec<bool> = spec
        .ip_families
        .iter()
        .map(|family| family == "IPv6")
        .collect();
    match (given.is_empty(), pods::is_ipv6(&spec.cluster_ip)) {
        (false, _) => given,
        (true, Some(ipv6)) => vec![ipv6],
        (true, None) => vec![false, true],
    }
}

/// One set of endpoints for each set of ports that pods answer on; an empty one when there is no endpoint at all, so
/// that readers see that we looked.
fn wanted(service: &Service, pods: &[&Pod], ipv6: bool, snapshot: &Snapshot) -> Vec<Wanted> {
    let address_type = if ipv6 { "IPv6" } else { "IPv4" };
    let mut groups: Vec<Wanted> = Vec::new();
    for pod in pods {
        let addresses = pods::addresses(pod, ipv6);
        if addresses.is_empty() {
            continue;
        }
        let ports: Vec<EndpointPort> = service
            .spec
            .ports
            .iter()
            .filter_map(|port| pods::endpoint_port(pod, port))
            .collect();
        let endpoint = endpoint(service, pod, addresses, snapshot);
        match groups.iter_mut().find(|group| group.ports == ports) {
            Some(group) => group.endpoints.push(endpoint),
            None => groups.push(Wanted {
                address_type,
                ports,
                endpoints: vec![endpoint],
            }),
        }
    }
    if groups.is_empty() {
        groups.push(Wanted {
            address_type,
            ports: Vec::new(),
            endpoints: Vec::new(),
        });
    }
    groups
}

/// A pod of a Node that is not known is kept, without a zone.
fn endpoint(service: &Service, pod: &Pod, addresses: Vec<String>, snapshot: &Snapshot) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let node = &pod.spec.node_name;
    Endpoint {
        addresses,
        conditions: EndpointConditions {
            ready: Some(service.spec.publish_not_ready_addresses || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        },
        hostname: pods::hostname(pod, service),
        node_name: Some(node.clone()).filter(|node| !node.is_empty()),
        hints: hints(service, node, snapshot.zone(node)),
        zone: snapshot.zone(node).map(str::to_owned),
        target_ref: Some(pods::reference(pod)),
    }
}

/// Whose clients an endpoint is meant for, where the Service prefers near ones (KEP-4444, KEP-3015).
fn hints(service: &Service, node: &str, zone: Option<&str>) -> EndpointHints {
    let named = |name: &str| EndpointHint {
        name: name.to_owned(),
    };
    let distribution = service.spec.traffic_distribution.as_str();
    let (of_zone, of_node) = match distribution {
        "PreferClose" | "PreferSameZone" => (true, false),
        "PreferSameNode" => (true, true),
        _ => (false, false),
    };
    EndpointHints {
        for_zones: zone.filter(|_| of_zone).map(named).into_iter().collect(),
        for_nodes: Some(node)
            .filter(|node| of_node && !node.is_empty())
            .map(named)
            .into_iter()
            .collect(),
    }
}

/// The Service's labels, and those that say whose the slice is.
fn labels(service: &Service, name: &Name) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone();
    labels.remove(HEADLESS);
    if !pods::has_cluster_ip(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), name.name.to_string());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}
