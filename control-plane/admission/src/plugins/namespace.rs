//! NamespaceLifecycle: objects are made only in namespaces that exist and are not on their way out, and some
//! namespaces stay.

use api::status::{Cause, Status, Subject};
use serde_json::Value;

use crate::{Attributes, Lookup, Operation, Plugin, Warnings};

/// A cluster cannot be without these.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(crate) const LIFECYCLE: Plugin = Plugin {
    name: "NamespaceLifecycle",
    handles: |attributes| match attributes.operation {
        Operation::Create => {
            !attributes.namespace.is_empty() && attributes.resource != "namespaces"
        }
        Operation::Delete => attributes.is("", "namespaces"),
        Operation::Update | Operation::Connect => false,
    },
    mutate: Some(|attributes, _, _, lookup| exists(attributes, lookup)),
    validate: Some(validate),
};

fn validate(
    attributes: &Attributes<'_>,
    _: &Value,
    _: Option<&Value>,
    _: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    if attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name) {
        return Err(attributes.forbid("this namespace may not be deleted"));
    }
    Ok(())
}

fn exists(attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Result<(), Status> {
    if attributes.operation != Operation::Create {
        return Ok(());
    }
    let name = attributes.namespace;
    let subject = Subject {
        group: "",
        name: "namespaces",
    };
    let found = lookup.get("namespaces", "", name);
    let found = found.ok_or_else(|| Status::not_found(subject, name))?;
    if !api::meta::is_terminating(&found) {
        return Ok(());
    }
    let mut status = attributes.forbid(format!(
        "unable to create new content in namespace {name} because it is being terminated"
    ));
    status.details.get_or_insert_default().causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".into(),
    });
    Err(status)
}
