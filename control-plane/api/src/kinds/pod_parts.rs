//! The parts of a Pod that have paths of their own: where it runs, ephemeral containers, the size of its containers.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::pod_defaults::qos;
use super::pod_spec;
use super::pod_spec::findings::Findings;
use crate::field::{Fault, FieldError, quoted};
use crate::meta;
use crate::status::{Status, Subject};
use crate::table::{STATUS, Subresource};
use crate::value::{self, at, entries, items_mut, keep, list, text};

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
/// 409 where the Pod is on its way out, runs somewhere already or must not be scheduled yet; 500 for a binding that
/// names no node.
pub fn bind(pod: &Value, binding: &Value, now: OffsetDateTime) -> Result<Value, Status> {
    let name = meta::name(pod);
    let wrong = super::passing::validate_binding(binding);
    if !wrong.is_empty() {
        // Not 422: these findings reach clients as an error of the server.
        let all: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        let message = match all.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        return Err(Status::new(500, "", message));
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
    for texts in ["annotations", "labels"] {
        if let Some(metadata) = value::object_mut(&mut bound, "metadata")
            && entries(binding, &["metadata", texts]).next().is_some()
            && let Some(held) = value::object_mut(metadata, texts)
        {
            for (key, text) in entries(binding, &["metadata", texts]) {
                value::set(held, key, text.clone());
            }
        }
    }
    if let Some(status) = bound.get_mut("status").and_then(Value::as_object_mut) {
        // It was to go somewhere; now it does.
        status.remove("nominatedNodeName");
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
    if pod_spec::update::is_mirror(old) {
        let why = "static pods do not support ephemeral containers";
        return vec![FieldError::forbidden("", why)];
    }
    let mut found = Findings::default();
    pod_spec::pod(new, &mut found);
    pod_spec::update::annotation_changes(new, old, &mut found);
    let mut wrong = found.into_vec();
    for before in list(old, &["spec", "ephemeralContainers"]) {
        let name = text(before, &["name"]);
        let after = list(new, &["spec", "ephemeralContainers"])
            .iter()
            .find(|container| text(container, &["name"]) == name);
        let shown = quoted(name);
        match after {
            None => wrong.push(FieldError::forbidden(
                PATH,
                format!("existing ephemeral containers {shown} may not be removed\n"),
            )),
            Some(after) if after != before => {
                let diff = pod_spec::update::diff("core.EphemeralContainer", before, after);
                wrong.push(FieldError::forbidden(
                    PATH,
                    format!("existing ephemeral containers {shown} may not be changed\n{diff}"),
                ));
            }
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
    let of_all = |pod: &Value| {
        ["limits", "requests"]
            .iter()
            .any(|part| entries(pod, &["spec", "resources", part]).next().is_some())
    };
    for (fixed, why) in [
        (
            of_all(old) || of_all(new),
            "pods with pod-level resources cannot be resized",
        ),
        (
            pod_spec::update::is_mirror(old),
            "static pods cannot be resized",
        ),
        (
            text(old, &["spec", "os", "name"]) == "windows",
            "windows pods cannot be resized",
        ),
    ] {
        if fixed {
            return vec![FieldError::forbidden("", why)];
        }
    }
    let mut found = Findings::default();
    pod_spec::pod(new, &mut found);
    let mut wrong = found.into_vec();
    if qos(new) != qos(old) {
        wrong.push(FieldError::new(
            "spec",
            Fault::Invalid(quoted(text(new, &["status", "qosClass"]))),
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    let running = list(old, &["status", "containerStatuses"])
        .iter()
        .find(|status| at(status, &["state", "running"]).is_object());
    if running.is_some_and(|status| at(status, &["resources"]).is_null()) {
        let why = "Pod running on node without support for resize";
        wrong.push(FieldError::forbidden("spec", why));
    }
    let mut fixed = Vec::new();
    for kind in ["initContainers", "containers"] {
        let pairs = list(new, &["spec", kind])
            .iter()
            .zip(list(old, &["spec", kind]));
        for (i, (after, before)) in pairs.enumerate() {
            let sidecar = text(after, &["restartPolicy"]) == "Always";
            let what = match kind {
                "containers" => "only cpu and memory resources are mutable",
                _ if sidecar => "only cpu and memory resources for sidecar containers are mutable",
                _ => "resources for non-sidecar init containers are immutable",
            };
            let (wanted, had) = (at(after, &["resources"]), at(before, &["resources"]));
            if kind == "initContainers" && !sidecar {
                if after != before {
                    fixed.push(FieldError::forbidden("spec", what));
                }
                continue;
            }
            let path = format!("spec.{kind}[{i}].resources");
            wrong.extend(bad_change(&path, wanted, had));
            if others_differ(wanted, had) {
                fixed.push(FieldError::forbidden("spec", what));
            }
        }
    }
    wrong.extend(fixed);
    wrong
}

/// Whether anything but amounts of CPU and memory differs.
fn others_differ(wanted: &Value, had: &Value) -> bool {
    let rest = |resources: &Value| {
        let mut resources = resources.clone();
        for part in ["limits", "requests"] {
            if let Some(amounts) = resources.get_mut(part) {
                value::remove(amounts, "cpu");
                value::remove(amounts, "memory");
                if value::is_empty(amounts) {
                    value::remove(&mut resources, part);
                }
            }
        }
        resources
    };
    !value::same(&rest(wanted), &rest(had))
}

/// What was asked for or limited stays so, by other amounts.
fn bad_change(path: &str, wanted: &Value, had: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for part in ["requests", "limits"] {
        let gone = entries(had, &[part]).any(|(name, _)| at(wanted, &[part, name]).is_null());
        if gone {
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
        let mut pod = json!({
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "7"},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Pending"},
        });
        crate::kinds::pod_defaults::default(&mut pod);
        pod
    }

    fn with_ephemeral(name: &str) -> Value {
        let mut pod = pod();
        pod["spec"]["ephemeralContainers"] = json!([{"name": name, "image": "y"}]);
        crate::kinds::pod_defaults::default(&mut pod);
        pod
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
        let refusal = bind(&pod(), &nowhere, now).unwrap_err();
        assert_eq!(refusal.code, 500);
        assert_eq!(
            refusal.message,
            "[target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\", target.name: Required value]"
        );
    }

    #[test]
    fn ephemeral_containers_only_come() {
        let mut with = with_ephemeral("debug");
        with["spec"]["nodeName"] = "elsewhere".into();
        take_ephemeral(&mut with, &pod());
        assert_eq!(with["spec"].get("nodeName"), None);
        assert!(validate_ephemeral(&with, &pod()).is_empty());
        let mut without = with.clone();
        value::remove(&mut without["spec"], "ephemeralContainers");
        assert_eq!(validate_ephemeral(&without, &with).len(), 1);
        assert_eq!(validate_ephemeral(&with_ephemeral("c"), &pod()).len(), 1);
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
