//! The server over a real etcd: two servers on one store agree, values are what a kube-apiserver reads and writes, an
//! etcd that is away is told of and comes back, and kubectl finds nothing odd.

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use apiserver::KubernetesCodec;
use serde_json::{Value, json};
use storage::Storage;
use storage_etcd::testing::Server as Etcd;
use storage_etcd::{Etcd as Store, Options};
use support::Server;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);
const SERVICES: &str = "/api/v1/namespaces/default/services";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn store(etcd: &Etcd) -> Arc<dyn Storage> {
    let options = Options {
        timeout: Duration::from_secs(2),
        ..Options::new(vec![etcd.url.clone()])
    };
    let store = Store::connect(options, Arc::new(KubernetesCodec)).await;
    Arc::new(store.expect("etcd answers"))
}

async fn server(etcd: &Etcd) -> Server {
    let store = store(etcd).await;
    Server::with(store, |config| {
        // Few enough that both servers come upon the same ones.
        config.service_cidrs = vec!["10.0.0.0/28".parse().unwrap()];
        config.node_ports = 30000..=30009;
    })
    .await
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What stands in etcd, as etcdctl-less tests can see it: through a store that changes nothing.
async fn raw(etcd: &Etcd, key: &str) -> Vec<u8> {
    struct Plain;
    impl storage::Codec for Plain {
        fn encode(&self, _: &str, value: &bytes::Bytes) -> bytes::Bytes {
            value.clone()
        }
        fn decode(&self, _: &str, stored: bytes::Bytes) -> Result<bytes::Bytes, String> {
            Ok(stored)
        }
    }
    let options = Options::new(vec![etcd.url.clone()]);
    let store = Store::connect(options, Arc::new(Plain)).await.unwrap();
    let entry = store.get(key).await.unwrap();
    entry
        .unwrap_or_else(|| panic!("{key} is there"))
        .value
        .to_vec()
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_give_out_no_address_twice() {
    let etcd = Etcd::start();
    let (a, b) = tokio::join!(server(&etcd), server(&etcd));
    let mut all = Vec::new();
    for round in 0..4 {
        let (one, two) = (service(&format!("a{round}")), service(&format!("b{round}")));
        let (one, two) = tokio::join!(a.post(SERVICES, &one), b.post(SERVICES, &two));
        all.extend([one.ok(), two.ok()]);
    }
    let mut taken: Vec<String> = all
        .iter()
        .flat_map(|made| {
            let spec = &made["spec"];
            [
                spec["clusterIP"].to_string(),
                spec["ports"][0]["nodePort"].to_string(),
            ]
        })
        .collect();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 16, "{taken:?}");
    // What one gives back the other gives out: a range of which one server has taken all but nothing.
    for round in 0..4 {
        b.delete(&format!("{SERVICES}/a{round}")).await.ok();
        b.delete(&format!("{SERVICES}/b{round}")).await.ok();
    }
    for round in 0..10 {
        a.post(SERVICES, &service(&format!("c{round}"))).await.ok();
    }
    let full = b.post(SERVICES, &service("d")).await;
    assert_eq!(full.code, 500, "ten ports are taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_agree_on_quotas_definitions_and_rights() {
    let etcd = Etcd::start();
    let (a, b) = tokio::join!(server(&etcd), server(&etcd));
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"count/configmaps": "5"}},
    });
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    a.post(quotas, &quota).await.ok();
    // As soon as both count, five are made and no more, whoever is asked.
    until("both servers count", async || {
        let dry = json!({"metadata": {"name": "dry"}});
        let path = format!("{MAPS}?dryRun=All");
        let status = a.get(&format!("{quotas}/q")).await.ok();
        status["status"]["hard"].is_object() && b.post(&path, &dry).await.code == 201
    })
    .await;
    let mut made = 0;
    for round in 0..5 {
        let map = |who: &str| json!({"metadata": {"name": format!("{who}{round}")}});
        let (one, two) = (map("a"), map("b"));
        let (one, two) = tokio::join!(a.post(MAPS, &one), b.post(MAPS, &two));
        for reply in [one, two] {
            made += usize::from(reply.code == 201);
            assert!(matches!(reply.code, 201 | 403), "{reply:?}");
        }
    }
    let there = a.get(MAPS).await.ok()["items"].as_array().unwrap().len();
    assert_eq!((made, there), (5, 5));

    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"size": {"type": "integer", "default": 3}},
                }},
            }],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    a.post(definitions, &definition).await.ok();
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    until("the other serves it", async || {
        b.get(widgets).await.code == 200
    })
    .await;
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
    b.post(widgets, &widget).await.ok();
    until("the first serves it", async || {
        a.get(widgets).await.code == 200
    })
    .await;
    assert_eq!(a.get(&format!("{widgets}/w")).await.ok()["size"], 3);

    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "everybody-looks"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
    });
    let anonymous = async || b.send("GET", MAPS, &[("authorization", "")], "").await.code;
    assert_eq!(anonymous().await, 403);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    a.post(bindings, &role).await.ok();
    until("the other lets them", async || anonymous().await == 200).await;

    // What a client has seen at one server it never misses at the other.
    for round in 0..20 {
        let path = format!("{MAPS}/a0");
        let path = if a.get(&path).await.code == 200 {
            path
        } else {
            format!("{MAPS}/b0")
        };
        let label = json!({"metadata": {"labels": {"round": round.to_string()}}});
        let kind = "merge";
        let (one, two) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let patched = one.patch(&path, kind, &label).await.ok();
        let version = patched["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned();
        let read = two.get(&path).await.ok();
        assert_eq!(read["metadata"]["resourceVersion"], version);
        let list = two
            .get(&format!("{MAPS}?resourceVersion={version}"))
            .await
            .ok();
        let newest: u64 = list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(newest >= version.parse().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_as_kubernetes_writes_them() {
    let etcd = Etcd::start();
    let server = server(&etcd).await;
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let made = server.post(MAPS, &map).await.ok();
    let stored = raw(&etcd, "/registry/configmaps/default/a").await;
    assert!(stored.starts_with(b"k8s\0"), "{stored:?}");
    let object = api::protobuf::decode(&stored).unwrap();
    assert_eq!(object["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(object["metadata"].get("resourceVersion"), None);

    // And as kube-apiserver would have written it: protobuf of a Deployment, JSON of a custom resource.
    let other = store(&etcd).await;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let write = storage::Write::Create {
        key: "/registry/deployments/default/d".into(),
        value: api::protobuf::encode(&deployment).unwrap().into(),
    };
    other.write(vec![write]).await.unwrap();
    // In a version that is served and not stored, and in one that is served no longer.
    for (key, old, path, now) in [
        (
            "/registry/horizontalpodautoscalers/default/h",
            json!({
                "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "h", "namespace": "default", "uid": "u"},
                "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 40, "scaleTargetRef": {"kind": "X", "name": "x"}},
            }),
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            (
                "autoscaling/v2",
                "/spec/metrics/0/resource/target/averageUtilization",
                json!(40),
            ),
        ),
        (
            "/registry/poddisruptionbudgets/default/p",
            json!({
                "apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget",
                "metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": {"minAvailable": 2},
            }),
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            ("policy/v1", "/spec/minAvailable", json!(2)),
        ),
    ] {
        let value = old.to_string().into();
        let write = storage::Write::Create {
            key: key.into(),
            value,
        };
        other.write(vec![write]).await.unwrap();
        let (api_version, at, wanted) = now;
        let list = server.get(path).await.ok();
        assert_eq!(list["apiVersion"], api_version);
        let named = format!("{path}/{}", old["metadata"]["name"].as_str().unwrap());
        let read = server.get(&named).await.ok();
        assert_eq!(read["apiVersion"], api_version);
        for read in [&read, &list["items"][0]] {
            assert_eq!(read.pointer(at), Some(&wanted), "{read}");
        }
    }
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let read = server.get(path).await.ok();
    // What was not written is defaulted, as Kubernetes does when it reads.
    let container = &read["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["name"], &container["resources"]),
        (&json!("c"), &json!({}))
    );
    let kind = "merge";
    let patched = server
        .patch(path, kind, &json!({"spec": {"replicas": 3}}))
        .await
        .ok();
    assert_eq!(patched["spec"]["replicas"], 3);
    // A patch that changes nothing writes nothing.
    let again = server
        .patch(path, kind, &json!({"spec": {"replicas": 3}}))
        .await
        .ok();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        patched["metadata"]["resourceVersion"]
    );
}

/// A ConfigMap's value that somebody else wrote, and what stood there.
async fn put(store: &dyn Storage, name: &str, value: impl Into<bytes::Bytes>) {
    let key = format!("/registry/configmaps/default/{name}");
    let page = store.list(storage::Range {
        prefix: key.clone(),
        faulty: true,
        ..storage::Range::default()
    });
    let value = value.into();
    let write = match page.await.unwrap().entries.pop() {
        Some(entry) => storage::Write::Update {
            key,
            value,
            expected: entry.modified,
        },
        None => storage::Write::Create { key, value },
    };
    store.write(vec![write]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_told_and_nobody_sees_half_of_it() {
    let etcd = Etcd::start();
    let server = server(&etcd).await;
    let other = store(&etcd).await;
    for name in ["a", "b"] {
        let map = json!({"metadata": {"name": name}, "data": {"k": "v"}});
        server.post(MAPS, &map).await.ok();
    }
    let list = server.get(MAPS).await.ok();
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server
        .watch(&format!("{MAPS}?watch=1&resourceVersion={from}"))
        .await;
    let skips = format!("{MAPS}?watch=1&resourceVersion={from}&skipUnreadable=true");
    let mut skips = server.watch(&skips).await;
    let cut = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b""#;
    for value in [
        cut,
        "garbage",
        "k8s:enc:aescbc:v1:key:x",
        "k8s\0\u{1}",
        "{}",
    ] {
        put(&*other, "b", value).await;
        for path in [
            MAPS.to_owned(),
            "/api/v1/configmaps?limit=1&labelSelector=x%3Dy".to_owned(),
            format!("{MAPS}/b"),
            format!("{MAPS}?watch=1"),
        ] {
            let reply = server.get(&path).await;
            let status = reply.json();
            assert_eq!(reply.code, 500, "{path}: {status}");
            assert_eq!(status["reason"], "InternalError", "{path}");
            let message = status["message"].as_str().unwrap();
            let key = "unable to transform key \"/registry/configmaps/default/b\": ";
            assert!(message.contains(key), "{path}: {message}");
        }
        let patch = json!({"data": {"k": "w"}});
        let patched = server.patch(&format!("{MAPS}/b"), "merge", &patch).await;
        assert_eq!(patched.code, 500);
        // The name is taken.
        let again = server.post(MAPS, &json!({"metadata": {"name": "b"}})).await;
        assert_eq!(again.code, 409);
        // Others of the kind are served.
        assert_eq!(
            server.get(&format!("{MAPS}/a")).await.ok()["data"]["k"],
            "v"
        );
        let list = server
            .get(&format!("{MAPS}?skipUnreadable=true"))
            .await
            .ok();
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    }
    let told = watch.line().await;
    assert!(told.starts_with("ERROR"), "{told}");
    assert_eq!(skips.line().await, "DELETED b");
    let mended = json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "b", "namespace": "default", "uid": "u"}, "data": {"k": "mended"},
    });
    put(&*other, "b", mended.to_string()).await;
    assert_eq!(skips.line().await, "ADDED b");
    assert_eq!(
        server.get(&format!("{MAPS}/b")).await.ok()["data"]["k"],
        "mended"
    );
    assert_eq!(
        server.get(MAPS).await.ok()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_decides_goes_past_what_cannot_be_read() {
    let etcd = Etcd::start();
    let server = server(&etcd).await;
    let other = store(&etcd).await;
    let ready = async || server.get("/readyz").await.code;
    until("it is ready", async || ready().await == 200).await;
    let write = |value: &'static str| storage::Write::Create {
        key: "/registry/namespaces/broken".into(),
        value: value.into(),
    };
    let at = other.write(vec![write("garbage")]).await.unwrap();
    until("it says what it cannot read", async || {
        let told = server.get("/readyz/informer-sync").await;
        told.code == 500
            && String::from_utf8_lossy(&told.body).contains("/registry/namespaces/broken")
    })
    .await;
    // Namespaces that are made afterwards are known.
    let namespaces = "/api/v1/namespaces";
    server
        .post(namespaces, &json!({"metadata": {"name": "later"}}))
        .await
        .ok();
    let maps = "/api/v1/namespaces/later/configmaps";
    server
        .post(maps, &json!({"metadata": {"name": "a"}}))
        .await
        .ok();
    let gone = storage::Write::Delete {
        key: "/registry/namespaces/broken".into(),
        expected: at,
    };
    other.write(vec![gone]).await.unwrap();
    until("it is ready again", async || ready().await == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_away_is_told_of() {
    let mut etcd = Etcd::start();
    let server = server(&etcd).await;
    let map = json!({"metadata": {"name": "a"}});
    server.post(MAPS, &map).await.ok();
    let mut watch = server.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(watch.line().await, "ADDED a");
    etcd.kill();
    let began = Instant::now();
    assert_eq!(server.get("/readyz").await.code, 500);
    let told = server.get("/readyz/etcd").await;
    let why = String::from_utf8(told.body).unwrap();
    assert_eq!(told.code, 500);
    assert!(
        why.starts_with("internal server error: ") && why.contains(&etcd.url),
        "{why}"
    );
    for reply in [
        server.get(&format!("{MAPS}/a")).await,
        server.get(MAPS).await,
        server.post(MAPS, &json!({"metadata": {"name": "b"}})).await,
        server.delete(&format!("{MAPS}/a")).await,
    ] {
        let status = reply.json();
        assert!((500..600).contains(&reply.code), "{status}");
        assert_eq!(
            (&status["kind"], &status["status"]),
            (&json!("Status"), &json!("Failure"))
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    etcd.run();
    until("it is ready again", async || {
        server.get("/readyz").await.code == 200
    })
    .await;
    server
        .post(MAPS, &json!({"metadata": {"name": "c"}}))
        .await
        .ok();
    let line = timeout(PATIENCE, watch.line()).await.unwrap();
    assert_eq!(line, "ADDED c", "the watch goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_finds_nothing_odd() {
    let etcd = Etcd::start();
    let server = Server::with(store(&etcd).await, |_| {}).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = server.app.url(listener.local_addr().unwrap());
    let kubeconfig = server.dir.path().join("kubeconfig");
    server.app.write_kubeconfig(&kubeconfig, &url).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let app = server.app.clone();
    let serving = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        app.serve(listener, stopped).await.unwrap();
    });
    let home = server.dir.path().to_owned();
    let kubectl = move |words: &str| {
        let output = Command::new(std::env::var_os("KUBECTL").unwrap_or("kubectl".into()))
            .args(words.split(' '))
            .env("KUBECONFIG", &kubeconfig)
            .env("HOME", &home)
            .output()
            .expect("this test needs kubectl: install it, or name it in $KUBECTL");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let worked = tokio::task::spawn_blocking(move || {
        for (words, said) in [
            (
                "create deployment web --image=nginx --replicas=2",
                "deployment.apps/web created",
            ),
            (
                "scale deployment web --replicas=3",
                "deployment.apps/web scaled",
            ),
            ("get deployment web -o jsonpath={.spec.replicas}", "3"),
            (
                "create configmap c --from-literal=a=b",
                "configmap/c created",
            ),
            ("label configmap c x=y", "configmap/c labeled"),
            ("get configmap -l x=y -o name", "configmap/c"),
            (
                "get configmap c --output-watch-events --watch --request-timeout=1s -o name",
                "configmap/c",
            ),
            ("expose deployment web --port=80", "service/web exposed"),
            ("get service web -o jsonpath={.spec.clusterIP}", "10."),
            ("delete configmap c", "configmap \"c\" deleted"),
            ("get events", "No resources found"),
            ("auth can-i create pods", "yes"),
            ("get namespaces", "kube-node-lease"),
        ] {
            let (_, told) = kubectl(words);
            assert!(told.contains(said), "{words}: {told}");
        }
    });
    worked.await.unwrap();
    let _ = stop.send(());
    timeout(PATIENCE, serving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_kubernetes_leads_to_every_server() {
    let etcd = Etcd::start();
    let mut running = Vec::new();
    for address in ["192.0.2.1", "192.0.2.2"] {
        let server = Server::with(store(&etcd).await, |config| {
            config.advertise_address = Some(address.parse().unwrap());
        })
        .await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let app = server.app.clone();
        let serving = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            app.serve(listener, stopped).await.unwrap();
        });
        running.push((server, stop, serving));
    }
    let (gone, stop, serving) = running.pop().unwrap();
    let left = &running[0].0;
    let addresses = async || {
        let path = "/api/v1/namespaces/default/endpoints/kubernetes";
        let reply = left.get(path).await;
        let object = if reply.code == 200 {
            reply.json()
        } else {
            Value::Null
        };
        let subsets = object["subsets"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<String> = subsets
            .iter()
            .flat_map(|subset| subset["addresses"].as_array().unwrap())
            .map(|address| address["ip"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    };
    until("both are there", async || {
        addresses().await == ["192.0.2.1", "192.0.2.2"]
    })
    .await;
    let _ = stop.send(());
    serving.await.unwrap();
    drop(gone);
    until("one is left", async || addresses().await == ["192.0.2.1"]).await;
}
