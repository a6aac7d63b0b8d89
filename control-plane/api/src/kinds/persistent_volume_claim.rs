//! PersistentVolumeClaim: a wish for a piece of storage.

use serde_json::{Value, json};

use super::label_selector::bad_selector;
use super::persistent_volume::{
    CLASS_ANNOTATION, access_modes, capacity, class, default_volume_mode, or_unset, phase,
};
use super::persistent_volume_validation::{bad_access_modes, bad_volume_mode};
use super::{immutable, named_cells};
use crate::field::FieldError;
use crate::names;
use crate::quantity::Quantity;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column, wide};
use crate::value::{self, at, list, set_default, text};

/// Wishes for storage.
pub(crate) static PERSISTENT_VOLUME_CLAIMS: Resource = Resource {
    kind: "PersistentVolumeClaim",
    list_kind: "PersistentVolumeClaimList",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    subresources: &[STATUS],
    storage_prefix: "/registry/persistentvolumeclaims",
    definition: "io.k8s.api.core.v1.PersistentVolumeClaim",
    returns_deleted: true,
    columns: COLUMNS,
    cells: |object, now| {
        let volume = text(object, &["spec", "volumeName"]);
        let (holds, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            (
                capacity(at(object, &["status", "capacity"])),
                access_modes(list(object, &["status", "accessModes"])),
            )
        };
        let mut cells = named_cells(
            object,
            [
                phase(object).into(),
                volume.into(),
                holds.into(),
                modes.into(),
                class(object).into(),
                or_unset(text(object, &["spec", "volumeAttributesClassName"])).into(),
            ],
            now,
        );
        cells.push(or_unset(text(object, &["spec", "volumeMode"])).into());
        cells
    },
    default: |object| {
        if let Some(status) = value::object_mut(object, "status") {
            set_default(status, "phase", "Pending");
        }
        if let Some(spec) = value::object_mut(object, "spec") {
            default_spec(spec);
        }
    },
    prepare_create: |object| {
        value::set(object, "status", json!({"phase": "Pending"}));
        forget_other_source(object);
    },
    prepare_update: |new, old| {
        let sources = ["dataSource", "dataSourceRef"];
        if sources.iter().all(|key| at(old, &["spec", key]).is_null()) {
            forget_other_source(new);
        }
    },
    validate,
    validate_update,
    warnings: super::warnings::of_claim,
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "Whether it has its volume."),
    column("Volume", "The volume that it has."),
    column("Capacity", "How much the volume holds."),
    column("Access Modes", "How many may use it at a time, and how."),
    column("StorageClass", "The class that was asked for."),
    column(
        "VolumeAttributesClass",
        "The class of what can change about it.",
    ),
    AGE,
    wide("VolumeMode", "Whether it is a file system or a raw device."),
];

/// Fills the spec of a claim, also within a template.
pub(crate) fn default_spec(spec: &mut Value) {
    default_volume_mode(spec);
    value::object_mut(spec, "resources");
    let (source, reference) = (
        at(spec, &["dataSource"]).clone(),
        at(spec, &["dataSourceRef"]).clone(),
    );
    // The older and the newer name of where its content comes from say the same.
    if is_old_source(&source) && reference.is_null() {
        value::set(spec, "dataSourceRef", source);
    } else if reference.is_object()
        && source.is_null()
        && text(&reference, &["namespace"]).is_empty()
    {
        value::set(spec, "dataSource", reference);
    }
    // The group is written even where it is null.
    for key in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.get_mut(key).filter(|source| source.is_object()) {
            set_default(source, "apiGroup", Value::Null);
        }
    }
}

/// Whether it is of the kinds that there were when `dataSource` was the only name.
fn is_old_source(source: &Value) -> bool {
    matches!(
        (text(source, &["apiGroup"]), text(source, &["kind"])),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// A source of another kind under the older name alone is as good as none, as it was before there were others.
fn forget_other_source(object: &mut Value) {
    let Some(spec) = value::object_mut(object, "spec") else {
        return;
    };
    if at(spec, &["dataSourceRef"]).is_null() && !is_old_source(at(spec, &["dataSource"])) {
        value::remove(spec, "dataSource");
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    validate_spec("spec", at(object, &["spec"]))
}

/// Everything wrong with the spec of a claim that stands at `field`.
pub(crate) fn validate_spec(field: &str, spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let modes = list(spec, &["accessModes"]);
    if modes.is_empty() {
        wrong.push(FieldError::required(
            format!("{field}.accessModes"),
            "at least 1 access mode is required",
        ));
    }
    if at(spec, &["selector"]).is_object() {
        wrong.extend(bad_selector(
            &format!("{field}.selector"),
            at(spec, &["selector"]),
        ));
    }
    wrong.extend(bad_access_modes(&format!("{field}.accessModes"), modes));
    let asked = at(spec, &["resources", "requests", "storage"]);
    let storage = format!("{field}.resources[storage]");
    if asked.is_null() {
        wrong.push(FieldError::required(storage, ""));
    } else if Quantity::parse(&super::amount_text(asked))
        .is_ok_and(|amount| amount.is_zero() || amount.is_negative())
    {
        wrong.push(FieldError::invalid(
            storage,
            asked,
            "must be greater than zero",
        ));
    }
    for key in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, &[key]);
        if !class.is_empty() {
            for why in names::subdomain(class) {
                wrong.push(FieldError::invalid_text(
                    format!("{field}.{key}"),
                    class,
                    why,
                ));
            }
        }
    }
    wrong.extend(bad_volume_mode(
        &format!("{field}.volumeMode"),
        at(spec, &["volumeMode"]),
    ));
    for key in ["dataSource", "dataSourceRef"] {
        wrong.extend(bad_data_source(&format!("{field}.{key}"), at(spec, &[key])));
    }
    wrong.extend(other_source(field, spec));
    wrong
}

/// The older and the newer name of the source say the same, or the newer stands alone, as one in another namespace does.
fn other_source(field: &str, spec: &Value) -> Option<FieldError> {
    let (source, reference) = (at(spec, &["dataSource"]), at(spec, &["dataSourceRef"]));
    if !source.is_object() || !reference.is_object() {
        return None;
    }
    let why = if !text(reference, &["namespace"]).is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|key| at(source, &[key]) != at(reference, &[key]))
    {
        "must match dataSourceRef"
    } else {
        return None;
    };
    // In place of a value Kubernetes shows the path of the field, of which JSON makes this.
    Some(FieldError::invalid(field, &json!({}), why))
}

fn bad_data_source(field: &str, source: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if !source.is_object() {
        return wrong;
    }
    for key in ["name", "kind"] {
        if text(source, &[key]).is_empty() {
            wrong.push(FieldError::required(format!("{field}.{key}"), ""));
        }
    }
    let group = text(source, &["apiGroup"]);
    if group.is_empty() && text(source, &["kind"]) != "PersistentVolumeClaim" {
        wrong.push(FieldError::invalid_text(
            field,
            text(source, &["kind"]),
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ));
    }
    let space = text(source, &["namespace"]);
    for (key, given, reasons) in [
        ("apiGroup", group, names::subdomain(group)),
        ("namespace", space, names::label(space)),
    ] {
        for why in reasons.into_iter().filter(|_| !given.is_empty()) {
            wrong.push(FieldError::invalid_text(
                format!("{field}.{key}"),
                given,
                why,
            ));
        }
    }
    wrong
}

/// A claim that has its volume may ask for more room; one that hasn't may be given its volume and its class.
fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = validate(new);
    let bound = text(old, &["status", "phase"]) == "Bound";
    let mut expected = at(old, &["spec"]).clone();
    let mut free = vec!["volumeAttributesClassName"];
    if text(old, &["spec", "volumeName"]).is_empty() {
        free.push("volumeName");
    }
    const NOTE: &[&str] = &["metadata", "annotations", CLASS_ANNOTATION];
    let noted = |claim| at(claim, NOTE);
    let named = |claim| at(claim, &["spec", "storageClassName"]);
    let may_name = named(new).is_string() && (noted(old).is_null() || noted(old) == named(new));
    let names = named(old).is_null() && may_name;
    if names {
        free.push("storageClassName");
    }
    // Who moves the class from the annotation to the field may leave the annotation out.
    let moves = names && noted(old).is_string() && noted(new).is_null();
    if !moves && text(new, NOTE) != text(old, NOTE) {
        wrong.push(FieldError::invalid(
            format!("metadata.annotations.{CLASS_ANNOTATION}"),
            &text(new, NOTE).into(),
            "field is immutable",
        ));
    }
    for key in free {
        value::keep(&mut expected, at(new, &["spec"]), key);
    }
    let asked = |claim: &Value| at(claim, &["spec", "resources", "requests", "storage"]).clone();
    if bound
        && !asked(new).is_null()
        && let Some(requests) = value::object_mut(&mut expected, "resources")
            .and_then(|resources| value::object_mut(resources, "requests"))
    {
        value::set(requests, "storage", asked(new));
    }
    if expected != *at(new, &["spec"]) {
        wrong.push(FieldError::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let read = |amount: Value| Quantity::parse(&super::amount_text(&amount)).ok();
    if let (Some(after), Some(before)) = (read(asked(new)), read(asked(old)))
        && after < before
    {
        let holds = read(at(old, &["status", "capacity", "storage"]).clone());
        if holds.is_none_or(|holds| after <= holds) {
            wrong.push(FieldError::forbidden(
                "spec.resources.requests.storage",
                "field can not be less than status.capacity",
            ));
        }
    }
    let (after, before) = (at(new, &["spec"]), at(old, &["spec"]));
    wrong.extend(immutable(after, before, &["volumeMode"]));
    wrong.extend(lost_attributes_class(new, old));
    wrong
}

/// A class of what can change about the volume that is in force stays, or another one follows.
fn lost_attributes_class(new: &Value, old: &Value) -> Option<FieldError> {
    let class = |claim| at(claim, &["spec", "volumeAttributesClassName"]);
    let word = match class(new).as_str() {
        None => "nil",
        Some("") => "empty string",
        Some(_) => return None,
    };
    let in_force = at(old, &["status", "currentVolumeAttributesClassName"]).is_string();
    (in_force && class(new) != class(old)).then(|| {
        FieldError::forbidden(
            "spec.volumeAttributesClassName",
            format!(
                "update to {word} is forbidden when status.currentVolumeAttributesClassName is not nil"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(wrong: &[FieldError]) -> Vec<String> {
        wrong.iter().map(ToString::to_string).collect()
    }

    fn claim(annotation: &str, spec: &Value) -> Value {
        let mut spec = spec.clone();
        value::set(&mut spec, "accessModes", json!(["ReadWriteOnce"]));
        value::set(
            &mut spec,
            "resources",
            json!({"requests": {"storage": "1Gi"}}),
        );
        let mut claim = json!({"metadata": {"annotations": {}}, "spec": spec});
        if !annotation.is_empty() {
            claim["metadata"]["annotations"][CLASS_ANNOTATION] = annotation.into();
        }
        claim
    }

    #[test]
    fn a_class_moves_from_the_annotation_to_the_field() {
        let old = claim("slow", &json!({}));
        for annotation in ["", "slow"] {
            let new = claim(annotation, &json!({"storageClassName": "slow"}));
            assert!(validate_update(&new, &old).is_empty());
        }
        let immutable = "metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: \"fast\": field is \
                         immutable";
        let spec = "spec: Forbidden: spec is immutable after creation except resources.requests and \
                    volumeAttributesClassName for bound claims";
        let new = claim("fast", &json!({"storageClassName": "fast"}));
        assert_eq!(shown(&validate_update(&new, &old)), [immutable, spec]);
        assert_eq!(
            shown(&validate_update(&claim("fast", &json!({})), &old)),
            [immutable]
        );
    }

    #[test]
    fn an_attributes_class_in_force_is_not_taken_away() {
        let mut old = claim("", &json!({"volumeAttributesClassName": "gold"}));
        let new = |class: Value| claim("", &json!({"volumeAttributesClassName": class}));
        assert!(validate_update(&new(Value::Null), &old).is_empty());
        old["status"] = json!({"currentVolumeAttributesClassName": "gold"});
        for (class, word) in [(Value::Null, "nil"), (json!(""), "empty string")] {
            let wanted = format!(
                "spec.volumeAttributesClassName: Forbidden: update to {word} is forbidden when \
                 status.currentVolumeAttributesClassName is not nil"
            );
            assert_eq!(shown(&validate_update(&new(class), &old)), [wanted]);
        }
        assert!(validate_update(&new(json!("silver")), &old).is_empty());
    }
}
