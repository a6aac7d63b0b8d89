//! What is wrong with a label selector within an object (`matchLabels` and `matchExpressions`).

use serde_json::Value;

use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::value::{at, list, text};

/// Everything wrong with the selector that stands at `field`.
pub(crate) fn bad_selector(field: &str, selector: &Value) -> Vec<FieldError> {
    let mut wrong = meta::labels(
        at(selector, &["matchLabels"]),
        &format!("{field}.matchLabels"),
    );
    for (i, requirement) in list(selector, &["matchExpressions"]).iter().enumerate() {
        let path = format!("{field}.matchExpressions[{i}]");
        let values = list(requirement, &["values"]);
        match text(requirement, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => wrong.push(FieldError::required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => wrong.push(FieldError::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => wrong.push(FieldError::invalid_text(
                format!("{path}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
        wrong.extend(meta::label_key(
            text(requirement, &["key"]),
            &format!("{path}.key"),
        ));
        for (j, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            for why in names::label_value(value) {
                wrong.push(FieldError::invalid_text(
                    format!("{path}.values[{j}]"),
                    value,
                    why,
                ));
            }
        }
    }
    wrong
}
