//! DaemonSet.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::workload::{
    CONTAINERS, IMAGES, SELECTOR, bad_amount, bad_change, bad_lasting_template, bad_match,
    bad_negatives, bad_percent, bad_required_selector, containers, default_template, is_zero,
    labels, object_age, selector,
};
use crate::field::FieldError;
use crate::meta;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column};
use crate::value::{at, number, object_mut, set, set_default, text};

/// DaemonSets.
pub(crate) static DAEMON_SETS: Resource = Resource {
    group: "apps",
    kind: "DaemonSet",
    list_kind: "DaemonSetList",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[STATUS],
    storage_prefix: "/registry/daemonsets",
    definition: "io.k8s.api.apps.v1.DaemonSet",
    has_generation: true,
    columns: COLUMNS,
    cells,
    default,
    warnings: super::pod_warnings::of_workload,
    prepare_create,
    prepare_update,
    validate,
    validate_update: |new, old| {
        let mut wrong = validate(new);
        wrong.extend(bad_change(new, old, &["spec", "selector"], "spec.selector"));
        wrong
    },
    validate_status: Some(super::workload_status::daemon_set),
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    integer("Desired", "Nodes that should run it."),
    integer("Current", "Nodes that run it and should."),
    integer("Ready", "Nodes on which it is ready."),
    integer("Up-to-date", "Nodes that run it as the template is now."),
    integer(
        "Available",
        "Nodes on which it has been ready for minReadySeconds.",
    ),
    column("Node Selector", "Labels of the Nodes that should run it."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const fn integer(name: &'static str, description: &'static str) -> Column {
    Column {
        kind: "integer",
        ..column(name, description)
    }
}

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let status = |key: &str| Value::from(number(object, &["status", key]));
    let template = at(object, &["spec", "template"]);
    let (names, images) = containers(template);
    vec![
        meta::name(object).into(),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        labels(at(template, &["spec", "nodeSelector"])).into(),
        object_age(object, now),
        names,
        images,
        selector(at(object, &["spec", "selector"])).into(),
    ]
}

fn default(object: &mut Value) {
    if let Some(spec) = object_mut(object, "spec") {
        default_template(spec, "template");
        set_default(spec, "revisionHistoryLimit", 10);
        if let Some(strategy) = object_mut(spec, "updateStrategy") {
            set_default(strategy, "type", "RollingUpdate");
            if text(strategy, &["type"]) == "RollingUpdate"
                && let Some(rolling) = object_mut(strategy, "rollingUpdate")
            {
                set_default(rolling, "maxUnavailable", 1);
                set_default(rolling, "maxSurge", 0);
            }
        }
    }
}

fn prepare_create(object: &mut Value) {
    let status = json!({
        "currentNumberScheduled": 0,
        "desiredNumberScheduled": 0,
        "numberMisscheduled": 0,
        "numberReady": 0,
    });
    set(object, "status", status);
    let given = generation(object);
    set_generation(object, given.max(1));
}

/// Counts the changes of the template. The field for it is gone from the API, its annotation is not.
const GENERATION: &str = "deprecated.daemonset.template.generation";

fn generation(object: &Value) -> i64 {
    let text = text(object, &["metadata", "annotations", GENERATION]);
    text.parse().unwrap_or(0)
}

fn set_generation(object: &mut Value, generation: i64) {
    if let Some(metadata) = object_mut(object, "metadata")
        && let Some(annotations) = object_mut(metadata, "annotations")
    {
        set(annotations, GENERATION, generation.to_string());
    }
}

fn prepare_update(new: &mut Value, old: &Value) {
    let path = ["spec", "template"];
    let changed = at(new, &path) != at(old, &path);
    set_generation(
        new,
        generation(old).max(1).saturating_add(i64::from(changed)),
    );
}

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_required_selector(spec, "daemonset");
    wrong.extend(bad_match(spec));
    let template = at(spec, &["template"]);
    wrong.extend(bad_lasting_template(template, "spec.template", "DaemonSet"));
    wrong.extend(bad_negatives(spec, "spec", &["minReadySeconds"]));
    wrong.extend(bad_update_strategy(at(spec, &["updateStrategy"])));
    wrong.extend(bad_negatives(spec, "spec", &["revisionHistoryLimit"]));
    wrong
}

fn bad_update_strategy(strategy: &Value) -> Vec<FieldError> {
    let field = "spec.updateStrategy.rollingUpdate";
    match text(strategy, &["type"]) {
        "OnDelete" => Vec::new(),
        "RollingUpdate" => {
            let rolling = at(strategy, &["rollingUpdate"]);
            if rolling.is_null() {
                return vec![FieldError::required(field, "")];
            }
            let (unavailable, surge) =
                (at(rolling, &["maxUnavailable"]), at(rolling, &["maxSurge"]));
            let (path, surges) = (
                format!("{field}.maxUnavailable"),
                format!("{field}.maxSurge"),
            );
            let mut wrong: Vec<FieldError> = bad_amount(unavailable, &path).into_iter().collect();
            wrong.extend(bad_amount(surge, &surges));
            match (is_zero(unavailable), is_zero(surge)) {
                (true, true) => {
                    let why = "cannot be 0 when maxSurge is 0";
                    wrong.push(FieldError::invalid(path.clone(), unavailable, why));
                }
                (false, false) => {
                    let why = "may not be set when maxUnavailable is non-zero";
                    wrong.push(FieldError::invalid(surges.clone(), surge, why));
                }
                _ => {}
            }
            wrong.extend(bad_percent(unavailable, &path));
            wrong.extend(bad_percent(surge, &surges));
            wrong
        }
        other => vec![FieldError::not_supported(
            "spec.updateStrategy.type",
            other,
            &["RollingUpdate", "OnDelete"],
        )],
    }
}
