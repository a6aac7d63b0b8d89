//! What the API server says of Services, Pods and Nodes, for commands that show names. The kernel knows addresses and
//! identifiers; the server knows names. A server that does not answer costs the names, not what is shown.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use client::{Client, ListParams, Resource};
use plan::Tables;
use proxy::listing::{self, ServiceRow};
use serde::de::DeserializeOwned;
use view::objects::{EndpointSlice, Node, Object, Pod, Service};

/// How long the API server may take for everything together.
const PATIENCE: Duration = Duration::from_secs(3);

/// The objects that have names to show.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) services: Vec<Service>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) slices: Vec<EndpointSlice>,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// Asks the server of a kubeconfig.
    ///
    /// Services must be told; who may not list Pods, EndpointSlices or Nodes goes without their names.
    pub(crate) fn read(kubeconfig: &Path) -> anyhow::Result<Cluster> {
        let client = super::connect(kubeconfig)?;
        let read = async {
            let services = list(&client).await?;
            let (pods, slices, nodes) = tokio::join!(list(&client), list(&client), list(&client));
            Ok(Cluster {
                services,
                pods: told(pods, "Pods"),
                slices: told(slices, "EndpointSlices"),
                nodes: told(nodes, "Nodes"),
            })
        };
        match super::runtime()?.block_on(async { tokio::time::timeout(PATIENCE, read).await }) {
            Ok(read) => read,
            Err(_) => anyhow::bail!("{} did not answer in time", client.server()),
        }
    }

    /// As [`read`](Self::read) where a kubeconfig is given; a server that cannot be asked is reported on stderr.
    pub(crate) fn read_if_told(kubeconfig: Option<&Path>) -> Cluster {
        let Some(kubeconfig) = kubeconfig else {
            return Cluster::default();
        };
        Cluster::read(kubeconfig).unwrap_or_else(|error| {
            eprintln!("fairlead: names are not shown: {error:#}");
            Cluster::default()
        })
    }

    /// Names of what the tables hold.
    pub(crate) fn names(&self, tables: &Tables) -> Names {
        self.names_of(&listing::services(tables))
    }

    /// As [`names`](Self::names), of rows that were made of tables.
    pub(crate) fn names_of(&self, rows: &[ServiceRow]) -> Names {
        Names {
            services: service_names(rows, &self.services),
            addresses: self.addresses(),
            nodes: self.node_names(),
        }
    }

    /// The node of each endpoint and Pod, and of its own addresses.
    fn node_names(&self) -> BTreeMap<IpAddr, String> {
        let mut nodes = BTreeMap::new();
        let endpoints = self.slices.iter().flat_map(|slice| &slice.endpoints);
        nodes.extend(endpoints.filter_map(|endpoint| {
            let addr = endpoint.addresses.first()?.parse().ok()?;
            Some((addr, endpoint.node_name.clone()?))
        }));
        let pods = self.pods.iter();
        for pod in pods.filter(|pod| is_running(pod) && !pod.spec.node_name.is_empty()) {
            nodes.extend(pod_addresses(pod).map(|addr| (addr, pod.spec.node_name.clone())));
        }
        for node in &self.nodes {
            let own = node.status.addresses.iter();
            let own = own.filter_map(|address| address.address.parse::<IpAddr>().ok());
            nodes.extend(own.map(|addr| (addr, node.metadata.name.clone())));
        }
        nodes
    }

    /// Nodes first, then Pods: what has its node's address is the node to whoever sees packets.
    fn addresses(&self) -> BTreeMap<IpAddr, String> {
        let mut addresses = BTreeMap::new();
        let targets = self.slices.iter().flat_map(|slice| {
            let endpoints = slice.endpoints.iter();
            endpoints.filter_map(|endpoint| {
                let target = endpoint.target_ref.as_ref().filter(|it| it.kind == "Pod")?;
                let name = format!("{}/{}", slice.metadata.namespace, target.name);
                Some((endpoint.addresses.first()?.parse().ok()?, name))
            })
        });
        addresses.extend(targets);
        for pod in self.pods.iter().filter(|pod| is_running(pod)) {
            let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
            addresses.extend(pod_addresses(pod).map(|addr| (addr, name.clone())));
        }
        for node in &self.nodes {
            let own = node.status.addresses.iter();
            let own = own.filter_map(|address| address.address.parse::<IpAddr>().ok());
            let name = format!("node {}", node.metadata.name);
            addresses.extend(own.map(|addr| (addr, name.clone())));
        }
        addresses
    }
}

/// Addresses of a Pod's own; none where it has its node's.
pub(crate) fn pod_addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> + '_ {
    let status = (!pod.spec.host_network).then_some(&pod.status);
    let all = status.into_iter().flat_map(|status| {
        let one = std::iter::once(&status.pod_ip);
        status.pod_ips.iter().map(|ip| &ip.ip).chain(one)
    });
    all.filter_map(|ip| ip.parse().ok())
}

/// An address of a Pod that ended may be another's by now.
fn is_running(pod: &Pod) -> bool {
    !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

async fn list<T: Object + DeserializeOwned>(client: &Client) -> Result<Vec<T>, client::Error> {
    let path = Resource::of::<T>().everywhere();
    Ok(client.list::<T>(&path, &ListParams::default()).await?.items)
}

fn told<T>(items: Result<Vec<T>, client::Error>, what: &str) -> Vec<T> {
    items.unwrap_or_else(|error| {
        eprintln!("fairlead: names of {what} are not shown: {error}");
        Vec::new()
    })
}

/// Names by what the kernel knows.
#[derive(Debug, Default)]
pub(crate) struct Names {
    services: BTreeMap<u32, String>,
    addresses: BTreeMap<IpAddr, String>,
    nodes: BTreeMap<IpAddr, String>,
}

impl Names {
    /// The name of a service port, such as `default/web:http`.
    pub(crate) fn service(&self, id: u32) -> Option<&str> {
        self.services.get(&id).map(String::as_str)
    }

    /// Who has an address: `default/web-0` or `node a`.
    pub(crate) fn address(&self, addr: IpAddr) -> Option<&str> {
        self.addresses.get(&addr).map(String::as_str)
    }

    /// The node where an address is.
    pub(crate) fn node_of(&self, addr: IpAddr) -> Option<&str> {
        self.nodes.get(&addr).map(String::as_str)
    }

    /// The identifiers of the service ports that a word names: an identifier, a Service with or without its namespace,
    /// or one port of it. Empty where none is named so.
    pub(crate) fn services_named(&self, word: &str) -> Vec<u32> {
        if let Ok(id) = word.parse() {
            return vec![id];
        }
        let named = self
            .services
            .iter()
            .filter(|(_, name)| is_named(name, word));
        named.map(|(id, _)| *id).collect()
    }

    /// The addresses of the Pods that a word names, with or without the namespace.
    pub(crate) fn pods_named(&self, word: &str) -> Vec<IpAddr> {
        let named = self
            .addresses
            .iter()
            .filter(|(_, name)| is_named(name, word));
        named.map(|(addr, _)| *addr).collect()
    }

    /// Whether any name is known at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.addresses.is_empty()
    }
}

/// Whether `default/web:http` is meant by a word: `default/web:http`, `default/web`, `web:http` or `web`.
fn is_named(name: &str, word: &str) -> bool {
    let whole = |name: &str| name == word || name.split(':').next() == Some(word);
    whole(name) || name.split_once('/').is_some_and(|(_, name)| whole(name))
}

/// All frontends of a service port share its identifier, and an address and port are one Service's. Where a traffic
/// policy makes two services of a port, those of the second are its addresses outside and its port on nodes.
fn service_names(rows: &[ServiceRow], services: &[Service]) -> BTreeMap<u32, String> {
    let mut addresses = BTreeMap::new();
    let mut node_ports = BTreeMap::new();
    for service in services {
        let ingress = service.status.load_balancer.ingress.iter().map(|at| &at.ip);
        let own = service.spec.cluster_ips.iter();
        let own = own.chain(&service.spec.external_ips).chain(ingress);
        let own: Vec<IpAddr> = own.filter_map(|addr| addr.parse().ok()).collect();
        for port in &service.spec.ports {
            let name = format!(
                "{}/{}{}{}",
                service.metadata.namespace,
                service.metadata.name,
                if port.name.is_empty() { "" } else { ":" },
                port.name
            );
            let protocol = port.protocol.as_str();
            for addr in &own {
                addresses.insert((*addr, port.port, protocol), name.clone());
            }
            if port.node_port != 0 {
                node_ports.insert((port.node_port, protocol), name);
            }
        }
    }
    let name = |row: &ServiceRow| {
        let port = i32::from(row.frontend.port());
        let at = addresses.get(&(row.frontend.ip(), port, row.protocol));
        at.or_else(|| {
            let on_node = row.node_port.then(|| node_ports.get(&(port, row.protocol)));
            on_node.flatten()
        })
    };
    let mut names = BTreeMap::new();
    for row in rows {
        if let Some(name) = name(row) {
            names.entry(row.id).or_insert_with(|| name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_meant_with_and_without_what_is_around_them() {
        for (name, word, meant) in [
            ("default/web:http", "default/web:http", true),
            ("default/web:http", "default/web", true),
            ("default/web:http", "web:http", true),
            ("default/web:http", "web", true),
            ("default/web:http", "default/we", false),
            ("default/web:http", "http", false),
            ("default/web:http", "other/web", false),
            ("default/web", "web", true),
        ] {
            assert_eq!(is_named(name, word), meant, "{name} {word}");
        }
    }

    #[test]
    fn every_frontend_of_a_service_is_named() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {
                "clusterIPs": ["10.96.0.1", "fd00::1"], "externalIPs": ["203.0.113.9"],
                "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}},
        }))
        .unwrap();
        let row = |id: u32, frontend: &str, node_port: bool| ServiceRow {
            id,
            frontend: frontend.parse().unwrap(),
            protocol: "TCP",
            kind: "",
            node_port,
            clients: "all",
            source_ranges: None,
            affinity_secs: 0,
            balancing: "random",
            backends: Vec::new(),
            without_backends: "refused",
        };
        let rows = [
            row(1, "10.96.0.1:80", false),
            row(2, "[fd00::1]:80", false),
            row(3, "203.0.113.9:80", false),
            row(4, "198.51.100.7:80", false),
            row(5, "192.0.2.1:30080", true),
            row(6, "192.0.2.1:30080", false),
            row(7, "10.96.0.1:81", false),
        ];
        let names = service_names(&rows, &[service]);
        assert_eq!(names.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert!(names.values().all(|name| name == "default/web:http"));
    }

    #[test]
    fn pods_of_the_nodes_network_have_no_address_of_their_own() {
        let pod = |host_network: bool| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"namespace": "default", "name": "web"},
                "spec": {"hostNetwork": host_network, "nodeName": "a"},
                "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::2"}]},
            }))
            .unwrap()
        };
        assert_eq!(pod_addresses(&pod(true)).count(), 0);
        let cluster = Cluster {
            pods: vec![pod(false)],
            ..Cluster::default()
        };
        let names = cluster.names_of(&[]);
        for addr in ["10.0.0.1", "fd00::2"] {
            assert_eq!(names.address(addr.parse().unwrap()), Some("default/web"));
            assert_eq!(names.node_of(addr.parse().unwrap()), Some("a"));
        }
        assert_eq!(names.pods_named("web").len(), 2);
    }
}
