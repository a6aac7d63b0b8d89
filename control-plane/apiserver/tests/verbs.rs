//! Create, update, patch and delete: what is stored, what is kept, what is refused.

mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn pod(name: &str, node: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "web"}]},
    });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

#[tokio::test]
async fn a_new_object_is_stored_as_it_was_sent() {
    let server = Server::new().await;
    let mut sent = map("a");
    sent["unknown"] = json!({"kept": [1, 2.5, null]});
    sent["metadata"]["managedFields"] = json!([{"manager": "m"}]);
    let made = server.post(MAPS, &sent).await;
    assert_eq!(made.code, 201);
    assert_eq!(
        made.header("warning"),
        "299 - \"unknown field \\\"unknown\\\"\""
    );
    let made = made.json();
    assert_eq!(
        made["metadata"]["resourceVersion"],
        server.storage.revision().0.to_string()
    );
    assert_eq!(made["unknown"], sent["unknown"]);
    // Records that cannot be read are ignored.
    let record = &made["metadata"]["managedFields"][0];
    assert_eq!(record["fieldsV1"], json!({"f:data": {".": {}, "f:k": {}}}));
    assert_eq!(record["operation"], "Update");
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(server.get(&format!("{MAPS}/a")).await.ok(), made);
    assert_eq!(
        server.post(MAPS, &map("a")).await.refused(409),
        "configmaps \"a\" already exists"
    );
}

#[tokio::test]
async fn names_are_generated() {
    let server = Server::new().await;
    let sent = json!({"metadata": {"generateName": "job-"}});
    let first = server.post(MAPS, &sent).await.ok();
    let second = server.post(MAPS, &sent).await.ok();
    assert!(
        first["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("job-"),
        "{first}"
    );
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test]
async fn bodies_may_be_yaml_or_protobuf() {
    let server = Server::new().await;
    let yaml = "metadata:\n  name: from-yaml\ndata:\n  mode: \"0644\"\n";
    let made = server
        .send("POST", MAPS, &[("content-type", "application/yaml")], yaml)
        .await
        .ok();
    assert_eq!(made["data"], json!({"mode": "0644"}));

    // ConfigMap "p" with data k=v, as kubectl's typed client writes it.
    let body: &[u8] = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x0d\n\x03\n\x01p\x12\x06\n\x01k\x12\x01v\x1a\x00\x22\x00";
    let headers = [("content-type", "application/vnd.kubernetes.protobuf")];
    let made = server.send("POST", MAPS, &headers, body).await.ok();
    assert_eq!(
        (&made["metadata"]["name"], &made["data"]),
        (&json!("p"), &json!({"k": "v"}))
    );
}

#[tokio::test]
async fn a_trial_changes_nothing() {
    let server = Server::new().await;
    server.post(MAPS, &map("a")).await.ok();
    let before = server.storage.revision();
    assert_eq!(
        server
            .post(&format!("{MAPS}?dryRun=All"), &map("b"))
            .await
            .code,
        201
    );
    assert_eq!(
        server
            .put(
                &format!("{MAPS}/a?dryRun=All"),
                &json!({"metadata": {"name": "a"}})
            )
            .await
            .code,
        200
    );
    assert_eq!(
        server
            .patch(
                &format!("{MAPS}/a?dryRun=All"),
                "merge",
                &json!({"data": null})
            )
            .await
            .code,
        200
    );
    assert_eq!(
        server.delete(&format!("{MAPS}/a?dryRun=All")).await.code,
        200
    );
    assert_eq!(server.delete(&format!("{MAPS}?dryRun=All")).await.code, 200);
    assert_eq!(server.storage.revision(), before);
}

#[tokio::test]
async fn nothing_is_written_where_nothing_changes() {
    let server = Server::new().await;
    let made = server.post(MAPS, &map("a")).await.ok();
    let before = server.storage.revision();
    assert_eq!(server.put(&format!("{MAPS}/a"), &made).await.ok(), made);
    assert_eq!(
        server
            .patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"k": "v"}}))
            .await
            .ok(),
        made
    );
    assert_eq!(server.storage.revision(), before);
}

#[tokio::test]
async fn of_two_who_read_the_same_one_is_refused() {
    let server = Server::new().await;
    let made = server.post(MAPS, &map("a")).await.ok();
    let mut mine = made.clone();
    mine["data"]["mine"] = "1".into();
    server.put(&format!("{MAPS}/a"), &mine).await.ok();
    mine["data"]["mine"] = "2".into();
    let message = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
                   changes to the latest version and try again";
    assert_eq!(
        server.put(&format!("{MAPS}/a"), &mine).await.refused(409),
        message
    );
    let stale = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"x": "y"}});
    assert_eq!(
        server
            .patch(&format!("{MAPS}/a"), "merge", &stale)
            .await
            .refused(409),
        message
    );
    // Without a version the writer means whatever stands there.
    mine["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    server.put(&format!("{MAPS}/a"), &mine).await.ok();
}

#[tokio::test]
async fn patches_of_many_at_once_all_arrive() {
    let server = Arc::new(Server::new().await);
    server.post(MAPS, &map("a")).await.ok();
    let tasks: Vec<_> = (0..16)
        .map(|i| {
            let server = server.clone();
            let patch = json!({"data": {format!("k{i}"): "x"}});
            tokio::spawn(async move {
                server
                    .patch(&format!("{MAPS}/a"), "merge", &patch)
                    .await
                    .code
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(
        server.get(&format!("{MAPS}/a")).await.ok()["data"]
            .as_object()
            .unwrap()
            .len(),
        17
    );
}

#[tokio::test]
async fn every_kind_of_patch() {
    let server = Server::new().await;
    server.post(PODS, &pod("p", "")).await.ok();
    let path = format!("{PODS}/p");
    server
        .patch(
            &path,
            "json",
            &json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "1"}}]),
        )
        .await
        .ok();
    server
        .patch(&path, "merge", &json!({"metadata": {"labels": {"b": "2"}}}))
        .await
        .ok();
    // By the key of the list, not by position.
    let image = json!({"spec": {"containers": [{"name": "c", "image": "web:2"}]}});
    let patched = server.patch(&path, "strategic-merge", &image).await.ok();
    assert_eq!(patched["metadata"]["labels"], json!({"a": "1", "b": "2"}));
    assert_eq!(patched["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(patched["spec"]["containers"][0]["image"], "web:2");

    let wrong = json!({"spec": {"bogus": 1}});
    let reply = server
        .patch(&format!("{path}?fieldValidation=Strict"), "merge", &wrong)
        .await;
    assert!(
        reply
            .refused(422)
            .ends_with("strict decoding error: unknown field \"spec.bogus\"")
    );
    server.post(MAPS, &map("a")).await.ok();
    let reply = server
        .patch(&format!("{MAPS}/a"), "merge", &json!({"bogus": 1}))
        .await;
    assert_eq!(
        (reply.code, reply.header("warning")),
        (200, "299 - \"unknown field \\\"bogus\\\"\"")
    );
    // A key that comes twice, in each form.
    for (kind, body, key) in [
        (
            "merge",
            r#"{"data":{"x":"1","x":"2"}}"#,
            "duplicate field \\\"data.x\\\"",
        ),
        (
            "strategic-merge",
            r#"{"data":{"x":"1","x":"2"}}"#,
            "duplicate field \\\"data.x\\\"",
        ),
        (
            "json",
            r#"[{"op":"add","op":"add","path":"/data","value":{}}]"#,
            "json patch duplicate field \\\"[0].op\\\"",
        ),
    ] {
        let form = format!("application/{kind}-patch+json");
        let headers = [("content-type", form.as_str())];
        let path = format!("{MAPS}/a");
        let reply = server.send("PATCH", &path, &headers, body).await;
        let warned = (reply.code, reply.header("warning").to_owned());
        assert_eq!(warned, (200, format!("299 - \"{key}\"")));
        let strict = format!("{path}?fieldValidation=Strict");
        let reply = server.send("PATCH", &strict, &headers, body).await;
        let words = key.replace('\\', "");
        let refused = reply.refused(422);
        assert!(
            refused.contains(&format!("strict decoding error: {words}")),
            "{refused}"
        );
        let ignored = format!("{path}?fieldValidation=Ignore");
        let reply = server.send("PATCH", &ignored, &headers, body).await;
        assert_eq!((reply.code, reply.header("warning")), (200, ""));
    }
    // It is kept, and whoever patches something else later need not answer for it.
    let path = format!("{MAPS}/a?fieldValidation=Strict");
    let patched = server
        .patch(&path, "merge", &json!({"data": {"x": "y"}}))
        .await
        .ok();
    assert_eq!(patched["bogus"], 1);
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let server = Server::new().await;
    server.post(PODS, &pod("p", "")).await.ok();
    let path = format!("{PODS}/p");
    let patch = json!({"status": {"phase": "Running", "podIP": "10.0.0.7"}, "metadata": {"labels": {"a": "b"}}});
    let whole = server.patch(&path, "merge", &patch).await.ok();
    assert_eq!(
        (&whole["status"]["phase"], &whole["metadata"]["labels"]["a"]),
        (&json!("Pending"), &json!("b"))
    );
    let mut whole = server
        .patch(&format!("{path}/status"), "merge", &patch)
        .await
        .ok();
    assert_eq!(whole["status"]["podIP"], "10.0.0.7");
    whole["spec"]["containers"][0]["image"] = "other".into();
    whole["status"]["phase"] = "Failed".into();
    let whole = server.put(&format!("{path}/status"), &whole).await.ok();
    assert_eq!(
        (
            &whole["status"]["phase"],
            &whole["spec"]["containers"][0]["image"]
        ),
        (&json!("Failed"), &json!("web"))
    );
    assert_eq!(server.get(&format!("{path}/status")).await.ok(), whole);
}

#[tokio::test]
async fn put_makes_only_what_may_be_made_so() {
    let server = Server::new().await;
    assert_eq!(
        server
            .put(&format!("{MAPS}/none"), &map("none"))
            .await
            .refused(404),
        "configmaps \"none\" not found"
    );
    let lease =
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let made = server.put(path, &lease).await;
    assert_eq!(made.code, 201);
    assert_eq!(server.put(path, &made.json()).await.code, 200);
    // Leases are for elections: who does not say which version he saw may not win.
    assert!(
        server
            .put(path, &lease)
            .await
            .refused(422)
            .contains("must be specified for an update")
    );
}

#[tokio::test]
async fn deletion_waits_for_finalizers() {
    let server = Server::new().await;
    let mut object = map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, &object).await.ok();
    let path = format!("{MAPS}/a");
    let marked = server.delete(&path).await.ok();
    assert_eq!(marked["kind"], "ConfigMap");
    let stamp = marked["metadata"]["deletionTimestamp"].clone();
    assert!(stamp.is_string());
    // A second deletion changes nothing, and nobody can bring the object back.
    assert_eq!(server.delete(&path).await.ok(), marked);
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"], "deletionTimestamp": null}});
    assert!(
        server
            .patch(&path, "merge", &more)
            .await
            .refused(422)
            .contains("no new finalizers can be added")
    );
    let mut watch = server
        .watch(&format!(
            "{MAPS}?watch=1&resourceVersion={}",
            server.storage.revision().0
        ))
        .await;
    server
        .patch(&path, "merge", &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    assert_eq!(server.get(&path).await.code, 404);
    assert_eq!(watch.line().await, "DELETED a");
}

#[tokio::test]
async fn the_policy_of_propagation_becomes_a_finalizer() {
    let server = Server::new().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        server.post(MAPS, &map("a")).await.ok();
        let options =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        let headers = [("content-type", "application/json")];
        let marked = server
            .send(
                "DELETE",
                &format!("{MAPS}/a"),
                &headers,
                options.to_string(),
            )
            .await
            .ok();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        server
            .patch(
                &format!("{MAPS}/a"),
                "merge",
                &json!({"metadata": {"finalizers": []}}),
            )
            .await
            .ok();
    }
    server.post(MAPS, &map("a")).await.ok();
    let reply = server
        .delete(&format!("{MAPS}/a?propagationPolicy=Background"))
        .await
        .ok();
    assert_eq!(
        (&reply["kind"], &reply["status"]),
        (&json!("Status"), &json!("Success"))
    );
    assert_eq!(reply["details"]["kind"], "configmaps");
}

#[tokio::test]
async fn preconditions_hold() {
    let server = Server::new().await;
    let made = server.post(MAPS, &map("a")).await.ok();
    let delete = async |preconditions: Value| {
        let options = json!({"preconditions": preconditions}).to_string();
        server
            .send(
                "DELETE",
                &format!("{MAPS}/a"),
                &[("content-type", "application/json")],
                options,
            )
            .await
    };
    assert!(delete(json!({"uid": "other"})).await.refused(409).contains(
        "on ConfigMap \"a\": the UID in the precondition (other) does not match the UID in record ("
    ));
    assert!(
        delete(json!({"resourceVersion": "1"}))
            .await
            .refused(409)
            .contains("the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (")
    );
    let metadata = &made["metadata"];
    let right = json!({"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]});
    assert_eq!(delete(right).await.code, 200);
}

#[tokio::test]
async fn pods_end_gracefully_where_a_node_runs_them() {
    let server = Server::new().await;
    server.post(PODS, &pod("free", "")).await.ok();
    server.post(PODS, &pod("bound", "n1")).await.ok();
    server.delete(&format!("{PODS}/free")).await.ok();
    assert_eq!(server.get(&format!("{PODS}/free")).await.code, 404);
    let marked = server.delete(&format!("{PODS}/bound")).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(server.get(&format!("{PODS}/bound")).await.code, 200);
    server
        .delete(&format!("{PODS}/bound?gracePeriodSeconds=0"))
        .await
        .ok();
    assert_eq!(server.get(&format!("{PODS}/bound")).await.code, 404);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let server = Server::new().await;
    server
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "x"}}))
        .await
        .ok();
    server
        .post("/api/v1/namespaces/x/configmaps", &map("a"))
        .await
        .ok();
    let mut namespace = server.delete("/api/v1/namespaces/x").await.ok();
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let reply = server
        .post("/api/v1/namespaces/x/configmaps", &map("b"))
        .await;
    let why = "configmaps \"b\" is forbidden: unable to create new content in namespace x because it is being terminated";
    assert_eq!(reply.refused(403), why);
    assert_eq!(
        reply.json()["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    namespace["spec"]["finalizers"] = json!([]);
    server
        .put("/api/v1/namespaces/x/finalize", &namespace)
        .await
        .ok();
    assert_eq!(server.get("/api/v1/namespaces/x").await.code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::new().await;
    for (name, labels) in [
        ("a", json!({"x": "1"})),
        ("b", json!({})),
        ("c", json!({"x": "2"})),
    ] {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        server.post(MAPS, &object).await.ok();
    }
    let gone = server.delete(&format!("{MAPS}?labelSelector=x")).await.ok();
    assert_eq!(gone["items"].as_array().unwrap().len(), 2);
    let left = server.get(MAPS).await.ok();
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_deletion_is_answered_as_its_kind_demands() {
    let server = Server::new().await;
    let v1 = "/api/v1/namespaces/default";
    for (path, mut object, answer) in [
        (
            format!("{v1}/services"),
            json!({"spec": {"ports": [{"port": 80}]}}),
            "Service",
        ),
        (format!("{v1}/serviceaccounts"), json!({}), "ServiceAccount"),
        (
            format!("{v1}/pods"),
            json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}),
            "Pod",
        ),
        (format!("{v1}/configmaps"), json!({}), "Status"),
        (format!("{v1}/secrets"), json!({}), "Status"),
        (format!("{v1}/endpoints"), json!({}), "Status"),
    ] {
        object["metadata"] = json!({"name": "gone"});
        server.post(&path, &object).await.ok();
        let deleted = server.delete(&format!("{path}/gone")).await.ok();
        assert_eq!(deleted["kind"], answer, "{path}");
        assert_eq!(server.get(&format!("{path}/gone")).await.code, 404);
    }
}

#[tokio::test]
async fn what_clients_are_told_is_bounded() {
    let server = Server::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let many = |count: usize, length: usize| {
        let mut object = json!({"metadata": {"name": "m"}});
        for i in 0..count {
            object[format!("{i:0length$}")] = json!(1);
        }
        object
    };
    for (fields, length, warnings) in [(3, 9, 3), (3, 2000, 3), (101, 9, 101), (30_000, 99, 35)] {
        let reply = server
            .post(&format!("{path}?dryRun=All"), &many(fields, length))
            .await;
        assert_eq!(reply.code, 201);
        let told = reply.headers.get_all("warning").iter();
        let sizes: Vec<usize> = told.map(http::HeaderValue::len).collect();
        assert_eq!(sizes.len(), warnings, "{fields} of {length}");
        assert!(sizes.iter().sum::<usize>() < 8192, "{sizes:?}");
    }
    let strict = server
        .post(&format!("{path}?fieldValidation=Strict"), &many(30_000, 1))
        .await;
    assert_eq!(strict.code, 400);
    let message = strict.json()["message"].to_string();
    assert!(message.ends_with(", and 29900 more\""), "{message}");
    let named = json!({"metadata": {"name": "m"}, "größe": 1});
    let reply = server.post(path, &named).await;
    assert_eq!(
        reply.headers["warning"].as_bytes(),
        r#"299 - "unknown field \"größe\"""#.as_bytes()
    );

    let ports: Vec<Value> = (0..30_000).map(|_| json!({"port": 0})).collect();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": ports}});
    let refused = server
        .post("/api/v1/namespaces/default/services", &service)
        .await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.json()["details"]["causes"].as_array().map(Vec::len),
        Some(100)
    );
    assert!(refused.body.len() < 64 << 10, "{}", refused.body.len());
}

#[tokio::test]
async fn one_object_is_read_and_not_watched() {
    let server = Server::new().await;
    let found = server.get("/api/v1/namespaces/default?watch=1").await.ok();
    assert_eq!(found["kind"], "Namespace");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_once_it_is_sent() {
    let server = Server::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for (chunks, all_read) in [(1, true), (64, true), (1000, false)] {
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = sent.clone();
        let body = futures_util::stream::iter((0..chunks).map(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(vec![b' '; 300 << 10])
        }));
        let headers = [("content-type", "application/json")];
        let reply = server
            .send("POST", path, &headers, axum::body::Body::from_stream(body))
            .await;
        assert_eq!(reply.code, if chunks == 1 { 400 } else { 413 });
        let read = sent.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(read == chunks, all_read, "{read} of {chunks}");
    }
}

#[tokio::test]
async fn events_are_the_same_in_both_groups() {
    let server = Server::new().await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "it runs", "type": "Normal",
    });
    server
        .post("/api/v1/namespaces/default/events", &event)
        .await
        .ok();
    let other = server
        .get("/apis/events.k8s.io/v1/namespaces/default/events/e")
        .await
        .ok();
    assert_eq!(
        (&other["apiVersion"], &other["note"]),
        (&json!("events.k8s.io/v1"), &json!("it runs"))
    );
    assert_eq!(other["regarding"]["name"], "p");
    let path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp";
    assert_eq!(
        server.get(path).await.ok()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn nonsense_is_refused_and_nothing_breaks() {
    let server = Server::new().await;
    let deep = format!(
        "{{\"metadata\":{{\"name\":\"d\"}},\"data\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let huge = format!(
        "{{\"metadata\":{{\"name\":\"h\"}},\"data\":{{\"k\":\"{}\"}}}}",
        "x".repeat(4 << 20)
    );
    let aliases: String = (0..40)
        .map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i.max(1) - 1))
        .collect();
    for (code, content_type, body) in [
        (400, "application/json", deep),
        (413, "application/json", huge),
        (400, "application/json", String::new()),
        (400, "application/json", "\u{0}".into()),
        (400, "application/json", "null".into()),
        (400, "application/json", "{\"metadata\":[]}".into()),
        (
            400,
            "application/json",
            "{\"metadata\":{\"name\":7}}".into(),
        ),
        (400, "application/yaml", format!("x: &a0 [1]\n{aliases}")),
        (400, "application/yaml", "a: [".into()),
        (400, "application/vnd.kubernetes.protobuf", "k8s".into()),
        (
            400,
            "application/vnd.kubernetes.protobuf",
            "k8s\0\u{1}\u{2}\u{3}".into(),
        ),
        (415, "text/plain", "a=b".into()),
    ] {
        let shown: String = body.chars().take(40).collect();
        let reply = server
            .send("POST", MAPS, &[("content-type", content_type)], body)
            .await;
        assert_eq!(
            reply.code,
            code,
            "{content_type} {shown}: {}",
            String::from_utf8_lossy(&reply.body)
        );
        assert_eq!(reply.json()["kind"], "Status");
    }
    for (method, path, code) in [
        ("GET", "/", 200),
        ("GET", "/nope", 404),
        ("GET", "/api/v2", 404),
        ("GET", "/apis/nope", 404),
        ("GET", "/api/v1/pods/p", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", "/api/v1/namespaces/default/pods/p/nope", 404),
        (
            "GET",
            "/api/v1/namespaces/%2e%2e/configmaps/%2Fregistry",
            404,
        ),
        ("POST", "/api/v1/pods", 405),
        ("POST", "/api/v1/namespaces/default/pods/p", 405),
        ("DELETE", "/api/v1/namespaces", 405),
        ("BREW", "/api/v1/namespaces/default/pods", 405),
        ("POST", "/version", 405),
        ("GET", "/api/v1/pods?limit=x", 400),
        ("GET", "/api/v1/pods?includeObject=Half", 422),
    ] {
        let reply = server
            .send(method, path, &[("content-type", "application/json")], "{}")
            .await;
        assert_eq!(
            reply.code,
            code,
            "{method} {path}: {}",
            String::from_utf8_lossy(&reply.body)
        );
    }
    assert_eq!(server.get("/readyz").await.code, 200);
}
