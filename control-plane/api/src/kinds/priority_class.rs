//! PriorityClass: how important Pods are; and RuntimeClass: what runs their containers.

use serde_json::Value;

use super::pod_spec::findings::{Findings, Path};
use super::{immutable, named_cells};
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::quantity::Quantity;
use crate::table::{AGE, BASE, NAME, Resource, column, typed};
use crate::value::{at, entries, flag, list, number, set_default, text};

/// Classes of importance.
pub(crate) static PRIORITY_CLASSES: Resource = Resource {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    list_kind: "PriorityClassList",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    storage_prefix: "/registry/priorityclasses",
    definition: "io.k8s.api.scheduling.v1.PriorityClass",
    has_generation: true,
    columns: &[
        NAME,
        typed(
            "Value",
            "integer",
            "How important its Pods are: higher is more.",
        ),
        typed(
            "Global-Default",
            "boolean",
            "Whether Pods without a class are of it.",
        ),
        AGE,
        column("PreemptionPolicy", "Whether its Pods drive others out."),
    ],
    cells: |object, now| {
        let mut cells = named_cells(
            object,
            [
                number(object, &["value"]).into(),
                flag(object, &["globalDefault"]).into(),
            ],
            now,
        );
        cells.push(text(object, &["preemptionPolicy"]).into());
        cells
    },
    default: |object| set_default(object, "preemptionPolicy", "PreemptLowerPriority"),
    validate: validate_priority,
    keeps: |object| {
        SYSTEM_CLASSES
            .iter()
            .any(|(name, _)| *name == meta::name(object))
            .then_some("this is a system priority class and cannot be deleted")
    },
    validate_update: |new, old| {
        let mut wrong = Vec::new();
        if number(new, &["value"]) != number(old, &["value"]) {
            wrong.push(FieldError::forbidden(
                "value",
                "may not be changed in an update.",
            ));
        }
        wrong.extend(immutable(new, old, &["preemptionPolicy"]));
        wrong
    },
    ..BASE
};

/// The most that users may give; above are the classes of the system.
const PRIORITY_MAX: i64 = 1_000_000_000;

/// The classes that every cluster has, with what they are worth.
pub(crate) const SYSTEM_CLASSES: &[(&str, i64)] = &[
    ("system-cluster-critical", 2 * PRIORITY_MAX),
    ("system-node-critical", 2 * PRIORITY_MAX + 1000),
];

fn validate_priority(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (name, worth) = (meta::name(object), number(object, &["value"]));
    if name.starts_with("system-") {
        let known = SYSTEM_CLASSES
            .iter()
            .any(|(system, value)| *system == name && *value == worth);
        if !known {
            wrong.push(FieldError::forbidden(
                "metadata.name",
                "priority class names with 'system-' prefix are reserved for system use only. error: "
                    .to_owned()
                    + &match SYSTEM_CLASSES.iter().find(|(system, _)| *system == name) {
                        Some((_, value)) => format!("value of {name} PriorityClass must be {value}"),
                        None => format!("{name} is not a known system priority class"),
                    },
            ));
        }
    } else if worth > PRIORITY_MAX {
        wrong.push(FieldError::forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}"),
        ));
    }
    let policy = text(object, &["preemptionPolicy"]);
    if !matches!(policy, "Never" | "PreemptLowerPriority") {
        wrong.push(FieldError::not_supported(
            "preemptionPolicy",
            policy,
            &["Never", "PreemptLowerPriority"],
        ));
    }
    wrong
}

/// What runs containers.
pub(crate) static RUNTIME_CLASSES: Resource = Resource {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    list_kind: "RuntimeClassList",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    storage_prefix: "/registry/runtimeclasses",
    definition: "io.k8s.api.node.v1.RuntimeClass",
    unconditional_update: false,
    columns: &[
        NAME,
        column("Handler", "Its name in the runtime's configuration."),
        AGE,
    ],
    cells: |object, now| named_cells(object, [text(object, &["handler"]).into()], now),
    validate: validate_runtime,
    validate_update: |new, old| {
        let mut wrong: Vec<FieldError> = immutable(new, old, &["handler"]).into_iter().collect();
        wrong.extend(bad_tolerations(new));
        wrong
    },
    warnings: super::warnings::of_runtime_class,
    ..BASE
};

fn validate_runtime(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let handler = text(object, &["handler"]);
    for why in names::label(handler) {
        wrong.push(FieldError::invalid_text("handler", handler, why));
    }
    wrong.extend(meta::labels(
        at(object, &["scheduling", "nodeSelector"]),
        "scheduling.nodeSelector",
    ));
    for (name, amount) in entries(object, &["overhead", "podFixed"]) {
        let negative = Quantity::parse(&super::amount_text(amount)).is_ok_and(|q| q.is_negative());
        if negative {
            let why = "must be greater than or equal to 0";
            let field = format!("overhead.podFixed[{name}]");
            wrong.push(FieldError::invalid(field, amount, why));
        }
    }
    wrong.extend(bad_tolerations(object));
    wrong
}

fn bad_tolerations(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::default();
    let scheduling = Path::Root("scheduling");
    let path = scheduling.child("tolerations");
    let tolerations = list(object, &["scheduling", "tolerations"]);
    for (i, toleration) in tolerations.iter().enumerate() {
        super::pod_spec::toleration(toleration, &path.index(i), &mut found);
    }
    found.into_vec()
}
