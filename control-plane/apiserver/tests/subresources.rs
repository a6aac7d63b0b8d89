//! Parts of objects with paths of their own: binding, eviction, ephemeral containers, resize, approval; and requests
//! that are passed on to nodes, Pods and Services.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use support::{Reply, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn pod(server: &Server, name: &str) -> Value {
    // Outside of the cluster's controllers, nobody makes the account that admission asks for.
    let account = json!({"metadata": {"name": "default"}});
    server
        .post("/api/v1/namespaces/default/serviceaccounts", &account)
        .await;
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "1"}}}]},
    });
    server.post(PODS, &pod).await.ok()
}

fn binding(node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}})
}

#[tokio::test]
async fn a_pod_is_bound_to_a_node_once() {
    let server = Server::new().await;
    pod(&server, "p").await;
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x"});
    let node = json!({"metadata": {"name": "n", "labels": labels}});
    server.post("/api/v1/nodes", &node).await.ok();
    let nominated = json!({"status": {"nominatedNodeName": "m"}});
    server
        .patch(&format!("{PODS}/p/status"), "merge", &nominated)
        .await
        .ok();
    let mut labelled = binding("n");
    labelled["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "wrong", "mine": "y"});
    let bound = server.post(&format!("{PODS}/p/binding"), &labelled).await;
    assert_eq!(
        (bound.code, bound.json()["status"].as_str()),
        (201, Some("Success"))
    );
    let pod = server.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(pod["spec"]["nodeName"], "n");
    // Where the node stands is said by the Pod, too; that it was to go elsewhere is over.
    let expected = json!({"app": "web", "mine": "y", "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    assert_eq!(pod["metadata"]["labels"], expected);
    assert!(pod["status"].get("nominatedNodeName").is_none(), "{pod}");
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    let again = server
        .post("/api/v1/namespaces/default/bindings", &binding("m"))
        .await
        .refused(409);
    assert_eq!(
        again,
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
    );
    let other = server
        .post(&format!("{PODS}/q/binding"), &binding("n"))
        .await;
    assert_eq!(
        other.refused(400),
        "name in URL does not match name in Binding object"
    );
}

#[tokio::test]
async fn ephemeral_containers_and_sizes_change_on_their_own_paths() {
    let server = Server::new().await;
    let before = pod(&server, "p").await;
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "y"}], "nodeName": "n"}});
    let path = format!("{PODS}/p/ephemeralcontainers");
    let after = server.patch(&path, "strategic-merge", &debug).await.ok();
    assert_eq!(after["spec"]["ephemeralContainers"][0]["name"], "debug");
    assert_eq!(after["spec"]["nodeName"], Value::Null);
    assert_eq!(
        after["metadata"]["generation"],
        json!(before["metadata"]["generation"].as_i64().unwrap() + 1)
    );
    let none = json!({"spec": {"ephemeralContainers": []}});
    let refused = server.patch(&path, "merge", &none).await.refused(422);
    assert!(refused.contains("may not be removed"), "{refused}");
    let grown =
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
    let grown = server
        .patch(&format!("{PODS}/p/resize"), "strategic-merge", &grown)
        .await
        .ok();
    assert_eq!(
        grown["spec"]["containers"][0]["resources"]["requests"]["cpu"],
        "2"
    );
    let image = json!({"spec": {"containers": [{"name": "c", "image": "z"}]}});
    let same = server
        .patch(&format!("{PODS}/p/resize"), "strategic-merge", &image)
        .await
        .ok();
    assert_eq!(same["spec"]["containers"][0]["image"], "x");
}

/// "[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations"
#[tokio::test]
async fn certificate_requests_are_approved_and_signed() {
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let server = Server::new().await;
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n";
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let request = json!({
        "metadata": {"generateName": "e2e-example-csr-"},
        "spec": {"request": encoded, "signerName": "example.com/e2e", "expirationSeconds": 3600,
            "usages": ["digital signature"], "username": "somebody-else"},
    });
    let made = server.post(REQUESTS, &request).await.ok();
    assert_eq!(made["spec"]["username"], "fairlead-admin", "{made}");
    let one = format!("{REQUESTS}/{}", made["metadata"]["name"].as_str().unwrap());
    let mut approved = server.get(&format!("{one}/approval")).await.ok();
    approved["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "E2E"}]);
    approved["spec"]["signerName"] = "example.com/other".into();
    let approved = server.put(&format!("{one}/approval"), &approved).await.ok();
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    assert_eq!(approved["spec"]["signerName"], "example.com/e2e");
    let certificate = json!({"status": {"certificate": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1BPT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="}});
    server
        .patch(&format!("{one}/approval"), "merge", &certificate)
        .await;
    let before = server.get(&one).await.ok();
    assert_eq!(before["status"]["certificate"], Value::Null);
    server
        .patch(&format!("{one}/status"), "merge", &certificate)
        .await
        .ok();
    let table = server
        .get_as(&one, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .ok();
    assert_eq!(table["rows"][0]["cells"][5], "Approved,Issued");
}

/// What cloud providers hold a Service by, they write and take away with its status.
#[tokio::test]
async fn a_status_is_written_with_the_metadata_that_its_kind_lets_it() {
    let server = Server::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    server.post(services, &service).await.ok();
    let held = json!({"metadata": {"finalizers": ["example.com/held"], "labels": {"a": "b"}}});
    let path = format!("{services}/s");
    let status = format!("{path}/status");
    let made = server.patch(&status, "strategic-merge", &held).await.ok();
    assert_eq!(
        made["metadata"]["finalizers"],
        held["metadata"]["finalizers"]
    );
    assert_eq!(made["metadata"]["labels"], held["metadata"]["labels"]);
    server.delete(&path).await.ok();
    let let_go = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/held"]}});
    server.patch(&status, "strategic-merge", &let_go).await.ok();
    assert_eq!(server.get(&path).await.code, 404);

    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
    }});
    server.post(deployments, &deployment).await.ok();
    let said = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}});
    let status = format!("{deployments}/d/status");
    let made = server.patch(&status, "merge", &said).await.ok();
    assert!(made["metadata"]["labels"].is_null(), "{made}");
    assert_eq!(made["metadata"]["annotations"], json!({"a": "b"}));
    let noted = json!({"metadata": {"annotations": {"a": "c"}}});
    let made = server
        .patch(&format!("{deployments}/d"), "merge", &noted)
        .await
        .ok();
    assert_eq!(made["metadata"]["generation"], 2);

    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all";
    let status = format!("{schemas}/status");
    let made = server.patch(&status, "merge", &said).await.ok();
    assert!(made["metadata"]["labels"].is_null(), "{made}");
}

/// "[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it", without the
/// controller: the budget's status is written by hand.
#[tokio::test]
async fn evictions_respect_budgets() {
    let server = Server::new().await;
    const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    if server.get(BUDGETS).await.code == 404 {
        return;
    }
    pod(&server, "p").await;
    server
        .post(&format!("{PODS}/p/binding"), &binding("n"))
        .await
        .ok();
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    server
        .patch(&format!("{PODS}/p/status"), "strategic-merge", &running)
        .await
        .ok();
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    server.post(BUDGETS, &budget).await.ok();
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let evict = || server.post("/api/v1/namespaces/default/pods/p/eviction", &eviction);
    let causes = |reply: &Reply| {
        reply.json()["details"]["causes"][0]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let new = evict().await;
    assert_eq!(
        new.refused(429),
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        causes(&new),
        "The disruption budget b is still being processed by the server."
    );
    let status = |allowed: i64| {
        json!({"status": {
            "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
        }})
    };
    let path = format!("{BUDGETS}/b/status");
    server.patch(&path, "merge", &status(0)).await.ok();
    let held = evict().await;
    assert_eq!(held.code, 429);
    assert_eq!(
        causes(&held),
        "The disruption budget b needs 1 healthy pods and has 1 currently"
    );
    server.patch(&path, "merge", &status(1)).await.ok();
    let older =
        json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}});
    let evicted = server.post(&format!("{PODS}/p/eviction"), &older).await;
    assert_eq!(evicted.code, 201);
    let leaving = server.get(&format!("{PODS}/p")).await.ok();
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    let conditions = leaving["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|condition| condition["reason"] == "EvictionByEvictionAPI")
    );
    let used = server.get(&format!("{BUDGETS}/b")).await.ok();
    assert_eq!(used["status"]["disruptionsAllowed"], 0);
    assert!(used["status"]["disruptedPods"]["p"].is_string());
}

#[tokio::test]
async fn the_cluster_begins_with_what_kubernetes_begins_with() {
    let server = Server::new().await;
    for (collection, name) in [
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            "system-node-critical",
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            "catch-all",
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            "workload-low",
        ),
        ("/apis/apiregistration.k8s.io/v1/apiservices", "v1."),
        ("/apis/networking.k8s.io/v1/servicecidrs", "kubernetes"),
        ("/apis/networking.k8s.io/v1/ipaddresses", "10.96.0.1"),
        ("/api/v1/componentstatuses", "etcd-0"),
    ] {
        server.get(&format!("{collection}/{name}")).await.ok();
        server.get(collection).await.ok();
    }
    let path = "/apis/networking.k8s.io/v1/ipaddresses";
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let services = "/api/v1/namespaces/default/services";
    let made = server.post(services, &service).await.ok();
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    let held = server.get(&format!("{path}/{address}")).await.ok();
    assert_eq!(held["spec"]["parentRef"]["name"], "web");
    server.delete(&format!("{services}/web")).await.ok();
    assert_eq!(server.get(&format!("{path}/{address}")).await.code, 404);
}

/// Answers every request with its first line; what asks for an upgrade gets its bytes back.
async fn agent() -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                assert!(!head.to_lowercase().contains("authorization"), "{head}");
                if head.to_lowercase().contains("upgrade: spdy/3.1") {
                    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    return;
                }
                let line = head.lines().next().unwrap_or_default();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: text/plain\r\n\r\n{line}",
                    line.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

async fn node(server: &Server, port: u16) {
    server
        .post("/api/v1/nodes", &json!({"metadata": {"name": "n"}}))
        .await;
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    server
        .patch("/api/v1/nodes/n/status", "merge", &status)
        .await
        .ok();
}

fn body(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

#[tokio::test]
async fn logs_and_proxies_are_answered_by_the_node() {
    let server = Server::new().await;
    pod(&server, "p").await;
    let log = format!("{PODS}/p/log?container=c&tailLines=5&timestamps=true");
    let unbound = server.get(&log).await;
    assert_eq!((unbound.code, unbound.body.len()), (200, 0));
    server
        .post(&format!("{PODS}/p/binding"), &binding("n"))
        .await
        .ok();
    assert_eq!(server.get(&log).await.refused(404), "nodes \"n\" not found");
    node(&server, agent().await.port()).await;
    assert_eq!(
        body(&server.get(&log).await),
        "GET /containerLogs/default/p/c?tailLines=5&timestamps=true HTTP/1.1"
    );
    assert_eq!(
        body(&server.get("/api/v1/nodes/n/proxy/healthz?a=b").await),
        "GET /healthz?a=b HTTP/1.1"
    );
    let moved = server.get("/api/v1/nodes/n/proxy").await;
    assert_eq!(
        (moved.code, moved.header("location")),
        (301, "/api/v1/nodes/n/proxy/")
    );
    assert_eq!(
        server
            .get(&format!("{PODS}/p/log?container=d"))
            .await
            .refused(400),
        "container d is not valid for pod p"
    );
    assert_eq!(
        server
            .get(&format!("{PODS}/p/exec?command=ls"))
            .await
            .refused(400),
        "Upgrade request required"
    );
    assert_eq!(
        server.get(&format!("{PODS}/p/proxy/x")).await.refused(400),
        "address not allowed"
    );
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    server
        .post("/api/v1/namespaces/default/services", &service)
        .await
        .ok();
    let nobody = server
        .get("/api/v1/namespaces/default/services/web/proxy/")
        .await;
    assert_eq!(
        nobody.refused(503),
        "no endpoints available for service \"web\""
    );
}

#[tokio::test]
async fn who_opens_a_web_socket_to_a_pod_may_create() {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let server = Server::new().await;
    pod(&server, "p").await;
    let role = |verbs: &[&str]| {
        json!({
            "metadata": {"name": "r"},
            "rules": [{"apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"], "verbs": verbs}],
        })
    };
    server
        .post(&format!("{RBAC}/roles"), &role(&["get"]))
        .await
        .ok();
    let binding = json!({
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "jane"}],
    });
    server
        .post(&format!("{RBAC}/rolebindings"), &binding)
        .await
        .ok();
    let open = async |subresource: &str, protocol: &str| {
        let headers = [
            ("impersonate-user", "jane"),
            ("connection", "Upgrade"),
            ("upgrade", protocol),
        ];
        let path = format!("{PODS}/p/{subresource}?command=ls&ports=80");
        server.send("GET", &path, &headers, Body::empty()).await
    };
    for subresource in ["exec", "attach", "portforward"] {
        assert_eq!(
            open(subresource, "websocket").await.refused(403),
            format!(
                "pods \"p\" is forbidden: User \"jane\" cannot create resource \"pods/{subresource}\" in API group \"\" in the namespace \"default\""
            )
        );
        // SPDY by GET is as it was.
        assert_ne!(open(subresource, "SPDY/3.1").await.code, 403);
    }
    server
        .put(&format!("{RBAC}/roles/r"), &role(&["get", "create"]))
        .await
        .ok();
    assert_ne!(open("exec", "websocket").await.code, 403);
}

#[tokio::test]
async fn a_node_that_is_away_is_named() {
    let server = Server::new().await;
    pod(&server, "p").await;
    server
        .post(&format!("{PODS}/p/binding"), &binding("n"))
        .await
        .ok();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap().port()
    };
    node(&server, port).await;
    assert_eq!(
        server.get(&format!("{PODS}/p/log")).await.refused(500),
        format!(
            "Get \"https://127.0.0.1:{port}/containerLogs/default/p/c\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let exec = server
        .send(
            "POST",
            &format!("{PODS}/p/exec?command=ls"),
            &upgrade,
            Body::empty(),
        )
        .await;
    assert_eq!(
        exec.refused(500),
        format!("error dialing backend: dial tcp 127.0.0.1:{port}: connect: connection refused")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_is_a_tunnel_to_the_node() {
    let server = Server::new().await;
    pod(&server, "p").await;
    server
        .post(&format!("{PODS}/p/binding"), &binding("n"))
        .await
        .ok();
    node(&server, agent().await.port()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let app = server.app.clone();
    let served = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        app.serve(listener, stopped).await
    });
    let mut roots = rustls::RootCertStore::empty();
    let ca = server.app.ca_certificate().as_bytes().to_vec();
    let ca =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
            &ca,
        );
    roots.add(ca.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder()
        .method("POST")
        .uri(format!("{PODS}/p/exec?command=sh&stdin=true&stdout=true"))
        .header("host", "localhost")
        .header(
            "authorization",
            format!("Bearer {}", server.app.admin_token()),
        )
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(Body::empty())
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    let mut tunnel = hyper_util::rt::TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    for _ in 0..3 {
        tunnel.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        tunnel.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
    }
    // The server's end is the tunnel's end.
    stop.send(()).unwrap();
    let mut rest = Vec::new();
    let _ = tunnel.read_to_end(&mut rest).await;
    served.await.unwrap().unwrap();
}
