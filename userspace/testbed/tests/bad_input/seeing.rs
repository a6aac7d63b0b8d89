//! `fairlead monitor` on a node that works: each by its filter, to the end of whoever reads, and past a kill.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::stage::{
    GOOD, PATIENCE, SERVICES, Stage, bpffs_root, fairlead, in_node, kubeconfig, run,
};

const EMPTY: &str = "10.96.0.21:80";

/// A stage with a Service that has no endpoint beside the good one.
fn stage() -> Result<Stage> {
    let stage = Stage::up(&[])?;
    stage.api.create(
        SERVICES,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty"},
            "spec": {"clusterIP": "10.96.0.21", "ports": [{"port": 80}]},
        }),
    )?;
    testbed::wait_for("the Service to be listed", PATIENCE, || {
        let listed = stage.show(&["service", "list"]).ok()?;
        listed.stdout.contains("10.96.0.21").then_some(())
    })?;
    Ok(stage)
}

/// Asks both Services until `done`, for a while at most.
fn ask(stage: &Stage, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !done()? {
        ensure!(begun.elapsed() < PATIENCE, "told too little for too long");
        stage.answers(GOOD)?;
        stage.answers(EMPTY.parse()?)?;
    }
    Ok(())
}

/// A started `fairlead monitor`; killed where it does not end.
struct Monitor(Child);

impl Monitor {
    fn start(stage: &Stage, flags: &[&str]) -> Result<Self> {
        let mut command = in_node(&stage.node)?;
        command
            .args(["monitor", "-o", "json", "--bpffs-root"])
            .arg(bpffs_root(&stage.node))
            .args(flags)
            .env("KUBECONFIG", kubeconfig(&stage.node))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        Ok(Self(command.spawn()?))
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// What it told, having ended.
    fn told(&mut self) -> Result<Vec<Value>> {
        assert!(self.0.wait()?.success());
        let mut text = String::new();
        let mut stdout = self.0.stdout.take().context("stdout")?;
        stdout.read_to_string(&mut text)?;
        let lines = text.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn monitors_tell_what_happens_each_by_its_filter() -> Result<()> {
    let stage = stage()?;
    let new = ["--type", "new", "--count", "2", "--service", "good"];
    let mut new = Monitor::start(&stage, &new)?;
    let mut refused = Monitor::start(&stage, &["--drops", "--count", "2"])?;
    // Until both have seen enough: they begin when they begin.
    ask(&stage, || Ok(new.has_ended()? && refused.has_ended()?))?;
    let new = new.told()?;
    assert_eq!(new.len(), 2);
    let web = stage.web.address(false);
    for event in &new {
        for (field, expected) in [
            ("type", json!("new")),
            ("serviceName", json!("default/good")),
            ("destination", json!(GOOD)),
            ("backend", json!(format!("{web}:8080"))),
            ("reason", json!("socket_connect")),
        ] {
            assert_eq!(event[field], expected, "{field} of {event}");
        }
        assert!(event["pid"].as_u64().is_some_and(|pid| pid > 0), "{event}");
        assert!(event["source"].is_string(), "whose socket: {event}");
    }
    for event in &refused.told()? {
        assert_eq!(event["type"], "refuse", "{event}");
        assert_eq!(event["serviceName"], "default/empty");
        assert_eq!(event["reason"], "socket_no_endpoint");
    }
    stage.assert_good()
}

#[test]
fn a_monitor_ends_with_its_reader_and_leaves_its_ring_when_killed() -> Result<()> {
    let stage = stage()?;
    // Nothing happens, and nobody reads.
    let mut left = Monitor::start(&stage, &[])?;
    drop(left.0.stdout.take());
    testbed::wait_for("the monitor without a reader", PATIENCE, || {
        left.has_ended().ok()?.then_some(())
    })?;
    assert!(left.0.wait()?.success());

    let mut killed = Monitor::start(&stage, &[])?;
    let stdout = killed.0.stdout.take().context("stdout")?;
    let first = thread::spawn(move || BufReader::new(stdout).read_line(&mut String::new()));
    ask(&stage, || Ok(first.is_finished()))?;
    drop(killed);
    let told = first.join().map_err(|_| anyhow!("the reader panicked"))??;
    assert!(told > 0, "it told nothing");

    // Its ring is free for others at once.
    let watched = bpf::Watched {
        kinds: abi::events::kinds::ALL,
        one_in: 1,
    };
    let watch = || bpf::Watch::start(&bpffs_root(&stage.node), watched);
    let all = [watch()?, watch()?, watch()?, watch()?];
    let refused = stage.show(&["monitor"])?;
    refused.assert_refused(1, &["end another `fairlead monitor`"]);
    drop(all);
    stage.assert_good()
}

#[test]
fn what_cannot_be_watched_says_why() -> Result<()> {
    let nowhere = ["monitor", "--bpffs-root", "/nowhere"];
    let ended = run(std::process::Command::new(fairlead()?).args(nowhere))?;
    ended.assert_refused(1, &["nothing is loaded at /nowhere", "fairlead up"]);
    let stage = stage()?;
    for (flags, words) in [
        (["monitor", "--service", "nowhere"], "fairlead service list"),
        (["monitor", "--pod", "nowhere"], "kubectl get pods"),
    ] {
        stage.show(&flags)?.assert_refused(1, &[words]);
    }
    for (from, to, words) in [
        ("0.0.0.0", "10.96.0.21:80", "nobody connects from that"),
        ("224.0.0.1", "10.96.0.21:80", "nobody connects from that"),
        ("10.244.0.9", "10.96.0.21:0", "port 0"),
        ("10.244.0.9", "good:0", "port 0"),
        ("10.244.0.9", "good:http", "it has: 80"),
        ("10.244.0.9", "239.0.0.1:80", "nobody is connected to"),
    ] {
        let refused = stage.show(&["explain", "--from", from, "--to", to])?;
        refused.assert_refused(1, &[words]);
    }
    stage
        .show(&["service", "list", "-o", "wide"])?
        .assert_done();

    // A pin that somebody removed is named; what is there is not taken for nothing.
    let maps = bpffs_root(&stage.node).join(format!("v{}/maps", abi::LAYOUT_VERSION));
    for (table, command) in [
        ("FLOWS4", "flow"),
        ("SWITCHES", "monitor"),
        ("EVENTS0", "monitor"),
    ] {
        let away = maps.join("AWAY");
        std::fs::rename(maps.join(table), &away)?;
        let words: &[&str] = match command {
            "flow" => &["flow", "list"],
            other => &[other],
        };
        let refused = stage.show(words);
        std::fs::rename(&away, maps.join(table))?;
        refused?.assert_refused(1, &[table, "makes what is missing"]);
    }
    stage.assert_good()
}
