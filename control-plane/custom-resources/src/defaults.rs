//! Whether the defaults in a schema are values that the schema takes, and whole ones.

use api::field::FieldError;
use api::value::entries;
use serde_json::Value;

use crate::schema::Schema;
use crate::structural::{DEPTH_MAX, Place};
use crate::{fill, lists, validate};

/// What is wrong with the defaults.
pub(crate) fn check(body: &Value, place: Place<'_>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    walk(body, place, true, 0, &mut wrong);
    wrong
}

fn walk(body: &Value, place: Place<'_>, root: bool, depth: usize, wrong: &mut Vec<FieldError>) {
    if depth > DEPTH_MAX {
        return;
    }
    if let Some(default) = body.get("default") {
        if root {
            wrong.push(FieldError::forbidden(
                place.field("default"),
                "must not be set",
            ));
        } else {
            one(body, default, place, wrong);
        }
    }
    for (name, property) in entries(body, &["properties"]) {
        let here = Place::Key(&place, "properties", name);
        if root && matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
            if property.get("default").is_some() {
                let why = format!("must not be set in top-level {name}");
                wrong.push(FieldError::forbidden(here.field("default"), why));
            }
            continue;
        }
        walk(property, here, false, depth + 1, wrong);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(below) = body.get(word).filter(|below| below.is_object()) {
            walk(below, Place::Child(&place, word), false, depth + 1, wrong);
        }
    }
}

fn one(body: &Value, default: &Value, place: Place<'_>, wrong: &mut Vec<FieldError>) {
    let schema = Schema::parse(body);
    let field = place.field("default");
    let mut filled = default.clone();
    // Defaults below fill a default before it is looked at.
    fill::default(&schema, &mut filled);
    let mut pruned = filled.clone();
    if !fill::prune_value(&schema, &mut pruned).is_empty() {
        wrong.push(FieldError::invalid(
            &field,
            default,
            "must not have unknown fields",
        ));
        return;
    }
    let mut found = validate::validate(&schema, &filled, None);
    found.extend(lists::duplicates(&schema, &filled));
    found.extend(lists::embedded(&schema, &filled));
    for mut fault in found {
        if fault.field != "<nil>" {
            let dot = if fault.field.is_empty() || fault.field.starts_with('[') {
                ""
            } else {
                "."
            };
            fault.detail = fault.detail.replacen(
                &format!("{} in body", fault.field),
                &format!("{field}{dot}{} in body", fault.field),
                1,
            );
            fault.field = format!("{field}{dot}{}", fault.field);
        }
        wrong.push(fault);
    }
}
