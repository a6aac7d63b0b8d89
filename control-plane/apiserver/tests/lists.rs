//! Lists: forms, selectors, pages, revisions.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn fill(server: &Server, count: usize) {
    for i in 0..count {
        let labels = json!({"parity": if i % 2 == 0 { "even" } else { "odd" }});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{i:03}"), "labels": labels}});
        server.post(MAPS, &map).await.ok();
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn pages_are_of_one_revision_whatever_happens_between() {
    let server = Server::new().await;
    fill(&server, 10).await;
    for selector in ["", "&labelSelector=parity"] {
        let whole = server.get(&format!("{MAPS}?x=1{selector}")).await.ok();
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = server
                .get(&format!("{MAPS}?limit=3&continue={token}{selector}"))
                .await
                .ok();
            assert_eq!(
                page["metadata"]["resourceVersion"],
                whole["metadata"]["resourceVersion"]
            );
            all.extend(names(&page));
            token = page["metadata"]["continue"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let left = 10 - all.len();
            if selector.is_empty() && left > 0 {
                assert_eq!(page["metadata"]["remainingItemCount"], left);
            } else {
                assert_eq!(page["metadata"].get("remainingItemCount"), None);
            }
            if token.is_empty() {
                break;
            }
            let change = format!("{MAPS}/m{:03}", all.len());
            server
                .patch(
                    &change,
                    "merge",
                    &json!({"metadata": {"labels": {"seen": all.len().to_string()}}}),
                )
                .await
                .ok();
            let extra =
                json!({"metadata": {"name": format!("m{:03}x{}", all.len(), selector.len())}});
            server.post(MAPS, &extra).await.ok();
        }
        assert_eq!(all, names(&whole));
        for name in names(&server.get(MAPS).await.ok())
            .iter()
            .filter(|name| name.contains('x'))
        {
            server.delete(&format!("{MAPS}/{name}")).await.ok();
        }
    }
}

#[tokio::test]
async fn a_page_after_compaction_is_refused_with_a_way_on() {
    let server = Server::new().await;
    fill(&server, 4).await;
    let page = server.get(&format!("{MAPS}?limit=2")).await.ok();
    let token = page["metadata"]["continue"].as_str().unwrap();
    server.delete(&format!("{MAPS}/m003")).await.ok();
    server
        .storage
        .compact(server.storage.revision())
        .await
        .unwrap();
    let refused = server
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await;
    assert_eq!(refused.code, 410);
    let status = refused.json();
    assert_eq!(status["reason"], "Expired");
    let token = status["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .ok();
    assert_eq!(names(&rest), ["m002"]);

    let exact = server
        .get(&format!(
            "{MAPS}?resourceVersion=3&resourceVersionMatch=Exact"
        ))
        .await;
    assert_eq!(
        exact.refused(410),
        "The resourceVersion for the provided list is too old."
    );
}

#[tokio::test]
async fn revisions_are_exact_or_a_lower_bound() {
    let server = Server::new().await;
    fill(&server, 2).await;
    let then = server.get(MAPS).await.ok()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    server.delete(&format!("{MAPS}/m000")).await.ok();
    let now = server.storage.revision().0.to_string();
    for (query, expected, version) in [
        (String::new(), 1, &now),
        ("resourceVersion=0".into(), 1, &now),
        (format!("resourceVersion={then}"), 1, &now),
        (
            format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan"),
            1,
            &now,
        ),
        (
            format!("resourceVersion={then}&resourceVersionMatch=Exact"),
            2,
            &then,
        ),
        (format!("resourceVersion={then}&limit=5"), 2, &then),
    ] {
        let list = server.get(&format!("{MAPS}?{query}")).await.ok();
        assert_eq!(names(&list).len(), expected, "{query}");
        assert_eq!(list["metadata"]["resourceVersion"], **version, "{query}");
    }
}

#[tokio::test]
async fn selectors_pick() {
    let server = Server::new().await;
    fill(&server, 4).await;
    for (query, expected) in [
        ("labelSelector=parity%3Deven", vec!["m000", "m002"]),
        ("labelSelector=parity+notin+(even)", vec!["m001", "m003"]),
        ("labelSelector=nope", vec![]),
        ("fieldSelector=metadata.name%3Dm001", vec!["m001"]),
        (
            "fieldSelector=metadata.name!%3Dm001&limit=2",
            vec!["m000", "m002"],
        ),
        (
            "fieldSelector=metadata.name%3Dm001,metadata.namespace%3Dother",
            vec![],
        ),
        ("fieldSelector=metadata.name%3Dm00", vec![]),
    ] {
        assert_eq!(
            names(&server.get(&format!("{MAPS}?{query}")).await.ok()),
            expected,
            "{query}"
        );
    }
    let everywhere = server
        .get("/api/v1/configmaps?fieldSelector=metadata.namespace%3Ddefault")
        .await
        .ok();
    assert_eq!(names(&everywhere).len(), 4);
}

#[tokio::test]
async fn forms_follow_the_accept_header() {
    let server = Server::new().await;
    fill(&server, 1).await;
    let list = server.get(MAPS).await;
    assert_eq!(list.header("content-type"), "application/json");
    let item = &list.ok()["items"][0];
    // As in Kubernetes the kind is said once, above.
    assert_eq!((item.get("kind"), item.get("apiVersion")), (None, None));
    assert_eq!(list.ok()["kind"], "ConfigMapList");

    let table = server
        .get_as(MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .ok();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "m000");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let path = format!("{MAPS}?includeObject=Object");
    let table = server
        .get_as(&path, "application/json;as=Table;v=v1beta1;g=meta.k8s.io")
        .await
        .ok();
    assert_eq!(table["apiVersion"], "meta.k8s.io/v1beta1");
    assert_eq!(table["rows"][0]["object"]["kind"], "ConfigMap");

    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let partial = server.get_as(MAPS, accept).await.ok();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["metadata"]["name"], "m000");

    let yaml = server
        .get_as(&format!("{MAPS}/m000"), "application/yaml")
        .await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    let text = String::from_utf8(yaml.body).unwrap();
    assert!(
        text.contains("kind: ConfigMap\n") && text.contains("  name: m000\n"),
        "{text}"
    );

    let reply = server.get_as(MAPS, "text/html").await;
    assert!(
        reply
            .refused(406)
            .starts_with("406: Not Acceptable\n\nAvailable representations: application/json")
    );
}

/// On one thread: whoever waits gets on while a server looks into many objects, and while it writes them.
#[tokio::test]
async fn a_long_list_lets_others_have_their_turn() {
    let server = Server::new().await;
    fill(&server, 3_000).await;
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (query, accept, found) in [
        ("labelSelector=parity%3Dodd", "application/json", 1_500),
        ("labelSelector=parity", table, 3_000),
    ] {
        let before = turns.load(Ordering::Relaxed);
        let list = server.get_as(&format!("{MAPS}?{query}"), accept).await.ok();
        let items = list.get("rows").unwrap_or(&list["items"]);
        assert_eq!(items.as_array().unwrap().len(), found);
        let got = turns.load(Ordering::Relaxed) - before;
        assert!(got > 5, "{got} turns during {query} as {accept}");
    }
    other.abort();
}
