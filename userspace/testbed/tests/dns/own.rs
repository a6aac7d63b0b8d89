//! The DNS that `fairlead up` brings along: who answers whom, and what is left of it when it no longer does.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use testbed::platform::{Api, Platform, Role};
use testbed::{Node, wait_for};

use crate::stage::fairlead;

const SERVICE: &str = "/api/v1/namespaces/kube-system/services/kube-dns";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-host";

#[test]
fn its_service_goes_with_it() -> Result<()> {
    let node = Node::create()?;
    let mut platform = Platform::start(&node, &fairlead()?, Role::Up)?;
    let api = Api::connect(&node, &platform)?;
    let patience = Duration::from_secs(20);
    let there = |path: &str| api.get(path).is_ok();
    wait_for("the endpoints of the DNS", patience, || {
        (there(SERVICE) && there(SLICE)).then_some(())
    })?;
    platform.kill()?;
    platform.set_flags(&["--no-cluster-dns"]);
    platform.restart()?;
    wait_for("nothing to lead to a DNS that is gone", patience, || {
        (!there(SERVICE) && !there(SLICE)).then_some(())
    })?;
    platform.kill()?;
    platform.set_flags(&[]);
    platform.restart()?;
    wait_for("the endpoints of the DNS again", patience, || {
        (there(SERVICE) && there(SLICE)).then_some(())
    })?;
    // The endpoints belong to the Service.
    api.delete(SERVICE)?;
    wait_for("endpoints without a Service to go", patience, || {
        (!there(SLICE)).then_some(())
    })
}

/// A client off the node asks the Service's address. The programs answer what they can, on a veth those of TC; the rest
/// goes to the server, which is this host itself and which no Node is named for.
#[test]
fn from_outside_programs_and_server_answer() -> Result<()> {
    let node = Node::create()?;
    let mut platform = Platform::start(&node, &fairlead()?, Role::Up)?;
    platform.kill()?;
    platform.set_flags(&["--kernel-answers", "--cluster-dns-clients", "any"]);
    platform.restart()?;
    let dig = |arguments: &[&str]| -> Result<String> {
        let mut command = node.outside().place().command("dig".as_ref())?;
        command.args(["+nocookie", "+tries=1", "+time=2", "@10.96.0.10"]);
        command.args(["kubernetes.default.svc.cluster.local"]);
        let output = command.args(arguments).output()?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let answered = || -> Result<u64> {
        let mut command = platform.fairlead()?;
        command.args(["status", "-o", "json", "--bpffs-root"]);
        let output = command.arg(platform.bpffs()).output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let counters = status["counters"].as_array().context("no counters")?;
        let of_dns = |row: &&Value| {
            row["name"]
                .as_str()
                .is_some_and(|name| name.ends_with("_dns_answer"))
        };
        Ok(counters
            .iter()
            .filter(of_dns)
            .filter_map(|row| row["packets"].as_u64())
            .sum())
    };
    let patience = Duration::from_secs(20);
    wait_for("the programs to answer", patience, || {
        dig(&["A"]).ok()?;
        (answered().ok()? > 0).then_some(())
    })?;
    let before = answered()?;
    for arguments in [&["A"][..], &["AAAA"]] {
        let text = dig(arguments)?;
        assert!(text.contains("status: NOERROR"), "{text}");
    }
    assert_eq!(answered()?, before + 2);
    for arguments in [&["A", "+tcp"][..], &["TXT"], &["A", "+subnet=192.0.2.0/24"]] {
        let text = dig(arguments)?;
        assert!(text.contains("status: NOERROR"), "{arguments:?}: {text}");
    }
    assert_eq!(answered()?, before + 2);
    Ok(())
}
