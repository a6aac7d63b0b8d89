//! Which nodes a Pod wants, and near which other Pods.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, Path};
use crate::kinds::label_selector::bad_selector;
use crate::meta;
use crate::names;
use crate::value::{at, entries, list, number, text};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const WITHOUT_SELECTOR: &str = "must not be specified when labelSelector is not set";
const BOTH: &str = "exists in both matchLabelKeys and labelSelector";

/// `affinity`.
pub(super) fn check(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let affinity = at(spec, &["affinity"]);
    let path = path.child("affinity");
    let (node, here) = (at(affinity, &["nodeAffinity"]), path.child("nodeAffinity"));
    let required = at(node, &[REQUIRED]);
    if required.is_object() {
        node_selector(required, &here.child(REQUIRED), found);
    }
    let preferred = here.child(PREFERRED);
    for (i, term) in list(node, &[PREFERRED]).iter().enumerate() {
        let here = preferred.index(i);
        weight(term, &here, found);
        node_term(
            at(term, &["preference"]),
            false,
            &here.child("preference"),
            found,
        );
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let (pods, here) = (at(affinity, &[key]), path.child(key));
        let required = here.child(REQUIRED);
        for (i, term) in list(pods, &[REQUIRED]).iter().enumerate() {
            pod_term(term, &required.index(i), found);
        }
        let preferred = here.child(PREFERRED);
        for (i, term) in list(pods, &[PREFERRED]).iter().enumerate() {
            let here = preferred.index(i);
            weight(term, &here, found);
            let inner = at(term, &["podAffinityTerm"]);
            pod_term(inner, &here.child("podAffinityTerm"), found);
        }
    }
}

fn weight(term: &Value, path: &Path<'_>, found: &mut Findings) {
    let weight = number(term, &["weight"]);
    if !(1..=100).contains(&weight) {
        let here = path.child("weight");
        found.invalid(&here, &weight.into(), "must be in the range 1-100");
    }
}

/// A NodeSelector.
pub(in crate::kinds) fn node_selector(selector: &Value, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, &["nodeSelectorTerms"]);
    if terms.is_empty() {
        return found.required(&path, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(term, true, &path.index(i), found);
    }
}

fn values_of(requirement: &Value) -> impl Iterator<Item = (usize, &str)> {
    let values = list(requirement, &["values"]).iter();
    values.map(|value| value.as_str().unwrap_or("")).enumerate()
}

/// What is only preferred may name values that no label can have.
fn node_term(term: &Value, strict: bool, path: &Path<'_>, found: &mut Findings) {
    let expressions = path.child("matchExpressions");
    for (i, one) in list(term, &["matchExpressions"]).iter().enumerate() {
        let here = expressions.index(i);
        let count = list(one, &["values"]).len();
        let values = here.child("values");
        match text(one, &["operator"]) {
            "In" | "NotIn" if count == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                found.required(&values, why);
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                found.forbidden(&values, why);
            }
            "Gt" | "Lt" if count != 1 => {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                found.required(&values, why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => operator(other, &here, found),
        }
        let key = text(one, &["key"]);
        found.extend(meta::label_key(key, &here.child("key").to_string()));
        if strict {
            for (j, value) in values_of(one) {
                found.against(&values.index(j), value, names::label_value(value));
            }
        }
    }
    let fields = path.child("matchFields");
    for (i, one) in list(term, &["matchFields"]).iter().enumerate() {
        let here = fields.index(i);
        let values = here.child("values");
        match text(one, &["operator"]) {
            "In" | "NotIn" => {
                if list(one, &["values"]).len() != 1 {
                    let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    found.required(&values, why);
                }
            }
            other => operator(other, &here, found),
        }
        let key = text(one, &["key"]);
        if key == "metadata.name" {
            for (j, value) in values_of(one) {
                found.against(&values.index(j), value, names::subdomain(value));
            }
        } else {
            let why = "not a valid field selector key";
            found.invalid_text(&here.child("key"), key, why);
        }
    }
}

fn operator(operator: &str, path: &Path<'_>, found: &mut Findings) {
    let why = "not a valid selector operator";
    found.invalid_text(&path.child("operator"), operator, why);
}

fn pod_term(term: &Value, path: &Path<'_>, found: &mut Findings) {
    for key in ["labelSelector", "namespaceSelector"] {
        let here = path.child(key).to_string();
        found.extend(bad_selector(&here, at(term, &[key])));
    }
    for namespace in list(term, &["namespaces"]) {
        let namespace = namespace.as_str().unwrap_or("");
        found.against(&path.child("namespace"), namespace, names::label(namespace));
    }
    label_keys(term, path, found);
    let key = text(term, &["topologyKey"]);
    let here = path.child("topologyKey");
    if key.is_empty() {
        found.required(&here, "can not be empty");
    }
    found.extend(meta::label_key(key, &here.to_string()));
}

/// `matchLabelKeys` and `mismatchLabelKeys`.
fn label_keys(term: &Value, path: &Path<'_>, found: &mut Findings) {
    let selector = at(term, &["labelSelector"]);
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        let here = path.child(key);
        let keys = list(term, &[key]);
        if !keys.is_empty() && !selector.is_object() {
            found.forbidden(&here, WITHOUT_SELECTOR);
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            let key = key.as_str().unwrap_or("");
            found.extend(meta::label_key(key, &here.index(i).to_string()));
        }
    }
    let keys = list(term, &["matchLabelKeys"]);
    for (i, key) in keys.iter().enumerate() {
        let key = key.as_str().unwrap_or("");
        for _ in 0..again(selector, key) {
            found.invalid_text(&path.index(i), key, BOTH);
        }
    }
    let others = list(term, &["mismatchLabelKeys"]);
    let here = path.child("matchLabelKeys");
    for (i, key) in keys
        .iter()
        .enumerate()
        .filter(|(_, key)| others.contains(key))
    {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        found.invalid_text(&here.index(i), key.as_str().unwrap_or(""), why);
    }
}

/// How often the selector's expressions name a key that it has already. The key itself was written into it once.
fn again(selector: &Value, key: &str) -> usize {
    let labels = usize::from(entries(selector, &["matchLabels"]).any(|(label, _)| label == key));
    let expressions = list(selector, &["matchExpressions"])
        .iter()
        .filter(|one| text(one, &["key"]) == key)
        .count();
    if expressions == 0 {
        0
    } else {
        labels + expressions - 1
    }
}

/// `topologySpreadConstraints`.
pub(super) fn spread(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("topologySpreadConstraints");
    let constraints = list(spec, &["topologySpreadConstraints"]);
    let mut rest = BTreeSet::new();
    let mut repeated = vec![false; constraints.len()];
    let pair = |one| {
        (
            text(one, &["topologyKey"]),
            text(one, &["whenUnsatisfiable"]),
        )
    };
    for (i, one) in constraints.iter().enumerate().rev() {
        if let Some(slot) = repeated.get_mut(i) {
            *slot = !rest.insert(pair(one));
        }
    }
    for (i, one) in constraints.iter().enumerate() {
        let here = path.index(i);
        let skew = number(one, &["maxSkew"]);
        if skew <= 0 {
            let here = here.child("maxSkew");
            found.invalid(&here, &skew.into(), "must be greater than zero");
        }
        let (key, unmet) = pair(one);
        if key.is_empty() {
            found.required(&here.child("topologyKey"), "can not be empty");
        }
        if !matches!(unmet, "DoNotSchedule" | "ScheduleAnyway") {
            let known = ["DoNotSchedule", "ScheduleAnyway"];
            found.unsupported(&here.child("whenUnsatisfiable"), unmet, &known);
        }
        if repeated.get(i) == Some(&true) {
            let here = here.child("{topologyKey, whenUnsatisfiable}");
            found.duplicate(&here, &format!("{{{key}, {unmet}}}"));
        }
        let (least, least_at) = (at(one, &["minDomains"]), here.child("minDomains"));
        if let Some(domains) = least.as_i64() {
            if domains <= 0 {
                found.invalid(&least_at, least, "must be greater than zero");
            }
            if unmet != "DoNotSchedule" {
                let why = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {unmet}"
                );
                found.invalid(&least_at, least, why);
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            found.one_of_given(&here.child(key), at(one, &[key]), &["Honor", "Ignore"]);
        }
        spread_keys(one, &here.child("matchLabelKeys"), found);
        let selector = here.child("labelSelector").to_string();
        found.extend(bad_selector(&selector, at(one, &["labelSelector"])));
    }
}

fn spread_keys(constraint: &Value, path: &Path<'_>, found: &mut Findings) {
    let selector = at(constraint, &["labelSelector"]);
    let keys = list(constraint, &["matchLabelKeys"]);
    if !keys.is_empty() && !selector.is_object() {
        found.forbidden(path, WITHOUT_SELECTOR);
    }
    for (i, key) in keys.iter().enumerate() {
        let key = key.as_str().unwrap_or("");
        let here = path.index(i);
        found.extend(meta::label_key(key, &here.to_string()));
        let labels = entries(selector, &["matchLabels"]).any(|(label, _)| label == key);
        if labels || again(selector, key) > 0 {
            found.invalid_text(&here, key, BOTH);
        }
    }
}

/// What a new Pod's own labels are written into selectors that name their keys: its values then, whatever becomes of
/// its labels later.
pub(in crate::kinds) fn write_label_keys(pod: &mut Value) {
    let labels = at(pod, &["metadata", "labels"]).clone();
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    for constraint in crate::value::items_mut(spec, "topologySpreadConstraints") {
        write_keys(constraint, &labels);
    }
    let Some(affinity) = spec.get_mut("affinity") else {
        return;
    };
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.get_mut(key) else {
            continue;
        };
        for term in crate::value::items_mut(pods, REQUIRED) {
            write_keys(term, &labels);
        }
        for term in crate::value::items_mut(pods, PREFERRED) {
            if let Some(term) = term.get_mut("podAffinityTerm") {
                write_keys(term, &labels);
            }
        }
    }
}

fn write_keys(term: &mut Value, labels: &Value) {
    let mut made = Vec::new();
    for (list_key, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in list(term, &[list_key]).iter().filter_map(Value::as_str) {
            if let Some(label) = at(labels, &[key]).as_str() {
                let one = serde_json::json!({"key": key, "operator": operator, "values": [label]});
                made.push(one);
            }
        }
    }
    if made.is_empty() {
        return;
    }
    if let Some(selector) = term.get_mut("labelSelector").filter(|s| s.is_object()) {
        let mut all = list(selector, &["matchExpressions"]).to_vec();
        all.extend(made);
        crate::value::set(selector, "matchExpressions", all);
    }
}
