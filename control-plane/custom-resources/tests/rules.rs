//! What rules are estimated to cost, and what refusals show.

use custom_resources::schema::Schema;
use custom_resources::{lists, rules, validate};
use serde_json::{Value, json};

#[test]
fn rules_cost_what_kubernetes_estimates() {
    let many = |items: Value| json!({"type": "array", "items": items});
    let few = |items: Value, most: u64| json!({"type": "array", "items": items, "maxItems": most});
    let map = |values: Value| json!({"type": "object", "additionalProperties": values});
    let of = |kind: &str| json!({"type": kind});
    let text = |format: &str| json!({"type": "string", "format": format});
    let pair = json!({"type": "object", "required": ["required"], "properties": {"required": {"type": "string"}, "optional": {"type": "string"}}});
    let label =
        json!({"type": "object", "properties": {"label": {"type": "string", "maxLength": 316}}});
    let either = json!({"x-kubernetes-int-or-string": true});
    let unique = "size(self.filter(i, size(self.filter(j, j == i)) > 1)) == 0";
    let cases = [
        (many(of("number")), "self.all(x, true)", 4_718_591),
        (many(of("boolean")), "self.all(x, true)", 1_887_437),
        (many(pair.clone()), "self.all(x, true)", 555_128),
        (many(either), "self.all(x, true)", 4_718_591),
        (many(text("duration")), "self.all(x, true)", 2_359_295),
        (many(text("date")), "self.all(x, true)", 725_936),
        (many(text("date-time")), "self.all(x, true)", 428_963),
        (map(text("duration")), "self.all(x, true)", 1_048_577),
        (map(text("date-time")), "self.all(x, true)", 349_526),
        // What is no text, list or map has no size.
        (many(of("number")), "self[1] == 0.0", 2),
        (many(of("number")), "self.all(x, x == 0.0)", 6_291_454),
        (many(of("boolean")), "self[0] == false", 2),
        (many(map(of("number"))), "self[0].x > 2.0", 4),
        (many(pair.clone()), "self[0] == null", 2),
        (pair.clone(), "self == oldSelf", 2),
        (map(text("date-time")), "self['a'] == self['b']", 8),
        (map(text("duration")), "self['c'] == self['d']", 8),
        (many(of("string")), "self[1] == self[1]", 314_577),
        (of("string"), "self.contains('test')", 314_574),
        (map(of("integer")), "oldSelf.size() == self.size()", 5),
        // What reads a text costs one, however long it may be.
        (of("string"), "isQuantity(self)", 2),
        (of("string"), "isIP(self) && ip(self).family() == 4", 6),
        // Looking whether a field is there is free.
        (pair.clone(), "has(self.required)", 1),
        (pair, "!has(self.optional) || self.optional == 'a'", 5),
        (few(label, 8), unique, 1190),
    ];
    for (mut schema, rule, expected) in cases {
        schema["x-kubernetes-validations"] = json!([{"rule": rule}]);
        let mut whole = Schema::parse(&json!({"type": "object", "properties": {"spec": schema}}));
        rules::compile(&mut whole);
        let spec = whole.property("spec").unwrap();
        let compiled = spec.rules.as_ref().unwrap()[0].compiled().unwrap();
        let cost = compiled.rule.as_ref().unwrap().cost;
        assert_eq!(cost, expected, "{rule} of {schema}");
    }
}

#[test]
fn refusals_show_the_value_where_it_is_no_object_or_list() {
    let rule = |of: Value, reason: &str| {
        let mut schema = of;
        schema["x-kubernetes-validations"] =
            json!([{"rule": "self != self", "message": "no", "reason": reason}]);
        schema
    };
    let either = json!({"x-kubernetes-int-or-string": true});
    let cases = [
        (
            rule(json!({"type": "string"}), "FieldValueInvalid"),
            json!("::1"),
            "f: Invalid value: \"::1\": no",
        ),
        (
            rule(json!({"type": "integer"}), "FieldValueInvalid"),
            json!(7),
            "f: Invalid value: 7: no",
        ),
        (
            rule(json!({"type": "number"}), "FieldValueInvalid"),
            json!(1.5),
            "f: Invalid value: 1.5: no",
        ),
        (
            rule(either.clone(), "FieldValueInvalid"),
            json!("-1"),
            "f: Invalid value: \"-1\": no",
        ),
        (
            rule(either, "FieldValueDuplicate"),
            json!(3),
            "f: Duplicate value: 3",
        ),
        (
            rule(
                json!({"type": "array", "items": {"type": "string"}}),
                "FieldValueInvalid",
            ),
            json!(["a"]),
            "f: Invalid value: no",
        ),
        (
            rule(json!({"type": "object"}), "FieldValueDuplicate"),
            json!({}),
            "f: Duplicate value",
        ),
        (
            json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
            json!([]),
            "f: Invalid value: 0: f in body should have at least 1 items",
        ),
        (
            json!({"type": "object", "minProperties": 2}),
            json!({"a": 1}),
            "f: Invalid value: 1: f in body should have at least 2 properties",
        ),
    ];
    for (of, value, expected) in cases {
        let mut schema = Schema::parse(&json!({"type": "object", "properties": {"f": of}}));
        rules::compile(&mut schema);
        let object = json!({"f": value});
        let mut found = validate::validate(&schema, &object, None);
        found.extend(rules::validate(&schema, &object, None));
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, [expected], "{of}");
    }
}

#[test]
fn embedded_resources_are_described_as_objects() {
    let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true, "required": ["kind"]});
    let schema =
        json!({"type": "object", "properties": {"many": {"type": "array", "items": embedded}}});
    let definition = json!({"spec": {
        "group": "example.com", "names": {"kind": "Widget", "plural": "widgets"},
        "versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}],
    }});
    let found = custom_resources::openapi::components(&definition, "v1");
    let met = &found["com.example.v1.Widget"]["properties"]["many"]["items"];
    assert_eq!(met["required"], json!(["kind", "apiVersion"]));
    assert_eq!(
        met["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert_eq!(met["properties"]["kind"]["type"], "string");
}

#[test]
fn embedded_resources_say_what_they_are() {
    let schema = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    let schema = Schema::parse(&json!({"type": "object", "properties": {"f": schema}}));
    let of =
        |metadata: Value| json!({"f": {"apiVersion": "v1", "kind": "P", "metadata": metadata}});
    let cases = [
        (of(json!({"name": "A_b", "labels": {"a": "b"}})), vec![]),
        (
            of(json!({"name": 5})),
            vec![
                "f.metadata: Invalid value: {\"name\":5}: json: cannot unmarshal number into Go struct field ObjectMeta.name of type string",
            ],
        ),
        (
            of(json!({"name": "a/b"})),
            vec!["f.metadata.name: Invalid value: \"a/b\": may not contain '/'"],
        ),
        (
            json!({"f": {"kind": "P"}}),
            vec!["f.apiVersion: Required value"],
        ),
    ];
    for (object, expected) in cases {
        let found: Vec<String> = lists::embedded(&schema, &object)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected, "{object}");
    }
}
