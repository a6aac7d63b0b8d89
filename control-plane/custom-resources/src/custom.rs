//! One version of a definition as the rules of a row.

use std::sync::{Arc, OnceLock};

use api::custom::{Rules, ScalePaths};
use api::field::FieldError;
use api::value::{at, list, text};
use api::write::Part;
use bytes::Bytes;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::columns::Columns;
use crate::definition::{Definition, Version};
use crate::schema::Schema;
use crate::{fill, lists, rules, validate};

/// The rules of one version.
#[derive(Debug)]
pub struct Custom {
    schema: Schema,
    version: Version,
    columns: Columns,
    storage_version: String,
    webhook: Option<Value>,
    fields: Vec<String>,
    stable: bool,
    /// JSON of the definition, as stored.
    definition: Bytes,
    merge: OnceLock<Arc<Value>>,
}

impl Custom {
    /// Of the version of that name in a stored definition; `None` where there is none.
    pub fn new(
        object: &Value,
        stored: &Bytes,
        definition: &Definition,
        version: &str,
    ) -> Option<Self> {
        let version = definition
            .versions
            .iter()
            .find(|v| v.name == version)?
            .clone();
        let mut schema = Schema::parse(body(object, &version.name));
        rules::compile(&mut schema);
        let storage_version = definition
            .storage_version()
            .map_or_else(String::new, |v| v.name.clone());
        let fields = version
            .selectable
            .iter()
            .map(|path| path.trim_start_matches('.').to_owned())
            .collect();
        // Nothing was ever stored under another schema than this one, and as this version.
        let stable = at(object, &["metadata", "generation"]).as_i64() == Some(1) && version.storage;
        Some(Custom {
            columns: Columns::new(&version.columns),
            storage_version: format!("{}/{storage_version}", definition.group),
            webhook: definition.webhook.clone(),
            definition: stored.clone(),
            merge: OnceLock::new(),
            schema,
            version,
            fields,
            stable,
        })
    }
}

fn body<'a>(object: &'a Value, version: &str) -> &'a Value {
    list(object, &["spec", "versions"])
        .iter()
        .find(|v| text(v, &["name"]) == version)
        .map_or(&Value::Null, |v| at(v, &["schema", "openAPIV3Schema"]))
}

impl Rules for Custom {
    fn prune(&self, object: &mut Value) -> Vec<String> {
        fill::prune(&self.schema, object)
    }

    fn default(&self, object: &mut Value) {
        fill::default(&self.schema, object);
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _part: Part) -> Vec<FieldError> {
        let mut wrong = validate::validate(&self.schema, object, old);
        wrong.extend(lists::embedded(&self.schema, object));
        if old.is_none_or(|old| lists::duplicates(&self.schema, old).is_empty()) {
            wrong.extend(lists::duplicates(&self.schema, object));
        }
        if !self.schema.has_rules {
            return wrong;
        }
        if wrong.iter().any(blocks_rules) {
            wrong.push(FieldError::invalid(
                "<nil>",
                &Value::Null,
                "some validation rules were not checked because the object was invalid; correct the existing errors to \
                 complete validation",
            ));
        } else {
            wrong.extend(rules::validate(&self.schema, object, old));
        }
        wrong
    }

    fn columns(&self) -> Value {
        self.columns.definitions().clone()
    }

    fn cells(&self, object: &Value, now: OffsetDateTime) -> Vec<Value> {
        self.columns.cells(object, now)
    }

    fn selectable(&self) -> &[String] {
        &self.fields
    }

    fn field(&self, object: &Value, label: &str) -> Option<String> {
        if !self.fields.iter().any(|field| field == label) {
            return None;
        }
        let mut here = object;
        for key in label.split('.') {
            here = here.get(key).unwrap_or(&Value::Null);
        }
        Some(match here {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    fn scale(&self) -> Option<&ScalePaths> {
        self.version.scale.as_ref()
    }

    fn sent_as_stored(&self) -> bool {
        self.stable
    }

    fn schema(&self) -> Arc<Value> {
        let make = || {
            // Written by the server itself, so it parses.
            let object: Value = serde_json::from_slice(&self.definition).unwrap_or_default();
            Arc::new(merging(body(&object, &self.version.name)))
        };
        self.merge.get_or_init(make).clone()
    }

    fn storage_version(&self) -> &str {
        &self.storage_version
    }

    fn webhook(&self) -> Option<&Value> {
        self.webhook.as_ref()
    }
}

/// A rule may count on types, required fields and sizes.
fn blocks_rules(fault: &FieldError) -> bool {
    use api::field::Fault;
    matches!(
        fault.fault,
        Fault::Required
            | Fault::NotSupported(_)
            | Fault::TooLong
            | Fault::TooMany(_)
            | Fault::TypeInvalid(_)
    )
}

/// What of a schema says how values merge.
fn merging(schema: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in api::value::entries(schema, &[]) {
        let kept = match (key.as_str(), value) {
            (
                "type"
                | "default"
                | "x-kubernetes-list-type"
                | "x-kubernetes-list-map-keys"
                | "x-kubernetes-map-type"
                | "x-kubernetes-preserve-unknown-fields"
                | "x-kubernetes-embedded-resource"
                | "x-kubernetes-int-or-string",
                value,
            ) => value.clone(),
            ("properties", Value::Object(properties)) => properties
                .iter()
                .map(|(name, schema)| (name.clone(), merging(schema)))
                .collect(),
            ("items" | "additionalProperties", Value::Object(_)) => merging(value),
            ("additionalProperties", Value::Bool(_)) => value.clone(),
            _ => continue,
        };
        out.insert(key.clone(), kept);
    }
    Value::Object(out)
}
