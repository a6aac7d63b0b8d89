//! `[sig-api-machinery] CustomResourcePublishOpenAPI`.

use serde_json::{Value, json};

use super::{DEFINITIONS, define, definition, eventually};
use crate::support::Server;

fn schema() -> Value {
    json!({"type": "object", "description": "Foo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {
            "bars": {"type": "array", "description": "List of Bars and their specs.", "items": {
                "type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "description": "Name of Bar."},
                    "feeling": {"type": "string", "enum": ["Great", "Down"]},
                }}}}},
        "status": {"type": "object", "description": "Status of Foo", "properties": {"x": {"type": "string"}}},
    }})
}

/// The definition of a kind in the document of version 3, if it is published.
async fn published(server: &Server, group: &str, version: &str, kind: &str) -> Option<Value> {
    let document = server
        .get(&format!("/openapi/v3/apis/{group}/{version}"))
        .await;
    if document.code != 200 {
        return None;
    }
    let document = document.json();
    let schemas = document["components"]["schemas"].as_object()?;
    let mark = json!([{"group": group, "version": version, "kind": kind}]);
    schemas
        .values()
        .find(|schema| schema["x-kubernetes-group-version-kind"] == mark)
        .cloned()
}

/// The same in the document of version 2.
async fn published_v2(server: &Server, group: &str, version: &str, kind: &str) -> bool {
    let document = server.get("/openapi/v2").await.ok();
    let mark = json!({"group": group, "version": version, "kind": kind});
    document["definitions"]
        .as_object()
        .unwrap()
        .values()
        .any(|definition| {
            let marks = definition["x-kubernetes-group-version-kind"].as_array();
            marks.is_some_and(|marks| marks.contains(&mark))
        })
}

async fn wait(server: &Server, group: &str, version: &str, wanted: bool) {
    eventually("the documents follow", async || {
        published(server, group, version, "Foo").await.is_some() == wanted
            && published_v2(server, group, version, "Foo").await == wanted
    })
    .await;
}

/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema [Conformance]
#[tokio::test]
async fn with_schema() {
    let server = Server::new().await;
    define(&server, &definition("e2e.example.com", schema())).await;
    wait(&server, "e2e.example.com", "v1", true).await;
    let found = published(&server, "e2e.example.com", "v1", "Foo")
        .await
        .unwrap();
    assert_eq!(found["description"], "Foo CRD for Testing");
    assert_eq!(
        found["properties"]["spec"]["description"],
        "Specification of Foo"
    );
    assert_eq!(
        found["properties"]["spec"]["properties"]["bars"]["items"]["required"],
        json!(["name"])
    );
    assert!(
        found["properties"]["metadata"].is_object()
            && found["properties"]["apiVersion"].is_object()
    );
    // What the documents say is what the server holds to.
    let foos = "/apis/e2e.example.com/v1/namespaces/default/foos?fieldValidation=Strict";
    let foo = |spec: Value| json!({"apiVersion": "e2e.example.com/v1", "kind": "Foo", "metadata": {"name": "test-foo"}, "spec": spec});
    server
        .post(foos, &foo(json!({"bars": [{"name": "test-bar"}]})))
        .await
        .ok();
    assert_eq!(
        server.post(foos, &foo(json!({"bars": [{}]}))).await.code,
        422
    );
    assert_eq!(
        server
            .post(
                foos,
                &foo(json!({"bars": [{"name": "b", "feeling": "Meh"}]}))
            )
            .await
            .code,
        422
    );
    assert_eq!(
        server
            .post(foos, &foo(json!({"bars": [{"name": "b", "unknown": 1}]})))
            .await
            .code,
        400
    );
}

/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema [Conformance]
/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the schema root [Conformance]
#[tokio::test]
async fn preserving_at_the_root() {
    let server = Server::new().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&server, &definition("e2e.example.com", open)).await;
    wait(&server, "e2e.example.com", "v1", true).await;
    let found = published(&server, "e2e.example.com", "v1", "Foo")
        .await
        .unwrap();
    assert_eq!(found["x-kubernetes-preserve-unknown-fields"], true);
    let foo = json!({"apiVersion": "e2e.example.com/v1", "kind": "Foo", "metadata": {"name": "f"}, "a": {"b": [{"c": "d"}]}});
    let made = server
        .post(
            "/apis/e2e.example.com/v1/namespaces/default/foos?fieldValidation=Strict",
            &foo,
        )
        .await
        .ok();
    assert_eq!(made["a"], foo["a"]);
}

/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object [Conformance]
#[tokio::test]
async fn preserving_within() {
    let server = Server::new().await;
    let nested = json!({"type": "object", "properties": {
        "spec": {"type": "object", "description": "Specification of Waldo", "x-kubernetes-preserve-unknown-fields": true, "properties": {"dummy": {"type": "string"}}},
    }});
    define(&server, &definition("e2e.example.com", nested)).await;
    wait(&server, "e2e.example.com", "v1", true).await;
    let found = published(&server, "e2e.example.com", "v1", "Foo")
        .await
        .unwrap();
    assert_eq!(
        found["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"],
        true
    );
    let foo = json!({"apiVersion": "e2e.example.com/v1", "kind": "Foo", "metadata": {"name": "f"}, "spec": {"a": "b"}});
    let foos = "/apis/e2e.example.com/v1/namespaces/default/foos?fieldValidation=Strict";
    assert_eq!(server.post(foos, &foo).await.ok()["spec"]["a"], "b");
}

/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups [Conformance]
#[tokio::test]
async fn of_two_groups() {
    let server = Server::new().await;
    for group in ["one.example.com", "two.example.com"] {
        define(&server, &definition(group, schema())).await;
    }
    for group in ["one.example.com", "two.example.com"] {
        wait(&server, group, "v1", true).await;
    }
}

fn two_versions(names: [&str; 2], served: [bool; 2]) -> Value {
    let mut definition = definition("e2e.example.com", schema());
    let one = definition["spec"]["versions"][0].clone();
    let version = |i: usize| {
        let mut version = one.clone();
        version["name"] = names[i].into();
        version["served"] = served[i].into();
        version["storage"] = (i == 0).into();
        version
    };
    definition["spec"]["versions"] = json!([version(0), version(1)]);
    definition
}

/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different versions [Conformance]
/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed to not be served [Conformance]
/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed [Conformance]
#[tokio::test]
async fn versions_come_and_go() {
    let server = Server::new().await;
    let path = format!("{DEFINITIONS}/foos.e2e.example.com");
    define(&server, &two_versions(["v2", "v3"], [true, true])).await;
    wait(&server, "e2e.example.com", "v2", true).await;
    wait(&server, "e2e.example.com", "v3", true).await;
    let before = published(&server, "e2e.example.com", "v2", "Foo").await;
    let versions = |names, served| json!({"spec": {"versions": two_versions(names, served)["spec"]["versions"]}});
    server
        .patch(&path, "merge", &versions(["v2", "v4"], [true, true]))
        .await
        .ok();
    wait(&server, "e2e.example.com", "v4", true).await;
    wait(&server, "e2e.example.com", "v3", false).await;
    assert_eq!(
        published(&server, "e2e.example.com", "v2", "Foo").await,
        before
    );
    server
        .patch(&path, "merge", &versions(["v2", "v4"], [true, false]))
        .await
        .ok();
    wait(&server, "e2e.example.com", "v4", false).await;
    assert_eq!(
        published(&server, "e2e.example.com", "v2", "Foo").await,
        before
    );
}

/// [sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but different kinds [Conformance]
#[tokio::test]
async fn of_two_kinds() {
    let server = Server::new().await;
    define(&server, &definition("e2e.example.com", schema())).await;
    let mut other = definition("e2e.example.com", schema());
    other["metadata"]["name"] = "waldos.e2e.example.com".into();
    other["spec"]["names"] =
        json!({"plural": "waldos", "singular": "waldo", "kind": "Waldo", "listKind": "WaldoList"});
    define(&server, &other).await;
    for kind in ["Foo", "Waldo"] {
        eventually("both are published", async || {
            published(&server, "e2e.example.com", "v1", kind)
                .await
                .is_some()
                && published_v2(&server, "e2e.example.com", "v1", kind).await
        })
        .await;
    }
}
