//! A table without room: who does not fit says so, to the user too, and is served when room comes; the others are
//! served all the time. The same when the kernel has less room than was planned with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use abi::{Frontend, FrontendKey4};
use apiserver::{App, Config};
use bpf::Datapath;
use client::{Client, ListParams, Path as ApiPath};
use net::Netns;
use plan::{FrontendKey, Step, Store};
use serde_json::{Value, json};
use storage::memory::Memory;
use tokio::sync::watch;

use crate::support::{Ground, in_namespace, slice, until};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const EVENTS: &str = "/api/v1/namespaces/default/events";

/// The Service of the API server itself and two more, an entry for the port and one for the address each.
const FRONTENDS: u32 = 6;

#[test]
fn who_does_not_fit_is_served_when_room_comes() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

async fn story(ground: &Ground) {
    let server = Server::start().await;
    let client = &server.client;
    server.add("web", "10.96.0.10", "10.244.0.2").await;
    server.add("other", "10.96.0.11", "10.244.0.3").await;

    let mut settings = ground.settings();
    settings.datapath.capacities.frontends = FRONTENDS;
    settings.tables_max = 0;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = tokio::spawn(proxy::run(client.clone(), settings, stopping));
    until(&mut status, |status| status.ready).await;
    let web = "frontend 10.96.0.10:80/TCP -> service ";
    let serves = |line: &str| ground.tables().to_string().contains(line);
    assert!(serves(web), "{}", ground.tables());
    let of_web = |text: String| {
        let line = text.lines().find(|line| line.starts_with(web));
        line.map(str::to_owned)
    };
    let before = of_web(ground.tables().to_string());

    // There is no room for a fourth.
    let late = server.add("late", "10.96.0.12", "10.244.0.4").await;
    let full = until(&mut status, |status| !status.troubles.is_empty()).await;
    let message = "table FRONTENDS4 is full (6 elements): raise --frontends-max or --tables-max, or remove Services";
    assert_eq!(full.troubles["default/late"], [message]);
    assert_eq!(full.troubles.len(), 1);
    let event = server.event(&late).await;
    for (field, value) in [
        ("/type", json!("Warning")),
        ("/reason", json!("TableFull")),
        ("/message", json!(message)),
        ("/count", json!(1)),
        ("/reportingComponent", json!("fairlead-proxy")),
        ("/reportingInstance", json!("node-a")),
        ("/involvedObject/kind", json!("Service")),
    ] {
        assert_eq!(event.pointer(field), Some(&value), "{field} of {event}");
    }

    // Another one goes, and it comes in.
    server.remove("other").await;
    let well = until(&mut status, |status| status.troubles.is_empty()).await;
    assert!(serves("frontend 10.96.0.12:80/TCP -> service "));
    assert_eq!(of_web(ground.tables().to_string()), before);
    assert_eq!(well.failures, 0);

    // Behind the proxy's back somebody takes the room that it counts on.
    server.remove("late").await;
    ground
        .tables_once(|tables| tables.frontends.len() == 4)
        .await;
    let taken = Intruder::new(&ground.root()).fill();
    server.add("next", "10.96.0.13", "10.244.0.5").await;
    let refused = until(&mut status, |status| status.failures > 0).await;
    assert_eq!(of_web(ground.tables().to_string()), before);
    until(&mut status, |status| status.turns > refused.turns).await;
    let tables = ground.tables();
    assert_eq!(of_web(tables.to_string()), before, "{tables}");
    assert!(
        serves("frontend 10.96.0.13:80/TCP -> service "),
        "recovered:\n{tables}"
    );
    let foreign = |key: &FrontendKey| tables.frontends.contains_key(key);
    assert!(!taken.iter().any(foreign), "what nobody wants is removed");
    assert!(status.borrow().troubles.is_empty());

    // What was solved leaves its Events, and no other was written: for a Service without room, and for the two
    // frontends that the kernel refused.
    let events: Value = client.get(&ApiPath::raw(EVENTS)).await.unwrap();
    let reasons = events["items"].as_array().unwrap().iter();
    let reasons: Vec<_> = reasons.map(|event| &event["reason"]).collect();
    assert_eq!(reasons, ["TableFull", "KernelRefused", "KernelRefused"]);
    stop.send_replace(true);
    daemon.await.unwrap().unwrap();
}

/// The API server in this process.
pub(crate) struct Server {
    pub(crate) client: Client,
    _app: App,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path());
        let app = apiserver::build(config, Arc::new(Memory::new()))
            .await
            .unwrap();
        Server {
            client: Client::in_process(app.router(), app.admin_token()),
            _app: app,
            _folder: folder,
        }
    }

    /// A Service with one endpoint, as the server keeps it.
    pub(crate) async fn add(&self, name: &str, ip: &str, endpoint: &str) -> Value {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
        });
        let mut slice = slice(name, &[endpoint]);
        slice["apiVersion"] = json!("discovery.k8s.io/v1");
        let slices = ApiPath::raw(SLICES);
        self.client.create::<Value>(&slices, &slice).await.unwrap();
        let services = ApiPath::raw(SERVICES);
        self.client.create(&services, &service).await.unwrap()
    }

    pub(crate) async fn remove(&self, name: &str) {
        let path = ApiPath::raw(&format!("{SERVICES}/{name}"));
        self.client.delete(&path, &Value::Null).await.unwrap();
    }

    /// What `kubectl describe` finds of a Service's Events, once there is one.
    pub(crate) async fn event(&self, service: &Value) -> Value {
        let uid = service["metadata"]["uid"].as_str().unwrap();
        let params = ListParams {
            field_selector: format!(
                "involvedObject.name={},involvedObject.namespace=default,involvedObject.kind=Service,\
                 involvedObject.uid={uid}",
                service["metadata"]["name"].as_str().unwrap()
            ),
            ..ListParams::default()
        };
        let looking = async {
            loop {
                let path = ApiPath::raw(EVENTS);
                let mut page = self.client.page::<Value>(&path, &params).await.unwrap();
                if let Some(event) = page.items.pop() {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(10), looking).await;
        found.expect("an Event within ten seconds")
    }
}

/// Writes to the frontends table of another datapath: the pin is the same file under a second root.
struct Intruder(Datapath);

impl Intruder {
    fn new(root: &Path) -> Self {
        let second = root.with_file_name("second");
        let maps = format!("v{}/maps", abi::LAYOUT_VERSION);
        std::fs::create_dir_all(second.join(&maps)).unwrap();
        let pin = |root: &Path| root.join(&maps).join(abi::frontends::NAME4);
        std::fs::hard_link(pin(root), pin(&second)).unwrap();
        let settings = bpf::Settings {
            bpffs_root: second,
            cgroup_root: None,
            capacities: bpf::Capacities {
                frontends: FRONTENDS,
                rings: 64,
                backends: 64,
                sources: 64,
                spreads: 1_024,
                affinity: 64,
                flows: 64,
                reverse_sockets: 64,
            },
            ..bpf::Settings::default()
        };
        Intruder(Datapath::open(&settings).unwrap())
    }

    /// Inserts frontends until the table is full.
    fn fill(mut self) -> Vec<FrontendKey> {
        let key = |n: u8| {
            FrontendKey::V4(FrontendKey4 {
                addr: [203, 0, 113, n],
                port: 80.into(),
                proto: abi::protocol::TCP,
                scope: 0,
            })
        };
        let keys = (1..=FRONTENDS as u8).map(key);
        let put = |key: &FrontendKey| {
            let step = Step::PutFrontend(*key, Frontend::default());
            self.0.apply(&[step]).is_ok()
        };
        let taken: Vec<_> = keys.take_while(put).collect();
        assert_eq!(taken.len(), 2, "the table was as full as expected");
        taken
    }
}
