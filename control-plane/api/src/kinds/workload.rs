//! What all kinds that make Pods from a template share: the template's defaults and rules, selectors, amounts that are
//! numbers or percentages, and the columns of wide output.

use serde_json::Value;
use time::OffsetDateTime;

use super::{pod_defaults, pod_spec};
use crate::duration::age;
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::selector::{LabelSelector, selector_text};
use crate::table::{Column, wide};
use crate::value::{at, entries, list, text};

/// The containers of the template, for wide output.
pub(super) const CONTAINERS: Column =
    wide("Containers", "Names of each container in the template.");
/// Their images.
pub(super) const IMAGES: Column = wide("Images", "Images of each container in the template.");
/// Which Pods are counted.
pub(super) const SELECTOR: Column = wide("Selector", "Labels of the Pods that belong to it.");

pub(super) const IMMUTABLE: &str = "field is immutable";
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Fills the Pod template at `key` of `spec`.
pub(super) fn default_template(spec: &mut Value, key: &str) {
    if let Some(template) = spec.get_mut(key).filter(|t| t.is_object()) {
        crate::value::object_mut(template, "metadata");
        pod_defaults::default_template(template);
    }
}

/// What is wrong with the template at `field`: `spec.template`, or deeper. Apart from its restart policy.
pub(super) fn bad_template(template: &Value, field: &str) -> Vec<FieldError> {
    pod_spec::template(template, field)
}

/// The template of a kind whose Pods run for ever. `kind` is named in refusals.
pub(super) fn bad_lasting_template(template: &Value, field: &str, kind: &str) -> Vec<FieldError> {
    let mut wrong = bad_template(template, field);
    let policy = text(template, &["spec", "restartPolicy"]);
    if !matches!(policy, "Always" | "") {
        let field = format!("{field}.spec.restartPolicy");
        wrong.retain(|e| e.field != field);
        wrong.push(FieldError::not_supported(field, policy, &["Always"]));
    }
    if !at(template, &["spec", "activeDeadlineSeconds"]).is_null() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        let field = format!("{field}.spec.activeDeadlineSeconds");
        wrong.push(FieldError::forbidden(field, why));
    }
    wrong
}

/// What is wrong with `spec.selector`, which must be there and say something; `kind` is named in refusals.
pub(super) fn bad_required_selector(spec: &Value, kind: &str) -> Vec<FieldError> {
    let selector = at(spec, &["selector"]);
    if selector.is_null() {
        return vec![FieldError::required("spec.selector", "")];
    }
    let mut wrong = bad_selector(selector, "spec.selector");
    let says = |key: &str| match at(selector, &[key]) {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if !says("matchLabels") && !says("matchExpressions") {
        let why = format!("empty selector is invalid for {kind}");
        wrong.push(FieldError::invalid("spec.selector", selector, why));
    }
    wrong
}

/// That the selector takes the Pods of the template.
pub(super) fn bad_match(spec: &Value) -> Option<FieldError> {
    let selector = LabelSelector::from_object(at(spec, &["selector"]))?;
    let labels = at(spec, &["template", "metadata", "labels"]);
    if selector.is_empty() || selector.matches(labels) {
        return None;
    }
    Some(FieldError::invalid(
        "spec.template.metadata.labels",
        labels,
        "`selector` does not match template `labels`",
    ))
}

/// What is wrong with a LabelSelector.
pub(super) fn bad_selector(selector: &Value, field: &str) -> Vec<FieldError> {
    let mut wrong = meta::labels(
        at(selector, &["matchLabels"]),
        &format!("{field}.matchLabels"),
    );
    for (i, one) in list(selector, &["matchExpressions"]).iter().enumerate() {
        let field = format!("{field}.matchExpressions[{i}]");
        let values = list(one, &["values"]);
        match text(one, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                wrong.push(FieldError::required(format!("{field}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                wrong.push(FieldError::forbidden(format!("{field}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => wrong.push(FieldError::invalid_text(
                format!("{field}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
        wrong.extend(meta::label_key(
            text(one, &["key"]),
            &format!("{field}.key"),
        ));
        for (j, value) in values.iter().filter_map(Value::as_str).enumerate() {
            for why in names::label_value(value) {
                wrong.push(FieldError::invalid_text(
                    format!("{field}.values[{j}]"),
                    value,
                    why,
                ));
            }
        }
    }
    wrong
}

/// What is wrong with numbers that must not be less than zero.
pub(super) fn bad_negatives(spec: &Value, path: &str, keys: &[&str]) -> Vec<FieldError> {
    let negative = |key: &&str| {
        let given = at(spec, &[*key]);
        let bad = given.as_i64().is_some_and(|n| n < 0);
        bad.then(|| FieldError::invalid(format!("{path}.{key}"), given, NOT_NEGATIVE))
    };
    keys.iter().filter_map(negative).collect()
}

/// What is wrong with a number or percentage that must not be less than zero.
pub(super) fn bad_amount(value: &Value, field: &str) -> Option<FieldError> {
    match value {
        Value::String(text) => percent(value).is_none().then(|| {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                       regex used for validation is '[0-9]+%')";
            FieldError::invalid_text(field, text, why)
        }),
        other => other
            .as_i64()
            .is_some_and(|n| n < 0)
            .then(|| FieldError::invalid(field, other, NOT_NEGATIVE)),
    }
}

/// That a percentage is no more than everything.
pub(super) fn bad_percent(value: &Value, field: &str) -> Option<FieldError> {
    percent(value)
        .is_some_and(|p| p > 100)
        .then(|| FieldError::invalid(field, value, "must not be greater than 100%"))
}

/// Whether a number or percentage is nothing.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(_) => percent(value) == Some(0),
        other => other.as_i64().unwrap_or(0) == 0,
    }
}

fn percent(value: &Value) -> Option<u64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    all.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// The refusal of a change to `field`, if it is one.
pub(super) fn bad_change(
    new: &Value,
    old: &Value,
    path: &[&str],
    field: &str,
) -> Option<FieldError> {
    let (now, was) = (at(new, path), at(old, path));
    (now != was).then(|| FieldError::invalid(field, now, IMMUTABLE))
}

/// Names and images of a template's containers.
pub(super) fn containers(template: &Value) -> (Value, Value) {
    let containers = list(template, &["spec", "containers"]);
    let joined = |key: &str| {
        let all: Vec<&str> = containers.iter().map(|c| text(c, &[key])).collect();
        all.join(",").into()
    };
    (joined("name"), joined("image"))
}

/// A LabelSelector as people write it.
pub(super) fn selector(selector: &Value) -> String {
    match selector_text(selector) {
        text if text.is_empty() => "<none>".to_owned(),
        text => text,
    }
}

/// Labels as people write them.
pub(super) fn labels(labels: &Value) -> String {
    let parts: Vec<String> = entries(labels, &[])
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    }
}

/// How old an object is.
pub(super) fn object_age(object: &Value, now: OffsetDateTime) -> Value {
    age(at(object, &["metadata", "creationTimestamp"]), now).into()
}

/// An empty status, as the server makes of the one sent.
pub(super) fn clear_status(object: &mut Value) {
    crate::value::set(object, "status", serde_json::json!({}));
}
