//! `[sig-api-machinery] Watchers`, and the watch of definitions.

use serde_json::{Value, json};

use super::{definition, eventually};
use crate::support::{Server, Watch};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn map(server: &Server, name: &str, label: &str) -> Value {
    let body = json!({"metadata": {"name": name, "labels": {"watch-this-configmap": label}}});
    server.post(MAPS, &body).await.ok()
}

async fn mutate(server: &Server, name: &str, mutation: u32) -> Value {
    let body = json!({"data": {"mutation": mutation.to_string()}});
    server
        .patch(&format!("{MAPS}/{name}"), "merge", &body)
        .await
        .ok()
}

async fn labelled(server: &Server, selector: &str, from: &str) -> Watch {
    let selector = format!("watch-this-configmap%20in%20({selector})");
    server
        .watch(&format!(
            "{MAPS}?watch=true&labelSelector={selector}&resourceVersion={from}"
        ))
        .await
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// [sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]
#[tokio::test]
async fn add_update_and_delete() {
    let server = Server::new().await;
    let from = version(&server.get(MAPS).await.ok());
    let mut a = labelled(&server, "a", &from).await;
    let mut b = labelled(&server, "b", &from).await;
    let mut both = labelled(&server, "a,b", &from).await;
    map(&server, "one", "a").await;
    mutate(&server, "one", 1).await;
    mutate(&server, "one", 2).await;
    server.delete(&format!("{MAPS}/one")).await.ok();
    map(&server, "two", "b").await;
    server.delete(&format!("{MAPS}/two")).await.ok();
    let first = ["ADDED one", "MODIFIED one", "MODIFIED one", "DELETED one"];
    let second = ["ADDED two", "DELETED two"];
    for expected in first {
        assert_eq!(a.line().await, expected);
    }
    for expected in second {
        assert_eq!(b.line().await, expected);
    }
    for expected in first.into_iter().chain(second) {
        assert_eq!(both.line().await, expected);
    }
}

/// [sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]
#[tokio::test]
async fn from_a_version() {
    let server = Server::new().await;
    map(&server, "m", "a").await;
    let first = mutate(&server, "m", 1).await;
    mutate(&server, "m", 2).await;
    server.delete(&format!("{MAPS}/m")).await.ok();
    let mut watch = labelled(&server, "a", &version(&first)).await;
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["data"]["mutation"]),
        (&json!("MODIFIED"), &json!("2"))
    );
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["data"]["mutation"]),
        (&json!("DELETED"), &json!("2"))
    );
}

/// [sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch [Conformance]
#[tokio::test]
async fn restarted() {
    let server = Server::new().await;
    let from = version(&server.get(MAPS).await.ok());
    let mut watch = labelled(&server, "a", &from).await;
    map(&server, "m", "a").await;
    mutate(&server, "m", 1).await;
    assert_eq!(watch.line().await, "ADDED m");
    let last = watch.next().await.unwrap();
    drop(watch);
    mutate(&server, "m", 2).await;
    server.delete(&format!("{MAPS}/m")).await.ok();
    let mut watch = labelled(&server, "a", &version(&last["object"])).await;
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["data"]["mutation"]),
        (&json!("MODIFIED"), &json!("2"))
    );
    assert_eq!(watch.line().await, "DELETED m");
}

/// [sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector [Conformance]
#[tokio::test]
async fn out_of_the_selection() {
    let server = Server::new().await;
    let made = map(&server, "m", "a").await;
    let mut watch = labelled(&server, "a", &version(&made)).await;
    let path = format!("{MAPS}/m");
    let relabel = async |label: &str| {
        let body = json!({"metadata": {"labels": {"watch-this-configmap": label}}});
        server.patch(&path, "merge", &body).await.ok()
    };
    mutate(&server, "m", 1).await;
    relabel("wrong-value").await;
    mutate(&server, "m", 2).await;
    relabel("a").await;
    mutate(&server, "m", 3).await;
    server.delete(&path).await.ok();
    for (kind, mutation) in [
        ("MODIFIED", "1"),
        ("DELETED", "1"),
        ("ADDED", "2"),
        ("MODIFIED", "3"),
        ("DELETED", "3"),
    ] {
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], kind);
        assert_eq!(event["object"]["data"]["mutation"], mutation, "{kind}");
    }
}

/// [sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]
#[tokio::test]
async fn in_one_order() {
    let server = Server::new().await;
    let mut at = version(&server.get(MAPS).await.ok());
    let mut watches = Vec::new();
    for round in 0..20 {
        watches.push(
            server
                .watch(&format!("{MAPS}?watch=true&resourceVersion={at}"))
                .await,
        );
        let name = format!("m{}", round % 5);
        let changed = match round % 3 {
            0 => {
                server
                    .post(MAPS, &json!({"metadata": {"name": name}}))
                    .await
            }
            1 => {
                server
                    .patch(
                        &format!("{MAPS}/{name}"),
                        "merge",
                        &json!({"data": {"r": round.to_string()}}),
                    )
                    .await
            }
            _ => server.delete(&format!("{MAPS}/{name}")).await,
        };
        if changed.code < 300 && changed.json()["kind"] == "ConfigMap" {
            at = version(&changed.json());
        }
    }
    server
        .post(MAPS, &json!({"metadata": {"name": "end"}}))
        .await
        .ok();
    let mut heard: Vec<Vec<String>> = Vec::new();
    for watch in &mut watches {
        let mut versions = Vec::new();
        loop {
            let event = watch.next().await.unwrap();
            versions.push(version(&event["object"]));
            if event["object"]["metadata"]["name"] == "end" {
                break;
            }
        }
        heard.push(versions);
    }
    for versions in &heard {
        let whole = &heard[0];
        assert_eq!(versions[..], whole[whole.len() - versions.len()..]);
    }
}

/// [sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects [Conformance]
#[tokio::test]
async fn custom_objects() {
    let server = Server::new().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    super::define(&server, &definition("mygroup.example.com", open)).await;
    let path = "/apis/mygroup.example.com/v1/namespaces/default/foos";
    let mut watch = server.watch(&format!("{path}?watch=true")).await;
    for name in ["name1", "name2"] {
        let body = json!({"apiVersion": "mygroup.example.com/v1", "kind": "Foo", "metadata": {"name": name}});
        server.post(path, &body).await.ok();
    }
    for name in ["name1", "name2"] {
        server
            .patch(
                &format!("{path}/{name}"),
                "merge",
                &json!({"dummy": "test"}),
            )
            .await
            .ok();
    }
    for name in ["name1", "name2"] {
        server.delete(&format!("{path}/{name}")).await.ok();
    }
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        for name in ["name1", "name2"] {
            assert_eq!(watch.line().await, format!("{kind} {name}"));
        }
    }
    // The watch ends with the definition.
    server
        .delete(&format!("{}/foos.mygroup.example.com", super::DEFINITIONS))
        .await
        .ok();
    eventually("the resource is gone", async || {
        server.get(path).await.code == 404
    })
    .await;
}
