//! From what people write to addresses: who connects, and to what.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use bpf::View;
use net::Link;
use view::objects::Service;

use super::super::cluster::{Cluster, pod_addresses};
use crate::cli;

/// Who connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Client {
    pub(super) addr: IpAddr,
    pub(super) at: At,
}

/// Where a client is, as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// Behind the pod's link of this index.
    Pod(u32),
    /// This node itself.
    Node,
    /// Beyond the node's device of this index.
    Outside(u32),
}

/// Where a connection goes.
///
/// # Errors
///
/// For what is neither an address nor a Service's name.
pub(super) fn destination(
    to: &str,
    from: Option<&str>,
    cluster: &Cluster,
) -> anyhow::Result<SocketAddr> {
    if let Ok(end) = to.parse::<SocketAddr>() {
        let what = match end.ip() {
            ip if ip.is_unspecified() || is_many(ip) => "nobody is connected to at that address",
            _ if end.port() == 0 => "no connection goes to port 0",
            _ => return Ok(end),
        };
        anyhow::bail!("--to {to}: {what}");
    }
    let (host, port) = to
        .rsplit_once(':')
        .with_context(|| format!("--to {to}: want NAME[.NAMESPACE]:PORT or ADDRESS:PORT"))?;
    let service = service(host, cluster)?;
    let name = format!("{}/{}", service.metadata.namespace, service.metadata.name);
    let port = match port.parse() {
        Ok(0) => anyhow::bail!("--to {to}: no connection goes to port 0"),
        Ok(port) => port,
        Err(_) => {
            let named = service.spec.ports.iter().find(|it| it.name == port);
            let number = named.and_then(|it| u16::try_from(it.port).ok());
            number.with_context(|| {
                let ports = service.spec.ports.iter().map(|it| match it.name.as_str() {
                    "" => it.port.to_string(),
                    name => format!("{name} ({})", it.port),
                });
                let ports = ports.collect::<Vec<_>>().join(", ");
                format!("--to {to}: Service {name} has no port {port:?}; it has: {ports}")
            })?
        }
    };
    let addresses: Vec<IpAddr> = service
        .spec
        .cluster_ips
        .iter()
        .filter_map(|ip| ip.parse().ok())
        .collect();
    // Of the client's family, where the client is written as an address.
    let wants_v6 = from
        .and_then(|from| from.parse::<IpAddr>().ok())
        .map(|addr| addr.is_ipv6());
    let of_family = addresses
        .iter()
        .find(|addr| wants_v6.is_none_or(|v6| addr.is_ipv6() == v6));
    match of_family {
        Some(addr) => Ok(SocketAddr::new(*addr, port)),
        None if service.spec.type_ == "ExternalName" => anyhow::bail!(
            "--to {to}: Service {name} is another name for {:?}: DNS sends clients there, and no address is balanced",
            service.spec.external_name
        ),
        None if addresses.is_empty() => anyhow::bail!(
            "--to {to}: Service {name} is headless: DNS gives clients the endpoints' own addresses; name one of them"
        ),
        None => anyhow::bail!(
            "--to {to}: Service {name} has no address of the client's family, but {addresses:?}"
        ),
    }
}

/// Whether an address is that of many.
fn is_many(addr: IpAddr) -> bool {
    addr.is_multicast() || matches!(addr, IpAddr::V4(addr) if addr.is_broadcast())
}

/// Finds `NAME`, `NAME.NAMESPACE`, `NAME.NAMESPACE.svc` and what may follow.
fn service<'a>(host: &str, cluster: &'a Cluster) -> anyhow::Result<&'a Service> {
    let mut labels = host.split('.');
    let name = labels.next().unwrap_or_default();
    let namespace = labels.next().unwrap_or("default");
    if !matches!(labels.next(), None | Some("svc" | "")) {
        anyhow::bail!("--to {host}: want NAME, NAME.NAMESPACE or NAME.NAMESPACE.svc.DOMAIN");
    }
    if cluster.services.is_empty() {
        anyhow::bail!(
            "--to {host}: name the API server with --kubeconfig, which knows names, or give ADDRESS:PORT"
        );
    }
    let mut services = cluster.services.iter();
    services
        .find(|it| it.metadata.name == name && it.metadata.namespace == namespace)
        .with_context(|| {
            let elsewhere: Vec<&str> = cluster
                .services
                .iter()
                .filter(|it| it.metadata.name == name)
                .map(|it| it.metadata.namespace.as_str())
                .collect();
            let hint = if elsewhere.is_empty() {
                "`kubectl get services -A` lists those there are".to_owned()
            } else {
                format!("there is one of that name in: {}", elsewhere.join(", "))
            };
            format!("--to {host}: no Service {namespace}/{name}; {hint}")
        })
}

/// Who connects, to an address of the family of `to`.
///
/// # Errors
///
/// For a Pod that is not known or not on this node.
pub(super) fn client(
    flags: &cli::Explain,
    to: IpAddr,
    cluster: &Cluster,
    view: &View,
    links: &[Link],
) -> anyhow::Result<Client> {
    if flags.from_node {
        return node(to, view);
    }
    let from = flags.from.as_deref().unwrap_or_default();
    let (addr, is_pod) = match from.parse::<IpAddr>() {
        Ok(addr) => (addr, false),
        Err(_) => (pod(from, to, cluster)?, true),
    };
    anyhow::ensure!(
        !addr.is_unspecified() && !is_many(addr),
        "--from {from}: nobody connects from that address; name a Pod, or an address that one has"
    );
    anyhow::ensure!(
        addr.is_ipv6() == to.is_ipv6(),
        "--from {from}: {addr} and {to} are of two families, and nothing connects them"
    );
    if let Some(endpoint) = view.endpoints()?.get(&addr) {
        let at = At::Pod(endpoint.ifindex);
        return Ok(Client { addr, at });
    }
    let own = links.iter().flat_map(|link| &link.addresses);
    if own.into_iter().any(|address| address.addr == addr) {
        return Ok(Client { addr, at: At::Node });
    }
    let here = is_pod.then(|| on_node(from, cluster)).flatten();
    if let Some(node) = here {
        anyhow::bail!(
            "--from {from}: no link of this host leads to {addr}; the Pod is on node {node}: run this there"
        );
    }
    Ok(Client {
        addr,
        at: At::Outside(device(view)?),
    })
}

fn node(to: IpAddr, view: &View) -> anyhow::Result<Client> {
    let config = view.node()?;
    let addr = if to.is_ipv6() {
        IpAddr::from(config.addr6)
    } else {
        IpAddr::from(config.addr4)
    };
    anyhow::ensure!(
        !addr.is_unspecified(),
        "--from-node: this node has no address of the family of {to}; its Node object says which it has"
    );
    Ok(Client { addr, at: At::Node })
}

/// The address of a Pod, of the family of `to`.
fn pod(from: &str, to: IpAddr, cluster: &Cluster) -> anyhow::Result<IpAddr> {
    let (namespace, name) = from.split_once('/').unwrap_or(("default", from));
    if cluster.services.is_empty() && cluster.pods.is_empty() {
        anyhow::bail!(
            "--from {from}: name the API server with --kubeconfig, which knows names, or give an address"
        );
    }
    let mut pods = cluster.pods.iter();
    let pod = pods
        .find(|it| it.metadata.name == name && it.metadata.namespace == namespace)
        .with_context(|| {
            format!("--from {from}: no Pod {namespace}/{name}; `kubectl get pods -A` lists those there are")
        })?;
    if pod.spec.host_network {
        anyhow::bail!(
            "--from {from}: the Pod has its node's network: on that node, run this with --from-node"
        );
    }
    let mut own = pod_addresses(pod);
    own.find(|addr| addr.is_ipv6() == to.is_ipv6()).with_context(|| {
        format!("--from {from}: the Pod has no address of the family of {to} yet; give one with --from ADDRESS")
    })
}

fn on_node<'a>(from: &str, cluster: &'a Cluster) -> Option<&'a str> {
    let (namespace, name) = from.split_once('/').unwrap_or(("default", from));
    let mut pods = cluster.pods.iter();
    let pod = pods.find(|it| it.metadata.name == name && it.metadata.namespace == namespace)?;
    Some(pod.spec.node_name.as_str())
}

/// The first device where traffic from outside arrives.
fn device(view: &View) -> anyhow::Result<u32> {
    let links = view.status()?.links;
    let found = links.iter().find_map(|link| match &link.on {
        bpf::Place::Device { ifindex, .. } if link.program == "device_ingress" => Some(*ifindex),
        _ => None,
    });
    found.context(
        "the client is not on this node, and no device is attached where its packets could arrive: name them to the agent with --devices",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster() -> Cluster {
        let service = |namespace: &str, name: &str, spec: serde_json::Value| -> Service {
            let value = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
            serde_json::from_value(value).unwrap()
        };
        let ports = json!([{"name": "http", "port": 80}]);
        Cluster {
            services: vec![
                service(
                    "default",
                    "web",
                    json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "ports": ports}),
                ),
                service(
                    "shop",
                    "cart",
                    json!({"clusterIPs": ["10.96.0.2"], "ports": ports}),
                ),
                service("default", "headless", json!({"clusterIPs": ["None"]})),
                service(
                    "default",
                    "far",
                    json!({"type": "ExternalName", "externalName": "x.example"}),
                ),
            ],
            ..Cluster::default()
        }
    }

    #[test]
    fn destinations_are_read_as_people_write_them() {
        for (to, from, expected) in [
            ("10.0.0.1:80", None, "10.0.0.1:80"),
            ("[fd00::9]:53", None, "[fd00::9]:53"),
            ("web:80", None, "10.96.0.1:80"),
            ("web:http", None, "10.96.0.1:80"),
            ("web:81", None, "10.96.0.1:81"),
            (
                "web.default.svc.cluster.local:80",
                Some("fd00::7"),
                "[fd00::1]:80",
            ),
            ("cart.shop:http", Some("default/client"), "10.96.0.2:80"),
            ("cart.shop.svc:80", None, "10.96.0.2:80"),
        ] {
            let found = destination(to, from, &cluster()).unwrap();
            assert_eq!(found, expected.parse().unwrap(), "{to}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error_with_a_remedy() {
        for (to, from, words) in [
            ("web", None, "NAME[.NAMESPACE]:PORT"),
            ("cart:80", None, "there is one of that name in: shop"),
            ("nowhere:80", None, "kubectl get services"),
            ("web:grpc", None, "http"),
            ("web.default.pod:80", None, "NAME.NAMESPACE.svc"),
            ("headless:80", None, "headless"),
            ("far:80", None, "x.example"),
            ("cart.shop:80", Some("fd00::7"), "family"),
        ] {
            let error = destination(to, from, &cluster()).unwrap_err().to_string();
            assert!(error.contains(words), "{to}: {error}");
        }
        let error = destination("web:80", None, &Cluster::default()).unwrap_err();
        assert!(error.to_string().contains("--kubeconfig"), "{error}");
    }
}
