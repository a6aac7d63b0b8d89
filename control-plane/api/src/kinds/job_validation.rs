//! What a Job must not say, and what may change in it.

use serde_json::Value;

use super::job::{NAME_LABELS, UID_LABELS};
use super::job_policies::{bad_failure_policy, bad_success_policy};
use super::workload::{
    IMMUTABLE, bad_change, bad_match, bad_negatives, bad_selector, bad_template,
};
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::selector::LabelSelector;
use crate::value::{at, flag, keep, number, object_mut, text};

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
    let mut made = serde_json::Map::new();
    for (keys, value) in [
        (UID_LABELS, meta::uid(object)),
        (NAME_LABELS, meta::name(object)),
    ] {
        made.extend(keys.map(|key| (key.to_owned(), value.into())));
    }
    let selector = at(spec, &["selector"]);
    if LabelSelector::from_object(selector).is_some_and(|s| !s.matches(&made.into())) {
        let why = "`selector` not auto-generated";
        wrong.push(FieldError::invalid("spec.selector", selector, why));
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
    if !at(spec, &["maxFailedIndexes"]).is_null() && at(spec, &["backoffLimitPerIndex"]).is_null() {
        let why = "when maxFailedIndexes is specified";
        wrong.push(FieldError::required(
            format!("{field}.backoffLimitPerIndex"),
            why,
        ));
    }
    wrong.extend(bad_manager(spec, field));
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
            wrong.extend(bad_failed_indexes(spec, field));
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
    wrong.extend(bad_failure_policy(spec, field));
    wrong.extend(bad_success_policy(spec, field));
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
    let template = at(spec, &["template"]);
    let path = format!("{field}.template");
    wrong.extend(bad_template(template, &path));
    let policy_field = format!("{path}.spec.restartPolicy");
    wrong.retain(|e| e.field != policy_field);
    match text(template, &["spec", "restartPolicy"]) {
        "" | "Always" => {
            let why = "valid values: \"OnFailure\", \"Never\"";
            wrong.push(FieldError::required(policy_field, why));
        }
        "OnFailure" if !at(spec, &["podFailurePolicy"]).is_null() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            wrong.push(FieldError::invalid_text(policy_field, "OnFailure", why));
        }
        "OnFailure" | "Never" => {}
        other => wrong.push(FieldError::not_supported(
            policy_field,
            other,
            &["OnFailure", "Never"],
        )),
    }
    if made_by_cron {
        wrong.extend(bad_cron_selector(spec, field));
    }
    wrong
}

/// Jobs that a CronJob makes get their selector from the server.
fn bad_cron_selector(spec: &Value, field: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let selector = at(spec, &["selector"]);
    if !selector.is_null() {
        let why = "`selector` will be auto-generated";
        wrong.push(FieldError::invalid(
            format!("{field}.selector"),
            selector,
            why,
        ));
    }
    if flag(spec, &["manualSelector"]) {
        wrong.push(FieldError::not_supported_shown(
            format!("{field}.manualSelector"),
            "true".to_owned(),
            &["nil", "false"],
        ));
    }
    wrong
}

/// The most bytes in `managedBy`.
const MANAGER_MAX: usize = 63;

/// Another controller than the server's own is named as `example.com/name`.
fn bad_manager(spec: &Value, field: &str) -> Vec<FieldError> {
    let field = format!("{field}.managedBy");
    let mut wrong = Vec::new();
    let Some(manager) = at(spec, &["managedBy"]).as_str() else {
        return wrong;
    };
    match manager.split_once('/') {
        _ if manager.is_empty() => wrong.push(FieldError::required(field.clone(), "")),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            for why in names::subdomain(host) {
                wrong.push(FieldError::invalid_text(field.clone(), host, why));
            }
        }
        _ => wrong.push(FieldError::invalid_text(
            field.clone(),
            manager,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        )),
    }
    if manager.len() > MANAGER_MAX {
        wrong.push(FieldError::too_long(field, MANAGER_MAX));
    }
    wrong
}

/// Limits of an indexed Job with very many completions, each of which has its own limit of failures.
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const MANY_AT_ONCE_MAX: i64 = 10_000;

fn bad_failed_indexes(spec: &Value, field: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let given = |key: &str| at(spec, &[key]).as_i64();
    let mut invalid = |key: &str, why: String| {
        wrong.push(FieldError::invalid(
            format!("{field}.{key}"),
            at(spec, &[key]),
            why,
        ));
    };
    let (completions, failed) = (given("completions"), given("maxFailedIndexes"));
    if let (Some(completions), Some(failed)) = (completions, failed)
        && failed > completions
    {
        let why = "must be less than or equal to completions";
        invalid("maxFailedIndexes", why.to_owned());
    }
    if failed.is_some_and(|failed| failed > PARALLELISM_MAX) {
        let why = format!("must be less than or equal to {PARALLELISM_MAX}");
        invalid("maxFailedIndexes", why);
    }
    let many = completions.is_some_and(|completions| completions > COMPLETIONS_SOFT_MAX);
    if !many || given("backoffLimitPerIndex").is_none() {
        return wrong;
    }
    for key in ["parallelism", "maxFailedIndexes"] {
        if given(key).is_some_and(|n| n > MANY_AT_ONCE_MAX) {
            let why = format!(
                "must be less than or equal to {MANY_AT_ONCE_MAX} when completions are above {COMPLETIONS_SOFT_MAX} and used with backoff limit per index"
            );
            invalid(key, why);
        }
    }
    if failed.is_none() {
        let why = format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}");
        wrong.push(FieldError::required(
            format!("{field}.maxFailedIndexes"),
            why,
        ));
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
