//! What the agent of a node may read and write: the Node authorizer and NodeRestriction.

mod support;

use serde_json::{Value, json};
use support::{Reply, Server};

async fn as_node(server: &Server, node: &str, method: &str, path: &str, body: &Value) -> Reply {
    let user = format!("system:node:{node}");
    let headers = [
        ("impersonate-user", user.as_str()),
        ("impersonate-group", "system:nodes"),
        (
            "content-type",
            if method == "PATCH" {
                "application/merge-patch+json"
            } else {
                "application/json"
            },
        ),
    ];
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    server.send(method, path, &headers, body).await
}

#[tokio::test]
async fn an_agent_reads_what_its_pods_need() {
    let server = Server::new().await;
    let core = "/api/v1/namespaces/default";
    for name in ["used", "other"] {
        server
            .post(
                &format!("{core}/secrets"),
                &json!({"metadata": {"name": name}}),
            )
            .await
            .ok();
        server
            .post(
                &format!("{core}/configmaps"),
                &json!({"metadata": {"name": name}}),
            )
            .await
            .ok();
    }
    for name in ["a", "b"] {
        server
            .post("/api/v1/nodes", &json!({"metadata": {"name": name}}))
            .await
            .ok();
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "a",
        "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "used"}}]}],
        "volumes": [{"name": "v", "secret": {"secretName": "used"}}]}});
    server.post(&format!("{core}/pods"), &pod).await.ok();
    let get = async |node: &str, path: String| {
        as_node(&server, node, "GET", &path, &Value::Null)
            .await
            .code
    };
    #[rustfmt::skip]
    let cases = [
        ("a", format!("{core}/secrets/used"), 200), ("a", format!("{core}/configmaps/used"), 200),
        ("a", format!("{core}/secrets/other"), 403), ("a", format!("{core}/configmaps/other"), 403),
        ("b", format!("{core}/secrets/used"), 403), ("a", format!("{core}/secrets"), 403),
        ("a", format!("{core}/secrets?fieldSelector=metadata.name%3Dused"), 200),
        ("a", format!("{core}/pods/p"), 200), ("b", format!("{core}/pods/p"), 403),
        ("a", "/api/v1/pods?fieldSelector=spec.nodeName%3Da".into(), 200), ("a", "/api/v1/pods".into(), 403),
        ("a", "/api/v1/nodes/a".into(), 200), ("a", "/api/v1/nodes/b".into(), 403),
        ("a", "/api/v1/services".into(), 200), ("a", "/apis/apps/v1/deployments".into(), 403),
    ];
    for (node, path, code) in cases {
        assert_eq!(get(node, path.clone()).await, code, "{node} {path}");
    }
    let refused = as_node(
        &server,
        "b",
        "GET",
        &format!("{core}/secrets/used"),
        &Value::Null,
    )
    .await
    .refused(403);
    assert!(
        refused.ends_with("no relationship found between node 'b' and this object"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_agent_writes_what_is_its_own() {
    let server = Server::new().await;
    let node = json!({"metadata": {"name": "a", "labels": {"kubernetes.io/hostname": "a"}}});
    as_node(&server, "a", "POST", "/api/v1/nodes", &node)
        .await
        .ok();
    let other = as_node(
        &server,
        "a",
        "POST",
        "/api/v1/nodes",
        &json!({"metadata": {"name": "b"}}),
    )
    .await;
    assert!(
        other
            .refused(403)
            .ends_with("node \"a\" is not allowed to modify node \"b\"")
    );
    let status = json!({"status": {"phase": "Running"}});
    as_node(&server, "a", "PATCH", "/api/v1/nodes/a/status", &status)
        .await
        .ok();
    let taints = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    assert_eq!(
        as_node(&server, "a", "PATCH", "/api/v1/nodes/a", &taints)
            .await
            .code,
        403
    );
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    for (name, code) in [("a", 201), ("b", 403)] {
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
        assert_eq!(
            as_node(&server, "a", "POST", leases, &lease).await.code,
            code,
            "{name}"
        );
    }
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, node: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(
        as_node(&server, "a", "POST", pods, &pod("own", "a"))
            .await
            .code,
        403
    );
    for (name, node) in [("mine", "a"), ("theirs", "b")] {
        server.post(pods, &pod(name, node)).await.ok();
    }
    for (name, code) in [("mine", 200), ("theirs", 403)] {
        let reply = as_node(
            &server,
            "a",
            "PATCH",
            &format!("{pods}/{name}/status"),
            &status,
        )
        .await;
        assert_eq!(reply.code, code, "{name}");
        let gone = as_node(
            &server,
            "a",
            "DELETE",
            &format!("{pods}/{name}?gracePeriodSeconds=0"),
            &Value::Null,
        )
        .await;
        assert_eq!(gone.code, code, "{name}");
    }
}
