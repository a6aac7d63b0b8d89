//! Schemas and rules: a table for each kind of finding, and properties that hold for any object.

use custom_resources::schema::Schema;
use custom_resources::{conditions, fill, jsonpath::JsonPath, lists, review, rules, validate};
use proptest::prelude::*;
use serde_json::{Value, json};

fn definition(schema: &Value) -> Value {
    json!({
        "metadata": {"name": "widgets.example.com", "generation": 1},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn with_spec(spec: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

#[test]
fn schemas_that_are_not_structural_are_refused() {
    let root = "spec.validation.openAPIV3Schema";
    let cases = [
        (
            json!({}),
            "type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "array"}),
            "items: Required value: must be specified",
        ),
        (
            json!({"type": "thing"}),
            "type: Unsupported value: \"thing\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            json!({"type": "string", "pattern": "("}),
            "pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`",
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"a": {"minimum": 1}}}]}),
            "properties[a]: Required value: because it is defined in spec.validation.openAPIV3Schema.properties[spec].anyOf[0].properties[a]",
        ),
        (
            json!({"type": "object", "not": {"type": "object"}}),
            "not.type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            "additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            "uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({"type": "object", "$ref": "#/x"}),
            "$ref: Forbidden: $ref is not supported",
        ),
        (
            json!({"type": "integer", "default": "x"}),
            "default: Invalid value: \"string\": spec.validation.openAPIV3Schema.properties[spec].default in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"], "items": {"type": "object", "properties": {"a": {"type": "string"}}}}),
            "items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            "properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            "x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.size()"}]}),
            "x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.size()\"}: must evaluate to a bool",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": "self.all(x, x.contains('gpu'))"}]}),
            "x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
        ),
        (
            json!({"type": "array", "items": {"type": "string", "maxLength": 5, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}, "maxItems": 5}),
            "items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[spec]",
        ),
    ];
    for (spec, expected) in cases {
        let found: Vec<String> = review(&definition(&with_spec(&spec)), None)
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = format!("{root}.properties[spec].{expected}");
        assert!(
            found.contains(&expected),
            "{spec}\nexpected {expected}\nfound {found:#?}"
        );
    }
    assert_eq!(
        review(&definition(&with_spec(&json!({"type": "object"}))), None),
        []
    );
}

#[test]
fn formats_that_nobody_knows_are_warned_of_once() {
    let with = |properties: Value| {
        definition(&with_spec(
            &json!({"type": "object", "properties": properties}),
        ))
    };
    let text = |format: &str| json!({"type": "string", "format": format});
    let new = with(json!({
        "a": text("zebra"), "b": {"type": "array", "items": text("zebra")}, "c": text("date-time"), "d": text("password"),
        "e": {"type": "integer", "format": "int64"}, "f": {"type": "number", "format": "float"}, "g": text("double"),
        "h": text("uu-id"), "i": {"type": "object", "additionalProperties": text("k8s-long-name")},
    }));
    let warn = custom_resources::row::DEFINITIONS.warnings;
    assert_eq!(
        warn(&new, None),
        [
            "unrecognized format \"double\"",
            "unrecognized format \"zebra\""
        ]
    );
    let old = with(json!({"z": text("zebra")}));
    assert_eq!(warn(&new, Some(&old)), ["unrecognized format \"double\""]);
}

fn schema() -> Schema {
    let mut schema = Schema::parse(
        &json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {
            "min": {"type": "integer", "default": 0}, "max": {"type": "integer", "default": 10, "maximum": 100},
            "mode": {"type": "string", "default": "a", "enum": ["a", "b"]},
            "name": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "name is immutable"}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "many": {"type": "array", "maxItems": 3, "items": {"type": "object", "properties": {"a": {"type": "string", "default": "d"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "nothing": {"type": "string", "nullable": true, "default": "x"},
            "one": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        },
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "messageExpression": "'min %d is above max %d'.format([self.min, self.max])", "fieldPath": ".min", "reason": "FieldValueForbidden"},
            {"rule": "!has(self.many) || self.many.all(m, m.a != 'bad')"},
        ]}}}),
    );
    rules::compile(&mut schema);
    schema
}

#[test]
fn rules_are_kept() {
    let schema = schema();
    let cases = [
        (json!({"min": 1, "max": 2}), None, vec![]),
        (
            json!({"min": 3, "max": 2}),
            None,
            vec!["spec.min: Forbidden: min 3 is above max 2"],
        ),
        (
            json!({"min": 1, "max": 2, "many": [{"a": "bad"}]}),
            None,
            vec![
                "spec: Invalid value: failed rule: !has(self.many) || self.many.all(m, m.a != 'bad')",
            ],
        ),
        (
            json!({"min": 1, "max": 2, "name": "x"}),
            Some(json!({"min": 1, "max": 2, "name": "y"})),
            vec!["spec.name: Invalid value: \"x\": name is immutable"],
        ),
        (
            json!({"min": 1, "max": 2, "name": "x"}),
            Some(json!({"min": 1, "max": 2})),
            vec![],
        ),
        // What was wrong before and did not change is let pass.
        (
            json!({"min": 3, "max": 2}),
            Some(json!({"min": 3, "max": 2})),
            vec![],
        ),
    ];
    for (spec, old, expected) in cases {
        let old = old.map(|old| json!({"spec": old}));
        let found: Vec<String> = rules::validate(&schema, &json!({"spec": spec}), old.as_ref())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected, "{spec}");
    }
}

#[test]
fn objects_are_pruned_and_filled() {
    let schema = schema();
    let mut object = json!({"metadata": {"x": 1}, "extra": 1, "spec": {
        "free": {"a": {"b": 1}, "known": {"a": "x", "b": 1}}, "many": [{"b": 1}], "labels": {"k": "v"}, "mode": null, "nothing": null}});
    let pruned = fill::prune(&schema, &mut object);
    assert_eq!(pruned, ["extra", "spec.free.known.b", "spec.many[0].b"]);
    fill::default(&schema, &mut object);
    let expected = json!({"metadata": {"x": 1}, "spec": {"free": {"a": {"b": 1}, "known": {"a": "x"}}, "many": [{"a": "d"}],
        "labels": {"k": "v"}, "min": 0, "max": 10, "mode": "a", "nothing": null}});
    assert_eq!(object, expected);
    assert_eq!(validate::validate(&schema, &object, None), []);
}

#[test]
fn values_are_checked_unless_nothing_changed() {
    let schema = schema();
    let bad = json!({"spec": {"max": 101, "one": {"a": "x", "b": "y"}, "many": [{}, {}, {}, {}]}});
    let found: Vec<String> = validate::validate(&schema, &bad, None)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "spec.many: Too many: 4: must have at most 3 items",
            "spec.max: Invalid value: 101: spec.max in body should be less than or equal to 100",
            "<nil>: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ]
    );
    let mut changed = bad.clone();
    changed["spec"]["mode"] = "b".into();
    assert_eq!(validate::validate(&schema, &changed, Some(&bad)), []);
    changed["spec"]["max"] = 102.into();
    assert_eq!(validate::validate(&schema, &changed, Some(&bad)).len(), 1);
}

#[test]
fn paths_of_columns_lead_where_kubectl_goes() {
    let object = json!({"spec": {"a": [{"n": "x", "v": 1}, {"n": "y", "v": 2}], "k.d": 3}, "c": [{"type": "Ready", "status": "True"}]});
    let cases = [
        (".spec.a[0].n", json!(["x"])),
        (".spec.a[-1].n", json!(["y"])),
        (".spec.a[*].v", json!([1, 2])),
        (".spec.a[0:1].v", json!([1])),
        (".spec.a[0,1].v", json!([1, 2])),
        (".spec['k.d']", json!([3])),
        (".spec.k\\.d", json!([3])),
        (".c[?(@.type==\"Ready\")].status", json!(["True"])),
        (".c[?(@.type=='Ready')].status", json!(["True"])),
        (".spec.a[?(@.v>1)].n", json!(["y"])),
        ("..v", json!([1, 2])),
        (".none.at.all", json!([])),
    ];
    for (path, expected) in cases {
        let found: Vec<Value> = JsonPath::parse(path)
            .unwrap()
            .find(&object)
            .into_iter()
            .cloned()
            .collect();
        assert_eq!(Value::Array(found), expected, "{path}");
    }
    for bad in [".a[", ".a[x]", ".a[?(@.b", ".a[1:2:0]"] {
        assert!(JsonPath::parse(bad).is_err(), "{bad}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "spec", "min", "max", "mode", "name", "free", "known", "many", "a", "labels", "one",
        "nothing", "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5_i64..200).prop_map(Value::from),
        "[ab]{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn pruning_and_filling_once_is_enough(mut object in any_json()) {
        let schema = schema();
        fill::prune(&schema, &mut object);
        fill::default(&schema, &mut object);
        let once = object.clone();
        prop_assert!(fill::prune(&schema, &mut object).is_empty());
        fill::default(&schema, &mut object);
        prop_assert_eq!(&once, &object);
        // Nothing found in an object is found in going to it from itself.
        prop_assert!(validate::validate(&schema, &object, Some(&once)).is_empty());
        let _ = (validate::validate(&schema, &object, None), lists::duplicates(&schema, &object), rules::validate(&schema, &object, None));
    }

    #[test]
    fn any_schema_is_reviewed_without_panic(body in any_json(), words in prop::collection::vec(prop::sample::select(vec![
        ("type", json!("object")), ("type", json!("array")), ("items", json!({"type": "string"})), ("default", json!({"a": 1})),
        ("x-kubernetes-list-type", json!("map")), ("x-kubernetes-list-map-keys", json!(["a", 1])), ("anyOf", json!([{"not": 1}])),
        ("pattern", json!("[")), ("properties", json!({"a": {"type": "string", "x-kubernetes-validations": [{"rule": "self"}]}})),
        ("x-kubernetes-validations", json!([{"rule": "self.all(x, x)"}])), ("additionalProperties", json!({"type": "object"})),
        ("maxItems", json!(-1)), ("enum", json!("x")), ("required", json!([1])),
    ]), 0..6)) {
        let mut schema = with_spec(&body);
        for (word, value) in words {
            schema["properties"]["spec"] = match schema["properties"]["spec"].take() {
                Value::Object(mut map) => { map.insert(word.into(), value); Value::Object(map) }
                _ => json!({word: value}),
            };
        }
        let _ = review(&definition(&schema), None);
    }
}

#[test]
fn a_webhook_that_nobody_can_be_believed_by_keeps_a_definition_from_being_served() {
    let trusts = |bundle: &str| bundle == "good";
    for (bundle, status, reason) in [
        ("good", "True", "InitialNamesAccepted"),
        ("Cg==", "False", "InvalidCABundle"),
        ("", "True", "InitialNamesAccepted"),
    ] {
        let mut definition = definition(&with_spec(&json!({"type": "object"})));
        definition["spec"]["conversion"] =
            json!({"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": bundle}}});
        let mut settle =
            || conditions::settle(&mut definition, &[], trusts, "2026-01-01T00:00:00Z");
        settle();
        let met = &definition["status"]["conditions"][1];
        assert_eq!(
            (&met["type"], &met["status"], &met["reason"]),
            (&json!("Established"), &json!(status), &json!(reason)),
            "{bundle}"
        );
    }
}

#[test]
fn a_webhook_that_converts_is_held_to_what_all_webhooks_are() {
    let mut definition = definition(&with_spec(&json!({"type": "object"})));
    let mut found = |client: Value| -> Vec<String> {
        definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"], "clientConfig": client}});
        let wrong = review(&definition, None);
        wrong.iter().map(ToString::to_string).collect()
    };
    let good = found(json!({"service": {"name": "a", "namespace": "b", "path": "/c"}}));
    assert_eq!(good, [""; 0]);
    let field = "spec.conversion.webhookClientConfig";
    assert_eq!(
        found(json!({"service": {"name": "a", "namespace": "b", "path": "/c//d"}})),
        [format!(
            "{field}.service.path: Invalid value: \"/c//d\": segment[1] may not be empty"
        )]
    );
    assert_eq!(
        found(json!({"url": "https://a/b?c"})),
        [format!(
            "{field}.url: Invalid value: \"https://a/b?c\": query parameters are not permitted in the URL"
        )]
    );
}
