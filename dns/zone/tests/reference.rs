//! Any cluster, any question: the answer is what a slow list of records, written from the specification and with
//! nothing in common with the zone, says. And: folding changes one by one ends where folding the outcome does.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use common::{ask, name, type_number};
use proptest::prelude::*;
use serde_json::{Value, json};
use view::Event;
use zone::{Config, Options, Outcome, Pods, Store};

const Z: &str = "cluster.local.";

/// What a cluster holds, as little of everything as makes things meet.
#[derive(Clone, Debug)]
enum Change {
    Service(Value),
    DeleteService(String, String),
    Slice(Value),
    DeleteSlice(String, String),
}

fn namespace() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["n1", "n2"]).prop_map(str::to_owned)
}

fn service_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn ports() -> impl Strategy<Value = Value> {
    let port = prop::sample::select(vec![
        json!({"name": "http", "port": 80, "protocol": "TCP"}),
        json!({"name": "dns", "port": 53, "protocol": "UDP"}),
        json!({"name": "https", "port": 443, "protocol": "TCP"}),
    ]);
    prop::collection::btree_map(0..3, port, 0..3).prop_map(|ports| {
        let mut seen = BTreeSet::new();
        ports
            .into_values()
            .filter(|port| seen.insert(port["name"].to_string()))
            .collect::<Value>()
    })
}

fn service() -> impl Strategy<Value = Value> {
    let spec = prop_oneof![
        (0..4_u8).prop_map(|n| json!({"clusterIPs": [format!("10.0.0.{n}")]})),
        (0..4_u8)
            .prop_map(|n| json!({"clusterIPs": [format!("10.0.0.{n}"), format!("fd00::{n}")]})),
        any::<bool>().prop_map(|p| json!({"clusterIP": "None", "publishNotReadyAddresses": p})),
        Just(json!({"type": "ExternalName", "externalName": "www.example.org"})),
    ];
    (namespace(), service_name(), spec, ports()).prop_map(|(namespace, name, mut spec, ports)| {
        spec["ports"] = ports;
        json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    })
}

fn slice() -> impl Strategy<Value = Value> {
    let endpoint = (
        0..4_u8,
        any::<Option<bool>>(),
        prop::option::of(prop::sample::select(vec!["h0", "h1"])),
    );
    let endpoints = prop::collection::vec(endpoint, 0..4);
    (namespace(), service_name(), 0..2_u8, any::<bool>(), endpoints, ports()).prop_map(
        |(namespace, service, n, v6, endpoints, ports)| {
            let endpoints: Value = endpoints
                .into_iter()
                .map(|(n, ready, hostname)| {
                    let addr = if v6 { format!("fd01::{n}") } else { format!("172.0.0.{n}") };
                    json!({"addresses": [addr], "conditions": {"ready": ready}, "hostname": hostname})
                })
                .collect();
            json!({
                "metadata": {
                    "name": format!("{service}-{n}-{v6}"),
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": if v6 { "IPv6" } else { "IPv4" },
                "endpoints": endpoints,
                "ports": ports,
            })
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let slice_name =
        (service_name(), 0..2_u8, any::<bool>()).prop_map(|(s, n, v6)| format!("{s}-{n}-{v6}"));
    prop_oneof![
        4 => service().prop_map(Change::Service),
        1 => (namespace(), service_name()).prop_map(|(ns, n)| Change::DeleteService(ns, n)),
        6 => slice().prop_map(Change::Slice),
        1 => (namespace(), slice_name).prop_map(|(ns, n)| Change::DeleteSlice(ns, n)),
    ]
}

type Objects = BTreeMap<(String, String), Value>;

/// What remains of a history.
#[derive(Default)]
struct World {
    services: Objects,
    slices: Objects,
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
    (text("namespace"), text("name"))
}

impl World {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Service(service) => {
                self.services.insert(key(service), service.clone());
            }
            Change::DeleteService(namespace, name) => {
                self.services.remove(&(namespace.clone(), name.clone()));
            }
            Change::Slice(slice) => {
                self.slices.insert(key(slice), slice.clone());
            }
            Change::DeleteSlice(namespace, name) => {
                self.slices.remove(&(namespace.clone(), name.clone()));
            }
        }
    }

    /// Records by owner and type, and names that exist, from the rules R2 to R11 of the specification.
    fn records(
        &self,
    ) -> (
        BTreeMap<(String, &'static str), BTreeSet<String>>,
        BTreeSet<String>,
    ) {
        let mut records: BTreeMap<(String, &'static str), BTreeSet<String>> = BTreeMap::new();
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut add = |owner: &str, kind: &'static str, data: String| {
            records
                .entry((owner.to_owned(), kind))
                .or_default()
                .insert(data);
        };
        let mut cluster_ips = BTreeSet::new();
        for ((namespace, name), service) in &self.services {
            let spec = &service["spec"];
            let own = format!("{name}.{namespace}.svc.{Z}");
            for ip in spec["clusterIPs"].as_array().into_iter().flatten() {
                let ip: IpAddr = ip.as_str().unwrap().parse().unwrap();
                cluster_ips.insert(ip);
                add(&own, family(ip), ip.to_string());
                for port in spec["ports"].as_array().unwrap() {
                    let owner = port_name(port, &own);
                    add(&owner, "SRV", format!("{} {own}", port["port"]));
                }
            }
            if spec["type"] == "ExternalName" {
                add(&own, "CNAME", "www.example.org.".to_owned());
            }
        }
        for (namespace, name, endpoint, ports) in self.ready() {
            let service = &self.services[&(namespace.clone(), name.clone())];
            if service["spec"]["type"] == "ExternalName" {
                continue;
            }
            let own = format!("{name}.{namespace}.svc.{Z}");
            let ip: IpAddr = endpoint["addresses"][0].as_str().unwrap().parse().unwrap();
            let host = match endpoint["hostname"].as_str() {
                Some(hostname) => hostname.to_owned(),
                None => {
                    let dashed = ip.to_string().replace(['.', ':'], "-");
                    if dashed.ends_with('-') {
                        dashed + "0"
                    } else {
                        dashed
                    }
                }
            };
            let target = format!("{host}.{own}");
            add(&target, family(ip), ip.to_string());
            let headless = service["spec"]["clusterIP"] == "None";
            if headless {
                add(&own, family(ip), ip.to_string());
                for port in ports.as_array().unwrap() {
                    add(
                        &port_name(port, &own),
                        "SRV",
                        format!("{} {target}", port["port"]),
                    );
                }
            }
            if (headless || endpoint["hostname"].is_string()) && !cluster_ips.contains(&ip) {
                add(&reverse(ip), "PTR", target);
            }
        }
        for ip in &cluster_ips {
            // Of several Services with one address the first has it.
            let owner = self.services.iter().find(|(_, service)| {
                let ips = service["spec"]["clusterIPs"].as_array();
                let mut ips = ips.into_iter().flatten();
                ips.any(|text| text.as_str().unwrap().parse::<IpAddr>().unwrap() == *ip)
            });
            let ((_, _), _) = owner.unwrap();
            add(&reverse(*ip), "PTR", String::from("*"));
        }
        for (owner, _) in records.keys() {
            let mut rest = owner.as_str();
            // Every name above a record exists as well (RFC 8020), down to the zone.
            while let Some((_, above)) = rest.split_once('.') {
                names.insert(rest.to_owned());
                rest = above;
            }
        }
        for namespace in ["n1", "n2"] {
            names.insert(format!("{namespace}.svc.{Z}"));
        }
        (records, names)
    }

    /// Endpoints that count, with their Service and ports.
    fn ready(&self) -> Vec<(String, String, &Value, &Value)> {
        let mut out = Vec::new();
        for ((namespace, _), slice) in &self.slices {
            let name = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
            let name = name.as_str().unwrap().to_owned();
            let Some(service) = self.services.get(&(namespace.clone(), name.clone())) else {
                continue;
            };
            let all = service["spec"]["publishNotReadyAddresses"] == true;
            for endpoint in slice["endpoints"].as_array().unwrap() {
                if all || endpoint["conditions"]["ready"] != false {
                    out.push((namespace.clone(), name.clone(), endpoint, &slice["ports"]));
                }
            }
        }
        out
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "A" } else { "AAAA" }
}

fn port_name(port: &Value, service: &str) -> String {
    let protocol = port["protocol"].as_str().unwrap().to_lowercase();
    format!("_{}._{protocol}.{service}", port["name"].as_str().unwrap())
}

fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(v6) => {
            let hex: String = v6.octets().iter().map(|o| format!("{o:02x}")).collect();
            let digits = hex.chars().rev().map(|c| format!("{c}."));
            digits.collect::<String>() + "ip6.arpa."
        }
    }
}

/// Names that a history can give, and some that none gives.
fn questions() -> Vec<String> {
    let mut out = Vec::new();
    for namespace in ["n1", "n2", "n3"] {
        out.push(format!("{namespace}.svc.{Z}"));
        for service in ["a", "b", "c", "d"] {
            let own = format!("{service}.{namespace}.svc.{Z}");
            for host in [
                "h0",
                "h1",
                "h2",
                "172-0-0-1",
                "172-0-0-3",
                "fd01--0",
                "fd01--2",
                "_tcp",
                "_udp",
            ] {
                out.push(format!("{host}.{own}"));
            }
            for port in ["_http._tcp", "_dns._udp", "_https._tcp", "_https._udp"] {
                out.push(format!("{port}.{own}"));
            }
            out.push(own);
        }
    }
    for n in 0..4 {
        for addr in [
            format!("10.0.0.{n}"),
            format!("fd00::{n}"),
            format!("172.0.0.{n}"),
            format!("fd01::{n}"),
        ] {
            out.push(reverse(addr.parse().unwrap()));
        }
    }
    out
}

fn empty_store() -> Store {
    let mut store = Store::new(Options::default());
    store.namespace(Event::Restarted);
    for namespace in ["n1", "n2"] {
        let object = json!({"kind": "Namespace", "metadata": {"name": namespace}});
        common::apply(&mut store, object);
    }
    store.namespace(Event::Synced);
    store.service(Event::Restarted);
    store.service(Event::Synced);
    store.slice(Event::Restarted);
    store.slice(Event::Synced);
    store
}

fn fold(store: &mut Store, change: &Change) {
    let mut typed = |kind: &str, object: &Value| {
        let mut object = object.clone();
        object["kind"] = json!(kind);
        common::apply(store, object);
    };
    match change {
        Change::Service(service) => typed("Service", service),
        Change::Slice(slice) => typed("EndpointSlice", slice),
        Change::DeleteService(namespace, name) => store.service(Event::Deleted {
            namespace: namespace.clone(),
            name: name.clone(),
        }),
        Change::DeleteSlice(namespace, name) => store.slice(Event::Deleted {
            namespace: namespace.clone(),
            name: name.clone(),
        }),
    }
}

fn config() -> Config {
    let mut config = Config::new(
        ["cluster.local", "in-addr.arpa", "ip6.arpa"]
            .map(name)
            .to_vec(),
    );
    config.pods = Pods::Disabled;
    config
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_the_specifications(history in prop::collection::vec(change(), 1..24)) {
        let (mut store, mut world) = (empty_store(), World::default());
        let mut serial = store.publish(1).serial();
        // A change in each second.
        for (now, change) in (2..).zip(&history) {
            fold(&mut store, change);
            world.apply(change);
            let changed = store.changed();
            let after = store.publish(now).serial();
            prop_assert_eq!(after != serial, changed, "the serial follows changes");
            serial = after;
        }
        let snapshot = store.publish(1);
        let (records, names) = world.records();
        for question in questions() {
            for kind in ["A", "AAAA", "SRV", "PTR", "CNAME", "TXT"] {
                // SRV of what is no port is CoreDNS's own; the table of answers has it.
                if kind == "SRV" && !question.starts_with('_') {
                    continue;
                }
                // Addresses of a port's name likewise.
                if matches!(kind, "A" | "AAAA") && question.starts_with("_h") | question.starts_with("_dns") {
                    continue;
                }
                let (outcome, answer) = ask(&snapshot, &config(), &question, type_number(kind));
                let want = records.get(&(question.clone(), kind));
                let alias = records.get(&(question.clone(), "CNAME"));
                let data: BTreeSet<String> = answer[1..]
                    .iter()
                    .filter(|line| line.starts_with(&question))
                    .map(|line| {
                        let words: Vec<&str> = line.split(' ').collect();
                        match words[2] {
                            "SRV" => words[5..].join(" "),
                            _ => words[3..].join(" "),
                        }
                    })
                    .collect();
                match (want, alias) {
                    (Some(want), _) if want.contains("*") => {
                        prop_assert_eq!(data.len(), 1, "{} {}", question, kind);
                    }
                    (Some(want), _) => prop_assert_eq!(&data, want, "{} {}", question, kind),
                    (None, Some(alias)) => {
                        prop_assert_eq!(&data, alias, "{} {}", question, kind);
                        prop_assert!(matches!(outcome, Outcome::Alias(_)));
                    }
                    (None, None) if names.contains(&question) => {
                        prop_assert_eq!(outcome, Outcome::NoData, "{} {}", question, kind);
                    }
                    (None, None) => {
                        prop_assert!(matches!(outcome, Outcome::NxDomain(_)), "{question} {kind} {outcome:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_way_does_not_matter(history in prop::collection::vec(change(), 1..24)) {
        let (mut store, mut world) = (empty_store(), World::default());
        for change in &history {
            fold(&mut store, change);
            world.apply(change);
            // A list that begins anew says everything once more.
            let _ = store.publish(1);
        }
        let mut fresh = empty_store();
        for slice in world.slices.values() {
            fold(&mut fresh, &Change::Slice(slice.clone()));
        }
        for service in world.services.values() {
            fold(&mut fresh, &Change::Service(service.clone()));
        }
        let (one, other) = (store.publish(1), fresh.publish(1));
        for zone in ["cluster.local", "in-addr.arpa", "ip6.arpa"] {
            let records = |s: &zone::Snapshot| s.records(&config(), &name(zone));
            prop_assert_eq!(records(&one), records(&other), "{}", zone);
        }
        // And a new list that leaves everything out empties the zone.
        store.service(Event::Restarted);
        store.service(Event::Synced);
        store.slice(Event::Restarted);
        store.slice(Event::Synced);
        let empty = store.publish(1);
        prop_assert_eq!(empty.service_count(), 0);
        prop_assert_eq!(empty.records(&config(), &name("in-addr.arpa")).len(), 1, "NS alone");
    }

    /// Any octets: a request is read or refused, never more.
    #[test]
    fn octets_do_no_harm(octets in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(query) = zone::Query::parse(&octets) {
            let mut buffer = [0; 512];
            if let Some(mut reply) = zone::Reply::new(&mut buffer, &query, 512) {
                let snapshot = empty_store().publish(1);
                let _ = snapshot.answer(&config(), &query.question, 3, &mut reply);
                let length = reply.finish(&query, 0, &zone::Frame::default());
                prop_assert!(length <= 512);
            }
        }
    }
}
