//! The way from client-side apply to server-side apply, which is kubectl's alone: the annotation with what was applied
//! last says which conflicts are with kubectl itself.

use api::value::{self, text};
use serde_json::Value;

use crate::collect::collect;
use crate::compare::compare;
use crate::set::Set;
use crate::types::Type;

/// The manager for whom the annotation counts.
pub(crate) const MANAGER: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// An annotation that would make the object too large is emptied.
const ANNOTATION_MAX: usize = 256 * 1024;

fn annotation(object: &Value) -> &str {
    text(object, &["metadata", "annotations", ANNOTATION])
}

/// The fields that client-side apply set and that still are as it set them; `None` where nothing was applied so.
pub(crate) fn allowed(of: Type<'_>, live: &Value, api_version: &str) -> Option<Set> {
    let last: Value = serde_json::from_str(annotation(live)).ok()?;
    if text(&last, &["apiVersion"]) != api_version {
        return None;
    }
    let mut set = collect(of, &last).ok()?;
    let found = compare(of, &last, live);
    set.subtract(&found.changed);
    set.subtract(&found.removed);
    Some(set)
}

/// Keeps the annotation, where there is one, what client-side apply would have made of it.
pub(crate) fn renew(object: &mut Value, config: &Value) {
    if annotation(object).is_empty() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations") {
        value::remove(annotations, ANNOTATION);
    }
    let mut applied = config.to_string();
    applied.push('\n');
    let Some(annotations) = object.pointer_mut("/metadata/annotations") else {
        return;
    };
    let others: usize = value::entries(annotations, &[])
        .filter(|(key, _)| *key != ANNOTATION)
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if others + ANNOTATION.len() + applied.len() > ANNOTATION_MAX {
        applied.clear();
    }
    value::set(annotations, ANNOTATION, applied);
}
