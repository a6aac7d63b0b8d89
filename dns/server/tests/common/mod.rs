//! A cluster whose API server is a function of the test's process.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Client;
use dns_server::cluster::Clusters;
use dns_server::instance::{Environment, MayAsk};
use dns_server::reload::Reloader;
use dns_server::transport::Server;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

/// Where objects of a kind are listed.
const LISTS: [(&str, &str); 4] = [
    ("Service", "/api/v1/services"),
    ("Namespace", "/api/v1/namespaces"),
    ("Pod", "/api/v1/pods"),
    ("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices"),
];

/// Lists the objects of a YAML stream; its watches never say anything.
pub(crate) fn api(yaml: &str) -> Client {
    let objects: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("objects");
    let mut lists: HashMap<&str, Vec<Value>> = HashMap::new();
    for object in objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        let found = LISTS.iter().find(|(of, _)| *of == kind);
        let (_, path) = found.unwrap_or_else(|| panic!("no list of {kind}"));
        lists.entry(path).or_default().push(object);
    }
    let lists = Arc::new(lists);
    let service = tower::service_fn(move |request: http::Request<Full<Bytes>>| {
        let lists = Arc::clone(&lists);
        async move {
            let watch = request.uri().query().unwrap_or_default();
            let body = if watch.contains("watch=true") {
                let silence = futures_util::stream::pending::<
                    Result<http_body::Frame<Bytes>, std::convert::Infallible>,
                >();
                http_body_util::StreamBody::new(silence).boxed_unsync()
            } else {
                let items = lists.get(request.uri().path()).cloned().unwrap_or_default();
                let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
                Full::new(Bytes::from(list.to_string())).boxed_unsync()
            };
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        }
    });
    Client::in_process(service, "")
}

/// A server with its sockets, on ports of its own choice.
pub(crate) struct Running {
    /// What runs.
    pub(crate) reloader: Arc<Reloader>,
    /// Where plain DNS is answered.
    pub(crate) address: SocketAddr,
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// Starts a server and waits until it is ready. The Corefile's blocks bind to 127.0.0.1. Call it inside a runtime.
pub(crate) async fn run(corefile: &str, objects: Option<&str>) -> Running {
    run_for(corefile, objects, None).await
}

/// As [`run`], for those alone who may ask.
pub(crate) async fn run_for(
    corefile: &str,
    objects: Option<&str>,
    may_ask: Option<MayAsk>,
) -> Running {
    let mut environment = Environment::new(0);
    environment.clusters = Clusters::new(objects.map(api));
    environment.may_ask = may_ask;
    run_in(corefile, environment).await
}

/// As [`run`], in this environment.
pub(crate) async fn run_in(corefile: &str, environment: Environment) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("Corefile");
    std::fs::write(&file, corefile).expect("a Corefile");
    let reloader = Reloader::start(Arc::new(environment), Some(file)).expect("a configuration");
    let server = Server::open(Arc::clone(&reloader)).expect("sockets");
    let (_, address) = server.local_addresses().remove(0);
    let instance = reloader.current().load_full();
    let ready = tokio::time::timeout(Duration::from_secs(10), instance.until_ready());
    ready.await.expect("the cluster is heard of");
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(server.run(stopping));
    Running {
        reloader,
        address,
        stop,
        task,
        _folder: folder,
    }
}

/// What a server's metrics say now.
pub(crate) fn metrics(reloader: &Reloader) -> String {
    reloader.current().load().environment().metrics.render()
}

impl Running {
    /// Ends it.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("an orderly end");
    }
}
