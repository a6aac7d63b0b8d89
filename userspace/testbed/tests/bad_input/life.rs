//! Starting, being idle, and ending.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use testbed::Node;
use testbed::topology::NODE4;

use crate::https::Https;
use crate::stage::{
    self, Api, GOOD, Running, Stage, begin_up, data_dir, datapath_flags, in_node, kubeconfig,
};

/// Processor time of a process in ticks of 10 ms; proc_pid_stat(5).
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let (user, system) = (fields.get(11), fields.get(12));
    Ok(user.context("utime")?.parse::<u64>()? + system.context("stime")?.parse::<u64>()?)
}

/// Bounds for a debug build on a machine that runs other tests; the benches hold the release build to 500 ms.
#[test]
fn an_empty_store_is_ready_at_once_and_then_costs_nothing() -> Result<()> {
    let node = Node::create()?;
    let started = Instant::now();
    let mut running = begin_up(&node, &[])?;
    let answer = testbed::wait_for("/readyz", stage::PATIENCE, || {
        let https = Https::of(&data_dir(&node)).ok()?;
        let answer = https.send(node.netns(), "GET /readyz", "text/plain", b"");
        answer.ok().filter(|answer| answer.code == 200)
    })?;
    let took = started.elapsed();
    println!("/readyz after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(answer.body, "ok");
    running.ready()?;
    // Whom it told that it is ready may connect to Services.
    assert!(running.log().contains("programmed"), "{}", running.log());
    let mode = std::fs::metadata(kubeconfig(&node))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner may read the key in it");

    // Idle is a state that lasts: what is measured is three seconds of it, once it is reached.
    let pid = running.process.id();
    let until = Instant::now() + Duration::from_secs(20);
    let spent = loop {
        let before = ticks(pid)?;
        std::thread::sleep(Duration::from_secs(3));
        let spent = ticks(pid)? - before;
        if spent <= 2 || Instant::now() > until {
            break spent;
        }
    };
    assert!(spent <= 2, "{spent} ticks of 10 ms in three seconds");
    running.assert_terminates()
}

#[test]
fn sigterm_ends_every_part_and_leaves_traffic_flowing() -> Result<()> {
    let mut stage = Stage::up(&[])?;
    let up = stage.running.take().context("it runs")?;
    up.assert_terminates()?;
    assert!(stage.answers(GOOD)?, "what is pinned serves on");

    let mut command = in_node(&stage.node)?;
    command
        .arg("server")
        .arg(format!("--bind-address={NODE4}"))
        .arg(format!("--data-dir={}", data_dir(&stage.node).display()));
    let mut server = Running::start(&mut command, &stage.node.folder().join("server.log"))?;
    server.ready()?;
    let mut command = in_node(&stage.node)?;
    command
        .arg("proxy")
        .args(datapath_flags(&stage.node))
        .env("KUBECONFIG", kubeconfig(&stage.node));
    let proxy = Running::start(&mut command, &stage.node.folder().join("proxy.log"))?;
    proxy.logged("programmed")?;
    stage.assert_good()?;
    proxy.assert_terminates()?;
    // A watch that is open does not hold the server up.
    let api = Api::in_node(&stage.node, &kubeconfig(&stage.node))?;
    let services = client::Resource {
        group: String::new(),
        version: "v1".to_owned(),
        plural: "services".to_owned(),
        namespaced: true,
    };
    let watching = api.talk(|client| async move {
        let mut watch = Box::pin(
            client.watch_resource::<serde_json::Value>(&services, client::Params::default()),
        );
        futures_util::StreamExt::next(&mut watch)
            .await
            .context("a first event")?;
        Ok(watch)
    })?;
    server.assert_terminates()?;
    drop(watching);
    assert!(stage.answers(GOOD)?);

    // Cleaning up asks no server and leaves nothing.
    let root = stage::bpffs_root(&stage.node);
    let mut command = in_node(&stage.node)?;
    command
        .args(["proxy", "--cleanup"])
        .args(datapath_flags(&stage.node));
    stage::run(&mut command)?.assert_done();
    assert!(!root.exists());
    assert!(!stage.answers(GOOD)?);
    Ok(())
}
