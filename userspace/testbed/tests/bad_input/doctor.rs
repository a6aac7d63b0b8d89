//! `fairlead doctor` on a host where all is well, and on one where something is not.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::stage::{Stage, fairlead, run};

/// Runs the doctor; its status, and the findings of a level: check and words.
fn findings(stage: &Stage, level: &str) -> Result<(i32, Vec<(String, String)>)> {
    let ended = stage.show(&["doctor", "-o", "json"])?;
    let report: Value =
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    assert_eq!(report["healthy"], ended.status == 0, "{ended:?}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for finding in report["findings"].as_array().context("findings")? {
        if finding["level"] == level {
            let words = format!("{} | {}", text(&finding["what"]), text(&finding["remedy"]));
            found.push((text(&finding["check"]), words));
        }
    }
    Ok((ended.status, found))
}

#[track_caller]
fn assert_found(found: &[(String, String)], check: &str, words: &str) {
    assert!(
        found
            .iter()
            .any(|(of, said)| of == check && said.contains(words)),
        "no {check}: {words} in {found:?}"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() -> Result<()> {
    let mut stage = Stage::up(&["--devices=uplink", "--xdp=off"])?;
    let (status, problems) = findings(&stage, "problem")?;
    assert_eq!((status, &problems), (0, &Vec::new()));
    let (_, fine) = findings(&stage, "ok")?;
    for check in ["bpffs", "cgroup2", "agent", "tables", "kube-proxy", "MTU"] {
        assert_found(&fine, check, "");
    }

    let netns = stage.node.netns();
    netns.sysctl(&[("net/ipv4/ip_forward", "0")])?;
    netns.ip("link set uplink mtu 1400")?;
    let rules = "add table ip kube-proxy\nadd chain ip kube-proxy services\n";
    netns.command("nft", &["-f", "-"], rules)?;
    let foreign = netns.run(|| Ok(bpf::XdpPass::attach("uplink")?))?;
    let process = stage.running.take().context("it runs")?;
    process.assert_terminates()?;

    let (status, problems) = findings(&stage, "problem")?;
    assert_eq!(status, 1);
    assert_found(&problems, "forwarding", "sysctl -w net.ipv4.ip_forward=1");
    assert_found(&problems, "MTU", "(1400)");
    assert_found(&problems, "kube-proxy", "nft delete table ip kube-proxy");
    assert_found(&problems, "agent", "fairlead up");
    let (_, notes) = findings(&stage, "note")?;
    assert_found(&notes, "foreign programs", "device_xdp on uplink");
    let table = stage.show(&["doctor"])?;
    assert_eq!(table.status, 1);
    assert!(
        table
            .stdout
            .contains("PROBLEM  forwarding: net.ipv4.ip_forward = 0"),
        "{table:?}"
    );
    drop(foreign);
    Ok(())
}

#[test]
fn a_host_where_nothing_is_loaded_is_not_well() -> Result<()> {
    let nowhere = ["doctor", "--bpffs-root", "/nowhere"];
    let ended = run(std::process::Command::new(fairlead()?).args(nowhere))?;
    assert_eq!(ended.status, 1, "{ended:?}");
    for words in [
        "PROBLEM  programs: nothing is loaded at /nowhere",
        "PROBLEM  bpffs: /nowhere is not on a bpffs",
        "remedy: mount -t bpf bpf /sys/fs/bpf",
    ] {
        assert!(ended.stdout.contains(words), "{words} in {ended:?}");
    }
    Ok(())
}
