//! This host's Node object, which `up` keeps: name, addresses and what the host is. There is no node agent in this
//! process, so nobody reports whether the node is ready: `kubectl get nodes` shows Unknown, and pods that are
//! deleted go at once.

use std::net::IpAddr;

use anyhow::Context as _;
use client::{Client, PatchKind, Resource};
use net::{Link, Links};
use serde_json::{Value, json};
use view::objects::Node;

/// Creates the Node, or brings its addresses up to date.
pub(crate) async fn register(
    client: &Client,
    name: &str,
    devices: &[String],
) -> anyhow::Result<()> {
    let links = Links::open()?.list().await?;
    let path = Resource::of::<Node>().object("", name);
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
        }},
    });
    match client
        .create::<Value>(&Resource::of::<Node>().everywhere(), &node)
        .await
    {
        Ok(_) => {}
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(error).with_context(|| format!("create Node {name}")),
    }
    let status = json!({"status": {
        "addresses": addresses(name, &links, devices),
        "conditions": [
            condition("NetworkUnavailable", "False", "FairleadProxy", "Services are programmed on this node"),
            // Until somebody says whether the node is Ready, deleted pods do not wait for an agent.
            condition("fairlead.io/NodeAgent", "False", "NoNodeAgent", "no agent runs this node's pods"),
        ],
        "nodeInfo": {
            "operatingSystem": "linux",
            "architecture": architecture(),
            "kernelVersion": host_file("/proc/sys/kernel/osrelease"),
            "bootID": host_file("/proc/sys/kernel/random/boot_id"),
            "machineID": host_file("/etc/machine-id"),
            "systemUUID": "",
            "osImage": os_image(),
            "containerRuntimeVersion": "",
            "kubeletVersion": apiserver::kubernetes_version(),
            "kubeProxyVersion": "",
        },
    }});
    // A strategic patch would merge addresses by their type, and leave one of each.
    client
        .patch::<Value>(&path.subresource("status"), PatchKind::Merge, &status)
        .await
        .with_context(|| format!("write the addresses of Node {name}"))?;
    Ok(())
}

/// This host's addresses as its Node object has them.
pub(crate) async fn own_addresses(devices: &[String]) -> anyhow::Result<Vec<IpAddr>> {
    let links = Links::open()?.list().await?;
    let found = addresses("", &links, devices);
    let texts = found.as_array().into_iter().flatten();
    Ok(texts
        .filter(|address| address["type"] == "InternalIP")
        .filter_map(|address| address["address"].as_str()?.parse().ok())
        .collect())
}

/// Addresses of the named devices; without any, those of every link that does not lead to a pod.
fn addresses(name: &str, links: &[Link], devices: &[String]) -> Value {
    let chosen = links.iter().filter(|link| {
        !link.loopback
            && match devices {
                [] => link.up && !link.leads_to_pod(),
                named => named.contains(&link.name),
            }
    });
    let internal = chosen
        .flat_map(|link| link.addresses.iter().map(|address| address.addr))
        .filter(|addr| is_global(*addr))
        .map(|addr| json!({"type": "InternalIP", "address": addr}));
    internal
        .chain([json!({"type": "Hostname", "address": name})])
        .collect()
}

fn is_global(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// As Go names it, which is what nodes are selected by.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn host_file(path: &str) -> String {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn os_image() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_nodes_addresses_are_those_of_its_links_but_the_ones_that_lead_to_pods() {
        let link = |name: &str, kind: Option<&str>, peer_elsewhere, default_route, last| Link {
            ifindex: 7,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            up: true,
            loopback: name == "lo",
            peer_elsewhere,
            default_route,
            enslaved: false,
            hardware_address: Vec::new(),
            qdisc: String::new(),
            mtu: 1500,
            addresses: vec![net::Address {
                addr: IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)),
                prefix_len: 24,
            }],
        };
        let links = [
            link("lo", None, false, false, 1),
            link("eth1", None, false, false, 2),
            // Of a host that is a container itself.
            link("eth0", Some("veth"), true, true, 3),
            link("veth9", Some("veth"), true, false, 4),
        ];
        let found = |devices: &[&str]| {
            let devices: Vec<String> = devices.iter().map(|name| (*name).to_owned()).collect();
            let all = addresses("n1", &links, &devices);
            let texts = all.as_array().into_iter().flatten();
            texts
                .filter_map(|address| address["address"].as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), ["192.0.2.2", "192.0.2.3", "n1"]);
        assert_eq!(found(&["veth9"]), ["192.0.2.4", "n1"]);
    }
}
