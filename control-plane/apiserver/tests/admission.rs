//! Roles and admission through the server: what is written decides the next request, and objects are changed, refused
//! and counted as they are written.

mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use storage::memory::Memory;
use support::{Reply, Server};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn as_user(server: &Server, user: &str, method: &str, path: &str, body: &Value) -> Reply {
    let headers = [
        ("impersonate-user", user),
        ("content-type", "application/json"),
    ];
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    server.send(method, path, &headers, body).await
}

fn role(name: &str, verbs: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name}, "subjects": [{"kind": "User", "name": user}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
    })
}

#[tokio::test]
async fn what_is_written_decides_the_next_request() {
    let server = Server::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let list = async || {
        as_user(&server, "jane", "GET", maps, &Value::Null)
            .await
            .code
    };
    assert_eq!(list().await, 403);
    server.post(&roles, &role("reader", &["list"])).await.ok();
    server
        .post(&bindings, &binding("b", "Role", "reader", "jane"))
        .await
        .ok();
    assert_eq!(list().await, 200);
    server
        .put(&format!("{roles}/reader"), &role("reader", &["get"]))
        .await
        .ok();
    assert_eq!(list().await, 403);
    server
        .put(&format!("{roles}/reader"), &role("reader", &["list"]))
        .await
        .ok();
    assert_eq!(list().await, 200);
    server.delete(&format!("{bindings}/b")).await.ok();
    assert_eq!(list().await, 403);
}

#[tokio::test]
async fn nobody_grants_what_he_does_not_hold() {
    let server = Server::new().await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    server
        .post(&bindings, &binding("admins", "ClusterRole", "admin", "ann"))
        .await
        .ok();
    let made = as_user(&server, "ann", "POST", &roles, &role("r", &["get", "list"])).await;
    assert_eq!(made.code, 201);
    let mut nodes = role("n", &["get"]);
    nodes["rules"][0]["resources"] = json!(["nodes"]);
    assert_eq!(
        as_user(&server, "ann", "POST", &roles, &nodes)
            .await
            .refused(403),
        "roles.rbac.authorization.k8s.io \"n\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], \
         Verbs:[\"get\"]}"
    );
    let all = binding("all", "ClusterRole", "cluster-admin", "eve");
    let refused = as_user(&server, "ann", "POST", &bindings, &all)
        .await
        .refused(403);
    assert!(
        refused.contains("{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"),
        "{refused}"
    );
    let missing = binding("m", "Role", "missing", "eve");
    assert_eq!(
        as_user(&server, "ann", "POST", &bindings, &missing)
            .await
            .refused(404),
        "roles.rbac.authorization.k8s.io \"missing\" not found"
    );
    let held = binding("held", "Role", "r", "eve");
    assert_eq!(
        as_user(&server, "ann", "POST", &bindings, &held).await.code,
        201
    );
}

#[tokio::test]
async fn default_roles_are_there_and_are_mended() {
    let storage = Arc::new(Memory::new());
    let server = Server::with(storage.clone(), |_| {}).await;
    let count = async |server: &Server, plural: &str| {
        let list = server.get(&format!("{RBAC}/{plural}")).await.ok();
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(count(&server, "clusterroles").await, 71);
    assert_eq!(count(&server, "clusterrolebindings").await, 52);
    let path = format!("{RBAC}/clusterroles/system:basic-user");
    let before = server.get(&path).await.ok();
    assert_eq!(
        before["metadata"]["labels"]["kubernetes.io/bootstrapping"],
        "rbac-defaults"
    );
    server
        .patch(&path, "merge", &json!({"rules": []}))
        .await
        .ok();
    server
        .delete(&format!("{RBAC}/clusterrolebindings/system:discovery"))
        .await
        .ok();
    let again = Server::with(storage, |_| {}).await;
    assert_eq!(again.get(&path).await.ok()["rules"], before["rules"]);
    assert_eq!(count(&again, "clusterrolebindings").await, 52);
}

async fn admitting() -> Server {
    let server = Server::with(Arc::new(Memory::new()), |config| {
        config.disable_admission_plugins = Vec::new();
    })
    .await;
    let account = json!({"metadata": {"name": "default"}});
    server
        .post("/api/v1/namespaces/default/serviceaccounts", &account)
        .await
        .ok();
    server
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn a_pod_is_given_its_account() {
    let server = admitting().await;
    let pods = "/api/v1/namespaces/default/pods";
    let made = server.post(pods, &pod("p")).await.ok();
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["priority"], 0);
    let mut other = pod("o");
    other["spec"]["serviceAccountName"] = "none".into();
    assert_eq!(
        server.post(pods, &other).await.refused(403),
        "pods \"o\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found"
    );
    // An update of what admission filled in is none.
    let again = server.put(&format!("{pods}/p"), &made).await.ok();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn standards_of_a_namespace_refuse_and_warn() {
    let server = admitting().await;
    let labels = |mode: &str| json!({"metadata": {"labels": {format!("pod-security.kubernetes.io/{mode}"): "baseline"}}});
    server
        .patch("/api/v1/namespaces/default", "merge", &labels("warn"))
        .await
        .ok();
    let mut host = pod("p");
    host["spec"]["hostPID"] = true.into();
    let warned = server
        .post("/api/v1/namespaces/default/pods?dryRun=All", &host)
        .await;
    assert_eq!(warned.code, 201);
    assert!(
        warned
            .header("warning")
            .contains("would violate PodSecurity"),
        "{:?}",
        warned.headers
    );
    server
        .patch("/api/v1/namespaces/default", "merge", &labels("enforce"))
        .await
        .ok();
    assert_eq!(
        server
            .post("/api/v1/namespaces/default/pods", &host)
            .await
            .refused(403),
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
    );
}

#[tokio::test]
async fn quotas_hold_however_many_write() {
    let server = Arc::new(admitting().await);
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let maps = "/api/v1/namespaces/default/configmaps";
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5", "count/secrets": "1"}}});
    server.post(quotas, &quota).await.ok();
    let used = async || {
        let quota = server.get(&format!("{quotas}/q")).await.ok();
        quota["status"]["used"]["configmaps"].clone()
    };
    assert_eq!(used().await, "0");
    let writers = (0..20).map(|n| {
        let server = server.clone();
        tokio::spawn(async move {
            let map = json!({"metadata": {"name": format!("m{n}")}});
            server.post(maps, &map).await.code
        })
    });
    let mut made = 0;
    for writer in writers.collect::<Vec<_>>() {
        match writer.await.unwrap() {
            201 => made += 1,
            403 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(made, 5);
    assert_eq!(used().await, "5");
    let refused = server
        .post(maps, &json!({"metadata": {"name": "late"}}))
        .await
        .refused(403);
    assert_eq!(
        refused,
        "configmaps \"late\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: \
         configmaps=5"
    );
    let list = server.get(maps).await.ok();
    let first = list["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    server.delete(&format!("{maps}/{first}")).await.ok();
    assert_eq!(used().await, "4");
    server
        .post(maps, &json!({"metadata": {"name": "late"}}))
        .await
        .ok();
    let more = json!({"spec": {"hard": {"configmaps": "9"}}});
    server
        .patch(&format!("{quotas}/q"), "merge", &more)
        .await
        .ok();
    let quota = server.get(&format!("{quotas}/q")).await.ok();
    assert_eq!(quota["status"]["hard"]["configmaps"], "9");
}
