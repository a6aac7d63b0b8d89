//! Addresses and node ports of Services: given out once, given back, safe from races and crashes.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use storage::memory::Memory;
use storage::{Range, Storage, Write};
use support::Server;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: &Value) -> Value {
    let mut whole = json!({"ports": [{"name": "http", "port": 80}]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole})
}

/// The keys of what is given out, without their prefix.
async fn held(storage: &dyn Storage) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    for (prefix, kind) in [
        ("/registry/ipaddresses/", "serviceips"),
        ("/registry/ranges/servicenodeports/", "servicenodeports"),
    ] {
        let range = Range {
            prefix: prefix.into(),
            ..Range::default()
        };
        let page = storage.list(range).await.unwrap();
        held.extend(
            page.entries
                .iter()
                .map(|entry| format!("{kind}/{}", &entry.key[prefix.len()..])),
        );
    }
    held
}

async fn small(storage: Arc<dyn Storage>) -> Server {
    Server::with(storage, |config| {
        config.service_cidrs = vec!["10.0.0.0/28".parse().unwrap()];
        config.node_ports = 30000..=30009;
    })
    .await
}

#[tokio::test]
async fn many_at_once_never_get_the_same() {
    let server = Arc::new(small(Arc::new(Memory::new())).await);
    // Thirteen addresses are left beside that of the API, and ten ports.
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let server = server.clone();
            let spec = if i % 2 == 0 {
                json!({"type": "NodePort"})
            } else {
                json!({})
            };
            tokio::spawn(async move {
                server
                    .post(SERVICES, &service(&format!("s{i}"), &spec))
                    .await
            })
        })
        .collect();
    let (mut addresses, mut ports, mut refused) = (BTreeSet::new(), BTreeSet::new(), 0);
    for task in tasks {
        let reply = task.await.unwrap();
        if reply.code == 201 {
            let spec = &reply.json()["spec"];
            assert!(
                addresses.insert(spec["clusterIP"].as_str().unwrap().to_owned()),
                "{spec}"
            );
            if let Some(port) = spec["ports"][0].get("nodePort") {
                assert!(ports.insert(port.as_u64().unwrap()), "{spec}");
            }
        } else {
            assert!(reply.refused(500).contains("range is full"));
            refused += 1;
        }
    }
    assert_eq!((addresses.len(), refused), (13, 7));
    let expected = 1 + addresses.len() + ports.len();
    assert_eq!(held(&*server.storage).await.len(), expected);
}

#[tokio::test]
async fn what_is_deleted_can_be_given_out_again() {
    let server = small(Arc::new(Memory::new())).await;
    for round in 0..3 {
        for i in 0..10 {
            server
                .post(
                    SERVICES,
                    &service(&format!("s{i}"), &json!({"type": "NodePort"})),
                )
                .await
                .ok();
        }
        let reply = server
            .post(SERVICES, &service("more", &json!({"type": "NodePort"})))
            .await;
        assert!(
            reply
                .refused(500)
                .contains("failed to allocate a nodePort: range is full"),
            "round {round}"
        );
        for i in 0..10 {
            server.delete(&format!("{SERVICES}/s{i}")).await.ok();
        }
        assert_eq!(
            held(&*server.storage).await,
            BTreeSet::from(["serviceips/10.0.0.1".to_owned()])
        );
    }
}

#[tokio::test]
async fn endpoints_made_by_hand_go_with_their_service() {
    const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
    let server = small(Arc::new(Memory::new())).await;
    let endpoints = |name: &str, finalizers: &Value| {
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name, "finalizers": finalizers},
            "subsets": [{"addresses": [{"ip": "10.1.0.3"}], "ports": [{"port": 80}]}]})
    };
    for (name, finalizers) in [("gone", json!([])), ("held", json!(["example.org/hold"]))] {
        let made = server.post(SERVICES, &service(name, &json!({}))).await;
        assert_eq!(made.code, 201);
        let made = server.post(ENDPOINTS, &endpoints(name, &finalizers)).await;
        assert_eq!(made.code, 201);
    }
    let other = server
        .post(ENDPOINTS, &endpoints("other", &json!([])))
        .await;
    assert_eq!(other.code, 201);
    let dry = server.delete(&format!("{SERVICES}/gone?dryRun=All")).await;
    assert_eq!(dry.code, 200);
    assert_eq!(server.get(&format!("{ENDPOINTS}/gone")).await.code, 200);
    for name in ["gone", "held"] {
        let deleted = server.delete(&format!("{SERVICES}/{name}")).await;
        assert_eq!(deleted.code, 200);
    }
    for (name, code) in [("gone", 404), ("held", 200), ("other", 200)] {
        let there = server.get(&format!("{ENDPOINTS}/{name}")).await;
        assert_eq!(there.code, code, "{name}");
    }
}

#[tokio::test]
async fn a_restart_knows_what_is_taken() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let before = small(storage.clone()).await;
    let mut addresses = BTreeSet::new();
    for i in 0..6 {
        let made = before
            .post(SERVICES, &service(&format!("s{i}"), &json!({})))
            .await
            .ok();
        addresses.insert(made["spec"]["clusterIP"].clone().to_string());
    }
    // Killed without a word: all that is left is the store.
    drop(before);
    let after = small(storage).await;
    for i in 6..13 {
        let made = after
            .post(SERVICES, &service(&format!("s{i}"), &json!({})))
            .await
            .ok();
        addresses.insert(made["spec"]["clusterIP"].clone().to_string());
    }
    assert_eq!(addresses.len(), 13);
    assert_eq!(
        after
            .post(SERVICES, &service("more", &json!({})))
            .await
            .code,
        500
    );
}

/// Writes to the store as it is, past the server.
async fn write_past(storage: &dyn Storage, key: &str, value: Option<&Value>) {
    let standing = storage.get(key).await.unwrap();
    let key = key.to_owned();
    let write = match (value, standing) {
        (Some(value), None) => Write::Create {
            key,
            value: value.to_string().into(),
        },
        (Some(value), Some(entry)) => Write::Update {
            key,
            value: value.to_string().into(),
            expected: entry.modified,
        },
        (None, Some(entry)) => Write::Delete {
            key,
            expected: entry.modified,
        },
        (None, None) => panic!("{key} is not there"),
    };
    storage.write(vec![write]).await.unwrap();
}

/// The form of a data directory from before claims of addresses were IPAddress objects.
async fn to_former_form(storage: &dyn Storage) {
    let range = Range {
        prefix: "/registry/ipaddresses/".into(),
        ..Range::default()
    };
    for entry in storage.list(range).await.unwrap().entries {
        let address = entry.key.rsplit('/').next().unwrap();
        let object: Value = serde_json::from_slice(&entry.value).unwrap();
        let parent = &object["spec"]["parentRef"];
        let owner = format!(
            "{}/{}",
            parent["namespace"].as_str().unwrap(),
            parent["name"].as_str().unwrap()
        );
        write_past(storage, &entry.key, None).await;
        let former = format!("/registry/ranges/serviceips/{address}");
        write_past(storage, &former, Some(&json!({"service": owner}))).await;
    }
}

#[tokio::test]
async fn a_store_of_the_former_form_gives_nothing_out_twice() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let before = small(storage.clone()).await;
    for i in 0..9 {
        let spec = json!({"type": if i < 7 { "NodePort" } else { "ClusterIP" }});
        before
            .post(SERVICES, &service(&format!("s{i}"), &spec))
            .await
            .ok();
    }
    let held_before = held(&*storage).await;
    drop(before);
    to_former_form(&*storage).await;
    // What upstream keeps at the bare name is none of ours.
    let bitmap = "/registry/ranges/serviceips";
    write_past(&*storage, bitmap, Some(&json!({"range": "10.0.0.0/28"}))).await;
    // A claim whose Service went in the meantime, and a port that lost its claim.
    let stale = "/registry/ranges/serviceips/10.0.0.14";
    if storage.get(stale).await.unwrap().is_none() {
        write_past(&*storage, stale, Some(&json!({"service": "default/gone"}))).await;
    }
    let ports = held_before
        .iter()
        .filter_map(|held| held.strip_prefix("servicenodeports/"));
    let port = ports.into_iter().next().unwrap();
    write_past(
        &*storage,
        &format!("/registry/ranges/servicenodeports/{port}"),
        None,
    )
    .await;

    let after = small(storage.clone()).await;
    assert_eq!(held(&*storage).await, held_before);
    let services = after.get("/api/v1/services").await.ok();
    assert_eq!(said(&services), held_before);
    let former = Range {
        prefix: "/registry/ranges/serviceips/".into(),
        ..Range::default()
    };
    assert!(storage.list(former).await.unwrap().entries.is_empty());
    assert!(storage.get(bitmap).await.unwrap().is_some());
    // Every address that is left is given out, and none twice.
    for i in 9..13 {
        after
            .post(SERVICES, &service(&format!("s{i}"), &json!({})))
            .await
            .ok();
    }
    assert_eq!(
        said(&after.get("/api/v1/services").await.ok()),
        held(&*storage).await
    );
    let full = after.post(SERVICES, &service("more", &json!({}))).await;
    assert_eq!(full.code, 500);
}

#[tokio::test]
async fn claims_that_do_not_agree_with_services_are_repaired() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let before = small(storage.clone()).await;
    let mut made = Vec::new();
    for name in ["a", "b", "c", "d"] {
        made.push(before.post(SERVICES, &service(name, &json!({}))).await.ok());
    }
    let address = |i: usize| made[i]["spec"]["clusterIP"].as_str().unwrap().to_owned();
    drop(before);
    // The claim of `a` names somebody who is not there; `b` stands at the address of `c`, which has the claim; the
    // address of `d` is something else's.
    let claim = |i: usize| format!("/registry/ipaddresses/{}", address(i));
    let foreign = json!({"group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "x", "name": "g"});
    for (i, parent) in [
        (
            0,
            json!({"resource": "services", "namespace": "x", "name": "y"}),
        ),
        (3, foreign),
    ] {
        let entry = storage.get(&claim(i)).await.unwrap().unwrap();
        let mut object: Value = serde_json::from_slice(&entry.value).unwrap();
        object["spec"]["parentRef"] = parent;
        write_past(&*storage, &claim(i), Some(&object)).await;
    }
    let key = "/registry/services/specs/default/b";
    let entry = storage.get(key).await.unwrap().unwrap();
    let mut object: Value = serde_json::from_slice(&entry.value).unwrap();
    object["spec"]["clusterIP"] = address(2).into();
    object["spec"]["clusterIPs"] = json!([address(2)]);
    write_past(&*storage, key, Some(&object)).await;

    let after = small(storage.clone()).await;
    for (i, owner) in [(0, "a"), (2, "c"), (3, "g")] {
        let found = after
            .get(&format!(
                "/apis/networking.k8s.io/v1/ipaddresses/{}",
                address(i)
            ))
            .await
            .ok();
        assert_eq!(found["spec"]["parentRef"]["name"], owner);
    }
    // Nobody holds what `b` held.
    assert_eq!(storage.get(&claim(1)).await.unwrap(), None);

    // Only a server that serves writes Events: the Services that have to be made anew are told.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = after.app.clone();
    let mut events = after
        .watch("/api/v1/namespaces/default/events?watch=true&resourceVersion=0")
        .await;
    let serving = tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    let mut told = BTreeSet::new();
    while told.len() < 2 {
        let event = events.next().await.unwrap()["object"].clone();
        told.insert(format!(
            "{} {}",
            event["involvedObject"]["name"].as_str().unwrap(),
            event["reason"].as_str().unwrap()
        ));
    }
    let expected = ["b ClusterIPAlreadyAllocated", "d ClusterIPAlreadyAllocated"];
    assert_eq!(told, BTreeSet::from(expected.map(str::to_owned)));

    // An IPAddress that somebody deletes by hand comes back while its Service is there.
    let path = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", address(2));
    let mut addresses = after
        .watch("/apis/networking.k8s.io/v1/ipaddresses?watch=true")
        .await;
    after.delete(&path).await.ok();
    while addresses.line().await != format!("DELETED {}", address(2)) {}
    assert_eq!(addresses.line().await, format!("ADDED {}", address(2)));
    serving.abort();
}

#[tokio::test]
async fn another_range_in_the_flag_gives_no_addresses() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    drop(small(storage.clone()).await);
    let server = Server::with(storage, |config| {
        config.service_cidrs = vec!["10.1.0.0/28".parse().unwrap()];
    })
    .await;
    let made = server.post(SERVICES, &service("s", &json!({}))).await.ok();
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    assert!(address.starts_with("10.0.0."), "{address}");
    let asked = service("asked", &json!({"clusterIP": "10.1.0.9"}));
    assert_eq!(server.post(SERVICES, &asked).await.code, 422);
}

#[tokio::test]
async fn ranges_come_and_go() {
    let server = small(Arc::new(Memory::new())).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = server.app.clone();
    let serving = tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    for i in 0..13 {
        let made = server
            .post(SERVICES, &service(&format!("s{i}"), &json!({})))
            .await;
        made.ok();
    }
    let full = server.post(SERVICES, &service("more", &json!({}))).await;
    assert!(full.refused(500).contains("range is full"));
    let elsewhere = service("x", &json!({"clusterIP": "10.1.0.9"}));
    assert_eq!(server.post(SERVICES, &elsewhere).await.code, 422);

    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let one = format!("{ranges}/extra");
    let mut changes = server
        .watch(&format!(
            "{ranges}?watch=true&fieldSelector=metadata.name%3Dextra"
        ))
        .await;
    let extra = json!({"metadata": {"name": "extra"}, "spec": {"cidrs": ["10.1.0.0/28"]}});
    server.post(ranges, &extra).await.ok();
    let ready = async |changes: &mut support::Watch, wanted: &str| loop {
        let event = changes.next().await.unwrap();
        let condition = &event["object"]["status"]["conditions"][0];
        if event["type"] == "DELETED" || condition["status"] == wanted {
            break event;
        }
    };
    let event = ready(&mut changes, "True").await;
    assert_eq!(
        event["object"]["metadata"]["finalizers"],
        json!(["networking.k8s.io/service-cidr-finalizer"])
    );
    server.post(SERVICES, &elsewhere).await.ok();
    let more = server
        .post(SERVICES, &service("more", &json!({})))
        .await
        .ok();
    assert!(
        more["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .starts_with("10.1.0."),
        "{more}"
    );

    // It waits for its addresses, and gives none out meanwhile.
    server.delete(&one).await.ok();
    let event = ready(&mut changes, "False").await;
    assert_eq!(
        event["object"]["status"]["conditions"][0]["reason"],
        "Terminating"
    );
    assert_eq!(
        server
            .post(SERVICES, &service("late", &json!({})))
            .await
            .code,
        500
    );
    for name in ["x", "more"] {
        server.delete(&format!("{SERVICES}/{name}")).await.ok();
    }
    loop {
        let event = changes.next().await.unwrap();
        if event["type"] == "DELETED" {
            break;
        }
    }
    assert_eq!(server.post(SERVICES, &elsewhere).await.code, 422);
    serving.abort();
}

#[tokio::test]
async fn two_servers_on_one_store_do_not_collide() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let servers = [small(storage.clone()).await, small(storage.clone()).await];
    let mut addresses = BTreeSet::new();
    for i in 0..13 {
        let made = servers[i % 2]
            .post(SERVICES, &service(&format!("s{i}"), &json!({})))
            .await
            .ok();
        assert!(addresses.insert(made["spec"]["clusterIP"].to_string()));
    }
}

#[tokio::test]
async fn what_is_asked_for_is_given_or_refused() {
    let server = Server::new().await;
    let asked = json!({"clusterIP": "10.96.0.10", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    let made = server.post(SERVICES, &service("a", &asked)).await.ok();
    assert_eq!(made["spec"]["clusterIPs"], json!(["10.96.0.10"]));
    assert_eq!(made["spec"]["ports"][0]["nodePort"], 30080);
    for (spec, expected) in [
        (
            json!({"clusterIP": "10.96.0.10"}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is \
             already allocated",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
    ] {
        for query in ["", "?dryRun=All"] {
            let reply = server
                .post(&format!("{SERVICES}{query}"), &service("b", &spec))
                .await;
            assert_eq!(
                reply.refused(422),
                format!("Service \"b\" is invalid: {expected}")
            );
        }
    }
    // A refusal and a trial take nothing.
    let trial = server
        .post(
            &format!("{SERVICES}?dryRun=All"),
            &service("c", &json!({"type": "NodePort"})),
        )
        .await
        .ok();
    assert_ne!(trial["spec"]["clusterIP"], Value::Null);
    let expected = [
        "serviceips/10.96.0.1",
        "serviceips/10.96.0.10",
        "servicenodeports/30080",
    ]
    .map(str::to_owned);
    assert_eq!(held(&*server.storage).await, BTreeSet::from(expected));
}

#[tokio::test]
async fn one_port_number_of_two_protocols_shares_a_node_port() {
    let server = Server::new().await;
    let ports = json!([
        {"name": "tcp", "port": 53, "protocol": "TCP"},
        {"name": "udp", "port": 53, "protocol": "UDP"},
        {"name": "web", "port": 80},
    ]);
    let made = server
        .post(
            SERVICES,
            &service("dns", &json!({"type": "NodePort", "ports": ports})),
        )
        .await
        .ok();
    let node_port = |i: usize| made["spec"]["ports"][i]["nodePort"].as_u64().unwrap();
    assert_eq!(node_port(0), node_port(1));
    assert_ne!(node_port(0), node_port(2));
}

#[tokio::test]
async fn updates_keep_and_type_changes_give_back() {
    let server = Server::new().await;
    let path = format!("{SERVICES}/s");
    let made = server
        .post(SERVICES, &service("s", &json!({"type": "NodePort"})))
        .await
        .ok();
    let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let node_port = made["spec"]["ports"][0]["nodePort"].clone();

    // As `kubectl apply` and `replace` send it: without what the server gave.
    let put = server
        .put(
            &path,
            &service("s", &json!({"type": "NodePort", "selector": {"a": "b"}})),
        )
        .await
        .ok();
    assert_eq!(
        (
            &put["spec"]["clusterIP"],
            &put["spec"]["ports"][0]["nodePort"]
        ),
        (&json!(address), &node_port)
    );

    let put = server
        .put(&path, &service("s", &json!({"type": "ClusterIP"})))
        .await
        .ok();
    assert_eq!(put["spec"]["clusterIP"], address);
    assert_eq!(put["spec"]["ports"][0].get("nodePort"), None);
    let held_now = held(&*server.storage).await;
    assert_eq!(
        held_now,
        BTreeSet::from([
            "serviceips/10.96.0.1".to_owned(),
            format!("serviceips/{address}")
        ])
    );

    let balanced = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let put = server.put(&path, &service("s", &balanced)).await.ok();
    assert!(put["spec"]["healthCheckNodePort"].is_u64(), "{put}");
    assert!(put["spec"]["ports"][0]["nodePort"].is_u64(), "{put}");
    assert_eq!(held(&*server.storage).await.len(), 4);

    let put = server
        .patch(
            &path,
            "strategic-merge",
            &json!({"spec": {"type": "ExternalName", "externalName": "x.y"}}),
        )
        .await;
    let put = put.ok();
    assert_eq!(put["spec"].get("clusterIP"), None, "{put}");
    assert_eq!(
        held(&*server.storage).await,
        BTreeSet::from(["serviceips/10.96.0.1".to_owned()])
    );

    let put = server
        .put(&path, &service("s", &json!({"type": "ClusterIP"})))
        .await
        .ok();
    assert!(put["spec"]["clusterIP"].is_string(), "{put}");
    server.delete(&path).await.ok();
    assert_eq!(held(&*server.storage).await.len(), 1);
}

#[tokio::test]
async fn both_families() {
    let server = Server::with(Arc::new(Memory::new()), |config| {
        config.service_cidrs = vec![
            "10.96.0.0/16".parse().unwrap(),
            "fd00:96::/108".parse().unwrap(),
        ];
    })
    .await;
    let path = format!("{SERVICES}/s");
    let made = server
        .post(
            SERVICES,
            &service("s", &json!({"ipFamilyPolicy": "PreferDualStack"})),
        )
        .await
        .ok();
    let addresses = made["spec"]["clusterIPs"].as_array().unwrap().clone();
    assert!(
        addresses[0].as_str().unwrap().starts_with("10.96."),
        "{addresses:?}"
    );
    assert!(
        addresses[1].as_str().unwrap().starts_with("fd00:96:"),
        "{addresses:?}"
    );
    assert_eq!(held(&*server.storage).await.len(), 3);

    let one = server
        .patch(
            &path,
            "merge",
            &json!({"spec": {"ipFamilyPolicy": "SingleStack"}}),
        )
        .await
        .ok();
    assert_eq!(one["spec"]["clusterIPs"], json!([addresses[0]]));
    assert_eq!(held(&*server.storage).await.len(), 2);

    let two = server
        .patch(
            &path,
            "merge",
            &json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}),
        )
        .await
        .ok();
    assert_eq!(two["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    assert_eq!(two["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(held(&*server.storage).await.len(), 3);

    let headless = server
        .post(SERVICES, &service("h", &json!({"clusterIP": "None"})))
        .await
        .ok();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(held(&*server.storage).await.len(), 3);
}

/// One step in the life of a few Services.
#[derive(Clone, Debug)]
enum Step {
    Create(u8, usize),
    Put(u8, usize),
    Patch(u8, usize),
    Delete(u8),
    /// The process dies and another takes over.
    Restart,
}

/// Specs that take and give back in different ways; some cannot be had.
fn specs() -> Vec<Value> {
    vec![
        json!({"type": "ClusterIP"}),
        json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"type": "NodePort"}),
        json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30001}]}),
        json!({"type": "NodePort", "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}),
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}),
        json!({"type": "ExternalName", "externalName": "example.com"}),
        json!({"ipFamilyPolicy": "PreferDualStack"}),
        json!({"ipFamilyPolicy": "SingleStack"}),
        json!({"clusterIP": "10.0.0.5"}),
        json!({"clusterIP": "192.0.2.1"}),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let spec = 0..specs().len();
    let step = prop_oneof![
        4 => (0..5_u8, spec.clone()).prop_map(|(name, spec)| Step::Create(name, spec)),
        2 => (0..5_u8, spec.clone()).prop_map(|(name, spec)| Step::Put(name, spec)),
        2 => (0..5_u8, spec).prop_map(|(name, spec)| Step::Patch(name, spec)),
        1 => (0..5_u8).prop_map(Step::Delete),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

async fn dual(storage: Arc<dyn Storage>) -> Server {
    Server::with(storage, |config| {
        config.service_cidrs = vec![
            "10.0.0.0/28".parse().unwrap(),
            "fd00::/120".parse().unwrap(),
        ];
        config.node_ports = 30000..=30007;
    })
    .await
}

/// What all Services hold, by what they say; panics where two hold the same.
fn said(list: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for service in list["items"].as_array().unwrap() {
        let spec = &service["spec"];
        let addresses = spec["clusterIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let addresses = addresses
            .filter(|a| *a != "None")
            .map(|a| format!("serviceips/{a}"));
        let ports = spec["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| &port["nodePort"]);
        let ports = ports
            .chain([&spec["healthCheckNodePort"]])
            .filter_map(Value::as_u64);
        let mine: BTreeSet<String> = addresses
            .chain(ports.map(|p| format!("servicenodeports/{p}")))
            .collect();
        for claim in mine {
            assert!(all.insert(claim.clone()), "{claim} is held twice: {list}");
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_services_hold(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let storage: Arc<dyn Storage> = Arc::new(Memory::new());
            let mut server = dual(storage.clone()).await;
            for step in &steps {
                let code = match step {
                    Step::Create(name, spec) => {
                        server.post(SERVICES, &service(&format!("s{name}"), &specs()[*spec])).await.code
                    }
                    Step::Put(name, spec) => {
                        let name = format!("s{name}");
                        server.put(&format!("{SERVICES}/{name}"), &service(&name, &specs()[*spec])).await.code
                    }
                    Step::Patch(name, spec) => {
                        let path = format!("{SERVICES}/s{name}");
                        server.patch(&path, "merge", &json!({"spec": specs()[*spec]})).await.code
                    }
                    Step::Delete(name) => server.delete(&format!("{SERVICES}/s{name}")).await.code,
                    Step::Restart => {
                        server = dual(storage.clone()).await;
                        200
                    }
                };
                // Ranges so small may be full; nothing else is the server's fault.
                if code == 500 {
                    let full = held(&*storage).await.len() >= 14 || held(&*storage).await.iter()
                        .filter(|claim| claim.starts_with("servicenodeports")).count() >= 7;
                    assert!(full, "{step:?}");
                }
                assert_eq!(held(&*storage).await, said(&server.get("/api/v1/services").await.ok()), "{step:?}");
            }
        });
    }
}
