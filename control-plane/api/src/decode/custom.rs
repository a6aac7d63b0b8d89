//! Custom resources as they are read: metadata has the types of every object's metadata, the rest is pruned to the
//! schema, and what was pruned counts as unknown.

use serde_json::Value;

use super::{Decoded, FieldValidation, bounded, types};
use crate::custom::Rules;
use crate::field::FieldError;
use crate::schema;
use crate::status::Status;
use crate::table::Resource;
use crate::value::{at, set, text};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// From a value to an object of the resource; `found` are the findings of parsing.
pub(super) fn finish(
    resource: &Resource,
    rules: &dyn Rules,
    mut object: Value,
    mut found: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    named(resource, &mut object)?;
    if types::depth(&object) > super::DEPTH_MAX {
        return Err(Status::bad_request("the object is nested too deeply"));
    }
    if let Some(meta) = schema::find(OBJECT_META)
        && let Some(metadata) = object.get_mut("metadata").filter(|m| !m.is_null())
    {
        if let Some(why) = types::mismatch(meta, metadata) {
            return Err(Status::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: {why}",
                resource.kind, resource.version, resource.kind
            )));
        }
        for path in prune_metadata(metadata) {
            found.push(format!("unknown field \"metadata.{path}\""));
        }
        types::normalise(meta, metadata);
    }
    let pruned = rules.prune(&mut object);
    found.extend(
        pruned
            .iter()
            .map(|path| format!("unknown field \"{path}\"")),
    );
    let found = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => bounded(found),
    };
    if validation == FieldValidation::Strict && !found.is_empty() {
        return Err(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
            resource.kind,
            resource.version,
            resource.kind,
            found.join(", ")
        )));
    }
    Ok(Decoded {
        object,
        warnings: found,
    })
}

/// Why a value cannot be the metadata of an object: something in it has another type.
pub fn bad_metadata(metadata: &Value) -> Option<String> {
    types::mismatch(schema::find(OBJECT_META)?, metadata)
}

/// Removes from an object's metadata what no metadata has; the paths of what was removed.
pub fn prune_metadata(metadata: &mut Value) -> Vec<String> {
    let Some(meta) = schema::find(OBJECT_META) else {
        return Vec::new();
    };
    let found = types::unknown_fields(meta, metadata);
    drop_unknown(&meta.shape, metadata);
    found
        .iter()
        .filter_map(|finding| finding.strip_prefix("unknown field \""))
        .map(|path| path.trim_end_matches('"').to_owned())
        .collect()
}

/// Whether the object says that it is of the resource.
fn named(resource: &Resource, object: &mut Value) -> Result<(), Status> {
    let expected = resource.api_version();
    match at(object, &["apiVersion"]) {
        Value::Null => set(object, "apiVersion", expected),
        Value::String(sent) if *sent == expected => {}
        Value::String(sent) => {
            return Err(Status::bad_request(format!(
                "the API version in the data ({sent}) does not match the expected API version ({expected})"
            )));
        }
        _ => {
            return Err(Status::bad_request(
                "the object provided is unrecognized: apiVersion must be a string",
            ));
        }
    }
    match at(object, &["kind"]) {
        Value::Null => set(object, "kind", resource.kind),
        Value::String(sent) if sent == resource.kind => {}
        other => {
            let wrong = [FieldError::invalid(
                "kind",
                other,
                format!("must be {}", resource.kind),
            )];
            let name = text(object, &["metadata", "name"]);
            return Err(Status::invalid_object(resource, name, &wrong));
        }
    }
    Ok(())
}

fn drop_unknown(shape: &schema::Shape, value: &mut Value) {
    match (shape.resolve().1, value) {
        (schema::Shape::Struct(fields), Value::Object(map)) => {
            map.retain(|key, _| fields.contains_key(key.as_str()));
            for (key, value) in map {
                if let Some(field) = fields.get(key.as_str()) {
                    drop_unknown(&field.shape, value);
                }
            }
        }
        (schema::Shape::List(items), Value::Array(list)) => {
            list.iter_mut().for_each(|item| drop_unknown(items, item));
        }
        _ => {}
    }
}
