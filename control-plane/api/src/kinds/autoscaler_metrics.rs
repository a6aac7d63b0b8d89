//! What a HorizontalPodAutoscaler measures, in the words of version 1: there it stands in annotations, since that version has
//! a field for the use of the CPU alone.

use serde_json::{Map, Value, json};

use crate::value::{at, text};

/// A kind of metric: its name, and the field that holds it.
const RESOURCE: (&str, &str) = ("Resource", "resource");
const CONTAINER_RESOURCE: (&str, &str) = ("ContainerResource", "containerResource");
const PODS: (&str, &str) = ("Pods", "pods");
const OBJECT: (&str, &str) = ("Object", "object");
const EXTERNAL: (&str, &str) = ("External", "external");
const ALL: [(&str, &str); 5] = [RESOURCE, CONTAINER_RESOURCE, PODS, OBJECT, EXTERNAL];

/// Whether a metric is wanted or was measured: the fields differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// An element of `spec.metrics`.
    Wanted,
    /// An element of `status.currentMetrics`.
    Measured,
}

impl Which {
    /// The field of version 2 that holds numbers.
    fn holder(self) -> &'static str {
        match self {
            Which::Wanted => "target",
            Which::Measured => "current",
        }
    }

    /// The fields of version 1 for an average use in percent, an average, and a value.
    fn fields(self) -> [&'static str; 3] {
        match self {
            Which::Wanted => [
                "targetAverageUtilization",
                "targetAverageValue",
                "targetValue",
            ],
            Which::Measured => [
                "currentAverageUtilization",
                "currentAverageValue",
                "currentValue",
            ],
        }
    }
}

/// Metrics of version 1 as version 2 has them; `None` where one of them is none.
pub(super) fn to_v2(metrics: &[Value], which: Which) -> Option<Vec<Value>> {
    metrics
        .iter()
        .map(|metric| one_to_v2(metric, which))
        .collect()
}

/// Metrics of version 2 as version 1 has them. What they do not hold is not there either.
pub(super) fn to_v1(metrics: &[Value], which: Which) -> Vec<Value> {
    metrics
        .iter()
        .map(|metric| one_to_v1(metric, which))
        .collect()
}

fn one_to_v2(metric: &Value, which: Which) -> Option<Value> {
    let kind = metric.get("type")?.as_str()?;
    let field = ALL
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, field)| *field);
    let mut made = Map::new();
    made.insert("type".to_owned(), kind.into());
    // What is of no kind that is known is for validation to refuse.
    let Some(field) = field else {
        return Some(made.into());
    };
    let Some(old) = metric.get(field).filter(|old| !old.is_null()) else {
        return Some(made.into());
    };
    let old = old.as_object()?;
    let [percent, average, value] = which.fields();
    let string = |key: &str| match old.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text.clone())),
        Some(_) => None,
    };
    let quantity = |key: &str| match old.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(held @ (Value::String(_) | Value::Number(_))) => Some(Some(held.clone())),
        Some(_) => None,
    };
    let percent = match old.get(percent) {
        None | Some(Value::Null) => None,
        Some(held) => Some(held.as_i64()?),
    };
    let average_key = if field == OBJECT.1 {
        "averageValue"
    } else {
        average
    };
    let (average, mut value) = (quantity(average_key)?, quantity(value)?);
    let mut new = Map::new();
    match field {
        "resource" | "containerResource" => {
            value = None;
            new.insert(
                "name".to_owned(),
                string("name")?.unwrap_or_default().into(),
            );
            if field == CONTAINER_RESOURCE.1 {
                let container = string("container")?.unwrap_or_default();
                new.insert("container".to_owned(), container.into());
            }
        }
        _ => {
            let selector = if field == EXTERNAL.1 {
                "metricSelector"
            } else {
                "selector"
            };
            let mut named = json!({"name": string("metricName")?.unwrap_or_default()});
            match old.get(selector) {
                None | Some(Value::Null) => {}
                Some(selector @ Value::Object(_)) => named["selector"] = selector.clone(),
                Some(_) => return None,
            }
            new.insert("metric".to_owned(), named);
        }
    }
    if field == PODS.1 {
        value = None;
    }
    if field == OBJECT.1 {
        let described = old.get("target").cloned().unwrap_or_else(|| json!({}));
        if !described.is_object() {
            return None;
        }
        new.insert("describedObject".to_owned(), described);
        // Version 1 cannot leave the value out.
        let is_zero = |held: &Value| held == "0" || held == 0;
        if average.is_some() && value.as_ref().is_some_and(is_zero) {
            value = None;
        }
    }
    let mut numbers = Map::new();
    if which == Which::Wanted {
        let wanted = if percent.is_some() {
            "Utilization"
        } else if average.is_some() || matches!(field, "resource" | "containerResource" | "pods") {
            "AverageValue"
        } else {
            "Value"
        };
        numbers.insert("type".to_owned(), wanted.into());
    }
    let held = [
        ("averageUtilization", percent.map(Value::from)),
        ("averageValue", average),
        ("value", value),
    ];
    for (key, held) in held {
        if let Some(held) = held {
            numbers.insert(key.to_owned(), held);
        }
    }
    new.insert(which.holder().to_owned(), numbers.into());
    made.insert(field.to_owned(), new.into());
    Some(made.into())
}

fn one_to_v1(metric: &Value, which: Which) -> Value {
    let kind = text(metric, &["type"]);
    let mut made = json!({"type": kind});
    let Some((_, field)) = ALL.iter().find(|(name, _)| *name == kind) else {
        return made;
    };
    let new = at(metric, &[field]);
    if !new.is_object() {
        return made;
    }
    let numbers = at(new, &[which.holder()]);
    let [percent, average, value] = which.fields();
    let zero = || Value::from("0");
    let or_zero = |held: &Value| match held {
        Value::Null => zero(),
        held => held.clone(),
    };
    let (held_percent, held_average, held_value) = (
        at(numbers, &["averageUtilization"]),
        at(numbers, &["averageValue"]),
        at(numbers, &["value"]),
    );
    let mut old = Map::new();
    let mut put = |key: &str, held: Value| {
        if !held.is_null() {
            old.insert(key.to_owned(), held);
        }
    };
    if matches!(*field, "resource" | "containerResource") {
        put("name", at(new, &["name"]).clone());
        put("container", at(new, &["container"]).clone());
        put(percent, held_percent.clone());
        // What was measured has an average in any case.
        let average_held = match which {
            Which::Wanted => held_average.clone(),
            Which::Measured => or_zero(held_average),
        };
        put(average, average_held);
    } else {
        put("metricName", at(new, &["metric", "name"]).clone());
        let selector = if *field == EXTERNAL.1 {
            "metricSelector"
        } else {
            "selector"
        };
        put(selector, at(new, &["metric", "selector"]).clone());
        match *field {
            "pods" => put(average, or_zero(held_average)),
            "object" => {
                put("target", at(new, &["describedObject"]).clone());
                put(value, or_zero(held_value));
                put("averageValue", held_average.clone());
            }
            _ => {
                let value_held = match which {
                    Which::Wanted => held_value.clone(),
                    Which::Measured => or_zero(held_value),
                };
                put(value, value_held);
                put(average, held_average.clone());
            }
        }
    }
    made[*field] = old.into();
    made
}

/// Whether an annotation holds a behavior: rules for either direction.
pub(super) fn is_behavior(behavior: &Value) -> bool {
    let whole = |held: &Value| held.is_null() || held.is_i64() || held.is_u64();
    let string = |held: &Value| held.is_null() || held.is_string();
    let is_policy = |policy: &Value| {
        policy.is_object()
            && string(&policy["type"])
            && whole(&policy["value"])
            && whole(&policy["periodSeconds"])
    };
    let is_rules = |rules: &Value| match rules {
        Value::Null => true,
        Value::Object(_) => {
            string(&rules["selectPolicy"])
                && whole(&rules["stabilizationWindowSeconds"])
                && match &rules["policies"] {
                    Value::Null => true,
                    Value::Array(policies) => policies.iter().all(is_policy),
                    _ => false,
                }
        }
        _ => false,
    };
    behavior.is_object() && is_rules(&behavior["scaleUp"]) && is_rules(&behavior["scaleDown"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_metric_has_its_words_in_either_version() {
        let table = [
            (
                json!({"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 30}}),
                json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 30}}}),
            ),
            (
                json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "targetAverageValue": "1Gi"}}),
                json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}),
            ),
            (
                json!({"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "10", "selector": {"matchLabels": {"a": "b"}}}}),
                json!({"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "10"}}}),
            ),
            (
                json!({"type": "Object", "object": {"target": {"kind": "Ingress", "name": "i"}, "metricName": "rps", "targetValue": "5"}}),
                json!({"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "rps"}, "target": {"type": "Value", "value": "5"}}}),
            ),
            (
                json!({"type": "Object", "object": {"target": {"kind": "Ingress", "name": "i"}, "metricName": "rps", "targetValue": "0", "averageValue": "5"}}),
                json!({"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "5"}}}),
            ),
            (
                json!({"type": "External", "external": {"metricName": "queue", "metricSelector": {"matchLabels": {"q": "1"}}, "targetAverageValue": "3"}}),
                json!({"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "1"}}}, "target": {"type": "AverageValue", "averageValue": "3"}}}),
            ),
        ];
        for (old, new) in table {
            let made = to_v2(std::slice::from_ref(&old), Which::Wanted);
            assert_eq!(made, Some(vec![new.clone()]));
            assert_eq!(to_v1(&[new], Which::Wanted), [old]);
        }
        let old = json!({"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 40, "currentAverageValue": "0"}});
        let new = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "0"}}});
        let made = to_v2(std::slice::from_ref(&old), Which::Measured);
        assert_eq!(made, Some(vec![new.clone()]));
        assert_eq!(to_v1(&[new], Which::Measured), [old]);
    }

    #[test]
    fn what_is_no_metric_and_no_behavior_is_told() {
        for wrong in [
            json!(1),
            json!({"resource": {}}),
            json!({"type": "Resource", "resource": "memory"}),
            json!({"type": "Resource", "resource": {"name": 1}}),
            json!({"type": "Pods", "pods": {"targetAverageValue": []}}),
        ] {
            assert_eq!(
                to_v2(std::slice::from_ref(&wrong), Which::Wanted),
                None,
                "{wrong}"
            );
        }
        for (behavior, is_one) in [
            (json!({"scaleUp": {"selectPolicy": "Max"}}), true),
            (json!({}), true),
            (json!({"scaleUp": "zz"}), false),
            (json!({"scaleDown": {"policies": [1]}}), false),
            (json!([]), false),
        ] {
            assert_eq!(is_behavior(&behavior), is_one, "{behavior}");
        }
    }
}
