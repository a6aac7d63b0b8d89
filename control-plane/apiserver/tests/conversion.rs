//! Custom resources in several versions with a conversion webhook: `v1` has `host` and `port`, `v2` has `address`.

mod support;

use serde_json::{Value, json};
use support::Server;
use support::hook::Hook;

const V1: &str = "/apis/example.com/v1/namespaces/default/gates";
const V2: &str = "/apis/example.com/v2/namespaces/default/gates";

fn convert(object: &Value, wanted: &str) -> Value {
    let mut out = object.clone();
    out["apiVersion"] = wanted.into();
    if wanted.ends_with("v2") {
        let (host, port) = (
            object["host"].as_str().unwrap_or(""),
            object["port"].as_str().unwrap_or(""),
        );
        out["address"] = format!("{host}:{port}").into();
        for key in ["host", "port"] {
            out.as_object_mut().unwrap().remove(key);
        }
    } else {
        let address = object["address"].as_str().unwrap_or("").to_owned();
        let (host, port) = address.split_once(':').unwrap_or((&address, ""));
        out["host"] = host.into();
        out["port"] = port.into();
        out.as_object_mut().unwrap().remove("address");
    }
    // What a webhook may not change, and what it may.
    out["metadata"]["generation"] = 99.into();
    out["metadata"]["labels"]["converted"] = "y".into();
    out
}

async fn with_webhook(hook: &Hook) -> Server {
    let server = Server::new().await;
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> = fields
            .iter()
            .map(|field| ((*field).to_owned(), json!({"type": "string"})))
            .collect();
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let definition = json!({
        "metadata": {"name": "gates.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gates", "kind": "Gate"},
            "versions": [version("v1", true, &["host", "port"]), version("v2", false, &["address"])],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": hook.client("/convert")}},
        },
    });
    server
        .post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            &definition,
        )
        .await
        .ok();
    for _ in 0..500 {
        if server.get(V1).await.code == 200 && server.get(V2).await.code == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server
}

async fn hook() -> Hook {
    Hook::start(&[], |_, question| {
        let request = &question["request"];
        let objects = request["objects"].as_array().unwrap();
        let wanted = request["desiredAPIVersion"].as_str().unwrap();
        let bad = objects.iter().any(|object| object["address"] == "bad" || object["host"] == "bad");
        let response = if bad {
            json!({"uid": request["uid"], "result": {"status": "Failure", "message": "a bad one"}})
        } else {
            let converted: Vec<Value> = objects.iter().map(|object| convert(object, wanted)).collect();
            json!({"uid": request["uid"], "convertedObjects": converted, "result": {"status": "Success"}})
        };
        (200, json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response}))
    })
    .await
}

#[tokio::test]
async fn objects_are_served_in_the_version_that_is_asked_for() {
    let hook = hook().await;
    let server = with_webhook(&hook).await;
    let one = json!({"apiVersion": "example.com/v1", "kind": "Gate", "metadata": {"name": "one"}, "host": "a", "port": "1"});
    server.post(V1, &one).await.ok();
    assert_eq!(hook.count(), 0);
    let shown = server.get(&format!("{V2}/one")).await.ok();
    assert_eq!(
        (&shown["apiVersion"], &shown["address"]),
        (&json!("example.com/v2"), &json!("a:1"))
    );
    assert_eq!(shown["metadata"]["generation"], 1);
    assert_eq!(shown["metadata"]["labels"]["converted"], "y");
    assert_eq!(shown.get("host"), None);

    // What is written as another version is stored as the one that is stored.
    let two = json!({"apiVersion": "example.com/v2", "kind": "Gate", "metadata": {"name": "two"}, "address": "b:2"});
    let made = server.post(V2, &two).await.ok();
    assert_eq!(
        (&made["apiVersion"], &made["address"]),
        (&json!("example.com/v2"), &json!("b:2"))
    );
    let entry = server
        .storage
        .get("/registry/example.com/gates/default/two")
        .await
        .unwrap()
        .unwrap();
    let stored: Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(
        (&stored["apiVersion"], &stored["host"]),
        (&json!("example.com/v1"), &json!("b"))
    );

    // Lists, pages and watches, and changes by either version.
    let list = server.get(V2).await.ok();
    let addresses: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["address"])
        .collect();
    assert_eq!(addresses, ["a:1", "b:2"]);
    let selected = server
        .get(&format!("{V2}?labelSelector=converted%3Dy&limit=1"))
        .await
        .ok();
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    let mut watch = server.watch(&format!("{V2}?watch=true")).await;
    for name in ["one", "two"] {
        assert_eq!(watch.line().await, format!("ADDED {name}"));
    }
    server
        .patch(&format!("{V2}/one"), "merge", &json!({"address": "c:3"}))
        .await
        .ok();
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["address"]),
        (&json!("MODIFIED"), &json!("c:3"))
    );
    assert_eq!(server.get(&format!("{V1}/one")).await.ok()["host"], "c");
    server.delete(&format!("{V1}/one")).await.ok();
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["address"]),
        (&json!("DELETED"), &json!("c:3"))
    );
}

#[tokio::test]
async fn a_conversion_that_fails_is_told() {
    let hook = hook().await;
    let server = with_webhook(&hook).await;
    let bad = json!({"apiVersion": "example.com/v1", "kind": "Gate", "metadata": {"name": "bad"}, "host": "bad"});
    server.post(V1, &bad).await.ok();
    let expected = "Internal error occurred: conversion webhook for example.com/v1, Kind=Gate failed: a bad one";
    assert_eq!(
        server.get(&format!("{V2}/bad")).await.refused(500),
        expected
    );
    assert_eq!(server.get(V2).await.refused(500), expected);
    server.get(&format!("{V1}/bad")).await.ok();
    let bad = json!({"apiVersion": "example.com/v2", "kind": "Gate", "metadata": {"name": "worse"}, "address": "bad"});
    assert_eq!(server.post(V2, &bad).await.code, 500);
    assert_eq!(server.get(&format!("{V1}/worse")).await.code, 404);
}
