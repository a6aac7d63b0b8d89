//! The conditions of a definition: whether its names are taken by another, whether it is served, whether it is on its
//! way out and its objects with it.

use std::collections::BTreeSet;

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
    let (names, conflict) = accept(&wanted, &accepted, others);
    match &conflict {
        None => set_condition(
            object,
            "NamesAccepted",
            true,
            "NoConflicts",
            "no conflicts found",
            now,
        ),
        Some((why, message)) => set_condition(object, "NamesAccepted", false, why, message, now),
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

/// The names that the definition has from here on: what cannot be had stays as it was. Where there is such, the reason
/// and the message of the last of them, as Kubernetes has it.
fn accept(
    wanted: &Names,
    accepted: &Names,
    others: &[Names],
) -> (Names, Option<(&'static str, String)>) {
    let resources: Vec<&String> = others
        .iter()
        .flat_map(|names| names.short.iter().chain([&names.plural, &names.singular]))
        .collect();
    let kinds: Vec<&String> = others
        .iter()
        .flat_map(|names| [&names.kind, &names.list_kind])
        .collect();
    let told = |name: &String| format!("{} is already in use", api::field::quoted(name));
    let fits = |wanted: &String, had: &String, taken: &[&String]| {
        wanted == had || wanted.is_empty() || !taken.contains(&wanted)
    };
    let mut names = wanted.clone();
    let mut conflict = None;
    for (name, had, why) in [
        (&mut names.plural, &accepted.plural, "PluralConflict"),
        (&mut names.singular, &accepted.singular, "SingularConflict"),
    ] {
        if !fits(name, had, &resources) {
            conflict = Some((why, told(name)));
            name.clone_from(had);
        }
    }
    let own = |short: &&String| {
        accepted.short.contains(short) || [&accepted.plural, &accepted.singular].contains(short)
    };
    let wanted_anew = wanted.short.iter().filter(|short| !own(short));
    let mut clashes: Vec<String> = wanted_anew
        .filter(|short| resources.contains(short))
        .map(told)
        .collect();
    let mut seen = BTreeSet::new();
    clashes.retain(|clash| seen.insert(clash.clone()));
    if !clashes.is_empty() {
        names.short.clone_from(&accepted.short);
        let all = match clashes.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        conflict = Some(("ShortNamesConflict", all));
    }
    for (name, had, why) in [
        (&mut names.kind, &accepted.kind, "KindConflict"),
        (
            &mut names.list_kind,
            &accepted.list_kind,
            "ListKindConflict",
        ),
    ] {
        if !fits(name, had, &kinds) {
            conflict = Some((why, told(name)));
            name.clone_from(had);
        }
    }
    (names, conflict)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(plural: &str, kind: &str, short: &[&str]) -> Names {
        Names {
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            kind: kind.to_owned(),
            list_kind: format!("{kind}List"),
            short: short.iter().map(|&short| short.to_owned()).collect(),
            categories: Vec::new(),
        }
    }

    #[test]
    fn names_that_others_have_stay_as_they_were() {
        let none = Names::default();
        let others = [names("widgets", "Widget", &["w", "wd"])];
        let told = |wanted: &Names, had: &Names| accept(wanted, had, &others);
        let free = names("gadgets", "Gadget", &["g"]);
        assert_eq!(told(&free, &none), (free.clone(), None));
        // Of several kinds of name the last is told, and of short names each once.
        for (wanted, why, message) in [
            (
                names("gadgets", "Gadget", &["w", "g", "wd", "w"]),
                "ShortNamesConflict",
                "[\"w\" is already in use, \"wd\" is already in use]",
            ),
            (
                names("widgets", "Gadget", &["wd"]),
                "ShortNamesConflict",
                "\"wd\" is already in use",
            ),
            (
                names("widgets", "Gadget", &[]),
                "PluralConflict",
                "\"widgets\" is already in use",
            ),
            (
                names("w", "Widget", &[]),
                "ListKindConflict",
                "\"WidgetList\" is already in use",
            ),
        ] {
            let (_, conflict) = told(&wanted, &none);
            assert_eq!(conflict, Some((why, message.to_owned())));
        }
        let (kept, _) = told(&names("gadgets", "Gadget", &["w", "g"]), &free);
        assert_eq!(kept, free);
        // What it has it keeps, whoever else has it.
        let had = names("widgets", "Widget", &["w"]);
        assert_eq!(told(&had, &had), (had.clone(), None));
    }
}
