//! LimitRange: how much each object of a namespace may take.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod_spec::findings::{Findings, Path};
use super::pod_spec::{container_resource_name, resource_name};
use super::{amount_text, created_at};
use crate::field::{FieldError, quoted};
use crate::names;
use crate::quantity::Quantity;
use crate::table::{BASE, CREATED_AT, NAME, Resource};
use crate::value::{self, at, entries, list, text};

/// How much each object may take.
pub(crate) static LIMIT_RANGES: Resource = Resource {
    kind: "LimitRange",
    list_kind: "LimitRangeList",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    storage_prefix: "/registry/limitranges",
    definition: "io.k8s.api.core.v1.LimitRange",
    create_on_update: true,
    columns: &[NAME, CREATED_AT],
    cells: created_at,
    default: default_limits,
    validate: validate_limits,
    validate_update: |new, _| validate_limits(new),
    ..BASE
};

/// A container gets as its default limit the most that it may take, and asks by default for its default limit, or
/// for the least that it may.
fn default_limits(object: &mut Value) {
    let Some(spec) = value::object_mut(object, "spec") else {
        return;
    };
    value::null_if_empty(spec, "limits");
    for limit in value::items_mut(spec, "limits") {
        if text(limit, &["type"]) != "Container" {
            continue;
        }
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            let source = at(limit, &[from]).clone();
            let Some(source) = source.as_object().filter(|source| !source.is_empty()) else {
                continue;
            };
            if let Some(target) = value::object_mut(limit, to) {
                for (name, amount) in source {
                    value::set_default(target, name, amount.clone());
                }
            }
        }
    }
}

const LIMIT_KINDS: &[&str] = &[
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];

fn validate_limits(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut kinds = BTreeSet::new();
    for (i, limit) in list(object, &["spec", "limits"]).iter().enumerate() {
        let path = format!("spec.limits[{i}]");
        let kind = text(limit, &["type"]);
        if kind.is_empty() {
            wrong.push(FieldError::required(format!("{path}.type"), ""));
        } else {
            for why in names::qualified_name(kind) {
                wrong.push(FieldError::invalid_text(format!("{path}.type"), kind, why));
            }
            let standard = ["Container", "Pod", "PersistentVolumeClaim"].contains(&kind);
            if !standard && !kind.contains('/') {
                let why = "must be a standard limit type or fully qualified";
                wrong.push(FieldError::invalid_text(format!("{path}.type"), kind, why));
            }
        }
        if !kinds.insert(kind) {
            wrong.push(FieldError::duplicate(format!("{path}.type"), quoted(kind)));
        }
        if kind == "Pod" {
            for (key, why) in [
                ("default", "may not be specified when `type` is 'Pod'"),
                (
                    "defaultRequest",
                    "may not be specified when `type` is 'Pod'",
                ),
            ] {
                if !value::is_empty(at(limit, &[key])) {
                    wrong.push(FieldError::forbidden(format!("{path}.{key}"), why));
                }
            }
        }
        if kind == "PersistentVolumeClaim"
            && at(limit, &["min", "storage"]).is_null()
            && at(limit, &["max", "storage"]).is_null()
        {
            wrong.push(FieldError::required(
                format!("{path}.limits"),
                "either minimum or maximum storage value is required, but neither was provided",
            ));
        }
        let mut found = Findings::default();
        for key in LIMIT_KINDS {
            let here = format!("{path}.{key}");
            let here = Path::Root(&here);
            for (name, _) in entries(limit, &[key]) {
                match kind {
                    "Container" => container_resource_name(name, &here.key(name), &mut found),
                    "Pod" if !key.starts_with("default") => {
                        container_resource_name(name, &here.key(name), &mut found);
                    }
                    "Pod" => {}
                    _ => resource_name(name, &here.key(name), &mut found),
                }
            }
        }
        wrong.extend(found.into_vec());
        let names: BTreeSet<&String> = LIMIT_KINDS
            .iter()
            .flat_map(|key| entries(limit, &[key]).map(|(name, _)| name))
            .collect();
        for name in names {
            wrong.extend(bad_limit(&path, limit, name));
        }
    }
    wrong
}

/// Least, default request, default limit and most must come in this order.
fn bad_limit(path: &str, limit: &Value, name: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let shown = |key: &str| amount_text(at(limit, &[key, name]));
    let read = |key: &str| Quantity::parse(&shown(key)).ok();
    // Lower bound, upper bound, the field that is named, the value that is shown, and what both are called.
    #[rustfmt::skip]
    let orders = [
        ("min", "max", "min", "min", "min value", "max value"),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min value", "default request value"),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request value", "max value"),
        ("defaultRequest", "default", "defaultRequest", "defaultRequest", "default request value", "default limit value"),
        ("min", "default", "default", "min", "min value", "default value"),
        ("default", "max", "default", "max", "default value", "max value"),
    ];
    for (low, high, field, value, lower, upper) in orders {
        if let (Some(least), Some(most)) = (read(low), read(high))
            && least > most
        {
            wrong.push(FieldError::invalid_text(
                format!("{path}.{field}[{name}]"),
                &shown(value),
                format!(
                    "{lower} {} is greater than {upper} {}",
                    shown(low),
                    shown(high)
                ),
            ));
        }
    }
    let ratio = read("maxLimitRequestRatio");
    let one = Quantity::parse("1").ok();
    if ratio.is_some() && ratio < one {
        wrong.push(FieldError::invalid_text(
            format!("{path}.maxLimitRequestRatio[{name}]"),
            &shown("maxLimitRequestRatio"),
            format!("ratio {} is less than 1", shown("maxLimitRequestRatio")),
        ));
    }
    if let (Some(ratio), Some(least), Some(most)) = (ratio, read("min"), read("max")) {
        let bound = most.nanos() as f64 / least.nanos() as f64;
        if ratio.nanos() as f64 / 1e9 > bound {
            wrong.push(FieldError::invalid_text(
                format!("{path}.maxLimitRequestRatio[{name}]"),
                &shown("maxLimitRequestRatio"),
                format!(
                    "ratio {} is greater than max/min = {bound:.6}",
                    shown("maxLimitRequestRatio")
                ),
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(wrong: &[FieldError]) -> Vec<String> {
        wrong.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_ratio_that_bounds_rule_out_is_refused() {
        let limit = |ratio: &str| json!({"max": {"memory": "2Gi"}, "min": {"memory": "512Mi"}, "maxLimitRequestRatio": {"memory": ratio}});
        assert_eq!(
            shown(&bad_limit("spec.limits[0]", &limit("10"), "memory")),
            [
                "spec.limits[0].maxLimitRequestRatio[memory]: Invalid value: \"10\": ratio 10 is greater than max/min = 4.000000"
            ]
        );
        for ratio in ["4", "1500m"] {
            assert!(bad_limit("spec.limits[0]", &limit(ratio), "memory").is_empty());
        }
    }

    #[test]
    fn containers_get_defaults_from_bounds() {
        let mut range = json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Mi"}},
        ]}});
        default_limits(&mut range);
        let limit = &range["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "2"}));
        assert_eq!(
            limit["defaultRequest"],
            json!({"cpu": "2", "memory": "1Mi"})
        );
        assert!(validate_limits(&range).is_empty());
    }

    #[test]
    fn names_are_of_what_is_limited() {
        for (kind, name, why) in [
            ("Container", "cpu", None),
            ("Container", "example.com/gpu", None),
            (
                "Pod",
                "storage",
                Some("must be a standard resource for containers"),
            ),
            ("PersistentVolumeClaim", "storage", None),
            (
                "PersistentVolumeClaim",
                "foo",
                Some("must be a standard resource type or fully qualified"),
            ),
        ] {
            let range = json!({"spec": {"limits": [{"type": kind, "max": {name: "1", "storage": "1"}, "min": {"storage": "1"}}]}});
            let said = shown(&validate_limits(&range));
            let wanted = why
                .map(|why| format!("spec.limits[0].max[{name}]: Invalid value: \"{name}\": {why}"));
            match wanted {
                Some(wanted) => assert!(said.contains(&wanted), "{said:?}"),
                None => assert!(
                    !said.iter().any(|s| s.contains(&format!("max[{name}]"))),
                    "{said:?}"
                ),
            }
        }
    }

    #[test]
    fn bounds_in_disorder() {
        let range = json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}});
        assert_eq!(
            shown(&validate_limits(&range)),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
            ]
        );
    }
}
