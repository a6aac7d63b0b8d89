//! Questions and their answers, a table: tests/data/answers.txt. `UPDATE=1` writes what is answered now, for
//! reading before it is believed.

mod common;

use common::{ask, name, store, type_number};
use zone::{Config, Options, Pods};

fn config() -> Config {
    let zones = [
        "cluster.local",
        "clusterset.local",
        "in-addr.arpa",
        "ip6.arpa",
    ];
    let mut config = Config::new(zones.map(name).to_vec());
    config.multicluster = vec![name("clusterset.local")];
    config.pods = Pods::Verified;
    config.zonal = true;
    config.ttl = 30;
    config
}

/// What is known is told before everything is: that something does not exist is not.
#[test]
fn before_everything_is_heard_of() {
    let mut store = zone::Store::new(Options::default());
    let service = serde_json::json!({
        "metadata": {"namespace": "default", "name": "web"}, "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"]},
    });
    let service = serde_json::from_value(service).unwrap();
    store.service(view::Event::Applied(service));
    let snapshot = store.publish(1);
    assert!(!snapshot.synced());
    for (name, code) in [
        ("web.default.svc.cluster.local", "NOERROR"),
        ("other.default.svc.cluster.local", "SERVFAIL"),
        ("1.0.96.10.in-addr.arpa", "NOERROR"),
        ("2.0.96.10.in-addr.arpa", "SERVFAIL"),
    ] {
        for kind in ["A", "PTR"] {
            let (_, answer) = ask(&snapshot, &config(), name, type_number(kind));
            assert_eq!(answer[0], code, "{name} {kind}");
        }
    }
}

/// A selector of namespaces holds for all that is in them, and for what happens to their labels.
#[test]
fn what_is_in_no_selected_namespace_has_no_names() {
    let cluster = "
kind: Namespace
metadata: {name: shown, labels: {mesh: 'on'}}
---
kind: Namespace
metadata: {name: hidden}
---
kind: Service
metadata: {name: web, namespace: shown}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1]}
---
kind: Service
metadata: {name: web, namespace: hidden}
spec: {clusterIP: 10.96.0.2, clusterIPs: [10.96.0.2]}
";
    let options = Options {
        namespace_selector: Some(api::selector::LabelSelector::parse("mesh=on").unwrap()),
        ..Options::default()
    };
    let mut store = store(cluster, options);
    let told = |store: &mut zone::Store| {
        let snapshot = store.publish(1);
        let asked = [
            ("web.shown.svc.cluster.local", "A"),
            ("web.hidden.svc.cluster.local", "A"),
            ("hidden.svc.cluster.local", "A"),
            ("1.0.96.10.in-addr.arpa", "PTR"),
            ("2.0.96.10.in-addr.arpa", "PTR"),
        ];
        let codes = asked.map(|(name, kind)| {
            let (_, answer) = ask(&snapshot, &config(), name, type_number(kind));
            answer[0].clone()
        });
        let transferred = ["cluster.local", "in-addr.arpa"].map(|zone| {
            let records = snapshot.records(&config(), &name(zone));
            let of_hidden = |data: &[u8]| data.windows(7).any(|part| part == b"\x06hidden");
            let hidden = records
                .iter()
                .any(|r| of_hidden(&r.owner) || of_hidden(&r.data));
            hidden
        });
        (codes.join(" "), transferred)
    };
    let nobody = "NOERROR NXDOMAIN NXDOMAIN NOERROR NXDOMAIN".to_owned();
    assert_eq!(told(&mut store), (nobody.clone(), [false; 2]));
    store.take_rendered();
    let labelled = |labels: serde_json::Value| serde_json::json!({"kind": "Namespace", "metadata": {"name": "hidden", "labels": labels}});
    common::apply(&mut store, labelled(serde_json::json!({"mesh": "on"})));
    let everybody = "NOERROR NOERROR NOERROR NOERROR NOERROR".to_owned();
    assert_eq!(told(&mut store), (everybody, [true; 2]));
    // Who mirrors names hears of those in it.
    assert_eq!(store.take_rendered(), [(*b"\x03web\x06hidden").into()]);
    common::apply(&mut store, labelled(serde_json::json!({})));
    assert_eq!(told(&mut store), (nobody, [false; 2]));
    assert_eq!(store.take_rendered().len(), 1);
}

#[test]
fn every_rule_has_its_answers() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/answers.txt");
    let table = std::fs::read_to_string(file).unwrap();
    let options = Options {
        pods: true,
        imports: true,
        ..Options::default()
    };
    let snapshot = store(include_str!("data/cluster.yaml"), options).publish(1);
    let mut now = String::new();
    for line in table.lines() {
        if line.starts_with('#') {
            now += &format!("{line}\n");
        } else if let Some(question) = line.strip_prefix("? ") {
            let (text, qtype) = question.split_once(' ').unwrap();
            let (outcome, answer) = ask(&snapshot, &config(), text, type_number(qtype));
            let outcome = format!("{outcome:?}");
            now += &format!("{line}\n  {outcome}: {}\n", answer[0]);
            for record in &answer[1..] {
                now += &format!("  {record}\n");
            }
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, &now).unwrap();
    } else if now != table {
        let first = now.lines().zip(table.lines()).find(|(a, b)| a != b);
        panic!("the table says otherwise; first difference (now, table): {first:#?}");
    }
}
