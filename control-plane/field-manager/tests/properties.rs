//! What holds after any sequence of applies and updates.

use field_manager::{Refusal, Set, Type, Writer, apply, track};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A kind with every way to merge.
fn schema() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "string"},
        "b": {"type": "object", "properties": {"c": {"type": "integer"}, "d": {"type": "integer"}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "integer"}},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                  "items": {"type": "object", "properties": {
                      "name": {"type": "string"}, "x": {"type": "integer"},
                      "inner": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}},
    }}}})
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["p", "q", "r"]).prop_map(str::to_owned)
}

/// Never empty: Kubernetes lets nobody own an empty list of this kind.
fn words() -> impl Strategy<Value = Value> {
    prop::sample::subsequence(vec!["p", "q", "r"], 1..=3).prop_map(|w| json!(w))
}

fn map() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(word(), word(), 0..3).prop_map(|m| json!(m))
}

fn items() -> impl Strategy<Value = Value> {
    let item = (prop::option::of(0..3), prop::option::of(words()));
    prop::collection::btree_map(word(), item, 1..3).prop_map(|items| {
        let item = |(name, (x, inner)): (String, (Option<i32>, Option<Value>))| {
            let mut item = json!({"name": name});
            if let Some(x) = x {
                item["x"] = x.into();
            }
            if let Some(inner) = inner {
                item["inner"] = inner;
            }
            item
        };
        items.into_iter().map(item).collect()
    })
}

/// What somebody may apply, or write.
fn config() -> impl Strategy<Value = Value> {
    let number = || prop::option::of((0..3).prop_map(Value::from));
    let text = prop::option::of(word().prop_map(Value::from));
    let parts = (
        text,
        number(),
        number(),
        prop::option::of(map()),
        prop::option::of(map()),
    );
    let lists = (
        prop::option::of(words()),
        prop::option::of(prop::collection::vec(0..3, 0..2).prop_map(|l| json!(l))),
        prop::option::of(items()),
    );
    (parts, lists).prop_map(|((a, c, d, map, whole), (set, list, items))| {
        let mut b = Map::new();
        b.extend(c.map(|c| ("c".to_owned(), c)));
        b.extend(d.map(|d| ("d".to_owned(), d)));
        let mut spec = Map::new();
        let fields = [
            ("a", a),
            ("map", map),
            ("whole", whole),
            ("set", set),
            ("list", list),
            ("items", items),
        ];
        spec.extend(
            fields
                .into_iter()
                .filter_map(|(k, v)| Some((k.to_owned(), v?))),
        );
        if !b.is_empty() {
            spec.insert("b".into(), b.into());
        }
        json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec})
    })
}

#[derive(Clone, Debug)]
enum Step {
    Apply {
        manager: usize,
        config: Value,
        force: bool,
    },
    Update {
        manager: usize,
        spec: Value,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3usize, config(), any::<bool>())
            .prop_map(|(manager, config, force)| Step::Apply { manager, config, force }),
        1 => (0..3usize, config())
            .prop_map(|(manager, config)| Step::Update { manager, spec: config["spec"].clone() }),
    ]
}

const MANAGERS: [&str; 3] = ["one", "two", "three"];

fn writer(manager: usize, now: &str) -> Writer<'_> {
    Writer {
        manager: MANAGERS[manager],
        subresource: "",
        api_version: "g/v1",
        now,
        without_status: false,
    }
}

/// What each entry owns.
fn owned(object: &Value) -> Vec<(String, String, Set)> {
    let entries = object["metadata"]["managedFields"].as_array();
    let entry = |e: &Value| {
        let text = |key: &str| e[key].as_str().unwrap_or_default().to_owned();
        (
            text("operation"),
            text("manager"),
            Set::decode(&e["fieldsV1"]).unwrap(),
        )
    };
    entries.into_iter().flatten().map(entry).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn ownership_stays_true(steps in prop::collection::vec(step(), 1..8)) {
        let schema = schema();
        let of = Type::custom(&schema);
        let mut object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "uid": "u"}});
        for (i, step) in steps.iter().enumerate() {
            let now = format!("2026-01-01T00:00:{i:02}Z");
            let before = object.clone();
            match step {
                Step::Apply { manager, config, force } => {
                    let who = writer(*manager, &now);
                    let new = match apply(of, &object, config, &who, *force) {
                        Ok(new) => new,
                        Err(Refusal::Conflicts(conflicts)) => {
                            prop_assert!(!force && !conflicts.is_empty());
                            // What is forced then is what conflicted.
                            prop_assert!(apply(of, &object, config, &who, true).is_ok());
                            continue;
                        }
                        Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
                    };
                    // What was applied stands there, and is the applier's.
                    let again = apply(of, &new, config, &writer(*manager, "2030-01-01T00:00:00Z"), false);
                    prop_assert_eq!(again.as_ref(), Ok(&new));
                    let mut claimed = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}});
                    claimed["spec"] = config["spec"].clone();
                    let fresh = apply(of, &json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}}), &claimed, &who, false).unwrap();
                    let alone = owned(&fresh);
                    let now_owned = owned(&new);
                    let own = now_owned.iter().find(|(op, m, _)| op == "Apply" && m == MANAGERS[*manager]);
                    prop_assert_eq!(own.map(|o| &o.2), alone.first().map(|o| &o.2));
                    object = new;
                }
                Step::Update { manager, spec } => {
                    let mut new = object.clone();
                    new["spec"] = spec.clone();
                    track(of, Some(&object), &mut new, &writer(*manager, &now));
                    object = new;
                    // The same once more is no change.
                    let mut again = object.clone();
                    track(of, Some(&object), &mut again, &writer(*manager, "2030-01-01T00:00:00Z"));
                    prop_assert_eq!(&again, &object);
                }
            }
            let entries = owned(&object);
            prop_assert!(entries.iter().all(|(_, _, set)| !set.is_empty()));
            prop_assert!(entries.len() <= 2 * MANAGERS.len() + 1);
            // Records are written the one way in which they are read.
            for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
                prop_assert_eq!(Set::decode(&entry["fieldsV1"]).unwrap().encode(), entry["fieldsV1"].clone());
            }
            // Nobody lost what was not touched: who owned a field that stands as it did before owns it still, unless
            // he himself applied something else.
            if before["spec"] == object["spec"] && let Step::Update { .. } = step {
                prop_assert_eq!(owned(&before), entries);
            }
        }
        // When each applier lets go of all, nothing that appliers alone held is left.
        let appliers: Vec<String> = owned(&object).into_iter().filter(|o| o.0 == "Apply").map(|o| o.1).collect();
        let updaters = owned(&object).iter().any(|o| o.0 == "Update");
        for name in appliers {
            let manager = MANAGERS.iter().position(|m| *m == name).unwrap();
            let nothing = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}});
            object = apply(of, &object, &nothing, &writer(manager, "2031-01-01T00:00:00Z"), true).unwrap();
        }
        prop_assert!(owned(&object).iter().all(|o| o.0 == "Update"));
        if !updaters {
            let left = object.get("spec").cloned().unwrap_or(Value::Null);
            prop_assert!(left.is_null() || !steps.iter().all(|s| matches!(s, Step::Apply { .. })), "{}", left);
        }
    }

    #[test]
    fn records_that_make_no_sense_are_ignored(sent in "[\\PC]{0,40}", operation in "Apply|Update|Else", element in "(f:|k:|v:|i:|\\.|x:)?[a-z{}\":0-9]{0,8}") {
        let schema = schema();
        let of = Type::custom(&schema);
        let mut new = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "managedFields": [
            {"manager": sent, "operation": operation, "apiVersion": "g/v1", "fieldsType": "FieldsV1", "fieldsV1": {element: {}}}]},
            "spec": {"a": "p"}});
        track(of, None, &mut new, &writer(0, "2026-01-01T00:00:00Z"));
        let entries = owned(&new);
        prop_assert!(entries.iter().any(|(_, manager, set)| manager == "one" && set.paths().contains(&".spec.a".to_owned())));
    }
}
