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
