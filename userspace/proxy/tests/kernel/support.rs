//! The ground that a proxy stands on, and a small API server for it.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
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
use tokio::sync::{mpsc, watch};

/// Plays a story in a namespace with the device `up0`.
pub(crate) fn in_namespace(netns: &Netns, story: impl Future<Output = ()> + Send) {
    let outcome = netns.run(|| {
        ip("link add up0 type veth peer name up1");
        ip("link set lo up");
        ip("addr add 192.0.2.1/24 dev up0");
        ip("link set up0 up");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(story);
    });
    outcome.unwrap();
}

/// Waits until the proxy says so.
pub(crate) async fn until(
    status: &mut watch::Receiver<Status>,
    is: impl FnMut(&Status) -> bool,
) -> Status {
    let found = tokio::time::timeout(Duration::from_secs(10), status.wait_for(is)).await;
    found
        .expect("within ten seconds")
        .expect("the proxy runs")
        .clone()
}

pub(crate) fn service(name: &str, ip: &str) -> Value {
    let node_port = if name == "web" { 30080 } else { 0 };
    json!({
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "ports": [{"port": 80, "nodePort": node_port}]},
    })
}

pub(crate) fn slice(service: &str, addresses: &[&str]) -> Value {
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

/// A Service of datagrams called `dns`.
pub(crate) fn dns_service() -> Value {
    let mut object = service("dns", "10.96.0.10");
    object["spec"]["ports"] = json!([{"port": 53, "protocol": "UDP"}]);
    object
}

/// Where that Service leads.
pub(crate) fn dns_slice(addresses: &[&str]) -> Value {
    let mut object = slice("dns", addresses);
    object["ports"] = json!([{"port": 5353, "protocol": "UDP"}]);
    object
}

/// Starts a proxy in the background, which must not fail.
pub(crate) fn start(
    api: &Api,
    settings: Settings,
    stopping: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let client = Client::in_process(api.router(), "");
    tokio::spawn(async move { proxy::run(client, settings, stopping).await.unwrap() })
}

/// Lists and watches, and no more.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    version: u64,
    objects: Vec<(String, Value)>,
    watchers: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
}

impl Api {
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
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

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/{plural}", get(answer))
            .route("/apis/discovery.k8s.io/v1/{plural}", get(answer))
            .route("/apis/networking.k8s.io/v1/{plural}", get(answer))
            .route(CLUSTER_POLICIES, get(cluster_policies))
            .route(&format!("{CLUSTER_POLICIES}/{{plural}}"), get(answer))
            .with_state(self.clone())
    }
}

/// Where ClusterNetworkPolicies are, if there are any.
const CLUSTER_POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2";

async fn cluster_policies(State(api): State<Api>) -> axum::response::Response {
    let plural = "clusternetworkpolicies";
    let state = api.0.lock().unwrap();
    if !state.objects.iter().any(|(of, _)| of == plural) {
        return axum::http::StatusCode::NOT_FOUND.into_response();
    }
    json!({"resources": [{"name": plural}]})
        .to_string()
        .into_response()
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
pub(crate) struct Ground {
    cgroup: PathBuf,
    folder: tempfile::TempDir,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let root = net::cgroup2_mount().expect("the unified hierarchy is mounted");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = root.join(format!("fl-proxy-{}-{number}", std::process::id()));
        std::fs::create_dir(&cgroup).expect("root may make cgroups");
        let folder = tempfile::Builder::new()
            .prefix("fl-proxy-")
            .tempdir()
            .unwrap();
        net::ensure_bpffs(folder.path()).expect("root may mount a bpffs");
        Ground { cgroup, folder }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("fairlead")
    }

    /// The cgroup whose processes are balanced.
    pub(crate) fn cgroup(&self) -> &std::path::Path {
        &self.cgroup
    }

    pub(crate) fn settings(&self) -> Settings {
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
                    sources: 64,
                    spreads: 1_024,
                    affinity: 64,
                    flows: 64,
                    reverse_sockets: 64,
                },
                ..bpf::Settings::default()
            },
            ..Settings::new("node-a")
        }
    }

    pub(crate) fn tables(&self) -> Tables {
        Datapath::inspect(&self.root()).unwrap().observe().unwrap()
    }

    /// What the kernel holds once that is so.
    pub(crate) async fn tables_once(&self, is: impl Fn(&Tables) -> bool) -> Tables {
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
pub(crate) fn path(netns: &Netns) -> String {
    format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        netns.as_fd().as_raw_fd()
    )
}

pub(crate) fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output();
    let output = output.expect("ip of iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {error}");
}
