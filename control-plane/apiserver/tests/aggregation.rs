//! Groups that another API server answers for: requests are passed on to it, and whatever it does, other clients do not
//! notice.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::request::Parts;
use http::{Request, Response};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::Server;
use support::extension::{
    API_SERVICES, AUTHENTICATION, Extension, answered, api_service, available, point, stand, until,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const THINGS: &str = "/apis/agg.x/v1/namespaces/default/things";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// With everything that a server does beside answering.
async fn serving() -> Server {
    let server = Server::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = server.app.clone();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    server
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "agg.x/v1",
        "resources": [
            {
                "name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing",
                "verbs": ["get", "list", "watch", "create"], "shortNames": ["th"],
            },
            {"name": "things/exec", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["get"]},
        ],
    })
}

/// What the extension server answers.
fn things(parts: &Parts, body: &Bytes) -> Response<Body> {
    let query = parts.uri.query().unwrap_or_default();
    match (parts.method.as_str(), parts.uri.path()) {
        ("GET", "/apis/agg.x/v1") => answered(200, &resources()),
        ("GET", THINGS) if query.contains("watch=true") => {
            let events = ["a", "b"].map(|name| {
                let event = json!({"type": "ADDED", "object": {"metadata": {"name": name}}});
                Ok::<_, std::io::Error>(Bytes::from(format!("{event}\n")))
            });
            let events = stream::iter(events).chain(stream::pending());
            Response::new(Body::from_stream(events))
        }
        ("GET", THINGS) => answered(200, &json!({"kind": "ThingList", "items": []})),
        ("POST", THINGS) => answered(201, &serde_json::from_slice(body).unwrap_or_default()),
        ("GET", path) if path.ends_with("/exec") => Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "echo")
            .body(Body::empty())
            .unwrap(),
        ("GET", path) if path.ends_with("/moved") => Response::builder()
            .status(302)
            .header("location", "https://192.0.2.1/")
            .body(Body::empty())
            .unwrap(),
        ("GET", path) if path.ends_with("/large") => {
            let chunk = Bytes::from(vec![b'x'; 1 << 20]);
            let chunks = std::iter::repeat_n(chunk, 1 << 10).map(Ok::<_, std::io::Error>);
            Response::new(Body::from_stream(stream::iter(chunks)))
        }
        _ => answered(404, &json!({"kind": "Status", "code": 404})),
    }
}

#[tokio::test]
async fn requests_are_passed_on() {
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let server = serving().await;
        let other = Extension::start(&server, "things", protocols, things).await;
        other.register(&server, "things", "agg.x", "v1").await;
        // Nobody says himself who he is.
        let forged = [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scope", "all"),
            ("x-forwarded-for", "192.0.2.9"),
            ("accept", "application/json"),
        ];
        let list = server.send("GET", THINGS, &forged, "").await.ok();
        assert_eq!(list["kind"], "ThingList");
        let seen = other.last(THINGS);
        let all = |name: &str| -> Vec<&str> {
            let values = seen.headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!(all("x-remote-user"), ["fairlead-admin"]);
        assert_eq!(
            all("x-remote-group"),
            ["system:masters", "system:authenticated"]
        );
        assert_eq!(all("x-remote-extra-scope"), [""; 0]);
        assert_eq!(all("authorization"), [""; 0]);
        assert_eq!(all("accept"), ["application/json"]);
        assert_eq!(all("x-forwarded-uri"), [THINGS]);
        assert_eq!(
            seen.version == http::Version::HTTP_2,
            protocols.contains(&"h2")
        );

        let made = server
            .post(THINGS, &json!({"metadata": {"name": "a"}}))
            .await;
        assert_eq!(
            (made.code, &made.json()["metadata"]["name"]),
            (201, &json!("a"))
        );
        let absent = server.get(&format!("{THINGS}/absent")).await;
        assert_eq!(absent.code, 404);
        let mut watch = server.watch(&format!("{THINGS}?watch=true")).await;
        assert_eq!(watch.line().await, "ADDED a");
        assert_eq!(watch.line().await, "ADDED b");
        server.app.close();
        assert_eq!(watch.line().await, "end");
    }
}

#[tokio::test]
async fn who_may_is_decided_here() {
    let server = serving().await;
    let other = Extension::start(&server, "things", &["h2"], things).await;
    other.register(&server, "things", "agg.x", "v1").await;
    let jane = [
        ("impersonate-user", "jane"),
        ("impersonate-uid", "u1"),
        ("impersonate-extra-a%2fb", "c"),
    ];
    let refused = server.send("GET", THINGS, &jane, "").await.refused(403);
    assert!(refused.contains("cannot list resource \"things\" in API group \"agg.x\""));
    let deep = format!("{THINGS}/a/portforward/22/tcp");
    let refused = server.send("GET", &deep, &jane, "").await.refused(403);
    assert!(refused.contains("\"things/portforward\""), "{refused}");
    let rbac = "/apis/rbac.authorization.k8s.io/v1/cluster";
    let role = json!({
        "metadata": {"name": "things"},
        "rules": [{"apiGroups": ["agg.x"], "resources": ["things"], "verbs": ["list"]}],
    });
    server.post(&format!("{rbac}roles"), &role).await.ok();
    let binding = json!({
        "metadata": {"name": "things"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "things"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    server
        .post(&format!("{rbac}rolebindings"), &binding)
        .await
        .ok();
    let reply = server.send("GET", THINGS, &jane, "").await;
    reply.ok();
    assert_eq!(reply.header("audit-id").len(), 36);
    assert!(!reply.header("x-kubernetes-pf-flowschema-uid").is_empty());
    let seen = other.last(THINGS);
    let header = |name: &str| seen.headers.get(name).map(|v| v.to_str().unwrap());
    assert_eq!(header("x-remote-user"), Some("jane"));
    assert_eq!(header("x-remote-uid"), Some("u1"));
    assert_eq!(header("x-remote-group"), Some("system:authenticated"));
    assert_eq!(header("x-remote-extra-a%2fb"), Some("c"));
    assert_eq!(header("impersonate-user"), None);
    // Everybody may see what there is.
    server.send("GET", "/apis/agg.x/v1", &jane, "").await.ok();
}

#[tokio::test]
async fn a_body_has_an_end() {
    let server = serving().await;
    let other = Extension::start(&server, "things", &["h2"], things).await;
    other.register(&server, "things", "agg.x", "v1").await;
    let expected = "Request entity too large: limit is 3145728";
    let large = vec![b'x'; (3 << 20) + 1];
    let refused = server.send("POST", THINGS, &[], large.clone()).await;
    assert_eq!(refused.refused(413), expected);
    // Of a length that nobody says beforehand.
    let chunks = std::iter::repeat_n(Bytes::from(large), 2).map(Ok::<_, std::io::Error>);
    let streamed = Body::from_stream(stream::iter(chunks));
    let refused = server.send("POST", THINGS, &[], streamed).await;
    assert_eq!(refused.refused(413), expected);
}

#[tokio::test]
async fn whether_it_is_there() {
    let server = serving().await;
    let other = Extension::start(&server, "things", &["h2"], things).await;
    let name = "v1.agg.x";
    let trust = json!({"caBundle": other.ca_bundle});
    server
        .post(API_SERVICES, &api_service("things", "agg.x", "v1", &trust))
        .await
        .ok();
    let told = async |reason: &str| {
        let condition = available(&server, name, reason).await;
        (
            condition["status"].as_str().unwrap().to_owned(),
            condition["message"].as_str().unwrap().to_owned(),
        )
    };
    let no = |message: &str| ("False".to_owned(), message.to_owned());
    let absent = "service/things in \"kube-system\" is not present";
    assert_eq!(told("ServiceNotFound").await, no(absent));
    let reply = server.get(THINGS).await;
    assert_eq!(
        (reply.code, reply.body.as_slice()),
        (503, &b"service unavailable\n"[..])
    );
    let services = "/api/v1/namespaces/kube-system/services";
    let service =
        json!({"metadata": {"name": "things"}, "spec": {"ports": [{"name": "https", "port": 80}]}});
    server.post(services, &service).await.ok();
    let wrong = "service/things in \"kube-system\" is not listening on port 443";
    assert_eq!(told("ServicePortError").await, no(wrong));
    let patch = json!({"spec": {"ports": [{"name": "https", "port": 443}]}});
    server
        .patch(&format!("{services}/things"), "merge", &patch)
        .await
        .ok();
    let none = "cannot find endpointslices for service/things in \"kube-system\"";
    assert_eq!(told("EndpointsNotFound").await, no(none));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    point(&server, "things", nobody).await;
    let url = format!("https://{nobody}/apis/agg.x/v1");
    let refused = format!(
        "failing or missing response from {url}: Get \"{url}\": dial tcp {nobody}: connect: connection refused"
    );
    assert_eq!(told("FailedDiscoveryCheck").await, no(&refused));
    point(&server, "things", other.address).await;
    let yes = ("True".to_owned(), "all checks passed".to_owned());
    assert_eq!(told("Passed").await, yes);
    server.get(THINGS).await.ok();
    // One who shows another certificate is not asked for anything.
    let stranger = Extension::start(&server, "things", &["h2"], things).await;
    point(&server, "things", stranger.address).await;
    let (_, why) = told("FailedDiscoveryCheck").await;
    assert!(why.contains("invalid peer certificate"), "{why}");
    assert_eq!(stranger.asked.lock().unwrap().len(), 0);
    // Unless nobody is to care.
    let patch = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    server
        .patch(&format!("{API_SERVICES}/{name}"), "merge", &patch)
        .await
        .ok();
    assert_eq!(told("Passed").await, yes);
    // Nobody is asked any more whom the APIService does not name.
    let patch = json!({"spec": {"service": null, "insecureSkipTLSVerify": null}});
    server
        .patch(&format!("{API_SERVICES}/{name}"), "merge", &patch)
        .await
        .ok();
    let local = "Local APIServices are always available".to_owned();
    assert_eq!(told("Local").await, ("True".to_owned(), local));
    assert_eq!(server.get(THINGS).await.code, 404);
}

#[tokio::test]
async fn discovery_tells_of_all() {
    let server = serving().await;
    let other = Extension::start(&server, "things", &["h2"], |parts, body| {
        let v2 = parts.headers.get("accept").is_some_and(|accept| {
            accept.as_bytes().starts_with(AGGREGATED.as_bytes())
        });
        let root = "apis/new.x/v2";
        match parts.uri.path() {
            "/apis/new.x/v2" => answered(200, &json!({"resources": []})),
            "/apis" if v2 => answered(200, &json!({
                "kind": "APIGroupDiscoveryList", "items": [{
                    "metadata": {"name": "new.x"},
                    "versions": [{"version": "v2", "resources": [{"resource": "gadgets", "verbs": ["get"]}, 7]}],
                }],
            })),
            "/openapi/v3" => answered(200, &json!({
                "paths": {root: {"serverRelativeURL": format!("/openapi/v3/{root}?hash=H")}},
            })),
            "/openapi/v3/apis/new.x/v2" => answered(200, &json!({"openapi": "3.0.0"})),
            "/openapi/v2" => answered(200, &json!({
                "swagger": "2.0",
                "paths": {"/apis/new.x/v2/gadgets": {"get": {"description": "d"}}, "/apis/apps/v1/": {"x": 1}},
                "definitions": {"x.Gadget": {"type": "object"}},
            })),
            _ => things(parts, body),
        }
    })
    .await;
    other.register(&server, "things", "agg.x", "v1").await;
    let first = json!({"caBundle": other.ca_bundle, "groupPriorityMinimum": 20000});
    server
        .post(API_SERVICES, &api_service("things", "new.x", "v2", &first))
        .await
        .ok();
    available(&server, "v2.new.x", "Passed").await;
    // One that nobody answers for, and older than the other.
    let away = json!({"insecureSkipTLSVerify": true, "versionPriority": 1});
    server
        .post(API_SERVICES, &api_service("away", "agg.x", "v9", &away))
        .await
        .ok();
    available(&server, "v9.agg.x", "ServiceNotFound").await;

    let document = server.get_as("/apis", AGGREGATED).await.ok();
    let groups = document["items"].as_array().unwrap();
    let names: Vec<&str> = groups
        .iter()
        .map(|group| group["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "new.x", "apps"]);
    assert_eq!(names.last(), Some(&"agg.x"));
    let gadgets = json!([{"version": "v2", "resources": [{"resource": "gadgets", "verbs": ["get"]}], "freshness": "Current"}]);
    assert_eq!(groups[1]["versions"], gadgets);
    let kind = json!({"group": "agg.x", "version": "v1", "kind": "Thing"});
    let expected = json!([
        {"version": "v1", "freshness": "Current", "resources": [{
            "resource": "things", "scope": "Namespaced", "responseKind": kind, "singularResource": "thing",
            "verbs": ["get", "list", "watch", "create"], "shortNames": ["th"],
            "subresources": [{"subresource": "exec", "responseKind": kind, "verbs": ["get"]}],
        }]},
        {"version": "v9", "freshness": "Stale"},
    ]);
    assert_eq!(groups.last().unwrap()["versions"], expected);
    let beta = AGGREGATED.replace("v=v2", "v=v2beta1");
    let beta = server.get_as("/apis", &beta).await.ok();
    assert_eq!(beta["items"], document["items"]);

    let legacy = server.get("/apis").await.ok();
    let last = legacy["groups"].as_array().unwrap().last().unwrap().clone();
    let versions = json!([
        {"groupVersion": "agg.x/v1", "version": "v1"},
        {"groupVersion": "agg.x/v9", "version": "v9"},
    ]);
    let expected = json!({"name": "agg.x", "versions": versions, "preferredVersion": versions[0]});
    assert_eq!(last, expected);
    let group = server.get("/apis/agg.x").await.ok();
    assert_eq!(
        (&group["kind"], &group["versions"]),
        (&json!("APIGroup"), &versions)
    );
    assert_eq!(server.get("/apis/agg.x/v1").await.ok(), resources());
    let paths = server.get("/").await.ok();
    assert!(
        paths["paths"]
            .as_array()
            .unwrap()
            .contains(&json!("/apis/agg.x/v9"))
    );

    let index = server.get("/openapi/v3").await.ok();
    let address = index["paths"]["apis/new.x/v2"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    assert_eq!(address, "/openapi/v3/apis/new.x/v2?hash=H");
    assert_eq!(server.get(address).await.ok(), json!({"openapi": "3.0.0"}));
    let seen = other.last("/openapi/v3/apis/new.x/v2");
    assert_eq!(seen.headers["x-remote-user"], "system:aggregator");
    assert!(index["paths"]["apis/apps/v1"].is_object());
    assert!(index["paths"]["apis/agg.x/v1"].is_null());
    let swagger = server.get("/openapi/v2").await.ok();
    assert_eq!(
        swagger["definitions"]["x.Gadget"],
        json!({"type": "object"})
    );
    assert_eq!(
        swagger["paths"]["/apis/new.x/v2/gadgets"]["get"]["description"],
        "d"
    );
    // Nobody answers for more than what is his.
    assert!(swagger["paths"]["/apis/apps/v1/"]["x"].is_null());

    server
        .delete(&format!("{API_SERVICES}/v1.agg.x"))
        .await
        .ok();
    assert_eq!(server.get(THINGS).await.code, 404);
    // What this server answers is told of as long as its APIService is there, and answered for longer.
    server.delete(&format!("{API_SERVICES}/v1.apps")).await.ok();
    assert_eq!(server.get("/apis/apps").await.code, 404);
    server.get("/apis/apps/v1/deployments").await.ok();
}

#[tokio::test]
async fn a_local_group_can_be_given_away() {
    let server = serving().await;
    let other = Extension::start(&server, "things", &["h2"], |parts, body| {
        match parts.uri.path() {
            "/apis/batch/v1" => answered(200, &json!({"resources": []})),
            "/apis/batch/v1/jobs" => answered(200, &json!({"kind": "Elsewhere"})),
            _ => things(parts, body),
        }
    })
    .await;
    stand(&server, "things", other.address).await;
    let path = format!("{API_SERVICES}/v1.batch");
    let patch = json!({"spec": {
        "service": {"namespace": "kube-system", "name": "things"}, "caBundle": other.ca_bundle,
    }});
    server.patch(&path, "merge", &patch).await.ok();
    available(&server, "v1.batch", "Passed").await;
    let jobs = "/apis/batch/v1/jobs";
    assert_eq!(server.get(jobs).await.ok()["kind"], "Elsewhere");
    let patch = json!({"spec": {"service": null, "caBundle": null}});
    server.patch(&path, "merge", &patch).await.ok();
    assert_eq!(server.get(jobs).await.ok()["kind"], "JobList");
}

#[tokio::test]
async fn custom_resources_have_their_own() {
    let server = serving().await;
    let definition = json!({
        "metadata": {"name": "foos.custom.x"},
        "spec": {
            "group": "custom.x", "scope": "Namespaced",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.post(definitions, &definition).await.ok();
    let path = format!("{API_SERVICES}/v1.custom.x");
    let found = async || {
        let reply = server.get(&path).await;
        (reply.code == 200).then(|| reply.json())
    };
    let made = until(found).await;
    let spec = json!({
        "group": "custom.x", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100,
    });
    assert_eq!(made["spec"], spec);
    assert_eq!(made["status"]["conditions"][0]["reason"], "Local");
    let label = &made["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"];
    assert_eq!(label, "true");
    let patch = json!({"spec": {"versionPriority": 5}});
    server.patch(&path, "merge", &patch).await.ok();
    until(async || (found().await?["spec"] == spec).then_some(())).await;
    server.delete(&path).await.ok();
    until(async || (found().await?["metadata"]["uid"] != made["metadata"]["uid"]).then_some(()))
        .await;
    // Without the label it is somebody's own.
    let patch = json!({
        "metadata": {"labels": {"kube-aggregator.kubernetes.io/automanaged": null}},
        "spec": {"versionPriority": 5},
    });
    server.patch(&path, "merge", &patch).await.ok();
    server
        .delete(&format!("{definitions}/foos.custom.x"))
        .await
        .ok();
    until(async || (server.get("/apis/custom.x/v1/foos").await.code == 404).then_some(())).await;
    assert_eq!(found().await.unwrap()["spec"]["versionPriority"], 5);
    let patch =
        json!({"metadata": {"labels": {"kube-aggregator.kubernetes.io/automanaged": "true"}}});
    server.patch(&path, "merge", &patch).await.ok();
    until(async || (server.get(&path).await.code == 404).then_some(())).await;
}

/// What does anything but answer.
async fn hostile(behaves: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            match behaves {
                "closes" => drop(stream),
                "garbage" => {
                    let _ = stream.write_all(&[b'?'; 4096]).await;
                }
                _ => open.push(stream),
            }
        }
    });
    address
}

#[tokio::test]
async fn one_that_does_not_behave_is_nobody_elses_trouble() {
    let server = serving().await;
    for behaves in ["silent", "closes", "garbage"] {
        let address = hostile(behaves).await;
        stand(&server, behaves, address).await;
        let group = format!("{behaves}.x");
        let more = json!({"insecureSkipTLSVerify": true});
        server
            .post(API_SERVICES, &api_service(behaves, &group, "v1", &more))
            .await
            .ok();
    }
    let began = Instant::now();
    for behaves in ["closes", "garbage", "silent"] {
        let name = format!("v1.{behaves}.x");
        available(&server, &name, "FailedDiscoveryCheck").await;
        assert_eq!(
            server.get(&format!("/apis/{behaves}.x/v1/a")).await.code,
            503
        );
    }
    assert!(began.elapsed() < Duration::from_secs(8));
    server.get_as("/apis", AGGREGATED).await.ok();

    let other = Extension::start(&server, "things", &["h2"], things).await;
    other.register(&server, "things", "agg.x", "v1").await;
    let moved = server.get(&format!("{THINGS}/moved")).await;
    let words = "the backend attempted to redirect this request, which is not permitted";
    assert_eq!((moved.code, moved.body.as_slice()), (502, words.as_bytes()));
    // A gigabyte that nobody reads is not kept.
    let request = Request::get(format!("{THINGS}/large"))
        .header(
            "authorization",
            format!("Bearer {}", server.app.admin_token()),
        )
        .body(Body::empty())
        .unwrap();
    let before = resident();
    let mut large = server.raw(request).await.into_body().into_data_stream();
    large.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.get(THINGS).await.ok();
    assert!(resident() < before + (64 << 20), "{before} {}", resident());
    drop(large);

    // Available, as far as anybody knows; and gone.
    drop(other);
    let gone = until(async || {
        let reply = server.get(THINGS).await;
        (reply.code == 503).then(|| String::from_utf8(reply.body).unwrap())
    })
    .await;
    assert!(
        gone.starts_with("error trying to reach service: "),
        "{gone}"
    );
}

/// What metrics-server would answer.
fn metrics(parts: &Parts, _: &Bytes) -> Response<Body> {
    let root = "/apis/metrics.k8s.io/v1beta1";
    let verbs = ["get", "list"];
    let usage = json!({"cpu": "250m", "memory": "64Mi"});
    let times = |object: Value| {
        let mut object = object;
        object["timestamp"] = "2026-01-01T00:00:00Z".into();
        object["window"] = "10s".into();
        object
    };
    let list = |kind: &str, items: Value| json!({"kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items});
    let body = match parts.uri.path().strip_prefix(root) {
        Some("") => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1",
            "resources": [
                {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": verbs},
                {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": verbs},
            ],
        }),
        Some("/nodes") => list(
            "NodeMetricsList",
            json!([times(json!({"metadata": {"name": "n1"}, "usage": usage}))]),
        ),
        Some("/namespaces/default/pods") => list(
            "PodMetricsList",
            json!([times(json!({
                "metadata": {"name": "web", "namespace": "default"},
                "containers": [{"name": "c", "usage": usage}],
            }))]),
        ),
        _ => return answered(404, &json!({"kind": "Status", "code": 404})),
    };
    answered(200, &body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_sees_no_difference() {
    let server = Server::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = server.dir.path().join("kubeconfig");
    let url = server.app.url(listener.local_addr().unwrap());
    server.app.write_kubeconfig(&config, &url).unwrap();
    let app = server.app.clone();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    let other = Extension::start(&server, "metrics-server", &["h2", "http/1.1"], metrics).await;
    other
        .register(&server, "metrics-server", "metrics.k8s.io", "v1beta1")
        .await;
    let node = json!({"metadata": {"name": "n1"}});
    server.post("/api/v1/nodes", &node).await.ok();
    let status = json!({"status": {"allocatable": {"cpu": "1", "memory": "128Mi"}}});
    server
        .patch("/api/v1/nodes/n1/status", "merge", &status)
        .await
        .ok();
    let kubectl = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let run = async |command: &str, code: i32, expected: &[&str]| {
        let done = tokio::process::Command::new(&kubectl)
            .args(command.split(' '))
            .env("KUBECONFIG", &config)
            .env("HOME", server.dir.path())
            .output()
            .await
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        let flat: Vec<&str> = said.split_whitespace().collect();
        let flat = flat.join(" ");
        assert_eq!(done.status.code(), Some(code), "{command}: {said}");
        for part in expected {
            assert!(flat.contains(part), "{command}: {part}: {said}");
        }
    };
    run("top nodes", 0, &["n1 250m 25% 64Mi 50%"]).await;
    run("top pods", 0, &["web 250m 64Mi"]).await;
    let raw = "get --raw /apis/metrics.k8s.io/v1beta1/nodes";
    run(raw, 0, &["\"name\":\"n1\""]).await;
    let rows = [
        "nodes metrics.k8s.io/v1beta1 false NodeMetrics",
        "pods metrics.k8s.io/v1beta1 true PodMetrics",
    ];
    run("api-resources --api-group metrics.k8s.io", 0, &rows).await;

    let away = json!({"insecureSkipTLSVerify": true});
    server
        .post(API_SERVICES, &api_service("away", "away.x", "v1", &away))
        .await
        .ok();
    available(&server, "v1.away.x", "ServiceNotFound").await;
    let rows = [
        "v1. Local True",
        "v1beta1.metrics.k8s.io kube-system/metrics-server True",
        "v1.away.x kube-system/away False (ServiceNotFound)",
    ];
    run("get apiservices", 0, &rows).await;
    run("api-versions", 0, &["metrics.k8s.io/v1beta1"]).await;
    let words = "the server is currently unable to handle the request";
    run("get --raw /apis/away.x/v1/things", 1, &[words]).await;
    run("get configmaps", 0, &["kube-root-ca.crt"]).await;
    run("top nodes", 0, &["n1 250m"]).await;
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn whom_to_believe_is_kept() {
    let server = serving().await;
    let found = async || {
        let reply = server.get(AUTHENTICATION).await;
        (reply.code == 200).then(|| reply.json()["data"].clone())
    };
    let data = until(found).await;
    for (key, value) in [
        ("requestheader-allowed-names", "[\"front-proxy-client\"]"),
        ("requestheader-username-headers", "[\"X-Remote-User\"]"),
        ("requestheader-uid-headers", "[\"X-Remote-Uid\"]"),
        ("requestheader-group-headers", "[\"X-Remote-Group\"]"),
        (
            "requestheader-extra-headers-prefix",
            "[\"X-Remote-Extra-\"]",
        ),
    ] {
        assert_eq!(data[key], value, "{key}");
    }
    let read = |file: &str| {
        let pem = std::fs::read_to_string(server.dir.path().join("pki").join(file)).unwrap();
        pem.replace("\r\n", "\n")
    };
    assert_eq!(text(&data, "client-ca-file"), read("ca.crt"));
    assert_eq!(
        text(&data, "requestheader-client-ca-file"),
        read("front-proxy-ca.crt")
    );
    let patch =
        json!({"data": {"requestheader-allowed-names": "[]", "client-ca-file": null, "mine": "x"}});
    server.patch(AUTHENTICATION, "merge", &patch).await.ok();
    until(async || (found().await? == data).then_some(())).await;
    server.delete(AUTHENTICATION).await.ok();
    until(async || (found().await? == data).then_some(())).await;
}

fn text(data: &Value, key: &str) -> String {
    data[key].as_str().unwrap().replace("\r\n", "\n")
}

#[tokio::test]
async fn connections_are_upgraded() {
    let server = Server::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = server.app.clone();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    let other = Extension::start(&server, "things", &["h2", "http/1.1"], things).await;
    other.register(&server, "things", "agg.x", "v1").await;
    let mut stream = connect(&server, address, "").await.unwrap();
    let token = server.app.admin_token();
    let path = format!("{THINGS}/a/exec");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    let seen = other.last(&path);
    assert_eq!(seen.headers["x-remote-user"], "fairlead-admin");
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen.headers["upgrade"], "echo");
}

#[tokio::test]
async fn a_front_proxy_speaks_for_others() {
    let server = Server::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = server.app.clone();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    let pki = server.dir.path().join("pki");
    // Of the same authority, under another name.
    let read = |name: &str| std::fs::read_to_string(pki.join(name)).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&read("front-proxy-ca.key")).unwrap();
    let ca = CertificateDer::from_pem_slice(read("front-proxy-ca.crt").as_bytes()).unwrap();
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let ca_name = ca.subject().iter_common_name().next().unwrap();
    authority.distinguished_name = rcgen::DistinguishedName::new();
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, ca_name.as_str().unwrap());
    let issuer = rcgen::Issuer::new(authority, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    for (part, value) in [
        (rcgen::DnType::CommonName, "root"),
        (rcgen::DnType::OrganizationName, "system:masters"),
    ] {
        params.distinguished_name.push(part, value);
    }
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let stranger = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(pki.join("stranger.crt"), stranger.pem()).unwrap();
    std::fs::write(pki.join("stranger.key"), key.serialize_pem()).unwrap();

    let names = "x-remote-user: jane\r\nx-remote-uid: u1\r\nx-remote-group: dev\r\nx-remote-extra-a%2fb: c\r\n";
    let token = format!("authorization: Bearer {}\r\n", server.app.admin_token());
    let jane = json!({
        "username": "jane", "uid": "u1", "groups": ["dev", "system:authenticated"], "extra": {"a/b": ["c"]},
    });
    for (certificate, headers, expected) in [
        ("front-proxy-client", names, Some(&jane["username"])),
        ("front-proxy-client", "", None),
        (
            "front-proxy-client",
            token.as_str(),
            Some(&json!("fairlead-admin")),
        ),
        ("stranger", names, None),
        ("stranger", "", None),
        // Who is not the proxy speaks for himself.
        ("admin", names, Some(&json!("fairlead-admin"))),
        ("", names, Some(&json!("system:anonymous"))),
    ] {
        let mut stream = connect(&server, address, certificate).await.unwrap();
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: 2\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let case = format!("{certificate} {headers}: {head} {body}");
        let Some(expected) = expected else {
            assert!(head.starts_with("HTTP/1.1 401 "), "{case}");
            continue;
        };
        if expected == "system:anonymous" {
            assert!(head.starts_with("HTTP/1.1 403 "), "{case}");
            continue;
        }
        let user = &body["status"]["userInfo"];
        assert_eq!(&user["username"], expected, "{case}");
        if expected == "jane" {
            assert_eq!(*user, jane, "{case}");
        }
    }
}

async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// With a certificate of the server's directory, by name.
async fn connect(
    server: &Server,
    address: SocketAddr,
    certificate: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(server.app.ca_certificate().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let file = |end: &str| server.dir.path().join(format!("pki/{certificate}.{end}"));
    let config = match certificate {
        "" => config.with_no_client_auth(),
        _ => {
            let chain = vec![CertificateDer::from_pem_file(file("crt")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = tokio::net::TcpStream::connect(address).await?;
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}
