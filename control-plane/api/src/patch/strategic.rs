//! Strategic merge patch: a merge patch that knows which lists are sets of named things.
//!
//! Directives inside a patch: `$patch: replace|merge|delete` on objects and on items of lists,
//! `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`, `$retainKeys`.

use serde_json::{Map, Value};

use crate::schema::{Field, Schema, Shape};
use crate::status::Status;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Carries out `patch` on `original`, an object of `schema`.
///
/// # Errors
/// 400 where a directive is none, where an item lacks its key, or where the patch has another shape than the schema.
pub fn strategic_merge(schema: &'static Schema, original: &Value, patch: &Value) -> Result<Value, Status> {
    let Some(patch) = patch.as_object() else {
        return Err(Status::bad_request("the patch must be an object"));
    };
    let merged = match original {
        Value::Object(original) => merge_object(original.clone(), patch, Fields::Of(&schema.shape))?,
        _ => merge_object(Map::new(), patch, Fields::Of(&schema.shape))?,
    };
    Ok(Value::Object(merged))
}

/// What is known about the fields of the object at hand.
#[derive(Clone, Copy)]
enum Fields<'a> {
    Of(&'a Shape),
    Unknown,
}

impl<'a> Fields<'a> {
    fn field(self, name: &str) -> Option<&'a Field> {
        match self {
            Fields::Of(Shape::Struct(fields)) => fields.get(name),
            _ => None,
        }
    }

    /// Of the values under a key.
    fn below(self, name: &str) -> Fields<'a> {
        match self {
            Fields::Of(Shape::Struct(fields)) => fields.get(name).map_or(Fields::Unknown, |f| Fields::Of(resolved(&f.shape))),
            Fields::Of(Shape::Map(items)) => Fields::Of(resolved(items)),
            _ => Fields::Unknown,
        }
    }

    /// Of the items of a list.
    fn items(self) -> Fields<'a> {
        match self {
            Fields::Of(Shape::List(items)) => Fields::Of(resolved(items)),
            _ => Fields::Unknown,
        }
    }
}

fn resolved(shape: &Shape) -> &Shape {
    shape.resolve().1
}

fn merge_object(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    fields: Fields<'_>,
) -> Result<Map<String, Value>, Status> {
    match patch.get(PATCH).map(|d| d.as_str().unwrap_or("")) {
        None | Some("merge") => {}
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(other)),
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain(&mut original, patch, keys)?;
    }
    for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key)) {
        if value.is_null() {
            original.remove(key);
            continue;
        }
        let field = fields.field(key);
        let below = fields.below(key);
        let merged = match (original.remove(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_object(old, new, below)?),
            (_, Value::Object(new)) => Value::Object(merge_object(Map::new(), new, below)?),
            (old, Value::Array(new)) => {
                let old = match old {
                    Some(Value::Array(old)) => old,
                    _ => Vec::new(),
                };
                let order = patch.get(&format!("{SET_ORDER}{key}"));
                Value::Array(merge_list(old, new, field, below, key, order)?)
            }
            (_, plain) => plain.clone(),
        };
        // An object that a `$patch: delete` emptied goes away with its key.
        let deleted = value.get(PATCH).and_then(Value::as_str) == Some("delete");
        if !deleted {
            original.insert(key.clone(), merged);
        }
    }
    for (key, removed) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            let removed = removed.as_array().ok_or_else(|| {
                Status::bad_request(format!("{key} must be a list of the values to remove"))
            })?;
            if let Some(Value::Array(items)) = original.get_mut(name) {
                items.retain(|item| !removed.contains(item));
            }
        }
    }
    for (key, order) in patch {
        if let Some(name) = key.strip_prefix(SET_ORDER) {
            let order = order
                .as_array()
                .ok_or_else(|| Status::bad_request(format!("{key} must be a list")))?;
            // Where the patch holds the list as well, the order was applied while merging.
            if let Some(Value::Array(items)) = original.get_mut(name) {
                let merge_key = fields.field(name).and_then(|f| f.merge_key);
                *items = in_order(std::mem::take(items), order, merge_key);
            }
        }
    }
    Ok(original)
}

/// Drops what a union no longer holds: only keys named by the directive stay.
fn retain(original: &mut Map<String, Value>, patch: &Map<String, Value>, keys: &Value) -> Result<(), Status> {
    let keys: Option<Vec<&str>> = keys.as_array().map(|k| k.iter().filter_map(Value::as_str).collect());
    let keys = keys.ok_or_else(|| Status::bad_request(format!("{RETAIN_KEYS} must be a list of keys")))?;
    let stray = patch.iter().find(|(key, value)| !is_directive(key) && !value.is_null() && !keys.contains(&key.as_str()));
    if let Some((key, _)) = stray {
        return Err(Status::bad_request(format!("{RETAIN_KEYS} must list {key}, which the patch sets")));
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

fn merge_list(
    old: Vec<Value>,
    new: &[Value],
    field: Option<&Field>,
    below: Fields<'_>,
    name: &str,
    order: Option<&Value>,
) -> Result<Vec<Value>, Status> {
    let directive = new.iter().find_map(|item| {
        let object = item.as_object()?;
        (object.len() == 1).then(|| object.get(PATCH))?
    });
    let merges = field.is_some_and(|f| f.merge);
    if !merges || directive.and_then(Value::as_str) == Some("replace") {
        let items = new.iter().filter(|item| !is_bare_directive(item)).map(cleaned).collect();
        return Ok(items);
    }
    let Some(merge_key) = field.and_then(|f| f.merge_key) else {
        let mut items = old;
        for item in new {
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
        return Ok(sorted_by(items, order, None));
    };
    let mut items = old;
    for item in new.iter().filter(|item| !is_bare_directive(item)) {
        let object = item.as_object().ok_or_else(|| {
            Status::bad_request(format!("items of {name} must be objects"))
        })?;
        let key = object.get(merge_key).ok_or_else(|| {
            Status::bad_request(format!("map: {item} does not contain declared merge key: {merge_key}"))
        })?;
        let same = |other: &Value| other.get(merge_key) == Some(key);
        match object.get(PATCH).and_then(Value::as_str) {
            Some("delete") => items.retain(|other| !same(other)),
            None | Some("merge" | "replace") => {
                let at = items.iter().position(same);
                let before = match at.map(|i| items[i].take()) {
                    Some(Value::Object(before)) => before,
                    _ => Map::new(),
                };
                let merged = Value::Object(merge_object(before, object, below.items())?);
                match at {
                    Some(i) => items[i] = merged,
                    None => items.push(merged),
                }
            }
            Some(other) => return Err(unknown_directive(other)),
        }
    }
    Ok(sorted_by(items, order, Some(merge_key)))
}

fn sorted_by(items: Vec<Value>, order: Option<&Value>, merge_key: Option<&str>) -> Vec<Value> {
    match order.and_then(Value::as_array) {
        Some(order) => in_order(items, order, merge_key),
        None => items,
    }
}

/// Items named by `order` come in its order; the others keep their place among their neighbours: each goes before the
/// first ordered item that it stood before.
fn in_order(items: Vec<Value>, order: &[Value], merge_key: Option<&str>) -> Vec<Value> {
    let identity = |item: &Value| match merge_key {
        Some(key) => item.get(key).cloned().unwrap_or(Value::Null),
        None => item.clone(),
    };
    let wanted: Vec<Value> = order.iter().map(identity).collect();
    let place = |item: &Value| wanted.iter().position(|w| *w == identity(item));
    let (mut ordered, mut others) = (Vec::new(), Vec::new());
    for (i, item) in items.into_iter().enumerate() {
        match place(&item) {
            Some(at) => ordered.push((at, i, item)),
            None => others.push((i, item)),
        }
    }
    ordered.sort_by_key(|(at, i, _)| (*at, *i));
    let mut merged = Vec::new();
    let mut others = others.into_iter().peekable();
    for (_, was, item) in ordered {
        while others.peek().is_some_and(|(i, _)| *i < was) {
            merged.extend(others.next().map(|(_, other)| other));
        }
        merged.push(item);
    }
    merged.extend(others.map(|(_, other)| other));
    merged
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
}

fn is_bare_directive(item: &Value) -> bool {
    item.as_object().is_some_and(|o| o.len() == 1 && o.contains_key(PATCH))
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .map(|(key, value)| (key.clone(), cleaned(value)))
        .collect()
}

/// The value without directives and nulls in it.
fn cleaned(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(without_directives(object)),
        Value::Array(items) => items.iter().filter(|i| !is_bare_directive(i)).map(cleaned).collect(),
        plain => plain.clone(),
    }
}

fn unknown_directive(directive: &str) -> Status {
    Status::bad_request(format!("unknown patch type found: {directive}"))
}
