//! Whether a claim may ask for administrative access to devices, which are in use by others, perhaps: where the label of
//! its namespace says so (KEP-5018). Kubernetes has this in the claims' strategy, which cannot look at namespaces here.

use api::field::FieldError;
use api::status::Status;
use api::value::{at, list, text};
use serde_json::Value;

use super::writes;
use crate::{Attributes, Lookup, Plugin, Warnings};

const LABEL: &str = "resource.kubernetes.io/admin-access";

pub(crate) const ADMIN_ACCESS: Plugin = Plugin {
    name: "ResourceClaimAdminAccess",
    handles: |attributes| {
        attributes.group == "resource.k8s.io"
            && matches!(
                attributes.resource,
                "resourceclaims" | "resourceclaimtemplates"
            )
            && writes(attributes.operation)
    },
    mutate: None,
    validate: Some(validate),
};

fn validate(
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
    lookup: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    let (kind, spec) = match attributes.resource {
        "resourceclaims" => ("ResourceClaim", at(object, &["spec"])),
        _ => ("ResourceClaimTemplate", at(object, &["spec", "spec"])),
    };
    let asked = if attributes.subresource == "status" {
        // What was granted stays.
        match old.and_then(granted) {
            Some(_) => None,
            None => granted(object),
        }
    } else if old.is_none() {
        requested(spec)
    } else {
        // A spec does not change.
        None
    };
    let Some(field) = asked else {
        return Ok(());
    };
    let namespace = lookup.get("namespaces", "", attributes.namespace);
    let allows = |namespace: std::sync::Arc<Value>| {
        text(&namespace, &["metadata", "labels", LABEL]) == "true"
    };
    if namespace.is_some_and(allows) {
        return Ok(());
    }
    let why = format!(
        "admin access to devices requires the `{LABEL}: true` label on the containing namespace"
    );
    let wrong = [FieldError::forbidden(field, why)];
    Err(Status::invalid(
        attributes.group,
        kind,
        attributes.name,
        &wrong,
    ))
}

/// The field of the first request for it.
fn requested(spec: &Value) -> Option<String> {
    let mut requests = list(spec, &["devices", "requests"]).iter();
    let asks = |request: &Value| {
        [&["exactly", "adminAccess"][..], &["adminAccess"]]
            .iter()
            .any(|path| at(request, path) == &Value::Bool(true))
    };
    let index = requests.position(asks)?;
    Some(format!("spec.devices.requests[{index}].adminAccess"))
}

/// The field of the first device that is allocated with it.
fn granted(claim: &Value) -> Option<String> {
    let mut results = list(claim, &["status", "allocation", "devices", "results"]).iter();
    let index = results.position(|result| at(result, &["adminAccess"]) == &Value::Bool(true))?;
    let field = format!("status.allocation.devices.results[{index}].adminAccess");
    Some(field)
}
