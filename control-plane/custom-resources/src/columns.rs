//! Printed columns: name, what the definition adds, or the age where it adds nothing.

use api::duration;
use api::value::{at, number, text};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::jsonpath::JsonPath;

/// The columns of one version.
#[derive(Clone, Debug)]
pub struct Columns {
    definitions: Value,
    paths: Vec<(String, Option<JsonPath>)>,
}

impl Columns {
    /// From `additionalPrinterColumns`.
    pub fn new(added: &[Value]) -> Self {
        let age = [json!({
            "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "Time since the object was created.",
        })];
        let added = if added.is_empty() { &age } else { added };
        let mut definitions = vec![json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name of the object, unique among its kind in its namespace.",
        })];
        let mut paths = Vec::new();
        for column in added {
            let path = text(column, &["jsonPath"]);
            let description = match text(column, &["description"]) {
                "" => format!("Custom resource definition column (in JSONPath format): {path}"),
                words => words.to_owned(),
            };
            definitions.push(json!({
                "name": column["name"], "type": column["type"], "format": text(column, &["format"]),
                "description": description, "priority": number(column, &["priority"]),
            }));
            paths.push((
                text(column, &["type"]).to_owned(),
                JsonPath::parse(path).ok(),
            ));
        }
        Columns {
            definitions: definitions.into(),
            paths,
        }
    }

    /// The `columnDefinitions` of a Table.
    pub fn definitions(&self) -> &Value {
        &self.definitions
    }

    /// The cells of one object.
    pub fn cells(&self, object: &Value, now: OffsetDateTime) -> Vec<Value> {
        let mut cells = vec![at(object, &["metadata", "name"]).clone()];
        cells.extend(self.paths.iter().map(|(kind, path)| {
            let found = path
                .as_ref()
                .map_or_else(Vec::new, |path| path.find(object));
            cell(kind, &found, now)
        }));
        cells
    }
}

fn cell(kind: &str, found: &[&Value], now: OffsetDateTime) -> Value {
    let Some(first) = found.first().filter(|first| !first.is_null()) else {
        return Value::Null;
    };
    match (kind, first) {
        ("integer", Value::Number(n)) => n
            .as_i64()
            .or_else(|| {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "a float is cut to its whole part"
                )]
                n.as_f64().map(|f| f as i64)
            })
            .into(),
        ("number", Value::Number(n)) => Value::Number(n.clone()),
        ("boolean", Value::Bool(flag)) => (*flag).into(),
        ("string", _) => {
            let texts: Vec<String> = found.iter().map(|value| shown(value)).collect();
            texts.join(" ").into()
        }
        ("date", Value::String(text)) if duration::parse_time(text).is_none() => "<invalid>".into(),
        ("date", Value::String(_)) => duration::age(first, now).into(),
        _ => Value::Null,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
