//! The conditions of a definition: whether its names are taken by another, whether it is served, whether it is on its
//! way out and its objects with it.

use api::value::{at, list, set, text};
use serde_json::{Map, Value, json};

use crate::definition::Names;

/// The finalizer that keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Whether a condition is there and true.
pub fn is_true(object: &Value, kind: &str) -> bool {
    list(object, &["status", "conditions"])
        .iter()
        .any(|condition| {
            text(condition, &["type"]) == kind && text(condition, &["status"]) == "True"
        })
}

/// Sets a condition; the time moves only when the status does.
pub fn set_condition(
    object: &mut Value,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: &str,
) {
    let status = if status { "True" } else { "False" };
    let mut conditions = list(object, &["status", "conditions"]).to_vec();
    let slot = conditions
        .iter_mut()
        .find(|condition| text(condition, &["type"]) == kind);
    let before = slot.as_ref().map(|condition| {
        (
            text(condition, &["status"]).to_owned(),
            text(condition, &["lastTransitionTime"]).to_owned(),
        )
    });
    let since = before
        .filter(|(old, _)| old == status)
        .map_or_else(|| now.to_owned(), |(_, since)| since);
    let condition = json!({
        "type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
    });
    match slot {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
    if let Some(status) = api::value::object_mut(object, "status") {
        set(status, "conditions", conditions);
    }
}

/// Decides which names the definition gets, given the names that others in its group have accepted, and whether it is
/// established; `trusts`: whether a `caBundle` holds a certificate. `now` is RFC 3339.
pub fn settle(object: &mut Value, others: &[Names], trusts: fn(&str) -> bool, now: &str) {
    let wanted = Names::parse(at(object, &["spec", "names"]));
    let accepted = Names::parse(at(object, &["status", "acceptedNames"]));
    let conflict = conflict(&wanted, others);
    let mut names = wanted.clone();
    if let Some((_, kept)) = &conflict {
        // What cannot be had stays as it was.
        for (field, was) in [
            (&mut names.plural, &accepted.plural),
            (&mut names.singular, &accepted.singular),
            (&mut names.kind, &accepted.kind),
            (&mut names.list_kind, &accepted.list_kind),
        ] {
            if kept.contains(field) {
                field.clone_from(was);
            }
        }
        if wanted.short.iter().any(|short| kept.contains(short)) {
            names.short.clone_from(&accepted.short);
        }
    }
    match &conflict {
        None => set_condition(
            object,
            "NamesAccepted",
            true,
            "NoConflicts",
            "no conflicts found",
            now,
        ),
        Some((why, kept)) => {
            let mut message = String::new();
            for name in kept {
                if !message.is_empty() {
                    message.push_str(", ");
                }
                message.push_str(&format!("\"{name}\" is already in use"));
            }
            set_condition(object, "NamesAccepted", false, why, &message, now);
        }
    }
    if let Some(status) = api::value::object_mut(object, "status") {
        set(status, "acceptedNames", shown(&names));
    }
    if is_true(object, "Established") {
        return;
    }
    let webhook = ["spec", "conversion", "webhook", "clientConfig", "caBundle"];
    let bundle = text(object, &webhook).to_owned();
    if conflict.is_none() && !bundle.is_empty() && !trusts(&bundle) {
        let message = "The conversion webhook CABundle is invalid";
        set_condition(
            object,
            "Established",
            false,
            "InvalidCABundle",
            message,
            now,
        );
    } else if conflict.is_none() {
        let message = "the initial names have been accepted";
        set_condition(
            object,
            "Established",
            true,
            "InitialNamesAccepted",
            message,
            now,
        );
    } else {
        set_condition(
            object,
            "Established",
            false,
            "NotAccepted",
            "not all names are accepted",
            now,
        );
    }
}

/// The reason, and the names that others have.
fn conflict(wanted: &Names, others: &[Names]) -> Option<(&'static str, Vec<String>)> {
    let resources: Vec<&String> = others
        .iter()
        .flat_map(|names| {
            [&names.plural, &names.singular]
                .into_iter()
                .chain(&names.short)
        })
        .filter(|name| !name.is_empty())
        .collect();
    let kinds: Vec<&String> = others
        .iter()
        .flat_map(|names| [&names.kind, &names.list_kind])
        .filter(|name| !name.is_empty())
        .collect();
    let mut reason = None;
    let mut taken: Vec<String> = Vec::new();
    let mut look = |name: &String, among: &[&String], why: &'static str| {
        if among.contains(&name) && !taken.contains(name) {
            taken.push(name.clone());
            reason = Some(why);
        }
    };
    look(&wanted.plural, &resources, "PluralConflict");
    look(&wanted.singular, &resources, "SingularConflict");
    for short in &wanted.short {
        look(short, &resources, "ShortNamesConflict");
    }
    look(&wanted.kind, &kinds, "KindConflict");
    look(&wanted.list_kind, &kinds, "ListKindConflict");
    reason.map(|reason| (reason, taken))
}

fn shown(names: &Names) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value, always: bool| {
        if always || !api::value::is_empty(&value) {
            out.insert(key.into(), value);
        }
    };
    put("plural", names.plural.clone().into(), true);
    put("singular", names.singular.clone().into(), false);
    put("shortNames", names.short.clone().into(), false);
    put("kind", names.kind.clone().into(), true);
    put("listKind", names.list_kind.clone().into(), false);
    put("categories", names.categories.clone().into(), false);
    Value::Object(out)
}
