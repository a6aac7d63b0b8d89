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
