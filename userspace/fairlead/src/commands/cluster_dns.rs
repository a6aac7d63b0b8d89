//! The cluster's DNS in the process of `up`: the Service `kube-dns` at the tenth address of the service range, as
//! kubeadm gives it, with this host behind it.
//!
//! The server listens on a port of its own choosing, since port 53 of a host often has an owner: the Service
//! leads there. A host without DNS is still a cluster, so what fails here is said and does not end the process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Context as _;
use client::{Client, ListParams, PatchKind, Resource};
use dns_server::corefile::Scheme;
use dns_server::instance::MayAsk;
use dns_server::transport::Server;
use ipnet::IpNet;
use serde_json::{Value, json};
use view::objects::{EndpointSlice, Namespace, Service};

use super::askers::Askers;
use super::dns;
use crate::cli::ServerFlags;

/// What kubeadm calls them.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
/// The EndpointSlice that leads to this host.
const SLICE: &str = "kube-dns-host";

/// Begins to serve; `addresses` are this host's. The socket is bound to all of them, since pods reach one and this host
/// another, so that `askers` says who is answered.
pub(crate) async fn start(
    client: &Client,
    flags: &ServerFlags,
    port: u16,
    addresses: &[IpAddr],
    askers: &Arc<Askers>,
) -> anyhow::Result<Server> {
    let file = flags.data_dir.join("Corefile");
    if !file.exists() {
        std::fs::write(&file, corefile(&flags.cluster_domain, has_upstream()))
            .with_context(|| format!("write {}", file.display()))?;
    }
    Arc::clone(askers).follow(client.clone()).await?;
    let askers = Arc::clone(askers);
    let may_ask: MayAsk = Box::new(move |addr| askers.may_ask(addr));
    let server = dns::open(Some(client.clone()), Some(file), port, Some(may_ask))?;
    let plain = |(listen, local): (dns_server::instance::Listen, std::net::SocketAddr)| {
        (listen.scheme == Scheme::Dns).then_some(local.port())
    };
    let port = server.local_addresses().into_iter().find_map(plain);
    let port = port.context("the Corefile has no block for plain DNS")?;
    let cluster_ip = flags.service_cluster_ip_range.first().and_then(tenth);
    let cluster_ip = cluster_ip.context("the service range has no tenth address")?;
    let own = addresses
        .iter()
        .find(|addr| addr.is_ipv4() == cluster_ip.is_ipv4());
    publish(client, cluster_ip, own, port).await?;
    match own {
        Some(address) => tracing::info!(%cluster_ip, %address, port, "the cluster's DNS answers"),
        None => tracing::error!(
            %cluster_ip,
            "the cluster's DNS cannot be reached: this host has no address of that family on a link that is up and \
             leads to no pod; give it one and start again, or name its device with --devices"
        ),
    }
    Ok(server)
}

/// kubeadm's, without the HTTP servers that would want ports of the host.
fn corefile(domain: &str, upstream: bool) -> String {
    let forward = match upstream {
        true => "    forward . /etc/resolv.conf {\n        max_concurrent 1000\n    }\n",
        false => "",
    };
    format!(
        ". {{\n    errors\n    kubernetes {domain} in-addr.arpa ip6.arpa {{\n        pods insecure\n        \
         fallthrough in-addr.arpa ip6.arpa\n        ttl 30\n    }}\n{forward}    cache 30\n    loop\n    reload\n    \
         loadbalance\n}}\n"
    )
}

/// Whether this host knows a resolver to send other names to.
fn has_upstream() -> bool {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .any(|line| line.split_whitespace().next() == Some("nameserver"))
}

/// The tenth address of a range, if it has so many.
fn tenth(range: &IpNet) -> Option<IpAddr> {
    let addr: IpAddr = match range.network() {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4).checked_add(10)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6).checked_add(10)?).into(),
    };
    range.contains(&addr).then_some(addr)
}

/// Writes the Service and what is behind it: `own`, an address of this host.
async fn publish(
    client: &Client,
    cluster_ip: IpAddr,
    own: Option<&IpAddr>,
    port: u16,
) -> anyhow::Result<()> {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let namespaces = Resource::of::<Namespace>().everywhere();
    create(client, &namespaces, &namespace)
        .await
        .context("create the namespace")?;
    let labels = json!({
        "k8s-app": NAME,
        "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "CoreDNS",
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "clusterIP": cluster_ip,
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53},
            ],
        },
    });
    let services = Resource::of::<Service>().within(NAMESPACE);
    create(client, &services, &service)
        .await
        .with_context(|| format!("create the Service {NAMESPACE}/{NAME}"))?;
    let service: Service = client
        .get(&Resource::of::<Service>().object(NAMESPACE, NAME))
        .await
        .with_context(|| format!("read the Service {NAMESPACE}/{NAME}"))?;
    // The endpoints go when the Service does.
    let owners = json!([
        {"apiVersion": "v1", "kind": "Service", "name": NAME, "uid": service.metadata.uid},
    ]);
    let endpoints: Vec<Value> = own
        .into_iter()
        .map(|addr| json!({"addresses": [addr], "conditions": {"ready": true}}))
        .collect();
    let ports = json!([
        {"name": "dns", "protocol": "UDP", "port": port},
        {"name": "dns-tcp", "protocol": "TCP", "port": port},
    ]);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": SLICE,
            "namespace": NAMESPACE,
            "ownerReferences": owners,
            "labels": {
                "kubernetes.io/service-name": NAME,
                "endpointslice.kubernetes.io/managed-by": "fairlead",
            },
        },
        "addressType": if cluster_ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": ports,
    });
    let slices = Resource::of::<EndpointSlice>();
    if !create(client, &slices.within(NAMESPACE), &slice)
        .await
        .context("create the endpoints")?
    {
        let path = slices.object(NAMESPACE, SLICE);
        let owned = json!({"ownerReferences": owners});
        let change = json!({"metadata": owned, "endpoints": endpoints, "ports": ports});
        client
            .patch::<Value>(&path, PatchKind::Merge, &change)
            .await
            .context("bring the endpoints up to date")?;
    }
    Ok(())
}

/// Takes away what an earlier run, with DNS, left: the endpoints that lead to this host, where nobody listens now, and
/// the Service if nothing else stands behind it. One that somebody has given a selector or endpoints stays.
pub(crate) async fn withdraw(client: &Client) -> anyhow::Result<()> {
    let slices = Resource::of::<EndpointSlice>();
    let of_service = ListParams {
        label_selector: format!("kubernetes.io/service-name={NAME}"),
        ..ListParams::default()
    };
    let behind = client
        .list::<EndpointSlice>(&slices.within(NAMESPACE), &of_service)
        .await
        .context("list the endpoints of the cluster's DNS")?;
    let (ours, others): (Vec<_>, Vec<_>) = behind
        .items
        .iter()
        .partition(|slice| slice.metadata.name == SLICE);
    if ours.is_empty() {
        return Ok(());
    }
    let path = Resource::of::<Service>().object(NAMESPACE, NAME);
    let selects = match client.get::<Value>(&path).await {
        Ok(service) => service["spec"]["selector"]
            .as_object()
            .is_some_and(|selector| !selector.is_empty()),
        Err(error) if error.is_not_found() => true,
        Err(error) => return Err(error).context("read the Service of the cluster's DNS"),
    };
    // The endpoints last: as long as they are there, the rest is done again by the next run.
    let service = (!selects && others.is_empty()).then_some(path);
    for path in service.into_iter().chain([slices.object(NAMESPACE, SLICE)]) {
        match client.delete(&path, &Value::Null).await {
            Ok(_) => {
                tracing::info!(%path, "left by a run that served the cluster's DNS, and deleted");
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error).with_context(|| format!("delete {path}")),
        }
    }
    Ok(())
}

/// Whether it was made; an object that exists stays as somebody may have changed it.
async fn create(client: &Client, path: &client::Path, object: &Value) -> anyhow::Result<bool> {
    match client.create::<Value>(path, object).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_already_exists() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenth_address() {
        let cases = [
            ("10.96.0.0/12", Some("10.96.0.10")),
            ("fd00:1::/108", Some("fd00:1::a")),
            ("10.0.0.0/29", None),
        ];
        for (range, want) in cases {
            let found = tenth(&range.parse().unwrap()).map(|addr| addr.to_string());
            assert_eq!(found.as_deref(), want, "{range}");
        }
    }

    /// An API server that holds this Service and EndpointSlices of these names; gives the paths that were deleted.
    async fn withdrawn(service: Option<Value>, slices: &[&str]) -> Vec<String> {
        let deleted = Arc::new(std::sync::Mutex::new(Vec::new()));
        let items: Vec<Value> = slices
            .iter()
            .map(|name| json!({"metadata": {"name": name, "namespace": NAMESPACE}}))
            .collect();
        let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
        let told = Arc::clone(&deleted);
        let api = tower::service_fn(move |request: http::Request<client::RequestBody>| {
            let path = request.uri().path().to_owned();
            let (code, body) = match (request.method().as_str(), &service) {
                ("DELETE", _) => {
                    told.lock().unwrap().push(path);
                    (200, json!({"kind": "Status", "status": "Success"}))
                }
                _ if path.ends_with("/endpointslices") => (200, list.clone()),
                (_, Some(service)) => (200, service.clone()),
                (_, None) => (
                    404,
                    json!({"kind": "Status", "code": 404, "reason": "NotFound"}),
                ),
            };
            let body = http_body_util::Full::new(bytes::Bytes::from(body.to_string()));
            let response = http::Response::builder().status(code).body(body);
            async move { response }
        });
        withdraw(&Client::in_process(api, "")).await.unwrap();
        let deleted = deleted.lock().unwrap();
        let names = deleted.iter().filter_map(|path| path.rsplit('/').next());
        names.map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn what_an_earlier_run_left_goes_and_what_others_made_stays() {
        let ours = || Some(json!({"spec": {"clusterIP": "10.96.0.10"}}));
        let theirs = || Some(json!({"spec": {"selector": {"k8s-app": "kube-dns"}}}));
        assert_eq!(withdrawn(ours(), &[SLICE]).await, [NAME, SLICE]);
        // Somebody took the Service over.
        assert_eq!(withdrawn(theirs(), &[SLICE, "kube-dns-x"]).await, [SLICE]);
        assert_eq!(withdrawn(ours(), &[SLICE, "by-hand"]).await, [SLICE]);
        // The Service was deleted by hand.
        assert_eq!(withdrawn(None, &[SLICE]).await, [SLICE]);
        let nothing: [&str; 0] = [];
        assert_eq!(withdrawn(ours(), &["by-hand"]).await, nothing);
        assert_eq!(withdrawn(theirs(), &[]).await, nothing);
        assert_eq!(withdrawn(None, &[]).await, nothing);
    }

    #[test]
    fn the_first_corefile_is_understood() {
        for upstream in [true, false] {
            let text = corefile("cluster.local", upstream);
            let read =
                dns_server::corefile::read(std::path::Path::new("Corefile"), &text, &|_| None);
            let blocks = read.unwrap().servers;
            assert_eq!(blocks.len(), 1, "{text}");
            assert_eq!(blocks[0].keys[0].text, ".", "{text}");
        }
    }
}
