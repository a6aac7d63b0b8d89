//! What a HorizontalPodAutoscaler must not say.

use serde_json::Value;

use super::autoscaler::to_stored;
use super::pod_spec::container_resource_name;
use super::pod_spec::findings::{Findings, Path};
use crate::field::FieldError;
use crate::names;
use crate::quantity::Quantity;
use crate::value::{at, list, number, remove, text};

/// Both versions.
fn bad_bounds(spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (min, max) = (at(spec, &["minReplicas"]), at(spec, &["maxReplicas"]));
    if min.as_i64().is_some_and(|n| n < 1) {
        let why = "must be greater than or equal to 1";
        wrong.push(FieldError::invalid("spec.minReplicas", min, why));
    }
    let most = max.as_i64().unwrap_or(0);
    if most < 1 {
        let why = "must be greater than 0";
        wrong.push(FieldError::invalid("spec.maxReplicas", &most.into(), why));
    }
    if min.as_i64().is_some_and(|n| most < n) {
        let why = "must be greater than or equal to `minReplicas`";
        wrong.push(FieldError::invalid("spec.maxReplicas", &most.into(), why));
    }
    wrong.extend(bad_reference(
        at(spec, &["scaleTargetRef"]),
        "spec.scaleTargetRef",
    ));
    wrong
}

fn bad_reference(reference: &Value, field: &str) -> Vec<FieldError> {
    ["kind", "name"]
        .into_iter()
        .flat_map(|key| bad_segment(text(reference, &[key]), &format!("{field}.{key}"), ""))
        .collect()
}

/// That a name is given, which can stand in a path.
fn bad_segment(name: &str, field: &str, missing: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(field, missing)];
    }
    names::path_segment(name)
        .into_iter()
        .map(|why| FieldError::invalid_text(field, name, why))
        .collect()
}

pub(super) fn validate_v1(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_bounds(spec);
    let target = at(spec, &["targetCPUUtilizationPercentage"]);
    if target.as_i64().is_some_and(|n| n < 1) {
        let field = "spec.targetCPUUtilizationPercentage";
        wrong.push(FieldError::invalid(field, target, "must be greater than 0"));
    }
    // What stands in annotations is held to what version 2 is.
    let mut stored = object.clone();
    if let Some(spec) = stored.get_mut("spec") {
        remove(spec, "targetCPUUtilizationPercentage");
    }
    to_stored(&mut stored);
    wrong.extend(bad_measures(at(&stored, &["spec"])));
    wrong
}

pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_bounds(spec);
    wrong.extend(bad_measures(spec));
    wrong
}

/// What is wrong with metrics and behavior.
fn bad_measures(spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for (i, metric) in list(spec, &["metrics"]).iter().enumerate() {
        wrong.extend(bad_metric(metric, &format!("spec.metrics[{i}]")));
    }
    for key in ["scaleUp", "scaleDown"] {
        let rules = at(spec, &["behavior", key]);
        if !rules.is_null() {
            wrong.extend(bad_rules(rules, &format!("spec.behavior.{key}")));
        }
    }
    wrong
}

const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn bad_metric(metric: &Value, field: &str) -> Vec<FieldError> {
    let kind = text(metric, &["type"]);
    if kind.is_empty() {
        return vec![FieldError::required(
            format!("{field}.type"),
            "must specify a metric source type",
        )];
    }
    let Some((_, source)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        let known: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
        return vec![FieldError::not_supported(
            format!("{field}.type"),
            kind,
            &known,
        )];
    };
    let mut wrong = Vec::new();
    let given = at(metric, &[source]);
    let path = format!("{field}.{source}");
    if given.is_null() {
        wrong.push(FieldError::required(
            path.clone(),
            "must populate information for the given metric source",
        ));
    }
    for (_, other) in SOURCES.iter().filter(|(name, _)| *name != kind) {
        if !at(metric, &[other]).is_null() {
            let why = "must populate the given metric source only";
            wrong.push(FieldError::forbidden(format!("{field}.{other}"), why));
        }
    }
    if given.is_null() {
        return wrong;
    }
    match *source {
        "resource" | "containerResource" => {
            let name = text(given, &["name"]);
            if name.is_empty() {
                wrong.push(FieldError::required(
                    format!("{path}.name"),
                    "must specify a resource name",
                ));
            }
            if *source == "containerResource" {
                wrong.extend(bad_container(name, text(given, &["container"]), &path));
            }
        }
        _ => {
            if *source == "object" {
                wrong.extend(bad_reference(
                    at(given, &["describedObject"]),
                    &format!("{path}.describedObject"),
                ));
            }
            wrong.extend(bad_segment(
                text(given, &["metric", "name"]),
                &format!("{path}.metric.name"),
                "must specify a metric name",
            ));
        }
    }
    wrong.extend(bad_target(at(given, &["target"]), &path, source));
    wrong
}

/// What is wrong with which resource of which container is measured.
fn bad_container(resource: &str, container: &str, path: &str) -> Vec<FieldError> {
    let (mut found, path) = (Findings::default(), Path::Root(path));
    if !resource.is_empty() {
        container_resource_name(resource, &path.child("name"), &mut found);
    }
    let here = path.child("container");
    if container.is_empty() {
        found.required(&here, "must specify a container");
    } else {
        found.against(&here, container, names::label(container));
    }
    found.into_vec()
}

fn bad_target(target: &Value, path: &str, source: &str) -> Vec<FieldError> {
    let field = format!("{path}.target");
    let mut wrong = Vec::new();
    let kind = text(target, &["type"]);
    if kind.is_empty() {
        wrong.push(FieldError::required(
            format!("{field}.type"),
            "must specify a metric target type",
        ));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        wrong.push(FieldError::invalid_text(
            format!("{field}.type"),
            kind,
            "must be either Utilization, Value, or AverageValue",
        ));
    }
    for key in ["value", "averageValue"] {
        let given = at(target, &[key]);
        let positive = given
            .as_str()
            .and_then(|t| Quantity::parse(t).ok())
            .is_none_or(|q| !q.is_zero() && !q.is_negative());
        if !positive {
            wrong.push(FieldError::invalid(
                format!("{field}.{key}"),
                given,
                "must be positive",
            ));
        }
    }
    let percent = at(target, &["averageUtilization"]);
    if percent.as_i64().is_some_and(|n| n < 1) {
        wrong.push(FieldError::invalid(
            format!("{field}.averageUtilization"),
            percent,
            "must be greater than 0",
        ));
    }
    let has = |key: &str| !at(target, &[key]).is_null();
    match source {
        "resource" | "containerResource" => {
            if !has("averageUtilization") && !has("averageValue") {
                let why = "must set either a target raw value or a target utilization";
                wrong.push(FieldError::required(
                    format!("{field}.averageUtilization"),
                    why,
                ));
            }
            if has("averageUtilization") && has("averageValue") {
                let why = "may not set both a target raw value and a target utilization";
                wrong.push(FieldError::forbidden(format!("{field}.averageValue"), why));
            }
        }
        "pods" if !has("averageValue") => {
            let why = "must specify a positive target averageValue";
            wrong.push(FieldError::required(format!("{field}.averageValue"), why));
        }
        "object" | "external" if !has("value") && !has("averageValue") => {
            let why = if source == "object" {
                "must set either a target value or averageValue"
            } else {
                "must set either a target value for metric or a per-pod target"
            };
            wrong.push(FieldError::required(format!("{field}.averageValue"), why));
        }
        "external" if has("value") && has("averageValue") => {
            let why = "may not set both a target value for metric and a per-pod target";
            wrong.push(FieldError::forbidden(format!("{field}.value"), why));
        }
        _ => {}
    }
    wrong
}

/// The longest window of stabilization, and the longest period of a policy, in seconds.
const WINDOW_MAX_SECS: i64 = 3600;
const PERIOD_MAX_SECS: i64 = 1800;

fn bad_rules(rules: &Value, field: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let window = at(rules, &["stabilizationWindowSeconds"]);
    let path = format!("{field}.stabilizationWindowSeconds");
    match window.as_i64() {
        Some(secs) if secs < 0 => {
            wrong.push(FieldError::invalid(
                path,
                window,
                "must be greater than or equal to zero",
            ));
        }
        Some(secs) if secs > WINDOW_MAX_SECS => {
            let why = format!("must be less than or equal to {WINDOW_MAX_SECS}");
            wrong.push(FieldError::invalid(path, window, why));
        }
        _ => {}
    }
    let select = text(rules, &["selectPolicy"]);
    if !matches!(select, "" | "Max" | "Min" | "Disabled") {
        let known = ["Disabled", "Max", "Min"];
        wrong.push(FieldError::not_supported(
            format!("{field}.selectPolicy"),
            select,
            &known,
        ));
    }
    let policies = list(rules, &["policies"]);
    if policies.is_empty() {
        wrong.push(FieldError::required(
            format!("{field}.policies"),
            "must specify at least one Policy",
        ));
    }
    let tolerance = at(rules, &["tolerance"]);
    if tolerance
        .as_str()
        .and_then(|t| Quantity::parse(t).ok())
        .is_some_and(|q| q.is_negative())
    {
        wrong.push(FieldError::invalid(
            format!("{field}.tolerance"),
            tolerance,
            "must be greater than or equal to 0",
        ));
    }
    for (i, policy) in policies.iter().enumerate() {
        let field = format!("{field}.policies[{i}]");
        let kind = text(policy, &["type"]);
        if !matches!(kind, "Pods" | "Percent") {
            wrong.push(FieldError::not_supported(
                format!("{field}.type"),
                kind,
                &["Percent", "Pods"],
            ));
        }
        for (key, max) in [("value", i64::MAX), ("periodSeconds", PERIOD_MAX_SECS)] {
            let given = number(policy, &[key]);
            if given < 1 {
                let why = "must be greater than zero";
                wrong.push(FieldError::invalid(
                    format!("{field}.{key}"),
                    &given.into(),
                    why,
                ));
            } else if given > max {
                let why = format!("must be less than or equal to {max}");
                wrong.push(FieldError::invalid(
                    format!("{field}.{key}"),
                    &given.into(),
                    why,
                ));
            }
        }
    }
    wrong
}
