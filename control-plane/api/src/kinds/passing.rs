//! Kinds that are never stored: a Binding acts on its Pod, a ComponentStatus is asked for.

use serde_json::Value;

use crate::field::FieldError;
use crate::meta;
use crate::table::{BASE, NAME, Resource, column};
use crate::value::{list, text};

/// That a Pod is to run on a node.
pub(crate) static BINDINGS: Resource = Resource {
    kind: "Binding",
    list_kind: "",
    plural: "bindings",
    singular: "binding",
    verbs: &["create"],
    storage_prefix: "",
    definition: "io.k8s.api.core.v1.Binding",
    validate: validate_binding,
    ..BASE
};

/// How the parts of the control plane are.
pub(crate) static COMPONENT_STATUSES: Resource = Resource {
    kind: "ComponentStatus",
    list_kind: "ComponentStatusList",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    namespaced: false,
    verbs: &["get", "list"],
    storage_prefix: "",
    definition: "io.k8s.api.core.v1.ComponentStatus",
    deprecation: "v1 ComponentStatus is deprecated in v1.19+",
    columns: &[
        NAME,
        column("Status", "Whether it is well."),
        column("Message", "What it says of itself."),
        column("Error", "What is wrong with it."),
    ],
    cells: |object, _| {
        let healthy = list(object, &["conditions"])
            .iter()
            .find(|condition| text(condition, &["type"]) == "Healthy");
        let cell = |key: &str| healthy.map_or("", |condition| text(condition, &[key]));
        let status = if cell("status") == "True" {
            "Healthy"
        } else {
            "Unhealthy"
        };
        vec![
            meta::name(object).into(),
            status.into(),
            cell("message").into(),
            cell("error").into(),
        ]
    },
    ..BASE
};

/// Everything wrong with where a Pod is to go.
pub(crate) fn validate_binding(binding: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    match text(binding, &["target", "kind"]) {
        "" | "Node" => {}
        other => wrong.push(FieldError::not_supported(
            "target.kind",
            other,
            &["Node", "<empty>"],
        )),
    }
    if text(binding, &["target", "name"]).is_empty() {
        wrong.push(FieldError::required("target.name", ""));
    }
    wrong
}
