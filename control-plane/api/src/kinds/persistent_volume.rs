//! PersistentVolume: a piece of storage that Pods can be given.

use serde_json::{Value, json};

use super::{immutable, named_cells};
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::quantity::Quantity;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column, wide};
use crate::value::{self, at, entries, list, set_default, text};

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
        set_default(spec, "volumeMode", "Filesystem");
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
    validate,
    validate_update: |new, old| {
        let mut wrong = validate(new);
        if source(new) != source(old) {
            wrong.push(FieldError::forbidden(
                "spec.persistentvolumesource",
                "spec.persistentvolumesource is immutable after creation",
            ));
        }
        wrong.extend(immutable(new, old, &["spec", "volumeMode"]));
        if at(old, &["spec", "nodeAffinity"]).is_object() {
            wrong.extend(immutable(new, old, &["spec", "nodeAffinity"]));
        }
        wrong
    },
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

/// Where the volume's bytes are: one of these keys of its spec.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// Annotation that named the class before there was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

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

fn source(object: &Value) -> Vec<&Value> {
    SOURCES
        .iter()
        .map(|source| at(object, &["spec", source]))
        .collect()
}

/// What is wrong with the access modes that stand at `field`.
pub(super) fn bad_access_modes(field: &str, modes: &[Value]) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut exclusive = false;
    for mode in modes {
        match mode.as_str().unwrap_or("") {
            "ReadOnlyMany" | "ReadWriteMany" | "ReadWriteOnce" => {}
            "ReadWriteOncePod" => exclusive = true,
            other => wrong.push(FieldError::not_supported(
                field,
                other,
                &[
                    "ReadOnlyMany",
                    "ReadWriteMany",
                    "ReadWriteOnce",
                    "ReadWriteOncePod",
                ],
            )),
        }
    }
    if exclusive && modes.len() > 1 {
        wrong.push(FieldError::forbidden(
            field,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
    wrong
}

/// What is wrong with the volume mode that stands at `field`.
pub(super) fn bad_volume_mode(field: &str, mode: &str) -> Option<FieldError> {
    let known = ["Block", "Filesystem"];
    (!mode.is_empty() && !known.contains(&mode))
        .then(|| FieldError::not_supported(field, mode, &known))
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    let modes = list(spec, &["accessModes"]);
    if modes.is_empty() {
        wrong.push(FieldError::required("spec.accessModes", ""));
    }
    wrong.extend(bad_access_modes("spec.accessModes", modes));
    if entries(spec, &["capacity"]).next().is_none() {
        wrong.push(FieldError::required("spec.capacity", ""));
    } else if at(spec, &["capacity", "storage"]).is_null()
        || entries(spec, &["capacity"]).count() > 1
    {
        wrong.push(FieldError::not_supported_shown(
            "spec.capacity",
            at(spec, &["capacity"]).to_string(),
            &["storage"],
        ));
    }
    for (name, amount) in entries(spec, &["capacity"]) {
        let read = Quantity::parse(&super::amount_text(amount));
        if read.is_ok_and(|amount| amount.is_zero() || amount.is_negative()) {
            wrong.push(FieldError::invalid(
                format!("spec.capacity[{name}]"),
                amount,
                "must be greater than zero",
            ));
        }
    }
    let policy = text(spec, &["persistentVolumeReclaimPolicy"]);
    if !matches!(policy, "" | "Delete" | "Recycle" | "Retain") {
        wrong.push(FieldError::not_supported(
            "spec.persistentVolumeReclaimPolicy",
            policy,
            &["Delete", "Recycle", "Retain"],
        ));
    }
    wrong.extend(bad_source(spec));
    let class = text(spec, &["storageClassName"]);
    if !class.is_empty() {
        for why in names::subdomain(class) {
            wrong.push(FieldError::invalid_text(
                "spec.storageClassName",
                class,
                why,
            ));
        }
    }
    wrong.extend(bad_volume_mode(
        "spec.volumeMode",
        text(spec, &["volumeMode"]),
    ));
    wrong
}

fn bad_source(spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let given: Vec<&str> = SOURCES
        .iter()
        .copied()
        .filter(|source| at(spec, &[source]).is_object())
        .collect();
    if given.is_empty() {
        wrong.push(FieldError::required("spec", "must specify a volume type"));
    }
    for more in given.iter().skip(1) {
        wrong.push(FieldError::forbidden(
            format!("spec.{more}"),
            "may not specify more than 1 volume type",
        ));
    }
    for (source, key) in [
        ("hostPath", "path"),
        ("local", "path"),
        ("nfs", "server"),
        ("nfs", "path"),
        ("csi", "driver"),
        ("csi", "volumeHandle"),
    ] {
        if at(spec, &[source]).is_object() && text(spec, &[source, key]).is_empty() {
            wrong.push(FieldError::required(format!("spec.{source}.{key}"), ""));
        }
    }
    for source in ["hostPath", "local", "nfs"] {
        let path = text(spec, &[source, "path"]);
        if source != "nfs" && path.split('/').any(|part| part == "..") {
            wrong.push(FieldError::invalid_text(
                format!("spec.{source}.path"),
                path,
                "must not contain '..'",
            ));
        }
        if source == "nfs" && !path.is_empty() && !path.starts_with('/') {
            wrong.push(FieldError::invalid_text(
                "spec.nfs.path",
                path,
                "must be an absolute path",
            ));
        }
    }
    let affinity = at(spec, &["nodeAffinity"]);
    if affinity.is_object() && !at(affinity, &["required"]).is_object() {
        wrong.push(FieldError::required(
            "spec.nodeAffinity.required",
            "must specify required node constraints",
        ));
    }
    if at(spec, &["local"]).is_object() && !at(spec, &["nodeAffinity"]).is_object() {
        wrong.push(FieldError::required(
            "spec.nodeAffinity",
            "Local volume requires node affinity",
        ));
    }
    if text(spec, &["hostPath", "path"]) == "/"
        && text(spec, &["persistentVolumeReclaimPolicy"]) == "Recycle"
    {
        wrong.push(FieldError::forbidden(
            "spec.persistentVolumeReclaimPolicy",
            "may not be 'recycle' for a hostPath mount of '/'",
        ));
    }
    wrong
}
