//! Pruning and defaulting: what a schema does to an object before anybody looks at it.

use serde_json::{Map, Value};

use crate::schema::Schema;

/// The most findings that are named.
const FINDINGS_MAX: usize = 200;

/// Removes from an object what the schema does not know, and tells which paths those were. The root's and every
/// embedded resource's `apiVersion`, `kind` and `metadata` are always known.
pub fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, object, true, &mut String::new(), &mut found);
    found
}

/// As [`prune`], of a value that is no whole object.
pub(crate) fn prune_value(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, value, false, &mut String::new(), &mut found);
    found
}

fn walk(
    schema: &Schema,
    value: &mut Value,
    root: bool,
    path: &mut String,
    found: &mut Vec<String>,
) {
    let length = path.len();
    match value {
        Value::Object(map) => {
            let resource = root || schema.embedded;
            if !schema.preserve && !schema.additional_any && schema.additional.is_none() {
                drop_unknown(schema, map, resource, path, found);
            }
            for (key, value) in map.iter_mut() {
                if resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    // Whoever reads the whole object sees to the root's.
                    if !root && key == "metadata" {
                        join(path, key);
                        for unknown in api::decode::prune_metadata(value) {
                            found.push(format!("{path}.{unknown}"));
                        }
                        path.truncate(length);
                    }
                    continue;
                }
                let Some(below) = schema.property(key).or(schema.additional.as_deref()) else {
                    continue;
                };
                join(path, key);
                walk(below, value, false, path, found);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(below) = schema.items.as_deref() else {
                return;
            };
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(below, item, false, path, found);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn drop_unknown(
    schema: &Schema,
    map: &mut Map<String, Value>,
    resource: bool,
    path: &str,
    found: &mut Vec<String>,
) {
    map.retain(|key, _| {
        let known = schema.property(key).is_some()
            || (resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
        if !known && found.len() < FINDINGS_MAX {
            let mut whole = path.to_owned();
            join(&mut whole, key);
            found.push(whole);
        }
        known
    });
}

fn join(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// Fills in what is absent and has a default, parents before what stands in them. Null where null is no value counts
/// as absent: as an entry of an object it goes, unless there is a default.
pub fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.values().any(Value::is_null) {
                map.retain(|key, value| {
                    let below = schema.property(key).or(schema.additional.as_deref());
                    !value.is_null() || below.is_none_or(|it| it.nullable || it.default.is_some())
                });
            }
            for (name, below) in &schema.properties {
                let Some(default) = &below.default else {
                    continue;
                };
                match map.get_mut(&**name) {
                    None => {
                        map.insert(name.to_string(), (**default).clone());
                    }
                    Some(slot) if slot.is_null() && !below.nullable => *slot = (**default).clone(),
                    Some(_) => {}
                }
            }
            for (key, value) in map.iter_mut() {
                let Some(below) = schema.property(key).or(schema.additional.as_deref()) else {
                    continue;
                };
                replace_null(below, value);
                default(below, value);
            }
        }
        Value::Array(items) => {
            let Some(below) = schema.items.as_deref() else {
                return;
            };
            for item in items {
                replace_null(below, item);
                default(below, item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn replace_null(schema: &Schema, value: &mut Value) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = (**default).clone();
    }
}
