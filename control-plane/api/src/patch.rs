//! Patches: RFC 6902 (JSON patch), RFC 7386 (merge patch) and Kubernetes' strategic merge patch.

mod operations;
mod strategic;

use serde_json::Value;

use operations::Failure;
pub use strategic::strategic_merge;

use crate::status::Status;

/// The most operations in a JSON patch.
const OPERATIONS_MAX: usize = 10_000;

/// The most bytes that the copies of a JSON patch may make: each can double what the one before made.
const COPIES_MAX: usize = 3 << 20;

/// Carries out a JSON patch (RFC 6902).
///
/// # Errors
/// 400 where the patch is none, 413 where it is too long, 422 where an operation fails.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, Status> {
    carried_out(original, patch)?.map_err(|_| Status::unprocessable())
}

/// As [`json_patch`], for whom the operation that failed is told.
///
/// # Errors
/// Why it cannot be carried out.
pub fn json_patch_told(original: &Value, patch: &Value) -> Result<Value, String> {
    carried_out(original, patch)
        .map_err(|status| status.message)?
        .map_err(|failure| failure.to_string())
}

/// As [`json_patch`]; `None`: a `test` in it failed, so that nothing is to be changed.
///
/// # Errors
/// Why it cannot be carried out.
pub fn json_patch_if(original: &Value, patch: &Value) -> Result<Option<Value>, String> {
    match carried_out(original, patch).map_err(|status| status.message)? {
        Ok(patched) => Ok(Some(patched)),
        Err(Failure::Test(_)) => Ok(None),
        Err(failure) => Err(failure.to_string()),
    }
}

/// The outer error: the patch is none, or asks for too much; the inner one: an operation failed.
fn carried_out(original: &Value, patch: &Value) -> Result<Result<Value, Failure>, Status> {
    let none = || Status::bad_request("error decoding patch: it must be a list of objects");
    let operations = patch.as_array().ok_or_else(none)?;
    let operations: Vec<_> = operations.iter().map(Value::as_object).collect();
    if operations.contains(&None) {
        return Err(none());
    }
    if operations.len() > OPERATIONS_MAX {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    let mut patched = original.clone();
    let mut room = COPIES_MAX;
    for operation in operations.into_iter().flatten() {
        if let Err(failure) = operations::carry_out(&mut patched, operation, &mut room, size) {
            return Ok(Err(failure));
        }
    }
    Ok(Ok(patched))
}

/// About how many bytes of JSON a value is; counting stops at `most`.
fn size(value: &Value, most: usize) -> usize {
    let own = match value {
        Value::String(text) => text.len() + 2,
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::Array(_) | Value::Object(_) => 2,
    };
    let mut sum = own;
    let add = |sum: usize, key: usize, inner: &Value| match most.checked_sub(sum) {
        Some(left) if left > 0 => sum + key + size(inner, left),
        _ => sum,
    };
    match value {
        Value::Array(items) => {
            for item in items {
                sum = add(sum, 1, item);
                if sum >= most {
                    break;
                }
            }
        }
        Value::Object(fields) => {
            for (key, inner) in fields {
                sum = add(sum, key.len() + 4, inner);
                if sum >= most {
                    break;
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    sum
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
