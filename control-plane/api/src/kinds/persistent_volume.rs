//! PersistentVolume: a piece of storage that Pods can be given.

use serde_json::{Value, json};

use super::{named_cells, persistent_volume_validation};
use crate::meta;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column, wide};
use crate::value::{self, at, list, set_default, text};

/// Pieces of storage.
pub(crate) static PERSISTENT_VOLUMES: Resource = Resource {
    kind: "PersistentVolume",
    list_kind: "PersistentVolumeList",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    subresources: &[STATUS],
    storage_prefix: "/registry/persistentvolumes",
    definition: "io.k8s.api.core.v1.PersistentVolume",
    returns_deleted: true,
    columns: COLUMNS,
    cells: |object, now| {
        let spec = at(object, &["spec"]);
        let claim = at(spec, &["claimRef"]);
        let claim = if claim.is_object() {
            format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"]))
        } else {
            String::new()
        };
        let mut cells = named_cells(
            object,
            [
                capacity(at(spec, &["capacity"])).into(),
                access_modes(list(spec, &["accessModes"])).into(),
                text(spec, &["persistentVolumeReclaimPolicy"]).into(),
                phase(object).into(),
                claim.into(),
                class(object).into(),
                or_unset(text(spec, &["volumeAttributesClassName"])).into(),
                text(object, &["status", "reason"]).into(),
            ],
            now,
        );
        cells.push(or_unset(text(spec, &["volumeMode"])).into());
        cells
    },
    default: |object| {
        if let Some(status) = value::object_mut(object, "status") {
            set_default(status, "phase", "Pending");
        }
        let Some(spec) = value::object_mut(object, "spec") else {
            return;
        };
        set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_volume_mode(spec);
        super::pod_defaults::default_volume_source(spec);
    },
    prepare_create: |object| {
        let now = at(object, &["metadata", "creationTimestamp"]).clone();
        value::set(
            object,
            "status",
            json!({"phase": "Pending", "lastPhaseTransitionTime": now}),
        );
    },
    validate: persistent_volume_validation::validate,
    validate_update: persistent_volume_validation::validate_update,
    warnings: super::warnings::of_volume,
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Capacity", "How much it holds."),
    column("Access Modes", "How many may use it at a time, and how."),
    column("Reclaim Policy", "What becomes of it once it is let go."),
    column("Status", "Whether it is free, in use or let go."),
    column("Claim", "Whose it is."),
    column("StorageClass", "The class that it is of."),
    column(
        "VolumeAttributesClass",
        "The class of what can change about it.",
    ),
    column("Reason", "Why it failed, in a word."),
    AGE,
    wide("VolumeMode", "Whether it is a file system or a raw device."),
];

/// How a volume or claim is used where nothing is said. An empty text says something, which is refused.
pub(super) fn default_volume_mode(spec: &mut Value) {
    if at(spec, &["volumeMode"]).is_null() {
        value::set(spec, "volumeMode", "Filesystem");
    }
}

/// Annotation that named the class before there was a field.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The name of the class of a volume or claim.
pub(super) fn class(object: &Value) -> &str {
    match text(object, &["metadata", "annotations", CLASS_ANNOTATION]) {
        "" => text(object, &["spec", "storageClassName"]),
        annotated => annotated,
    }
}

/// The phase of a volume or claim; one that is to go says so.
pub(super) fn phase(object: &Value) -> &str {
    if meta::is_terminating(object) {
        "Terminating"
    } else {
        text(object, &["status", "phase"])
    }
}

pub(super) fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

/// The amount of storage in a list of resources.
pub(super) fn capacity(resources: &Value) -> String {
    match at(resources, &["storage"]) {
        Value::String(amount) => amount.clone(),
        Value::Number(amount) => amount.to_string(),
        _ => "0".into(),
    }
}

/// Access modes in short, each once, in Kubernetes' order.
pub(super) fn access_modes(modes: &[Value]) -> String {
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(mode, _)| has(mode))
    .map(|(_, short)| short)
    .collect::<Vec<_>>()
    .join(",")
}
