//! `[sig-api-machinery] CustomResourceDefinition resources` and `CustomResourceFieldSelectors`.

use serde_json::{Value, json};

use super::{DEFINITIONS, define, definition, eventually, names};
use crate::support::Server;

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works [Conformance]
/// [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing custom resource definition objects works [Conformance]
#[tokio::test]
async fn created_listed_and_deleted() {
    let server = Server::new().await;
    for i in 0..10 {
        let mut one = definition(&format!("g{i}.example.com"), open());
        one["metadata"]["labels"] = json!({"e2e-list-test-uuid": "x"});
        server.post(DEFINITIONS, &one).await.ok();
    }
    let selected = format!("{DEFINITIONS}?labelSelector=e2e-list-test-uuid%3Dx");
    assert_eq!(names(&server.get(&selected).await.ok()).len(), 10);
    server.delete(&selected).await.ok();
    eventually("all are gone", async || {
        names(&server.get(&selected).await.ok()).is_empty()
    })
    .await;
}

/// [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works [Conformance]
#[tokio::test]
async fn status_of_a_definition() {
    let server = Server::new().await;
    define(&server, &definition("e2e.example.com", open())).await;
    let path = format!("{DEFINITIONS}/foos.e2e.example.com/status");
    let mut whole = server.get(&path).await.ok();
    let condition = json!({"type": "Terminating", "status": "False", "reason": "E2E", "message": "updated", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    whole["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(condition.clone());
    let updated = server.put(&path, &whole).await.ok();
    let has = |object: &Value| {
        object["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|found| found["reason"] == "E2E")
    };
    assert!(has(&updated), "{updated}");
    let patched = server
        .patch(
            &path,
            "merge",
            &json!({"status": {"conditions": [condition]}}),
        )
        .await
        .ok();
    assert!(has(&patched), "{patched}");
}

/// [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works [Conformance]
#[tokio::test]
async fn defaults() {
    let server = Server::new().await;
    let with = |fields: Value| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": fields});
    define(
        &server,
        &definition(
            "e2e.example.com",
            with(json!({"a": {"type": "string", "default": "A"}, "b": {"type": "string"}})),
        ),
    )
    .await;
    let foos = "/apis/e2e.example.com/v1/namespaces/default/foos";
    let foo = |name: &str| json!({"apiVersion": "e2e.example.com/v1", "kind": "Foo", "metadata": {"name": name}});
    assert_eq!(server.post(foos, &foo("name1")).await.ok()["a"], "A");
    // A default that comes later is filled in as objects are read, one that goes stays where it was stored.
    let path = format!("{DEFINITIONS}/foos.e2e.example.com");
    let schema = with(json!({"a": {"type": "string"}, "b": {"type": "string", "default": "B"}}));
    let change = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]);
    server.patch(&path, "json", &change).await.ok();
    eventually("the new schema holds", async || {
        let found = server.get(&format!("{foos}/name1")).await.ok();
        found["a"] == "A" && found["b"] == "B"
    })
    .await;
    let second = server.post(foos, &foo("name2")).await.ok();
    assert_eq!((second.get("a"), &second["b"]), (None, &json!("B")));
}

/// [sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector [Conformance]
#[tokio::test]
async fn field_selectors() {
    let server = Server::new().await;
    let text = json!({"type": "object", "properties": {"hostname": {"type": "string"}, "port": {"type": "string"}}});
    let mut shirts = definition("e2e.example.com", text);
    shirts["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".hostname"}]);
    define(&server, &shirts).await;
    let foos = "/apis/e2e.example.com/v1/namespaces/default/foos";
    let foo = |name: &str, host: &str| json!({"apiVersion": "e2e.example.com/v1", "kind": "Foo", "metadata": {"name": name}, "hostname": host, "port": "80"});
    let mut watch = server
        .watch(&format!("{foos}?watch=true&fieldSelector=hostname%3Dhost1"))
        .await;
    for (name, host) in [("a", "host1"), ("b", "host2"), ("c", "host1")] {
        server.post(foos, &foo(name, host)).await.ok();
    }
    assert_eq!(
        names(
            &server
                .get(&format!("{foos}?fieldSelector=hostname%3Dhost1"))
                .await
                .ok()
        ),
        ["a", "c"]
    );
    assert_eq!(
        server
            .get(&format!("{foos}?fieldSelector=port%3D80"))
            .await
            .code,
        400
    );
    server
        .patch(&format!("{foos}/a"), "merge", &json!({"hostname": "host2"}))
        .await
        .ok();
    for expected in ["ADDED a", "ADDED c", "DELETED a"] {
        assert_eq!(watch.line().await, expected);
    }
    server
        .delete(&format!("{foos}?fieldSelector=hostname%3Dhost2"))
        .await
        .ok();
    assert_eq!(names(&server.get(foos).await.ok()), ["c"]);
}
