//! The roles and bindings that every cluster begins with, and how those that somebody changed are mended at a start.
//!
//! They stand in `bootstrap.json`: what a kube-apiserver 1.36 was observed to make, less what all have in common.

use api::value::{entries, list, set, text};
use serde_json::{Value, json};

use crate::escalation::not_covered;
use crate::rule::{Rule, rules_of};

static OBJECTS: &str = include_str!("bootstrap.json");

const GROUP: &str = "rbac.authorization.k8s.io";
/// Whoever sets it to `false` on such an object keeps it from being mended.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The objects, ClusterRoles and their bindings first, as they are sent to a server.
pub fn objects() -> Vec<Value> {
    // A test reads the file.
    let short: Vec<Value> = serde_json::from_str(OBJECTS).unwrap_or_default();
    short.into_iter().map(whole).collect()
}

fn whole(mut short: Value) -> Value {
    let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for (key, value) in entries(&short, &["labels"]) {
        set(&mut labels, key, value.clone());
    }
    let mut metadata = json!({
        "name": text(&short, &["name"]),
        "labels": labels,
        "annotations": {AUTOUPDATE: "true"},
    });
    if let Some(namespace) = short.get("namespace") {
        set(&mut metadata, "namespace", namespace.clone());
    }
    for subject in api::value::items_mut(&mut short, "subjects") {
        if text(subject, &["kind"]) != "ServiceAccount" {
            set(subject, "apiGroup", GROUP);
        }
    }
    if let Some(role) =
        api::value::object_mut(&mut short, "roleRef").filter(|r| r["name"] != Value::Null)
    {
        set(role, "apiGroup", GROUP);
    }
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": short["kind"], "metadata": metadata,
    });
    for key in ["aggregationRule", "roleRef", "rules", "subjects"] {
        if let Some(value) = short.get(key).filter(|value| !api::value::is_empty(value)) {
            set(&mut object, key, value.clone());
        }
    }
    object
}

/// What is to be stored in the place of `current` so that it grants at least what `wanted` does. `None`: it does, or
/// it is not to be touched. What somebody added stays.
pub fn mended(current: &Value, wanted: &Value) -> Option<Value> {
    if text(current, &["metadata", "annotations", AUTOUPDATE]) == "false" {
        return None;
    }
    let mut new = current.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in entries(wanted, &["metadata", map]) {
            let metadata = &mut new["metadata"];
            if let Some(map) = api::value::object_mut(metadata, map) {
                set(map, key, value.clone());
            }
        }
    }
    if wanted.get("aggregationRule").is_some() {
        let selectors = || list(wanted, &["aggregationRule", "clusterRoleSelectors"]).iter();
        add_missing(
            &mut new,
            "/aggregationRule/clusterRoleSelectors",
            selectors(),
        );
    } else if text(wanted, &["kind"]).ends_with("Role") {
        let wanted: Vec<Rule> = rules_of(wanted);
        let missing: Vec<Rule> = {
            let held = rules_of(current);
            wanted
                .into_iter()
                .filter(|rule| !not_covered(&held, std::slice::from_ref(rule)).is_empty())
                .collect()
        };
        if !missing.is_empty() {
            let mut rules = list(current, &["rules"]).to_vec();
            rules.extend(
                missing
                    .iter()
                    .filter_map(|rule| serde_json::to_value(rule).ok()),
            );
            set(&mut new, "rules", rules);
        }
    }
    add_missing(&mut new, "/subjects", list(wanted, &["subjects"]).iter());
    (new != *current).then_some(new)
}

fn add_missing<'a>(object: &mut Value, path: &str, wanted: impl Iterator<Item = &'a Value>) {
    let found = object.pointer(path).and_then(Value::as_array);
    let mut all = found.cloned().unwrap_or_default();
    let before = all.len();
    for item in wanted {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
    if all.len() == before {
        return;
    }
    match path.rsplit_once('/') {
        Some(("", key)) => set(object, key, all),
        Some((parent, key)) => {
            if let Some(parent) = parent
                .strip_prefix('/')
                .and_then(|p| api::value::object_mut(object, p))
            {
                set(parent, key, all);
            }
        }
        None => {}
    }
}

/// Whether a binding has to be made anew: what it binds to cannot be changed.
pub fn must_replace(current: &Value, wanted: &Value) -> bool {
    let role = |object: &Value| {
        let part = |key: &str| text(object, &["roleRef", key]).to_owned();
        (part("kind"), part("name"))
    };
    wanted.get("roleRef").is_some()
        && role(current) != role(wanted)
        && text(current, &["metadata", "annotations", AUTOUPDATE]) != "false"
}
