//! Watches: what comes, in which order, to whom.

mod support;

use serde_json::{Value, json};
use storage::Revision;
use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn map(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
}

#[tokio::test]
async fn without_a_revision_a_watch_begins_with_what_is_there() {
    let server = Server::new().await;
    server.post(MAPS, &map("a", &json!({}))).await.ok();
    for version in ["", "&resourceVersion=0"] {
        let mut watch = server.watch(&format!("{MAPS}?watch=1{version}")).await;
        assert_eq!(watch.line().await, "ADDED a");
        server
            .patch(
                &format!("{MAPS}/a"),
                "merge",
                &json!({"data": {"v": version}}),
            )
            .await
            .ok();
        assert_eq!(watch.line().await, "MODIFIED a");
    }
}

#[tokio::test]
async fn from_a_revision_nothing_is_missed_or_repeated() {
    let server = Server::new().await;
    let first = server.post(MAPS, &map("a", &json!({}))).await.ok();
    server.post(MAPS, &map("b", &json!({}))).await.ok();
    server.delete(&format!("{MAPS}/a")).await.ok();
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server
        .watch(&format!("{MAPS}?watch=true&resourceVersion={version}"))
        .await;
    assert_eq!(watch.line().await, "ADDED b");
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(
        deleted["object"]["metadata"]["uid"],
        first["metadata"]["uid"]
    );
    // A deleted object carries the revision of its deletion, so that the client can go on from there.
    assert_eq!(
        deleted["object"]["metadata"]["resourceVersion"],
        server.storage.revision().0.to_string()
    );
    assert_eq!(deleted["object"]["kind"], "ConfigMap");
    server.post(MAPS, &map("c", &json!({}))).await.ok();
    assert_eq!(watch.line().await, "ADDED c");
}

#[tokio::test]
async fn objects_come_and_go_as_they_match_the_selector() {
    let server = Server::new().await;
    let mut watch = server
        .watch(&format!("{MAPS}?watch=1&labelSelector=app%3Dweb"))
        .await;
    let steps = [
        (
            "merge",
            json!({"metadata": {"labels": {"app": "web"}}}),
            Some("ADDED a"),
        ),
        ("merge", json!({"data": {"k": "v"}}), Some("MODIFIED a")),
        (
            "merge",
            json!({"metadata": {"labels": {"app": "db"}}}),
            Some("DELETED a"),
        ),
        ("merge", json!({"data": {"k": "w"}}), None),
        (
            "merge",
            json!({"metadata": {"labels": {"app": "web"}}}),
            Some("ADDED a"),
        ),
    ];
    server.post(MAPS, &map("a", &json!({}))).await.ok();
    for (kind, patch, expected) in steps {
        server.patch(&format!("{MAPS}/a"), kind, &patch).await.ok();
        if let Some(expected) = expected {
            assert_eq!(watch.line().await, expected, "{patch}");
        }
    }
    server.delete(&format!("{MAPS}/a")).await.ok();
    assert_eq!(watch.line().await, "DELETED a");
}

#[tokio::test]
async fn one_object_and_one_namespace_can_be_watched_alone() {
    let server = Server::new().await;
    let mut one = server
        .watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da"))
        .await;
    let mut all = server.watch("/api/v1/configmaps?watch=1").await;
    let mut other = server
        .watch("/api/v1/namespaces/kube-system/configmaps?watch=1")
        .await;
    for (namespace, name) in [("default", "ab"), ("kube-system", "a"), ("default", "a")] {
        server
            .post(
                &format!("/api/v1/namespaces/{namespace}/configmaps"),
                &map(name, &json!({})),
            )
            .await
            .ok();
    }
    assert_eq!(one.line().await, "ADDED a");
    for expected in ["ADDED ab", "ADDED a", "ADDED a"] {
        assert_eq!(all.line().await, expected);
    }
    assert_eq!(
        other.next().await.unwrap()["object"]["metadata"]["namespace"],
        "kube-system"
    );
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = Server::new().await;
    server.post(MAPS, &map("a", &json!({}))).await.ok();
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = server.watch(&path).await;
    assert_eq!(watch.line().await, "ADDED a");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"],
        json!({"k8s.io/initial-events-end": "true"})
    );
    assert_eq!(
        bookmark["object"]["metadata"]["resourceVersion"],
        server.storage.revision().0.to_string()
    );

    let mut table = server.watch_as(&path, TABLE).await;
    let added = table.next().await.unwrap();
    assert_eq!(added["object"]["kind"], "Table");
    assert_eq!(
        added["object"]["rows"][0]["object"]["metadata"]["name"],
        "a"
    );
    assert!(
        added["object"]["columnDefinitions"][0]["name"] == "Name",
        "{added}"
    );
    let bookmark = table.next().await.unwrap();
    let annotations = &bookmark["object"]["rows"][0]["object"]["metadata"]["annotations"];
    assert_eq!(annotations, &json!({"k8s.io/initial-events-end": "true"}));
}

#[tokio::test]
async fn metadata_alone_can_be_watched() {
    let server = Server::new().await;
    server.post(MAPS, &map("a", &json!({"x": "y"}))).await.ok();
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    let event = server
        .watch_as(&format!("{MAPS}?watch=1"), accept)
        .await
        .next()
        .await
        .unwrap();
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(event["object"]["metadata"]["labels"], json!({"x": "y"}));
}

#[tokio::test]
async fn a_watch_may_be_asked_to_outlive_the_clock() {
    let server = Server::new().await;
    let mut watch = server
        .watch(&format!("{MAPS}?watch=1&timeoutSeconds={}", i64::MAX))
        .await;
    server.post(MAPS, &map("a", &json!({}))).await.ok();
    assert_eq!(watch.line().await, "ADDED a");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_how_far_the_watch_has_come() {
    let server = Server::new().await;
    let mut watch = server
        .watch(&format!(
            "{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=90"
        ))
        .await;
    server.post(MAPS, &map("a", &json!({}))).await.ok();
    assert_eq!(watch.line().await, "ADDED a");
    for _ in 0..2 {
        // One after a minute, one before the end.
        let bookmark = read_slowly(&mut watch).await.unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        assert_eq!(
            bookmark["object"]["metadata"]["resourceVersion"],
            server.storage.revision().0.to_string()
        );
    }
    assert_eq!(read_slowly(&mut watch).await, None);
}

/// Time is paused: the patience of [`support::Watch::next`] would run out at once.
async fn read_slowly(watch: &mut support::Watch) -> Option<Value> {
    watch
        .next_within(std::time::Duration::from_secs(3600))
        .await
}

#[tokio::test]
async fn a_forgotten_revision_is_an_error_event() {
    let server = Server::new().await;
    let first = server.post(MAPS, &map("a", &json!({}))).await.ok();
    for turn in 0..3 {
        server
            .patch(
                &format!("{MAPS}/a"),
                "merge",
                &json!({"data": {"turn": turn.to_string()}}),
            )
            .await
            .ok();
    }
    server
        .storage
        .compact(server.storage.revision())
        .await
        .unwrap();
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server
        .watch(&format!("{MAPS}?watch=1&resourceVersion={version}"))
        .await;
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn the_future_cannot_be_watched() {
    let server = Server::new().await;
    let reply = server
        .get(&format!("{MAPS}?watch=1&resourceVersion=99999"))
        .await;
    assert!(reply.refused(504).contains("Too large resource version"));
}

#[tokio::test]
async fn watches_end_at_the_shutdown() {
    let server = Server::new().await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1")).await;
    server.post(MAPS, &map("a", &json!({}))).await.ok();
    assert_eq!(watch.line().await, "ADDED a");
    server.app.close();
    assert_eq!(watch.line().await, "end");
    assert_eq!(server.get("/readyz").await.code, 500);
    assert_eq!(server.get("/livez").await.code, 200);
    assert!(server.storage.revision() > Revision(0));
}

#[tokio::test]
async fn who_reads_too_slowly_is_cut_off_and_can_go_on_from_there() {
    let limits = storage::memory::WatchLimits {
        unread_bytes: 8 << 10,
        ..Default::default()
    };
    let storage = std::sync::Arc::new(storage::memory::Memory::with_limits(limits));
    let server = Server::with(storage, |_| {}).await;
    let watch = async |version: &str| {
        server
            .watch(&format!("{MAPS}?watch=1&resourceVersion={version}"))
            .await
    };
    let mut last = server.storage.revision().0.to_string();
    let mut reader = watch(&last).await;
    for i in 0..100 {
        let mut object = map(&format!("m{i:03}"), &json!({}));
        object["data"] = json!({"k": "x".repeat(1000)});
        server.post(MAPS, &object).await.ok();
    }
    let (mut seen, mut cuts) = (Vec::new(), 0);
    while seen.len() < 100 {
        match reader.next().await {
            Some(event) => {
                assert_eq!(event["type"], "ADDED");
                let metadata = &event["object"]["metadata"];
                seen.push(metadata["name"].as_str().unwrap().to_owned());
                metadata["resourceVersion"]
                    .as_str()
                    .unwrap()
                    .clone_into(&mut last);
            }
            None => {
                cuts += 1;
                assert!(cuts < 100, "no way forward from {last}");
                reader = watch(&last).await;
            }
        }
    }
    assert!(cuts > 0, "never cut off");
    let expected: Vec<String> = (0..100).map(|i| format!("m{i:03}")).collect();
    assert_eq!(seen, expected);
}
