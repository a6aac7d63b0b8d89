//! A healthCheckNodePort that somebody else has: told on the Service, served once it is free.

use std::net::Ipv6Addr;

use net::Netns;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{Api, Ground, in_namespace, service, slice, start, until};

#[test]
fn a_health_check_port_that_is_taken_is_told_and_asked_for_again() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

async fn story(ground: &Ground) {
    let taken = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 32_000)).await;
    let taken = taken.unwrap();
    let api = Api::default();
    api.put(
        "nodes",
        json!({"kind": "Node", "metadata": {"name": "node-a"}}),
    );
    for (name, ip, port) in [("web", "10.96.0.10", 32_000), ("too", "10.96.0.11", 32_001)] {
        let mut object = service(name, ip);
        object["spec"]["type"] = json!("LoadBalancer");
        object["spec"]["externalTrafficPolicy"] = json!("Local");
        object["spec"]["healthCheckNodePort"] = json!(port);
        api.put("services", object);
        api.put("endpointslices", slice(name, &["10.244.0.2"]));
    }
    let settings = ground.settings();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let proxy = start(&api, settings, stopping);

    let troubled = until(&mut status, |status| !status.troubles.is_empty()).await;
    let words = "healthCheckNodePort 32000 cannot be served at [::]:32000: Address already in use \
                 (os error 98); load balancers pass this node by";
    assert_eq!(troubled.troubles["default/web"], [words]);
    assert_eq!(troubled.troubles.len(), 1, "others are served");
    TcpStream::connect(("127.0.0.1", 32_001)).await.unwrap();

    // A change of the Service tells nothing new, and forgets nothing.
    let turns = troubled.turns;
    api.put("endpointslices", slice("web", &["10.244.0.3"]));
    let same = until(&mut status, |status| status.turns > turns).await;
    assert_eq!(same.troubles["default/web"], [words]);

    drop(taken);
    until(&mut status, |status| status.troubles.is_empty()).await;
    TcpStream::connect(("127.0.0.1", 32_000)).await.unwrap();
    stop.send_replace(true);
    proxy.await.unwrap();
}
