//! Namespace: where names live, and what holds its deletion back.

use serde_json::{Value, json};

use crate::duration::age;
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::table::{AGE, BASE, Field, NAME, NameRule, Resource, STATUS, Subresource, column};
use crate::value::{self, at, list, text};

/// Namespaces.
pub(crate) static NAMESPACES: Resource = Resource {
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &[
        "create", "delete", "get", "list", "patch", "update", "watch",
    ],
    subresources: &[
        Subresource {
            name: "finalize",
            kind: "",
            group_version: None,
            verbs: &["update"],
        },
        STATUS,
    ],
    storage_prefix: "/registry/namespaces",
    definition: "io.k8s.api.core.v1.Namespace",
    name_rule: NameRule::Label,
    columns: &[
        NAME,
        column("Status", "Whether it is in use or being emptied."),
        AGE,
    ],
    cells: |object, now| {
        vec![
            text(object, &["metadata", "name"]).into(),
            text(object, &["status", "phase"]).into(),
            age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        ]
    },
    fields: &[Field {
        label: "status.phase",
        get: |object| text(object, &["status", "phase"]).to_owned(),
    }],
    default: |object| {
        // Selectors of namespaces name it by this label.
        let name = meta::name(object).to_owned();
        if let Some(metadata) = value::object_mut(object, "metadata").filter(|_| !name.is_empty())
            && let Some(labels) = value::object_mut(metadata, "labels")
        {
            value::set(labels, "kubernetes.io/metadata.name", name);
        }
        if let Some(status) = value::object_mut(object, "status") {
            value::set_default(status, "phase", "Active");
        }
        value::object_mut(object, "spec");
    },
    prepare_create: |object| {
        value::set(object, "status", json!({"phase": "Active"}));
        // The one finalizer that empties it.
        if let Some(spec) = value::object_mut(object, "spec") {
            let mut finalizers = list(spec, &["finalizers"]).to_vec();
            if !finalizers.contains(&"kubernetes".into()) {
                finalizers.push("kubernetes".into());
            }
            value::set(spec, "finalizers", finalizers);
        }
    },
    prepare_update: |new, old| {
        // Finalizers change through `finalize` alone.
        if let Some(spec) = value::object_mut(new, "spec") {
            value::keep(spec, at(old, &["spec"]), "finalizers");
        }
    },
    validate,
    validate_update: |new, old| {
        let mut wrong = validate(new);
        let phase = text(new, &["status", "phase"]);
        let wanted = if meta::is_terminating(old) {
            "Terminating"
        } else {
            "Active"
        };
        if !phase.is_empty() && phase != wanted && at(new, &["status"]) != at(old, &["status"]) {
            let why = if wanted == "Active" {
                "may only be 'Terminating' if `deletionTimestamp` is not empty"
            } else {
                "may only be 'Active' if `deletionTimestamp` is empty"
            };
            wrong.push(FieldError::invalid_text("status.Phase", phase, why));
        }
        wrong
    },
    ..BASE
};

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for finalizer in list(object, &["spec", "finalizers"]) {
        let name = finalizer.as_str().unwrap_or("");
        for why in names::qualified_name(name) {
            wrong.push(FieldError::invalid_text("spec.finalizers", name, why));
        }
        if !name.contains('/') && name != "kubernetes" {
            wrong.push(FieldError::invalid_text(
                "spec.finalizers",
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    wrong
}
