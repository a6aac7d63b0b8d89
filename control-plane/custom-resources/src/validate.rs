//! Value validation: types, ranges, patterns, alternatives. What did not change in an update is not held against it
//! (KEP-4008), where the old value can be told.

use api::field::{Fault, FieldError};
use serde_json::{Map, Value};

use crate::correlate::Items;
use crate::path::{Path, number};
use crate::schema::{Checks, Schema, Type};

/// The most faults that are gathered: a body can be made of nothing but faults.
const FAULTS_MAX: usize = 256;

/// Everything in `value` that the schema does not take.
pub fn validate(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut faults = Vec::new();
    node(schema, value, old, Path::Root, &mut faults);
    faults
}

/// As [`validate`], somewhere within an object.
pub(crate) fn node(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: Path<'_>,
    faults: &mut Vec<FieldError>,
) {
    if faults.len() >= FAULTS_MAX || old == Some(value) {
        return;
    }
    if !has_type(schema, value, path, faults) {
        return;
    }
    let checks = schema.checks.as_deref();
    if let Some(checks) = checks {
        if !value.is_null() {
            scalar(checks, value, path, faults);
            junctors(checks, value, path, faults);
        }
        values(checks, value, path, faults);
    }
    match value {
        Value::Object(map) => object(schema, map, old, path, faults),
        Value::Array(items) => {
            if let Some(below) = schema.items.as_deref() {
                let before = Items::of(schema, old);
                for (index, item) in items.iter().enumerate() {
                    node(
                        below,
                        item,
                        before.get(item),
                        Path::Index(&path, index),
                        faults,
                    );
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn has_type(schema: &Schema, value: &Value, path: Path<'_>, faults: &mut Vec<FieldError>) -> bool {
    let (known, actual) = match value {
        Value::Null => (
            schema.nullable || schema.kind.is_none() && !schema.int_or_string,
            "null",
        ),
        Value::Bool(_) => (takes(schema, Type::Boolean), "boolean"),
        Value::String(_) => (
            takes(schema, Type::String) || schema.int_or_string,
            "string",
        ),
        Value::Array(_) => (takes(schema, Type::Array), "array"),
        Value::Object(_) => (takes(schema, Type::Object), "object"),
        Value::Number(n) => {
            let whole = n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| f.fract() == 0.0);
            let integer = takes(schema, Type::Integer) || schema.int_or_string;
            let name = if n.is_f64() { "number" } else { "integer" };
            (takes(schema, Type::Number) || (integer && whole), name)
        }
    };
    if !known {
        faults.push(FieldError::new(
            path.to_string(),
            Fault::TypeInvalid(format!("\"{actual}\"")),
            format!(
                "{path} in body must be of type {}: \"{actual}\"",
                schema.type_name()
            ),
        ));
    }
    known
}

fn takes(schema: &Schema, kind: Type) -> bool {
    match schema.kind {
        Some(known) => known == kind,
        None => !schema.int_or_string,
    }
}

fn invalid(path: Path<'_>, value: &Value, why: String, faults: &mut Vec<FieldError>) {
    faults.push(FieldError::invalid(path.to_string(), value, why));
}

fn scalar(checks: &Checks, value: &Value, path: Path<'_>, faults: &mut Vec<FieldError>) {
    match value {
        Value::String(text) => {
            let length = || text.chars().count() as u64;
            if let Some(max) = checks.max_length
                && length() > max
            {
                faults.push(FieldError::too_long(
                    path.to_string(),
                    usize::try_from(max).unwrap_or(usize::MAX),
                ));
            }
            if let Some(min) = checks.min_length
                && length() < min
            {
                let why = format!("{path} in body should be at least {min} chars long");
                invalid(path, value, why, faults);
            }
            if let Some(pattern) = &checks.pattern
                && !pattern.matches(text)
            {
                let why = format!("{path} in body should match '{}'", pattern.source());
                invalid(path, value, why, faults);
            }
            if let Some(format) = checks.format
                && !format.takes(text)
            {
                let shown = api::field::quoted(text);
                let why = format!("{path} in body must be of type {}: {shown}", format.name());
                faults.push(FieldError::new(
                    path.to_string(),
                    Fault::TypeInvalid(shown),
                    why,
                ));
            }
        }
        Value::Number(n) => numeric(checks, value, n.as_f64().unwrap_or(0.0), path, faults),
        Value::Array(items) => {
            let count = items.len() as u64;
            if let Some(min) = checks.min_items
                && count < min
            {
                let why = format!("{path} in body should have at least {min} items");
                invalid(path, &count.into(), why, faults);
            }
            too_many(checks.max_items, items.len(), path, faults);
            if checks.unique_items && repeats(items) {
                let why = format!("{path} in body shouldn't contain duplicates");
                invalid(path, &"".into(), why, faults);
            }
        }
        Value::Object(map) => {
            let count = map.len() as u64;
            if let Some(min) = checks.min_properties
                && count < min
            {
                let why = format!("{path} in body should have at least {min} properties");
                invalid(path, &count.into(), why, faults);
            }
            too_many(checks.max_properties, map.len(), path, faults);
            for name in &checks.required {
                if !map.contains_key(&**name) {
                    let path = Path::Field(&path, name);
                    faults.push(FieldError::required(path.to_string(), ""));
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn too_many(max: Option<u64>, met: usize, path: Path<'_>, faults: &mut Vec<FieldError>) {
    if let Some(max) = max.and_then(|max| usize::try_from(max).ok())
        && met > max
    {
        faults.push(FieldError::too_many(path.to_string(), met, max));
    }
}

fn numeric(checks: &Checks, value: &Value, n: f64, path: Path<'_>, faults: &mut Vec<FieldError>) {
    if let Some(of) = checks.multiple_of
        && of > 0.0
    {
        let times = n / of;
        if (times - times.round()).abs() > f64::EPSILON * times.abs().max(1.0) {
            let why = format!("{path} in body should be a multiple of {}", number(of));
            invalid(path, value, why, faults);
        }
    }
    if let Some((max, excluded)) = checks.maximum {
        let words = if excluded {
            "less than"
        } else {
            "less than or equal to"
        };
        if n > max || (excluded && n >= max) {
            let why = format!("{path} in body should be {words} {}", number(max));
            invalid(path, value, why, faults);
        }
    }
    if let Some((min, excluded)) = checks.minimum {
        let words = if excluded {
            "greater than"
        } else {
            "greater than or equal to"
        };
        if n < min || (excluded && n <= min) {
            let why = format!("{path} in body should be {words} {}", number(min));
            invalid(path, value, why, faults);
        }
    }
}

/// Whether two items are alike, at the cost of sorting their texts.
fn repeats(items: &[Value]) -> bool {
    let mut texts: Vec<String> = items.iter().map(Value::to_string).collect();
    texts.sort_unstable();
    texts.windows(2).any(|pair| pair[0] == pair[1])
}

fn values(checks: &Checks, value: &Value, path: Path<'_>, faults: &mut Vec<FieldError>) {
    let Some(values) = &checks.values else {
        return;
    };
    if values.iter().any(|known| same(known, value)) {
        return;
    }
    let shown: Vec<String> = values
        .iter()
        .map(|known| match known {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    faults.push(FieldError::not_supported_shown(
        path.to_string(),
        value.to_string(),
        &shown,
    ));
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a, b), (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64())
}

/// allOf, anyOf, oneOf, not. Their own findings have no path, only words.
fn junctors(checks: &Checks, value: &Value, path: Path<'_>, faults: &mut Vec<FieldError>) {
    let pathless = |why: String| FieldError::invalid_text("<nil>", "", why);
    let faults_of = |schema: &Schema| {
        let mut found = Vec::new();
        node(schema, value, None, path, &mut found);
        found
    };
    if !checks.any_of.is_empty() {
        let mut best: Option<Vec<FieldError>> = None;
        let mut held = false;
        for schema in &checks.any_of {
            let found = faults_of(schema);
            if found.is_empty() {
                held = true;
                break;
            }
            if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        if !held {
            faults.push(pathless(format!(
                "\"{path}\" must validate at least one schema (anyOf)"
            )));
            faults.extend(best.unwrap_or_default());
        }
    }
    if !checks.one_of.is_empty() {
        let mut best: Option<Vec<FieldError>> = None;
        let mut held = 0_usize;
        for schema in &checks.one_of {
            let found = faults_of(schema);
            if found.is_empty() {
                held += 1;
            } else if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        if held != 1 {
            let met = match held {
                0 => "Found none valid".to_owned(),
                held => format!("Found {held} valid alternatives"),
            };
            faults.push(pathless(format!(
                "\"{path}\" must validate one and only one schema (oneOf). {met}"
            )));
            if held == 0 {
                faults.extend(best.unwrap_or_default());
            }
        }
    }
    if !checks.all_of.is_empty() {
        let mut held = 0;
        for schema in &checks.all_of {
            let found = faults_of(schema);
            held += usize::from(found.is_empty());
            faults.extend(found);
        }
        if held < checks.all_of.len() {
            let none = if held == 0 { ". None validated" } else { "" };
            faults.push(pathless(format!(
                "\"{path}\" must validate all the schemas (allOf){none}"
            )));
        }
    }
    if let Some(not) = &checks.not
        && faults_of(not).is_empty()
    {
        faults.push(pathless(format!(
            "\"{path}\" must not validate the schema (not)"
        )));
    }
}

fn object(
    schema: &Schema,
    map: &Map<String, Value>,
    old: Option<&Value>,
    path: Path<'_>,
    faults: &mut Vec<FieldError>,
) {
    for (key, value) in map {
        let below = schema.property(key);
        let before = old.and_then(|old| old.get(key));
        if let Some(below) = below {
            node(below, value, before, Path::Field(&path, key), faults);
        } else if let Some(below) = schema.additional.as_deref() {
            node(below, value, before, Path::Key(&path, key), faults);
        }
    }
}
