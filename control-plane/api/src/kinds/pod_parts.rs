//! The parts of a Pod that have paths of their own: where it runs, ephemeral containers, the size of its containers.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::pod_defaults::qos;
use crate::field::{Fault, FieldError, quoted};
use crate::meta;
use crate::status::{Status, Subject};
use crate::table::{STATUS, Subresource};
use crate::value::{self, at, entries, flag, items_mut, keep, list, text};

/// Subresources of Pods, sorted by name.
pub(crate) const SUBRESOURCES: &[Subresource] = &[
    connection("attach", "PodAttachOptions", &["create", "get"]),
    connection("binding", "Binding", &["create"]),
    connection("ephemeralcontainers", "", &["get", "patch", "update"]),
    Subresource {
        name: "eviction",
        kind: "Eviction",
        group_version: Some(("policy", "v1")),
        verbs: &["create"],
    },
    connection("exec", "PodExecOptions", &["create", "get"]),
    connection("log", "", &["get"]),
    connection("portforward", "PodPortForwardOptions", &["create", "get"]),
    connection("proxy", "PodProxyOptions", PROXY_VERBS),
    connection("resize", "", &["get", "patch", "update"]),
    STATUS,
];

/// What a proxy passes on.
pub(crate) const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

/// A subresource with a kind of the core group.
pub(crate) const fn connection(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource {
        name,
        kind,
        group_version: None,
        verbs,
    }
}

/// Sends the Pod to the node that the binding names.
///
/// # Errors
/// 409 where the Pod is on its way out, runs somewhere already or must not be scheduled yet; 422 for a binding that
/// names no node.
pub fn bind(pod: &Value, binding: &Value, now: OffsetDateTime) -> Result<Value, Status> {
    let name = meta::name(pod);
    let wrong = super::passing::validate_binding(binding);
    if !wrong.is_empty() {
        return Err(Status::invalid("", "Binding", meta::name(binding), &wrong));
    }
    let refuse = |why: String| {
        Err(Status::conflict(
            Subject {
                group: "",
                name: "pods/binding",
            },
            name,
            &why,
        ))
    };
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != meta::uid(pod) {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(pod)
        ));
    }
    let version = meta::resource_version(binding);
    if !version.is_empty() && version != meta::resource_version(pod) {
        return refuse(format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            meta::resource_version(pod)
        ));
    }
    if meta::is_terminating(pod) {
        return refuse(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let node = text(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return refuse(format!(
            "pod {name} is already assigned to node {}",
            quoted(node)
        ));
    }
    if !list(pod, &["spec", "schedulingGates"]).is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut bound = pod.clone();
    if let Some(spec) = value::object_mut(&mut bound, "spec") {
        value::set(spec, "nodeName", text(binding, &["target", "name"]));
    }
    if let Some(metadata) = value::object_mut(&mut bound, "metadata")
        && entries(binding, &["metadata", "annotations"])
            .next()
            .is_some()
        && let Some(annotations) = value::object_mut(metadata, "annotations")
    {
        for (key, annotation) in entries(binding, &["metadata", "annotations"]) {
            value::set(annotations, key, annotation.clone());
        }
    }
    set_condition(
        &mut bound,
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null}),
        now,
    );
    Ok(bound)
}

/// Puts the condition in the place of the one of its type. The time of the last change stays where the status does.
pub fn set_condition(pod: &mut Value, mut condition: Value, now: OffsetDateTime) {
    let Some(status) = value::object_mut(pod, "status") else {
        return;
    };
    let mut conditions = list(status, &["conditions"]).to_vec();
    let place = conditions
        .iter()
        .position(|before| text(before, &["type"]) == text(&condition, &["type"]));
    let kept = place
        .and_then(|place| conditions.get(place))
        .filter(|before| at(before, &["status"]) == at(&condition, &["status"]));
    let since = match kept {
        Some(before) => at(before, &["lastTransitionTime"]).clone(),
        None => meta::timestamp(now).into(),
    };
    value::set(&mut condition, "lastTransitionTime", since);
    match place.and_then(|place| conditions.get_mut(place)) {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
    value::set(status, "conditions", conditions);
}

/// What a write of the ephemeral containers changes.
pub(crate) fn take_ephemeral(new: &mut Value, old: &Value) {
    let containers = at(new, &["spec", "ephemeralContainers"]).clone();
    let metadata = new["metadata"].take();
    *new = old.clone();
    // Nothing else of the metadata but what concurrency needs.
    for key in ["resourceVersion", "managedFields"] {
        keep(&mut new["metadata"], &metadata, key);
    }
    if let Some(spec) = value::object_mut(new, "spec") {
        if value::is_empty(&containers) {
            value::remove(spec, "ephemeralContainers");
        } else {
            value::set(spec, "ephemeralContainers", containers);
        }
    }
}

/// Everything wrong with other ephemeral containers: they only come.
pub(crate) fn validate_ephemeral(new: &Value, old: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.ephemeralContainers";
    let mut wrong = Vec::new();
    let others = ["containers", "initContainers"];
    let mut names: BTreeSet<&str> = others
        .iter()
        .flat_map(|key| list(new, &["spec", key]))
        .map(|container| text(container, &["name"]))
        .collect();
    for (i, container) in list(new, &["spec", "ephemeralContainers"])
        .iter()
        .enumerate()
    {
        let path = format!("{PATH}[{i}]");
        let name = text(container, &["name"]);
        if name.is_empty() {
            wrong.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            for why in crate::names::label(name) {
                wrong.push(FieldError::invalid_text(format!("{path}.name"), name, why));
            }
            if !names.insert(name) {
                wrong.push(FieldError::duplicate(format!("{path}.name"), quoted(name)));
            }
        }
        if text(container, &["image"]).is_empty() {
            wrong.push(FieldError::required(format!("{path}.image"), ""));
        }
        for key in [
            "lifecycle",
            "livenessProbe",
            "ports",
            "readinessProbe",
            "resizePolicy",
            "resources",
            "restartPolicy",
            "startupProbe",
        ] {
            if !value::is_empty(at(container, &[key])) {
                wrong.push(FieldError::forbidden(
                    format!("{path}.{key}"),
                    "cannot be set for an Ephemeral Container",
                ));
            }
        }
        let target = text(container, &["targetContainerName"]);
        let known = |name: &str| {
            others
                .iter()
                .flat_map(|key| list(new, &["spec", key]))
                .any(|container| text(container, &["name"]) == name)
        };
        if !target.is_empty() && !known(target) {
            wrong.push(FieldError::not_found(
                format!("{path}.targetContainerName"),
                target,
            ));
        }
    }
    for before in list(old, &["spec", "ephemeralContainers"]) {
        let name = text(before, &["name"]);
        let after = list(new, &["spec", "ephemeralContainers"])
            .iter()
            .find(|container| text(container, &["name"]) == name);
        match after {
            None => wrong.push(FieldError::forbidden(
                PATH,
                format!(
                    "existing ephemeral containers {} may not be removed\n",
                    quoted(name)
                ),
            )),
            Some(after) if after != before => wrong.push(FieldError::forbidden(
                PATH,
                format!(
                    "existing ephemeral containers {} may not be changed\n",
                    quoted(name)
                ),
            )),
            Some(_) => {}
        }
    }
    wrong
}

/// What a write of the size changes: resources of containers, and how each takes a change of them.
pub(crate) fn take_resize(new: &mut Value, old: &Value) {
    let sent = new.clone();
    *new = old.clone();
    for key in ["resourceVersion", "managedFields"] {
        keep(&mut new["metadata"], &sent["metadata"], key);
    }
    let Some(spec) = value::object_mut(new, "spec") else {
        return;
    };
    for kind in ["containers", "initContainers"] {
        let asked = list(&sent, &["spec", kind]);
        for container in items_mut(spec, kind) {
            let name = text(container, &["name"]).to_owned();
            let Some(asked) = asked.iter().find(|asked| text(asked, &["name"]) == name) else {
                continue;
            };
            for key in ["resources", "resizePolicy"] {
                keep(container, asked, key);
            }
        }
    }
}

/// Everything wrong with another size.
pub(crate) fn validate_resize(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = super::pod_validation::validate(new);
    if qos(new) != qos(old) {
        wrong.push(FieldError::new(
            "spec",
            Fault::Invalid(quoted(qos(new))),
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    let sidecar = |container: &Value| text(container, &["restartPolicy"]) == "Always";
    for kind in ["containers", "initContainers"] {
        let pairs = list(new, &["spec", kind])
            .iter()
            .zip(list(old, &["spec", kind]));
        for (i, (after, before)) in pairs.enumerate() {
            let (wanted, had) = (at(after, &["resources"]), at(before, &["resources"]));
            if wanted == had {
                continue;
            }
            let path = format!("spec.{kind}[{i}].resources");
            if kind == "initContainers" && !sidecar(after) {
                wrong.push(FieldError::forbidden(
                    path,
                    "resources for non-sidecar init containers are immutable",
                ));
                continue;
            }
            for part in ["limits", "requests"] {
                wrong.extend(bad_change(&path, part, wanted, had));
            }
        }
    }
    if flag(old, &["spec", "windowsOptions"]) || text(old, &["spec", "os", "name"]) == "windows" {
        wrong.push(FieldError::forbidden(
            "spec",
            "windows pods cannot be resized",
        ));
    }
    wrong
}

/// CPU and memory may change, not go; all else stays.
fn bad_change(path: &str, part: &str, wanted: &Value, had: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let names: BTreeSet<&String> = entries(wanted, &[part])
        .chain(entries(had, &[part]))
        .map(|(name, _)| name)
        .collect();
    for name in names {
        let (after, before) = (at(wanted, &[part, name]), at(had, &[part, name]));
        if after == before {
            continue;
        }
        if !matches!(name.as_str(), "cpu" | "memory") {
            wrong.push(FieldError::forbidden(
                "spec",
                "only cpu and memory resources are mutable",
            ));
        } else if after.is_null() {
            wrong.push(FieldError::forbidden(
                format!("{path}.{part}"),
                format!("resource {part} cannot be removed"),
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "7"},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Pending"},
        })
    }

    #[test]
    fn a_pod_is_bound_once() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
        let bound = bind(&pod(), &binding, now).unwrap();
        assert_eq!(bound["spec"]["nodeName"], "n");
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        let again = bind(&bound, &binding, now).unwrap_err();
        assert_eq!(
            again.message,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
        );
        let nowhere = json!({"metadata": {"name": "p"}, "target": {"kind": "Pod"}});
        assert_eq!(bind(&pod(), &nowhere, now).unwrap_err().code, 422);
    }

    #[test]
    fn ephemeral_containers_only_come() {
        let mut with = pod();
        with["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "y"}]);
        with["spec"]["nodeName"] = "elsewhere".into();
        take_ephemeral(&mut with, &pod());
        assert_eq!(with["spec"].get("nodeName"), None);
        assert!(validate_ephemeral(&with, &pod()).is_empty());
        let mut without = with.clone();
        value::remove(&mut without["spec"], "ephemeralContainers");
        assert_eq!(validate_ephemeral(&without, &with).len(), 1);
        let mut twice = pod();
        twice["spec"]["ephemeralContainers"] = json!([{"name": "c", "image": "y"}]);
        assert_eq!(validate_ephemeral(&twice, &pod()).len(), 1);
    }

    #[test]
    fn containers_grow_within_their_class() {
        let grow = |resources: Value| {
            let mut new = pod();
            new["spec"]["containers"][0]["resources"] = resources;
            new["spec"]["containers"][0]["image"] = "other".into();
            take_resize(&mut new, &pod());
            assert_eq!(new["spec"]["containers"][0]["image"], "x");
            let found = validate_resize(&new, &pod());
            found
                .iter()
                .filter(|e| e.field.starts_with("spec.containers[0].res") || e.field == "spec")
                .count()
        };
        assert_eq!(grow(json!({"requests": {"cpu": "2"}})), 0);
        assert_eq!(
            grow(json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}})),
            1
        );
        // Taking the request away makes it a Pod of another class.
        assert_eq!(grow(json!({})), 2);
    }
}
