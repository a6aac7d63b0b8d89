//! `fairlead explain` says what then happens: to clients outside, behind XDP and TC, and of backends elsewhere.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testbed::probe::How;
use testbed::topology::{CLIENT4, NODE4, REMOTE4, UPLINK};

use crate::stage::{PATIENCE, SERVICES, SLICES, Stage, slice};

fn explained(stage: &Stage, from: &str, to: &str) -> Result<Value> {
    let explained = stage.show(&["explain", "--from", from, "--to", to, "-o", "json"])?;
    explained.assert_done();
    Ok(serde_json::from_str(&explained.stdout)?)
}

#[test]
fn what_is_explained_is_what_happens() -> Result<()> {
    let device = format!("--devices={UPLINK}");
    let stage = Stage::up(&[&device, "--xdp=generic", "--host-routing=bpf"])?;
    let web = format!("{}:8080", stage.web.address(false));
    let node_port = |name: &str, addr: &str, port: u16| -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080, "nodePort": port}]},
        });
        stage.api.create(SERVICES, service)?;
        let mut endpoints = slice(name, "IPv4", &[addr], 8080);
        if addr == REMOTE4.to_string() {
            endpoints["endpoints"][0]["nodeName"] = json!("node-2");
        }
        stage.api.create(SLICES, endpoints)?;
        Ok(())
    };
    node_port("here", &stage.web.address(false).to_string(), 30080)?;
    node_port("there", &REMOTE4.to_string(), 30081)?;
    let at = format!("{NODE4}:30080").parse()?;
    testbed::wait_for("the NodePort to answer", PATIENCE, || {
        let seen = stage.node.outside().place().probe(How::Tcp, at).ok()?;
        (seen.backend.as_deref() == Some("web")).then_some(())
    })
    .with_context(|| stage.log())?;

    // XDP translates it and leaves TC a word before the packet: that is no part of it.
    let client = CLIENT4.to_string();
    let here = explained(&stage, &client, &format!("{NODE4}:30080"))?;
    assert_eq!(here["outcome"], "backend", "{here}");
    assert_eq!(here["backend"]["address"], json!(web), "{here}");
    let steps = here["steps"].as_array().context("steps")?;
    let becomes = format!("becomes a packet for {web}");
    assert!(
        steps[0]["decision"]
            .as_str()
            .is_some_and(|it| it.starts_with(&becomes)),
        "{here}"
    );
    assert!(
        !here.to_string().contains("no Service"),
        "what XDP did is not forgotten: {here}"
    );

    // Of what goes to another node, this one does not say that it arrives.
    testbed::wait_for("the Service of another node", PATIENCE, || {
        let listed = stage.show(&["service", "list"]).ok()?;
        listed
            .stdout
            .contains(&format!("{REMOTE4}:8080"))
            .then_some(())
    })?;
    let there = explained(&stage, &client, &format!("{NODE4}:30081"))?;
    assert_eq!(there["outcome"], "sent", "{there}");
    assert_eq!(there["node"], "node-2", "{there}");
    let to = format!("{NODE4}:30081");
    let text = stage.show(&["explain", "--from", &client, "--to", &to])?;
    let words = format!("is sent to {REMOTE4}:8080 on node node-2; that node's policies decide");
    assert!(text.stdout.contains(&words), "{text:?}");
    // Nor of what goes there without a Service.
    let to = format!("{REMOTE4}:8080");
    let text = stage.show(&["explain", "--from", &client, "--to", &to])?;
    let words = "goes on as it is to node node-2; that node's policies decide";
    assert!(text.stdout.contains(words), "{text:?}");
    stage.assert_good()
}
