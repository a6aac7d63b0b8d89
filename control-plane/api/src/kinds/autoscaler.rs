//! HorizontalPodAutoscaler: v2, which is stored, and v1, which knows the use of the CPU alone and carries everything
//! else in annotations.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::autoscaler_metrics::{Which, is_behavior, to_v1, to_v2};
use super::autoscaler_validation::{validate, validate_v1};
use super::workload::object_age;
use crate::meta;
use crate::table::{AGE, BASE, Column, Conversion, NAME, Resource, STATUS, column};
use crate::value::{at, list, number, object_mut, remove, set, set_default, text};

/// HorizontalPodAutoscalers.
pub(crate) static AUTOSCALERS: Resource = Resource {
    version: "v2",
    definition: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    default,
    prepare_create: |object| {
        set(
            object,
            "status",
            json!({"currentMetrics": null, "desiredReplicas": 0}),
        );
    },
    validate,
    validate_update: |new, _| validate(new),
    ..BOTH
};

/// The same in version 1.
pub(crate) static AUTOSCALERS_V1: Resource = Resource {
    version: "v1",
    definition: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    default: |object| {
        if let Some(spec) = object_mut(object, "spec") {
            set_default(spec, "minReplicas", 1);
            if at(object, &["metadata", "annotations", METRICS]).is_null()
                && let Some(spec) = object_mut(object, "spec")
            {
                set_default(spec, "targetCPUUtilizationPercentage", USE_PERCENT);
            }
        }
    },
    prepare_create: |object| {
        set(
            object,
            "status",
            json!({"currentReplicas": 0, "desiredReplicas": 0}),
        );
    },
    validate: validate_v1,
    validate_update: |new, _| validate_v1(new),
    conversion: Some(Conversion {
        to_stored,
        from_stored,
    }),
    ..BOTH
};

const BOTH: Resource = Resource {
    group: "autoscaling",
    kind: "HorizontalPodAutoscaler",
    list_kind: "HorizontalPodAutoscalerList",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[STATUS],
    storage_prefix: "/registry/horizontalpodautoscalers",
    columns: COLUMNS,
    cells,
    validate_status: Some(super::workload_status::autoscaler),
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Reference", "What is made larger and smaller."),
    column("Targets", "What is measured, and what it should be."),
    column("MinPods", "The fewest Pods."),
    column("MaxPods", "The most Pods."),
    column("Replicas", "How many there are."),
    AGE,
];

/// Percent of the CPU asked for that are used where nothing else is wanted.
const USE_PERCENT: i64 = 80;
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn default(object: &mut Value) {
    let Some(spec) = object_mut(object, "spec") else {
        return;
    };
    set_default(spec, "minReplicas", 1);
    if list(spec, &["metrics"]).is_empty() {
        set(spec, "metrics", json!([cpu(USE_PERCENT)]));
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) else {
        return;
    };
    let fast = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    for (key, policies) in [
        ("scaleUp", vec![fast("Pods", 4), fast("Percent", 100)]),
        ("scaleDown", vec![fast("Percent", 100)]),
    ] {
        if let Some(rules) = object_mut(behavior, key) {
            set_default(rules, "selectPolicy", "Max");
            set_default(rules, "policies", policies);
            if key == "scaleUp" {
                set_default(rules, "stabilizationWindowSeconds", 0);
            }
        }
    }
}

fn cpu(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent},
    }})
}

/// Whether a metric is what version 1 has a field for.
fn is_cpu_use(metric: &Value) -> bool {
    text(metric, &["resource", "name"]) == "cpu"
        && at(metric, &["resource", "target", "averageUtilization"]).is_i64()
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    if let Some(metadata) = object_mut(object, "metadata")
        && let Some(annotations) = object_mut(metadata, "annotations")
    {
        set(annotations, key, value.to_string());
    }
}

/// What an annotation holds, which is taken off.
fn annotated(object: &mut Value, key: &str) -> Option<Value> {
    let metadata = object.get_mut("metadata")?;
    let annotations = metadata.get_mut("annotations")?;
    let text = remove(annotations, key)?;
    if annotations
        .as_object()
        .is_some_and(serde_json::Map::is_empty)
    {
        remove(metadata, "annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

pub(super) fn to_stored(object: &mut Value) {
    // What an annotation holds that cannot be read is as good as none.
    let mut metrics = match annotated(object, METRICS) {
        Some(Value::Array(all)) => to_v2(&all, Which::Wanted).unwrap_or_default(),
        _ => Vec::new(),
    };
    let target = object
        .get_mut("spec")
        .and_then(|spec| remove(spec, "targetCPUUtilizationPercentage"));
    metrics.extend(target.and_then(|t| t.as_i64()).map(cpu));
    let behavior = annotated(object, BEHAVIOR).filter(is_behavior);
    if let Some(spec) = object_mut(object, "spec") {
        set(spec, "metrics", metrics);
        if let Some(behavior) = behavior {
            set(spec, "behavior", behavior);
        }
    }
    let mut current = Vec::new();
    let used = object
        .get_mut("status")
        .and_then(|status| remove(status, "currentCPUUtilizationPercentage"));
    current.extend(used.map(|used| {
        json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}})
    }));
    // The annotation knows all of them, that one among them.
    if let Some(Value::Array(all)) = annotated(object, CURRENT)
        && let Some(all) = to_v2(&all, Which::Measured)
        && !all.is_empty()
    {
        current = all;
    }
    let conditions = annotated(object, CONDITIONS).filter(Value::is_array);
    if let Some(status) = object_mut(object, "status") {
        set(
            status,
            "currentMetrics",
            if current.is_empty() {
                Value::Null
            } else {
                current.into()
            },
        );
        if let Some(conditions) = conditions {
            set(status, "conditions", conditions);
        }
    }
    set(object, "apiVersion", "autoscaling/v2");
}

fn from_stored(object: &mut Value) {
    set(object, "apiVersion", "autoscaling/v1");
    let take = |object: &mut Value, part: &str, key: &str| {
        object
            .get_mut(part)
            .and_then(|p| remove(p, key))
            .filter(|v| !v.is_null())
    };
    if let Some(Value::Array(mut metrics)) = take(object, "spec", "metrics") {
        if let Some(i) = metrics.iter().position(is_cpu_use) {
            let mut metric = metrics.remove(i);
            let percent = metric["resource"]["target"]["averageUtilization"].take();
            if let Some(spec) = object_mut(object, "spec") {
                set(spec, "targetCPUUtilizationPercentage", percent);
            }
        }
        if !metrics.is_empty() {
            annotate(object, METRICS, &to_v1(&metrics, Which::Wanted).into());
        }
    }
    if let Some(behavior) = take(object, "spec", "behavior") {
        annotate(object, BEHAVIOR, &behavior);
    }
    if let Some(Value::Array(current)) = take(object, "status", "currentMetrics") {
        let used = |metric: &Value| {
            let percent = at(metric, &["resource", "current", "averageUtilization"]);
            let is_cpu = text(metric, &["resource", "name"]) == "cpu";
            percent.as_i64().filter(|_| is_cpu)
        };
        if let Some(percent) = current.iter().find_map(used)
            && let Some(status) = object_mut(object, "status")
        {
            set(status, "currentCPUUtilizationPercentage", percent);
        }
        if !current.is_empty() {
            annotate(object, CURRENT, &to_v1(&current, Which::Measured).into());
        }
    }
    if let Some(conditions) = take(object, "status", "conditions") {
        annotate(object, CONDITIONS, &conditions);
    }
    if let Some(status) = object_mut(object, "status") {
        set_default(status, "currentReplicas", 0);
        set_default(status, "desiredReplicas", 0);
    }
}

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let mut stored = object.clone();
    if text(object, &["apiVersion"]) == "autoscaling/v1" {
        to_stored(&mut stored);
    }
    let spec = at(&stored, &["spec"]);
    let (kind, name) = (
        text(spec, &["scaleTargetRef", "kind"]),
        text(spec, &["scaleTargetRef", "name"]),
    );
    let min = at(spec, &["minReplicas"]).as_i64();
    vec![
        meta::name(object).into(),
        format!("{kind}/{name}").into(),
        targets(&stored).into(),
        min.map_or_else(|| "<unset>".to_owned(), |n| n.to_string())
            .into(),
        number(spec, &["maxReplicas"]).into(),
        number(&stored, &["status", "currentReplicas"]).into(),
        object_age(object, now),
    ]
}

/// How many metrics are told; of the others, their number.
const TARGETS_MAX: usize = 2;

fn targets(object: &Value) -> String {
    let metrics = list(object, &["spec", "metrics"]);
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let current = list(object, &["status", "currentMetrics"]);
    let mut told: Vec<String> = metrics
        .iter()
        .enumerate()
        .take(TARGETS_MAX)
        .map(|(i, metric)| target(metric, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    if metrics.len() > TARGETS_MAX {
        told[TARGETS_MAX - 1] = format!(
            "{} + {} more...",
            told[TARGETS_MAX - 1],
            metrics.len() - TARGETS_MAX
        );
    }
    told.join(", ")
}

fn target(metric: &Value, current: &Value) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        other => other.as_i64().map(|n| n.to_string()),
    };
    let (source, named) = match text(metric, &["type"]) {
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "External" => ("external", false),
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, is) = (
        at(metric, &[source, "target"]),
        at(current, &[source, "current"]),
    );
    let unknown = || "<unknown>".to_owned();
    let name = text(metric, &[source, "name"]);
    for (key, suffix) in [
        ("averageValue", ""),
        ("averageUtilization", "%"),
        ("value", ""),
    ] {
        let Some(wanted) = shown(at(wanted, &[key])) else {
            continue;
        };
        let is = shown(at(is, &[key])).map_or_else(unknown, |is| format!("{is}{suffix}"));
        let average = !named && key == "averageValue" && source != "pods";
        let average = if average { " (avg)" } else { "" };
        let head = if named {
            format!("{name}: ")
        } else {
            String::new()
        };
        return format!("{head}{is}/{wanted}{suffix}{average}");
    }
    format!(
        "{}<unknown>/<auto>",
        if named {
            format!("{name}: ")
        } else {
            String::new()
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_annotations_is_held_to_version_2() {
        let wrong = |annotation: &str, text: &str| {
            let annotations = json!({annotation: text});
            let object = json!({
                "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "a", "annotations": annotations},
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 3},
            });
            let mut stored = object.clone();
            to_stored(&mut stored);
            let fields = validate_v1(&object);
            (
                fields.len(),
                stored["spec"]["metrics"].clone(),
                stored["spec"].get("behavior").cloned(),
            )
        };
        let good =
            r#"[{"type":"Resource","resource":{"name":"memory","targetAverageUtilization":30}}]"#;
        let (bad, metrics, _) = wrong(METRICS, good);
        assert_eq!(bad, 0);
        assert_eq!(metrics[0]["resource"]["target"]["averageUtilization"], 30);
        // What cannot be read is left out, as if it were not there.
        assert_eq!(wrong(METRICS, "[1]"), (0, json!([]), None));
        assert_eq!(wrong(BEHAVIOR, r#"{"scaleUp":"zz"}"#), (0, json!([]), None));
        let nothing = r#"[{"type":"Resource","resource":{"name":"memory"}}]"#;
        assert!(wrong(METRICS, nothing).0 > 0);
    }

    #[test]
    fn version_1_keeps_what_it_has_no_fields_for() {
        let mut stored = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {"b": "c"}},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "minReplicas": 1, "maxReplicas": 3,
                "metrics": [{"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}, cpu(50)],
                "behavior": {"scaleUp": {"selectPolicy": "Max"}},
            },
            "status": {
                "currentReplicas": 2, "desiredReplicas": 2,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "20m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let before = stored.clone();
        from_stored(&mut stored);
        assert_eq!(stored["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(stored["status"]["currentCPUUtilizationPercentage"], 40);
        assert!(stored["spec"].get("metrics").is_none());
        assert_eq!(
            stored["metadata"]["annotations"][METRICS],
            r#"[{"pods":{"metricName":"rps","targetAverageValue":"10"},"type":"Pods"}]"#
        );
        let row = cells(&stored, OffsetDateTime::UNIX_EPOCH);
        assert_eq!(row[2], "<unknown>/10, cpu: <unknown>/50%");
        to_stored(&mut stored);
        assert_eq!(stored, before);
    }
}
