//! CronJob.

use std::sync::LazyLock;

use serde_json::Value;
use time::OffsetDateTime;

use super::cron_schedule;
use super::job_validation::bad_spec;
use super::workload::{
    CONTAINERS, IMAGES, SELECTOR, bad_negatives, clear_status, containers, default_template,
    object_age, selector,
};
use crate::duration::age;
use crate::field::FieldError;
use crate::meta;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column};
use crate::value::{at, flag, list, object_mut, set_default, text};

/// CronJobs.
pub(crate) static CRON_JOBS: Resource = Resource {
    group: "batch",
    kind: "CronJob",
    list_kind: "CronJobList",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    subresources: &[STATUS],
    storage_prefix: "/registry/cronjobs",
    definition: "io.k8s.api.batch.v1.CronJob",
    has_generation: true,
    columns: COLUMNS,
    cells,
    default,
    warnings: super::pod_warnings::of_cron_job,
    prepare_create: clear_status,
    validate,
    validate_update: |new, old| {
        let mut wrong = validate(new);
        // The name can't change, so one that was too long once is left alone.
        if meta::name(old) == meta::name(new) {
            wrong.retain(|e| e.field != "metadata.name");
        }
        wrong
    },
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Schedule", "When it makes a Job, as cron(8) writes it."),
    column("Timezone", "Where the schedule's hours count."),
    Column {
        kind: "boolean",
        ..column("Suspend", "Whether it makes none for now.")
    },
    Column {
        kind: "integer",
        ..column("Active", "How many of its Jobs run.")
    },
    column("Last Schedule", "Time since it made one."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let spec = at(object, &["spec"]);
    let job = at(spec, &["jobTemplate", "spec"]);
    let (names, images) = containers(at(job, &["template"]));
    let last = at(object, &["status", "lastScheduleTime"]);
    let or_none = |text: String| {
        if text.is_empty() {
            "<none>".to_owned()
        } else {
            text
        }
    };
    vec![
        meta::name(object).into(),
        text(spec, &["schedule"]).into(),
        or_none(text(spec, &["timeZone"]).to_owned()).into(),
        if flag(spec, &["suspend"]) {
            "True"
        } else {
            "False"
        }
        .into(),
        list(object, &["status", "active"]).len().into(),
        if last.is_null() {
            "<none>".into()
        } else {
            age(last, now).into()
        },
        object_age(object, now),
        names,
        images,
        selector(at(job, &["selector"])).into(),
    ]
}

fn default(object: &mut Value) {
    let Some(spec) = object_mut(object, "spec") else {
        return;
    };
    set_default(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = object_mut(spec, "jobTemplate") {
        object_mut(template, "metadata");
        if let Some(job) = template.get_mut("spec") {
            default_template(job, "template");
        }
    }
}

/// The controller adds a suffix of eleven bytes to make names of Jobs.
const NAME_MAX: usize = 52;

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = Vec::new();
    let name = meta::name(object);
    if name.len() > NAME_MAX {
        let why = format!("must be no more than {NAME_MAX} characters");
        wrong.push(FieldError::invalid_text("metadata.name", name, why));
    }
    let schedule = text(spec, &["schedule"]);
    if schedule.is_empty() {
        wrong.push(FieldError::required("spec.schedule", ""));
    } else if schedule.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        wrong.push(FieldError::invalid_text("spec.schedule", schedule, why));
    } else if let Some(why) = cron_schedule::fault(schedule) {
        wrong.push(FieldError::invalid_text("spec.schedule", schedule, why));
    }
    if let Some(zone) = at(spec, &["timeZone"]).as_str()
        && let Some(why) = bad_zone(zone)
    {
        wrong.push(FieldError::invalid_text("spec.timeZone", zone, why));
    }
    wrong.extend(bad_negatives(spec, "spec", &["startingDeadlineSeconds"]));
    match text(spec, &["concurrencyPolicy"]) {
        "Allow" | "Forbid" | "Replace" => {}
        "" => wrong.push(FieldError::required("spec.concurrencyPolicy", "")),
        other => wrong.push(FieldError::not_supported(
            "spec.concurrencyPolicy",
            other,
            &["Allow", "Forbid", "Replace"],
        )),
    }
    let keys = ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    wrong.extend(bad_negatives(spec, "spec", &keys));
    let job = at(spec, &["jobTemplate", "spec"]);
    wrong.extend(bad_spec(job, "spec.jobTemplate.spec", true));
    wrong
}

/// The time zones of the IANA database, links included, sorted.
static ZONES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    include_str!("../../schema/time_zones.txt")
        .lines()
        .collect()
});

/// What is wrong with the name of a time zone.
fn bad_zone(zone: &str) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    let parts = |part: &str| {
        (1..=14).contains(&part.len()) && !part.starts_with('-') && part.chars().all(fine)
    };
    if zone.is_empty() {
        Some("timeZone must be nil or non-empty string".to_owned())
    } else if zone.eq_ignore_ascii_case("local") {
        Some(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
                .to_owned(),
        )
    } else if !zone.split('/').all(parts) || ZONES.binary_search(&zone).is_err() {
        Some(format!("unknown time zone {zone}"))
    } else {
        None
    }
}
