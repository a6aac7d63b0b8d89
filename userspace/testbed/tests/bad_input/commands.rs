//! The command line: usage, help, and every listing in every format.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::stage::{Ended, SERVICES, SLICES, Stage, fairlead, run, slice};

const COMMANDS: &[&[&str]] = &[
    &["up"],
    &["server"],
    &["proxy"],
    &["apply"],
    &["service"],
    &["service", "list"],
    &["backend"],
    &["backend", "list"],
    &["flow"],
    &["flow", "list"],
    &["status"],
    &["doctor"],
    &["explain"],
    &["monitor"],
    &["version"],
];

fn command(arguments: &[&str]) -> Result<Ended> {
    run(Command::new(fairlead()?)
        .args(arguments)
        .env_remove("KUBECONFIG"))
}

#[test]
fn wrong_usage_ends_with_status_2_and_names_the_flag() -> Result<()> {
    let file = std::env::temp_dir().join(format!("fl-{}-usage.yaml", std::process::id()));
    std::fs::write(&file, "secure-prt: 6443\n")?;
    let config = format!("--config={}", file.display());
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["serve"], "'serve'"),
        (&["up", "extra"], "'extra'"),
        (&["up", "--secure-port", "65536"], "--secure-port"),
        (
            &["up", "--service-cluster-ip-range", "10.0.0.0/33"],
            "--service-cluster-ip-range",
        ),
        (
            &["up", "--service-node-port-range", "9-3"],
            "--service-node-port-range",
        ),
        (&["up", "--bind-address", "localhost"], "--bind-address"),
        (&["up", "--frontends-max", "0"], "--frontends-max"),
        (&["up", "--xdp", "fast"], "native"),
        (&["up", &config], "--secure-prt"),
        (&["proxy"], "--kubeconfig"),
        (&["apply"], "--filename"),
        (&["apply", "-f", "x"], "--kubeconfig"),
        (&["service"], "list"),
        (&["status", "-o", "xml"], "json"),
        (&["flow", "list", "--protocol", "icmp"], "SCTP"),
        (&["explain", "--to", "10.0.0.1:80"], "--from"),
        (&["monitor", "--type", "loud"], "refuse"),
        (&["monitor", "--sample", "0"], "--sample"),
        (&["monitor", "--drops", "--type", "new"], "--drops"),
        (&["flow", "list", "--address", "web"], "10.244.0.0/16"),
        (&["--log-format", "loud", "version"], "json"),
    ];
    for (arguments, word) in cases {
        let ended = command(arguments)?;
        ended.assert_refused(2, &[word]);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    std::fs::remove_file(&file)?;
    Ok(())
}

#[test]
fn what_is_named_and_cannot_be_read_is_a_failure() -> Result<()> {
    let file = std::env::temp_dir().join(format!("fl-{}-broken", std::process::id()));
    std::fs::write(&file, "a: [")?;
    let broken = file.display().to_string();
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["proxy", "--kubeconfig", "/nowhere"],
            &["kubeconfig /nowhere", "--write-kubeconfig"],
        ),
        (
            &["proxy", "--kubeconfig", &broken],
            &["kubeconfig", "line 1"],
        ),
        (
            &["apply", "-f", "x", "--kubeconfig", "/nowhere"],
            &["kubeconfig /nowhere"],
        ),
        (&["up", "--config", "/nowhere"], &["/nowhere", "--config"]),
        (&["up", "--config", &broken], &["malformed YAML", "line 1"]),
        (
            &["server", "--data-dir", "/proc/nowhere"],
            &["/proc/nowhere", "--data-dir"],
        ),
        (&["server", "--data-dir", &broken], &[&broken, "--data-dir"]),
        (
            &["server", "--bind-address", "192.0.2.1"],
            &["192.0.2.1:6443", "--bind-address"],
        ),
        (
            &["service", "list", "--bpffs-root", "/nowhere"],
            &[
                "nothing is loaded at /nowhere",
                "fairlead up",
                "--bpffs-root",
            ],
        ),
        (
            &["backend", "list", "--bpffs-root", "/nowhere"],
            &["nothing is loaded at /nowhere"],
        ),
        (
            &["flow", "list", "--bpffs-root", "/nowhere", "-o", "json"],
            &["nothing is loaded at /nowhere"],
        ),
        (
            &[
                "explain",
                "--from-node",
                "--to",
                "10.0.0.1:80",
                "--bpffs-root",
                "/nowhere",
            ],
            &["nothing is loaded at /nowhere"],
        ),
        (
            &["status", "--bpffs-root", "/nowhere", "-o", "yaml"],
            &["nothing is loaded at /nowhere"],
        ),
    ];
    for (arguments, words) in cases {
        let ended = command(arguments)?;
        ended.assert_refused(1, words);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    std::fs::remove_file(&file)?;
    let filter = run(Command::new(fairlead()?)
        .arg("version")
        .env("RUST_LOG", "loud=very"))?;
    filter.assert_refused(1, &["RUST_LOG"]);
    Ok(())
}

#[test]
fn every_command_explains_itself() -> Result<()> {
    let top = command(&["--help"])?;
    top.assert_done();
    for words in COMMANDS {
        assert!(
            top.stdout.contains(&format!("\n  {} ", words[0])),
            "{words:?}"
        );
        let ended = command(&[words, &["--help"][..]].concat())?;
        ended.assert_done();
        let usage = format!("Usage: fairlead {}", words.join(" "));
        assert!(ended.stdout.contains(&usage), "{words:?}: {}", ended.stdout);
    }
    let version = command(&["version", "-o", "json"])?;
    let version: Value = serde_json::from_str(&version.stdout)?;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// A table's cells, by its first line's titles: columns are three blanks apart at least.
fn rows(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.split("   ").map(str::trim);
        cells
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    };
    table.lines().skip(1).map(cells).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[test]
fn json_and_yaml_carry_the_rows_of_the_table() -> Result<()> {
    let stage = Stage::up(&["--devices=uplink"])?;
    let pod = stage.web.address(false).to_string();
    stage.api.create(
        SERVICES,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ported"},
            "spec": {
                "clusterIP": "10.96.0.20", "type": "NodePort", "sessionAffinity": "ClientIP",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
            },
        }),
    )?;
    let mut endpoints = slice("ported", "IPv4", &[&pod], 8080);
    endpoints["ports"][0]["name"] = json!("http");
    endpoints["endpoints"][0]["targetRef"] =
        json!({"kind": "Pod", "namespace": "default", "name": "web"});
    stage.api.create(SLICES, endpoints)?;
    testbed::wait_for("the Services to be listed", crate::stage::PATIENCE, || {
        let listed = stage.show(&["service", "list"]).ok()?;
        // The ClusterIP, and the port of the node at its two addresses and on its loopback.
        (listed.stdout.matches("10.244.0.10:8080").count() == 4).then_some(())
    })?;
    // A flow, by way of XDP from outside.
    let seen = stage
        .node
        .outside()
        .place()
        .probe(testbed::probe::How::Tcp, "172.31.0.1:30080".parse()?)?;
    assert_eq!(seen.backend.as_deref(), Some("web"), "{seen:?}");

    let services = documents(&stage, "service")?;
    let table = table(&stage, "service")?;
    assert_eq!(services.len(), table.len());
    let mut names = Vec::new();
    for (service, cells) in services.iter().zip(&table) {
        let name = match &service["name"] {
            Value::Null => "-".to_owned(),
            name => text(name),
        };
        let wanted = [
            &service["id"],
            &json!(name),
            &service["frontend"],
            &service["protocol"],
        ];
        assert_eq!(cells[..4], wanted.map(text), "{service}");
        let kind = text(&service["type"]);
        assert_eq!(cells[4], kind);
        assert_eq!(cells[5], text(&service["balancing"]));
        assert_eq!(cells[8], text(&service["clients"]));
        names.push(format!("{name} {kind}"));
        let backends = text(&service["backends"]);
        assert!(
            cells[7] == backends || backends.is_empty(),
            "{cells:?} {service}"
        );
    }
    assert!(services.iter().any(|service| service["clients"] == "host"));
    for name in [
        "default/good ClusterIP",
        "default/ported:http ClusterIP",
        "default/ported:http NodePort",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }

    let backends = documents(&stage, "backend")?;
    let table = self::table(&stage, "backend")?;
    assert_eq!(backends.len(), table.len());
    assert!(backends.len() >= 2);
    for (backend, cells) in backends.iter().zip(&table) {
        assert_eq!(
            cells[..2],
            [text(&backend["id"]), text(&backend["address"])]
        );
        assert_eq!(
            cells[3..5],
            [text(&backend["local"]), text(&backend["active"])]
        );
        assert_eq!(cells[6], text(&backend["connections"]));
    }

    let flows = documents(&stage, "flow")?;
    let table = self::table(&stage, "flow")?;
    assert_eq!(flows.len(), table.len());
    for (flow, cells) in flows.iter().zip(&table) {
        assert_eq!(
            cells[2..4],
            [text(&flow["source"]), text(&flow["destination"])]
        );
        assert_eq!(cells[6], text(&flow["serviceName"]));
        assert_eq!(cells[9], text(&flow["state"]));
    }
    let ours = |flow: &&Value| flow["serviceName"] == "default/ported:http";
    let ported: Vec<&Value> = flows.iter().filter(ours).collect();
    assert!(ported.len() >= 2, "both directions of one at least");
    for (flow, cells) in flows.iter().zip(&table).filter(|(flow, _)| ours(flow)) {
        assert_eq!(flow["backendName"], "default/web");
        assert_eq!(cells[8], "default/web");
    }
    assert_filters(&stage, flows.len(), ported.len())?;

    let status = stage.show(&["status"])?.stdout;
    let found: Value = serde_json::from_str(&stage.show(&["status", "-o", "json"])?.stdout)?;
    let yaml = yaml(&stage.show(&["status", "-o", "yaml"])?.stdout)?;
    assert_eq!(found["agentPid"], stage.running()?.process.id());
    for (list, name) in [
        ("programs", "name"),
        ("links", "program"),
        ("tables", "table"),
        ("counters", "name"),
    ] {
        let items = found[list].as_array().context("a list")?;
        assert!(!items.is_empty(), "{list}");
        assert_eq!(yaml[list].as_array().map(Vec::len), Some(items.len()));
        for item in items {
            assert!(
                status.contains(&text(&item[name])),
                "{item} is not in {status}"
            );
        }
    }
    Ok(())
}

/// A listing as JSON; YAML says the same.
fn documents(stage: &Stage, what: &str) -> Result<Vec<Value>> {
    let json = stage.show(&[what, "list", "-o", "json"])?;
    json.assert_done();
    let timeless = |mut value: Value| {
        // Both were not asked for in the same second.
        for item in value.as_array_mut().into_iter().flatten() {
            item["idleSecs"].take();
        }
        value
    };
    let json = timeless(serde_json::from_str(&json.stdout)?);
    let said = stage.show(&[what, "list", "-o", "yaml"])?;
    said.assert_done();
    assert_eq!(timeless(yaml(&said.stdout)?), json);
    Ok(json.as_array().context("a list")?.clone())
}

/// Filters of flows, where every flow is one of TCP to a port of the node.
/// `flows` are all, each of a Service that `web` serves, and `ported` those of one of them.
fn assert_filters(stage: &Stage, flows: usize, ported: usize) -> Result<()> {
    for (filter, shown) in [
        (["--service", "default/ported"], ported),
        (["--service", "ported:http"], ported),
        (["--service", "good"], flows - ported),
        (["--pod", "default/web"], flows),
        (["--address", "10.244.0.0/24"], flows),
        (["--address", "203.0.113.1"], 0),
        (["--protocol", "tcp"], flows),
        (["--protocol", "udp"], 0),
    ] {
        let listed = stage.show(&[&["flow", "list", "-o", "json"], &filter[..]].concat())?;
        listed.assert_done();
        let listed: Vec<Value> = serde_json::from_str(&listed.stdout)?;
        assert_eq!(listed.len(), shown, "{filter:?}");
    }
    for (filter, word) in [
        (["--service", "nowhere"], "fairlead service list"),
        (["--pod", "nowhere"], "kubectl get pods"),
    ] {
        let refused = stage.show(&[&["flow", "list"], &filter[..]].concat())?;
        refused.assert_refused(1, &[filter[1], word]);
    }
    Ok(())
}

fn table(stage: &Stage, what: &str) -> Result<Vec<Vec<String>>> {
    let table = stage.show(&[what, "list"])?;
    table.assert_done();
    Ok(rows(&table.stdout))
}

/// Reads YAML as the client of manifests does.
fn yaml(text: &str) -> Result<Value> {
    let mut documents = client::documents(text)?;
    assert_eq!(documents.len(), 1, "{text}");
    Ok(documents.remove(0))
}
