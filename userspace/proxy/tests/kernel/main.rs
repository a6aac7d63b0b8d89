//! The proxy on a real kernel, fed by a small API server in this process: programs once, starts anew without
//! touching what is right, follows changes and links, and leaves everything in place when it ends.
//!
//! Needs root. Namespace, cgroup and bpffs are the test's own.

mod dsr;
mod growth;
mod health_checks;
mod host_pods;
mod leaving;
mod peers;
mod pod_network;
mod policy;
mod quotas;
mod recovery;
mod routing;
mod support;
mod takeover;
mod vanished;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bpf::Datapath;
use client::Client;
use net::Netns;
use serde_json::json;
use support::{Api, Ground, in_namespace, ip, path, service, slice, start, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// In the test's own namespace.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9100);

#[test]
fn a_proxy_programs_follows_restarts_and_leaves() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    let pod = Netns::create().unwrap();
    in_namespace(&netns, story(&ground, &pod));
}

async fn story(ground: &Ground, pod: &Netns) {
    let api = Api::default();
    api.put("services", service("web", "10.96.0.10"));
    api.put("services", service("empty", "10.96.0.11"));
    api.put(
        "endpointslices",
        slice("web", &["10.244.0.2", "10.244.0.3"]),
    );
    api.put(
        "nodes",
        json!({"kind": "Node", "metadata": {"name": "node-a"}}),
    );

    // Once, on an empty kernel.
    let mut settings = ground.settings();
    settings.once = true;
    let (_stop, stopping) = watch::channel(false);
    run(&api, settings, stopping).await;
    let first = "\
        frontend 10.96.0.10 -> service 2 alone\n\
        frontend 10.96.0.10:80/TCP -> service 2 ring 0+2\n\
        frontend 10.96.0.11 -> service 1 alone\n\
        frontend 10.96.0.11:80/TCP -> service 1 refuses\n\
        frontend 127.0.0.1:30080/TCP -> service 2 ring 0+2 node-port host-only\n\
        frontend 192.0.2.1:30080/TCP -> service 2 ring 0+2 node-port\n\
        ring 0+2: 1 2\n\
        backend 1 = 10.244.0.2:8080 service 2 local\n\
        backend 2 = 10.244.0.3:8080 service 2 local\n";
    assert_eq!(ground.tables().to_string(), first);

    // As a daemon, on the kernel as it is.
    let mut settings = ground.settings();
    settings.metrics_bind_address = Some(METRICS);
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    let ready = until(&mut status, |status| status.ready).await;
    assert_eq!(ready.steps, 0, "what is right is not written again");

    // An endpoint comes and one goes.
    api.put(
        "endpointslices",
        slice("web", &["10.244.0.3", "10.244.0.4"]),
    );
    until(&mut status, |status| status.turns > ready.turns).await;
    let tables = ground
        .tables_once(|tables| !tables.backends.contains_key(&1))
        .await;
    let text = tables.to_string();
    assert!(
        text.contains("frontend 10.96.0.10:80/TCP -> service 2 ring 2+2\n"),
        "{text}"
    );
    assert!(text.contains("ring 2+2: 2 3\n"), "{text}");
    assert!(!text.contains("ring 0+2"), "{text}");

    // A bad object troubles nobody else.
    api.put(
        "endpointslices",
        slice("empty", &["nonsense", "10.244.0.9"]),
    );
    let troubled = until(&mut status, |status| !status.troubles.is_empty()).await;
    assert_eq!(
        troubled.troubles["default/empty"],
        ["EndpointSlice empty-1: address \"nonsense\" is left out: not an IP address"]
    );
    assert!(
        ground
            .tables()
            .to_string()
            .contains("10.244.0.9:8080 service 1")
    );

    // Metrics say so too.
    let page = get_page("/metrics").await;
    for line in [
        "fairlead_proxy_services_in_trouble 1",
        "fairlead_table_entries{table=\"BACKENDS\"} 3",
        "kubeproxy_sync_proxy_rules_service_changes_total 2",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "# TYPE rest_client_requests_total counter",
        "# TYPE process_start_time_seconds gauge",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    assert!(get_page("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get_page("/proxyMode").await.ends_with("fairlead"));
    let config = get_page("/configz").await;
    assert!(
        config.contains("\r\n{\"kubeproxy.config.k8s.io\":{"),
        "{config}"
    );

    // A pod's link comes and goes; a link that stays in the namespace is left alone.
    let before = status.borrow().devices.len();
    ip("link add veth-in type veth peer name veth-too");
    ip(&format!(
        "link add veth-pod type veth peer name eth0 netns {}",
        path(pod)
    ));
    let with_pod = until(&mut status, |status| status.devices.len() > before).await;
    let names: Vec<_> = with_pod
        .devices
        .values()
        .map(|report| report.device.as_str())
        .collect();
    assert_eq!(names, ["up0", "veth-pod"]);
    ip("link del veth-pod");
    until(&mut status, |status| status.devices.len() == before).await;

    // What it leaves serves on.
    let held = ground.tables();
    stop.send_replace(true);
    daemon.await.unwrap();
    assert_eq!(ground.tables(), held);
    let status = Datapath::inspect(&ground.root()).unwrap().status().unwrap();
    assert_eq!(status.agent_pid, None);
    assert!(
        status
            .links
            .iter()
            .any(|link| link.program == "device_ingress")
    );
}

async fn run(api: &Api, settings: proxy::Settings, stopping: watch::Receiver<bool>) {
    let client = Client::in_process(api.router(), "");
    proxy::run(client, settings, stopping).await.unwrap();
}

/// An answer of the metrics server, head and body.
async fn get_page(path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(METRICS).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
