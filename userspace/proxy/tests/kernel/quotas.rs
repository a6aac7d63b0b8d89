//! Bounds on flows: what the tables say where a Service names one, and where every Service and namespace has one.

use std::time::{Duration, Instant};

use abi::quotas::GROUP;
use bpf::Datapath;
use net::Netns;
use proxy::FlowLimits;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Api, Ground, in_namespace};

#[test]
fn bounds_are_written_where_somebody_names_them() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

fn service(name: &str, address: &str, annotations: Value) -> Value {
    json!({
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "clusterIP": address,
            "ports": [{"name": "t", "port": 80, "protocol": "TCP"}],
        },
    })
}

async fn story(ground: &Ground) {
    let api = Api::default();
    let own = json!({"fairlead.io/flows-max": "70"});
    api.put("services", service("own", "10.96.0.10", own));
    api.put("services", service("other", "10.96.0.11", json!({})));
    for (service, namespace, expected, limited) in [
        (0, 0, vec![70], [true, false]),
        (50, 900, vec![50, 70, 900], [true, true]),
        (0, 0, vec![70], [true, false]),
    ] {
        let mut settings = ground.settings();
        settings.flow_limits = FlowLimits { service, namespace };
        let (stop, stopping) = watch::channel(false);
        let looks = async {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let bounds = bounds(ground);
                if bounds.as_ref() == Some(&expected) {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "{bounds:?} instead of {expected:?}"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let text = ground.tables().to_string();
            for (address, is) in [("10.96.0.10", limited[0]), ("10.96.0.11", limited[1])] {
                let prefix = format!("frontend {address}:80/TCP ");
                let line = text.lines().find(|line| line.starts_with(&prefix));
                let line = line.unwrap_or_else(|| panic!("no {prefix} in\n{text}"));
                assert_eq!(line.ends_with(" limited"), is, "{line}");
            }
            stop.send(true).expect("it runs");
        };
        tokio::join!(crate::run(&api, settings, stopping), looks);
    }
}

/// The bounds of all groups that some service is in, in order.
fn bounds(ground: &Ground) -> Option<Vec<u32>> {
    let view = Datapath::inspect(&ground.root()).ok()?;
    let quotas = view.quotas().ok()?;
    let used: Vec<u32> = quotas
        .iter()
        .filter(|(key, _)| *key & GROUP == 0)
        .flat_map(|(_, quota)| quota.groups)
        .collect();
    let groups = quotas.iter().filter(|(key, _)| used.contains(key));
    let mut bounds: Vec<u32> = groups.map(|(_, quota)| quota.flows_max).collect();
    bounds.sort_unstable();
    Some(bounds)
}
