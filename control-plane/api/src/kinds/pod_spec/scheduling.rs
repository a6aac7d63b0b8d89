//! What a Pod waits for and puts up with before it runs: gates, tolerations, claims of devices.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, Path};
use crate::field::{Fault, FieldError};
use crate::meta;
use crate::names;
use crate::value::{at, list, text};

/// `readinessGates` and `schedulingGates`.
pub(super) fn gates(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let ready = path.child("readinessGates");
    for (i, gate) in list(spec, &["readinessGates"]).iter().enumerate() {
        let kind = text(gate, &["conditionType"]);
        let here = ready.index(i);
        found.against(
            &here.child("conditionType"),
            kind,
            names::qualified_name(kind),
        );
    }
    let scheduling = path.child("schedulingGates");
    let mut seen = BTreeSet::new();
    for (i, gate) in list(spec, &["schedulingGates"]).iter().enumerate() {
        let name = text(gate, &["name"]);
        let here = scheduling.index(i);
        found.against(&here, name, names::qualified_name(name));
        if !seen.insert(name) {
            found.duplicate(&here, name);
        }
    }
}

/// A toleration.
pub(in crate::kinds) fn toleration(toleration: &Value, path: &Path<'_>, found: &mut Findings) {
    let (key, value, effect) = (
        text(toleration, &["key"]),
        text(toleration, &["value"]),
        text(toleration, &["effect"]),
    );
    let operator = text(toleration, &["operator"]);
    let (operator_at, effect_at) = (path.child("operator"), path.child("effect"));
    if !key.is_empty() {
        found.extend(meta::label_key(key, &path.child("key").to_string()));
    } else if operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        found.invalid_text(&operator_at, operator, why);
    }
    if !at(toleration, &["tolerationSeconds"]).is_null() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        found.invalid_text(&effect_at, effect, why);
    }
    match operator {
        "" | "Equal" => {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                found.invalid_text(&operator_at, value, wrong.join(";"));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                let why = "value must be empty when `operator` is 'Exists'";
                found.invalid_text(&operator_at, value, why);
            }
        }
        other => found.unsupported(&operator_at, other, &["Equal", "Exists"]),
    }
    if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        found.unsupported(&effect_at, effect, &known);
    }
}

/// `resourceClaims`; gives their names.
pub(super) fn claims<'a>(
    spec: &'a Value,
    path: &Path<'_>,
    found: &mut Findings,
) -> BTreeSet<&'a str> {
    let path = path.child("resourceClaims");
    let mut seen = BTreeSet::new();
    for (i, claim) in list(spec, &["resourceClaims"]).iter().enumerate() {
        let here = path.index(i);
        let name = text(claim, &["name"]);
        if found.needs(claim, &here, "name") {
            if seen.insert(name) {
                found.against(&here.child("name"), name, names::label(name));
            } else {
                found.duplicate(&here.child("name"), name);
            }
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let shown = || {
            let part = |key| at(claim, &[key]).to_string();
            format!(
                "{{\"Name\":{},\"ResourceClaimName\":{},\"ResourceClaimTemplateName\":{}}}",
                crate::field::quoted(name),
                part(sources[0]),
                part(sources[1])
            )
        };
        let mut refuse = |why: &str| {
            found.push(FieldError::new(&here, Fault::Invalid(shown()), why));
        };
        match sources.map(|key| at(claim, &[key]).is_string()) {
            [true, true] => refuse(
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            [false, false] => {
                refuse("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        for key in sources {
            if let Some(source) = at(claim, &[key]).as_str() {
                found.against(&here.child(key), source, names::subdomain(source));
            }
        }
    }
    seen
}
