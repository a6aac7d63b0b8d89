//! However the objects came to be as they are, the fold knows the same of them.

use std::collections::{BTreeMap, BTreeSet};

use model::ServiceKey;
use proptest::prelude::*;
use serde_json::{Value, json};
use view::{Change, Event, Services};

#[derive(Clone, Debug)]
enum Turn {
    PutService(u8, Value),
    DeleteService(u8),
    PutSlice(u8, Value),
    DeleteSlice(u8),
    PutNode(Vec<u8>),
    DeleteNode,
    /// Somebody asks what changed.
    Ask,
    /// The watches lost their place while these services and slices, by number, went away.
    Relist(BTreeSet<u8>),
}

#[derive(Clone, Debug, Default)]
struct World {
    services: BTreeMap<u8, Value>,
    slices: BTreeMap<u8, Value>,
    node: Option<Value>,
}

fn name(n: u8) -> String {
    format!("o{n}")
}

fn view<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

impl World {
    /// Plays a turn on the objects and tells the fold.
    fn turn(&mut self, turn: Turn, fold: &mut Services, known: &mut BTreeMap<ServiceKey, Change>) {
        let deleted = |n| (String::from("default"), name(n));
        match turn {
            Turn::PutService(n, mut value) => {
                value["metadata"]["name"] = json!(name(n));
                fold.service(Event::Applied(view(&value)));
                self.services.insert(n, value);
            }
            Turn::DeleteService(n) => {
                let (namespace, name) = deleted(n);
                fold.service(Event::Deleted { namespace, name });
                self.services.remove(&n);
            }
            Turn::PutSlice(n, mut value) => {
                value["metadata"]["name"] = json!(name(n));
                fold.slice(Event::Applied(view(&value)));
                self.slices.insert(n, value);
            }
            Turn::DeleteSlice(n) => {
                let (namespace, name) = deleted(n);
                fold.slice(Event::Deleted { namespace, name });
                self.slices.remove(&n);
            }
            Turn::PutNode(hosts) => {
                let address =
                    |host: &u8| json!({"type": "InternalIP", "address": format!("192.0.2.{host}")});
                let addresses: Vec<Value> = hosts.iter().map(address).collect();
                let node =
                    json!({"metadata": {"name": "node-a"}, "status": {"addresses": addresses}});
                fold.node(Event::Applied(view(&node)));
                self.node = Some(node);
            }
            Turn::DeleteNode => {
                let (namespace, name) = (String::new(), String::from("node-a"));
                fold.node(Event::Deleted { namespace, name });
                self.node = None;
            }
            Turn::Ask => learn(fold.changes(), known),
            Turn::Relist(gone) => {
                self.services.retain(|n, _| !gone.contains(n));
                self.slices.retain(|n, _| !gone.contains(n));
                self.list(fold);
            }
        }
    }

    fn list(&self, fold: &mut Services) {
        fold.service(Event::Restarted);
        fold.slice(Event::Restarted);
        fold.node(Event::Restarted);
        for service in self.services.values() {
            fold.service(Event::Applied(view(service)));
        }
        for slice in self.slices.values() {
            fold.slice(Event::Applied(view(slice)));
        }
        if let Some(node) = &self.node {
            fold.node(Event::Applied(view(node)));
        }
        fold.service(Event::Synced);
        fold.slice(Event::Synced);
        fold.node(Event::Synced);
    }
}

/// What somebody knows who heard every change.
fn learn(changes: Vec<Change>, known: &mut BTreeMap<ServiceKey, Change>) {
    for change in changes {
        if change.service.is_some() {
            known.insert(change.key.clone(), change);
        } else {
            known.remove(&change.key);
        }
    }
}

fn service() -> impl Strategy<Value = Value> {
    let port = (0..2u8, any::<bool>(), 0..3i32).prop_map(|(name, udp, node_port)| {
        json!({
            "name": format!("p{name}"),
            "protocol": if udp { "UDP" } else { "TCP" },
            "port": 80 + i32::from(name),
            "nodePort": if node_port == 0 { 0 } else { 30_000 + node_port },
        })
    });
    let ips = prop::sample::select(vec![
        json!(["10.96.0.1"]),
        json!(["10.96.0.1", "fd00::1"]),
        json!(["fd00::1"]),
        json!(["None"]),
        json!(["nonsense"]),
    ]);
    (
        ips,
        prop::collection::vec(port, 0..3),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(ips, ports, theirs)| {
            let labels = if theirs {
                json!({"service.kubernetes.io/service-proxy-name": "x"})
            } else {
                json!({})
            };
            json!({
                "metadata": {"namespace": "default", "labels": labels},
                "spec": {"clusterIPs": ips, "ports": ports},
            })
        })
}

fn slice() -> impl Strategy<Value = Value> {
    let node_name = prop::sample::select(vec![json!("node-a"), json!("node-b"), json!(null)]);
    let endpoint = (0..5u8, any::<Option<bool>>(), any::<bool>(), node_name).prop_map(
        |(host, ready, terminating, node_name)| {
            json!({
                "host": host,
                "conditions": {"ready": ready, "serving": true, "terminating": terminating},
                "nodeName": node_name,
            })
        },
    );
    let endpoints = prop::collection::vec(endpoint, 0..4);
    (0..4u8, any::<bool>(), 0..2u8, endpoints).prop_map(|(service, v4, port, mut endpoints)| {
        for endpoint in &mut endpoints {
            let host = &endpoint["host"];
            // Without a node's name, what may be the node's own address.
            let address = if v4 && endpoint["nodeName"].is_null() {
                format!("192.0.2.{host}")
            } else if v4 {
                format!("10.244.0.{host}")
            } else {
                format!("fd00:244::{host}")
            };
            endpoint["addresses"] = json!([address]);
        }
        json!({
            "metadata": {
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": name(service)},
            },
            "addressType": if v4 { "IPv4" } else { "IPv6" },
            "ports": [{"name": format!("p{port}"), "port": 8080}],
            "endpoints": endpoints,
        })
    })
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        5 => (0..4u8, service()).prop_map(|(n, value)| Turn::PutService(n, value)),
        2 => (0..4u8).prop_map(Turn::DeleteService),
        5 => (0..5u8, slice()).prop_map(|(n, value)| Turn::PutSlice(n, value)),
        2 => (0..5u8).prop_map(Turn::DeleteSlice),
        2 => prop::collection::vec(1..4u8, 0..3).prop_map(Turn::PutNode),
        1 => Just(Turn::DeleteNode),
        3 => Just(Turn::Ask),
        2 => prop::collection::btree_set(0..5u8, 0..3).prop_map(Turn::Relist),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hearing_every_change_is_knowing_everything(turns in prop::collection::vec(turn(), 1..25)) {
        let mut world = World::default();
        let mut fold = Services::new("node-a", Vec::new());
        let mut known = BTreeMap::new();
        world.list(&mut fold);
        for turn in turns {
            world.turn(turn, &mut fold, &mut known);
        }
        learn(fold.changes(), &mut known);

        let mut fresh = Services::new("node-a", Vec::new());
        world.list(&mut fresh);
        let mut expected = BTreeMap::new();
        learn(fresh.all(), &mut expected);
        prop_assert_eq!(&known, &expected);
        prop_assert!(fold.changes().is_empty());

        let mut all = BTreeMap::new();
        learn(fold.all(), &mut all);
        prop_assert_eq!(&all, &expected);
    }
}

/// Addresses of the backends of one Service, each with whether it is here, after the endpoints' node names and the
/// addresses of the node.
#[test]
fn an_endpoint_at_the_hosts_own_address_is_here() {
    let mut fold = Services::new("node-a", Vec::new());
    let service = json!({
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"name": "p", "port": 80}]},
    });
    let endpoint = |address: &str, node: Value| json!({"addresses": [address], "nodeName": node});
    let slice = json!({
        "metadata": {
            "name": "s", "namespace": "default", "labels": {"kubernetes.io/service-name": "s"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "p", "port": 8080}],
        "endpoints": [
            endpoint("192.0.2.1", json!(null)),
            endpoint("192.0.2.2", json!(null)),
            endpoint("192.0.2.3", json!("node-b")),
            endpoint("192.0.2.4", json!(null)),
        ],
    });
    fold.service(Event::Applied(view(&service)));
    fold.slice(Event::Applied(view(&slice)));
    let here = |fold: &mut Services| {
        let changes = fold.changes();
        let ports = changes
            .iter()
            .flat_map(|c| c.service.iter().flat_map(|s| &s.ports));
        let backends = ports.flat_map(|port| &port.backends);
        let here = backends.filter(|backend| backend.local);
        here.map(|backend| backend.addr.to_string())
            .collect::<Vec<_>>()
    };
    assert!(here(&mut fold).is_empty());
    let node = json!({"metadata": {"name": "node-a"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "192.0.2.3"},
        {"type": "ExternalIP", "address": "192.0.2.4"},
    ]}});
    fold.node(Event::Applied(view(&node)));
    assert_eq!(here(&mut fold), ["192.0.2.1"]);
    fold.set_given_addresses(vec![[192, 0, 2, 2].into()]);
    assert_eq!(here(&mut fold), ["192.0.2.1", "192.0.2.2"]);
    fold.node(Event::Applied(view(
        &json!({"metadata": {"name": "node-a"}}),
    )));
    assert_eq!(here(&mut fold), ["192.0.2.2"]);
}
