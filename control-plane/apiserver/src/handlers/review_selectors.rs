//! The selectors of a question who may do what: those that make no sense are refused, and what cannot be heeded is told
//! with the answer, which then is one about more.

use api::field::FieldError;
use api::selector::{self, LabelSelector};
use api::value::{at, list, text};
use api::{meta, names};
use serde_json::Value;

/// What is wrong with them: a selector stands either in one text or as requirements, and is not nothing.
pub(super) fn bad(resource: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for key in ["fieldSelector", "labelSelector"] {
        let selector = at(resource, &[key]);
        if selector.is_null() {
            continue;
        }
        let field = format!("spec.resourceAttributes.{key}");
        let raw = text(selector, &["rawSelector"]);
        let requirements = list(selector, &["requirements"]);
        match (raw.is_empty(), requirements.is_empty()) {
            (false, false) => {
                let why = "may not specified at the same time as requirements";
                let field = format!("{field}.rawSelector");
                wrong.push(FieldError::invalid_text(field, raw, why));
            }
            (true, true) => {
                let why =
                    format!("when {field} is specified, requirements or rawSelector is required");
                wrong.push(FieldError::required(format!("{field}.requirements"), why));
            }
            _ => {}
        }
        for (i, requirement) in requirements.iter().enumerate() {
            let field = format!("{field}.requirements[{i}]");
            let is_label = key == "labelSelector";
            wrong.extend(bad_requirement(requirement, &field, is_label));
        }
    }
    wrong
}

/// Operators that are not known may be those of a later version.
fn bad_requirement(requirement: &Value, field: &str, is_label: bool) -> Vec<FieldError> {
    let key = text(requirement, &["key"]);
    let values = list(requirement, &["values"]);
    let mut wrong = Vec::new();
    if !is_label && key.is_empty() {
        wrong.push(FieldError::required(
            format!("{field}.key"),
            "must be specified",
        ));
    }
    match text(requirement, &["operator"]) {
        "In" | "NotIn" if values.is_empty() => wrong.push(FieldError::required(
            format!("{field}.values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => wrong.push(FieldError::forbidden(
            format!("{field}.values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        _ => {}
    }
    if is_label {
        wrong.extend(meta::label_key(key, &format!("{field}.key")));
        for (j, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let field = format!("{field}.values[{j}]");
            let why = names::label_value(value).into_iter();
            wrong.extend(why.map(|why| FieldError::invalid_text(field.as_str(), value, why)));
        }
    }
    wrong
}

/// Which of them, that are not wrong, are not heeded, in the words of the answer; empty where both are.
pub(super) fn ignored(resource: &Value) -> String {
    let mut told = Vec::new();
    for key in ["fieldSelector", "labelSelector"] {
        let selector = at(resource, &[key]);
        let raw = text(selector, &["rawSelector"]);
        let requirements = list(selector, &["requirements"]);
        let (heeded, all) = match (key, requirements) {
            ("fieldSelector", []) => (usize::from(selector::is_of_fields(raw)), 1),
            (_, []) => (usize::from(LabelSelector::parse(raw).is_ok()), 1),
            (_, all) => {
                let heeded = all.iter().filter(|one| is_heeded(one, key));
                (heeded.count(), all.len())
            }
        };
        if heeded < all {
            let partially = if heeded > 0 { "partially " } else { "" };
            told.push(format!(
                "spec.resourceAttributes.{key} {partially}ignored due to parse error"
            ));
        }
    }
    told.join("; ")
}

/// A field can only be compared with one value.
fn is_heeded(requirement: &Value, key: &str) -> bool {
    let operator = text(requirement, &["operator"]);
    match key {
        "fieldSelector" => {
            matches!(operator, "In" | "NotIn") && list(requirement, &["values"]).len() == 1
        }
        _ => matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist"),
    }
}
