//! As many queries as dnsperf can send: none is lost, none gets a wrong code.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::Process;

use crate::stage::{SERVICES, Stage};

/// Services that are asked for.
const COUNT: u32 = 50;

#[test]
fn dnsperf_gets_every_answer() -> Result<()> {
    let stage = Stage::set()?;
    let mut questions = String::new();
    for n in 0..COUNT {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("load-{n}")},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        });
        stage.api.create(SERVICES, service)?;
        writeln!(questions, "load-{n}.default.svc.cluster.local A")?;
        writeln!(questions, "load-{n}.default.svc.cluster.local AAAA")?;
        writeln!(
            questions,
            "_http._tcp.load-{n}.default.svc.cluster.local SRV"
        )?;
    }
    let file = stage.node.folder().join("questions");
    std::fs::write(&file, questions)?;
    let socket = stage.socket()?;
    let last = format!("load-{}.default.svc.cluster.local", COUNT - 1);
    testbed::wait_for("the last", std::time::Duration::from_secs(10), || {
        let answer = crate::stage::ask(&socket, &last).ok()?;
        matches!(answer, crate::stage::Answer::Address(_)).then_some(())
    })?;
    for mode in ["udp", "tcp"] {
        let place = stage.node.place()?.without_cgroup();
        let mut command = place.command(Path::new("dnsperf"))?;
        command.args([
            "-s",
            "127.0.0.1",
            "-p",
            "53",
            "-m",
            mode,
            "-c",
            "4",
            "-l",
            "1",
            "-d",
        ]);
        let told = Process::start(command.arg(&file), "dnsperf")
            .context("dnsperf is missing: `cargo xtask test` installs it on Debian")?
            .finish()?;
        let number = |label: &str| -> Result<u64> {
            let line = told
                .lines()
                .find_map(|line| line.trim().strip_prefix(label));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok())
                .with_context(|| format!("dnsperf said no {label:?}:\n{told}"))
        };
        ensure!(number("Queries completed:")? > 0, "{mode}: {told}");
        ensure!(number("Queries lost:")? == 0, "{mode}: {told}");
        let codes = told.lines().find(|line| line.contains("Response codes:"));
        let only = codes.is_some_and(|codes| codes.contains("NOERROR") && !codes.contains(','));
        ensure!(only, "{mode}: another code than NOERROR\n{told}");
    }
    Ok(())
}
