//! MutatingAdmissionPolicies and their bindings.
#![allow(
    clippy::needless_pass_by_value,
    reason = "a table reads better with values in place"
)]

mod support;

use serde_json::{Value, json};
use support::Server;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A policy for ConfigMaps, bound everywhere.
async fn policy(server: &Server, name: &str, resource: [&str; 3], spec: Value) {
    let [group, version, plural] = resource;
    let mut whole = json!({"reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": [version], "resources": [plural]},
    ]}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let body = json!({"metadata": {"name": name}, "spec": whole});
    let path = format!("{GROUP}/mutatingadmissionpolicies");
    server.post(&path, &body).await.ok();
    let body = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    let path = format!("{GROUP}/mutatingadmissionpolicybindings");
    server.post(&path, &body).await.ok();
}

const MAP: [&str; 3] = ["", "v1", "configmaps"];

fn configuration(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn steps(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

#[tokio::test]
async fn policies_change_what_is_stored() {
    let server = Server::new().await;
    let spec = json!({
        "variables": [{"name": "who", "expression": "request.userInfo.username"}],
        "matchConditions": [{"name": "asks", "expression": "object.metadata.name != 'left-alone'"}],
        "mutations": [
            configuration("Object{metadata: Object.metadata{labels: {'made-by': variables.who}}, data: {'a': 'policy'}}"),
            steps("has(object.data.a) ? [JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('b/c'), value: object.data.a + '-2'}] : []"),
            steps("[JSONPatch{op: 'test', path: '/data/a', value: 'other'}, JSONPatch{op: 'remove', path: '/data/a'}]"),
        ],
    });
    policy(&server, "label", MAP, spec).await;
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "sent", "k": "v"}});
    let made = server.post(MAPS, &map).await.ok();
    assert_eq!(made["metadata"]["labels"]["made-by"], "fairlead-admin");
    assert_eq!(made["metadata"]["labels"]["b/c"], "policy-2");
    assert_eq!(made["data"], json!({"a": "policy", "k": "v"}));
    let alone = json!({"metadata": {"name": "left-alone"}, "data": {"a": "sent"}});
    let alone = server.post(MAPS, &alone).await.ok();
    assert_eq!(alone["data"], json!({"a": "sent"}));
    let patch = json!({"data": {"a": "again"}});
    let changed = server
        .patch(&format!("{MAPS}/m"), "merge", &patch)
        .await
        .ok();
    assert_eq!(changed["data"]["a"], "policy");
}

#[tokio::test]
async fn policies_add_to_lists_and_see_one_another() {
    let server = Server::new().await;
    let sidecar = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{\
        containers: [Object.spec.template.spec.containers{name: 'mesh', image: 'mesh:1'}]}}}}";
    let apps = ["apps", "v1", "deployments"];
    // Asked again, it counts what the later one added.
    let count = "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'count': string(size(object.spec.template.spec.containers))}}]";
    let spec = json!({"reinvocationPolicy": "IfNeeded", "mutations": [steps(count)]});
    policy(&server, "a-count", apps, spec).await;
    let once = json!({
        "matchConditions": [{"name": "without", "expression": "!object.spec.template.spec.containers.exists(c, c.name == 'mesh')"}],
        "mutations": [configuration(sidecar)],
    });
    policy(&server, "b-mesh", apps, once).await;
    let labels = json!({"app": "web"});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let made = server.post(path, &deployment).await.ok();
    let containers = made["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap();
    assert_eq!(containers.len(), 2);
    let mesh = containers.iter().find(|c| c["name"] == "mesh").unwrap();
    // What a policy adds has its defaults, too.
    assert_eq!(mesh["imagePullPolicy"], "IfNotPresent");
    assert_eq!(made["metadata"]["annotations"]["count"], "2");
}

#[tokio::test]
async fn what_fails_refuses_unless_it_is_to_be_ignored() {
    let server = Server::new().await;
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}});
    let dry = format!("{MAPS}?dryRun=All");
    #[rustfmt::skip]
    let cases = [
        (configuration("Object{data: {'a': object.data.none}}"), "expression 'Object{data: {'a': object.data.none}}' resulted in error: no such key: none"),
        (configuration("Object{metadata: Object.spec{}}"), "type mismatch: unexpected type name \"Object.spec\", expected \"Object.metadata\", which matches field name path from root Object type"),
        (steps("[JSONPatch{op: 'remove', path: '/nowhere'}]"), "JSONPath: "),
    ];
    for (index, (mutation, why)) in cases.into_iter().enumerate() {
        let name = format!("p{index}");
        let spec = json!({"mutations": [mutation]});
        policy(&server, &name, MAP, spec).await;
        let refused = server.post(&dry, &map).await;
        let told = format!("policy '{name}' with binding '{name}' denied request: {why}");
        let message = refused.refused(403);
        assert!(message.starts_with(&told), "{message}");
        let status = refused.json();
        assert_eq!(status["reason"], "Invalid");
        assert_eq!(status["details"]["causes"][0]["message"], message);
        let path = format!("{GROUP}/mutatingadmissionpolicies/{name}");
        let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
        server.patch(&path, "merge", &ignore).await.ok();
        server.post(&dry, &map).await.ok();
    }
    let path = format!("{GROUP}/mutatingadmissionpolicies");
    let rules = json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    for (mutation, field, why) in [
        (
            configuration("{'a': 1}"),
            "applyConfiguration",
            "must evaluate to Object",
        ),
        (
            steps("Object{}"),
            "jsonPatch",
            "must evaluate to list(JSONPatch)",
        ),
        (
            configuration("Object{"),
            "applyConfiguration",
            "compilation failed: ERROR",
        ),
    ] {
        let body = json!({"metadata": {"name": "bad"}, "spec": {"reinvocationPolicy": "Never", "matchConstraints": rules, "mutations": [mutation]}});
        let message = server.post(&path, &body).await.refused(422);
        let field = format!("spec.mutations[0].{field}.expression: Invalid value");
        assert!(
            message.contains(&field) && message.contains(why),
            "{message}"
        );
    }
}
