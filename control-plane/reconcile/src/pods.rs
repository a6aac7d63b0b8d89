//! What a Service asks of a pod.

use std::net::IpAddr;

use view::objects::{
    Container, EndpointPort, IntOrString, ObjectReference, Pod, Service, ServicePort,
};

/// Whether the Service's selector matches. An empty selector matches nothing.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = &service.spec.selector;
    let labels = &pod.metadata.labels;
    !selector.is_empty()
        && selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether endpoints of the Service follow its pods. Services without a selector are written by hand, and those of
/// type ExternalName have no endpoints.
pub(crate) fn follows_pods(service: &Service) -> bool {
    !service.spec.selector.is_empty() && service.spec.type_ != "ExternalName"
}

/// Whether the pod will never run again.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.conditions.iter();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// When the pod became what it is, RFC 3339.
pub(crate) fn changed_at(pod: &Pod) -> Option<&str> {
    let mut conditions = pod.status.conditions.iter();
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    ready.last_transition_time.as_deref()
}

/// The pod's addresses of one family.
pub(crate) fn addresses(pod: &Pod, ipv6: bool) -> Vec<String> {
    let all = pod.status.pod_ips.iter().map(|ip| &ip.ip);
    let first = Some(&pod.status.pod_ip).filter(|_| pod.status.pod_ips.is_empty());
    all.chain(first)
        .filter(|ip| is_ipv6(ip) == Some(ipv6))
        .cloned()
        .collect()
}

/// `None` for what is no address.
pub(crate) fn is_ipv6(address: &str) -> Option<bool> {
    Some(address.parse::<IpAddr>().ok()?.is_ipv6())
}

/// The pod's own name within the headless Service that it names as its subdomain.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let hostname = Some(&pod.spec.hostname).filter(|hostname| !hostname.is_empty());
    hostname
        .filter(|_| pod.spec.subdomain == service.metadata.name)
        .cloned()
}

pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: "Pod".to_owned(),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    }
}

/// A Service's port at this pod; `None` when the pod has no port of the name that is asked for.
pub(crate) fn endpoint_port(pod: &Pod, port: &ServicePort) -> Option<EndpointPort> {
    let protocol = protocol(&port.protocol);
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) if name.is_empty() => port.port,
        Some(IntOrString::String(name)) => named_port(pod, name, protocol)?,
    };
    Some(EndpointPort {
        name: port.name.clone(),
        protocol: protocol.to_owned(),
        port: Some(number),
        app_protocol: port.app_protocol.clone(),
    })
}

/// Containers first, then init containers that keep running beside them (KEP-753).
fn named_port(pod: &Pod, name: &str, wanted: &str) -> Option<i32> {
    let is_sidecar = |container: &&Container| container.restart_policy == "Always";
    let sidecars = pod.spec.init_containers.iter().filter(is_sidecar);
    let mut ports = pod
        .spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports);
    let found = ports.find(|port| port.name == name && protocol(&port.protocol) == wanted)?;
    Some(found.container_port)
}

fn protocol(given: &str) -> &str {
    if given.is_empty() { "TCP" } else { given }
}

/// Whether the Service has an address of its own.
pub(crate) fn has_cluster_ip(service: &Service) -> bool {
    !matches!(service.spec.cluster_ip.as_str(), "" | "None")
}
