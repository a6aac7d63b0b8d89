//! ResourceQuota: how much a namespace as a whole may take.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{amount_text, named_cells};
use crate::field::{Fault, FieldError, quoted};
use crate::names;
use crate::quantity::Quantity;
use crate::table::{AGE, BASE, NAME, Resource, STATUS, column};
use crate::value::{self, at, entries, list, text};

/// How much a namespace may take.
pub(crate) static RESOURCE_QUOTAS: Resource = Resource {
    kind: "ResourceQuota",
    list_kind: "ResourceQuotaList",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[STATUS],
    storage_prefix: "/registry/resourcequotas",
    definition: "io.k8s.api.core.v1.ResourceQuota",
    returns_deleted: true,
    columns: &[
        NAME,
        column("Request", "What may be asked for: used of permitted."),
        column("Limit", "What limits may add up to: used of permitted."),
        AGE,
    ],
    cells: |object, now| {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in entries(object, &["status", "hard"]) {
            let used = match at(object, &["status", "used", name]) {
                Value::Null => "0".to_owned(),
                used => amount_text(used),
            };
            let entry = format!("{name}: {used}/{}", amount_text(hard));
            if name.starts_with("limits.") {
                limits.push(entry);
            } else {
                requests.push(entry);
            }
        }
        named_cells(
            object,
            [requests.join(", ").into(), limits.join(", ").into()],
            now,
        )
    },
    default: |object| {
        value::object_mut(object, "spec");
    },
    prepare_create: |object| value::set(object, "status", json!({})),
    validate: validate_quota,
    validate_update: |new, old| {
        let mut wrong = validate_quota(new);
        let scopes = |object: &Value| -> BTreeSet<String> {
            list(object, &["spec", "scopes"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        if scopes(new) != scopes(old) {
            wrong.push(FieldError::invalid(
                "spec.scopes",
                at(new, &["spec", "scopes"]),
                "field is immutable",
            ));
        }
        wrong
    },
    ..BASE
};

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// Objects that quotas count under names of their own.
pub(crate) fn is_counted(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "persistentvolumeclaims"
            | "configmaps"
            | "services.nodeports"
            | "services.loadbalancers"
    )
}

/// What a quota may name without a prefix: objects, and resources of containers and claims.
fn is_of_quotas(name: &str) -> bool {
    is_counted(name)
        || matches!(
            name,
            "cpu"
                | "memory"
                | "ephemeral-storage"
                | "requests.cpu"
                | "requests.memory"
                | "requests.storage"
                | "requests.ephemeral-storage"
                | "limits.cpu"
                | "limits.memory"
                | "limits.ephemeral-storage"
        )
}

fn validate_quota(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for (part, key) in [("spec", "hard"), ("status", "hard"), ("status", "used")] {
        for (name, amount) in entries(object, &[part, key]) {
            let path = format!("{part}.{key}[{name}]");
            wrong.extend(bad_quota_name(&path, name));
            wrong.extend(bad_quota_amount(&path, name, amount));
        }
    }
    let mut scopes = BTreeSet::new();
    for scope in list(object, &["spec", "scopes"]) {
        let scope = scope.as_str().unwrap_or("");
        let mut refuse = |why: &str| {
            let scopes = at(object, &["spec", "scopes"]);
            wrong.push(FieldError::invalid("spec.scopes", scopes, why));
        };
        if !SCOPES.contains(&scope) {
            refuse("unsupported scope");
        }
        for (name, _) in entries(object, &["spec", "hard"]) {
            if (is_of_quotas(name) || name == "storage") && !scope_counts(scope, name) {
                refuse("unsupported scope applied to resource");
            }
        }
        scopes.insert(scope);
    }
    for (one, other) in [
        ("BestEffort", "NotBestEffort"),
        ("Terminating", "NotTerminating"),
    ] {
        if scopes.contains(one) && scopes.contains(other) {
            wrong.push(FieldError::invalid(
                "spec.scopes",
                at(object, &["spec", "scopes"]),
                "conflicting scopes",
            ));
        }
    }
    let expressions = list(object, &["spec", "scopeSelector", "matchExpressions"]);
    for expression in expressions {
        wrong.extend(bad_scope_expression(expression));
    }
    wrong
}

/// Whether Pods, or claims, of a scope have this resource.
fn scope_counts(scope: &str, name: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => {
            name == "pods"
                || ["", "requests.", "limits."].iter().any(|prefix| {
                    name.strip_prefix(prefix)
                        .is_some_and(|n| matches!(n, "cpu" | "memory" | "ephemeral-storage"))
                })
        }
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn bad_scope_expression(expression: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let path = "spec.scopeSelector.matchExpressions";
    let scope = text(expression, &["scopeName"]);
    if !SCOPES.contains(&scope) {
        wrong.push(FieldError::invalid_text(
            format!("{path}.scopeName"),
            scope,
            "unsupported scope",
        ));
    }
    let values = list(expression, &["values"]);
    let operator = text(expression, &["operator"]);
    if scope != "PriorityClass" && scope != "VolumeAttributesClass" && operator != "Exists" {
        wrong.push(FieldError::invalid_text(
            format!("{path}.operator"),
            operator,
            "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
        ));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => wrong.push(FieldError::required(
            format!("{path}.values"),
            "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => wrong.push(FieldError::invalid(
            format!("{path}.values"),
            at(expression, &["values"]),
            "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => wrong.push(FieldError::invalid_text(
            format!("{path}.operator"),
            other,
            "not a valid selector operator",
        )),
    }
    wrong
}

fn bad_quota_name(path: &str, name: &str) -> Vec<FieldError> {
    let mut wrong: Vec<FieldError> = names::qualified_name(name)
        .into_iter()
        .map(|why| FieldError::invalid_text(path, name, why))
        .collect();
    let standard = is_of_quotas(name)
        || ["hugepages-", "requests.hugepages-"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    if wrong.is_empty() && !name.contains('/') && !standard {
        wrong.push(FieldError::invalid_text(
            path,
            name,
            "must be a standard resource for quota",
        ));
    }
    wrong
}

fn bad_quota_amount(path: &str, name: &str, amount: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let Ok(read) = Quantity::parse(&amount_text(amount)) else {
        return wrong;
    };
    if read.is_negative() {
        wrong.push(FieldError::new(
            path,
            Fault::Invalid(quoted(&amount_text(amount))),
            "must be greater than or equal to 0",
        ));
    }
    let counts = name.starts_with("count/") || is_counted(name);
    if counts && !read.is_whole() {
        wrong.push(FieldError::new(
            path,
            Fault::Invalid(quoted(&amount_text(amount))),
            "must be an integer",
        ));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_amounts_of_quotas() {
        for (hard, count) in [
            (
                json!({"pods": "5", "limits.cpu": "2", "count/jobs.batch": "1", "example.com/x": "1"}),
                0,
            ),
            (json!({"pods": "1500m"}), 1),
            (json!({"nonsense": "1"}), 1),
            (json!({"cpu": "-1"}), 1),
        ] {
            let quota = json!({"spec": {"hard": hard}});
            assert_eq!(validate_quota(&quota).len(), count, "{quota}");
        }
    }
}
