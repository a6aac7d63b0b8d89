//! What may change in a Pod once it exists.

use serde_json::Value;

use super::findings::{Findings, Path};
use super::{ROOT, annotations};
use crate::field::FieldError;
use crate::value::{self, at, entries, items_mut, list, number, text};

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const TERMS: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Everything wrong with a change of a Pod.
pub(in crate::kinds) fn check(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut found = Findings::default();
    super::pod(new, &mut found);
    annotation_changes(new, old, &mut found);
    changes(new, old, &mut found);
    found.into_vec()
}

/// Annotations that may not change, whatever part of the Pod is written.
pub(in crate::kinds) fn annotation_changes(new: &Value, old: &Value, found: &mut Findings) {
    let metadata = ROOT.child("metadata");
    annotations::changes(new, old, &metadata.child("annotations"), found);
}

/// Whether the Pod stands for one that a node runs by itself.
pub(in crate::kinds) fn is_mirror(pod: &Value) -> bool {
    at(pod, &["metadata", "annotations", annotations::MIRROR]).is_string()
}

fn changes(new: &Value, old: &Value, found: &mut Findings) {
    let path = ROOT.child("spec");
    let (before, after) = (at(old, &["spec"]), at(new, &["spec"]));
    for key in ["containers", "initContainers"] {
        if list(before, &[key]).len() != list(after, &[key]).len() {
            let why = "pod updates may not add or remove containers";
            return found.forbidden(&path.child(key), why);
        }
    }
    if !deadline(after, before, &path, found) {
        return;
    }
    tolerations(after, before, &path, found);
    gates(after, before, &path, found);
    // With everything that may change made equal, nothing else may differ.
    let mut rest = after.clone();
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        value::keep(&mut rest, before, key);
    }
    if number(before, &["terminationGracePeriodSeconds"]) < 0
        && number(after, &["terminationGracePeriodSeconds"]) == 1
    {
        value::keep(&mut rest, before, "terminationGracePeriodSeconds");
    }
    for key in ["containers", "initContainers"] {
        for (container, was) in items_mut(&mut rest, key).zip(list(before, &[key])) {
            value::keep(container, was, "image");
        }
    }
    if !list(before, &["schedulingGates"]).is_empty() {
        gated(&mut rest, before, &path, found);
    }
    if rest != *before {
        let why = format!("{FROZEN}\n{}", diff("core.PodSpec", before, &rest));
        found.forbidden(&path, why);
    }
}

/// A deadline may come, and come nearer.
fn deadline(after: &Value, before: &Value, path: &Path<'_>, found: &mut Findings) -> bool {
    let key = "activeDeadlineSeconds";
    let (was, is) = (at(before, &[key]), at(after, &[key]));
    match (was.as_i64(), is.as_i64()) {
        (Some(was), Some(now)) if now > was => {
            let why = "must be less than or equal to previous value";
            found.invalid(&path.child(key), is, why);
            false
        }
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            found.invalid(&path.child(key), is, why);
            true
        }
        _ => true,
    }
}

/// Tolerations may come; those that are there may change how long they hold.
fn tolerations(after: &Value, before: &Value, path: &Path<'_>, found: &mut Findings) {
    let lasting = |toleration: &Value| {
        let mut toleration = toleration.clone();
        value::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let now: Vec<Value> = list(after, &["tolerations"]).iter().map(lasting).collect();
    let kept = |one: &Value| now.contains(&lasting(one));
    if !list(before, &["tolerations"]).iter().all(kept) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        found.forbidden(&path.child("tolerations"), why);
    }
}

/// Gates only go.
fn gates(after: &Value, before: &Value, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("schedulingGates");
    let before = list(before, &["schedulingGates"]);
    for (i, gate) in list(after, &["schedulingGates"]).iter().enumerate() {
        let name = text(gate, &["name"]);
        if !before.iter().any(|gate| text(gate, &["name"]) == name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            found.forbidden(&path.index(i).child("name"), why);
        }
    }
}

/// While a Pod waits behind a gate, its choice of nodes may become narrower (KEP-3838). What may change is made equal
/// in `rest`.
fn gated(rest: &mut Value, before: &Value, path: &Path<'_>, found: &mut Findings) {
    let (was, is) = (at(before, &["nodeSelector"]), at(rest, &["nodeSelector"]));
    let kept = entries(was, &[]).all(|(key, value)| at(is, &[key]) == value);
    if !kept {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        found.invalid(&path.child("nodeSelector"), is, why);
    }
    let affinity = path.child("affinity");
    narrower(
        at(rest, &["affinity", "nodeAffinity"]),
        at(before, &["affinity", "nodeAffinity"]),
        &affinity.child("nodeAffinity"),
        found,
    );
    value::keep(rest, before, "nodeSelector");
    let others = |spec: &Value| {
        let mut affinity = at(spec, &["affinity"]).clone();
        value::remove(&mut affinity, "nodeAffinity");
        affinity
    };
    if value::same(&others(rest), &others(before)) {
        value::keep(rest, before, "affinity");
    }
}

fn narrower(is: &Value, was: &Value, path: &Path<'_>, found: &mut Findings) {
    let (is, was) = (
        at(is, &[TERMS, "nodeSelectorTerms"]),
        at(was, &[TERMS, "nodeSelectorTerms"]),
    );
    let (after, before) = (list(is, &[]), list(was, &[]));
    let required = path.child(TERMS);
    let path = required.child("nodeSelectorTerms");
    if !before.is_empty() && before.len() != after.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return found.invalid(&path, is, why);
    }
    for (i, (after, before)) in after.iter().zip(before).enumerate() {
        let keys = ["matchExpressions", "matchFields"];
        let nothing = |term: &Value| keys.iter().all(|key| list(term, &[key]).is_empty());
        let begins = keys
            .iter()
            .all(|key| list(after, &[key]).starts_with(list(before, &[key])));
        // No requirement at all takes no node: nothing may be added to it.
        if !begins || (nothing(before) && !nothing(after)) {
            let why = "only additions are allowed (no mutations or deletions)";
            found.invalid(&path.index(i), after, why);
        }
    }
}

/// Characters of one value in a difference.
const SHOWN_MAX: usize = 1024;

/// The fields in which two objects differ, as lines for people.
pub(in crate::kinds) fn diff(kind: &str, before: &Value, after: &Value) -> String {
    let mut keys: Vec<&String> = entries(before, &[])
        .chain(entries(after, &[]))
        .map(|(key, _)| key)
        .collect();
    keys.sort();
    keys.dedup();
    let mut lines = vec![format!("  {kind}{{")];
    let mut alike = 0;
    let skipped = |alike: &mut usize, lines: &mut Vec<String>| {
        if *alike > 0 {
            lines.push(format!("  \t... // {alike} identical fields"));
        }
        *alike = 0;
    };
    for key in keys {
        let (was, is) = (at(before, &[key]), at(after, &[key]));
        if was == is {
            alike += 1;
            continue;
        }
        skipped(&mut alike, &mut lines);
        let mut name = key.clone();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        for (sign, value) in [('-', was), ('+', is)] {
            let shown: String = value.to_string().chars().take(SHOWN_MAX).collect();
            lines.push(format!("{sign} \t{name}: {shown},"));
        }
    }
    skipped(&mut alike, &mut lines);
    lines.push("  }\n".to_owned());
    lines.join("\n")
}
