//! Server-side apply and field managers through the API.

mod support;

use serde_json::{Value, json};
use support::{Reply, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn apply(server: &Server, path: &str, query: &str, body: impl Into<String>) -> Reply {
    let headers = [("content-type", "application/apply-patch+yaml")];
    server
        .send("PATCH", &format!("{path}?{query}"), &headers, body.into())
        .await
}

fn map(data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
        .to_string()
}

/// `manager operation subresource` of each entry, and the paths of its data.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array();
    let entry = |e: &Value| {
        let text = |key: &str| e[key].as_str().unwrap_or_default();
        let fields = |of: &str| {
            e["fieldsV1"][of]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, _)| k.clone())
                .collect::<Vec<_>>()
                .join(" ")
        };
        format!(
            "{} {} {}{} {}",
            text("manager"),
            text("operation"),
            text("subresource"),
            fields("f:data"),
            fields("f:metadata")
        )
        .trim_end()
        .to_owned()
    };
    entries.into_iter().flatten().map(entry).collect()
}

#[tokio::test]
async fn an_apply_makes_and_changes_what_it_owns() {
    let server = Server::new().await;
    let path = format!("{MAPS}/m");
    let made = apply(
        &server,
        &path,
        "fieldManager=one",
        map(&json!({"a": "1", "b": "1"})),
    )
    .await;
    assert_eq!(made.code, 201);
    let made = made.json();
    assert_eq!(managers(&made), ["one Apply f:a f:b"]);
    // The same again is no write.
    let again = apply(
        &server,
        &path,
        "fieldManager=one",
        map(&json!({"a": "1", "b": "1"})),
    )
    .await;
    assert_eq!((again.code, again.json()), (200, made.clone()));
    // YAML, and a field given up.
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  a: '2'\n";
    let less = apply(&server, &path, "fieldManager=one", yaml).await.ok();
    assert_eq!(less["data"], json!({"a": "2"}));
    assert_ne!(
        less["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    // Another who wants another value is refused, one who wants the same shares it.
    let refused = apply(&server, &path, "fieldManager=two", map(&json!({"a": "3"}))).await;
    assert_eq!(
        refused.refused(409),
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    assert_eq!(
        refused.json()["details"],
        json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"}]})
    );
    let shared = apply(
        &server,
        &path,
        "fieldManager=two",
        map(&json!({"a": "2", "c": "3"})),
    )
    .await
    .ok();
    assert_eq!(managers(&shared), ["one Apply f:a", "two Apply f:a f:c"]);
    // A shared field stays while one of them wants it.
    let kept = apply(&server, &path, "fieldManager=one", map(&json!({})))
        .await
        .ok();
    assert_eq!(kept["data"], json!({"a": "2", "c": "3"}));
    let forced = apply(
        &server,
        &path,
        "fieldManager=three&force=true",
        map(&json!({"a": "9"})),
    )
    .await
    .ok();
    assert_eq!(forced["data"], json!({"a": "9", "c": "3"}));
    assert_eq!(
        managers(&forced),
        ["one Apply", "three Apply f:a", "two Apply f:c"]
    );
    let tried = apply(
        &server,
        &path,
        "fieldManager=three&dryRun=All",
        map(&json!({"a": "10"})),
    )
    .await
    .ok();
    assert_eq!(tried["data"]["a"], "10");
    assert_eq!(server.get(&path).await.ok(), forced);
}

#[tokio::test]
async fn who_applies_in_another_version_is_told_of_conflicts_in_the_words_of_the_other() {
    let server = Server::new().await;
    let apply = async |version: &str, query: &str, spec: Value| {
        let mut config = json!({
            "apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"}, "spec": spec,
        });
        config["spec"]["maxReplicas"] = json!(3);
        config["spec"]["scaleTargetRef"] = json!({"kind": "Deployment", "name": "a"});
        let path = format!(
            "/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h?{query}"
        );
        let kind = [("content-type", "application/apply-patch+yaml")];
        server.send("PATCH", &path, &kind, config.to_string()).await
    };
    let spec = json!({"targetCPUUtilizationPercentage": 40});
    apply("v1", "fieldManager=m1", spec).await.ok();
    let metric = |percent: u64| {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]})
    };
    let refused = apply("v2", "fieldManager=m2", metric(50)).await;
    let status = refused.json();
    assert_eq!(refused.code, 409, "{status}");
    assert_eq!(
        status["details"]["causes"][0]["field"],
        ".spec.targetCPUUtilizationPercentage"
    );
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("conflict with \"m1\""), "{message}");
    let taken = apply("v2", "fieldManager=m2&force=true", metric(50))
        .await
        .ok();
    let found = &taken["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"];
    assert_eq!(*found, 50);
}

#[tokio::test]
async fn updates_and_patches_are_put_down_to_their_writers() {
    let server = Server::new().await;
    let path = format!("{MAPS}/m");
    let sent = json!({"metadata": {"name": "m"}, "data": {"a": "1", "b": "1"}});
    let made = server
        .post(&format!("{MAPS}?fieldManager=maker"), &sent)
        .await
        .ok();
    assert_eq!(managers(&made), ["maker Update . f:a f:b"]);
    let labelled = server
        .patch(
            &format!("{path}?fieldManager=labeller"),
            "merge",
            &json!({"metadata": {"labels": {"x": "y"}}}),
        )
        .await
        .ok();
    let mut found = managers(&labelled);
    found.sort();
    assert_eq!(
        found,
        ["labeller Update  f:labels", "maker Update . f:a f:b"]
    );
    // A write of what stands there is none, whoever sends it.
    let nothing = server
        .patch(
            &format!("{path}?fieldManager=else"),
            "merge",
            &json!({"data": {"a": "1"}}),
        )
        .await
        .ok();
    assert_eq!(nothing, labelled);
    let headers = [
        ("content-type", "application/json-patch+json"),
        ("user-agent", "program/1.0 (linux)"),
    ];
    let taken = server
        .send(
            "PATCH",
            &path,
            &headers,
            json!([{"op": "replace", "path": "/data/a", "value": "2"}]).to_string(),
        )
        .await
        .ok();
    let mut found = managers(&taken);
    found.sort();
    assert_eq!(
        found,
        [
            "labeller Update  f:labels",
            "maker Update . f:b",
            "program Update f:a"
        ]
    );

    // Records are the object's to give up, and to be begun anew by the next who applies.
    let mut new = taken.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    let reset = server.put(&path, &new).await.ok();
    assert!(managers(&reset).is_empty());
    let more = server
        .patch(&path, "merge", &json!({"data": {"c": "1"}}))
        .await
        .ok();
    assert!(managers(&more).is_empty());
    let applied = apply(
        &server,
        &path,
        "fieldManager=one&force=true",
        map(&json!({"a": "5"})),
    )
    .await
    .ok();
    assert_eq!(
        managers(&applied),
        [
            "one Apply f:a",
            "before-first-apply Update . f:b f:c f:labels"
        ]
    );
    // Records of nonsense are ignored.
    let mut new = applied.clone();
    new["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Nonsense"}]);
    assert_eq!(server.put(&path, &new).await.ok(), applied);
}

#[tokio::test]
async fn the_status_has_managers_of_its_own() {
    let server = Server::new().await;
    let path = format!("{SERVICES}/s");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    });
    let made = apply(&server, &path, "fieldManager=one", service.to_string())
        .await
        .ok();
    assert_eq!(
        made["metadata"]["managedFields"].as_array().unwrap().len(),
        1
    );
    // The status is out of reach of the object's own path, and what is allocated belongs to nobody.
    let fields = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(
        *fields,
        json!({"f:spec": {"f:type": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})
    );
    let status = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "status": service["status"]});
    let set = apply(
        &server,
        &format!("{path}/status"),
        "fieldManager=two",
        status.to_string(),
    )
    .await
    .ok();
    let entry = &set["metadata"]["managedFields"][1];
    assert_eq!(
        (entry["manager"].as_str(), entry["subresource"].as_str()),
        (Some("two"), Some("status"))
    );
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}})
    );
    // Applying the object again lets the status be.
    let again = apply(&server, &path, "fieldManager=one", service.to_string())
        .await
        .ok();
    assert_eq!(again, set);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = Server::new().await;
    server
        .post(
            MAPS,
            &json!({"metadata": {"name": "m"}, "data": {"a": "1"}}),
        )
        .await
        .ok();
    let path = format!("{MAPS}/m");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
        change(&mut map);
        map.to_string()
    };
    #[rustfmt::skip]
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("", with(&|_| {}), 422, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"),
        ("fieldManager=m", with(&|m| m["metadata"]["name"] = "z".into()), 400, "the name of the object (z) does not match the name on the URL (m)"),
        ("fieldManager=m", with(&|m| m["kind"] = "Secret".into()), 400, "invalid object type: /v1, Kind=Secret"),
        ("fieldManager=m", with(&|m| m["metadata"]["managedFields"] = json!([])), 400, "metadata.managedFields must be nil"),
        ("fieldManager=m", with(&|m| m["nope"] = 1.into()), 500, "failed to create typed patch object (/m; /v1, Kind=ConfigMap): .nope: field not declared in schema"),
        ("fieldManager=m", with(&|m| m["data"] = json!({"a": 1})), 500, "failed to create typed patch object (/m; /v1, Kind=ConfigMap): .data.a: expected string, got &value.valueUnstructured{Value:1}"),
        ("fieldManager=m", with(&|m| m["metadata"]["resourceVersion"] = "1".into()), 409, "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again"),
        ("fieldManager=m", "{bad".to_owned(), 400, ""),
        ("fieldManager=m", "a: &x [*x, *x]".to_owned(), 400, ""),
        ("fieldManager=m&fieldValidation=Strict", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: x, a: x}\n".to_owned(), 400, ""),
    ];
    for (query, body, code, message) in cases {
        let found = apply(&server, &path, query, body.clone())
            .await
            .refused(code);
        assert!(message.is_empty() || found == message, "{body}: {found}");
    }
    let cbor = [("content-type", "application/apply-patch+cbor")];
    assert_eq!(server.send("PATCH", &path, &cbor, "").await.code, 415);
    let forced = server
        .patch(&format!("{path}?force=true"), "merge", &json!({}))
        .await;
    assert_eq!(
        forced.refused(422),
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
    let uid = with(&|m| {
        m["metadata"] = json!({"name": "new", "uid": "u"});
    });
    assert_eq!(
        apply(&server, &format!("{MAPS}/new"), "fieldManager=m", uid)
            .await
            .refused(409),
        "Operation cannot be fulfilled on configmaps \"new\": uid mismatch: the provided object specified uid u, and no existing object was found"
    );
}

#[tokio::test]
async fn replicas_are_applied_through_the_scale() {
    let server = Server::new().await;
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let set = json!({
        "metadata": {"name": "r"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}},
    });
    server
        .post(&format!("{sets}?fieldManager=maker"), &set)
        .await
        .ok();
    let path = format!("{sets}/r/scale");
    let scale = |n: i32| {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "r"}, "spec": {"replicas": n}}).to_string()
    };
    assert_eq!(
        apply(&server, &path, "fieldManager=scaler", scale(3))
            .await
            .refused(409),
        "Apply failed with 1 conflict: conflict with \"maker\" using apps/v1: .spec.replicas"
    );
    let scaled = apply(&server, &path, "fieldManager=scaler&force=true", scale(3))
        .await
        .ok();
    assert_eq!(
        (scaled["kind"].as_str(), &scaled["spec"]["replicas"]),
        (Some("Scale"), &json!(3))
    );
    let stored = server.get(&format!("{sets}/r")).await.ok();
    let entry = &stored["metadata"]["managedFields"][0];
    assert_eq!(
        (entry["manager"].as_str(), entry["subresource"].as_str()),
        (Some("scaler"), Some("scale"))
    );
    assert_eq!(entry["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(
        stored["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"].get("f:replicas"),
        None
    );
}

#[tokio::test]
async fn what_is_applied_last_without_labels_keeps_its_name() {
    let server = Server::new().await;
    let path = format!("{MAPS}/m");
    let with = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"a": "b"}, "finalizers": ["x.example/y"]}});
    let made = apply(&server, &path, "fieldManager=one", with.to_string()).await;
    let uid = made.ok()["metadata"]["uid"].clone();
    let changed = apply(&server, &path, "fieldManager=one", map(&json!({}))).await;
    let metadata = &changed.ok()["metadata"];
    assert_eq!((&metadata["name"], &metadata["uid"]), (&json!("m"), &uid));
    assert_eq!(metadata.get("labels"), None);
    assert_eq!(metadata.get("finalizers"), None);
}
