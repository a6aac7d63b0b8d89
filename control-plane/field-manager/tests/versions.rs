//! Managers of one object that write in versions which have other fields for the same.

use api::table;
use field_manager::{Refusal, Type, Writer, apply, track};
use serde_json::{Value, json};

const KIND: &str = "HorizontalPodAutoscaler";

fn writer<'a>(manager: &'a str, api_version: &'a str) -> Writer<'a> {
    Writer {
        manager,
        subresource: "",
        api_version,
        now: "2026-01-02T03:04:05Z",
        without_status: true,
    }
}

fn row(api_version: &str) -> &'static table::Resource {
    let version = api_version.strip_prefix("autoscaling/").unwrap();
    table::find_kind("autoscaling", version, KIND).unwrap()
}

fn of(api_version: &str) -> Type<'static> {
    Type::built_in(api::schema::of(row(api_version)).unwrap())
}

/// As a server of both versions reads what it stored.
fn read(object: &Value, api_version: &str) -> Value {
    let mut object = object.clone();
    let from = object["apiVersion"].as_str().unwrap().to_owned();
    if from == api_version {
        return object;
    }
    if let Some(conversion) = &row(&from).conversion {
        (conversion.to_stored)(&mut object);
    }
    if let Some(conversion) = &row(api_version).conversion {
        (conversion.from_stored)(&mut object);
    }
    object["apiVersion"] = api_version.into();
    object
}

fn config(api_version: &str, spec: Value) -> Value {
    let mut config = json!({
        "apiVersion": api_version, "kind": KIND, "metadata": {"name": "a", "namespace": "b"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a"}},
    });
    let members = config["spec"].as_object_mut().unwrap();
    members.extend(spec.as_object().unwrap().clone());
    config
}

fn applied(
    live: &Value,
    manager: &str,
    version: &str,
    spec: Value,
    force: bool,
) -> Result<Value, Refusal> {
    let live = read(live, version);
    let writer = writer(manager, version);
    apply(of(version), &live, &config(version, spec), &writer, force)
}

fn percent(percent: u64) -> Value {
    json!({"metrics": [{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent},
    }}]})
}

/// Whose record names the field.
fn owners(object: &Value, field: &str) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let named = entries
        .iter()
        .filter(|entry| entry["fieldsV1"]["f:spec"].get(field).is_some());
    named
        .map(|entry| entry["manager"].as_str().unwrap().to_owned())
        .collect()
}

const V1: &str = "autoscaling/v1";
const V2: &str = "autoscaling/v2";

fn first() -> Value {
    let nothing =
        json!({"apiVersion": V1, "kind": KIND, "metadata": {"name": "a", "namespace": "b"}});
    let spec = json!({"targetCPUUtilizationPercentage": 40});
    applied(&nothing, "m1", V1, spec, false).unwrap()
}

#[test]
fn a_field_of_another_name_is_fought_for_too() {
    let object = first();
    assert_eq!(owners(&object, "f:targetCPUUtilizationPercentage"), ["m1"]);
    let Err(Refusal::Conflicts(conflicts)) = applied(&object, "m2", V2, percent(50), false) else {
        panic!("a conflict");
    };
    let paths: Vec<&str> = conflicts.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(paths, [".spec.targetCPUUtilizationPercentage"]);
    // The same value is nobody's loss.
    let agreed = applied(&object, "m2", V2, percent(40), false).unwrap();
    assert_eq!(owners(&agreed, "f:targetCPUUtilizationPercentage"), ["m1"]);
    assert_eq!(owners(&agreed, "f:metrics"), ["m2"]);
    let forced = applied(&object, "m2", V2, percent(50), true).unwrap();
    assert!(owners(&forced, "f:targetCPUUtilizationPercentage").is_empty());
    assert_eq!(owners(&forced, "f:maxReplicas"), ["m1", "m2"]);
}

#[test]
fn an_update_in_another_version_takes_the_field() {
    let object = first();
    let live = read(&object, V2);
    let mut new = live.clone();
    new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = json!(60);
    track(of(V2), Some(&live), &mut new, &writer("m3", V2));
    assert!(owners(&new, "f:targetCPUUtilizationPercentage").is_empty());
    assert_eq!(owners(&new, "f:metrics"), ["m3"]);
}

#[test]
fn what_is_not_applied_again_goes_by_its_former_name() {
    let object = first();
    let left = applied(&object, "m1", V2, json!({}), false).unwrap();
    assert_eq!(
        left["spec"]
            .get("metrics")
            .and_then(Value::as_array)
            .map_or(0, Vec::len),
        0,
        "{left}"
    );
    // Unless somebody else has it, by whatever name.
    let both = applied(&object, "m2", V2, percent(40), false).unwrap();
    let kept = applied(&both, "m1", V2, json!({}), false).unwrap();
    assert_eq!(kept["spec"]["metrics"], percent(40)["metrics"]);
    assert_eq!(owners(&kept, "f:metrics"), ["m2"]);
}
