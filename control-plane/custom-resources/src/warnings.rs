//! What is odd about a definition that is taken all the same.

use api::value::{list, text};
use serde_json::Value;

use crate::formats::Format;

/// What to warn of, each once; with `old`, only what was not there before.
pub(crate) fn of(object: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map(unknown_formats).unwrap_or_default();
    unknown_formats(object)
        .into_iter()
        .filter(|format| !before.contains(format))
        .map(|format| format!("unrecognized format {}", api::field::quoted(format)))
        .collect()
}

/// Formats of texts that nothing checks.
fn unknown_formats(object: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    let mut open: Vec<&Value> = list(object, &["spec", "versions"])
        .iter()
        .filter_map(|version| version.get("schema")?.get("openAPIV3Schema"))
        .collect();
    while let Some(schema) = open.pop() {
        let format = text(schema, &["format"]);
        let known = format.is_empty() || format == "password" || Format::is_known(format);
        if !known && text(schema, &["type"]) == "string" && !found.contains(&format) {
            found.push(format);
        }
        for key in ["items", "additionalProperties", "not"] {
            open.extend(schema.get(key).filter(|below| below.is_object()));
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            open.extend(list(schema, &[key]));
        }
        let properties = api::value::entries(schema, &["properties"]);
        open.extend(properties.map(|(_, below)| below));
    }
    found.sort_unstable();
    found
}
