//! Lists that are sets or maps have no two items alike; embedded resources say what they are.

use std::collections::BTreeSet;

use api::field::FieldError;
use api::value::text;
use serde_json::{Map, Value};

use crate::correlate::key_of;
use crate::path::Path;
use crate::schema::{ListType, Schema};

/// Items that are there twice.
pub fn duplicates(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut found = Vec::new();
    walk(schema, value, Path::Root, &mut found, &list);
    found
}

/// Embedded resources that do not say what they are, or whose metadata is none.
pub fn embedded(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut found = Vec::new();
    walk(schema, value, Path::Root, &mut found, &resource);
    found
}

type Visit = dyn Fn(&Schema, &Value, Path<'_>, &mut Vec<FieldError>);

fn walk(
    schema: &Schema,
    value: &Value,
    path: Path<'_>,
    found: &mut Vec<FieldError>,
    visit: &Visit,
) {
    visit(schema, value, path, found);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(below) = schema.property(key) {
                    walk(below, value, Path::Field(&path, key), found, visit);
                } else if let Some(below) = schema.additional.as_deref() {
                    walk(below, value, Path::Key(&path, key), found, visit);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    walk(below, item, Path::Index(&path, index), found, visit);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn list(schema: &Schema, value: &Value, path: Path<'_>, found: &mut Vec<FieldError>) {
    let Some(items) = value.as_array() else {
        return;
    };
    let mut seen = BTreeSet::new();
    match &schema.list {
        ListType::Atomic => {}
        ListType::Set => {
            for (index, item) in items.iter().enumerate() {
                if !seen.insert(item.to_string()) {
                    let path = Path::Index(&path, index).bracketed();
                    found.push(FieldError::duplicate(path, item.to_string()));
                }
            }
        }
        ListType::Map(keys) => {
            for (index, item) in items.iter().enumerate() {
                if item.is_object() && !seen.insert(key_of(schema, keys, item)) {
                    let shown: Map<String, Value> = keys
                        .iter()
                        .filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())))
                        .collect();
                    let path = Path::Index(&path, index).bracketed();
                    found.push(FieldError::duplicate(
                        path,
                        Value::Object(shown).to_string(),
                    ));
                }
            }
        }
    }
}

fn resource(schema: &Schema, value: &Value, path: Path<'_>, found: &mut Vec<FieldError>) {
    if !schema.embedded || !value.is_object() {
        return;
    }
    for key in ["apiVersion", "kind"] {
        if text(value, &[key]).is_empty() {
            let path = Path::Field(&path, key).bracketed();
            found.push(FieldError::required(path, ""));
        }
    }
    let name = text(value, &["metadata", "name"]);
    if !name.is_empty() {
        let field = format!("{}.metadata.name", path.bracketed());
        for why in api::names::path_segment(name) {
            found.push(FieldError::invalid_text(&field, name, why));
        }
    }
    if let Some(metadata) = value.get("metadata").filter(|metadata| !metadata.is_null())
        && let Some(why) = api::decode::bad_metadata(metadata)
    {
        let field = format!("{}.metadata", path.bracketed());
        found.push(FieldError::invalid(field, metadata, why));
    }
}
