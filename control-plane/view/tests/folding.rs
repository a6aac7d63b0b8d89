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
    let endpoint = (0..5u8, any::<Option<bool>>(), any::<bool>(), any::<bool>()).prop_map(
        |(host, ready, terminating, here)| {
            json!({
                "host": host,
                "conditions": {"ready": ready, "serving": true, "terminating": terminating},
                "nodeName": if here { "node-a" } else { "node-b" },
            })
        },
    );
    let endpoints = prop::collection::vec(endpoint, 0..4);
    (0..4u8, any::<bool>(), 0..2u8, endpoints).prop_map(|(service, v4, port, mut endpoints)| {
        for endpoint in &mut endpoints {
            let host = &endpoint["host"];
            let address = if v4 {
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
