//! Patches: RFC 6902 (JSON patch), RFC 7386 (merge patch) and Kubernetes' strategic merge patch.

mod strategic;

use serde_json::Value;

pub use strategic::strategic_merge;

use crate::status::Status;

/// The most operations in a JSON patch.
const OPERATIONS_MAX: usize = 10_000;

/// Carries out a JSON patch (RFC 6902).
///
/// # Errors
/// 400 where the patch is none, 413 where it is too long, 422 where an operation fails.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, Status> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|why| Status::bad_request(format!("error decoding patch: {why}")))?;
    if patch.0.len() > OPERATIONS_MAX {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            patch.0.len()
        )));
    }
    let mut patched = original.clone();
    json_patch::patch(&mut patched, &patch.0).map_err(|_| Status::unprocessable())?;
    Ok(patched)
}

/// Carries out a merge patch (RFC 7386): objects are merged, null removes, anything else replaces.
pub fn merge_patch(original: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *original = patch.clone();
        return;
    };
    if !original.is_object() {
        *original = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(target) = original {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge_patch(target.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
    }
}
