//! What a Job must not say, and what may change in it.

use serde_json::Value;

use super::job::{NAME_LABELS, UID_LABELS};
use super::workload::{
    IMMUTABLE, bad_change, bad_match, bad_negatives, bad_selector, bad_template,
};
use crate::field::FieldError;
use crate::meta;
use crate::value::{at, flag, keep, list, number, object_mut, text};

/// The most Pods that an indexed Job runs at once, and the most completions with a limit of failures per index.
const PARALLELISM_MAX: i64 = 100_000;

pub(crate) fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = bad_generated_selector(object);
    let spec = at(object, &["spec"]);
    wrong.extend(bad_spec(spec, "spec", false));
    if at(spec, &["selector"]).is_null() {
        wrong.push(FieldError::required("spec.selector", ""));
    } else {
        wrong.extend(bad_selector(at(spec, &["selector"]), "spec.selector"));
    }
    wrong.extend(bad_match(spec));
    wrong
}

/// That the labels made by the server are what it made.
fn bad_generated_selector(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    if flag(spec, &["manualSelector"]) || at(spec, &["selector"]).is_null() {
        return wrong;
    }
    let labels = at(spec, &["template", "metadata", "labels"]);
    for (keys, value) in [
        (UID_LABELS, meta::uid(object)),
        (NAME_LABELS, meta::name(object)),
    ] {
        for key in keys {
            let given = text(labels, &[key]);
            if given != value {
                let field = format!("spec.template.metadata.labels[{key}]");
                let why = format!("must be '{value}'");
                wrong.push(FieldError::invalid_text(field, given, why));
            }
        }
    }
    wrong
}

/// The spec of a Job, or of those that a CronJob makes.
pub(super) fn bad_spec(spec: &Value, field: &str, made_by_cron: bool) -> Vec<FieldError> {
    let keys = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    let mut wrong = bad_negatives(spec, field, &keys);
    let indexed = text(spec, &["completionMode"]) == "Indexed";
    match text(spec, &["completionMode"]) {
        "Indexed" => {
            if at(spec, &["completions"]).is_null() {
                let why = "when completion mode is Indexed";
                wrong.push(FieldError::required(format!("{field}.completions"), why));
            }
            if number(spec, &["parallelism"]) > PARALLELISM_MAX {
                let why = format!(
                    "must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed"
                );
                let given = at(spec, &["parallelism"]);
                wrong.push(FieldError::invalid(
                    format!("{field}.parallelism"),
                    given,
                    why,
                ));
            }
        }
        "NonIndexed" | "" => {}
        other => wrong.push(FieldError::not_supported(
            format!("{field}.completionMode"),
            other,
            &["NonIndexed", "Indexed"],
        )),
    }
    for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        if !indexed && !at(spec, &[key]).is_null() {
            let why = "requires indexed completion mode";
            wrong.push(FieldError::invalid(
                format!("{field}.{key}"),
                at(spec, &[key]),
                why,
            ));
        }
    }
    if !at(spec, &["maxFailedIndexes"]).is_null() && at(spec, &["backoffLimitPerIndex"]).is_null() {
        let why = "when maxFailedIndexes is specified";
        wrong.push(FieldError::required(
            format!("{field}.backoffLimitPerIndex"),
            why,
        ));
    }
    match text(spec, &["podReplacementPolicy"]) {
        "" | "Failed" => {}
        "TerminatingOrFailed" if at(spec, &["podFailurePolicy"]).is_null() => {}
        other => wrong.push(FieldError::not_supported(
            format!("{field}.podReplacementPolicy"),
            other,
            if at(spec, &["podFailurePolicy"]).is_null() {
                &["Failed", "TerminatingOrFailed"]
            } else {
                &["Failed"]
            },
        )),
    }
    if made_by_cron && flag(spec, &["manualSelector"]) {
        let field = format!("{field}.manualSelector");
        wrong.push(FieldError::not_supported_shown(
            field,
            "true".to_owned(),
            &["nil", "false"],
        ));
    }
    let template = at(spec, &["template"]);
    let path = format!("{field}.template");
    wrong.extend(bad_template(template, &path));
    let policy_field = format!("{path}.spec.restartPolicy");
    wrong.retain(|e| e.field != policy_field);
    match text(template, &["spec", "restartPolicy"]) {
        "OnFailure" | "Never" => {}
        "" | "Always" => {
            let why = "valid values: \"OnFailure\", \"Never\"";
            wrong.push(FieldError::required(policy_field, why));
        }
        other => wrong.push(FieldError::not_supported(
            policy_field,
            other,
            &["OnFailure", "Never"],
        )),
    }
    wrong.extend(bad_failure_policy(spec, field));
    wrong
}

fn bad_failure_policy(spec: &Value, field: &str) -> Vec<FieldError> {
    let policy = at(spec, &["podFailurePolicy"]);
    let mut wrong = Vec::new();
    if policy.is_null() {
        return wrong;
    }
    let restart = text(spec, &["template", "spec", "restartPolicy"]);
    if restart != "Never" {
        wrong.push(FieldError::invalid_text(
            format!("{field}.template.spec.restartPolicy"),
            restart,
            "only \"Never\" is supported when podFailurePolicy is specified",
        ));
    }
    for (i, rule) in list(policy, &["rules"]).iter().enumerate() {
        let field = format!("{field}.podFailurePolicy.rules[{i}]");
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        match text(rule, &["action"]) {
            "" => wrong.push(FieldError::required(
                format!("{field}.action"),
                format!("valid values: {actions:?}"),
            )),
            action if actions.contains(&action) => {}
            other => wrong.push(FieldError::not_supported(
                format!("{field}.action"),
                other,
                &actions,
            )),
        }
        let codes = at(rule, &["onExitCodes"]);
        let conditions = list(rule, &["onPodConditions"]);
        match (codes.is_null(), conditions.is_empty()) {
            (true, true) => {
                let why = "specifying one of OnExitCodes and OnPodConditions is required";
                wrong.push(FieldError::invalid(field, &Value::Null, why));
            }
            (false, false) => {
                let why = "specifying both OnExitCodes and OnPodConditions is not supported";
                wrong.push(FieldError::invalid(field, &Value::Null, why));
            }
            (false, true) => match text(codes, &["operator"]) {
                "In" | "NotIn" => {}
                other => wrong.push(FieldError::not_supported(
                    format!("{field}.onExitCodes.operator"),
                    other,
                    &["In", "NotIn"],
                )),
            },
            (true, false) => {}
        }
    }
    wrong
}

pub(crate) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = validate(new);
    let (before, after) = (at(old, &["spec"]), at(new, &["spec"]));
    // An indexed Job may be made larger or smaller together with its parallelism.
    let elastic = text(after, &["completionMode"]) == "Indexed"
        && at(after, &["completions"]) == at(after, &["parallelism"]);
    if !elastic {
        wrong.extend(bad_change(
            after,
            before,
            &["completions"],
            "spec.completions",
        ));
    }
    for key in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        wrong.extend(bad_change(after, before, &[key], &format!("spec.{key}")));
    }
    let mut template = at(after, &["template"]).clone();
    // Where nothing runs yet, what decides on placement may still change.
    if flag(before, &["suspend"]) && at(old, &["status", "startTime"]).is_null() {
        let was = at(before, &["template"]);
        keep(&mut template, was, "metadata");
        if let Some(spec) = object_mut(&mut template, "spec") {
            for key in ["affinity", "nodeSelector", "tolerations", "schedulingGates"] {
                keep(spec, at(was, &["spec"]), key);
            }
        }
    }
    if template != *at(before, &["template"]) {
        wrong.push(FieldError::invalid(
            "spec.template",
            at(after, &["template"]),
            IMMUTABLE,
        ));
    }
    wrong
}
