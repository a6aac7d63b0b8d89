//! `[sig-api-machinery] FieldValidation`.

use serde_json::{Value, json};

use super::{apply, define, definition};
use crate::support::Server;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const FOOS: &str = "/apis/e2e.example.com/v1/namespaces/default/foos";

async fn post(server: &Server, path: &str, body: &str) -> crate::support::Reply {
    let headers = [("content-type", "application/json")];
    server.send("POST", path, &headers, body.to_owned()).await
}

async fn with_schema(schema: Value) -> Server {
    let server = Server::new().await;
    define(&server, &definition("e2e.example.com", schema)).await;
    server
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "foo": {"type": "string"},
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "ports": {"type": "array", "x-kubernetes-list-map-keys": ["containerPort", "protocol"], "x-kubernetes-list-type": "map",
            "items": {"type": "object", "required": ["containerPort", "protocol"], "properties": {
                "containerPort": {"type": "integer"}, "hostPort": {"type": "integer"}, "name": {"type": "string"}, "protocol": {"type": "string"}}}},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }}}})
}

/// [sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]
#[tokio::test]
async fn of_a_typed_object() {
    let server = Server::new().await;
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","labels":{"app":"nginx"}},
        "spec":{"unknown1":"val1","unknownDupe":"valDupe","unknownDupe":"valDupe2","paused":true,"paused":false,
        "selector":{"matchLabels":{"app":"nginx"}},
        "template":{"metadata":{"labels":{"app":"nginx"}},"spec":{"containers":[{"name":"nginx","image":"nginx:latest",
        "unknownNested":"val1","imagePullPolicy":"Always","imagePullPolicy":"Never"}]}}}}"#;
    let refused = post(
        &server,
        &format!("{DEPLOYMENTS}?fieldValidation=Strict"),
        body,
    )
    .await
    .refused(400);
    for part in [
        "strict decoding error: ",
        "unknown field \"spec.unknown1\"",
        "unknown field \"spec.unknownDupe\"",
        "duplicate field \"spec.paused\"",
        "unknown field \"spec.template.spec.containers[0].unknownNested\"",
        "duplicate field \"spec.template.spec.containers[0].imagePullPolicy\"",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

/// [sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]
#[tokio::test]
async fn of_typed_metadata() {
    let server = Server::new().await;
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","unknownMeta":"foo","labels":{"app":"nginx"}},
        "spec":{"selector":{"matchLabels":{"app":"nginx"}},"template":{"metadata":{"labels":{"app":"nginx"},"unknownNestedMeta":"bar"},
        "spec":{"containers":[{"name":"nginx","image":"nginx:latest"}]}}}}"#;
    let refused = post(
        &server,
        &format!("{DEPLOYMENTS}?fieldValidation=Strict"),
        body,
    )
    .await
    .refused(400);
    for part in [
        "unknown field \"metadata.unknownMeta\"",
        "unknown field \"spec.template.metadata.unknownNestedMeta\"",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

/// [sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema [Conformance]
#[tokio::test]
async fn without_a_schema() {
    let server =
        with_schema(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
    let body = "{apiVersion: e2e.example.com/v1, kind: Foo, metadata: {name: mytest}, spec: {foo: bar, cronSpec: '* * * * */5', unknown: x}}";
    let made = apply(
        &server,
        &format!("{FOOS}/mytest"),
        "fieldValidation=Strict",
        body,
    )
    .await
    .ok();
    assert_eq!(made["spec"]["unknown"], "x");
}

/// [sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema [Conformance]
/// [sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema [Conformance]
#[tokio::test]
async fn with_a_schema() {
    let server = with_schema(schema()).await;
    let valid = "{apiVersion: e2e.example.com/v1, kind: Foo, metadata: {name: mytest}, spec: {foo: foo1, cronSpec: '* * * * */5', ports: [{name: portName, containerPort: 8080, protocol: TCP, hostPort: 8081}]}}";
    apply(
        &server,
        &format!("{FOOS}/mytest"),
        "fieldValidation=Strict",
        valid,
    )
    .await
    .ok();
    let extra = valid.replace("foo: foo1", "foo: foo1, extraProperty: arbitrary-value");
    let refused = apply(
        &server,
        &format!("{FOOS}/mytest"),
        "fieldValidation=Strict",
        &extra,
    )
    .await;
    assert!(refused.code >= 400, "{}", refused.code);
    let message = refused.json()["message"].to_string();
    assert!(
        message.contains(".spec.extraProperty") || message.contains("spec.extraProperty"),
        "{message}"
    );
}

/// [sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields [Conformance]
#[tokio::test]
async fn duplicates_in_a_custom_resource() {
    let mut schema = schema();
    schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = true.into();
    let server = with_schema(schema).await;
    let body = r#"{"apiVersion":"e2e.example.com/v1","kind":"Foo","metadata":{"name":"mytest"},
        "spec":{"unknown":"uk1","unknown":"uk2","foo":"foo1","foo":"foo2","cronSpec":"* * * * */5","ports":[
        {"name":"portName","name":"portName2","containerPort":8080,"protocol":"TCP","unknownNested":1}]}}"#;
    let refused = post(&server, &format!("{FOOS}?fieldValidation=Strict"), body)
        .await
        .refused(400);
    for part in [
        "duplicate field \"spec.unknown\"",
        "duplicate field \"spec.foo\"",
        "duplicate field \"spec.ports[0].name\"",
        "unknown field \"spec.ports[0].unknownNested\"",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

/// [sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR [Conformance]
#[tokio::test]
async fn metadata_of_a_custom_resource() {
    let server = with_schema(schema()).await;
    let body = r#"{"apiVersion":"e2e.example.com/v1","kind":"Foo","metadata":{"name":"mytest","unknownMeta":"unknown"},
        "spec":{"embedded":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m","unknownEmbeddedMeta":"x"}}}}"#;
    let refused = post(&server, &format!("{FOOS}?fieldValidation=Strict"), body)
        .await
        .refused(400);
    for part in [
        "unknown field \"metadata.unknownMeta\"",
        "unknown field \"spec.embedded.metadata.unknownEmbeddedMeta\"",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}
