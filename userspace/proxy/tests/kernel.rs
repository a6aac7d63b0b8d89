//! The proxy on a real kernel, fed by a small API server in this process: programs once, starts anew without
//! touching what is right, follows changes and links, and leaves everything in place when it ends.
//!
//! Needs root. Namespace, cgroup and bpffs are the test's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::response::IntoResponse;
use axum::routing::get;
use bpf::{Datapath, XdpMode};
use client::Client;
use futures_util::stream;
use net::Netns;
use plan::Tables;
use proxy::{Settings, Status};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

/// In the test's own namespace.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9100);

#[test]
fn a_proxy_programs_follows_restarts_and_leaves() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    let pod = Netns::create().unwrap();
    let outcome = netns.run(|| {
        ip("link add up0 type veth peer name up1");
        ip("link set lo up");
        ip("addr add 192.0.2.1/24 dev up0");
        ip("link set up0 up");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(story(&ground, &pod));
    });
    outcome.unwrap();
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
    let daemon = tokio::spawn({
        let api = api.clone();
        async move { run(&api, settings, stopping).await }
    });
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
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    assert!(get_page("/readyz").await.starts_with("HTTP/1.1 200"));

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

async fn run(api: &Api, settings: Settings, stopping: watch::Receiver<bool>) {
    let client = Client::in_process(api.router(), "");
    proxy::run(client, settings, stopping).await.unwrap();
}

/// Waits until the proxy says so.
async fn until(status: &mut watch::Receiver<Status>, is: impl FnMut(&Status) -> bool) -> Status {
    let found = tokio::time::timeout(Duration::from_secs(10), status.wait_for(is)).await;
    found
        .expect("within ten seconds")
        .expect("the proxy runs")
        .clone()
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

fn service(name: &str, ip: &str) -> Value {
    let node_port = if name == "web" { 30080 } else { 0 };
    json!({
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "ports": [{"port": 80, "nodePort": node_port}]},
    })
}

fn slice(service: &str, addresses: &[&str]) -> Value {
    let endpoint = |address: &&str| json!({"addresses": [address], "nodeName": "node-a"});
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"),
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// Lists and watches, and no more.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    version: u64,
    objects: Vec<(String, Value)>,
    watchers: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
}

impl Api {
    fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let name = object["metadata"]["name"].clone();
        state
            .objects
            .retain(|(of, old)| of != plural || old["metadata"]["name"] != name);
        state.objects.push((plural.to_owned(), object.clone()));
        let line = json!({"type": "MODIFIED", "object": object}).to_string() + "\n";
        state.watchers.retain(|(of, watcher)| {
            of != plural || watcher.send(Bytes::from(line.clone())).is_ok()
        });
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/{plural}", get(answer))
            .route("/apis/discovery.k8s.io/v1/{plural}", get(answer))
            .with_state(self.clone())
    }
}

async fn answer(
    State(api): State<Api>,
    UrlPath(plural): UrlPath<String>,
    RawQuery(query): RawQuery,
) -> axum::response::Response {
    let mut state = api.0.lock().unwrap();
    if !query.unwrap_or_default().contains("watch=true") {
        let objects = state.objects.iter().filter(|(of, _)| *of == plural);
        let items: Vec<&Value> = objects.map(|(_, object)| object).collect();
        let version = state.version.to_string();
        return axum::response::Response::new(Body::from(
            json!({"metadata": {"resourceVersion": version}, "items": items}).to_string(),
        ));
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    state.watchers.push((plural, sender));
    let lines = stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), receiver))
    });
    Body::from_stream(lines).into_response()
}

/// A cgroup and a bpffs of the test's own.
struct Ground {
    cgroup: PathBuf,
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let root = net::cgroup2_mount().expect("the unified hierarchy is mounted");
        let cgroup = root.join(format!("fl-proxy-{}", std::process::id()));
        std::fs::create_dir(&cgroup).expect("root may make cgroups");
        let folder = tempfile::Builder::new()
            .prefix("fl-proxy-")
            .tempdir()
            .unwrap();
        net::ensure_bpffs(folder.path()).expect("root may mount a bpffs");
        Ground { cgroup, folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("fairlead")
    }

    fn settings(&self) -> Settings {
        Settings {
            devices: vec!["up0".to_owned()],
            xdp: XdpMode::Off,
            datapath: bpf::Settings {
                bpffs_root: self.root(),
                cgroup_root: Some(self.cgroup.clone()),
                capacities: bpf::Capacities {
                    frontends: 64,
                    rings: 64,
                    backends: 64,
                    affinity: 64,
                    flows: 64,
                    reverse_sockets: 64,
                },
                ..bpf::Settings::default()
            },
            ..Settings::new("node-a")
        }
    }

    fn tables(&self) -> Tables {
        Datapath::inspect(&self.root()).unwrap().observe().unwrap()
    }

    /// What the kernel holds once that is so.
    async fn tables_once(&self, is: impl Fn(&Tables) -> bool) -> Tables {
        let looking = async {
            loop {
                let tables = self.tables();
                if is(&tables) {
                    return tables;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(10), looking).await;
        found.unwrap_or_else(|_| panic!("not within ten seconds:\n{}", self.tables()))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = Datapath::uninstall(&self.root());
        let _ = rustix::mount::unmount(self.folder.path(), rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.cgroup);
    }
}

/// A path by which another process finds the namespace.
fn path(netns: &Netns) -> String {
    format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        netns.as_fd().as_raw_fd()
    )
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output();
    let output = output.expect("ip of iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {error}");
}
