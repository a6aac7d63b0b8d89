//! `[sig-api-machinery] Servers with support for API chunking`, and for Tables.

use serde_json::{Value, json};
use storage::Revision;

use super::names;
use crate::support::Server;

const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";

async fn fill(server: &Server, count: usize) {
    for i in 0..count {
        let body = json!({
            "metadata": {"name": format!("template-{i:04}")},
            "template": {"spec": {"containers": [{"name": "test", "image": "test2"}]}},
        });
        server.post(TEMPLATES, &body).await.ok();
    }
}

async fn page(server: &Server, limit: usize, token: &str) -> Value {
    server
        .get(&format!("{TEMPLATES}?limit={limit}&continue={token}"))
        .await
        .ok()
}

fn token(list: &Value) -> String {
    list["metadata"]["continue"]
        .as_str()
        .unwrap_or("")
        .to_owned()
}

/// [sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]
#[tokio::test]
async fn in_chunks() {
    let server = Server::new().await;
    fill(&server, 40).await;
    let (mut found, mut next, mut version) = (Vec::new(), String::new(), Value::Null);
    loop {
        let list = page(&server, 17, &next).await;
        let items = names(&list);
        assert!(items.len() <= 17);
        if version.is_null() {
            version = list["metadata"]["resourceVersion"].clone();
        }
        assert_eq!(list["metadata"]["resourceVersion"], version);
        found.extend(items);
        next = token(&list);
        let remaining = list["metadata"]["remainingItemCount"].as_u64();
        assert_eq!(remaining.unwrap_or(0) as usize + found.len(), 40);
        if next.is_empty() {
            assert_eq!(remaining, None);
            break;
        }
    }
    let expected: Vec<String> = (0..40).map(|i| format!("template-{i:04}")).collect();
    assert_eq!(found, expected);
    assert_eq!(names(&server.get(TEMPLATES).await.ok()), expected);
}

/// [sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Slow] [Conformance]
#[tokio::test]
async fn after_compaction() {
    let server = Server::new().await;
    fill(&server, 40).await;
    let list = page(&server, 10, "").await;
    let first = token(&list);
    assert!(!first.is_empty());
    server
        .delete(&format!("{TEMPLATES}/template-0011"))
        .await
        .ok();
    server
        .storage
        .compact(Revision(server.storage.revision().0))
        .await
        .unwrap();
    let expired = server
        .get(&format!("{TEMPLATES}?limit=10&continue={first}"))
        .await;
    assert_eq!(
        expired.refused(410).split(". ").next(),
        Some("The provided continue parameter is too old to display a consistent list result")
    );
    let status = expired.json();
    assert_eq!(status["reason"], "Expired");
    let inconsistent = token(&status);
    assert!(!inconsistent.is_empty());
    let second = page(&server, 10, &inconsistent).await;
    assert_eq!(names(&second).len(), 10);
    assert_eq!(names(&second)[..2], ["template-0010", "template-0012"]);
    assert_ne!(
        second["metadata"]["resourceVersion"],
        list["metadata"]["resourceVersion"]
    );
    let mut next = token(&second);
    let mut rest = Vec::new();
    while !next.is_empty() {
        let list = page(&server, 10, &next).await;
        assert_eq!(
            list["metadata"]["resourceVersion"],
            second["metadata"]["resourceVersion"]
        );
        rest.extend(names(&list));
        next = token(&list);
    }
    assert_eq!(rest.last().map(String::as_str), Some("template-0039"));
}

/// [sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata [Conformance]
#[tokio::test]
async fn no_table_of_a_review() {
    let server = Server::new().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}});
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
    ];
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let reply = server
        .send("POST", path, &headers, review.to_string())
        .await;
    assert_eq!(reply.code, 406);
    assert_eq!(reply.json()["reason"], "NotAcceptable");
}

/// [sig-node] PodTemplates should delete a collection of pod templates [Conformance]
/// [sig-node] PodTemplates should replace a pod template [Conformance]
/// [sig-node] PodTemplates should run the lifecycle of PodTemplates [Conformance]
#[tokio::test]
async fn pod_templates() {
    let server = Server::new().await;
    let path = format!("{TEMPLATES}/template-0000");
    let mut watch = server.watch(&format!("{TEMPLATES}?watch=true")).await;
    fill(&server, 3).await;
    for i in 0..3 {
        assert_eq!(watch.line().await, format!("ADDED template-{i:04}"));
    }
    let mut whole = server.get(&path).await.ok();
    whole["metadata"]["annotations"] = json!({"updated": "true"});
    let replaced = server.put(&path, &whole).await.ok();
    assert_eq!(replaced["metadata"]["annotations"]["updated"], "true");
    let patch = json!({"metadata": {"labels": {"podtemplate": "patched"}}});
    server.patch(&path, "strategic-merge", &patch).await.ok();
    assert_eq!(
        names(
            &server
                .get("/api/v1/podtemplates?labelSelector=podtemplate%3Dpatched")
                .await
                .ok()
        ),
        ["template-0000"]
    );
    for _ in 0..2 {
        assert_eq!(watch.line().await, "MODIFIED template-0000");
    }
    server.delete(&path).await.ok();
    assert_eq!(watch.line().await, "DELETED template-0000");
    server.delete(TEMPLATES).await.ok();
    assert!(names(&server.get(TEMPLATES).await.ok()).is_empty());
}
