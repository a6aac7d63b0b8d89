//! What the `x-kubernetes-*` words of a schema may say.

use api::field::FieldError;
use api::value::{at, entries, flag, list, text};
use serde_json::Value;

use crate::structural::Place;

/// Findings at one node.
pub(crate) fn check(body: &Value, place: Place<'_>, wrong: &mut Vec<FieldError>) {
    let preserve = at(body, &["x-kubernetes-preserve-unknown-fields"]);
    if *preserve == Value::Bool(false) {
        let field = place.field("x-kubernetes-preserve-unknown-fields");
        wrong.push(FieldError::invalid(
            field,
            preserve,
            "must be true or undefined",
        ));
    }
    if flag(body, &["x-kubernetes-int-or-string"]) {
        int_or_string(body, place, wrong);
    }
    map_type(body, place, wrong);
    list_type(body, place, wrong);
}

fn int_or_string(body: &Value, place: Place<'_>, wrong: &mut Vec<FieldError>) {
    for word in [
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
    ] {
        if flag(body, &[word]) {
            let why = "must be false if x-kubernetes-int-or-string is true";
            wrong.push(FieldError::invalid(place.field(word), &true.into(), why));
        }
    }
    let kind = text(body, &["type"]);
    if !kind.is_empty() {
        let why = "must be empty if x-kubernetes-int-or-string is true";
        wrong.push(FieldError::invalid_text(place.field("type"), kind, why));
    }
}

fn map_type(body: &Value, place: Place<'_>, wrong: &mut Vec<FieldError>) {
    let map_type = text(body, &["x-kubernetes-map-type"]);
    if map_type.is_empty() {
        return;
    }
    let kind = text(body, &["type"]);
    if kind != "object" {
        let why = "must be object if x-kubernetes-map-type is specified";
        wrong.push(of_type(place, kind, why));
    }
    if !matches!(map_type, "atomic" | "granular") {
        let field = place.field("x-kubernetes-map-type");
        wrong.push(FieldError::not_supported(
            field,
            map_type,
            &["atomic", "granular"],
        ));
    }
}

fn of_type(place: Place<'_>, kind: &str, why: &str) -> FieldError {
    if kind.is_empty() {
        FieldError::required(place.field("type"), why)
    } else {
        FieldError::invalid_text(place.field("type"), kind, why)
    }
}

fn list_type(body: &Value, place: Place<'_>, wrong: &mut Vec<FieldError>) {
    let list_type = text(body, &["x-kubernetes-list-type"]);
    let keys = list(body, &["x-kubernetes-list-map-keys"]);
    if !list_type.is_empty() {
        let kind = text(body, &["type"]);
        if kind != "array" {
            wrong.push(of_type(
                place,
                kind,
                "must be array if x-kubernetes-list-type is specified",
            ));
        }
        if !matches!(list_type, "atomic" | "set" | "map") {
            let field = place.field("x-kubernetes-list-type");
            wrong.push(FieldError::not_supported(
                field,
                list_type,
                &["atomic", "set", "map"],
            ));
        }
    }
    if !keys.is_empty() && list_type != "map" {
        let field = place.field("x-kubernetes-list-type");
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        wrong.push(if list_type.is_empty() {
            FieldError::required(field, why)
        } else {
            FieldError::invalid_text(field, list_type, why)
        });
    }
    let items = at(body, &["items"]);
    let here = Place::Child(&place, "items");
    match list_type {
        "map" => map_list(items, here, keys, place, wrong),
        "set" => set_items(items, here, wrong),
        _ => {}
    }
}

/// Items of a set are told apart by their whole value, so that whole value has to be one.
fn set_items(items: &Value, here: Place<'_>, wrong: &mut Vec<FieldError>) {
    if flag(items, &["nullable"]) {
        wrong.push(FieldError::forbidden(
            here.field("nullable"),
            "cannot be nullable when x-kubernetes-list-type is set",
        ));
    }
    match text(items, &["type"]) {
        "object" => {
            let map_type = at(items, &["x-kubernetes-map-type"]);
            let field = here.field("x-kubernetes-map-type");
            let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
            match map_type.as_str() {
                Some("atomic") => {}
                Some(other) => wrong.push(FieldError::invalid_text(field, other, why)),
                None => wrong.push(FieldError::required(field, why)),
            }
        }
        "array" => {
            let list_type = text(items, &["x-kubernetes-list-type"]);
            if !matches!(list_type, "" | "atomic") {
                wrong.push(FieldError::invalid_text(
                    here.field("x-kubernetes-list-type"),
                    list_type,
                    "must be atomic as item of a list with x-kubernetes-list-type=set",
                ));
            }
        }
        _ => {}
    }
}

fn map_list(
    items: &Value,
    here: Place<'_>,
    keys: &[Value],
    place: Place<'_>,
    wrong: &mut Vec<FieldError>,
) {
    if keys.is_empty() {
        wrong.push(FieldError::required(
            place.field("x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    if items.is_null() {
        wrong.push(FieldError::required(
            here.to_string(),
            "must have a schema if x-kubernetes-list-type is map",
        ));
        return;
    }
    let kind = text(items, &["type"]);
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        wrong.push(FieldError::invalid_text(here.field("type"), kind, why));
    }
    if flag(items, &["nullable"]) {
        wrong.push(FieldError::forbidden(
            here.field("nullable"),
            "cannot be nullable when x-kubernetes-list-type is map",
        ));
    }
    let required: Vec<&str> = list(items, &["required"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut seen: Vec<&str> = Vec::new();
    let whole = Value::Array(keys.to_vec());
    let own = || place.field("x-kubernetes-list-map-keys");
    for key in keys {
        let name = key.as_str().unwrap_or_default();
        if seen.contains(&name) {
            wrong.push(FieldError::invalid(
                own(),
                &whole,
                "must not contain duplicate entries",
            ));
            continue;
        }
        seen.push(name);
        let Some((_, property)) = entries(items, &["properties"]).find(|(known, _)| *known == name)
        else {
            wrong.push(FieldError::invalid(
                own(),
                &whole,
                "entries must all be names of item properties",
            ));
            continue;
        };
        let there = Place::Key(&here, "properties", name);
        if matches!(text(property, &["type"]), "array" | "object") {
            wrong.push(FieldError::invalid_text(
                there.field("type"),
                kind,
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            ));
        }
        if flag(property, &["nullable"]) {
            wrong.push(FieldError::forbidden(
                there.field("nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ));
        }
        if property.get("default").is_none() && !required.contains(&name) {
            wrong.push(FieldError::required(
                there.field("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ));
        }
    }
}
