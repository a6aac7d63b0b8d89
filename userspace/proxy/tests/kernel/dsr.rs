//! Ways of external traffic: what the tables say by `snat`, `hybrid` and `dsr`, and which addresses are the cluster's.

use abi::balancing::Mode;
use abi::members::flags::{HERE, KNOWN, NODE};
use bpf::Datapath;
use net::Netns;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::run;
use crate::support::{Api, Ground, in_namespace, ip, start, until};

#[test]
fn each_way_is_written_to_the_frontends_that_it_concerns() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

#[test]
fn what_goes_in_a_tunnel_or_to_an_address_that_no_node_names_is_translated() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, detour(&ground));
}

fn node(name: &str, address: &str, range: &str) -> Value {
    json!({
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": range, "podCIDRs": [range]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

/// Two nodes, and a Service with a backend on each.
fn world() -> Api {
    let api = Api::default();
    api.put("nodes", node("node-a", "192.0.2.1", "10.244.0.0/24"));
    api.put("nodes", node("node-b", "192.0.2.2", "10.244.1.0/24"));
    let port = |name: &str, protocol: &str, node_port: u16| json!({"name": name, "port": 80, "protocol": protocol, "nodePort": node_port});
    api.put(
        "services",
        json!({
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "clusterIP": "10.96.0.10",
                "externalIPs": ["203.0.113.80", "192.0.2.1"],
                "ports": [port("t", "TCP", 30080), port("u", "UDP", 30081)],
            },
        }),
    );
    api.put(
        "endpointslices",
        json!({
            "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4",
            "ports": [
                {"name": "t", "port": 8080, "protocol": "TCP"},
                {"name": "u", "port": 8081, "protocol": "UDP"},
            ],
            "endpoints": [
                {"addresses": ["10.244.0.2"], "nodeName": "node-a"},
                {"addresses": ["10.244.1.2"], "nodeName": "node-b"},
                // On no node of the cluster.
                {"addresses": ["198.51.100.2"]},
            ],
        }),
    );
    api
}

/// The line of the tables that has this in it.
fn line(ground: &Ground, what: &str) -> String {
    let text = ground.tables().to_string();
    let found = text.lines().find(|line| line.contains(what));
    found
        .unwrap_or_else(|| panic!("no {what} in\n{text}"))
        .to_owned()
}

async fn detour(ground: &Ground) {
    let api = world();
    ip("addr add 192.0.2.50/24 dev up0");
    let mut settings = ground.settings();
    settings.load_balancing = Mode::Dsr;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    until(&mut status, |status| status.ready).await;
    let tunnels = || line(ground, "= 10.244.1.2:8080 ").ends_with(" tunnels");
    assert!(tunnels());
    assert!(line(ground, "frontend 192.0.2.1:30080/TCP ").ends_with(" dsr"));
    let vip = line(ground, "frontend 192.0.2.50:30080/TCP ");
    assert!(!vip.ends_with(" dsr"), "{vip}");
    for (change, straight) in [
        ("link add over0 type vxlan id 9 dstport 4789 dev up0", true),
        ("link set over0 up", true),
        ("route add 10.244.1.0/24 dev over0", false),
        ("route add 10.244.1.2/32 via 192.0.2.2", true),
        ("route del 10.244.1.2/32", false),
        ("link del over0", true),
    ] {
        ip(change);
        for _ in 0..200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            if tunnels() == straight {
                break;
            }
        }
        assert_eq!(tunnels(), straight, "{change}");
        let view = Datapath::inspect(&ground.root()).expect("it is pinned");
        let told = proxy::listing::translated(
            &view.observe().expect("it can be read"),
            &view.members().expect("it can be read"),
        );
        let of = |begins: &str| told.iter().any(|what| what.starts_with(begins));
        assert!(of("NodePorts at 192.0.2.50 by snat: "), "{told:?}");
        assert!(!of("NodePorts at 192.0.2.1 "), "{told:?}");
        let all = of("backends in 10.244.1.0/24 by snat: ");
        assert_eq!(all, !straight, "{change}: {told:?}");
    }
    stop.send(true).expect("it runs");
    daemon.await.expect("it ends");
}

async fn story(ground: &Ground) {
    let api = world();
    for (mode, word, tcp, udp) in [
        (Mode::Snat, "snat", false, false),
        (Mode::Hybrid, "hybrid", true, false),
        (Mode::Dsr, "dsr", true, true),
        (Mode::Snat, "snat", false, false),
    ] {
        let mut settings = ground.settings();
        settings.once = true;
        settings.load_balancing = mode;
        let (_stop, stopping) = watch::channel(false);
        run(&api, settings, stopping).await;
        let text = ground.tables().to_string();
        let line = |what: &str| {
            let found = text.lines().find(|line| line.starts_with(what));
            found.unwrap_or_else(|| panic!("no {what} in\n{text}"))
        };
        for (frontend, is) in [
            ("frontend 10.96.0.10:80/TCP ", false),
            ("frontend 203.0.113.80:80/TCP ", tcp),
            // The other node would look for a node port.
            ("frontend 192.0.2.1:80/TCP ", false),
            ("frontend 192.0.2.1:30080/TCP ", tcp),
            ("frontend 127.0.0.1:30080/TCP ", false),
            ("frontend 203.0.113.80:80/UDP ", udp),
            ("frontend 192.0.2.1:30081/UDP ", udp),
        ] {
            assert_eq!(
                line(frontend).ends_with(" dsr"),
                is,
                "{word}: {}",
                line(frontend)
            );
        }
        for (backend, is) in [
            ("10.244.0.2:8080", false),
            ("10.244.1.2:8080", tcp),
            ("198.51.100.2:8080", false),
        ] {
            let found = text
                .lines()
                .find(|line| line.contains(&format!("= {backend} ")));
            let found = found.unwrap_or_else(|| panic!("no {backend} in\n{text}"));
            assert_eq!(found.ends_with(" tunnels"), is, "{word}: {found}");
        }
        let view = Datapath::inspect(&ground.root()).expect("it is pinned");
        assert_eq!(view.status().expect("it can be read").load_balancing, word);
        let members: Vec<(u32, u32)> = view
            .members()
            .expect("it can be read")
            .iter()
            .map(|(key, member)| (key.prefix_len, member.flags & !KNOWN))
            .collect();
        let mut expected = vec![(120, HERE), (128, NODE | HERE), (120, 0), (128, NODE)];
        expected.sort_unstable();
        let mut members = members;
        members.sort_unstable();
        assert_eq!(members, expected, "{word}");
    }
}
