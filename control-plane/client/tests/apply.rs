//! Documents find their place by discovery, and are created or merged.
#![forbid(unsafe_code)]

mod support;

use std::sync::{Arc, Mutex};

use client::{Applied, Client, Error, documents};
use serde_json::{Value, json};
use support::{Answer, serve};

/// A server with one object of each kind at most, which remembers what it was asked.
fn server(there: bool) -> (Client, Arc<Mutex<Vec<String>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&log);
    let client = serve(move |request| {
        let path = request.uri().path().to_owned();
        let kind = request
            .headers()
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_owned());
        let line = format!("{} {path} {}", request.method(), kind.unwrap_or_default());
        requests.lock().unwrap().push(line.trim_end().to_owned());
        let resource = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "kind": kind, "namespaced": namespaced, "verbs": ["list", "delete", "get"]});
        let object = |version: &str| json!({"metadata": {"resourceVersion": version}});
        let (code, body) = match (request.method().as_str(), path.as_str()) {
            ("GET", "/api/v1") => (
                200,
                json!({"resources": [
                    resource("namespaces", "Namespace", false),
                    resource("namespaces/status", "Namespace", false),
                    resource("services", "Service", true),
                ]}),
            ),
            ("GET", "/apis") => (
                200,
                json!({"groups": [
                    {"preferredVersion": {"groupVersion": "apps/v1"}},
                    {"preferredVersion": {"groupVersion": "away.x/v1"}},
                ]}),
            ),
            ("GET", "/apis/apps/v1") => (
                200,
                json!({"resources": [
                    resource("deployments", "Deployment", true),
                    resource("deployments/scale", "Scale", true),
                ]}),
            ),
            ("GET", _) if there => (200, object("5")),
            ("PATCH", _) if !there => (201, object("6")),
            ("PATCH", path) if path.ends_with("/same") => (200, object("5")),
            ("PATCH", _) => (200, object("7")),
            _ => (
                404,
                json!({"kind": "Status", "reason": "NotFound", "message": "no"}),
            ),
        };
        Answer::Whole(code, body.to_string())
    });
    (client, log)
}

fn document(text: &str) -> Value {
    documents(text).unwrap().remove(0)
}

#[tokio::test]
async fn created_configured_unchanged() {
    let web = document("{apiVersion: v1, kind: Service, metadata: {name: web}}");
    let (client, log) = server(false);
    assert!(matches!(
        client.apply(&web).await.unwrap(),
        Applied::Created(_)
    ));
    assert_eq!(
        *log.lock().unwrap(),
        [
            "GET /api/v1",
            "GET /api/v1/namespaces/default/services/web",
            "PATCH /api/v1/namespaces/default/services/web application/apply-patch+yaml",
        ]
    );

    let (client, log) = server(true);
    assert!(matches!(
        client.apply(&web).await.unwrap(),
        Applied::Configured(_)
    ));
    let same = document(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: same, namespace: shop}}",
    );
    assert!(matches!(
        client.apply(&same).await.unwrap(),
        Applied::Unchanged(_)
    ));
    let space = document("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    client.apply(&space).await.unwrap();
    assert_eq!(
        log.lock().unwrap()[2..],
        [
            "PATCH /api/v1/namespaces/default/services/web application/apply-patch+yaml",
            "GET /apis/apps/v1",
            "GET /apis/apps/v1/namespaces/shop/deployments/same",
            "PATCH /apis/apps/v1/namespaces/shop/deployments/same application/apply-patch+yaml",
            "GET /api/v1/namespaces/shop",
            "PATCH /api/v1/namespaces/shop application/apply-patch+yaml",
        ],
        "what was discovered is remembered"
    );
}

#[tokio::test]
async fn documents_that_lead_nowhere() {
    let (client, _) = server(false);
    for (text, expected) in [
        (
            "{kind: Service}",
            "a document of kind \"Service\" has no apiVersion",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {}}",
            "a document of kind \"Service\" has no metadata.name",
        ),
        (
            "{apiVersion: v1, kind: Servise, metadata: {name: a}}",
            "no matches for kind \"Servise\" in version \"v1\"",
        ),
        (
            "{apiVersion: x.org/v1, kind: X, metadata: {name: a}}",
            "no matches for kind \"X\" in version \"x.org/v1\"",
        ),
    ] {
        let error: Error = client.apply(&document(text)).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn what_the_server_has() {
    let (client, _) = server(false);
    let all = client.resources(&["list", "get"]).await.unwrap();
    let paths: Vec<String> = all
        .found
        .iter()
        .map(|resource| resource.within("n").to_string())
        .collect();
    let expected = [
        "/api/v1/namespaces",
        "/api/v1/namespaces/n/services",
        "/apis/apps/v1/namespaces/n/deployments",
    ];
    assert_eq!(paths, expected);
    assert_eq!(all.missing, ["away.x/v1"]);
    assert_eq!(client.resources(&["watch"]).await.unwrap().found, []);
}
