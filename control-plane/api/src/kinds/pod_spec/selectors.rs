//! References to what a container is told of its Pod, of other containers' resources, and of keys of ConfigMaps and
//! Secrets.

use serde_json::Value;

use super::findings::{Findings, Path};
use super::resources::quantity;
use crate::names;
use crate::value::{at, text};

/// What the environment may be told of the Pod.
pub(super) const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What a file may be told of the Pod.
pub(super) const FILE_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Fields that have a name here, whether they may be asked for or not.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// A field of the Pod, one of `allowed` or an entry of its labels or annotations.
pub(super) fn field(found: &mut Findings, path: &Path<'_>, value: &Value, allowed: &[&str]) {
    if !found.needs(value, path, "apiVersion") || !found.needs(value, path, "fieldPath") {
        return;
    }
    let label = text(value, &["fieldPath"]);
    let here = path.child("fieldPath");
    let version = text(value, &["apiVersion"]);
    let mut refuse = |why: String| {
        found.invalid_text(&here, label, format!("error converting fieldPath: {why}"));
    };
    if version != "v1" {
        return refuse(format!("unsupported pod version: {version}"));
    }
    if let Some((map, key)) = subscript(label) {
        return match map {
            "metadata.annotations" => found.against(
                path,
                &key.to_lowercase(),
                names::qualified_name(&key.to_lowercase()),
            ),
            "metadata.labels" => found.against(path, key, names::qualified_name(key)),
            _ => refuse(format!("field label does not support subscript: {label}")),
        };
    }
    let name = match label {
        "spec.host" => "spec.nodeName",
        label if KNOWN_FIELDS.contains(&label) => label,
        label => return refuse(format!("field label not supported: {label}")),
    };
    if !allowed.contains(&name) {
        found.unsupported(&here, name, allowed);
    }
}

/// `map['key']` taken apart.
fn subscript(label: &str) -> Option<(&str, &str)> {
    let (map, key) = label.strip_suffix("']")?.split_once("['")?;
    (!map.is_empty()).then_some((map, key))
}

/// An amount of a container's resources. In a file, the container must be named.
pub(super) fn resource(found: &mut Findings, path: &Path<'_>, value: &Value, in_file: bool) {
    let name = text(value, &["resource"]);
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if in_file && text(value, &["containerName"]).is_empty() {
        found.required(&path.child("containerName"), "");
    } else if name.is_empty() {
        found.required(&path.child("resource"), "");
    } else if !huge && !RESOURCES.contains(&name) {
        found.unsupported(&path.child("resource"), name, RESOURCES);
    }
    let divisor = quantity(at(value, &["divisor"])).filter(|divisor| !divisor.is_zero());
    let Some(divisor) = divisor.map(|divisor| divisor.to_string()) else {
        return;
    };
    let bytes = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let (allowed, what) = match name.split_once('.') {
        Some(("limits" | "requests", "cpu")) => ("1m and 1", "cpu"),
        Some(("limits" | "requests", "memory")) => (bytes, "memory"),
        Some(("limits" | "requests", "ephemeral-storage")) => (bytes, "local ephemeral storage"),
        _ if huge => (bytes, "hugepages"),
        _ => return,
    };
    let fits = if what == "cpu" {
        matches!(divisor.as_str(), "1m" | "1")
    } else {
        bytes.split(", ").any(|unit| unit == divisor)
    };
    if !fits {
        let why = format!("only divisor's values {allowed} are supported with the {what} resource");
        found.invalid_text(&path.child("divisor"), name, why);
    }
}

/// A key of a ConfigMap or a Secret.
pub(super) fn key(found: &mut Findings, path: &Path<'_>, value: &Value) {
    let name = text(value, &["name"]);
    found.against(&path.child("name"), name, names::subdomain(name));
    if found.needs(value, path, "key") {
        let key = text(value, &["key"]);
        found.against(&path.child("key"), key, names::config_key(key));
    }
}
