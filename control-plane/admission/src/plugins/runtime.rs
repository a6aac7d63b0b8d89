//! RuntimeClass: what the class of a Pod says about where it runs and what it costs.

use api::status::Status;
use api::value::{at, entries, list, object_mut, set, text};
use serde_json::{Value, json};

use crate::{Attributes, Lookup, Operation, Plugin, Warnings};

pub(crate) const RUNTIME_CLASS: Plugin = Plugin {
    name: "RuntimeClass",
    handles: |attributes| attributes.is("", "pods") && attributes.operation == Operation::Create,
    mutate: Some(mutate),
    validate: Some(validate),
};

fn class(
    attributes: &Attributes<'_>,
    pod: &Value,
    lookup: &dyn Lookup,
) -> Result<Option<std::sync::Arc<Value>>, Status> {
    let name = text(pod, &["spec", "runtimeClassName"]);
    if name.is_empty() {
        return Ok(None);
    }
    let found = lookup.get("runtimeclasses", "", name);
    let missing = || attributes.forbid(format!("pod rejected: RuntimeClass {name:?} not found"));
    found.ok_or_else(missing).map(Some)
}

fn mutate(
    attributes: &Attributes<'_>,
    pod: &mut Value,
    _: Option<&Value>,
    lookup: &dyn Lookup,
) -> Result<(), Status> {
    let Some(class) = class(attributes, pod, lookup)? else {
        return Ok(());
    };
    let Some(spec) = object_mut(pod, "spec") else {
        return Ok(());
    };
    let overhead = at(&class, &["overhead", "podFixed"]);
    if !overhead.is_null() {
        let sent = spec
            .get("overhead")
            .filter(|sent| !api::value::is_empty(sent));
        if sent.is_some_and(|sent| sent != overhead) {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(attributes.forbid(why));
        }
        set(spec, "overhead", overhead.clone());
    }
    let mut selector = at(spec, &["nodeSelector"]).clone();
    for (key, value) in entries(&class, &["scheduling", "nodeSelector"]) {
        if selector.get(key).is_some_and(|sent| sent != value) {
            return Err(attributes.forbid(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or_default(),
                text(&selector, &[key])
            )));
        }
        if !selector.is_object() {
            selector = json!({});
        }
        set(&mut selector, key, value.clone());
    }
    if selector.is_object() {
        set(spec, "nodeSelector", selector);
    }
    let mut tolerations = list(spec, &["tolerations"]).to_vec();
    let before = tolerations.len();
    for toleration in list(&class, &["scheduling", "tolerations"]) {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.len() > before {
        set(spec, "tolerations", tolerations);
    }
    Ok(())
}

fn validate(
    attributes: &Attributes<'_>,
    pod: &Value,
    _: Option<&Value>,
    lookup: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    let sent = at(pod, &["spec", "overhead"]);
    if api::value::is_empty(sent) {
        return Ok(());
    }
    let class = class(attributes, pod, lookup)?;
    let known = class
        .as_ref()
        .map_or(&Value::Null, |class| at(class, &["overhead", "podFixed"]));
    if known.is_null() {
        let why =
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return Err(attributes.forbid(why));
    }
    if known != sent {
        let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        return Err(attributes.forbid(why));
    }
    Ok(())
}
