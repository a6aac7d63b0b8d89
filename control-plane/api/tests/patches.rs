//! Patches: tables of examples, and the laws that hold for all.

use api::patch::{json_patch, merge_patch, strategic_merge};
use api::{decode, schema, table};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn cases(yaml: &str) -> Vec<Value> {
    let Value::Array(cases) = decode::untyped_yaml(yaml.as_bytes()).unwrap() else {
        panic!("a list of cases")
    };
    cases
}

#[test]
fn strategic_merge_patches() {
    let cases = cases(include_str!("data/strategic.yaml"));
    assert!(cases.len() > 20);
    for case in cases {
        let plural = case["resource"].as_str().unwrap();
        let group = case["group"].as_str().unwrap_or("");
        let schema = schema::of(table::find(group, "v1", plural).unwrap()).unwrap();
        let met = match strategic_merge(schema, &case["original"], &case["patch"]) {
            Ok(merged) => json!({"expect": merged}),
            Err(status) => json!({"error": status.message}),
        };
        let expected = match case.get("expect") {
            Some(expected) => json!({"expect": expected}),
            None => json!({"error": case["error"]}),
        };
        assert_eq!(met, expected, "{}", case["about"]);
    }
}

#[test]
fn merge_patches() {
    for case in cases(include_str!("data/merge.yaml")) {
        let mut met = case["original"].clone();
        merge_patch(&mut met, &case["patch"]);
        assert_eq!(
            met, case["expect"],
            "{} on {}",
            case["patch"], case["original"]
        );
    }
}

#[test]
fn json_patches() {
    let original = json!({"data": {"a": "1", "b": ["x", "y"]}});
    for (patch, expected) in [
        (json!([]), Ok(original.clone())),
        (
            json!([{"op": "replace", "path": "/data/a", "value": "2"}]),
            Ok(json!({"data": {"a": "2", "b": ["x", "y"]}})),
        ),
        (
            json!([{"op": "add", "path": "/data/b/1", "value": "z"}]),
            Ok(json!({"data": {"a": "1", "b": ["x", "z", "y"]}})),
        ),
        (json!([{"op": "remove", "path": "/data/zz"}]), Err(422)),
        (
            json!([{"op": "test", "path": "/data/a", "value": "9"}]),
            Err(422),
        ),
        (json!([{"op": "explode", "path": "/data/a"}]), Err(422)),
        (json!({"op": "add"}), Err(400)),
        (json!(["add"]), Err(400)),
        // What controllers write that add the first finalizer.
        (
            json!([
                {"op": "test", "path": "/data/finalizers", "value": null},
                {"op": "add", "path": "/data/finalizers", "value": ["x"]},
                {"op": "test", "path": "/data/finalizers", "value": ["x"]},
            ]),
            Ok(json!({"data": {"a": "1", "b": ["x", "y"], "finalizers": ["x"]}})),
        ),
        (
            json!([{"op": "test", "path": "/data/a", "value": null}]),
            Err(422),
        ),
        (
            json!([{"op": "test", "path": "/nowhere/a", "value": null}]),
            Err(422),
        ),
        (
            json!([{"op": "test", "path": "/data/zz"}]),
            Ok(original.clone()),
        ),
        (
            json!([{"op": "add", "path": "/data/b/-1", "value": "z"}]),
            Ok(json!({"data": {"a": "1", "b": ["x", "y", "z"]}})),
        ),
        (
            json!([{"op": "replace", "path": "/data/b/-2", "value": "z"}]),
            Ok(json!({"data": {"a": "1", "b": ["z", "y"]}})),
        ),
        (
            json!([{"op": "remove", "path": "/data/b/-1"}, {"op": "add", "path": "/data/b/-", "value": "z"}]),
            Ok(json!({"data": {"a": "1", "b": ["x", "z"]}})),
        ),
        (json!([{"op": "remove", "path": "/data/b/-3"}]), Err(422)),
        (json!([{"op": "remove", "path": "/data/b/2"}]), Err(422)),
        (
            json!([{"op": "add", "path": "/data/b/3", "value": "z"}]),
            Err(422),
        ),
        (
            json!([{"op": "add", "path": "/data/b/x", "value": "z"}]),
            Err(422),
        ),
        (
            json!([{"op": "replace", "path": "/data/zz", "value": 1}]),
            Err(422),
        ),
        (json!([{"op": "add", "path": "", "value": {}}]), Err(422)),
        (
            json!([{"op": "add", "path": "/data/a/b", "value": 1}]),
            Err(422),
        ),
        (json!([{"op": "add", "value": 1}]), Err(422)),
        (
            json!([
                {"op": "add", "path": "/data/c~1d~0e", "value": "3"},
                {"op": "move", "from": "/data/b/0", "path": "/data/a"},
                {"op": "copy", "from": "/data/c~1d~0e", "path": "/data/b/0"},
            ]),
            Ok(json!({"data": {"a": "x", "b": ["3", "y"], "c/d~e": "3"}})),
        ),
        (
            json!([{"op": "move", "from": "/data/zz", "path": "/data/a"}]),
            Err(422),
        ),
        (
            json!([{"op": "copy", "from": "/data/zz", "path": "/data/a"}]),
            Err(422),
        ),
        (
            Value::Array(vec![json!({"op": "test", "path": "", "value": 1}); 10_001]),
            Err(413),
        ),
    ] {
        match (json_patch(&original, &patch), expected) {
            (Ok(met), Ok(expected)) => assert_eq!(met, expected, "{patch}"),
            (Err(status), Err(code)) => assert_eq!(status.code, code, "{status}"),
            (met, expected) => panic!("{met:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn copies_do_not_grow_without_bound() {
    // Each copy doubles the list.
    let mut patch = vec![json!({"op": "add", "path": "/a", "value": ["0123456789"]})];
    patch.extend(std::iter::repeat_n(
        json!({"op": "copy", "from": "/a", "path": "/a/-"}),
        60,
    ));
    let refused = json_patch(&json!({}), &patch.into()).unwrap_err();
    assert_eq!(refused.code, 422);
    let few = json!([{"op": "copy", "from": "/a", "path": "/b"}, {"op": "copy", "from": "/b", "path": "/a/c"}]);
    let copied = json_patch(&json!({"a": {"x": 1}}), &few).unwrap();
    assert_eq!(copied, json!({"a": {"x": 1, "c": {"x": 1}}, "b": {"x": 1}}));
}

#[test]
fn long_lists_merge_in_good_time() {
    let list = |n: usize| -> Value { (0..n).map(|i| json!({"name": format!("c{i}")})).collect() };
    let schema = schema::find("io.k8s.api.core.v1.Pod").unwrap();
    let pod = |containers: Value| json!({"spec": {"containers": containers}});
    let begin = std::time::Instant::now();
    let merged = strategic_merge(schema, &pod(list(10_000)), &pod(list(20_000))).unwrap();
    assert_eq!(merged, pod(list(20_000)));
    let finalizers: Value = (0..20_000).map(|i| Value::from(format!("x/{i}"))).collect();
    let object = json!({"metadata": {"finalizers": finalizers}});
    let merged = strategic_merge(schema, &object, &object).unwrap();
    assert_eq!(merged, object);
    let remove = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": finalizers}});
    let merged = strategic_merge(schema, &object, &remove).unwrap();
    assert_eq!(merged, json!({"metadata": {"finalizers": []}}));
    // Some tenths of a second; comparing each with each takes minutes.
    assert!(begin.elapsed() < std::time::Duration::from_secs(20));
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(keys(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Names of fields that mean something, so that generated objects meet the schema now and then.
fn keys() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "spec",
        "containers",
        "name",
        "image",
        "metadata",
        "labels",
        "finalizers",
        "volumes",
        "a",
        "b",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
    ])
    .prop_map(str::to_owned)
}

fn without_nulls(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => items.iter().all(without_nulls),
        Value::Object(map) => map.values().all(without_nulls),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

proptest! {
    #[test]
    fn a_merge_patch_twice_is_once(original in json_values(), patch in json_values()) {
        let mut once = original;
        merge_patch(&mut once, &patch);
        let mut twice = once.clone();
        merge_patch(&mut twice, &patch);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn an_object_merged_into_nothing_is_itself(object in json_values().prop_filter("nulls remove", without_nulls)) {
        let mut met = Value::Null;
        merge_patch(&mut met, &object);
        prop_assert_eq!(met, object);
    }

    #[test]
    fn an_empty_strategic_patch_changes_nothing(object in json_values().prop_filter("an object", Value::is_object)) {
        let schema = schema::find("io.k8s.api.core.v1.Pod").unwrap();
        prop_assert_eq!(strategic_merge(schema, &object, &json!({})).unwrap(), object);
    }

    #[test]
    fn a_strategic_patch_never_panics_and_leaves_no_null_field(original in json_values(), patch in json_values()) {
        let schema = schema::find("io.k8s.api.core.v1.Pod").unwrap();
        if let Ok(Value::Object(merged)) = strategic_merge(schema, &original, &patch) {
            for (key, value) in patch.as_object().unwrap() {
                if value.is_null() {
                    prop_assert!(!merged.contains_key(key), "{key} is still there");
                }
            }
        }
    }
}
