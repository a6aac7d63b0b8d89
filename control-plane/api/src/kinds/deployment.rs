//! Deployment.

use serde_json::Value;
use time::OffsetDateTime;

use super::workload::{
    CONTAINERS, IMAGES, SELECTOR, bad_amount, bad_change, bad_lasting_template, bad_match,
    bad_negatives, bad_percent, bad_required_selector, clear_status, containers, default_template,
    is_zero, object_age, selector,
};
use crate::field::FieldError;
use crate::meta;
use crate::scale::Scale;
use crate::table::{AGE, BASE, Column, NAME, Resource, SCALE, STATUS, column};
use crate::value::{at, number, object_mut, set_default, text};

/// Deployments.
pub(crate) static DEPLOYMENTS: Resource = Resource {
    group: "apps",
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage_prefix: "/registry/deployments",
    definition: "io.k8s.api.apps.v1.Deployment",
    has_generation: true,
    columns: COLUMNS,
    cells,
    default,
    warnings: super::pod_warnings::of_named_workload,
    prepare_create: clear_status,
    prepare_status: |new, old| crate::value::keep(&mut new["metadata"], &old["metadata"], "labels"),
    validate,
    validate_update,
    scale: Some(&Scale::WORKLOAD),
    validate_status: Some(super::workload_status::deployment),
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "Number of the Pod with ready state."),
    column(
        "Up-to-date",
        "Pods that are made from the template as it is now.",
    ),
    column(
        "Available",
        "Pods that have been ready for minReadySeconds.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let status = |key: &str| number(object, &["status", key]);
    let (names, images) = containers(at(object, &["spec", "template"]));
    let wanted = number(object, &["spec", "replicas"]);
    vec![
        meta::name(object).into(),
        format!("{}/{wanted}", status("readyReplicas")).into(),
        status("updatedReplicas").into(),
        status("availableReplicas").into(),
        object_age(object, now),
        names,
        images,
        selector(at(object, &["spec", "selector"])).into(),
    ]
}

fn default(object: &mut Value) {
    let Some(spec) = object_mut(object, "spec") else {
        return;
    };
    default_template(spec, "template");
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = object_mut(spec, "strategy") {
        if text(strategy, &["type"]).is_empty() {
            crate::value::set(strategy, "type", "RollingUpdate");
        }
        if text(strategy, &["type"]) == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_negatives(spec, "spec", &["replicas"]);
    wrong.extend(bad_required_selector(spec, "deployment"));
    wrong.extend(bad_match(spec));
    let template = at(spec, &["template"]);
    wrong.extend(bad_lasting_template(
        template,
        "spec.template",
        "ReplicaSet",
    ));
    wrong.extend(bad_strategy(at(spec, &["strategy"])));
    let keys = [
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ];
    wrong.extend(bad_negatives(spec, "spec", &keys));
    let deadline = at(spec, &["progressDeadlineSeconds"]);
    if deadline
        .as_i64()
        .is_some_and(|secs| secs <= number(spec, &["minReadySeconds"]))
    {
        let why = "must be greater than minReadySeconds";
        wrong.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            why,
        ));
    }
    wrong
}

fn bad_strategy(strategy: &Value) -> Vec<FieldError> {
    let field = "spec.strategy.rollingUpdate";
    let rolling = at(strategy, &["rollingUpdate"]);
    match text(strategy, &["type"]) {
        "Recreate" if rolling.is_null() => Vec::new(),
        "Recreate" => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            vec![FieldError::forbidden(field, why)]
        }
        "RollingUpdate" => {
            let (unavailable, surge) =
                (at(rolling, &["maxUnavailable"]), at(rolling, &["maxSurge"]));
            let path = format!("{field}.maxUnavailable");
            let mut wrong: Vec<FieldError> = bad_amount(unavailable, &path).into_iter().collect();
            wrong.extend(bad_amount(surge, &format!("{field}.maxSurge")));
            if is_zero(unavailable) && is_zero(surge) {
                let why = "may not be 0 when `maxSurge` is 0";
                wrong.push(FieldError::invalid(path.clone(), unavailable, why));
            }
            wrong.extend(bad_percent(unavailable, &path));
            wrong
        }
        other => vec![FieldError::not_supported(
            "spec.strategy.type",
            other,
            &["Recreate", "RollingUpdate"],
        )],
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = validate(new);
    wrong.extend(bad_change(new, old, &["spec", "selector"], "spec.selector"));
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
        }});
        change(&mut object);
        default(&mut object);
        object
    }

    #[test]
    fn what_must_not_be_said() {
        type Change = fn(&mut Value);
        let table: &[(Change, &str)] = &[
            (|_| {}, ""),
            (
                |o| o["spec"]["replicas"] = json!(-1),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                |o| o["spec"]["selector"] = json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            ),
            (
                |o| o["spec"]["template"]["metadata"]["labels"] = json!({"a": "c"}),
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
            ),
            (
                |o| o["spec"]["template"]["spec"]["restartPolicy"] = json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                |o| {
                    o["spec"]["strategy"] =
                        json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}});
                },
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                |o| o["spec"]["strategy"] = json!({"type": "Recreate", "rollingUpdate": {}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                |o| o["spec"]["progressDeadlineSeconds"] = json!(0),
                "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
            ),
            (
                |o| o["spec"]["template"]["spec"]["containers"] = json!([]),
                "spec.template.spec.containers: Required value",
            ),
        ];
        for (change, wanted) in table {
            let found: Vec<String> = validate(&deployment(change))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found.join("\n"), *wanted);
        }
    }

    #[test]
    fn what_is_filled_in() {
        let spec = deployment(|_| {})["spec"].take();
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    }
}
