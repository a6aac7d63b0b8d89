//! The controllers against the API server, in one process, over the store in memory.
#![forbid(unsafe_code)]

#[path = "controllers/aggregated.rs"]
mod aggregated;
#[path = "controllers/protection.rs"]
mod protection;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, Event, Params, PatchKind, Path, Resource, Watch};
use futures_util::StreamExt;
use serde_json::{Value, json};
use storage::memory::Memory;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use view::objects::{EndpointSlice, Endpoints, Namespace, Pod, Service};
use view::{Object, ServiceAccount};

struct World {
    client: Client,
    app: apiserver::App,
    _directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl World {
    async fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let config = apiserver::Config {
            bind_address: [127, 0, 0, 1].into(),
            port: 0,
            // Pods are made here before anybody gives a namespace its account.
            disable_admission_plugins: vec!["ServiceAccount".into()],
            ..apiserver::Config::new(directory.path())
        };
        let app = apiserver::build(config, Arc::new(Memory::new()))
            .await
            .unwrap();
        let client = Client::in_process(app.router(), app.admin_token());
        let mut world = World {
            client,
            app,
            _directory: directory,
            stop: None,
            running: None,
        };
        let client = world.client.clone();
        world.start(client);
        world
    }

    fn start(&mut self, client: Client) {
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        self.running = Some(tokio::spawn(manager::run(client, shutdown)));
        self.stop = Some(stop);
    }

    async fn stop(&mut self) {
        drop(self.stop.take());
        within("the manager to stop", self.running.take().unwrap())
            .await
            .unwrap();
    }

    async fn apply(&self, object: Value) {
        self.client.apply(&object).await.unwrap();
    }

    /// Creates a pod, and gives it the status that a node would.
    async fn pod(&self, namespace: &str, name: &str, ip: &str, ready: bool) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]},
        }))
        .await;
        self.ready(namespace, name, ip, ready).await;
    }

    async fn ready(&self, namespace: &str, name: &str, ip: &str, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let patch = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": "2026-11-21T09:00:00Z"}],
        }});
        let path = Resource::of::<Pod>()
            .object(namespace, name)
            .subresource("status");
        self.client
            .patch::<Value>(&path, PatchKind::Merge, &patch)
            .await
            .unwrap();
    }

    async fn service(&self, namespace: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": namespace, "name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        }))
        .await;
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let patience = tokio::time::timeout(Duration::from_secs(20), future).await;
    patience.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// What a watch of one namespace adds up to.
struct Seen<T> {
    watch: Watch<T>,
    objects: BTreeMap<String, T>,
}

impl<T: Object> Seen<T> {
    fn new(client: &Client, namespace: &str) -> Seen<T> {
        let params = Params {
            namespace: namespace.to_owned(),
            ..Params::default()
        };
        Seen {
            watch: client.watch(params),
            objects: BTreeMap::new(),
        }
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&BTreeMap<String, T>) -> bool) {
        within(what, async {
            while !holds(&self.objects) {
                match self.watch.next().await.unwrap() {
                    Event::Applied(object) => {
                        self.objects.insert(object.meta().name.clone(), object);
                    }
                    Event::Deleted { name, .. } => {
                        self.objects.remove(&name);
                    }
                    Event::Restarted | Event::Synced => {}
                }
            }
        })
        .await;
    }
}

type Slices = BTreeMap<String, EndpointSlice>;

/// `address:port`, with a mark for those that take no connections.
fn endpoints_of(slices: &Slices) -> Vec<String> {
    let mut found = Vec::new();
    for slice in slices.values() {
        for endpoint in &slice.endpoints {
            let port = slice
                .ports
                .first()
                .and_then(|port| port.port)
                .unwrap_or_default();
            let mark = if endpoint.conditions.ready == Some(true) {
                ""
            } else {
                " not ready"
            };
            found.push(format!("{}:{port}{mark}", endpoint.addresses[0]));
        }
    }
    found.sort();
    found
}

fn addresses_of(endpoints: &BTreeMap<String, Endpoints>) -> Vec<String> {
    let subsets = endpoints
        .values()
        .filter(|endpoints| endpoints.metadata.name == "web");
    let subsets = subsets.flat_map(|endpoints| &endpoints.subsets);
    subsets
        .flat_map(|subset| &subset.addresses)
        .map(|address| address.ip.clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_and_endpoints_follow_pods() {
    let mut world = World::new().await;
    let mut slices = Seen::<EndpointSlice>::new(&world.client, "shop");
    let mut endpoints = Seen::<Endpoints>::new(&world.client, "shop");
    world
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .await;

    world.service("shop").await;
    slices
        .until("a slice without endpoints", |slices| slices.len() == 1)
        .await;
    world.pod("shop", "a", "10.1.0.1", true).await;
    world.pod("shop", "b", "10.1.0.2", false).await;
    let both = ["10.1.0.1:8080", "10.1.0.2:8080 not ready"];
    slices
        .until("both pods", |slices| endpoints_of(slices) == both)
        .await;
    endpoints
        .until("the ready pod", |endpoints| {
            addresses_of(endpoints) == ["10.1.0.1"]
        })
        .await;
    let slice = slices.objects.values().next().unwrap();
    assert!(
        slice.metadata.name.starts_with("web-"),
        "{}",
        slice.metadata.name
    );
    assert_eq!(slice.metadata.owner_references[0].kind, "Service");

    let began = Instant::now();
    world.ready("shop", "b", "10.1.0.2", true).await;
    let ready = ["10.1.0.1:8080", "10.1.0.2:8080"];
    slices
        .until("both ready", |slices| endpoints_of(slices) == ready)
        .await;
    println!("status written to slice seen: {:?}", began.elapsed());
    world.ready("shop", "a", "10.1.0.1", false).await;
    let swapped = ["10.1.0.1:8080 not ready", "10.1.0.2:8080"];
    slices
        .until("the other one ready", |slices| {
            endpoints_of(slices) == swapped
        })
        .await;
    endpoints
        .until("the other one", |endpoints| {
            addresses_of(endpoints) == ["10.1.0.2"]
        })
        .await;
    assert_eq!(slices.objects.len(), 1);

    // What happens while nobody looks is caught up with.
    world.stop().await;
    world.ready("shop", "a", "10.1.0.1", true).await;
    let pod = Resource::of::<Pod>().object("shop", "b");
    world
        .client
        .delete(&pod, &json!({"gracePeriodSeconds": 0}))
        .await
        .unwrap();
    let client = world.client.clone();
    world.start(client);
    slices
        .until("the first alone", |slices| {
            endpoints_of(slices) == ["10.1.0.1:8080"]
        })
        .await;

    let service = Resource::of::<Service>().object("shop", "web");
    world.client.delete(&service, &Value::Null).await.unwrap();
    slices.until("no slices", Slices::is_empty).await;
    endpoints.until("no Endpoints", BTreeMap::is_empty).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_made_endpoints_are_mirrored() {
    let mut world = World::new().await;
    let mut slices = Seen::<EndpointSlice>::new(&world.client, "default");
    world
        .apply(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": "ext"},
            "spec": {"ports": [{"port": 80}]},
        }))
        .await;
    world
        .apply(json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"namespace": "default", "name": "ext"},
            "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 8080}]}],
        }))
        .await;
    let of_ext = |slices: &Slices| {
        let mirrored = slices.iter().filter(|(name, _)| name.starts_with("ext-"));
        endpoints_of(
            &mirrored
                .map(|(name, slice)| (name.clone(), slice.clone()))
                .collect(),
        )
    };
    slices
        .until("the mirror", |slices| of_ext(slices) == ["192.0.2.7:8080"])
        .await;
    let endpoints = Resource::of::<Endpoints>().object("default", "ext");
    world.client.delete(&endpoints, &Value::Null).await.unwrap();
    slices
        .until("no mirror", |slices| of_ext(slices).is_empty())
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_begin_and_end() {
    let mut world = World::new().await;
    let mut namespaces = Seen::<Namespace>::new(&world.client, "");
    let mut accounts = Seen::<ServiceAccount>::new(&world.client, "");
    accounts
        .until("accounts of the first namespaces", |accounts| {
            !accounts.is_empty()
        })
        .await;
    world
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .await;
    let account = Resource::of::<ServiceAccount>().object("shop", "default");
    let mut in_shop = Seen::<ServiceAccount>::new(&world.client, "shop");
    in_shop
        .until("the default account", |accounts| {
            accounts.contains_key("default")
        })
        .await;
    world.client.delete(&account, &Value::Null).await.unwrap();
    let uid = in_shop.objects["default"].metadata.uid.clone();
    in_shop
        .until("another default account", |accounts| {
            accounts
                .get("default")
                .is_some_and(|account| account.metadata.uid != uid)
        })
        .await;

    world.service("shop").await;
    world.pod("shop", "a", "10.1.0.1", true).await;
    for (kind, name) in [("ConfigMap", "c"), ("Secret", "s")] {
        world.apply(json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": "shop", "name": name}})).await;
    }
    world
        .apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "shop", "name": "held", "finalizers": ["example.org/hold"]},
        }))
        .await;
    let shop = Resource::of::<Namespace>().object("", "shop");
    world.client.delete(&shop, &Value::Null).await.unwrap();

    // Everything goes but what a finalizer holds, and the namespace waits for that.
    let maps = Resource {
        group: String::new(),
        version: "v1".into(),
        plural: "configmaps".into(),
        namespaced: true,
    };
    let secret = Resource {
        plural: "secrets".into(),
        ..maps.clone()
    }
    .object("shop", "s");
    gone(&world.client, &secret).await;
    gone(
        &world.client,
        &Resource::of::<Service>().object("shop", "web"),
    )
    .await;
    namespaces
        .until("the namespace to be going", |namespaces| {
            namespaces
                .get("shop")
                .is_some_and(|shop| shop.status.phase == "Terminating")
        })
        .await;
    let release = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    let held = maps.object("shop", "held");
    world
        .client
        .patch::<Value>(&held, PatchKind::Json, &release)
        .await
        .unwrap();
    namespaces
        .until("the namespace to be gone", |namespaces| {
            !namespaces.contains_key("shop")
        })
        .await;
    for resource in world
        .client
        .resources(&["list"])
        .await
        .unwrap()
        .found
        .into_iter()
        .filter(|resource| resource.namespaced)
    {
        let left = world
            .client
            .list::<Value>(&resource.within("shop"), &client::ListParams::default())
            .await
            .unwrap();
        assert_eq!(left.items, Vec::<Value>::new(), "{}", resource.plural);
    }
    world.stop().await;
}

/// A pod that is deleted waits for the agent of its node, and not for one of a node that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_no_node_go_at_once() {
    let mut world = World::new().await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "silent"}});
    world.apply(node).await;
    let pod_of = |node: &str| Resource::of::<Pod>().object("default", node);
    for node in ["silent", "unheard-of"] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": node},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        });
        world.apply(pod).await;
        let deleted = world.client.delete(&pod_of(node), &Value::Null).await;
        deleted.unwrap();
    }
    gone(&world.client, &pod_of("unheard-of")).await;
    // It was deleted first.
    let waits: Value = world.client.get(&pod_of("silent")).await.unwrap();
    assert!(
        waits["metadata"]["deletionTimestamp"].is_string(),
        "{waits}"
    );
    let node = Path::raw("/api/v1/nodes/silent");
    world.client.delete(&node, &Value::Null).await.unwrap();
    gone(&world.client, &pod_of("silent")).await;
    world.stop().await;
}

/// A thousand Services and pods at once: each gets its slice, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once() {
    const SERVICES: usize = 1000;
    let mut world = World::new().await;
    let mut slices = Seen::<EndpointSlice>::new(&world.client, "shop");
    world
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .await;
    let began = Instant::now();
    let client = world.client.clone();
    let create = |number: usize| {
        let client = client.clone();
        let labels = json!({"app": format!("app-{number}")});
        async move {
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web-{number}")},
                "spec": {"selector": labels, "ports": [{"port": 80}]},
            });
            let ip = format!("10.1.{}.{}", number / 250, number % 250 + 1);
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{number}"), "labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            });
            let status = json!({"status": {
                "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True"}],
            }});
            let services = Resource::of::<Service>().within("shop");
            client.create::<Value>(&services, &service).await.unwrap();
            let pods = Resource::of::<Pod>();
            client
                .create::<Value>(&pods.within("shop"), &pod)
                .await
                .unwrap();
            let path = pods
                .object("shop", &format!("pod-{number}"))
                .subresource("status");
            client
                .patch::<Value>(&path, PatchKind::Merge, &status)
                .await
                .unwrap();
        }
    };
    let mut creating = futures_util::stream::iter((0..SERVICES).map(create)).buffer_unordered(16);
    let create_all = async { while creating.next().await.is_some() {} };
    let all_there = slices.until("every pod", |slices| {
        slices.len() == SERVICES && endpoints_of(slices).len() == SERVICES
    });
    tokio::join!(create_all, all_there);
    println!(
        "{SERVICES} Services and pods to slices: {:?}",
        began.elapsed()
    );
    assert!(
        endpoints_of(&slices.objects)
            .iter()
            .all(|endpoint| !endpoint.ends_with("ready"))
    );
    world.stop().await;
}

async fn gone(client: &Client, path: &Path) {
    within(&format!("{path} to be gone"), async {
        while client.get::<Value>(path).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_take_along_what_they_own() {
    let mut world = World::new().await;
    let maps = Resource {
        group: String::new(),
        version: "v1".into(),
        plural: "configmaps".into(),
        namespaced: true,
    };
    for policy in ["Background", "Foreground", "Orphan"] {
        let collection = maps.within("default");
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
        let owner: Value = world.client.create(&collection, &owner).await.unwrap();
        let references = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": true,
        }]);
        let owned = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": references},
        });
        world
            .client
            .create::<Value>(&collection, &owned)
            .await
            .unwrap();
        let owner = maps.object("default", "owner");
        let owned = maps.object("default", "owned");
        world
            .client
            .delete(&owner, &json!({"propagationPolicy": policy}))
            .await
            .unwrap();
        gone(&world.client, &owner).await;
        if policy == "Orphan" {
            let owned: Value = world.client.get(&owned).await.unwrap();
            assert_eq!(owned["metadata"]["ownerReferences"], Value::Null);
        } else {
            gone(&world.client, &owned).await;
        }
    }

    // A Service goes with its slices, in the foreground too.
    world.service("default").await;
    let mut slices = Seen::<EndpointSlice>::new(&world.client, "default");
    let of_web = |slices: &Slices| slices.keys().any(|name| name.starts_with("web-"));
    slices.until("a slice", of_web).await;
    let web = Resource::of::<Service>().object("default", "web");
    world
        .client
        .delete(&web, &json!({"propagationPolicy": "Foreground"}))
        .await
        .unwrap();
    gone(&world.client, &web).await;
    slices.until("no slice", |slices| !of_web(slices)).await;
    world.stop().await;
}

/// The same controllers across the wire, and a wire that is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_https_and_through_an_outage() {
    let mut world = World::new().await;
    world.stop().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let app = world.app.clone();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire = listener.local_addr().unwrap();
    let forwarding = tokio::spawn(forward(listener, server));
    let kubeconfig = world.app.kubeconfig(&world.app.url(wire));
    let wired = Client::from_kubeconfig_text(&kubeconfig, "kubeconfig").unwrap();
    world.start(wired);

    let mut slices = Seen::<EndpointSlice>::new(&world.client, "shop");
    world
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .await;
    world.service("shop").await;
    world.pod("shop", "a", "10.1.0.1", true).await;
    slices
        .until("the pod", |slices| {
            endpoints_of(slices) == ["10.1.0.1:8080"]
        })
        .await;

    forwarding.abort();
    assert!(
        within("the wire to be cut", forwarding)
            .await
            .unwrap_err()
            .is_cancelled()
    );
    world.pod("shop", "b", "10.1.0.2", true).await;
    let listener = TcpListener::bind(wire).await.unwrap();
    let forwarding = tokio::spawn(forward(listener, server));
    let both = ["10.1.0.1:8080", "10.1.0.2:8080"];
    slices
        .until("both pods", |slices| endpoints_of(slices) == both)
        .await;
    forwarding.abort();
    world.stop().await;
}

/// Forwards connections until it is aborted; they end with it.
async fn forward(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        let (mut from, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut to = TcpStream::connect(to).await.unwrap();
            // Either side may close as it likes.
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        });
    }
}
