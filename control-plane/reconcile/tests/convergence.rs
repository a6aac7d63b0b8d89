//! Any history of Services, pods and nodes settles, and what then stands is what the pods say.
#![forbid(unsafe_code)]

mod model;

use std::collections::{BTreeMap, BTreeSet};

use model::Model;
use proptest::prelude::*;
use serde_json::{Value, json};

#[derive(Clone, Debug)]
enum Change {
    Service {
        number: u8,
        selector: u8,
        families: u8,
        named: bool,
        publish: bool,
    },
    Pod {
        number: u8,
        label: u8,
        ready: bool,
        finished: bool,
        leaving: bool,
        address: bool,
        port: u8,
    },
    Node {
        zone: u8,
    },
    ByHand {
        number: u8,
        addresses: Vec<u8>,
    },
    DeleteService(u8),
    DeletePod(u8),
    /// A slice is deleted behind the controllers' back.
    DeleteSlice(u8),
    /// Controllers run; before, changes only pile up.
    Settle,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0u8..3, 0u8..4, 0u8..3, any::<bool>(), any::<bool>()).prop_map(
            |(number, selector, families, named, publish)| Change::Service { number, selector, families, named, publish }
        ),
        6 => (0u8..6, 0u8..3, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.2), prop::bool::weighted(0.8), 0u8..2)
            .prop_map(|(number, label, ready, finished, leaving, address, port)| Change::Pod {
                number, label, ready, finished, leaving, address, port
            }),
        1 => (0u8..2).prop_map(|zone| Change::Node { zone }),
        1 => (0u8..3, prop::collection::vec(0u8..4, 0..4)).prop_map(|(number, addresses)| Change::ByHand { number, addresses }),
        1 => (0u8..3).prop_map(Change::DeleteService),
        2 => (0u8..6).prop_map(Change::DeletePod),
        1 => (0u8..4).prop_map(Change::DeleteSlice),
        3 => Just(Change::Settle),
    ]
}

const FAMILIES: [&[&str]; 3] = [&["IPv4"], &["IPv6"], &["IPv4", "IPv6"]];

fn make(model: &mut Model, change: Change) {
    let exists = |model: &Model, kind: &str, name: &str| {
        model
            .objects
            .contains_key(&(kind.to_owned(), "d".to_owned(), name.to_owned()))
    };
    match change {
        Change::Service { number, selector, families, named, publish } => {
            let selector = match selector {
                3 => json!({}),
                label => json!({"app": label.to_string()}),
            };
            let target = if named { json!("web") } else { json!(8080) };
            model.apply(json!({
                "kind": "Service",
                "metadata": {"namespace": "d", "name": format!("s{number}")},
                "spec": {
                    "clusterIP": "10.96.0.1",
                    "ipFamilies": FAMILIES[usize::from(families)],
                    "publishNotReadyAddresses": publish,
                    "selector": selector,
                    "ports": [{"name": "p", "port": 80, "targetPort": target}],
                },
            }));
        }
        Change::Pod { number, label, ready, finished, leaving, address, port } => {
            let mut pod = json!({
                "kind": "Pod",
                "metadata": {"namespace": "d", "name": format!("p{number}"), "labels": {"app": label.to_string()}},
                "spec": {"nodeName": "node", "containers": [{"ports": [{"name": "web", "containerPort": 8080 + u16::from(port)}]}]},
                "status": {
                    "phase": if finished { "Failed" } else { "Running" },
                    "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                },
            });
            if address {
                let ips = [format!("10.0.0.{number}"), format!("fd00::{number}")];
                pod["status"]["podIP"] = json!(ips[0]);
                pod["status"]["podIPs"] = json!([{"ip": ips[0]}, {"ip": ips[1]}]);
            }
            if leaving {
                pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T09:00:00Z");
            }
            model.apply(pod);
        }
        Change::Node { zone } => model.apply(json!({
            "kind": "Node",
            "metadata": {"name": "node", "labels": {"topology.kubernetes.io/zone": zone.to_string()}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })),
        Change::ByHand { number, addresses } => {
            let addresses: BTreeSet<String> = addresses.iter().map(|last| format!("192.0.2.{last}")).collect();
            let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            model.apply(json!({
                "kind": "Endpoints",
                "metadata": {"namespace": "d", "name": format!("s{number}")},
                "subsets": [{"addresses": addresses, "ports": [{"port": 80, "protocol": "TCP"}]}],
            }));
        }
        Change::DeleteService(number) => {
            if exists(model, "Service", &format!("s{number}")) {
                model.delete("Service", "d", &format!("s{number}"));
            }
        }
        Change::DeletePod(number) => {
            if exists(model, "Pod", &format!("p{number}")) {
                model.delete("Pod", "d", &format!("p{number}"));
            }
        }
        Change::DeleteSlice(number) => {
            let mut slices = model.objects.keys().filter(|(kind, _, _)| kind == "EndpointSlice");
            if let Some((_, namespace, name)) = slices.nth(number.into()).cloned() {
                model.delete("EndpointSlice", &namespace, &name);
            }
        }
        Change::Settle => check(model),
    }
}

/// What a Service should have, straight from the definition: address and whether it takes connections.
fn expected(model: &Model, service: &Value, family: &str) -> BTreeMap<String, bool> {
    let selector = &service["spec"]["selector"]["app"];
    let publish = service["spec"]["publishNotReadyAddresses"] == true;
    let pods = model
        .objects
        .values()
        .filter(|object| object["kind"] == "Pod");
    let selected = pods.filter(|pod| pod["metadata"]["labels"]["app"] == *selector);
    let living = selected.filter(|pod| pod["status"]["phase"] != "Failed");
    let with_address = living.filter(|pod| pod["status"]["podIP"].is_string());
    with_address
        .map(|pod| {
            let index = usize::from(family == "IPv6");
            let ip = pod["status"]["podIPs"][index]["ip"].as_str().unwrap();
            let ready = pod["status"]["conditions"][0]["status"] == "True";
            let leaving = pod["metadata"]["deletionTimestamp"].is_string();
            (ip.to_owned(), publish || (ready && !leaving))
        })
        .collect()
}

fn check(model: &mut Model) {
    model.settle();
    let services = model
        .objects
        .values()
        .filter(|object| object["kind"] == "Service");
    let following = services.filter(|service| service["spec"]["selector"]["app"].is_string());
    for service in following {
        let name = service["metadata"]["name"].as_str().unwrap();
        let slices: Vec<&Value> = model
            .objects
            .values()
            .filter(|object| object["metadata"]["labels"]["kubernetes.io/service-name"] == name)
            .collect();
        for family in ["IPv4", "IPv6"] {
            let of_family = slices.iter().filter(|slice| slice["addressType"] == family);
            let endpoints: Vec<&Value> = of_family
                .clone()
                .flat_map(|slice| slice["endpoints"].as_array().unwrap())
                .collect();
            let served = service["spec"]["ipFamilies"]
                .as_array()
                .unwrap()
                .iter()
                .any(|served| served == family);
            let wanted = match served {
                true => expected(model, service, family),
                false => BTreeMap::new(),
            };
            let found: BTreeMap<String, bool> = endpoints
                .iter()
                .map(|endpoint| {
                    let ip = endpoint["addresses"][0].as_str().unwrap().to_owned();
                    (ip, endpoint["conditions"]["ready"] == true)
                })
                .collect();
            assert_eq!(
                found.len(),
                endpoints.len(),
                "an endpoint stands in two slices of {name}"
            );
            assert_eq!(found, wanted, "{family} of {name}");
            let nodes: BTreeSet<&str> = endpoints
                .iter()
                .filter_map(|endpoint| endpoint["zone"].as_str())
                .collect();
            assert!(nodes.len() <= 1, "one node, zones {nodes:?}");
            assert_eq!(
                of_family.count() > 0,
                served,
                "slices of {family} of {name}"
            );
        }
    }
    let orphans = model
        .objects
        .values()
        .filter(|object| object["kind"] == "EndpointSlice")
        .filter(|slice| {
            let service = slice["metadata"]["labels"]["kubernetes.io/service-name"]
                .as_str()
                .unwrap();
            !model
                .objects
                .contains_key(&("Service".to_owned(), "d".to_owned(), service.to_owned()))
        });
    assert_eq!(orphans.count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_settles(changes in prop::collection::vec(change(), 1..60)) {
        let mut model = Model::new();
        for change in changes {
            make(&mut model, change);
        }
        check(&mut model);
    }
}

fn pods(model: &mut Model, numbers: std::ops::Range<u16>) {
    for number in numbers {
        let ip = format!("10.0.{}.{}", number / 250, number % 250 + 1);
        model.apply(json!({
            "kind": "Pod",
            "metadata": {"namespace": "d", "name": format!("p{number:04}"), "labels": {"app": "web"}},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
        }));
    }
}

fn sizes(model: &Model) -> Vec<usize> {
    let slices = model
        .objects
        .values()
        .filter(|object| object["kind"] == "EndpointSlice");
    slices
        .map(|slice| slice["endpoints"].as_array().unwrap().len())
        .collect()
}

fn slice_writes(writes: &[String]) -> Vec<&str> {
    let of_slices = writes
        .iter()
        .filter(|write| write.contains("EndpointSlice"));
    of_slices
        .map(|write| write.split(' ').next().unwrap())
        .collect()
}

/// The names of the pods in a slice.
fn pods_in(model: &Model, slice: &str) -> Vec<String> {
    let slice = &model.objects[&("EndpointSlice".into(), "d".into(), slice.into())];
    let endpoints = slice["endpoints"].as_array().unwrap();
    endpoints
        .iter()
        .map(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// A hundred endpoints a slice, and a change touches as few slices as it can.
#[test]
fn many_endpoints() {
    let mut model = Model::new();
    model.apply(json!({
        "kind": "Service",
        "metadata": {"namespace": "d", "name": "web"},
        "spec": {"clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"}, "ports": [{"port": 80}]},
    }));
    pods(&mut model, 0..230);
    assert_eq!(
        slice_writes(&model.settle()),
        ["create", "create", "create"]
    );
    assert_eq!(sizes(&model), [100, 100, 30]);

    pods(&mut model, 230..231);
    assert_eq!(slice_writes(&model.settle()), ["replace"]);
    assert_eq!(sizes(&model), [100, 100, 31]);

    let first = pods_in(&model, "web-1");
    model.delete("Pod", "d", &first[0]);
    assert_eq!(slice_writes(&model.settle()), ["replace"]);
    assert_eq!(sizes(&model), [99, 100, 31]);
    assert_eq!(
        pods_in(&model, "web-1"),
        first[1..],
        "the others keep their places"
    );

    // The slice that changes anyway takes what comes.
    model.delete("Pod", "d", &first[1]);
    pods(&mut model, 231..233);
    assert_eq!(slice_writes(&model.settle()), ["replace"]);
    assert_eq!(sizes(&model), [100, 100, 31]);

    // One that fits snugly is preferred to one that is emptier.
    model.delete("Pod", "d", &first[2]);
    model.settle();
    pods(&mut model, 233..234);
    assert_eq!(slice_writes(&model.settle()), ["replace"]);
    assert_eq!(sizes(&model), [100, 100, 31]);

    pods(&mut model, 234..404);
    assert_eq!(slice_writes(&model.settle()), ["create", "create"]);
    assert_eq!(sizes(&model), [100, 100, 31, 100, 70]);
}

/// Endpoints objects hold a thousand and say when there were more.
#[test]
fn more_than_endpoints_hold() {
    let mut model = Model::new();
    model.apply(json!({
        "kind": "Service",
        "metadata": {"namespace": "d", "name": "web"},
        "spec": {"clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"}, "ports": [{"port": 80}]},
    }));
    for (pods_now, kept, note) in [(1001, 1000, json!("truncated")), (1000, 1000, Value::Null)] {
        if pods_now == 1001 {
            pods(&mut model, 0..1001);
        } else {
            model.delete("Pod", "d", "p0500");
        }
        model.settle();
        let endpoints = &model.objects[&("Endpoints".into(), "d".into(), "web".into())];
        assert_eq!(
            endpoints["subsets"][0]["addresses"]
                .as_array()
                .unwrap()
                .len(),
            kept
        );
        assert_eq!(
            endpoints["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"],
            note
        );
    }
}
