//! What an applier sent, merged into what stands there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::collect::item_element;
use crate::types::{Relation, Type};

/// `config` on top of `live`. Fields that only `live` has stay, lists take the order of `config`.
pub(crate) fn merge(of: Type<'_>, live: &Value, config: &Value) -> Value {
    match (of.relation(config), live, config) {
        (Relation::Fields, Value::Object(live), Value::Object(config)) => {
            let mut out = live.clone();
            for (name, value) in config {
                let inner = of.field(name).map_or(Type::open(), |b| b.of);
                match (out.get_mut(name), value) {
                    // Null says nothing to a kind that Kubernetes has a struct for.
                    (_, Value::Null) if inner.built() => {
                        out.remove(name);
                    }
                    (Some(slot), value) => *slot = merge(inner, &std::mem::take(slot), value),
                    (None, value) => {
                        out.insert(name.clone(), fresh(inner, value));
                    }
                }
            }
            Value::Object(out)
        }
        (
            relation @ (Relation::Set | Relation::Keyed),
            Value::Array(live),
            Value::Array(config),
        ) => Value::Array(lists(of, relation, live, config)),
        _ => fresh(of, config),
    }
}

/// What is sent where nothing stands; without the nulls that say nothing.
fn fresh(of: Type<'_>, config: &Value) -> Value {
    match (of.relation(config), config) {
        (Relation::Fields, Value::Object(fields)) => {
            let kept = fields.iter().filter_map(|(name, value)| {
                let inner = of.field(name).map_or(Type::open(), |b| b.of);
                let silent = value.is_null() && inner.built();
                (!silent).then(|| (name.clone(), fresh(inner, value)))
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        (Relation::Set | Relation::Keyed, Value::Array(items)) => {
            items.iter().map(|item| fresh(of.items(), item)).collect()
        }
        (_, other) => other.clone(),
    }
}

/// Items of both keep the order of `config`; items of `live` alone stay before the next of them that they stood before.
fn lists(of: Type<'_>, relation: Relation, live: &[Value], config: &[Value]) -> Vec<Value> {
    let keys = of.keys();
    let inner = of.items();
    let element = |item: &Value| item_element(relation, &keys, item).ok();
    let wanted: Vec<(Option<Box<str>>, &Value)> = config.iter().map(|i| (element(i), i)).collect();
    let in_config: BTreeSet<&str> = wanted.iter().filter_map(|(e, _)| e.as_deref()).collect();
    let standing: Vec<(Option<Box<str>>, &Value)> = live.iter().map(|i| (element(i), i)).collect();
    let mut in_live: BTreeMap<&str, &Value> = BTreeMap::new();
    for (element, item) in &standing {
        if let Some(element) = element.as_deref() {
            in_live.entry(element).or_insert(item);
        }
    }
    let merged = |(element, item): &(Option<Box<str>>, &Value)| match element
        .as_deref()
        .and_then(|e| in_live.get(e))
    {
        Some(before) => merge(inner, before, item),
        None => fresh(inner, item),
    };
    let in_both = |e: &Option<Box<str>>| e.as_deref().is_some_and(|e| in_live.contains_key(e));
    let mut shared = wanted
        .iter()
        .enumerate()
        .filter(|(_, (e, _))| in_both(e))
        .map(|(i, _)| i);
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    // Everything of `config` before `next` is out; `due` is the first of the rest that stands in both.
    let (mut next, mut due) = (0, shared.next());
    for (element, item) in &standing {
        let Some(element) = element.as_deref().filter(|e| in_config.contains(e)) else {
            out.push((*item).clone());
            continue;
        };
        if let Some(at) = due
            && wanted[at].0.as_deref() == Some(element)
        {
            out.extend(wanted[next..=at].iter().map(merged));
            (next, due) = (at + 1, shared.next());
        }
    }
    out.extend(wanted[next..].iter().map(merged));
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_take_the_order_of_what_was_applied() {
        let schema =
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        #[rustfmt::skip]
        let cases = [
            ("", "abc", "abc"),
            ("abc", "", "abc"),
            ("abc", "cab", "cab"),
            ("axbyc", "abc", "axbyc"),
            ("abcd", "bax", "bcdax"),
            ("xab", "nab", "xnab"),
            ("ab", "anb", "anb"),
            // What stands twice in the store is one item once it is applied.
            ("aab", "ba", "ba"),
        ];
        for (live, config, expected) in cases {
            let list = |text: &str| {
                text.chars()
                    .map(|c| Value::from(c.to_string()))
                    .collect::<Value>()
            };
            let found = merge(Type::custom(&schema), &list(live), &list(config));
            assert_eq!(found, list(expected), "{live} + {config}");
        }
    }
}
