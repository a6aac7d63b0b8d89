//! What the server says about itself, and to whom.

mod support;

use serde_json::json;
use support::Server;

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2_BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

#[tokio::test]
async fn discovery_comes_in_the_form_asked_for() {
    let server = Server::new().await;
    for path in ["/api", "/apis"] {
        let both = format!("{V2},{V2_BETA1},application/json");
        for (accept, content_type, kind) in [
            (both.as_str(), V2, "APIGroupDiscoveryList"),
            (
                &format!("{V2_BETA1},application/json"),
                V2_BETA1,
                "APIGroupDiscoveryList",
            ),
            (
                "application/json",
                "application/json",
                if path == "/api" {
                    "APIVersions"
                } else {
                    "APIGroupList"
                },
            ),
            (
                "*/*",
                "application/json",
                if path == "/api" {
                    "APIVersions"
                } else {
                    "APIGroupList"
                },
            ),
        ] {
            let reply = server.get_as(path, accept).await;
            assert_eq!(
                reply.header("content-type"),
                content_type,
                "{path} {accept}"
            );
            assert_eq!(reply.json()["kind"], kind, "{path} {accept}");
        }
    }
    let resources = server.get("/api/v1").await.ok();
    assert!(
        resources["resources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r["name"] == "pods/status")
    );
    assert_eq!(
        server.get("/apis/discovery.k8s.io").await.ok()["kind"],
        "APIGroup"
    );
}

#[tokio::test]
async fn a_kind_that_nobody_knows_is_no_custom_one_either() {
    let server = Server::new().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let list = server.get(path).await.ok();
    assert_eq!(list["kind"], "CustomResourceDefinitionList");
    assert_eq!(list["items"], json!([]));
    assert_eq!(server.post(path, &json!({})).await.code, 422);
    assert_eq!(server.get(&format!("{path}/x")).await.code, 404);
}

#[tokio::test]
async fn schemas_can_be_cached_for_ever() {
    let server = Server::new().await;
    let index = server.get("/openapi/v3").await.ok();
    let address = index["paths"]["api/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let reply = server.get(address).await;
    assert_eq!(reply.ok()["openapi"], "3.0.0");
    assert!(reply.header("cache-control").contains("immutable"));
    let tag = reply.header("etag").to_owned();
    let again = server
        .send("GET", address, &[("if-none-match", &tag)], "")
        .await;
    assert_eq!((again.code, again.body.len()), (304, 0));
    // Without the hash the address may stand for another schema tomorrow.
    assert!(
        !server
            .get("/openapi/v3/api/v1")
            .await
            .header("cache-control")
            .contains("immutable")
    );
    assert_eq!(server.get("/openapi/v3/apis/nope/v1").await.code, 404);
}

#[tokio::test]
async fn who_asks_decides_what_is_answered() {
    let server = Server::new().await;
    let tokens = server.dir.path().join("tokens.csv");
    let mut text = std::fs::read_to_string(&tokens).unwrap();
    text.push_str("secret,ann,7,\"dev\"\n");
    std::fs::write(&tokens, text).unwrap();
    let app = apiserver::build(support::config(server.dir.path()), server.storage.clone())
        .await
        .unwrap();
    assert_eq!(app.admin_token(), server.app.admin_token());
    let server = Server { app, ..server };

    for (token, path, code, message) in [
        ("Bearer wrong", "/api/v1/pods", 401, "Unauthorized"),
        ("Basic YTpi", "/api/v1/pods", 403, ""),
        ("Bearer secret", "/apis", 200, ""),
        ("bearer secret", "/version", 200, ""),
        (
            "Bearer secret",
            "/api/v1/namespaces/default/pods/p",
            403,
            "pods \"p\" is forbidden: User \"ann\" cannot get resource \"pods\" in API group \"\" in the namespace \
             \"default\"",
        ),
        (
            "Bearer secret",
            "/apis/networking.k8s.io/v1/ingressclasses?watch=1",
            403,
            "ingressclasses.networking.k8s.io is forbidden: User \"ann\" cannot watch resource \"ingressclasses\" in \
             API group \"networking.k8s.io\" at the cluster scope",
        ),
        (
            "Bearer secret",
            "/metrics",
            403,
            "forbidden: User \"ann\" cannot get path \"/metrics\"",
        ),
    ] {
        let reply = server
            .send("GET", path, &[("authorization", token)], "")
            .await;
        assert_eq!(reply.code, code, "{token} {path}");
        if !message.is_empty() {
            assert_eq!(reply.json()["message"], message);
        }
    }
    for (path, code) in [
        ("/healthz", 200),
        ("/livez", 200),
        ("/livez/ping", 403),
        ("/readyz?verbose", 200),
        ("/version", 200),
        ("/api", 403),
    ] {
        let request = http::Request::builder()
            .uri(path)
            .body(axum::body::Body::empty())
            .unwrap();
        assert_eq!(
            server.raw(request).await.status(),
            code,
            "{path} without credentials"
        );
    }
    let request = http::Request::builder()
        .uri("/api/v1/namespaces/default/pods")
        .body(axum::body::Body::empty())
        .unwrap();
    let refused = axum::body::to_bytes(server.raw(request).await.into_body(), 1 << 16)
        .await
        .unwrap();
    let refused: serde_json::Value = serde_json::from_slice(&refused).unwrap();
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \
         \"default\""
    );
    assert_eq!(refused["details"], json!({"kind": "pods"}));
}

#[tokio::test]
async fn health_checks_are_named() {
    let server = Server::new().await;
    let page = async |path: &str| {
        let reply = server.get(path).await;
        (reply.code, String::from_utf8(reply.body).unwrap())
    };
    for path in [
        "/livez",
        "/readyz",
        "/healthz",
        "/readyz/etcd",
        "/livez/poststarthook/rbac/bootstrap-roles",
    ] {
        assert_eq!(page(path).await, (200, "ok".to_owned()), "{path}");
    }
    let (_, told) = page("/readyz?verbose").await;
    assert!(
        told.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n"),
        "{told}"
    );
    assert!(
        told.ends_with("[+]shutdown ok\nreadyz check passed\n"),
        "{told}"
    );
    let (_, told) = page("/livez?verbose&exclude=etcd&exclude=none").await;
    assert!(told.contains("[+]etcd excluded: ok\n"), "{told}");
    let words = "warn: some health checks cannot be excluded: no matches for \"none\"\nlivez check passed\n";
    assert!(told.ends_with(words), "{told}");
    assert_eq!(page("/readyz/nope").await.0, 404);
    server.app.close();
    let (code, told) = page("/readyz").await;
    assert_eq!(code, 500);
    assert!(
        told.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"),
        "{told}"
    );
    let (code, told) = page("/readyz/shutdown").await;
    assert_eq!(
        (code, told.as_str()),
        (500, "internal server error: process is shutting down\n")
    );
    assert_eq!(page("/readyz?exclude=shutdown").await.0, 200);
}

#[tokio::test]
async fn metrics_have_the_names_of_kube_apiserver() {
    let server = Server::new().await;
    server.get("/api/v1/pods").await.ok();
    let map = json!({"metadata": {"name": "a"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    server.post(maps, &map).await.ok();
    server
        .post(&format!("{maps}?dryRun=All"), &map)
        .await
        .refused(409);
    let mut watch = server.watch(&format!("{maps}?watch=1")).await;
    watch.line().await;
    let metrics = String::from_utf8(server.get("/metrics").await.body).unwrap();
    let list = "verb=\"LIST\",dry_run=\"\",group=\"\",version=\"v1\",resource=\"pods\",subresource=\"\",\
                scope=\"cluster\",component=\"apiserver\"";
    let post = "verb=\"POST\",dry_run=\"All\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",\
                scope=\"namespace\",component=\"apiserver\"";
    for line in [
        format!("apiserver_request_total{{{list},code=\"200\"}} 1"),
        format!("apiserver_request_total{{{post},code=\"409\"}} 1"),
        format!("apiserver_request_duration_seconds_count{{{list}}} 1"),
        format!("apiserver_request_duration_seconds_bucket{{{list},le=\"+Inf\"}} 1"),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1".to_owned(),
        "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0".to_owned(),
        "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",resource=\"configmaps\",\
         subresource=\"\",scope=\"namespace\",component=\"apiserver\"} 1"
            .to_owned(),
        "apiserver_watch_events_total{group=\"\",version=\"v1\",kind=\"ConfigMap\",resource=\"configmaps\"} 1".to_owned(),
        "apiserver_storage_objects{resource=\"configmaps\"} 1".to_owned(),
        "apiserver_storage_objects{resource=\"pods\"} 0".to_owned(),
        "etcd_requests_total{operation=\"create\",resource=\"configmaps\"} 1".to_owned(),
        "# TYPE etcd_request_duration_seconds histogram".to_owned(),
        "# TYPE process_resident_memory_bytes gauge".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    // Every line is a comment or a name, perhaps labels, and a number.
    for line in metrics.lines().filter(|line| !line.starts_with("# ")) {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn versions_are_told() {
    let server = Server::new().await;
    let version = server.get("/version").await.ok();
    assert!(
        version["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.35."),
        "{version}"
    );
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_named() {
    let change = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = support::config(dir.path());
        match text {
            "ranges" => {
                config.service_cidrs = vec![
                    "10.0.0.0/8".parse().unwrap(),
                    "10.1.0.0/16".parse().unwrap(),
                ];
            }
            "small" => config.service_cidrs = vec!["10.0.0.0/30".parse().unwrap()],
            "ports" => config.node_ports = 0..=10,
            _ => std::fs::write(dir.path().join("tokens.csv"), "only-a-token\n").unwrap(),
        }
        (dir, config)
    };
    for (what, expected) in [
        ("ranges", "10.0.0.0/8, 10.1.0.0/16"),
        ("small", "10.0.0.0/30"),
        ("ports", "0-10"),
        ("tokens", "tokens.csv"),
    ] {
        let (_dir, config) = change(what);
        let storage = std::sync::Arc::new(storage::memory::Memory::new());
        let error = apiserver::build(config, storage)
            .await
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}
