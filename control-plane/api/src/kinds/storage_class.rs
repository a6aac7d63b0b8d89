//! storage.k8s.io: classes of volumes, and volumes that are attached to nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{immutable, named_cells, persistent_volume_validation};
use crate::field::{FieldError, quoted};
use crate::meta;
use crate::names;
use crate::table::{AGE, BASE, Column, NAME, Resource, column, typed};
use crate::value::{self, at, entries, flag, list, set_default, text};

pub(super) const STORAGE: Resource = Resource {
    group: "storage.k8s.io",
    namespaced: false,
    returns_deleted: true,
    ..BASE
};

/// Classes of volumes.
pub(crate) static STORAGE_CLASSES: Resource = Resource {
    kind: "StorageClass",
    list_kind: "StorageClassList",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    storage_prefix: "/registry/storageclasses",
    definition: "io.k8s.api.storage.v1.StorageClass",
    columns: CLASS_COLUMNS,
    cells: |object, now| {
        let mut name = meta::name(object).to_owned();
        let default = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ]
        .iter()
        .any(|key| text(object, &["metadata", "annotations", key]) == "true");
        if default {
            name.push_str(" (default)");
        }
        let mut cells = named_cells(
            object,
            [
                text(object, &["provisioner"]).into(),
                text(object, &["reclaimPolicy"]).into(),
                text(object, &["volumeBindingMode"]).into(),
                flag(object, &["allowVolumeExpansion"]).into(),
            ],
            now,
        );
        cells[0] = name.into();
        cells
    },
    default: |object| {
        set_default(object, "reclaimPolicy", "Delete");
        set_default(object, "volumeBindingMode", "Immediate");
    },
    validate: validate_class,
    validate_update: |new, old| {
        let mut wrong = validate_class(new);
        let forbidden = [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ];
        for (key, why) in forbidden {
            if !value::same(at(new, &[key]), at(old, &[key])) {
                wrong.push(FieldError::forbidden(key, why));
            }
        }
        wrong.extend(immutable(new, old, &["volumeBindingMode"]));
        wrong
    },
    warnings: super::warnings::of_class,
    ..STORAGE
};

const CLASS_COLUMNS: &[Column] = &[
    NAME,
    column("Provisioner", "The driver that makes its volumes."),
    column("ReclaimPolicy", "What becomes of a volume that was let go."),
    column("VolumeBindingMode", "When a claim gets its volume."),
    column("AllowVolumeExpansion", "Whether volumes may grow."),
    AGE,
];

/// Names of the parameters and values of a class together, in bytes.
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
/// Parameters of a class.
const PARAMETERS_MAX: usize = 512;

fn validate_class(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    wrong.extend(bad_driver_name(
        "provisioner",
        text(object, &["provisioner"]),
    ));
    wrong.extend(bad_parameters(object, "parameters"));
    match text(object, &["reclaimPolicy"]) {
        "" | "Delete" | "Retain" => {}
        other => wrong.push(FieldError::not_supported(
            "reclaimPolicy",
            other,
            &["Delete", "Retain"],
        )),
    }
    match text(object, &["volumeBindingMode"]) {
        "" => wrong.push(FieldError::required("volumeBindingMode", "")),
        "Immediate" | "WaitForFirstConsumer" => {}
        other => wrong.push(FieldError::not_supported(
            "volumeBindingMode",
            other,
            &["Immediate", "WaitForFirstConsumer"],
        )),
    }
    wrong.extend(bad_topologies(at(object, &["allowedTopologies"])));
    wrong
}

/// What is wrong with the parts of the cluster that a class is for.
fn bad_topologies(topologies: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut terms: Vec<&Value> = Vec::new();
    for (i, term) in list(topologies, &[]).iter().enumerate() {
        let path = format!("allowedTopologies[{i}]");
        let mut keys = BTreeSet::new();
        for (j, one) in list(term, &["matchLabelExpressions"]).iter().enumerate() {
            let path = format!("{path}.matchLabelExpressions[{j}]");
            let (key, values) = (text(one, &["key"]), list(one, &["values"]));
            if values.is_empty() {
                wrong.push(FieldError::required(format!("{path}.values"), ""));
            }
            let mut seen = BTreeSet::new();
            for (k, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or("");
                if !seen.insert(value) {
                    let field = format!("{path}.values[{k}]");
                    wrong.push(FieldError::duplicate(field, quoted(value)));
                }
            }
            wrong.extend(meta::label_key(key, &format!("{path}.key")));
            if !keys.insert(key) {
                wrong.push(FieldError::duplicate(format!("{path}.key"), quoted(key)));
            }
        }
        if terms.contains(&term) {
            let field = format!("{path}.matchLabelExpressions");
            wrong.push(FieldError::duplicate(field, ""));
        }
        terms.push(term);
    }
    wrong
}

pub(super) fn bad_driver_name(field: &str, name: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(field, "")];
    }
    names::qualified_name(&name.to_lowercase())
        .into_iter()
        .map(|why| FieldError::invalid_text(field, name, why))
        .collect()
}

fn bad_parameters(object: &Value, key: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (mut bytes, mut count) = (0, 0);
    for (name, parameter) in entries(object, &[key]) {
        count += 1;
        if name.is_empty() {
            wrong.push(FieldError::invalid_text(
                key,
                name,
                "field can not be empty.",
            ));
        }
        bytes += name.len() + parameter.as_str().map_or(0, str::len);
    }
    if count > PARAMETERS_MAX {
        wrong.push(FieldError::new(
            format!("{key}.Provisioner Parameters"),
            crate::field::Fault::TooLong,
            format!("may not be more than {PARAMETERS_MAX} bytes"),
        ));
    } else if bytes > PARAMETERS_BYTES_MAX {
        wrong.push(FieldError::too_long(key, PARAMETERS_BYTES_MAX));
    }
    wrong
}

/// Classes of what can change about a volume that exists.
pub(crate) static VOLUME_ATTRIBUTES_CLASSES: Resource = Resource {
    kind: "VolumeAttributesClass",
    list_kind: "VolumeAttributesClassList",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    storage_prefix: "/registry/volumeattributesclasses",
    definition: "io.k8s.api.storage.v1.VolumeAttributesClass",
    columns: &[
        NAME,
        column("DriverName", "The driver that changes volumes."),
        AGE,
    ],
    cells: |object, now| named_cells(object, [text(object, &["driverName"]).into()], now),
    validate: validate_attributes,
    validate_update: |new, old| {
        let mut wrong = validate_attributes(new);
        if at(new, &["driverName"]) != at(old, &["driverName"]) {
            wrong.push(FieldError::forbidden(
                "driverName",
                "updates to driverName are forbidden.",
            ));
        }
        if !value::same(at(new, &["parameters"]), at(old, &["parameters"])) {
            wrong.push(FieldError::forbidden(
                "parameters",
                "updates to parameters are forbidden.",
            ));
        }
        wrong
    },
    ..STORAGE
};

fn validate_attributes(object: &Value) -> Vec<FieldError> {
    let mut wrong = bad_driver_name("driverName", text(object, &["driverName"]));
    if entries(object, &["parameters"]).next().is_none() {
        wrong.push(FieldError::required(
            "parameters",
            "must contain at least one key/value pair",
        ));
    }
    wrong.extend(bad_parameters(object, "parameters"));
    wrong
}

/// That a volume is to be attached to a node.
pub(crate) static VOLUME_ATTACHMENTS: Resource = Resource {
    kind: "VolumeAttachment",
    list_kind: "VolumeAttachmentList",
    plural: "volumeattachments",
    singular: "volumeattachment",
    subresources: &[crate::table::STATUS],
    storage_prefix: "/registry/volumeattachments",
    definition: "io.k8s.api.storage.v1.VolumeAttachment",
    unconditional_update: false,
    columns: &[
        NAME,
        column("Attacher", "The driver that attaches."),
        column("PV", "The volume."),
        column("Node", "Where it is attached."),
        typed("Attached", "boolean", "Whether it is attached."),
        AGE,
    ],
    cells: |object, now| {
        named_cells(
            object,
            [
                text(object, &["spec", "attacher"]).into(),
                text(object, &["spec", "source", "persistentVolumeName"]).into(),
                text(object, &["spec", "nodeName"]).into(),
                flag(object, &["status", "attached"]).into(),
            ],
            now,
        )
    },
    prepare_create: |object| value::set(object, "status", json!({"attached": false})),
    prepare_status: crate::write::keep_said_metadata,
    validate: validate_attachment,
    validate_update: |new, old| {
        let mut wrong = validate_attachment(new);
        wrong.extend(immutable(new, old, &["spec"]));
        wrong
    },
    ..STORAGE
};

fn validate_attachment(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_driver_name("spec.attacher", text(spec, &["attacher"]));
    let source = at(spec, &["source"]);
    let (inline, name) = (
        at(source, &["inlineVolumeSpec"]),
        at(source, &["persistentVolumeName"]),
    );
    match (inline.is_object(), name.is_string()) {
        (false, false) => wrong.push(FieldError::required(
            "spec.source",
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        )),
        (true, true) => wrong.push(FieldError::forbidden(
            "spec.source",
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        )),
        (false, true) if text(source, &["persistentVolumeName"]).is_empty() => {
            wrong.push(FieldError::required(
                "spec.source.persistentVolumeName",
                "must specify non empty persistentVolumeName",
            ));
        }
        (true, false) => wrong.extend(persistent_volume_validation::validate_inline(
            inline,
            "spec.source.inlineVolumeSpec",
        )),
        _ => {}
    }
    let node = text(spec, &["nodeName"]);
    for why in names::subdomain(node) {
        wrong.push(FieldError::invalid_text("spec.nodeName", node, why));
    }
    wrong
}
