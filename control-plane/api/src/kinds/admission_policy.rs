//! Admission policies and their bindings: rules in CEL over what is to be stored. Running them is the admission's
//! affair; here they are kept in order.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::label_selector::bad_selector;
use super::named_cells;
use super::webhooks::{bad_conditions, bad_rule, default_match, one_of};
use crate::field::{FieldError, quoted};
use crate::names;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column, typed};
use crate::value::{self, at, list, set_default, text};

const POLICY: Resource = Resource {
    group: "admissionregistration.k8s.io",
    categories: &["api-extensions"],
    namespaced: false,
    has_generation: true,
    unconditional_update: false,
    ..BASE
};

/// Policies that refuse.
pub(crate) static VALIDATING_ADMISSION_POLICIES: Resource = Resource {
    kind: "ValidatingAdmissionPolicy",
    list_kind: "ValidatingAdmissionPolicyList",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    subresources: &[STATUS],
    storage_prefix: "/registry/validatingadmissionpolicies",
    definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    columns: &[
        NAME,
        typed("Validations", "integer", "How many expressions must hold."),
        column("ParamKind", "What its parameters are."),
        AGE,
    ],
    cells: |object, now| policy_cells(object, "validations", now),
    default: default_policy,
    prepare_create: |object| value::set(object, "status", json!({})),
    prepare_status: crate::write::keep_said_metadata,
    validate: validate_validating,
    validate_update: |new, _| validate_validating(new),
    ..POLICY
};

/// Policies that change.
pub(crate) static MUTATING_ADMISSION_POLICIES: Resource = Resource {
    kind: "MutatingAdmissionPolicy",
    list_kind: "MutatingAdmissionPolicyList",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    storage_prefix: "/registry/mutatingadmissionpolicies",
    definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    columns: &[
        NAME,
        typed("Mutations", "integer", "How many changes it makes."),
        column("ParamKind", "What its parameters are."),
        AGE,
    ],
    cells: |object, now| policy_cells(object, "mutations", now),
    default: default_policy,
    validate: validate_mutating,
    validate_update: |new, _| validate_mutating(new),
    ..POLICY
};

/// Where policies that refuse hold.
pub(crate) static VALIDATING_ADMISSION_POLICY_BINDINGS: Resource = Resource {
    kind: "ValidatingAdmissionPolicyBinding",
    list_kind: "ValidatingAdmissionPolicyBindingList",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    storage_prefix: "/registry/validatingadmissionpolicybindings",
    definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    columns: BINDING_COLUMNS,
    cells: binding_cells,
    default: default_binding,
    validate: |object| {
        let mut wrong = validate_binding(object);
        wrong.extend(bad_actions(object));
        wrong
    },
    validate_update: |new, _| (VALIDATING_ADMISSION_POLICY_BINDINGS.validate)(new),
    ..POLICY
};

/// Where policies that change hold.
pub(crate) static MUTATING_ADMISSION_POLICY_BINDINGS: Resource = Resource {
    kind: "MutatingAdmissionPolicyBinding",
    list_kind: "MutatingAdmissionPolicyBindingList",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    storage_prefix: "/registry/mutatingadmissionpolicybindings",
    definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
    columns: BINDING_COLUMNS,
    cells: binding_cells,
    default: default_binding,
    validate: validate_binding,
    validate_update: |new, _| validate_binding(new),
    ..POLICY
};

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    column("PolicyName", "The policy that holds."),
    column("ParamRef", "Its parameters."),
    AGE,
];

fn policy_cells(object: &Value, key: &str, now: time::OffsetDateTime) -> Vec<Value> {
    let kind = at(object, &["spec", "paramKind"]);
    let shown = if kind.is_object() {
        format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"]))
    } else {
        "<unset>".to_owned()
    };
    let count = list(object, &["spec", key]).len();
    named_cells(object, [count.into(), shown.into()], now)
}

fn binding_cells(object: &Value, now: time::OffsetDateTime) -> Vec<Value> {
    let reference = at(object, &["spec", "paramRef"]);
    let shown = match (
        reference.is_object(),
        text(reference, &["namespace"]),
        text(reference, &["name"]),
    ) {
        (false, _, _) => "<unset>".to_owned(),
        (true, "", "") => "*".to_owned(),
        (true, namespace, "") => format!("{namespace}/*"),
        (true, "", name) => name.to_owned(),
        (true, namespace, name) => format!("{namespace}/{name}"),
    };
    let policy = text(object, &["spec", "policyName"]).into();
    named_cells(object, [policy, shown.into()], now)
}

fn default_policy(object: &mut Value) {
    if let Some(spec) = value::object_mut(object, "spec") {
        set_default(spec, "failurePolicy", "Fail");
        if let Some(resources) = spec
            .get_mut("matchConstraints")
            .filter(|resources| resources.is_object())
        {
            default_match(resources);
        }
    }
}

fn default_binding(object: &mut Value) {
    let resources = object
        .get_mut("spec")
        .and_then(|spec| spec.get_mut("matchResources"));
    if let Some(resources) = resources.filter(|resources| resources.is_object()) {
        default_match(resources);
    }
}

fn validate_validating(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = validate_policy(spec);
    let (validations, annotations) = (
        list(spec, &["validations"]),
        list(spec, &["auditAnnotations"]),
    );
    if validations.is_empty() && annotations.is_empty() {
        for key in ["validations", "auditAnnotations"] {
            wrong.push(FieldError::required(
                format!("spec.{key}"),
                "validations or auditAnnotations must contain at least one item",
            ));
        }
    }
    for (i, validation) in validations.iter().enumerate() {
        let path = format!("spec.validations[{i}]");
        if text(validation, &["expression"]).trim().is_empty() {
            wrong.push(FieldError::required(
                format!("{path}.expression"),
                "expression is not specified",
            ));
        }
        let message = text(validation, &["message"]);
        if !message.is_empty() && message.trim().is_empty() {
            wrong.push(FieldError::invalid_text(
                format!("{path}.message"),
                message,
                "message must be non-empty if specified",
            ));
        } else if message.contains('\n') {
            wrong.push(FieldError::invalid_text(
                format!("{path}.message"),
                message,
                "message must not contain line breaks",
            ));
        }
        wrong.extend(one_of(
            &format!("{path}.reason"),
            text(validation, &["reason"]),
            &[
                "Forbidden",
                "Invalid",
                "RequestEntityTooLarge",
                "Unauthorized",
            ],
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let key = text(annotation, &["key"]);
        let field = format!("spec.auditAnnotations[{i}].key");
        if !key.trim().is_empty() {
            for why in names::qualified_name(&format!("policy/{key}")) {
                wrong.push(FieldError::invalid_text(field.clone(), key, why));
            }
        }
        if !seen.insert(key) {
            wrong.push(FieldError::duplicate(field, crate::field::quoted(key)));
        }
        for key in ["key", "valueExpression"] {
            if text(annotation, &[key]).trim().is_empty() {
                wrong.push(FieldError::required(
                    format!("spec.auditAnnotations[{i}].{key}"),
                    "",
                ));
            }
        }
    }
    wrong
}

fn validate_mutating(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = validate_policy(spec);
    let policy = text(spec, &["reinvocationPolicy"]);
    if policy.is_empty() {
        wrong.push(FieldError::required("spec.reinvocationPolicy", ""));
    }
    wrong.extend(one_of(
        "spec.reinvocationPolicy",
        policy,
        &["IfNeeded", "Never"],
    ));
    let mutations = list(spec, &["mutations"]);
    if mutations.is_empty() {
        wrong.push(FieldError::required(
            "spec.mutations",
            "mutations must contain at least one item",
        ));
    }
    for (i, mutation) in mutations.iter().enumerate() {
        let path = format!("spec.mutations[{i}]");
        let (kind, key) = match text(mutation, &["patchType"]) {
            "" => {
                wrong.push(FieldError::required(format!("{path}.patchType"), ""));
                continue;
            }
            "ApplyConfiguration" => ("ApplyConfiguration", "applyConfiguration"),
            "JSONPatch" => ("JSONPatch", "jsonPatch"),
            other => {
                wrong.extend(one_of(
                    &format!("{path}.patchType"),
                    other,
                    &["ApplyConfiguration", "JSONPatch"],
                ));
                continue;
            }
        };
        if text(mutation, &[key, "expression"]).trim().is_empty() {
            wrong.push(FieldError::required(
                format!("{path}.{key}"),
                format!("must be specified when patchType is {kind}"),
            ));
        }
    }
    wrong
}

fn validate_policy(spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    wrong.extend(one_of(
        "spec.failurePolicy",
        text(spec, &["failurePolicy"]),
        &["Fail", "Ignore"],
    ));
    if at(spec, &["paramKind"]).is_object() {
        for key in ["apiVersion", "kind"] {
            if text(spec, &["paramKind", key]).is_empty() {
                wrong.push(FieldError::required(format!("spec.paramKind.{key}"), ""));
            }
        }
    }
    let constraints = at(spec, &["matchConstraints"]);
    if constraints.is_object() {
        if list(constraints, &["resourceRules"]).is_empty() {
            wrong.push(FieldError::required(
                "spec.matchConstraints.resourceRules",
                "",
            ));
        }
        wrong.extend(bad_match("spec.matchConstraints", constraints));
    } else {
        wrong.push(FieldError::required("spec.matchConstraints", ""));
    }
    wrong.extend(bad_conditions(
        "spec.matchConditions",
        at(spec, &["matchConditions"]),
    ));
    let mut seen = BTreeSet::new();
    for (i, variable) in list(spec, &["variables"]).iter().enumerate() {
        let path = format!("spec.variables[{i}]");
        let name = text(variable, &["name"]);
        if name.is_empty() {
            wrong.push(FieldError::required(
                format!("{path}.name"),
                "name is not specified",
            ));
        } else if !is_identifier(name) {
            wrong.push(FieldError::invalid_text(
                format!("{path}.name"),
                name,
                "name is not a valid CEL identifier",
            ));
        } else if !seen.insert(name) {
            wrong.push(FieldError::duplicate(format!("{path}.name"), quoted(name)));
        }
        if text(variable, &["expression"]).trim().is_empty() {
            wrong.push(FieldError::required(
                format!("{path}.expression"),
                "expression is not specified",
            ));
        }
    }
    wrong
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn bad_match(path: &str, resources: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    wrong.extend(one_of(
        &format!("{path}.matchPolicy"),
        text(resources, &["matchPolicy"]),
        &["Equivalent", "Exact"],
    ));
    for key in ["namespaceSelector", "objectSelector"] {
        wrong.extend(bad_selector(
            &format!("{path}.{key}"),
            at(resources, &[key]),
        ));
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in list(resources, &[key]).iter().enumerate() {
            wrong.extend(bad_rule(&format!("{path}.{key}[{i}]"), rule));
        }
    }
    wrong
}

fn validate_binding(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    let policy = text(spec, &["policyName"]);
    if policy.is_empty() {
        wrong.push(FieldError::required("spec.policyName", ""));
    } else {
        for why in names::subdomain(policy) {
            wrong.push(FieldError::invalid_text("spec.policyName", policy, why));
        }
    }
    let reference = at(spec, &["paramRef"]);
    if reference.is_object() {
        let (name, selector) = (text(reference, &["name"]), at(reference, &["selector"]));
        match (name.is_empty(), selector.is_null()) {
            (false, false) => {
                for key in ["name", "selector"] {
                    wrong.push(FieldError::forbidden(
                        format!("spec.paramRef.{key}"),
                        "name and selector are mutually exclusive",
                    ));
                }
            }
            (true, true) => wrong.push(FieldError::required(
                "spec.paramRef",
                "one of name or selector must be specified",
            )),
            _ => {}
        }
        let action = text(reference, &["parameterNotFoundAction"]);
        if action.is_empty() {
            wrong.push(FieldError::required(
                "spec.paramRef.parameterNotFoundAction",
                "",
            ));
        }
        wrong.extend(one_of(
            "spec.paramRef.parameterNotFoundAction",
            action,
            &["Deny", "Allow"],
        ));
    }
    if at(spec, &["matchResources"]).is_object() {
        wrong.extend(bad_match(
            "spec.matchResources",
            at(spec, &["matchResources"]),
        ));
    }
    wrong
}

fn bad_actions(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let actions = list(object, &["spec", "validationActions"]);
    if actions.is_empty() {
        wrong.push(FieldError::required("spec.validationActions", ""));
    }
    let mut seen = BTreeSet::new();
    for (i, action) in actions.iter().enumerate() {
        let action = action.as_str().unwrap_or("");
        let field = format!("spec.validationActions[{i}]");
        wrong.extend(one_of(&field, action, &["Audit", "Deny", "Warn"]));
        if !seen.insert(action) {
            wrong.push(FieldError::duplicate(field, quoted(action)));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        wrong.push(FieldError::invalid(
            "spec.validationActions",
            at(object, &["spec", "validationActions"]),
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        ));
    }
    wrong
}
