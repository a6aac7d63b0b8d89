//! Annotations of a Pod or template that mean something.

use serde_json::Value;

use super::containers::visit;
use super::findings::{Findings, Path};
use super::security;
use crate::field::quoted;
use crate::value::{at, entries, text};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Looks at the annotations of an object with a Pod's spec. Its own path and that of its annotations are given: those of
/// templates have no `metadata` in them.
pub(super) fn check(
    object: &Value,
    annotations_at: &Path<'_>,
    spec_at: &Path<'_>,
    found: &mut Findings,
) {
    let annotations = at(object, &["metadata", "annotations"]);
    let spec = at(object, &["spec"]);
    if !annotations.is_object() {
        return;
    }
    if let Some(mirror) = at(annotations, &[MIRROR]).as_str()
        && text(spec, &["nodeName"]).is_empty()
    {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        found.invalid_text(&annotations_at.key(MIRROR), mirror, why);
    }
    if let Some(cost) = at(annotations, &[DELETION_COST]).as_str()
        && !is_cost(cost)
    {
        let here = annotations_at.key(DELETION_COST);
        found.invalid_text(&here, cost, "must be a 32bit integer");
    }
    security::seccomp_annotations(annotations, spec, (annotations_at, spec_at), found);
    app_armor(annotations, spec, (annotations_at, spec_at), found);
}

/// A whole number without a plus or zeros before it.
fn is_cost(cost: &str) -> bool {
    let first = cost.chars().next();
    let plain = first.is_some_and(|c| c == '-' || ('1'..='9').contains(&c)) || cost == "0";
    plain && cost.parse::<i32>().is_ok()
}

fn app_armor(
    annotations: &Value,
    spec: &Value,
    (annotations_at, spec_at): (&Path<'_>, &Path<'_>),
    found: &mut Findings,
) {
    for (key, profile) in entries(annotations, &[]) {
        let Some(name) = key.strip_prefix(APP_ARMOR) else {
            continue;
        };
        let here = annotations_at.key(key);
        let mut known = false;
        visit(spec, spec_at, |container, _| {
            known |= text(container, &["name"]) == name;
        });
        if !known {
            found.invalid_text(&here, name, "container not found");
        }
        let profile = profile.as_str().unwrap_or("");
        let fits = matches!(profile, "" | "runtime/default" | "unconfined")
            || profile.starts_with("localhost/");
        if !fits {
            let why = format!("invalid AppArmor profile name: {}", quoted(profile));
            found.invalid_text(&here, profile, why);
        }
    }
}

/// What a new Pod says of AppArmor in annotations, it says in fields too.
pub(super) fn app_armor_agrees(pod: &Value, spec_at: &Path<'_>, found: &mut Findings) {
    let (annotations, spec) = (at(pod, &["metadata", "annotations"]), at(pod, &["spec"]));
    let any = entries(annotations, &[]).any(|(key, _)| key.starts_with(APP_ARMOR));
    if !any || text(spec, &["os", "name"]) == "windows" {
        return;
    }
    let of_pod = at(spec, &["securityContext", "appArmorProfile"]);
    visit(spec, spec_at, |container, path| {
        let own = at(container, &["securityContext", "appArmorProfile"]);
        let profile = if own.is_object() { own } else { of_pod };
        let key = format!("{APP_ARMOR}{}", text(container, &["name"]));
        let Some(annotation) = at(annotations, &[&key]).as_str() else {
            return;
        };
        let file = text(profile, &["localhostProfile"]);
        let (fits, field, what) = match text(profile, &["type"]) {
            "Unconfined" => (annotation == "unconfined", "type", "type"),
            "RuntimeDefault" => (annotation == "runtime/default", "type", "type"),
            "Localhost" => match annotation.strip_prefix("localhost/") {
                None => (false, "type", "type"),
                Some(named) => (named == file, "localhostProfile", "profile"),
            },
            _ => return,
        };
        if !fits {
            let context = path.child("securityContext");
            let here = context.child("appArmorProfile");
            let why = format!("apparmor {what} in annotation and field must match");
            found.forbidden(&here.child(field), why);
        }
    });
}

/// Annotations that stay as they were once the Pod is there.
pub(super) fn changes(new: &Value, old: &Value, path: &Path<'_>, found: &mut Findings) {
    let (after, before) = (
        at(new, &["metadata", "annotations"]),
        at(old, &["metadata", "annotations"]),
    );
    for (key, was) in entries(before, &[]) {
        if at(after, &[key]) == was {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            let why = "may not remove or update AppArmor annotations";
            found.forbidden(&path.key(key), why);
        }
        if key == MIRROR {
            let why = "may not remove or update mirror pod annotation";
            found.forbidden(&path.key(key), why);
        }
    }
    for (key, _) in entries(after, &[]).filter(|(key, _)| at(before, &[key]).is_null()) {
        if key.starts_with(APP_ARMOR) {
            found.forbidden(&path.key(key), "may not add AppArmor annotations");
        }
        if key == MIRROR {
            found.forbidden(&path.key(key), "may not add mirror pod annotation");
        }
    }
}
