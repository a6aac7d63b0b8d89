//! Endpoints objects of Services with selectors, for clients that do not read slices.

use std::collections::BTreeMap;

use serde_json::json;
use view::objects::{EndpointAddress, EndpointPort, EndpointSubset, Pod, Service};

use crate::pods;
use crate::render::{LAST_CHANGE, identify, subsets};
use crate::slices::HEADLESS;
use crate::snapshot::{Name, Snapshot};
use crate::write::{Target, Write};

/// Label: Endpoints of ours, which go when their Service goes. Those made by hand stay.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// Annotation: not all endpoints are here.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const ADDRESSES_MAX: usize = 1000;

pub(crate) fn reconcile(name: &Name, snapshot: &Snapshot) -> Vec<Write> {
    let current = snapshot.endpoints(name);
    let Some(service) = snapshot.service(name) else {
        let ours = current.filter(|endpoints| {
            endpoints
                .metadata
                .labels
                .get(MANAGED_BY)
                .is_some_and(|by| by == MANAGER)
        });
        let delete = ours.map(|endpoints| Write::Delete {
            target: Target::Endpoints,
            name: name.clone(),
            uid: endpoints.metadata.uid.clone(),
            resource_version: endpoints.metadata.resource_version.clone(),
        });
        return delete.into_iter().collect();
    };
    if !pods::follows_pods(service) {
        return Vec::new();
    }
    let include_terminating = service.spec.publish_not_ready_addresses;
    let mut pods = snapshot.pods_of(&name.namespace, service);
    pods.retain(|pod| {
        !pods::is_finished(pod) && (include_terminating || !pods::is_terminating(pod))
    });

    let mut wanted = pack(service, &pods);
    let truncated = truncate(&mut wanted);
    let labels = labels(service);
    let over_capacity = truncated.then_some("truncated");
    if let Some(current) = current
        && current.subsets == wanted
        && current.metadata.labels == labels
        && current
            .metadata
            .annotations
            .get(OVER_CAPACITY)
            .map(String::as_str)
            == over_capacity
    {
        return Vec::new();
    }

    let mut annotations = current
        .map(|current| current.metadata.annotations.clone())
        .unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    let created = service.metadata.creation_timestamp.as_deref();
    let changed_at = pods
        .iter()
        .filter_map(|pod| pods::changed_at(pod))
        .chain(created)
        .max();
    let notes = [(OVER_CAPACITY, over_capacity), (LAST_CHANGE, changed_at)];
    for (key, value) in notes {
        if let Some(value) = value {
            annotations.insert(key.to_owned(), value.to_owned());
        }
    }
    let mut metadata =
        json!({"namespace": &*name.namespace, "name": &*name.name, "labels": labels});
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    if let Some(current) = current {
        identify(&mut metadata, &current.metadata);
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata,
        "subsets": subsets(&wanted),
    });
    let may_create =
        service.metadata.deletion_timestamp.is_none() && snapshot.is_open(&name.namespace);
    match current {
        Some(_) => vec![Write::Replace {
            target: Target::Endpoints,
            name: name.clone(),
            object,
        }],
        None if may_create => vec![Write::Create {
            target: Target::Endpoints,
            namespace: name.namespace.clone(),
            object,
        }],
        None => Vec::new(),
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone();
    labels.remove(HEADLESS);
    if !pods::has_cluster_ip(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// Address and the pod's uid: two pods on a host's network share the first.
type AddressKey = (String, String);
type PortKey = (String, i32, String, Option<String>);

/// Subsets such that every pair of address and port occurs once: ports with equal addresses share a subset.
fn pack(service: &Service, pods: &[&Pod]) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<AddressKey, (EndpointAddress, bool)> = BTreeMap::new();
    let mut keys_by_port: BTreeMap<Option<PortKey>, Vec<AddressKey>> = BTreeMap::new();
    for pod in pods {
        let Some(ip) = address(service, pod) else {
            continue;
        };
        let key = (ip.clone(), pod.metadata.uid.clone());
        let ready = service.spec.publish_not_ready_addresses || pods::is_ready(pod);
        let node = &pod.spec.node_name;
        let address = EndpointAddress {
            ip,
            hostname: pods::hostname(pod, service),
            node_name: Some(node.clone()).filter(|node| !node.is_empty()),
            target_ref: Some(pods::reference(pod)),
        };
        addresses.insert(key.clone(), (address, ready));
        // A headless Service need not have ports; its addresses stand alone then.
        let portless = service.spec.ports.is_empty() && !pods::has_cluster_ip(service);
        let ports = service
            .spec
            .ports
            .iter()
            .filter_map(|port| pods::endpoint_port(pod, port));
        let ports = ports
            .map(|port| Some(port_key(port)))
            .chain(portless.then_some(None));
        for port in ports {
            keys_by_port.entry(port).or_default().push(key.clone());
        }
    }

    let mut ports_by_keys: BTreeMap<Vec<AddressKey>, Vec<EndpointPort>> = BTreeMap::new();
    for (port, mut keys) in keys_by_port {
        keys.sort();
        keys.dedup();
        let ports = ports_by_keys.entry(keys).or_default();
        ports.extend(
            port.map(|(name, number, protocol, app_protocol)| EndpointPort {
                name,
                protocol,
                port: Some(number),
                app_protocol,
            }),
        );
    }
    let subsets = ports_by_keys.into_iter().map(|(keys, ports)| {
        let mut subset = EndpointSubset {
            ports,
            ..EndpointSubset::default()
        };
        for (address, ready) in keys.iter().filter_map(|key| addresses.get(key)) {
            let list = if *ready {
                &mut subset.addresses
            } else {
                &mut subset.not_ready_addresses
            };
            list.push(address.clone());
        }
        subset
    });
    subsets.collect()
}

fn port_key(port: EndpointPort) -> PortKey {
    (
        port.name,
        port.port.unwrap_or_default(),
        port.protocol,
        port.app_protocol,
    )
}

/// Endpoints know one family: the Service's first.
fn address(service: &Service, pod: &Pod) -> Option<String> {
    let spec = &service.spec;
    let ipv6 = match spec.ip_families.first() {
        Some(family) => family == "IPv6",
        None => pods::is_ipv6(&spec.cluster_ip)
            .or(pods::is_ipv6(&pod.status.pod_ip))
            .unwrap_or(false),
    };
    pods::addresses(pod, ipv6).into_iter().next()
}

/// Keeps a thousand addresses, those that are ready before the others. True when there were more.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let mut room = ADDRESSES_MAX;
    let mut truncated = false;
    let mut keep = |addresses: &mut Vec<EndpointAddress>| {
        truncated |= addresses.len() > room;
        addresses.truncate(room);
        room -= addresses.len();
    };
    subsets
        .iter_mut()
        .for_each(|subset| keep(&mut subset.addresses));
    subsets
        .iter_mut()
        .for_each(|subset| keep(&mut subset.not_ready_addresses));
    subsets
        .retain(|subset| !(subset.addresses.is_empty() && subset.not_ready_addresses.is_empty()));
    truncated
}
