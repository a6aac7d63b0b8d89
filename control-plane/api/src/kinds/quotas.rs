//! ResourceQuota: how much a namespace as a whole may take.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::pod_spec::is_huge;
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

/// The same, and memory in pages of a size of its own.
fn is_standard(name: &str) -> bool {
    is_of_quotas(name) || is_huge(name.strip_prefix("requests.").unwrap_or(name))
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
        for _ in uncounted(scope, object) {
            refuse("unsupported scope applied to resource");
        }
        scopes.insert(scope);
    }
    let given = at(object, &["spec", "scopes"]);
    wrong.extend(conflicting("spec.scopes", &scopes, given));
    scopes.clear();
    let expressions = list(object, &["spec", "scopeSelector", "matchExpressions"]);
    for expression in expressions {
        let scope = text(expression, &["scopeName"]);
        if !SCOPES.contains(&scope) {
            wrong.push(FieldError::invalid_text(
                format!("{EXPRESSIONS}.scopeName"),
                scope,
                "unsupported scope",
            ));
        }
        for _ in uncounted(scope, object) {
            wrong.push(FieldError::new(
                EXPRESSIONS,
                Fault::Invalid(selector_shown(expressions)),
                "unsupported scope applied to resource",
            ));
        }
        wrong.extend(bad_scope_expression(expression));
        scopes.insert(scope);
    }
    wrong.extend(conflicting(EXPRESSIONS, &scopes, given));
    wrong
}

const EXPRESSIONS: &str = "spec.scopeSelector.matchExpressions";

/// Scopes of which nothing is in both. Those of the selector are refused with what stands in `spec.scopes`, too.
fn conflicting(field: &str, scopes: &BTreeSet<&str>, given: &Value) -> Vec<FieldError> {
    [
        ("BestEffort", "NotBestEffort"),
        ("Terminating", "NotTerminating"),
    ]
    .into_iter()
    .filter(|(one, other)| scopes.contains(one) && scopes.contains(other))
    .map(|_| FieldError::invalid(field, given, "conflicting scopes"))
    .collect()
}

/// What the quota limits that nothing of this scope has.
fn uncounted<'a>(scope: &'a str, object: &'a Value) -> impl Iterator<Item = &'a String> {
    entries(object, &["spec", "hard"])
        .map(|(name, _)| name)
        .filter(move |name| is_standard(name) && !scope_counts(scope, name))
}

/// The selector as Kubernetes shows it: by its own names, which are not those of the API.
fn selector_shown(expressions: &[Value]) -> String {
    let shown: Vec<String> = expressions
        .iter()
        .map(|expression| {
            format!(
                r#"{{"ScopeName":{},"Operator":{},"Values":{}}}"#,
                quoted(text(expression, &["scopeName"])),
                quoted(text(expression, &["operator"])),
                at(expression, &["values"])
            )
        })
        .collect();
    format!(r#"{{"MatchExpressions":[{}]}}"#, shown.join(","))
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
    let path = EXPRESSIONS;
    let scope = text(expression, &["scopeName"]);
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
    if wrong.is_empty() && !name.contains('/') && !is_standard(name) {
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

    fn shown(wrong: &[FieldError]) -> Vec<String> {
        wrong.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn scopes_of_selectors_are_held_to_what_is_limited() {
        let quota = |scopes: &[&str]| {
            let expressions: Vec<Value> = scopes
                .iter()
                .map(|scope| json!({"scopeName": scope, "operator": "Exists"}))
                .collect();
            json!({"spec": {"hard": {"persistentvolumeclaims": "1", "pods": "1"}, "scopeSelector": {"matchExpressions": expressions}}})
        };
        assert_eq!(
            shown(&validate_quota(&quota(&["BestEffort"]))),
            [
                r#"spec.scopeSelector.matchExpressions: Invalid value: {"MatchExpressions":[{"ScopeName":"BestEffort","Operator":"Exists","Values":null}]}: unsupported scope applied to resource"#
            ]
        );
        let mut both = quota(&["Terminating", "NotTerminating"]);
        both["spec"]["hard"] = json!({"pods": "1"});
        assert_eq!(
            shown(&validate_quota(&both)),
            ["spec.scopeSelector.matchExpressions: Invalid value: null: conflicting scopes"]
        );
        both["spec"]["scopes"] = json!(["Terminating"]);
        both["spec"]["scopeSelector"]["matchExpressions"] =
            json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]);
        assert_eq!(shown(&validate_quota(&both)), [""; 0]);
        both["spec"]["hard"] = json!({"requests.hugepages-2Mi": "1"});
        assert_eq!(
            shown(&validate_quota(&both))[0],
            r#"spec.scopes: Invalid value: ["Terminating"]: unsupported scope applied to resource"#
        );
    }

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
