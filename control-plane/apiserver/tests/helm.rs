//! What Helm asks of a server, in its order: an install with its records in Secrets, a wait, an upgrade by three-way
//! patches (version 3) and one by server-side apply over what an earlier version made (version 4), an uninstall.

mod support;

use api::value::{list, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::{Reply, Server};

const NAMESPACE: &str = "/api/v1/namespaces/shop";
const SECRETS: &str = "/api/v1/namespaces/shop/secrets";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";

async fn with_namespace() -> Server {
    let server = Server::new().await;
    let namespace = json!({"metadata": {"name": "shop", "labels": {"name": "shop"}}});
    server.post("/api/v1/namespaces", &namespace).await.ok();
    server
}

/// What marks an object as a release's.
fn owned(mut object: Value) -> Value {
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm".into();
    object["metadata"]["annotations"] = json!({
        "meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "shop",
    });
    object
}

fn deployment(image: &str) -> Value {
    owned(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [
                    {"name": "web", "image": image, "ports": [{"name": "http", "containerPort": 80}]},
                ]},
            },
        },
    }))
}

/// What a chart makes, in the order in which it is made; collections and objects.
fn chart() -> Vec<(&'static str, Value)> {
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "web"});
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let of = |api_version: &str, kind: &str, more: Value| {
        let mut object = json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        owned(object)
    };
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    vec![
        (
            "/api/v1/namespaces/shop/serviceaccounts",
            of("v1", "ServiceAccount", json!({})),
        ),
        (
            SECRETS,
            of("v1", "Secret", json!({"stringData": {"k": "v"}})),
        ),
        (
            "/api/v1/namespaces/shop/configmaps",
            of("v1", "ConfigMap", json!({"data": {"k": "v"}})),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
            of(RBAC, "Role", json!({"rules": rules})),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
            of(RBAC, "RoleBinding", json!({"roleRef": role})),
        ),
        (
            "/api/v1/namespaces/shop/services",
            of(
                "v1",
                "Service",
                json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
            ),
        ),
        (DEPLOYMENTS, deployment("web:1")),
        (
            "/apis/networking.k8s.io/v1/namespaces/shop/ingresses",
            of(
                "networking.k8s.io/v1",
                "Ingress",
                json!({"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}),
            ),
        ),
    ]
}

/// The record of a release, of as many bytes as a large chart has.
fn record(version: u32, status: &str, bytes: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
        "metadata": {
            "name": format!("sh.helm.release.v1.web.v{version}"),
            "labels": {"name": "web", "owner": "helm", "status": status, "version": version.to_string()},
        },
        "data": {"release": STANDARD.encode("r".repeat(bytes))},
    })
}

/// Names of the records that a selector picks.
async fn records(server: &Server, selector: &str) -> Vec<String> {
    let selector = selector.replace('=', "%3D").replace(',', "%2C");
    let path = format!("{SECRETS}?labelSelector={selector}");
    let found = server.get(&path).await.ok();
    list(&found, &["items"])
        .iter()
        .map(|item| text(item, &["metadata", "name"]).to_owned())
        .collect()
}

async fn mark(server: &Server, version: u32, status: &str) {
    let path = format!("{SECRETS}/sh.helm.release.v1.web.v{version}");
    let mut stored = server.get(&path).await.ok();
    stored["metadata"]["labels"]["status"] = status.into();
    server.put(&path, &stored).await.ok();
}

async fn install(server: &Server) {
    // Nothing of that name, as a release or as an object.
    assert!(records(server, "name=web,owner=helm").await.is_empty());
    for (collection, _) in chart() {
        server.get(&format!("{collection}/web")).await.refused(404);
    }
    // As --dry-run=server has it.
    for (collection, object) in chart() {
        let path = format!("{collection}?dryRun=All&fieldManager=helm&fieldValidation=Strict");
        let tried = server.post(&path, &object).await;
        assert_eq!(tried.code, 201);
        assert_eq!(tried.json()["metadata"]["resourceVersion"], Value::Null);
    }
    let pending = record(1, "pending-install", 700_000);
    server.post(SECRETS, &pending).await.ok();
    for (collection, object) in chart() {
        let path = format!("{collection}?fieldManager=helm");
        let made = server.post(&path, &object).await.ok();
        assert_eq!(
            made["metadata"]["managedFields"][0]["manager"], "helm",
            "{made}"
        );
    }
    mark(server, 1, "deployed").await;
}

#[tokio::test]
async fn discovery_and_schemas_are_those_that_it_reads_first() {
    let server = Server::new().await;
    let version = server.get("/version").await.ok();
    assert_eq!(
        (&version["major"], &version["minor"]),
        (&json!("1"), &json!("35"))
    );
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for path in ["/api", "/apis"] {
        let found = server.get_as(path, accept).await;
        assert_eq!(found.ok()["kind"], "APIGroupDiscoveryList");
        assert!(
            found
                .header("content-type")
                .contains("as=APIGroupDiscoveryList")
        );
    }
    let index = server.get("/openapi/v3").await.ok();
    let url = text(&index, &["paths", "apis/apps/v1", "serverRelativeURL"]);
    assert!(server.get(url).await.ok()["paths"].is_object());
    let proto = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let document = server.get_as("/openapi/v2", proto).await;
    assert!(document.code == 200 && !document.body.is_empty());
}

#[tokio::test]
async fn a_release_is_installed_upgraded_and_uninstalled() {
    let server = with_namespace().await;
    install(&server).await;
    let deployed = records(&server, "name=web,owner=helm,status=deployed").await;
    assert_eq!(deployed, ["sh.helm.release.v1.web.v1"]);
    // Listed by type as well, and never more than a Secret holds.
    let typed = format!("{SECRETS}?fieldSelector=type%3Dhelm.sh/release.v1");
    assert_eq!(list(&server.get(&typed).await.ok(), &["items"]).len(), 1);
    let large = server
        .post(SECRETS, &record(9, "deployed", (1 << 20) + 1))
        .await;
    assert_eq!(
        large.refused(422),
        "Secret \"sh.helm.release.v1.web.v9\" is invalid: data: Too long: may not be more than 1048576 bytes"
    );

    // A wait: the state first, then what changes.
    let path = format!("{DEPLOYMENTS}/web");
    let waited = format!("{DEPLOYMENTS}?fieldSelector=metadata.name%3Dweb&watch=true");
    let mut watch = server.watch(&waited).await;
    assert_eq!(watch.line().await, "ADDED web");
    let done = json!({"status": {
        "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
    }});
    let status = format!("{path}/status");
    server.patch(&status, "strategic-merge", &done).await.ok();
    let seen = watch.next().await.unwrap();
    assert_eq!(seen["object"]["status"]["readyReplicas"], 2);
    assert_eq!(seen["object"]["metadata"]["generation"], 1);

    // Version 3: what differs from the last release and from what stands there, as a strategic merge patch.
    server
        .post(SECRETS, &record(2, "pending-upgrade", 1000))
        .await
        .ok();
    let change = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "web"}], "containers": [{"name": "web", "image": "web:2"}],
    }}}});
    let by_helm = format!("{path}?fieldManager=helm");
    let changed = server
        .patch(&by_helm, "strategic-merge", &change)
        .await
        .ok();
    let containers = &changed["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["image"], "web:2");
    assert_eq!(containers[0]["ports"][0]["containerPort"], 80);
    assert_eq!(changed["metadata"]["generation"], 2);
    mark(&server, 1, "superseded").await;
    mark(&server, 2, "deployed").await;
    let deployed = records(&server, "name=web,owner=helm,status=deployed").await;
    assert_eq!(deployed, ["sh.helm.release.v1.web.v2"]);
    assert_eq!(records(&server, "name=web,owner=helm").await.len(), 2);

    for (collection, _) in chart().into_iter().rev() {
        let options =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        let path = format!("{collection}/web");
        let headers = [("content-type", "application/json")];
        let gone = server
            .send("DELETE", &path, &headers, options.to_string())
            .await;
        gone.ok();
        server.get(&path).await.refused(404);
    }
    for record in records(&server, "owner=helm").await {
        server.delete(&format!("{SECRETS}/{record}")).await.ok();
    }
    server.delete(NAMESPACE).await.ok();
}

/// Applies as version 4 does.
async fn apply(server: &Server, object: &Value, force: bool) -> Reply {
    let path = format!("{DEPLOYMENTS}/web?fieldManager=helm&fieldValidation=Strict&force={force}");
    let headers = [("content-type", "application/apply-patch+yaml")];
    server
        .send("PATCH", &path, &headers, object.to_string())
        .await
}

#[tokio::test]
async fn what_was_made_by_updates_is_taken_over_by_apply() {
    let server = with_namespace().await;
    install(&server).await;
    let path = format!("{DEPLOYMENTS}/web");
    let made = server.get(&path).await.ok();

    // The record of updates becomes one of applies, by a patch that holds for this version of the object alone.
    let mut entries = list(&made, &["metadata", "managedFields"]).to_vec();
    assert_eq!(entries.len(), 1);
    entries[0]["operation"] = "Apply".into();
    let upgrade = |version: &str| {
        json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": entries},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        ])
    };
    let stale = server.patch(&path, "json", &upgrade("1")).await;
    assert!(stale.refused(409).contains("the object has been modified"));
    let version = text(&made, &["metadata", "resourceVersion"]);
    let upgraded = server.patch(&path, "json", &upgrade(version)).await.ok();
    let owners = list(&upgraded, &["metadata", "managedFields"]);
    assert_eq!(owners.len(), 1, "{owners:?}");
    assert_eq!(owners[0]["operation"], "Apply");

    // No conflict with itself; what the chart no longer has goes.
    let mut next = deployment("web:2");
    let labels = next["metadata"]["annotations"].as_object_mut().unwrap();
    labels.remove("meta.helm.sh/release-namespace");
    let applied = apply(&server, &next, false).await.ok();
    let spec = &applied["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["image"], "web:2");
    let left = &applied["metadata"]["annotations"];
    assert_eq!(left, &json!({"meta.helm.sh/release-name": "web"}));
    // The same again changes nothing.
    let again = apply(&server, &next, false).await.ok();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        applied["metadata"]["resourceVersion"]
    );

    // Who scaled it by hand is told of, unless it is forced.
    let by_hand = format!("{path}?fieldManager=kubectl-edit");
    let scaled = json!({"spec": {"replicas": 5}});
    server
        .patch(&by_hand, "strategic-merge", &scaled)
        .await
        .ok();
    let refused = apply(&server, &next, false).await.refused(409);
    assert_eq!(
        refused,
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.replicas"
    );
    let forced = apply(&server, &next, true).await.ok();
    assert_eq!(forced["spec"]["replicas"], 2);
}
