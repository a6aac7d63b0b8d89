//! What a driver must not say of its devices: attributes that hold nothing or several things, versions that are none.

use serde_json::Value;

use super::device_claims::bad_qualified;
use crate::field::FieldError;
use crate::value::{at, entries, list};

/// Attributes and capacities of one device.
const PROPERTIES_MAX: usize = 32;
/// Bytes of the value of an attribute.
const VALUE_MAX: usize = 64;

/// What is wrong with the attributes and capacities of the device at `field`.
pub(super) fn bad_device(field: &str, device: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let count = entries(device, &["attributes"]).count() + entries(device, &["capacity"]).count();
    if count > PROPERTIES_MAX {
        let why = format!(
            "the total number of attributes and capacities must not exceed {PROPERTIES_MAX}"
        );
        wrong.push(FieldError::invalid(field, &count.into(), why));
    }
    let path = format!("{field}.attributes");
    for (name, attribute) in entries(device, &["attributes"]) {
        wrong.extend(bad_qualified(&path, name));
        wrong.extend(bad_attribute(&format!("{path}[{name}]"), attribute));
    }
    let path = format!("{field}.capacity");
    let shared = at(device, &["allowMultipleAllocations"]).as_bool() == Some(true);
    for (name, capacity) in entries(device, &["capacity"]) {
        wrong.extend(bad_qualified(&path, name));
        if !shared && at(capacity, &["requestPolicy"]).is_object() {
            wrong.push(FieldError::forbidden(
                format!("{path}[{name}].requestPolicy"),
                "allowMultipleAllocations must be true",
            ));
        }
    }
    wrong
}

/// The kinds of value, one of which an attribute has.
const KINDS: &[&str] = &[
    "bool", "int", "string", "version", "bools", "ints", "strings", "versions",
];

fn bad_attribute(field: &str, attribute: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut check = |kind: &str, path: String, value: &Value| {
        let text = value.as_str().unwrap_or("");
        if kind.starts_with("version") && !is_version(text) {
            let why = "must be a string compatible with semver.org spec 2.0.0";
            wrong.push(FieldError::invalid_text(path.clone(), text, why));
        }
        if text.len() > VALUE_MAX {
            wrong.push(FieldError::too_long(path, VALUE_MAX));
        }
    };
    let given = KINDS
        .iter()
        .filter(|kind| !at(attribute, &[kind]).is_null());
    let mut count = 0;
    for kind in given {
        count += 1;
        let path = format!("{field}.{kind}");
        match kind.strip_suffix('s') {
            Some(_) => {
                for (i, item) in list(attribute, &[kind]).iter().enumerate() {
                    check(kind, format!("{path}[{i}]"), item);
                }
            }
            None => check(kind, path, at(attribute, &[kind])),
        }
    }
    let why = "exactly one value must be specified";
    match count {
        0 => wrong.push(FieldError::invalid_text(field, "", why)),
        1 => {}
        _ => wrong.push(FieldError::invalid(field, attribute, why)),
    }
    wrong
}

/// Whether a text is a version after semver.org 2.0.0.
fn is_version(text: &str) -> bool {
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (core, before) = match text.split_once('-') {
        Some((core, before)) => (core, Some(before)),
        None => (text, None),
    };
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let unlike_number = |part: &str| part.bytes().any(|b| !b.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|before| {
            before
                .split('.')
                .all(|part| word(part) && (unlike_number(part) || number(part)))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions() {
        for good in ["1.2.3", "0.0.0", "1.2.3-alpha.1", "1.2.3-0a+b.007"] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "", "a", "1.2", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn devices() {
        for (device, wanted) in [
            (
                json!({"attributes": {"a": {"bool": false}, "d.x/b": {"version": "1.2.3"}}, "capacity": {"m": {"value": "1"}}}),
                vec![],
            ),
            (
                json!({"attributes": {"x": {}}}),
                vec!["d.attributes[x]: Invalid value: \"\": exactly one value must be specified"],
            ),
            (
                json!({"attributes": {"x": {"int": 1, "string": "a"}}}),
                vec![
                    "d.attributes[x]: Invalid value: {\"int\":1,\"string\":\"a\"}: exactly one value must be specified",
                ],
            ),
            (
                json!({"attributes": {"x": {"version": "a"}}}),
                vec![
                    "d.attributes[x].version: Invalid value: \"a\": must be a string compatible with semver.org spec 2.0.0",
                ],
            ),
        ] {
            let found: Vec<String> = bad_device("d", &device)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, wanted, "{device}");
        }
        let odd = bad_device("d", &json!({"capacity": {"a b": {"value": "1"}}}));
        assert!(
            odd[0]
                .to_string()
                .starts_with("d.capacity: Invalid value: \"a b\": a valid C identifier")
        );
    }
}
