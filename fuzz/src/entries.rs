//! What fuzzing begins with: each function takes what a client could send and must return, whatever it is. Where a
//! result has to hold to something, that is asserted.
#![allow(dead_code, reason = "a fuzz target uses one of them")]

use api::decode::{self, FieldValidation};
use api::selector::{FieldSelector, LabelSelector};
use api::table::Resource;
use api::{patch, protobuf, schema};
use field_manager::{Type, Writer};
use serde_json::{Value, json};

fn row(group: &str, plural: &str) -> &'static Resource {
    api::table::find(group, "v1", plural).expect("a row of the table")
}

/// Bodies in JSON, as objects of several kinds. What was read once reads again as itself.
pub(crate) fn json(data: &[u8]) {
    for row in [
        row("", "pods"),
        row("", "services"),
        row("apps", "deployments"),
        row("", "configmaps"),
    ] {
        for validation in [FieldValidation::Ignore, FieldValidation::Strict] {
            let Ok(read) = decode::json(row, data, validation) else {
                continue;
            };
            let again = decode::check(row, read.object.clone(), FieldValidation::Ignore);
            assert_eq!(again.map(|again| again.object), Ok(read.object));
        }
    }
}

/// Bodies in YAML.
pub(crate) fn yaml(data: &[u8]) {
    let _ = decode::yaml(row("", "pods"), data, FieldValidation::Strict);
    let _ = decode::apply_patch(data);
}

/// Bodies in protobuf. What was read is written so that it reads again as itself.
pub(crate) fn protobuf(data: &[u8]) {
    if let Ok(object) = protobuf::decode(data)
        && let Some(bytes) = protobuf::encode(&object)
        && let Ok(again) = protobuf::decode(&bytes)
    {
        let bytes = protobuf::encode(&again);
        assert_eq!(
            bytes.and_then(|bytes| protobuf::decode(&bytes).ok()),
            Some(again)
        );
    }
}

/// A Pod to be changed.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y"]},
        "spec": {
            "containers": [
                {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                {"name": "d", "image": "j"},
            ],
            "tolerations": [{"key": "k", "operator": "Exists"}],
        },
    })
}

/// Strategic merge patches, JSON patches and merge patches of a Pod.
pub(crate) fn strategic(data: &[u8]) {
    let Ok(change) = decode::untyped_json(data) else {
        return;
    };
    let mut merged = pod();
    patch::merge_patch(&mut merged, &change);
    let _ = patch::json_patch(&pod(), &change);
    if let Some(schema) = schema::of(row("", "pods")) {
        let _ = patch::strategic_merge(schema, &pod(), &change);
    }
}

/// Apply patches of a Pod: what was applied once changes nothing when it is applied again.
pub(crate) fn apply(data: &[u8]) {
    let Ok((config, _)) = decode::apply_patch(data) else {
        return;
    };
    let (Some(schema), true) = (schema::of(row("", "pods")), config.is_object()) else {
        return;
    };
    let writer = Writer {
        manager: "fuzz",
        subresource: "",
        api_version: "v1",
        now: "2026-01-01T00:00:00Z",
        without_status: true,
    };
    let of = Type::built_in(schema);
    if let Ok(applied) = field_manager::apply(of, &pod(), &config, &writer, true)
        && let Ok(again) = field_manager::apply(of, &applied, &config, &writer, true)
    {
        assert_eq!(again, applied);
    }
}

/// Label selectors and field selectors.
pub(crate) fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(selector) = LabelSelector::parse(text) {
        let _ = selector.matches_object(&pod());
    }
    if let Ok(selector) = FieldSelector::parse(row("", "pods"), text) {
        let _ = selector.matches(row("", "pods"), &pod());
    }
}

/// Expressions of a policy.
pub(crate) fn cel(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let policy =
        json!({"spec": {"validations": [{"expression": text, "messageExpression": text}]}});
    let _ = admission::hook::conditions::faults("ValidatingAdmissionPolicy", &policy, &Value::Null);
    let object = pod();
    let inputs = admission::hook::expression::Inputs {
        object: &object,
        old: &Value::Null,
        request: &Value::Null,
        params: &Value::Null,
        namespace: &Value::Null,
        authority: &admission::hook::rights::Nobody,
    };
    let _ = admission::hook::policy::judge(&policy, &inputs);
    for (kind, key) in [
        ("ApplyConfiguration", "applyConfiguration"),
        ("JSONPatch", "jsonPatch"),
    ] {
        let mutation = json!({"patchType": kind, key: {"expression": text}});
        let policy = json!({"spec": {"mutations": [mutation]}});
        let _ = admission::hook::mutation::change(&policy, 0, &inputs);
    }
}

/// CustomResourceDefinitions: the data is a schema.
pub(crate) fn definitions(data: &[u8]) {
    let Ok(schema) = decode::untyped_json(data) else {
        return;
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo", "singular": "foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    if !custom_resources::review(&definition, None).is_empty() {
        return;
    }
    let parsed = custom_resources::Definition::parse(&definition);
    let bytes = bytes_of(&definition);
    if let Some(rules) = custom_resources::Custom::new(&definition, &bytes, &parsed, "v1") {
        let mut object = pod();
        api::custom::Rules::prune(&rules, &mut object);
        api::custom::Rules::default(&rules, &mut object);
        let _ = api::custom::Rules::validate(&rules, &object, None, api::write::Part::Main);
    }
}

fn bytes_of(value: &Value) -> bytes::Bytes {
    value.to_string().into()
}
