//! PodDisruptionBudget.

use serde_json::{Value, json};

use super::workload::{bad_amount, bad_percent, bad_selector, object_age};
use crate::field::FieldError;
use crate::meta;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column};
use crate::value::{at, number, set, text};

/// PodDisruptionBudgets.
pub(crate) static DISRUPTION_BUDGETS: Resource = Resource {
    group: "policy",
    kind: "PodDisruptionBudget",
    list_kind: "PodDisruptionBudgetList",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[STATUS],
    storage_prefix: "/registry/poddisruptionbudgets",
    definition: "io.k8s.api.policy.v1.PodDisruptionBudget",
    has_generation: true,
    columns: &[
        NAME,
        column("Min Available", "The fewest Pods that must be left."),
        column("Max Unavailable", "The most Pods that may be missing."),
        Column {
            kind: "integer",
            ..column("Allowed Disruptions", "Pods that may be evicted now.")
        },
        AGE,
    ],
    cells: |object, now| {
        let amount = |key: &str| match at(object, &["spec", key]) {
            Value::Null => "N/A".into(),
            Value::String(text) => Value::from(text.as_str()),
            other => other.to_string().into(),
        };
        vec![
            meta::name(object).into(),
            amount("minAvailable"),
            amount("maxUnavailable"),
            number(object, &["status", "disruptionsAllowed"]).into(),
            object_age(object, now),
        ]
    },
    prepare_create: |object| {
        let status = json!({
            "currentHealthy": 0,
            "desiredHealthy": 0,
            "disruptionsAllowed": 0,
            "expectedPods": 0,
        });
        set(object, "status", status);
    },
    validate,
    validate_update: |new, _| validate(new),
    validate_status: Some(super::workload_status::disruption_budget),
    ..BASE
};

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = Vec::new();
    let (min, max) = (at(spec, &["minAvailable"]), at(spec, &["maxUnavailable"]));
    if !min.is_null() && !max.is_null() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        wrong.push(FieldError::invalid("spec", spec, why));
    }
    for (key, amount) in [("minAvailable", min), ("maxUnavailable", max)] {
        let field = format!("spec.{key}");
        wrong.extend(bad_amount(amount, &field));
        wrong.extend(bad_percent(amount, &field));
    }
    wrong.extend(bad_selector(at(spec, &["selector"]), "spec.selector"));
    let policy = text(spec, &["unhealthyPodEvictionPolicy"]);
    if !matches!(policy, "" | "IfHealthyBudget" | "AlwaysAllow") {
        wrong.push(FieldError::not_supported(
            "spec.unhealthyPodEvictionPolicy",
            policy,
            &["AlwaysAllow", "IfHealthyBudget"],
        ));
    }
    wrong
}
