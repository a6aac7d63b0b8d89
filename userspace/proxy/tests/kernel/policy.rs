//! Policies from an API server to the kernel: enforced once everything is known, kept when the process ends, taken over
//! by the next, and switched off when asked.

use std::time::Duration;

use bpf::Datapath;
use model::policy::Direction;
use net::Netns;
use plan::policy::PolicyTables;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::support::{Api, Ground, in_namespace, ip, path, start, until};

fn pod(name: &str, addr: &str, node: &str) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIP": addr, "podIPs": [{"ip": addr}]},
    })
}

fn policy(name: &str, ingress: Value) -> Value {
    json!({
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": ingress},
    })
}

fn tables(ground: &Ground) -> PolicyTables {
    let view = Datapath::inspect(&ground.root()).unwrap();
    view.policies().unwrap()
}

/// A link to the pod "db".
fn connect(inside: &Netns) {
    ip(&format!(
        "link add veth-db type veth peer name eth0 netns {}",
        path(inside)
    ));
    ip("link set veth-db up");
    inside
        .run(|| {
            ip("link set eth0 up");
        })
        .unwrap();
    ip("route add 10.244.0.2/32 dev veth-db");
}

#[test]
fn policies_hold_and_outlive_the_process() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    let inside = Netns::create().unwrap();
    in_namespace(&netns, story(&ground, &inside));
}

async fn story(ground: &Ground, inside: &Netns) {
    connect(inside);
    let api = Api::default();
    api.put(
        "nodes",
        json!({"kind": "Node", "metadata": {"name": "node-a"}}),
    );
    api.put(
        "namespaces",
        json!({"kind": "Namespace", "metadata": {"name": "default"}}),
    );
    api.put("pods", pod("db", "10.244.0.2", "node-a"));
    api.put("pods", pod("web", "10.244.1.2", "node-b"));

    let mut settings = ground.settings();
    settings.network_policy = true;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let first = start(&api, settings, stopping);
    until(&mut status, |status| status.policies.ready).await;
    assert_eq!(
        tables(ground),
        PolicyTables::default(),
        "no policy, no tables"
    );

    let from_web = json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}]);
    api.put("networkpolicies", policy("db", from_web));
    let said = until(&mut status, |status| status.policies.pods == 1).await;
    assert_eq!(
        (said.policies.policies, said.policies.troubles.len()),
        (1, 0)
    );
    let held = tables(ground);
    let link = *held.links.keys().next().expect("the pod's link is known");
    let asks = |tables: &PolicyTables, from: &str, port| {
        tables.lets_begin(
            link.ifindex,
            Direction::Ingress,
            from.parse().unwrap(),
            6,
            port,
        )
    };
    assert!(
        asks(&held, "10.244.1.2", 5432)
            && !asks(&held, "10.244.1.2", 80)
            && !asks(&held, "8.8.8.8", 5432)
    );
    let view = Datapath::inspect(&ground.root()).unwrap();
    let rows = proxy::listing::policies(
        &held,
        &view.endpoints().unwrap(),
        &view.policy_pods().unwrap(),
    );
    assert_eq!(rows.len(), 1);
    assert_eq!(
        rows[0].addresses,
        ["10.244.0.2".parse::<std::net::IpAddr>().unwrap()]
    );

    // What cannot be read is said of the object, and lets nobody in.
    api.put(
        "networkpolicies",
        policy("db", json!([{"from": [{"ipBlock": {"cidr": "nonsense"}}]}])),
    );
    let said = until(&mut status, |status| !status.policies.troubles.is_empty()).await;
    let trouble = &said.policies.troubles["default/db"];
    assert_eq!(
        trouble,
        &["ingress[0]: a peer is left out: \"nonsense\" is not a range of addresses"]
    );
    assert!(!asks(&tables(ground), "10.244.1.2", 5432));
    // A pod of the node's network whose cgroup is nowhere is not held to it, and the policy says so while there is one.
    let mut of_host = pod("db", "192.0.2.1", "node-a");
    of_host["metadata"]["name"] = json!("db-on-host");
    of_host["spec"]["hostNetwork"] = json!(true);
    of_host["metadata"]["uid"] = json!("0123-4567");
    let mut elsewhere = of_host.clone();
    elsewhere["metadata"]["name"] = json!("db-elsewhere");
    elsewhere["spec"]["nodeName"] = json!("node-b");
    api.put("pods", elsewhere);
    api.put("pods", of_host.clone());
    let two = |status: &proxy::Status| status.policies.troubles["default/db"].len() == 2;
    let said = until(&mut status, two).await;
    let words = &said.policies.troubles["default/db"][1];
    assert!(
        words.contains("network: default/db-on-host (no cgroup of a pod 0123-4567 is below "),
        "{words}"
    );
    of_host["status"]["phase"] = json!("Succeeded");
    api.put("pods", of_host);
    until(&mut status, |status| !two(status)).await;

    // The process ends, and nothing opens; the next one takes over.
    stop.send_replace(true);
    first.await.unwrap();
    let left = tables(ground);
    assert!(!asks(&left, "10.244.1.2", 5432));
    api.put("networkpolicies", policy("db", json!([{}])));
    let mut settings = ground.settings();
    settings.network_policy = true;
    settings.status = Default::default();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let second = start(&api, settings, stopping);
    until(&mut status, |status| status.policies.ready).await;
    let now = tables(ground);
    assert!(asks(&now, "8.8.8.8", 1));
    assert_ne!(now.control.epoch, left.control.epoch);
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while tables(ground).links.len() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("what was before is cleared away");
    stop.send_replace(true);
    second.await.unwrap();

    // Without, everything passes again.
    let settings = ground.settings();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let third = start(&api, settings, stopping);
    until(&mut status, |status| status.ready).await;
    assert_eq!(tables(ground).control.flags, 0);
    stop.send_replace(true);
    third.await.unwrap();
}

#[test]
fn nodes_are_followed_where_a_policy_is_about_them() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    let inside = Netns::create().unwrap();
    in_namespace(&netns, about_nodes(&ground, &inside));
}

async fn about_nodes(ground: &Ground, inside: &Netns) {
    connect(inside);
    let api = Api::default();
    let node = |address: &str| {
        json!({
            "kind": "Node",
            "metadata": {"name": "node-b", "labels": {"tier": "front"}},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        })
    };
    api.put("nodes", node("192.0.2.7"));
    api.put(
        "namespaces",
        json!({"kind": "Namespace", "metadata": {"name": "default"}}),
    );
    api.put("pods", pod("db", "10.244.0.2", "node-a"));
    api.put(
        "clusternetworkpolicies",
        json!({
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "no-front", "uid": "1"},
            "spec": {
                "tier": "Admin",
                "subject": {"namespaces": {}},
                "egress": [{"action": "Deny", "to": [{"nodes": {"matchLabels": {"tier": "front"}}}]}],
            },
        }),
    );
    let mut settings = ground.settings();
    settings.network_policy = true;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let proxy = start(&api, settings, stopping);
    let said = until(&mut status, |status| status.policies.pods == 1).await;
    assert_eq!(said.policies.troubles.len(), 0);
    let reaches = |to: &str| {
        let held = tables(ground);
        let link = *held.links.keys().next().expect("the pod's link is known");
        held.lets_begin(link.ifindex, Direction::Egress, to.parse().unwrap(), 6, 80)
    };
    assert!(!reaches("192.0.2.7") && reaches("192.0.2.8"));
    let changes = said.policies.changes;
    api.put("nodes", node("192.0.2.8"));
    until(&mut status, |status| status.policies.changes > changes).await;
    assert!(reaches("192.0.2.7") && !reaches("192.0.2.8"));
    stop.send_replace(true);
    proxy.await.unwrap();
}

#[test]
fn a_policy_says_of_which_pods_behind_a_bridge_it_does_not_hold() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    let inside = Netns::create().unwrap();
    in_namespace(&netns, behind_a_bridge(&ground, &inside));
}

async fn behind_a_bridge(ground: &Ground, inside: &Netns) {
    ip("link add br0 type bridge");
    ip("link set br0 up");
    ip("addr add 10.244.0.1/24 dev br0");
    let peer = path(inside);
    ip(&format!(
        "link add veth-db type veth peer name eth0 netns {peer}"
    ));
    ip("link set veth-db master br0");
    ip("link set veth-db up");
    let api = Api::default();
    api.put(
        "nodes",
        json!({"kind": "Node", "metadata": {"name": "node-a"}}),
    );
    api.put(
        "namespaces",
        json!({"kind": "Namespace", "metadata": {"name": "default"}}),
    );
    api.put("pods", pod("db", "10.244.0.2", "node-a"));
    api.put("pods", pod("web", "10.244.0.3", "node-a"));
    api.put("pods", pod("db-2", "10.244.1.2", "node-b"));
    let mut settings = ground.settings();
    settings.network_policy = true;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    until(&mut status, |status| status.policies.ready).await;
    api.put("networkpolicies", policy("db", json!([])));
    let said = until(&mut status, |status| !status.policies.troubles.is_empty()).await;
    let troubles = &said.policies.troubles["default/db"];
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    assert!(
        troubles[0].contains("default/db (behind a bridge);"),
        "{troubles:?}"
    );
    assert_eq!(
        said.policies.unheld_pods.keys().collect::<Vec<_>>(),
        ["default/db"]
    );

    // A link of its own takes the pod from behind the bridge.
    ip("link set veth-db nomaster");
    ip("route add 10.244.0.2/32 dev veth-db");
    until(&mut status, |status| {
        status.policies.troubles.is_empty() && status.policies.pods == 1
    })
    .await;
    stop.send(true).unwrap();
    daemon.await.unwrap();
}
