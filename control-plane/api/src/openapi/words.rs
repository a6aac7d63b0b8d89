//! What definitions and fields are for, in our own words. Where nobody wrote any, the names speak.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::schema::{self, Role, Schema, Shape};

static WORDS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| schema::read(include_str!("../../schema/descriptions.json")));

/// What a definition is for. `name` is its full name.
pub(super) fn of_definition(schema: &Schema, name: &str) -> Option<String> {
    if let Some(own) = written(name, "") {
        return Some(own.to_owned());
    }
    if let Some(item) = schema.name.strip_suffix("List") {
        return schema
            .field("items")
            .map(|_| format!("A list of {item} objects."));
    }
    let mut words = spoken(schema.name);
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if schema.role == Role::Part {
        Some(format!("{words}."))
    } else {
        Some(format!("{words}, an object of its own."))
    }
}

/// What a field is for. `name` is the full name of the definition that it is in.
pub(super) fn of_field(schema: &Schema, name: &str, field: &str) -> Option<String> {
    if let Some(own) = written(name, field).or_else(|| written("*", field)) {
        return Some(own.to_owned());
    }
    let known = schema.field(field)?;
    let words = spoken(field);
    Some(match &known.shape {
        Shape::Flag => format!("Whether it holds: {words}."),
        Shape::List(items) => match items.resolve().0 {
            Some(of) => format!("List of {}: {words}.", of.name),
            None => format!("List: {words}."),
        },
        Shape::Map(_) => format!("By key: {words}."),
        shape => match shape.resolve().0 {
            Some(of) if matches!(of.shape, Shape::Struct(_)) => {
                format!("{}: {words}.", of.name)
            }
            _ => {
                let mut words = words;
                if let Some(first) = words.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                format!("{words}.")
            }
        },
    })
}

fn written(definition: &str, field: &str) -> Option<&'static str> {
    WORDS.get(definition)?.get(field)?.as_str()
}

/// A name in camel case as words: `lastTransitionTime` is `last transition time`, `podIPs` is `pod IPs`.
fn spoken(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut words = String::new();
    for (i, letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| letters.get(i));
        let after = letters.get(i + 1);
        let begins = letter.is_uppercase()
            && before.is_some_and(|b| {
                !b.is_uppercase() || after.is_some_and(|a| a.is_lowercase() && *a != 's')
            });
        if begins {
            words.push(' ');
        }
        let lower = after.is_none_or(|a| !a.is_uppercase())
            && (begins || i == 0)
            && after.is_some_and(char::is_ascii_lowercase);
        if lower {
            words.extend(letter.to_lowercase());
        } else {
            words.push(*letter);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::spoken;

    #[test]
    fn names_are_spoken() {
        for (name, words) in [
            ("lastTransitionTime", "last transition time"),
            ("podIPs", "pod IPs"),
            ("clusterIP", "cluster IP"),
            ("PodDisruptionBudget", "pod disruption budget"),
            ("ttlSecondsAfterFinished", "ttl seconds after finished"),
        ] {
            assert_eq!(spoken(name), words);
        }
    }
}
