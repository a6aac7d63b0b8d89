//! Ways of external traffic: what the tables say by `snat`, `hybrid` and `dsr`, and which addresses are the cluster's.

use abi::balancing::Mode;
use abi::members::flags::{HERE, KNOWN, NODE};
use bpf::Datapath;
use net::Netns;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::run;
use crate::support::{Api, Ground, in_namespace};

#[test]
fn each_way_is_written_to_the_frontends_that_it_concerns() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

fn node(name: &str, address: &str, range: &str) -> Value {
    json!({
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": range, "podCIDRs": [range]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

async fn story(ground: &Ground) {
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
                "externalIPs": ["203.0.113.80"],
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
