//! `[sig-api-machinery] ValidatingAdmissionPolicy`.

use serde_json::{Value, json};

use crate::support::Server;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

async fn bound(server: &Server, spec: Value) {
    let mut whole = spec;
    whole["matchConstraints"] = json!({"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]},
    ]});
    let policy = json!({"metadata": {"name": "policy.e2e.example.com"}, "spec": whole});
    server
        .post(&format!("{GROUP}/validatingadmissionpolicies"), &policy)
        .await
        .ok();
    let binding = json!({"metadata": {"name": "binding.e2e.example.com"}, "spec": {
        "policyName": "policy.e2e.example.com", "validationActions": ["Deny"],
    }});
    server
        .post(
            &format!("{GROUP}/validatingadmissionpolicybindings"),
            &binding,
        )
        .await
        .ok();
}

/// [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment [Conformance]
#[tokio::test]
async fn against_a_deployment() {
    let server = Server::new().await;
    bound(&server, json!({"validations": [
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
        {"expression": "namespaceObject.metadata.name == 'default'", "message": "Internal error! Other namespace should not be allowed."},
    ]}))
    .await;
    let refused = server
        .post(DEPLOYMENTS, &deployment("replicated", 1))
        .await
        .refused(422);
    assert!(
        refused.ends_with("denied request: wants replicas > 1, got 1"),
        "{refused}"
    );
    server
        .post(DEPLOYMENTS, &deployment("replicated", 2))
        .await
        .ok();
    let scaled = server
        .patch(
            &format!("{DEPLOYMENTS}/replicated"),
            "merge",
            &json!({"spec": {"replicas": 0}}),
        )
        .await;
    assert_eq!(scaled.code, 422);
}

/// [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables. [Conformance]
#[tokio::test]
async fn with_variables() {
    let server = Server::new().await;
    bound(
        &server,
        json!({
            "variables": [
                {"name": "replicas", "expression": "object.spec.replicas"},
                {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
            ],
            "validations": [
                {"expression": "variables.replicas > 1"},
                {"expression": "variables.oddReplicas"},
            ],
        }),
    )
    .await;
    assert_eq!(
        server
            .post(DEPLOYMENTS, &deployment("replicated", 1))
            .await
            .code,
        422
    );
    assert_eq!(
        server
            .post(DEPLOYMENTS, &deployment("replicated", 2))
            .await
            .code,
        422
    );
    server
        .post(DEPLOYMENTS, &deployment("replicated", 3))
        .await
        .ok();
}
