//! The assertions of Kubernetes' conformance tests that need an API server alone, ported. Each test is told by the name
//! of the upstream test above it, so that a reader can tick them off; those that take a kind through its life ("should
//! support … API operations") stand in the table of `lifecycles.rs` and in `webhooks.rs`.
#![allow(
    clippy::needless_pass_by_value,
    reason = "a table reads better with values in place"
)]

#[path = "../support/mod.rs"]
mod support;

mod chunking;
mod core;
mod custom;
mod discovery;
mod fields;
mod policies;
mod publishing;
mod watchers;

use std::time::Duration;

use serde_json::{Value, json};
use support::Server;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition with one version `v1` of the kind `Foo` in a group, with this schema.
fn definition(group: &str, schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("foos.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Makes the definition, and waits until its resource is served.
async fn define(server: &Server, definition: &Value) -> Value {
    let made = server.post(DEFINITIONS, definition).await.ok();
    let name = definition["metadata"]["name"].as_str().unwrap();
    eventually("the definition is established", async || {
        let found = server.get(&format!("{DEFINITIONS}/{name}")).await.json();
        let conditions = found["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let established = conditions
            .iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True");
        let plural = found["spec"]["names"]["plural"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        let group = found["spec"]["group"].as_str().unwrap_or("").to_owned();
        let served = found["spec"]["versions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let Some(version) = served.iter().find(|version| version["served"] == true) else {
            return established;
        };
        let path = format!(
            "/apis/{group}/{}/{plural}",
            version["name"].as_str().unwrap()
        );
        established && server.get(&path).await.code == 200
    })
    .await;
    made
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never comes that {what}");
}

async fn apply(server: &Server, path: &str, query: &str, body: &str) -> support::Reply {
    let headers = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{path}?fieldManager=e2e&{query}");
    server.send("PATCH", &path, &headers, body.to_owned()).await
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap_or("").to_owned())
        .collect()
}
