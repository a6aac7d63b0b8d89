//! Job.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::job_validation::{validate, validate_update};
use super::workload::default_template;
use super::workload::{
    CONTAINERS, IMAGES, SELECTOR, clear_status, containers, object_age, selector,
};
use crate::duration::{human, parse_time};
use crate::meta;
use crate::table::{AGE, BASE, Column, Field, NAME, Resource, STATUS, column};
use crate::value::{at, flag, items_mut, list, number, object_mut, set, set_default, text};

/// Jobs.
pub(crate) static JOBS: Resource = Resource {
    group: "batch",
    kind: "Job",
    list_kind: "JobList",
    plural: "jobs",
    singular: "job",
    categories: &["all"],
    subresources: &[STATUS],
    storage_prefix: "/registry/jobs",
    definition: "io.k8s.api.batch.v1.Job",
    has_generation: true,
    columns: COLUMNS,
    cells,
    fields: &[Field {
        label: "status.successful",
        get: |o| number(o, &["status", "succeeded"]).to_string(),
    }],
    default,
    warnings: super::pod_warnings::of_job,
    prepare_create,
    validate,
    validate_update,
    validate_status: Some(super::job_status::validate),
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "Whether it runs, or how it ended."),
    column("Completions", "Pods that succeeded, of how many."),
    column("Duration", "How long it ran."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let spec = at(object, &["spec"]);
    let (names, images) = containers(at(spec, &["template"]));
    let succeeded = number(object, &["status", "succeeded"]);
    let completions = match (
        at(spec, &["completions"]).as_i64(),
        number(spec, &["parallelism"]),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let time = |key: &str| parse_time(text(object, &["status", key]));
    let duration = time("startTime").map_or_else(String::new, |start| {
        human((time("completionTime").unwrap_or(now) - start).whole_seconds())
    });
    vec![
        meta::name(object).into(),
        state(object).into(),
        completions.into(),
        duration.into(),
        object_age(object, now),
        names,
        images,
        selector(at(spec, &["selector"])).into(),
    ]
}

fn state(object: &Value) -> &'static str {
    let holds = |kind: &str| {
        list(object, &["status", "conditions"])
            .iter()
            .any(|c| text(c, &["type"]) == kind && text(c, &["status"]) == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if meta::is_terminating(object) {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn default(object: &mut Value) {
    if let Some(spec) = object_mut(object, "spec") {
        default_template(spec, "template");
        if at(spec, &["completions"]).is_null() && at(spec, &["parallelism"]).is_null() {
            set(spec, "completions", 1);
        }
        set_default(spec, "parallelism", 1);
        let per_index = !at(spec, &["backoffLimitPerIndex"]).is_null();
        set_default(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
        set_default(spec, "completionMode", "NonIndexed");
        set_default(spec, "suspend", false);
        set_default(spec, "manualSelector", false);
        let policy = if at(spec, &["podFailurePolicy"]).is_null() {
            "TerminatingOrFailed"
        } else {
            "Failed"
        };
        set_default(spec, "podReplacementPolicy", policy);
        default_failure_policy(spec);
    }
    let labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
    if labels.as_object().is_some_and(|l| !l.is_empty())
        && let Some(metadata) = object_mut(object, "metadata")
    {
        set_default(metadata, "labels", labels);
    }
}

/// A condition of a Pod that says no status means `True`.
fn default_failure_policy(spec: &mut Value) {
    if let Some(policy) = spec.get_mut("podFailurePolicy").filter(|p| p.is_object()) {
        for rule in items_mut(policy, "rules") {
            for pattern in items_mut(rule, "onPodConditions") {
                set_default(pattern, "status", "True");
            }
        }
    }
}

/// The labels that tell a Job's Pods, by the old names and the new ones.
pub(super) const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
pub(super) const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

fn prepare_create(object: &mut Value) {
    clear_status(object);
    if flag(object, &["spec", "manualSelector"]) {
        return;
    }
    let (uid, name) = (meta::uid(object).to_owned(), meta::name(object).to_owned());
    if let Some(spec) = object_mut(object, "spec") {
        if let Some(template) = object_mut(spec, "template")
            && let Some(metadata) = object_mut(template, "metadata")
            && let Some(labels) = object_mut(metadata, "labels")
        {
            for (key, value) in UID_LABELS
                .map(|key| (key, &uid))
                .into_iter()
                .chain(NAME_LABELS.map(|key| (key, &name)))
            {
                set_default(labels, key, value.clone());
            }
        }
        if at(spec, &["selector"]).is_null() {
            set(spec, "selector", json!({}));
        }
        if let Some(selector) = object_mut(spec, "selector")
            && let Some(labels) = object_mut(selector, "matchLabels")
        {
            set_default(labels, UID_LABELS[1], uid);
        }
    }
}
