//! Definitions as OpenAPI has them, made from the schemas and our descriptions.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::words;
use crate::schema::{self, Field, ListType, Role, Schema, Shape};
use crate::table::RESOURCES;
use crate::value::entries;

/// The values of fields that take one of a few.
static VALUES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| schema::read(include_str!("../../schema/values.json")));

/// The definitions and all that they refer to, with our descriptions.
pub(super) fn of(wanted: &[&str]) -> Map<String, Value> {
    let mut found: Map<String, Value> = Map::new();
    let mut todo: Vec<&'static Schema> = wanted.iter().filter_map(|d| schema::find(d)).collect();
    while let Some(schema) = todo.pop() {
        let name = schema.full_name();
        if !found.contains_key(&name) {
            let body = definition(schema, &name, &mut todo);
            found.insert(name, body);
        }
    }
    found
}

fn definition(schema: &'static Schema, name: &str, todo: &mut Vec<&'static Schema>) -> Value {
    let mut body = match &schema.shape {
        Shape::Struct(fields) => {
            let values = VALUES.get(name).unwrap_or(&Value::Null);
            let mut body = json!({"type": "object"});
            let mut properties = Map::new();
            for (field, known) in fields {
                let mut property = property(known, todo);
                if let Some((_, values)) = entries(values, &[]).find(|(name, _)| name == field) {
                    property["enum"] = values.clone();
                }
                if let Some(words) = words::of_field(schema, name, field) {
                    property["description"] = words.into();
                }
                properties.insert((*field).to_owned(), property);
            }
            let required: Vec<&str> = fields
                .iter()
                .filter(|(_, field)| field.required)
                .map(|(name, _)| *name)
                .collect();
            if !required.is_empty() {
                body["required"] = json!(required);
            }
            // The one of custom resources' status has no fields.
            if !properties.is_empty() {
                body["properties"] = properties.into();
            }
            body
        }
        shape => plain(shape, todo),
    };
    if schema.atomic {
        body["x-kubernetes-map-type"] = "atomic".into();
    }
    let kinds = kinds(schema);
    if !kinds.is_empty() {
        body["x-kubernetes-group-version-kind"] = kinds.into();
    }
    if let Some(words) = words::of_definition(schema, name) {
        body["description"] = words.into();
    }
    body
}

/// Which kinds the definition is the body of.
fn kinds(schema: &Schema) -> Vec<Value> {
    let one = |api_version: &str| {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        json!({"group": group, "kind": schema.name, "version": version})
    };
    match schema.role {
        Role::Part => Vec::new(),
        Role::Kind => vec![one(schema.package.api_version)],
        Role::Metadata => vec![one("meta.k8s.io/v1")],
        Role::Everywhere => {
            let mut versions: Vec<String> = RESOURCES.iter().map(|r| r.api_version()).collect();
            versions.sort();
            versions.dedup();
            versions.iter().map(|version| one(version)).collect()
        }
    }
}

fn property(field: &Field, todo: &mut Vec<&'static Schema>) -> Value {
    let mut property = plain(&field.shape, todo);
    if property.get("$ref").is_some() {
        // Siblings of a reference are ignored, so it goes into `allOf`.
        property = json!({"allOf": [property]});
        if matches!(field.shape.resolve().1, Shape::Struct(_)) {
            property["default"] = json!({});
        }
    }
    if let Some(default) = field.default {
        property["default"] = default.clone();
    }
    let strategies: Vec<&str> = [
        (field.merge, "merge"),
        (field.retain_keys, "retainKeys"),
        (field.replace, "replace"),
    ]
    .into_iter()
    .filter_map(|(holds, name)| holds.then_some(name))
    .collect();
    if !strategies.is_empty() {
        property["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
    if let Some(key) = field.merge_key {
        property["x-kubernetes-patch-merge-key"] = key.into();
    }
    match &field.list {
        ListType::Map(keys) => {
            property["x-kubernetes-list-type"] = "map".into();
            property["x-kubernetes-list-map-keys"] = json!(keys);
        }
        ListType::Set => property["x-kubernetes-list-type"] = "set".into(),
        ListType::Atomic if field.stated => property["x-kubernetes-list-type"] = "atomic".into(),
        ListType::Atomic => {}
    }
    if field.atomic {
        property["x-kubernetes-map-type"] = "atomic".into();
    }
    property
}

fn plain(shape: &Shape, todo: &mut Vec<&'static Schema>) -> Value {
    match shape {
        Shape::Ref(reference) => {
            todo.extend(reference.schema());
            json!({"$ref": format!("#/components/schemas/{}", reference.name())})
        }
        Shape::List(items) => json!({"type": "array", "items": inner(items, todo)}),
        Shape::Map(values) => {
            json!({"type": "object", "additionalProperties": inner(values, todo)})
        }
        Shape::Text { bytes: false } => json!({"type": "string"}),
        Shape::Text { bytes: true } => json!({"type": "string", "format": "byte"}),
        Shape::Integer { bits } => json!({"type": "integer", "format": format!("int{bits}")}),
        Shape::Number => json!({"type": "number", "format": "double"}),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::IntOrString => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        Shape::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Shape::Time { .. } => json!({"type": "string", "format": "date-time"}),
        Shape::Any | Shape::Struct(_) => json!({"type": "object"}),
        Shape::Free => json!({}),
    }
}

/// What a list or a map holds.
fn inner(shape: &Shape, todo: &mut Vec<&'static Schema>) -> Value {
    let plain = plain(shape, todo);
    if plain.get("$ref").is_some() && matches!(shape.resolve().1, Shape::Struct(_)) {
        return json!({"allOf": [plain], "default": {}});
    }
    plain
}
