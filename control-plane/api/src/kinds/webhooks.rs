//! Webhook configurations: who is asked over HTTPS before an object is stored.

use std::collections::BTreeSet;

use serde_json::Value;

use super::label_selector::bad_selector;
use super::named_cells;
use crate::field::{FieldError, quoted};
use crate::names;
use crate::table::{AGE, BASE, Column, NAME, Resource, typed};
use crate::value::{at, items_mut, list, object_mut, set_default, text};
use crate::webhook_client;

const GROUP: &str = "admissionregistration.k8s.io";

const WEBHOOKS: Resource = Resource {
    group: GROUP,
    categories: &["api-extensions"],
    namespaced: false,
    has_generation: true,
    unconditional_update: false,
    columns: COLUMNS,
    cells: |object, now| named_cells(object, [list(object, &["webhooks"]).len().into()], now),
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    typed("Webhooks", "integer", "How many are asked."),
    AGE,
];

/// Webhooks that may change an object.
pub(crate) static MUTATING_WEBHOOK_CONFIGURATIONS: Resource = Resource {
    kind: "MutatingWebhookConfiguration",
    list_kind: "MutatingWebhookConfigurationList",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    storage_prefix: "/registry/mutatingwebhookconfigurations",
    definition: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    default: |object| {
        default_webhooks(object);
        for webhook in items_mut(object, "webhooks") {
            set_default(webhook, "reinvocationPolicy", "Never");
        }
    },
    validate: |object| {
        let mut wrong = validate(object);
        for (i, webhook) in list(object, &["webhooks"]).iter().enumerate() {
            wrong.extend(one_of(
                &format!("webhooks[{i}].reinvocationPolicy"),
                text(webhook, &["reinvocationPolicy"]),
                &["IfNeeded", "Never"],
            ));
        }
        wrong
    },
    validate_update: |new, _| (MUTATING_WEBHOOK_CONFIGURATIONS.validate)(new),
    ..WEBHOOKS
};

/// Webhooks that may refuse an object.
pub(crate) static VALIDATING_WEBHOOK_CONFIGURATIONS: Resource = Resource {
    kind: "ValidatingWebhookConfiguration",
    list_kind: "ValidatingWebhookConfigurationList",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    storage_prefix: "/registry/validatingwebhookconfigurations",
    definition: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    default: default_webhooks,
    validate,
    validate_update: |new, _| validate(new),
    ..WEBHOOKS
};

fn default_webhooks(object: &mut Value) {
    for webhook in items_mut(object, "webhooks") {
        set_default(webhook, "failurePolicy", "Fail");
        set_default(webhook, "matchPolicy", "Equivalent");
        object_mut(webhook, "namespaceSelector");
        object_mut(webhook, "objectSelector");
        set_default(webhook, "timeoutSeconds", 10);
        if let Some(service) = webhook
            .get_mut("clientConfig")
            .and_then(|client| client.get_mut("service"))
            .filter(|service| service.is_object())
        {
            set_default(service, "port", 443);
        }
        for rule in items_mut(webhook, "rules") {
            set_default(rule, "scope", "*");
        }
    }
}

/// Fills which requests a policy or its binding is for.
pub(super) fn default_match(resources: &mut Value) {
    set_default(resources, "matchPolicy", "Equivalent");
    for key in ["namespaceSelector", "objectSelector"] {
        object_mut(resources, key);
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for rule in items_mut(resources, key) {
            set_default(rule, "scope", "*");
        }
    }
}

/// The refusal of a text that is given and is none of these.
pub(super) fn one_of(field: &str, given: &str, known: &[&str]) -> Option<FieldError> {
    (!given.is_empty() && !known.contains(&given))
        .then(|| FieldError::not_supported(field, given, known))
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, webhook) in list(object, &["webhooks"]).iter().enumerate() {
        let path = format!("webhooks[{i}]");
        wrong.extend(bad_webhook(&path, webhook));
        let name = text(webhook, &["name"]);
        if !name.is_empty() && !seen.insert(name) {
            wrong.push(FieldError::duplicate(format!("{path}.name"), quoted(name)));
        }
    }
    wrong
}

fn bad_webhook(path: &str, webhook: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let versions = list(webhook, &["admissionReviewVersions"]);
    let field = format!("{path}.admissionReviewVersions");
    if versions.is_empty() {
        wrong.push(FieldError::required(
            field,
            "must specify one of v1, v1beta1",
        ));
    } else if !versions
        .iter()
        .any(|version| version == "v1" || version == "v1beta1")
    {
        wrong.push(FieldError::invalid(
            field,
            at(webhook, &["admissionReviewVersions"]),
            "must include at least one of v1, v1beta1",
        ));
    }
    let name = text(webhook, &["name"]);
    wrong.extend(bad_qualified(&format!("{path}.name"), name));
    for (i, rule) in list(webhook, &["rules"]).iter().enumerate() {
        wrong.extend(bad_rule(&format!("{path}.rules[{i}]"), rule));
    }
    let policy = text(webhook, &["failurePolicy"]);
    wrong.extend(one_of(
        &format!("{path}.failurePolicy"),
        policy,
        &["Fail", "Ignore"],
    ));
    wrong.extend(one_of(
        &format!("{path}.matchPolicy"),
        text(webhook, &["matchPolicy"]),
        &["Equivalent", "Exact"],
    ));
    let effects = text(webhook, &["sideEffects"]);
    let field = format!("{path}.sideEffects");
    if effects.is_empty() {
        wrong.push(FieldError::required(
            field,
            "must specify one of None, NoneOnDryRun",
        ));
    } else {
        wrong.extend(one_of(&field, effects, &["None", "NoneOnDryRun"]));
    }
    let seconds = at(webhook, &["timeoutSeconds"]);
    if seconds
        .as_i64()
        .is_some_and(|seconds| !(1..=30).contains(&seconds))
    {
        wrong.push(FieldError::invalid(
            format!("{path}.timeoutSeconds"),
            seconds,
            "the timeout value must be between 1 and 30 seconds",
        ));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        wrong.extend(bad_selector(&format!("{path}.{key}"), at(webhook, &[key])));
    }
    wrong.extend(webhook_client::check(
        &format!("{path}.clientConfig"),
        at(webhook, &["clientConfig"]),
    ));
    wrong.extend(bad_conditions(
        &format!("{path}.matchConditions"),
        at(webhook, &["matchConditions"]),
    ));
    wrong
}

fn bad_qualified(field: &str, name: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(field, "")];
    }
    let wrong: Vec<FieldError> = names::subdomain(name)
        .into_iter()
        .map(|why| FieldError::invalid_text(field, name, why))
        .collect();
    if wrong.is_empty() && name.split('.').count() < 3 {
        return vec![FieldError::invalid_text(
            field,
            name,
            "should be a domain with at least three segments separated by dots",
        )];
    }
    wrong
}

/// What is wrong with which operations and resources a rule is for.
pub(super) fn bad_rule(path: &str, rule: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let operations = list(rule, &["operations"]);
    if operations.is_empty() {
        wrong.push(FieldError::required(format!("{path}.operations"), ""));
    }
    if operations.len() > 1 && operations.iter().any(|operation| operation == "*") {
        wrong.push(FieldError::invalid(
            format!("{path}.operations"),
            at(rule, &["operations"]),
            "if '*' is present, must not specify other operations",
        ));
    }
    for (i, operation) in operations.iter().enumerate() {
        wrong.extend(one_of(
            &format!("{path}.operations[{i}]"),
            operation.as_str().unwrap_or(""),
            &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"],
        ));
    }
    for (key, what) in [("apiGroups", "groups"), ("apiVersions", "versions")] {
        let items = list(rule, &[key]);
        let field = format!("{path}.{key}");
        if items.is_empty() {
            wrong.push(FieldError::required(field, ""));
            continue;
        }
        if items.len() > 1 && items.iter().any(|item| item == "*") {
            let shown = if what == "groups" {
                "API groups"
            } else {
                "API versions"
            };
            wrong.push(FieldError::invalid(
                field.clone(),
                at(rule, &[key]),
                format!("if '*' is present, must not specify other {shown}"),
            ));
        }
        if what == "versions" {
            for (i, item) in items.iter().enumerate() {
                if item.as_str() == Some("") {
                    wrong.push(FieldError::required(format!("{field}[{i}]"), ""));
                }
            }
        }
    }
    let resources = list(rule, &["resources"]);
    if resources.is_empty() {
        wrong.push(FieldError::required(format!("{path}.resources"), ""));
    }
    if resources.len() > 1 && resources.iter().any(|resource| resource == "*/*") {
        wrong.push(FieldError::invalid(
            format!("{path}.resources"),
            at(rule, &["resources"]),
            "if '*/*' is present, must not specify other resources",
        ));
    }
    wrong.extend(one_of(
        &format!("{path}.scope"),
        text(rule, &["scope"]),
        &["*", "Cluster", "Namespaced"],
    ));
    wrong
}

/// What is wrong with a list of conditions in CEL, the language itself apart.
pub(super) fn bad_conditions(path: &str, conditions: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let conditions = list(conditions, &[]);
    if conditions.len() > 64 {
        wrong.push(FieldError::too_many(path, conditions.len(), 64));
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        if text(condition, &["expression"]).trim().is_empty() {
            wrong.push(FieldError::required(format!("{path}[{i}].expression"), ""));
        }
        let name = text(condition, &["name"]);
        let field = format!("{path}[{i}].name");
        if name.is_empty() {
            wrong.push(FieldError::required(field, ""));
            continue;
        }
        for why in names::qualified_name(name) {
            wrong.push(FieldError::invalid_text(field.clone(), name, why));
        }
        if !seen.insert(name) {
            wrong.push(FieldError::duplicate(field, quoted(name)));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_webhook_is_filled_and_fit() {
        let mut configuration = json!({"webhooks": [{
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "a", "namespace": "b"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        }]});
        (MUTATING_WEBHOOK_CONFIGURATIONS.default)(&mut configuration);
        let webhook = &configuration["webhooks"][0];
        assert_eq!(webhook["timeoutSeconds"], 10);
        assert_eq!(webhook["rules"][0]["scope"], "*");
        assert_eq!(webhook["clientConfig"]["service"]["port"], 443);
        assert!((MUTATING_WEBHOOK_CONFIGURATIONS.validate)(&configuration).is_empty());
        let bare = json!({"webhooks": [{"name": "a"}]});
        let faults: Vec<String> = validate(&bare).iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
                "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ]
        );
    }
}
