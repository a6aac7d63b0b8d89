//! The plugins, a file for each or for those about one thing.

pub(crate) mod account;
pub(crate) mod certificate;
pub(crate) mod devices;
pub(crate) mod ingress;
pub(crate) mod limits;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod priority;
pub(crate) mod restriction;
pub(crate) mod runtime;
pub(crate) mod tolerations;
pub(crate) mod volume;

use std::sync::Arc;

use api::value::text;
use serde_json::Value;

use crate::{Lookup, Operation};

/// Whether a class says that it is the default of its kind.
pub(crate) fn is_default(class: &Value, annotation: &str) -> bool {
    text(class, &["metadata", "annotations", annotation]) == "true"
}

/// The default class: of several the newest, and of those of one second the first by name.
pub(crate) fn default_class(
    lookup: &dyn Lookup,
    resource: &str,
    annotations: &[&str],
) -> Option<Arc<Value>> {
    let made = |class: &Arc<Value>| text(class, &["metadata", "creationTimestamp"]).to_owned();
    lookup
        .list(resource, "")
        .into_iter()
        .filter(|class| {
            annotations
                .iter()
                .any(|annotation| is_default(class, annotation))
        })
        .reduce(|best, other| {
            if made(&other) > made(&best) {
                other
            } else {
                best
            }
        })
}

/// Whether the operation makes an object or changes one.
pub(crate) fn writes(operation: Operation) -> bool {
    matches!(operation, Operation::Create | Operation::Update)
}
