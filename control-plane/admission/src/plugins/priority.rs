//! Priority: a Pod's priority is that of its class, and there is one default class.

use api::status::Status;
use api::value::{at, flag, number, object_mut, set, text};
use serde_json::Value;

use super::writes;
use crate::{Attributes, Lookup, Operation, Plugin, Warnings};

const GROUP: &str = "scheduling.k8s.io";

pub(crate) const PRIORITY: Plugin = Plugin {
    name: "Priority",
    handles: |attributes| {
        writes(attributes.operation)
            && (attributes.is("", "pods") || attributes.is(GROUP, "priorityclasses"))
    },
    mutate: Some(mutate),
    validate: Some(validate),
};

fn mutate(
    attributes: &Attributes<'_>,
    pod: &mut Value,
    old: Option<&Value>,
    lookup: &dyn Lookup,
) -> Result<(), Status> {
    if attributes.resource != "pods" {
        return Ok(());
    }
    let Some(spec) = object_mut(pod, "spec") else {
        return Ok(());
    };
    if attributes.operation == Operation::Update {
        // What was computed once stays, whoever left it out.
        for key in ["priority", "preemptionPolicy"] {
            let stored = old.map_or(&Value::Null, |old| at(old, &["spec", key]));
            if spec[key].is_null() && !stored.is_null() {
                set(spec, key, stored.clone());
            }
        }
        return Ok(());
    }
    let class = match text(spec, &["priorityClassName"]) {
        "" => default(lookup),
        name => {
            let found = lookup.get("priorityclasses", "", name);
            let missing =
                || attributes.forbid(format!("no PriorityClass with name {name} was found"));
            Some(found.ok_or_else(missing)?)
        }
    };
    let mut priority = 0;
    if let Some(class) = &class {
        set(spec, "priorityClassName", api::meta::name(class));
        priority = number(class, &["value"]);
    }
    if let Some(sent) = at(spec, &["priority"])
        .as_i64()
        .filter(|sent| *sent != priority)
    {
        return Err(attributes.forbid(format!(
            "the integer value of priority ({sent}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        )));
    }
    set(spec, "priority", priority);
    let policy = match class
        .as_ref()
        .map(|class| text(class, &["preemptionPolicy"]))
    {
        None | Some("") => "PreemptLowerPriority",
        Some(policy) => policy,
    };
    let sent = text(spec, &["preemptionPolicy"]);
    if !sent.is_empty() && sent != policy {
        return Err(attributes.forbid(format!(
            "the string value of PreemptionPolicy ({sent}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    set(spec, "preemptionPolicy", policy);
    Ok(())
}

/// The class of Pods that name none: of several the one of the lowest priority.
fn default(lookup: &dyn Lookup) -> Option<std::sync::Arc<Value>> {
    lookup
        .list("priorityclasses", "")
        .into_iter()
        .filter(|class| flag(class, &["globalDefault"]))
        .min_by_key(|class| number(class, &["value"]))
}

fn validate(
    attributes: &Attributes<'_>,
    class: &Value,
    _: Option<&Value>,
    lookup: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    if attributes.resource != "priorityclasses" || !flag(class, &["globalDefault"]) {
        return Ok(());
    }
    match default(lookup) {
        // A class that is the default may be written again.
        Some(known) if api::meta::name(&known) != attributes.name => {
            Err(attributes.forbid(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                api::meta::name(&known)
            )))
        }
        _ => Ok(()),
    }
}
