//! ValidatingAdmissionPolicies and their bindings.
#![allow(
    clippy::needless_pass_by_value,
    reason = "a table reads better with values in place"
)]

mod support;

use serde_json::{Value, json};
use support::Server;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn policy(server: &Server, name: &str, spec: Value) -> Value {
    let mut whole = json!({"matchConstraints": {"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]},
    ]}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let body = json!({"metadata": {"name": name}, "spec": whole});
    let path = format!("{GROUP}/validatingadmissionpolicies");
    server.post(&path, &body).await.ok()
}

async fn bind(server: &Server, name: &str, policy: &str, change: Value) {
    let mut spec = json!({"policyName": policy, "validationActions": ["Deny"]});
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let body = json!({"metadata": {"name": name}, "spec": spec});
    let path = format!("{GROUP}/validatingadmissionpolicybindings");
    server.post(&path, &body).await.ok();
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_policy_refuses_where_it_is_bound() {
    let server = Server::new().await;
    let rules = json!({
        "variables": [{"name": "size", "expression": "size(object.data)"}],
        "validations": [
            {"expression": "variables.size < 2", "messageExpression": "'has ' + string(variables.size) + ' keys'"},
            {"expression": "!('secret' in object.data)", "message": "no secrets", "reason": "Forbidden"},
        ],
    });
    policy(&server, "small", rules).await;
    server
        .post(MAPS, &map("before", json!({"a": "1", "b": "2"})))
        .await
        .ok();
    bind(&server, "small-here", "small", json!({})).await;
    let large = server
        .post(MAPS, &map("large", json!({"a": "1", "b": "2"})))
        .await;
    let message =
        "ValidatingAdmissionPolicy 'small' with binding 'small-here' denied request: has 2 keys";
    assert_eq!(
        large.refused(422),
        format!("configmaps \"large\" is forbidden: {message}")
    );
    let status = large.json();
    assert_eq!(status["reason"], "Invalid");
    assert_eq!(status["details"]["causes"], json!([{"message": message}]));
    let secret = server.post(MAPS, &map("s", json!({"secret": "1"}))).await;
    assert!(secret.refused(403).ends_with("denied request: no secrets"));
    server
        .post(MAPS, &map("fine", json!({"a": "1"})))
        .await
        .ok();
    let changed = server
        .patch(
            &format!("{MAPS}/fine"),
            "merge",
            &json!({"data": {"b": "2"}}),
        )
        .await;
    assert_eq!(changed.code, 422);
    // Deletions are none of its operations, and without its binding it holds nowhere.
    server.delete(&format!("{MAPS}/before")).await.ok();
    server
        .delete(&format!(
            "{GROUP}/validatingadmissionpolicybindings/small-here"
        ))
        .await
        .ok();
    server
        .post(MAPS, &map("large", json!({"a": "1", "b": "2"})))
        .await
        .ok();
}

#[tokio::test]
async fn parameters_decide() {
    let server = Server::new().await;
    server
        .post(
            "/api/v1/namespaces",
            &json!({"metadata": {"name": "limits"}}),
        )
        .await
        .ok();
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-itself", "expression": "object.metadata.namespace != 'limits'"}],
        "validations": [{"expression": "size(object.data) <= int(params.data.max)"}],
    });
    policy(&server, "sized", spec).await;
    let reference = json!({"paramRef": {"name": "max", "namespace": "limits", "parameterNotFoundAction": "Deny"}});
    bind(&server, "b", "sized", reference).await;
    let two = map("two", json!({"a": "1", "b": "2"}));
    let refused = server.post(MAPS, &two).await.refused(422);
    assert!(
        refused.ends_with("no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{refused}"
    );
    let limits = "/api/v1/namespaces/limits/configmaps";
    // The condition is about the object, but there are no parameters to ask with yet.
    server
        .delete(&format!("{GROUP}/validatingadmissionpolicybindings/b"))
        .await
        .ok();
    server
        .post(limits, &map("max", json!({"max": "1"})))
        .await
        .ok();
    bind(&server, "c", "sized", json!({"paramRef": {"name": "max", "namespace": "limits", "parameterNotFoundAction": "Deny"}})).await;
    let refused = server.post(MAPS, &two).await.refused(422);
    assert!(
        refused.ends_with("failed expression: size(object.data) <= int(params.data.max)"),
        "{refused}"
    );
    server
        .patch(
            &format!("{limits}/max"),
            "merge",
            &json!({"data": {"max": "2"}}),
        )
        .await
        .ok();
    server.post(MAPS, &two).await.ok();
}

#[tokio::test]
async fn warnings_selectors_and_bad_expressions() {
    let server = Server::new().await;
    policy(
        &server,
        "never",
        json!({"validations": [{"expression": "false", "message": "never"}]}),
    )
    .await;
    let warn = json!({
        "validationActions": ["Warn", "Audit"],
        "matchResources": {"objectSelector": {"matchLabels": {"told": "y"}}},
    });
    bind(&server, "w", "never", warn).await;
    let plain = server.post(MAPS, &map("a", json!({}))).await;
    plain.ok();
    assert_eq!(plain.header("warning"), "");
    let mut told = map("b", json!({}));
    told["metadata"]["labels"] = json!({"told": "y"});
    let told = server.post(MAPS, &told).await;
    told.ok();
    assert_eq!(
        told.header("warning"),
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'never' with binding 'w': never\""
    );
    let bad = json!({"metadata": {"name": "bad"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
        "validations": [{"expression": "nope.x"}, {"expression": "'text'"}],
    }});
    let refused = server
        .post(&format!("{GROUP}/validatingadmissionpolicies"), &bad)
        .await
        .refused(422);
    assert!(refused.contains("spec.validations[0].expression: Invalid value: \"nope.x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope'"), "{refused}");
    assert!(
        refused.contains(
            "spec.validations[1].expression: Invalid value: \"'text'\": must evaluate to bool"
        ),
        "{refused}"
    );
}
