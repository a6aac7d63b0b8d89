//! What is refused of kinds that have few rules, and that what is near to it is not.

use api::decode::{self, FieldValidation};
use api::meta::Stamps;
use api::{table, write};
use serde_json::Value;

#[test]
fn refusals_of_small_kinds() {
    let cases: Vec<Value> =
        serde_saphyr::from_str(include_str!("data/refused_kinds.yaml")).unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let text = |key: &str, default: &'static str| {
            case.get(key)
                .and_then(Value::as_str)
                .unwrap_or(default)
                .to_owned()
        };
        let (group, version) = (text("group", ""), text("version", "v1"));
        let resource = table::find(&group, &version, &text("resource", "")).unwrap();
        let mut sent = case["sent"].clone();
        sent["metadata"] = serde_json::json!({"name": "x"});
        let mut object = decode::check(resource, sent, FieldValidation::Strict)
            .unwrap()
            .object;
        let stamps = Stamps {
            now: time::OffsetDateTime::UNIX_EPOCH,
            uid: "u-1".into(),
            suffix: "abcde".into(),
        };
        let namespace = if resource.namespaced { "default" } else { "" };
        let met = match write::create(resource, &mut object, namespace, &stamps) {
            Ok(()) => String::new(),
            Err(status) => match status.message.split_once("is invalid: ") {
                Some((_, why)) => why.to_owned(),
                None => status.message,
            },
        };
        assert_eq!(met, text("why", ""), "{}", case["sent"]);
    }
}

#[test]
fn what_is_too_large_as_a_whole_has_no_field() {
    let maps = table::find("", "v1", "configmaps").unwrap();
    let map = |bytes: usize| serde_json::json!({"data": {"a": "x".repeat(bytes)}});
    let found: Vec<String> = (maps.validate)(&map((1 << 20) + 1))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, ["[]: Too long: may not be more than 1048576 bytes"]);
    assert_eq!((maps.validate)(&map(1 << 20)), []);
}

#[test]
fn a_secret_of_an_old_ingress_keeps_its_bad_name() {
    let ingresses = table::find("networking.k8s.io", "v1", "ingresses").unwrap();
    let ingress = |secret: &str| {
        serde_json::json!({"spec": {
            "defaultBackend": {"service": {"name": "a", "port": {"number": 1}}},
            "tls": [{"secretName": secret}],
        }})
    };
    let wrong = |new, old| (ingresses.validate_update)(&ingress(new), &ingress(old)).len();
    assert_eq!(
        [wrong("A_", "a"), wrong("A_", "B_"), wrong("a", "B_")],
        [1, 0, 0]
    );
}

#[test]
fn a_driver_may_have_a_long_name() {
    let drivers = table::find("storage.k8s.io", "v1", "csidrivers").unwrap();
    let mut driver = serde_json::json!({"metadata": {"name": "d".repeat(70)}, "spec": {}});
    (drivers.default)(&mut driver);
    assert_eq!((drivers.validate)(&driver), []);
}

#[test]
fn a_driver_stays_what_it_is_on_a_node() {
    let nodes = table::find("storage.k8s.io", "v1", "csinodes").unwrap();
    let node = |id: &str| serde_json::json!({"spec": {"drivers": [{"name": "a", "nodeID": id}]}});
    let found = (nodes.validate_update)(&node("y"), &node("x"));
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["spec.drivers[0].nodeID: Invalid value: \"y\": field is immutable"]
    );
    assert!((nodes.validate_update)(&node("x"), &node("x")).is_empty());
}

#[test]
fn classes_of_the_system_stay() {
    let classes = table::find("scheduling.k8s.io", "v1", "priorityclasses").unwrap();
    let named = |name: &str| serde_json::json!({"metadata": {"name": name}});
    let deletion = write::Deletion::default();
    let refused = deletion
        .check(classes, &named("system-node-critical"))
        .unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        "priorityclasses.scheduling.k8s.io \"system-node-critical\" is forbidden: this is a system priority class and cannot be deleted"
    );
    assert!(deletion.check(classes, &named("mine")).is_ok());
}

#[test]
fn the_state_of_a_claim_fits_the_claim() {
    let claims = table::find("resource.k8s.io", "v1", "resourceclaims").unwrap();
    let check = claims.validate_status.unwrap();
    let given = serde_json::json!({"devices": {"results": [{"request": "r", "driver": "d.x", "pool": "p", "device": "a"}]}});
    let user = serde_json::json!({"resource": "pods", "name": "p", "uid": "1"});
    let unknown = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    for (status, wanted) in [
        (
            serde_json::json!({"allocation": given, "reservedFor": [user]}),
            String::new(),
        ),
        (
            serde_json::json!({"reservedFor": [user]}),
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"
                .to_owned(),
        ),
        (
            serde_json::json!({"allocation": {"devices": {"results": [{"request": "z", "driver": "d.x", "pool": "p", "device": "a"}]}}}),
            format!(
                "status.allocation.devices.results[0].request: Invalid value: \"z\": {unknown}"
            ),
        ),
        (
            serde_json::json!({"allocation": given, "devices": [{"driver": "d.x", "pool": "p", "device": "b"}]}),
            "status.devices[0]: Invalid value: \"d.x/p/b\": must be an allocated device in the claim"
                .to_owned(),
        ),
    ] {
        let claim = serde_json::json!({"spec": {"devices": {"requests": [{"name": "r"}]}}, "status": status});
        let found: Vec<String> = check(&claim, &Value::Null)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.join("\n"), wanted, "{status}");
    }
}
