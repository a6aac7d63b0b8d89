//! What a controller must not say of the state of things: counts below zero, more that is ready than there is.

use std::collections::BTreeSet;

use serde_json::Value;

use super::workload::bad_negatives;
use crate::field::{FieldError, quoted};
use crate::meta;
use crate::value::{at, list, number, text};

const OF_REPLICAS: &str = "cannot be greater than status.replicas";

/// Of a Deployment.
pub(super) fn deployment(new: &Value, old: &Value) -> Vec<FieldError> {
    let status = at(new, &["status"]);
    let mut wrong = negatives(
        status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
    );
    for key in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        wrong.extend(more_than(status, key, "replicas", OF_REPLICAS));
    }
    let why = "cannot be greater than readyReplicas";
    wrong.extend(more_than(status, "availableReplicas", "readyReplicas", why));
    wrong.extend(fewer_collisions(new, old));
    wrong
}

/// Of a ReplicaSet or a ReplicationController.
pub(super) fn replicas(new: &Value, _: &Value) -> Vec<FieldError> {
    let status = at(new, &["status"]);
    let mut wrong = negatives(
        status,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "terminatingReplicas",
            "observedGeneration",
        ],
    );
    for key in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        wrong.extend(more_than(status, key, "replicas", OF_REPLICAS));
    }
    let why = "cannot be greater than readyReplicas";
    wrong.extend(more_than(status, "availableReplicas", "readyReplicas", why));
    wrong
}

/// Of a StatefulSet.
pub(super) fn stateful_set(new: &Value, _: &Value) -> Vec<FieldError> {
    let status = at(new, &["status"]);
    let mut wrong = negatives(
        status,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
    );
    for key in [
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
    ] {
        wrong.extend(more_than(status, key, "replicas", OF_REPLICAS));
    }
    let why = "cannot be greater than status.readyReplicas";
    wrong.extend(more_than(status, "availableReplicas", "readyReplicas", why));
    wrong
}

/// Of a DaemonSet.
pub(super) fn daemon_set(new: &Value, old: &Value) -> Vec<FieldError> {
    let keys = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    let mut wrong = negatives(at(new, &["status"]), &keys);
    wrong.extend(fewer_collisions(new, old));
    wrong
}

/// Of a PodDisruptionBudget.
pub(super) fn disruption_budget(new: &Value, _: &Value) -> Vec<FieldError> {
    let status = at(new, &["status"]);
    let mut wrong = bad_conditions(at(status, &["conditions"]), "status.conditions");
    let keys = [
        "disruptionsAllowed",
        "currentHealthy",
        "desiredHealthy",
        "expectedPods",
    ];
    wrong.extend(negatives(status, &keys));
    wrong
}

/// Of a HorizontalPodAutoscaler.
pub(super) fn autoscaler(new: &Value, _: &Value) -> Vec<FieldError> {
    negatives(
        at(new, &["status"]),
        &["currentReplicas", "desiredReplicas"],
    )
}

pub(super) fn negatives(status: &Value, keys: &[&str]) -> Vec<FieldError> {
    bad_negatives(status, "status", keys)
}

fn more_than(status: &Value, key: &str, most: &str, why: &str) -> Option<FieldError> {
    let count = number(status, &[key]);
    (count > number(status, &[most]))
        .then(|| FieldError::invalid(format!("status.{key}"), &count.into(), why))
}

/// Collisions of names are counted upwards.
fn fewer_collisions(new: &Value, old: &Value) -> Option<FieldError> {
    let count = |object: &Value| number(object, &["status", "collisionCount"]);
    (count(new) < count(old)).then(|| {
        FieldError::invalid(
            "status.collisionCount",
            &count(new).into(),
            "cannot be decremented",
        )
    })
}

const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32 * 1024;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
    alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or \
    'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
    '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// What is wrong with a list of `metav1.Condition`.
pub(super) fn bad_conditions(conditions: &Value, field: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, condition) in list(conditions, &[]).iter().enumerate() {
        let path = format!("{field}[{i}]");
        let kind = text(condition, &["type"]);
        if !seen.insert(kind) {
            wrong.push(FieldError::duplicate(format!("{path}.type"), quoted(kind)));
        }
        wrong.extend(meta::label_key(kind, &format!("{path}.type")));
        let status = text(condition, &["status"]);
        let known = ["False", "True", "Unknown"];
        if !known.contains(&status) {
            wrong.push(FieldError::not_supported(
                format!("{path}.status"),
                status,
                &known,
            ));
        }
        let generation = number(condition, &["observedGeneration"]);
        if generation < 0 {
            wrong.push(FieldError::invalid(
                format!("{path}.observedGeneration"),
                &generation.into(),
                "must be greater than or equal to zero",
            ));
        }
        for key in ["lastTransitionTime", "reason"] {
            if text(condition, &[key]).is_empty() {
                wrong.push(FieldError::required(format!("{path}.{key}"), "must be set"));
            }
        }
        let reason = text(condition, &["reason"]);
        if !reason.is_empty() && !is_reason(reason) {
            wrong.push(FieldError::invalid_text(
                format!("{path}.reason"),
                reason,
                REASON,
            ));
        }
        for (key, max) in [("reason", REASON_MAX), ("message", MESSAGE_MAX)] {
            if text(condition, &[key]).len() > max {
                wrong.push(FieldError::too_long(format!("{path}.{key}"), max));
            }
        }
    }
    wrong
}

fn is_reason(reason: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    reason
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic())
        && reason.bytes().last().is_some_and(word)
        && reason.bytes().all(|b| word(b) || b == b',' || b == b':')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Check = fn(&Value, &Value) -> Vec<FieldError>;

    #[test]
    fn counts_fit_each_other() {
        let table: &[(Check, Value, &[&str])] = &[
            (
                deployment,
                json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1, "updatedReplicas": 2}),
                &[],
            ),
            (
                deployment,
                json!({"replicas": -1}),
                &[
                    "status.replicas: Invalid value: -1: must be greater than or equal to 0",
                    "status.updatedReplicas: Invalid value: 0: cannot be greater than status.replicas",
                    "status.readyReplicas: Invalid value: 0: cannot be greater than status.replicas",
                    "status.availableReplicas: Invalid value: 0: cannot be greater than status.replicas",
                ],
            ),
            (
                replicas,
                json!({"replicas": 1, "readyReplicas": 3}),
                &["status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas"],
            ),
            (
                replicas,
                json!({"replicas": 1, "availableReplicas": 1}),
                &[
                    "status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas",
                ],
            ),
            (
                stateful_set,
                json!({"replicas": 0, "currentReplicas": 1}),
                &[
                    "status.currentReplicas: Invalid value: 1: cannot be greater than status.replicas",
                ],
            ),
            (
                daemon_set,
                json!({"numberReady": -2}),
                &["status.numberReady: Invalid value: -2: must be greater than or equal to 0"],
            ),
            (
                daemon_set,
                json!({"collisionCount": 1}),
                &["status.collisionCount: Invalid value: 1: cannot be decremented"],
            ),
            (
                autoscaler,
                json!({"currentReplicas": -1}),
                &["status.currentReplicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                disruption_budget,
                json!({"currentHealthy": -1, "conditions": [
                    {"type": "A", "status": "True", "reason": "Fine", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "A", "status": "true", "reason": "-"}]}),
                &[
                    "status.conditions[1].type: Duplicate value: \"A\"",
                    "status.conditions[1].status: Unsupported value: \"true\": supported values: \"False\", \"True\", \"Unknown\"",
                    "status.conditions[1].lastTransitionTime: Required value: must be set",
                    &format!("status.conditions[1].reason: Invalid value: \"-\": {REASON}"),
                    "status.currentHealthy: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ];
        let old = json!({"status": {"collisionCount": 2}});
        for (check, status, wanted) in table {
            let before = if status.get("collisionCount").is_some() {
                &old
            } else {
                &Value::Null
            };
            let found: Vec<String> = check(&json!({"status": status}), before)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, *wanted, "{status}");
        }
    }
}
