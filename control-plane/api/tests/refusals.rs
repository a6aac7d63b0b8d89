//! Requests that are refused, and the whole answer: shapes and messages are those of kube-apiserver 1.36, which
//! clients compare and people search for.

use api::decode::{self, FieldValidation};
use api::meta::Stamps;
use api::service::{Family, assign_families};
use api::status::Status;
use api::{Resource, table, write};
use serde_json::{Value, json};

fn stamps() -> Stamps {
    Stamps {
        now: time::OffsetDateTime::UNIX_EPOCH,
        uid: "11111111-2222-3333-4444-555555555555".into(),
        suffix: "abcde".into(),
    }
}

fn create(resource: &Resource, body: &[u8], validation: FieldValidation) -> Result<Value, Status> {
    let mut object = decode::json(resource, body, validation)?.object;
    let namespace = if resource.namespaced { "default" } else { "" };
    write::create(resource, &mut object, namespace, &stamps())?;
    if resource.plural == "services" {
        assign_families(&mut object, None, &[Family::V4])
            .map_err(|wrong| Status::invalid_object(resource, api::meta::name(&object), &wrong))?;
    }
    Ok(object)
}

fn shown(status: &Status) -> Value {
    let mut value = status.to_value();
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata"));
    }
    value
}

#[test]
fn refused_creations() {
    let mut differing = Vec::new();
    let cases: Vec<Value> = include_str!("data/refused_creations.jsonl")
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(cases.len() > 20);
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let resource = table::find(text("group"), "v1", text("plural")).unwrap();
        let validation = FieldValidation::parse(text("validation")).unwrap();
        let met = match create(resource, text("body").as_bytes(), validation) {
            Ok(object) => json!({"created": object}),
            Err(status) => shown(&status),
        };
        if met != case["answer"] {
            differing.push(format!(
                "{}\n  expected {}\n  met      {met}",
                case["body"], case["answer"]
            ));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
