//! Connections to a backend that is dead are reset where that is asked for; one that is only going keeps its own.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use bpf::{Datapath, Flow};
use net::Netns;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Api, Ground, in_namespace, ip, service, slice, start, until};

#[test]
fn connections_to_a_dead_backend_are_reset() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

/// A process that connects to the Service and waits for what comes.
struct Client {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Client {
    fn start(ground: &Ground) -> Client {
        let script = "echo 0 > \"$0\"/cgroup.procs && exec 3<>/dev/tcp/10.96.0.10/80 && echo in && exec cat <&3";
        let mut process = Command::new("bash")
            .args(["-c", script])
            .arg(ground.cgroup())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash is installed");
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "in\n", "connected");
        Client { process, said }
    }

    fn waits(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    async fn ends(&mut self) {
        let ending = async {
            while self.waits() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), ending).await;
        ended.expect("reset within ten seconds");
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        assert_eq!(
            (rest.as_str(), self.process.wait().unwrap().success()),
            ("", false)
        );
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The slice with an endpoint in a state beside one that is ready.
fn with(address: &str, conditions: Value) -> Value {
    let mut slice = slice("web", &["192.0.2.3", address]);
    slice["endpoints"][1]["conditions"] = conditions;
    slice
}

/// A frame with a SYN from an outside client to the Service.
fn syn(sport: u16) -> Vec<u8> {
    let [high, low] = sport.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([192, 0, 2, 200, 10, 96, 0, 10]);
    frame.extend([
        high, low, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x10, 0, 0, 0, 0, 0,
    ]);
    frame
}

/// Entries of flows that lead to a backend, in either direction.
fn flows_to(datapath: &bpf::View, backend: [u8; 4]) -> usize {
    let mut count = 0;
    let walked = datapath.walk_flows(|flows| {
        let leads = |flow: &Flow| match flow {
            Flow::V4(key, state) => state.to.daddr == backend || key.saddr == backend,
            Flow::V6(..) => false,
        };
        count += flows.filter(leads).count();
        true
    });
    walked.unwrap();
    count
}

async fn story(ground: &Ground) {
    // Two addresses for two backends. Neither ever sends or closes by itself.
    ip("addr add 192.0.2.2/24 dev up0");
    ip("addr add 192.0.2.3/24 dev up0");
    let going = TcpListener::bind("192.0.2.2:8080").unwrap();
    let _stays = TcpListener::bind("192.0.2.3:8080").unwrap();
    let api = Api::default();
    api.put("services", service("web", "10.96.0.10"));
    api.put("endpointslices", slice("web", &["192.0.2.2"]));
    api.put(
        "nodes",
        json!({"kind": "Node", "metadata": {"name": "node-a"}}),
    );
    let mut settings = ground.settings();
    settings.reset_dead_backends = true;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    let ready = until(&mut status, |status| status.ready).await;

    let mut client = Client::start(ground);
    let (_connection, _) = going.accept().unwrap();
    let view = Datapath::inspect(&ground.root()).unwrap();
    for sport in 1_000..1_005 {
        view.test_run("device_ingress", &syn(sport), &[], 1)
            .unwrap();
    }
    assert_eq!(flows_to(&view, [192, 0, 2, 2]), 10);

    // It gets no new connections: it is shutting down, then it is not ready either. What it has, it keeps.
    let mut turns = ready.turns;
    for conditions in [
        json!({"ready": false, "serving": true, "terminating": true}),
        json!({"ready": false, "serving": false, "terminating": true}),
    ] {
        api.put("endpointslices", with("192.0.2.2", conditions));
        turns = until(&mut status, |status| status.turns > turns)
            .await
            .turns;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(client.waits(), "a connection of a backend that is going");
        assert_eq!(flows_to(&view, [192, 0, 2, 2]), 10);
    }

    // It is gone.
    api.put("endpointslices", slice("web", &["192.0.2.3"]));
    client.ends().await;
    let forgotten = async {
        while flows_to(&view, [192, 0, 2, 2]) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), forgotten).await;
    done.expect("its flows are forgotten");

    // The other one's connections live on.
    let mut other = Client::start(ground);
    api.put("endpointslices", with("192.0.2.4", json!({"ready": true})));
    until(&mut status, |status| status.turns > turns + 1).await;
    api.put("endpointslices", slice("web", &["192.0.2.3"]));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(other.waits());
    stop.send_replace(true);
    daemon.await.unwrap();
}
