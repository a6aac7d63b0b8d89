//! Strategic merge patch: a merge patch that knows which lists are sets of named things.
//!
//! Directives inside a patch: `$patch: replace|merge|delete` on objects and on items of lists,
//! `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`, `$retainKeys`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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
pub fn strategic_merge(
    schema: &'static Schema,
    original: &Value,
    patch: &Value,
) -> Result<Value, Status> {
    let Some(patch) = patch.as_object() else {
        return Err(Status::bad_request("the patch must be an object"));
    };
    let merged = match original {
        Value::Object(original) => {
            merge_object(original.clone(), patch, Fields::Of(&schema.shape))?
        }
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
            Fields::Of(Shape::Struct(fields)) => fields
                .get(name)
                .map_or(Fields::Unknown, |f| Fields::Of(resolved(&f.shape))),
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
    let orders = element_orders(&original, patch, fields)?;
    for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key)) {
        if value.is_null() {
            original.remove(key);
            continue;
        }
        let below = fields.below(key);
        let merged = match (original.remove(key), value) {
            (_, Value::Object(new)) if fields.field(key).is_some_and(|field| field.replace) => {
                Value::Object(without_directives(new))
            }
            (Some(Value::Object(old)), Value::Object(new)) => {
                Value::Object(merge_object(old, new, below)?)
            }
            (_, Value::Object(new)) => Value::Object(merge_object(Map::new(), new, below)?),
            (Some(Value::Array(old)), Value::Array(new)) => {
                Value::Array(merge_list(old, new, fields.field(key), below, key)?)
            }
            (_, Value::Array(new)) => {
                Value::Array(merge_list(Vec::new(), new, fields.field(key), below, key)?)
            }
            (_, plain) => plain.clone(),
        };
        original.insert(key.clone(), merged);
    }
    for (key, removed) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            let removed = places(list_of(key, removed)?, None);
            if let Some(Value::Array(items)) = original.get_mut(name) {
                items.retain(|item| !removed.contains_key(&identity(item, None)));
            }
        }
    }
    for (name, order) in orders {
        if let Some(Value::Array(items)) = original.get_mut(name) {
            *items = order.apply(std::mem::take(items));
        }
    }
    Ok(original)
}

/// Drops what a union no longer holds: only keys named by the directive stay.
fn retain(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
) -> Result<(), Status> {
    let keys: Option<Vec<&str>> = keys
        .as_array()
        .map(|k| k.iter().filter_map(Value::as_str).collect());
    let keys =
        keys.ok_or_else(|| Status::bad_request(format!("{RETAIN_KEYS} must be a list of keys")))?;
    let stray = patch.iter().find(|(key, value)| {
        !is_directive(key) && !value.is_null() && !keys.contains(&key.as_str())
    });
    if let Some((key, _)) = stray {
        return Err(Status::bad_request(format!(
            "{RETAIN_KEYS} must list {key}, which the patch sets"
        )));
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
) -> Result<Vec<Value>, Status> {
    let directive = new
        .iter()
        .filter(|item| is_bare_directive(item))
        .find_map(|item| item[PATCH].as_str());
    let merges = field.is_some_and(|f| f.merge);
    if !merges || directive == Some("replace") {
        return Ok(new
            .iter()
            .filter(|item| !is_bare_directive(item))
            .map(cleaned)
            .collect());
    }
    let mut items: Vec<Option<Value>> = old.into_iter().map(Some).collect();
    let merge_key = field.and_then(|f| f.merge_key);
    // Where the items with each identity stand, the first of them first.
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, item) in items.iter().flatten().enumerate() {
        places.entry(identity(item, merge_key)).or_default().push(i);
    }
    let Some(merge_key) = merge_key else {
        for item in new {
            if let Entry::Vacant(place) = places.entry(identity(item, None)) {
                place.insert(vec![items.len()]);
                items.push(Some(item.clone()));
            }
        }
        return Ok(items.into_iter().flatten().collect());
    };
    for item in new {
        let object = item
            .as_object()
            .ok_or_else(|| Status::bad_request(format!("items of {name} must be objects")))?;
        match object.get(PATCH).map(|it| it.as_str().unwrap_or_default()) {
            None | Some("delete" | "replace") => {}
            Some("merge") => {
                let why = "merging lists cannot yet be specified in the patch";
                return Err(Status::bad_request(why));
            }
            Some(directive) => return Err(unknown_directive(directive)),
        }
        if !object.contains_key(merge_key) {
            return Err(Status::bad_request(format!(
                "map: {item} does not contain declared merge key: {merge_key}"
            )));
        }
        let key = identity(item, Some(merge_key));
        if object.get(PATCH).and_then(Value::as_str) == Some("delete") {
            for i in places.remove(&key).unwrap_or_default() {
                items[i] = None;
            }
            continue;
        }
        let at = places.get(&key).and_then(|places| places.first().copied());
        let before = match at.and_then(|i| items[i].take()) {
            Some(Value::Object(before)) => before,
            _ => Map::new(),
        };
        let merged = Some(Value::Object(merge_object(before, object, below.items())?));
        match at {
            Some(i) => items[i] = merged,
            None => {
                places.insert(key, vec![items.len()]);
                items.push(merged);
            }
        }
    }
    Ok(items.into_iter().flatten().collect())
}

/// The order that a patch gives to a list, by a directive or by its own items.
struct ElementOrder {
    merge_key: Option<&'static str>,
    /// The place of each item as wanted.
    wanted: BTreeMap<String, usize>,
    /// The place of each item as it stands.
    before: BTreeMap<String, usize>,
}

fn element_orders<'a>(
    original: &Map<String, Value>,
    patch: &'a Map<String, Value>,
    fields: Fields<'_>,
) -> Result<Vec<(&'a str, ElementOrder)>, Status> {
    let mut orders = Vec::new();
    for (key, order) in patch {
        let (name, order) = match (key.strip_prefix(SET_ORDER), order) {
            (Some(name), order) => (name, list_of(key, order)?),
            // A list that merges has the order of its own items where it is given no other.
            (None, Value::Array(items))
                if fields.field(key).is_some_and(|f| f.merge)
                    && !patch.contains_key(&format!("{SET_ORDER}{key}")) =>
            {
                (key.as_str(), items)
            }
            (None, _) => continue,
        };
        let merge_key = fields.field(name).and_then(|f| f.merge_key);
        let before = original.get(name).and_then(Value::as_array);
        let order = ElementOrder {
            merge_key,
            wanted: places(order, merge_key),
            before: places(before.map_or(&[], Vec::as_slice), merge_key),
        };
        orders.push((name, order));
    }
    Ok(orders)
}

/// Where each item stands first.
fn places(items: &[Value], merge_key: Option<&str>) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        places.entry(identity(item, merge_key)).or_insert(i);
    }
    places
}

impl ElementOrder {
    /// Items that the patch names come in its order. Each of the others goes before the first named one that it stood
    /// before; new items come before those others.
    fn apply(&self, items: Vec<Value>) -> Vec<Value> {
        let mut named = Vec::new();
        let mut others = Vec::new();
        for item in items {
            let id = identity(&item, self.merge_key);
            let was = self.before.get(&id).copied();
            match self.wanted.get(&id) {
                Some(at) => named.push((*at, was, item)),
                None => others.push((was, item)),
            }
        }
        named.sort_by_key(|(at, _, _)| *at);
        let mut merged = Vec::with_capacity(named.len() + others.len());
        let mut others = others.into_iter().peekable();
        for (_, stood, item) in named {
            if let Some(at) = stood {
                while let Some((_, other)) =
                    others.next_if(|(was, _)| was.is_some_and(|was| was < at))
                {
                    merged.push(other);
                }
            }
            merged.push(item);
        }
        merged.extend(others.map(|(_, item)| item));
        merged
    }
}

/// What tells an item of a list apart, as JSON; lists are long, and comparing each with each would take long.
fn identity(item: &Value, merge_key: Option<&str>) -> String {
    match merge_key {
        Some(key) => item.get(key).map_or_else(String::new, Value::to_string),
        None => item.to_string(),
    }
}

fn list_of<'a>(key: &str, value: &'a Value) -> Result<&'a Vec<Value>, Status> {
    value
        .as_array()
        .ok_or_else(|| Status::bad_request(format!("{key} must be a list")))
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
}

fn is_bare_directive(item: &Value) -> bool {
    item.as_object()
        .is_some_and(|o| o.len() == 1 && o.contains_key(PATCH))
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
        Value::Array(items) => items
            .iter()
            .filter(|i| !is_bare_directive(i))
            .map(cleaned)
            .collect(),
        plain => plain.clone(),
    }
}

fn unknown_directive(directive: &str) -> Status {
    Status::bad_request(format!("unknown patch type found: {directive}"))
}
