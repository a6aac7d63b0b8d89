//! A table that is too small grows under the connections that are made through it, up to its bound. Who finds no room
//! then says so, and all others are served on.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bpf::Datapath;
use net::Netns;
use serde_json::json;
use tokio::sync::watch;

use crate::recovery::Server;
use crate::support::{Ground, in_namespace, until};

/// Entries of the API server's own Service and of two more, see `recovery`.
const FRONTENDS: u32 = 6;

#[test]
fn a_full_table_grows_to_its_bound_and_no_connection_fails() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

async fn story(ground: &Ground) {
    let server = Server::start().await;
    server.add("web", "10.96.0.10", "192.0.2.1").await;
    server.add("other", "10.96.0.11", "10.244.0.3").await;
    let mut settings = ground.settings();
    settings.datapath.capacities.frontends = FRONTENDS;
    settings.tables_max = 3 * FRONTENDS - 1;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = tokio::spawn(proxy::run(server.client.clone(), settings, stopping));
    until(&mut status, |status| status.ready).await;

    // Where the Service leads, and who connects to it again and again.
    let listener = TcpListener::bind("192.0.2.1:8080").unwrap();
    listener.set_nonblocking(true).unwrap();
    let goes_on = tempfile::NamedTempFile::new().unwrap();
    let script = "echo 0 > \"$0\"/cgroup.procs; n=0
        while [ -e \"$1\" ]; do exec 3<>/dev/tcp/10.96.0.10/80 || exit 1; n=$((n + 1)); done; echo $n";
    let client = Command::new("bash")
        .args(["-c", script])
        .arg(ground.cgroup())
        .arg(goes_on.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let accepting = thread::spawn({
        let ended = ended.clone();
        move || {
            while !ended.load(Ordering::Relaxed) {
                if listener.accept().is_err() {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        }
    });

    // The table grows to twice its size, and then to what it may have at most.
    for (name, n) in [
        ("more", 12),
        ("most", 13),
        ("late", 14),
        ("later", 15),
        ("last", 16),
    ] {
        server
            .add(name, &format!("10.96.0.{n}"), "10.244.0.4")
            .await;
        let served = format!("frontend 10.96.0.{n}:80/TCP -> service ");
        ground
            .tables_once(|tables| tables.to_string().contains(&served))
            .await;
    }
    // Eight Services have two entries each; there is one entry left.
    let none = server.add("none", "10.96.0.17", "10.244.0.5").await;
    let full = until(&mut status, |status| !status.troubles.is_empty()).await;
    let message = format!(
        "table FRONTENDS4 is full ({} elements): raise --frontends-max or --tables-max, or remove Services",
        3 * FRONTENDS - 1
    );
    assert_eq!(full.troubles["default/none"], [message.as_str()]);
    assert_eq!((full.troubles.len(), full.failures), (1, 0));
    let event = server.event(&none).await;
    assert_eq!(event.pointer("/reason"), Some(&json!("TableFull")));
    assert_eq!(event.pointer("/message"), Some(&json!(message)));

    fs::remove_file(goes_on.path()).unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "a connection failed");
    let made: u32 = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(made > 0);
    ended.store(true, Ordering::Relaxed);
    accepting.join().unwrap();
    stop.send_replace(true);
    daemon.await.unwrap().unwrap();
}

#[test]
fn the_table_of_flows_grows_before_those_that_live_have_to_give_way() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, crowd(&ground));
}

async fn crowd(ground: &Ground) {
    const FLOWS: u16 = 300;
    let server = Server::start().await;
    server.add("web", "10.96.0.10", "10.244.0.2").await;
    let mut settings = ground.settings();
    settings.datapath.capacities.flows = 1_024;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = tokio::spawn(proxy::run(server.client.clone(), settings, stopping));
    until(&mut status, |status| status.ready).await;
    ground
        .tables_once(|tables| tables.to_string().contains("frontend 10.96.0.10:80/TCP"))
        .await;

    let view = Datapath::inspect(&ground.root()).unwrap();
    for port in 2_000..2_000 + FLOWS {
        // A SYN of a pod's to the Service.
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend([10, 244, 0, 9, 10, 96, 0, 10]);
        frame.extend(port.to_be_bytes());
        frame.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x10, 0, 0, 0, 0, 0]);
        view.test_run("pod_ingress", &frame, &[], 1).unwrap();
        // And what follows it.
        frame[47] = 16;
        view.test_run("pod_ingress", &frame, &[], 1).unwrap();
    }
    let mut flows = (0, 0);
    for _ in 0..100 {
        let fills = Datapath::inspect(&ground.root()).unwrap().fill().unwrap();
        let fill = fills.iter().find(|fill| fill.table == "FLOWS4").unwrap();
        flows = (fill.used, fill.capacity);
        if fill.capacity > 1_024 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(flows, (2 * u32::from(FLOWS), 2_048));
    stop.send(true).unwrap();
    daemon.await.unwrap().unwrap();
}
