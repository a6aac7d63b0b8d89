//! rbac.authorization.k8s.io: who may do what. What the rules mean is the authorizer's affair; here they are kept in
//! order.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::label_selector::bad_selector;
use super::{created_at, named_cells};
use crate::field::FieldError;
use crate::names;
use crate::table::{AGE, BASE, CREATED_AT, Column, NAME, NameRule, Resource, column, wide};
use crate::value::{self, at, items_mut, list, set_default, text};

const GROUP: &str = "rbac.authorization.k8s.io";

const RBAC: Resource = Resource {
    group: GROUP,
    name_rule: NameRule::PathSegment,
    create_on_update: true,
    ..BASE
};

/// Rules over the whole cluster.
pub(crate) static CLUSTER_ROLES: Resource = Resource {
    kind: "ClusterRole",
    list_kind: "ClusterRoleList",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    storage_prefix: "/registry/clusterroles",
    definition: "io.k8s.api.rbac.v1.ClusterRole",
    columns: &[NAME, CREATED_AT],
    cells: created_at,
    // A role without rules says so.
    default: |object| set_default(object, "rules", Value::Null),
    validate: validate_cluster_role,
    validate_update: |new, _| validate_cluster_role(new),
    ..RBAC
};

/// Rules within a namespace.
pub(crate) static ROLES: Resource = Resource {
    kind: "Role",
    list_kind: "RoleList",
    plural: "roles",
    singular: "role",
    storage_prefix: "/registry/roles",
    definition: "io.k8s.api.rbac.v1.Role",
    columns: &[NAME, CREATED_AT],
    cells: created_at,
    default: |object| set_default(object, "rules", Value::Null),
    validate: |object| bad_rules(object, true),
    validate_update: |new, _| bad_rules(new, true),
    ..RBAC
};

/// Who has a role over the whole cluster.
pub(crate) static CLUSTER_ROLE_BINDINGS: Resource = Resource {
    kind: "ClusterRoleBinding",
    list_kind: "ClusterRoleBindingList",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    storage_prefix: "/registry/clusterrolebindings",
    definition: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    columns: BINDING_COLUMNS,
    cells: binding_cells,
    default: default_binding,
    validate: |object| validate_binding(object, false),
    validate_update: |new, old| validate_binding_update(new, old, false),
    ..RBAC
};

/// Who has a role within a namespace.
pub(crate) static ROLE_BINDINGS: Resource = Resource {
    kind: "RoleBinding",
    list_kind: "RoleBindingList",
    plural: "rolebindings",
    singular: "rolebinding",
    storage_prefix: "/registry/rolebindings",
    definition: "io.k8s.api.rbac.v1.RoleBinding",
    columns: BINDING_COLUMNS,
    cells: binding_cells,
    default: default_binding,
    validate: |object| validate_binding(object, true),
    validate_update: |new, old| validate_binding_update(new, old, true),
    ..RBAC
};

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    column("Role", "The role that is given."),
    AGE,
    wide("Users", "Users who have it."),
    wide("Groups", "Groups whose members have it."),
    wide("ServiceAccounts", "Service accounts that have it."),
];

fn binding_cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        text(object, &["roleRef", "kind"]),
        text(object, &["roleRef", "name"])
    );
    let subjects = |kind: &str| -> Value {
        list(object, &["subjects"])
            .iter()
            .filter(|subject| text(subject, &["kind"]) == kind)
            .map(|subject| match kind {
                "ServiceAccount" => format!(
                    "{}/{}",
                    text(subject, &["namespace"]),
                    text(subject, &["name"])
                ),
                _ => text(subject, &["name"]).to_owned(),
            })
            .collect::<Vec<_>>()
            .join(", ")
            .into()
    };
    let mut cells = named_cells(object, [role.into()], now);
    cells.extend(["User", "Group", "ServiceAccount"].map(subjects));
    cells
}

fn default_binding(object: &mut Value) {
    if let Some(role) = object.get_mut("roleRef") {
        set_default(role, "apiGroup", GROUP);
    }
    for subject in items_mut(object, "subjects") {
        if matches!(text(subject, &["kind"]), "User" | "Group") {
            set_default(subject, "apiGroup", GROUP);
        }
    }
}

fn validate_cluster_role(object: &Value) -> Vec<FieldError> {
    let mut wrong = bad_rules(object, false);
    let aggregation = at(object, &["aggregationRule"]);
    if aggregation.is_null() {
        return wrong;
    }
    let selectors = list(aggregation, &["clusterRoleSelectors"]);
    let field = "aggregationRule.clusterRoleSelectors";
    if selectors.is_empty() {
        wrong.push(FieldError::required(
            field,
            "at least one clusterRoleSelector required if aggregationRule is non-nil",
        ));
    }
    for (i, selector) in selectors.iter().enumerate() {
        wrong.extend(bad_selector(&format!("{field}[{i}]"), selector));
    }
    wrong
}

fn bad_rules(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for (i, rule) in list(object, &["rules"]).iter().enumerate() {
        let field = |key: &str| format!("rules[{i}].{key}");
        let given = |key: &str| !list(rule, &[key]).is_empty();
        if !given("verbs") {
            wrong.push(FieldError::required(
                field("verbs"),
                "verbs must contain at least one value",
            ));
        }
        if given("nonResourceURLs") {
            let mut refuse = |why: &str| {
                wrong.push(FieldError::invalid(
                    field("nonResourceURLs"),
                    at(rule, &["nonResourceURLs"]),
                    why,
                ));
            };
            if namespaced {
                refuse("namespaced rules cannot apply to non-resource URLs");
            }
            if given("apiGroups") || given("resources") || given("resourceNames") {
                refuse("rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if !given("apiGroups") {
            wrong.push(FieldError::required(
                field("apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if !given("resources") {
            wrong.push(FieldError::required(
                field("resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
    wrong
}

fn validate_binding(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let role = at(object, &["roleRef"]);
    if text(role, &["apiGroup"]) != GROUP {
        wrong.push(FieldError::not_supported(
            "roleRef.apiGroup",
            text(role, &["apiGroup"]),
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if !kinds.contains(&text(role, &["kind"])) {
        wrong.push(FieldError::not_supported(
            "roleRef.kind",
            text(role, &["kind"]),
            kinds,
        ));
    }
    let name = text(role, &["name"]);
    if name.is_empty() {
        wrong.push(FieldError::required("roleRef.name", ""));
    } else {
        for why in names::path_segment(name) {
            wrong.push(FieldError::invalid_text("roleRef.name", name, why));
        }
    }
    for (i, subject) in list(object, &["subjects"]).iter().enumerate() {
        wrong.extend(bad_subject(&format!("subjects[{i}]"), subject, namespaced));
    }
    wrong
}

fn bad_subject(field: &str, subject: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (name, group) = (text(subject, &["name"]), text(subject, &["apiGroup"]));
    if name.is_empty() {
        wrong.push(FieldError::required(format!("{field}.name"), ""));
    }
    match text(subject, &["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                for why in names::subdomain(name) {
                    wrong.push(FieldError::invalid_text(format!("{field}.name"), name, why));
                }
            }
            if !group.is_empty() {
                wrong.push(FieldError::not_supported(
                    format!("{field}.apiGroup"),
                    group,
                    &[""],
                ));
            }
            if !namespaced && text(subject, &["namespace"]).is_empty() {
                wrong.push(FieldError::required(format!("{field}.namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                wrong.push(FieldError::not_supported(
                    format!("{field}.apiGroup"),
                    group,
                    &[GROUP],
                ));
            }
        }
        other => wrong.push(FieldError::not_supported(
            format!("{field}.kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        )),
    }
    wrong
}

fn validate_binding_update(new: &Value, old: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut wrong = validate_binding(new, namespaced);
    let role = at(new, &["roleRef"]);
    if !value::same(role, at(old, &["roleRef"])) {
        // Shown as Kubernetes' own struct writes itself.
        let shown = json!({
            "APIGroup": text(role, &["apiGroup"]),
            "Kind": text(role, &["kind"]),
            "Name": text(role, &["name"]),
        });
        wrong.push(FieldError::invalid(
            "roleRef",
            &shown,
            "cannot change roleRef",
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
    fn rules_of_roles() {
        let rule = |rule: Value| json!({"rules": [rule]});
        let resource = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        assert!(bad_rules(&rule(resource), true).is_empty());
        let url = json!({"verbs": ["get"], "nonResourceURLs": ["/x"]});
        assert!(bad_rules(&rule(url.clone()), false).is_empty());
        assert_eq!(
            shown(&bad_rules(&rule(url), true)),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"
            ]
        );
        assert_eq!(
            shown(&bad_rules(&rule(json!({})), true)),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let mut binding = json!({
            "roleRef": {"kind": "Role", "name": "a"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}],
        });
        default_binding(&mut binding);
        assert_eq!(binding["subjects"][0]["apiGroup"], GROUP);
        assert!(validate_binding(&binding, true).is_empty());
        assert_eq!(
            shown(&validate_binding(&binding, false)),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[1].namespace: Required value",
            ]
        );
        let mut other = binding.clone();
        other["roleRef"]["name"] = "b".into();
        assert_eq!(
            shown(&validate_binding_update(&other, &binding, true)),
            [
                "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"b\"}: cannot change roleRef"
            ]
        );
    }
}
