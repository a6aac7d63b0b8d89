//! When a Job counts as failed or as succeeded: the policies of its spec, and the indexes that they name.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::names;
use crate::value::{at, list, number, text};

const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;
const INDEXES_MAX: usize = 64 * 1024;

/// What is wrong with `podFailurePolicy` of the spec at `field`.
pub(super) fn bad_failure_policy(spec: &Value, field: &str) -> Vec<FieldError> {
    let policy = at(spec, &["podFailurePolicy"]);
    let mut wrong = Vec::new();
    if policy.is_null() {
        return wrong;
    }
    let path = format!("{field}.podFailurePolicy.rules");
    let rules = list(policy, &["rules"]);
    if rules.len() > RULES_MAX {
        wrong.push(FieldError::too_many(path.clone(), rules.len(), RULES_MAX));
    }
    let pod = at(spec, &["template", "spec"]);
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|key| list(pod, &[key]))
        .map(|container| text(container, &["name"]))
        .collect();
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("{path}[{i}]");
        wrong.extend(bad_action(spec, rule, &format!("{path}.action")));
        let codes = at(rule, &["onExitCodes"]);
        let conditions = list(rule, &["onPodConditions"]);
        if !codes.is_null() {
            wrong.extend(bad_codes(
                codes,
                &format!("{path}.onExitCodes"),
                &containers,
            ));
        }
        wrong.extend(bad_patterns(conditions, &format!("{path}.onPodConditions")));
        let why = match (codes.is_null(), conditions.is_empty()) {
            (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            _ => continue,
        };
        wrong.push(FieldError::invalid_unshown(path, why));
    }
    wrong
}

fn bad_action(spec: &Value, rule: &Value, field: &str) -> Option<FieldError> {
    let known = ["Count", "FailIndex", "FailJob", "Ignore"];
    match text(rule, &["action"]) {
        "" => Some(FieldError::required(
            field,
            format!("valid values: {known:?}"),
        )),
        "FailIndex" if at(spec, &["backoffLimitPerIndex"]).is_null() => {
            let why = "requires the backoffLimitPerIndex to be set";
            Some(FieldError::invalid_text(field, "FailIndex", why))
        }
        action if known.contains(&action) => None,
        other => Some(FieldError::not_supported(field, other, &known)),
    }
}

fn bad_codes(codes: &Value, field: &str, containers: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let known = ["In", "NotIn"];
    let operator = text(codes, &["operator"]);
    let path = format!("{field}.operator");
    if operator.is_empty() {
        wrong.push(FieldError::required(
            path,
            format!("valid values: {known:?}"),
        ));
    } else if !known.contains(&operator) {
        wrong.push(FieldError::not_supported(path, operator, &known));
    }
    if let Some(name) = at(codes, &["containerName"]).as_str()
        && !containers.contains(name)
    {
        let why = "must be one of the container or initContainer names in the pod template";
        wrong.push(FieldError::invalid_text(
            format!("{field}.containerName"),
            name,
            why,
        ));
    }
    let path = format!("{field}.values");
    let values = list(codes, &["values"]);
    if values.is_empty() {
        let why = "at least one value is required";
        wrong.push(FieldError::invalid(
            path.clone(),
            at(codes, &["values"]),
            why,
        ));
    } else if values.len() > CODES_MAX {
        wrong.push(FieldError::too_many(path.clone(), values.len(), CODES_MAX));
    }
    let mut seen = BTreeSet::new();
    for (j, code) in values.iter().enumerate() {
        let path = format!("{path}[{j}]");
        if operator == "In" && code.as_i64() == Some(0) {
            let why = "must not be 0 for the In operator";
            wrong.push(FieldError::invalid(path.clone(), code, why));
        }
        if !seen.insert(code.as_i64()) {
            wrong.push(FieldError::duplicate(path, code.to_string()));
        }
    }
    let ordered = values
        .windows(2)
        .all(|pair| pair[0].as_i64() <= pair[1].as_i64());
    if !ordered {
        wrong.push(FieldError::invalid(
            path,
            at(codes, &["values"]),
            "must be ordered",
        ));
    }
    wrong
}

fn bad_patterns(patterns: &[Value], field: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if patterns.len() > RULES_MAX {
        wrong.push(FieldError::too_many(field, patterns.len(), RULES_MAX));
    }
    for (j, pattern) in patterns.iter().enumerate() {
        let kind = text(pattern, &["type"]);
        for why in names::qualified_name(kind) {
            wrong.push(FieldError::invalid_text(
                format!("{field}[{j}].type"),
                kind,
                why,
            ));
        }
        let known = ["False", "True", "Unknown"];
        let path = format!("{field}[{j}].status");
        match text(pattern, &["status"]) {
            "" => wrong.push(FieldError::required(
                path,
                format!("valid values: {known:?}"),
            )),
            status if known.contains(&status) => {}
            other => wrong.push(FieldError::not_supported(path, other, &known)),
        }
    }
    wrong
}

/// What is wrong with `successPolicy` of the spec at `field`.
pub(super) fn bad_success_policy(spec: &Value, field: &str) -> Vec<FieldError> {
    let policy = at(spec, &["successPolicy"]);
    let mut wrong = Vec::new();
    if policy.is_null() {
        return wrong;
    }
    let rules = list(policy, &["rules"]);
    if text(spec, &["completionMode"]) != "Indexed" {
        // As Go prints its own structs.
        let shown: Vec<Value> = rules
            .iter()
            .map(|rule| {
                json!({"SucceededIndexes": at(rule, &["succeededIndexes"]), "SucceededCount": at(rule, &["succeededCount"])})
            })
            .collect();
        let why = "requires indexed completion mode";
        let shown = json!({ "Rules": shown });
        wrong.push(FieldError::invalid(
            format!("{field}.successPolicy"),
            &shown,
            why,
        ));
        return wrong;
    }
    let path = format!("{field}.successPolicy.rules");
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        wrong.push(FieldError::required(path.clone(), why));
    } else if rules.len() > RULES_MAX {
        wrong.push(FieldError::too_many(path.clone(), rules.len(), RULES_MAX));
    }
    let completions = number(spec, &["completions"]);
    for (i, rule) in rules.iter().enumerate() {
        wrong.extend(bad_success_rule(rule, &format!("{path}[{i}]"), completions));
    }
    wrong
}

fn bad_success_rule(rule: &Value, field: &str, completions: i64) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (indexes, count) = (
        at(rule, &["succeededIndexes"]),
        at(rule, &["succeededCount"]),
    );
    if indexes.is_null() && count.is_null() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        wrong.push(FieldError::required(field, why));
    }
    let mut named = 0;
    if let Some(indexes) = indexes.as_str() {
        let path = format!("{field}.succeededIndexes");
        if indexes.len() > INDEXES_MAX {
            wrong.push(FieldError::too_long(path.clone(), INDEXES_MAX));
        }
        match bad_indexes(indexes, completions) {
            Ok(total) => named = total,
            Err(why) => {
                let why = format!("error parsing succeededIndexes: {why}");
                wrong.push(FieldError::invalid_text(path, indexes, why));
            }
        }
    }
    if let Some(wanted) = count.as_i64() {
        let path = format!("{field}.succeededCount");
        if wanted < 0 {
            let why = "must be greater than or equal to 0";
            wrong.push(FieldError::invalid(path.clone(), count, why));
        }
        if wanted > completions {
            let why = format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            );
            wrong.push(FieldError::invalid(path.clone(), count, why));
        }
        if !indexes.is_null() && wanted > named {
            let why = format!(
                "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
            );
            wrong.push(FieldError::invalid(path, count, why));
        }
    }
    wrong
}

/// How many indexes a text such as `1,3-5` names.
///
/// # Errors
/// Why it names none.
pub(super) fn bad_indexes(indexes: &str, completions: i64) -> Result<i64, String> {
    if indexes.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0);
    for part in indexes.split(',') {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!(
                "non-increasing order, previous: {last}, current: {first}"
            ));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = part.split('-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let read = |text: &str| match text.parse::<i64>() {
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
        Err(_) => Err(format!(
            "cannot convert string to integer for index: {text:?}"
        )),
    };
    let first = read(limits[0])?;
    let Some(end) = limits.get(1) else {
        return Ok((first, first));
    };
    let end = read(end)?;
    if first >= end {
        return Err(format!(
            "non-increasing order, previous: {first}, current: {end}"
        ));
    }
    Ok((first, end))
}

/// The first index that both texts name. What cannot be read is passed over.
pub(super) fn first_overlap(one: &str, other: &str, completions: i64) -> Option<i64> {
    let read = |indexes: &str| -> Vec<(i64, i64)> {
        indexes
            .split(',')
            .filter_map(|part| interval(part, completions).ok())
            .collect()
    };
    let (ones, others) = (read(one), read(other));
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (ones.get(i), others.get(j)) {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 {
            i += 1;
        } else {
            j += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(wrong: &[FieldError]) -> Vec<String> {
        wrong.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn indexes() {
        for (text, wanted) in [
            ("", Ok(0)),
            ("0,2-4", Ok(4)),
            (
                "1-2-3",
                Err(
                    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
                ),
            ),
            ("5-3", Err("non-increasing order, previous: 5, current: 3")),
            ("3,2", Err("non-increasing order, previous: 3, current: 2")),
            (
                "x",
                Err("cannot convert string to integer for index: \"x\""),
            ),
            ("10", Err("too large index: \"10\"")),
        ] {
            assert_eq!(
                bad_indexes(text, 10),
                wanted.map_err(str::to_owned),
                "{text}"
            );
        }
        assert_eq!(first_overlap("0-2,5", "3-6", 10), Some(5));
        assert_eq!(first_overlap("0-2", "3", 10), None);
    }

    #[test]
    fn failure_policies() {
        let path = "spec.podFailurePolicy.rules[0]";
        for (rule, wanted) in [
            (
                json!({"action": "Ignore", "onExitCodes": {"containerName": "c", "operator": "In", "values": [1, 3]}}),
                vec![],
            ),
            (
                json!({"action": "Ignore"}),
                vec![
                    ": Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                ],
            ),
            (
                json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": []}}),
                vec![
                    ".action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                    ".onExitCodes.values: Invalid value: []: at least one value is required",
                ],
            ),
            (
                json!({"action": "Count", "onExitCodes": {"containerName": "z", "operator": "In", "values": [3, 2, 0, 0]}}),
                vec![
                    ".onExitCodes.containerName: Invalid value: \"z\": must be one of the container or initContainer names in the pod template",
                    ".onExitCodes.values[2]: Invalid value: 0: must not be 0 for the In operator",
                    ".onExitCodes.values[3]: Invalid value: 0: must not be 0 for the In operator",
                    ".onExitCodes.values[3]: Duplicate value: 0",
                    ".onExitCodes.values: Invalid value: [3,2,0,0]: must be ordered",
                ],
            ),
            (
                json!({"action": "x", "onPodConditions": [{"type": "DisruptionTarget", "status": "y"}]}),
                vec![
                    ".action: Unsupported value: \"x\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
                    ".onPodConditions[0].status: Unsupported value: \"y\": supported values: \"False\", \"True\", \"Unknown\"",
                ],
            ),
        ] {
            let spec = json!({"podFailurePolicy": {"rules": [rule]}, "template": {"spec": {"containers": [{"name": "c"}]}}});
            let wanted: Vec<String> = wanted.iter().map(|w| format!("{path}{w}")).collect();
            assert_eq!(shown(&bad_failure_policy(&spec, "spec")), wanted, "{spec}");
        }
    }

    #[test]
    fn success_policies() {
        let policy = |mode: &str, rules: Value| {
            shown(&bad_success_policy(
                &json!({"completionMode": mode, "completions": 5, "successPolicy": {"rules": rules}}),
                "spec",
            ))
        };
        assert!(
            policy(
                "Indexed",
                json!([{"succeededIndexes": "0-2", "succeededCount": 2}])
            )
            .is_empty()
        );
        assert_eq!(
            policy("NonIndexed", json!([{"succeededCount": 1}])),
            [
                "spec.successPolicy: Invalid value: {\"Rules\":[{\"SucceededCount\":1,\"SucceededIndexes\":null}]}: requires indexed completion mode"
            ]
        );
        assert_eq!(
            policy("Indexed", json!([])),
            [
                "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified"
            ]
        );
        assert_eq!(
            policy(
                "Indexed",
                json!([{"succeededIndexes": "5-3"}, {"succeededCount": 9}, {}])
            ),
            [
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"5-3\": error parsing succeededIndexes: too large index: \"5\"",
                "spec.successPolicy.rules[1].succeededCount: Invalid value: 9: must be less than or equal to 5 (the number of specified completions)",
                "spec.successPolicy.rules[2]: Required value: at least one of succeededCount or succeededIndexes must be specified",
            ]
        );
    }
}
