//! Where a node's agent, a Pod or a Service answers.

use std::net::IpAddr;
use std::sync::Arc;

use api::status::Status;
use api::table::Resource;
use api::value::{at, flag, list, number, text};
use serde_json::Value;
use storage::Range;

use super::{Ask, Route};
use crate::dial::Peer;
use crate::handlers::storage_failure;
use crate::{State, object};

/// Where a node's agent listens where the Node does not say.
const KUBELET_PORT: u16 = 10250;
/// Which of a node's addresses is taken first, as with kube-apiserver's `--kubelet-preferred-address-types`.
const ADDRESS_TYPES: &[&str] = &[
    "Hostname",
    "InternalDNS",
    "InternalIP",
    "ExternalDNS",
    "ExternalIP",
];

/// The object as it stands.
pub(super) async fn stored(
    state: &Arc<State>,
    row: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Value, Status> {
    let entry = state.storage.get(&row.key(namespace, name)).await;
    let entry = entry.map_err(|error| storage_failure(&error))?;
    let entry = entry.ok_or_else(|| Status::not_found(row, name))?;
    Ok(object::decode(row, &entry))
}

fn row(group: &str, plural: &str) -> Result<&'static Resource, Status> {
    api::table::find(group, "v1", plural).ok_or_else(Status::unknown_resource)
}

/// The agent of the node.
pub(super) async fn kubelet(state: &Arc<State>, node: &str) -> Result<Peer, Status> {
    let node = stored(state, row("", "nodes")?, "", node).await?;
    Ok(Peer {
        host: node_address(&node)?,
        port: kubelet_port(&node),
        tls: true,
        agent: true,
    })
}

fn kubelet_port(node: &Value) -> u16 {
    let port = number(
        node,
        &["status", "daemonEndpoints", "kubeletEndpoint", "Port"],
    );
    u16::try_from(port)
        .ok()
        .filter(|port| *port > 0)
        .unwrap_or(KUBELET_PORT)
}

fn node_address(node: &Value) -> Result<String, Status> {
    let addresses = list(node, &["status", "addresses"]);
    let found = ADDRESS_TYPES.iter().find_map(|kind| {
        addresses
            .iter()
            .find(|address| text(address, &["type"]) == *kind)
            .map(|address| text(address, &["address"]).to_owned())
    });
    found.ok_or_else(|| {
        let known = at(node, &["status", "addresses"]);
        let known = if known.is_null() {
            "[]".to_owned()
        } else {
            known.to_string()
        };
        Status::new(
            500,
            "",
            format!("no preferred addresses found; known addresses: {known}"),
        )
    })
}

/// `[scheme:]name[:port]`, as the name of what is proxied is written.
#[derive(PartialEq, Eq, Debug)]
struct Named<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

fn named(text: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let tls = match scheme {
        "" | "http" => false,
        "https" => true,
        _ => return None,
    };
    (!name.is_empty()).then_some(Named { tls, name, port })
}

/// Who answers a request to the subresource `proxy`.
pub(super) async fn proxy(ask: &Ask<'_>, query: Option<&str>) -> Result<Route, Status> {
    let Some(wanted) = named(ask.name) else {
        return Err(Status::bad_request(format!(
            "invalid {} request {}",
            ask.row.singular,
            api::field::quoted(ask.name)
        )));
    };
    let peer = match ask.row.kind {
        "Node" => node_peer(ask, &wanted).await?,
        "Pod" => pod_peer(ask, &wanted).await?,
        _ => service_peer(ask, &wanted).await?,
    };
    let path = if ask.tail.is_empty() { "/" } else { ask.tail };
    Ok(Route {
        peer,
        path_and_query: match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        },
        proxied: true,
    })
}

async fn node_peer(ask: &Ask<'_>, wanted: &Named<'_>) -> Result<Peer, Status> {
    let node = stored(ask.state, ask.row, "", wanted.name).await?;
    let agent = kubelet_port(&node);
    let port = match wanted.port {
        "" => agent,
        port => parse_port(port)?,
    };
    Ok(Peer {
        host: node_address(&node)?,
        port,
        tls: wanted.tls || port == agent,
        agent: port == agent,
    })
}

async fn pod_peer(ask: &Ask<'_>, wanted: &Named<'_>) -> Result<Peer, Status> {
    let pod = stored(ask.state, ask.row, ask.namespace, wanted.name).await?;
    let first = list(&pod, &["status", "podIPs"])
        .first()
        .map_or("", |ip| text(ip, &["ip"]));
    let host = if first.is_empty() {
        text(&pod, &["status", "podIP"])
    } else {
        first
    };
    let port = match wanted.port {
        "" => list(&pod, &["spec", "containers"])
            .iter()
            .flat_map(|container| list(container, &["ports"]))
            .map(|port| number(port, &["containerPort"]))
            .find_map(|port| u16::try_from(port).ok().filter(|port| *port > 0))
            .unwrap_or(if wanted.tls { 443 } else { 80 }),
        port => parse_port(port)?,
    };
    reachable(host, port, wanted.tls)
}

async fn service_peer(ask: &Ask<'_>, wanted: &Named<'_>) -> Result<Peer, Status> {
    let (host, port) = endpoint(ask.state, ask.namespace, wanted.name, wanted.port).await?;
    reachable(&host, port, wanted.tls)
}

/// Address and port of one who answers for a Service. `wanted` names one of its ports, or is empty where there is one
/// only.
pub(crate) async fn endpoint(
    state: &Arc<State>,
    namespace: &str,
    name: &str,
    wanted: &str,
) -> Result<(String, u16), Status> {
    let mut found = endpoints(state, namespace, name, wanted).await?;
    Ok(found.swap_remove(fastrand::usize(..found.len())))
}

/// Address and port of all who answer for a Service: one at least.
pub(crate) async fn endpoints(
    state: &Arc<State>,
    namespace: &str,
    name: &str,
    wanted: &str,
) -> Result<Vec<(String, u16)>, Status> {
    let service = stored(state, row("", "services")?, namespace, name).await?;
    let unavailable = |why: String| Status::new(503, "ServiceUnavailable", why);
    let quoted = api::field::quoted;
    let ports = list(&service, &["spec", "ports"]);
    let external = text(&service, &["spec", "type"]) == "ExternalName";
    let host = text(&service, &["spec", "externalName"]);
    // A name elsewhere has whatever port is asked for.
    if external && let Ok(port) = wanted.parse() {
        return Ok(vec![(host.to_owned(), port)]);
    }
    let port = match wanted {
        "" => ports.first().filter(|_| ports.len() == 1),
        given => ports.iter().find(|port| {
            text(port, &["name"]) == given || number(port, &["port"]).to_string() == given
        }),
    };
    let Some(port) = port else {
        return Err(unavailable(format!(
            "no service port {} found for service {}",
            quoted(wanted),
            quoted(name)
        )));
    };
    if external {
        let number = u16::try_from(number(port, &["port"])).unwrap_or_default();
        return Ok(vec![(host.to_owned(), number)]);
    }
    let slices = row("discovery.k8s.io", "endpointslices")?;
    let range = Range {
        prefix: slices.key_prefix(namespace),
        ..Range::default()
    };
    let page = state.storage.list(range).await;
    let page = page.map_err(|error| storage_failure(&error))?;
    let mut found = Vec::new();
    for entry in &page.entries {
        let slice = object::decode(slices, entry);
        let label = ["metadata", "labels", "kubernetes.io/service-name"];
        if text(&slice, &label) != name {
            continue;
        }
        let target = list(&slice, &["ports"])
            .iter()
            .find(|candidate| text(candidate, &["name"]) == text(port, &["name"]))
            .and_then(|candidate| u16::try_from(number(candidate, &["port"])).ok());
        let Some(target) = target else { continue };
        for endpoint in list(&slice, &["endpoints"]) {
            let ready = at(endpoint, &["conditions", "ready"]);
            if ready.is_null() || flag(endpoint, &["conditions", "ready"]) {
                let address = list(endpoint, &["addresses"]).first();
                found.extend(
                    address
                        .and_then(Value::as_str)
                        .map(|address| (address.to_owned(), target)),
                );
            }
        }
    }
    if found.is_empty() {
        return Err(unavailable(format!(
            "no endpoints available for service {}",
            quoted(name)
        )));
    }
    Ok(found)
}

/// The server lends nobody its place on loopback or the link: what listens there trusts who comes from there.
fn reachable(host: &str, port: u16, tls: bool) -> Result<Peer, Status> {
    let allowed = host.parse::<IpAddr>().is_ok_and(|address| {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
    });
    if !allowed {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(Peer {
        host: host.to_owned(),
        port,
        tls,
        agent: false,
    })
}

fn parse_port(port: &str) -> Result<u16, Status> {
    port.parse().map_err(|_| {
        Status::bad_request(format!(
            "invalid port {}: must be a number between 1 and 65535",
            api::field::quoted(port)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        #[rustfmt::skip]
        let cases = [
            ("web", Some((false, "web", ""))),
            ("web:80", Some((false, "web", "80"))),
            ("https:web:", Some((true, "web", ""))),
            ("http:web:metrics", Some((false, "web", "metrics"))),
            ("ftp:web:1", None),
            (":80", None),
            ("a:b:c:d", None),
        ];
        for (text, expected) in cases {
            let found = named(text).map(|named| (named.tls, named.name, named.port));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn loopback_and_link_are_nobodys() {
        for (host, allowed) in [
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("", false),
        ] {
            assert_eq!(reachable(host, 80, false).is_ok(), allowed, "{host}");
        }
    }
}
