//! Taking fields out of an object.

use serde_json::Value;

use crate::collect::item_element;
use crate::element;
use crate::set::{Node, Set};
use crate::types::{Relation, Type};

/// Takes every member of `gone` out of the object, with all that is below it. What is emptied by that goes too, unless
/// it is a member of `kept`.
pub(crate) fn remove(of: Type<'_>, object: &mut Value, gone: &Set, kept: &Set) {
    if gone.is_empty() {
        return;
    }
    let nothing = Node::default();
    match (of.relation(object), object) {
        (Relation::Fields, Value::Object(fields)) => {
            fields.retain(|name, value| {
                let element = element::field(name);
                let Some(node) = gone.get(&element) else {
                    return true;
                };
                let keeps = kept.get(&element).unwrap_or(&nothing);
                if node.member {
                    return false;
                }
                let below = of.field(name);
                let inner = below.map_or(Type::open(), |b| b.of);
                let held = !empty(value);
                remove(inner, value, &node.below, &keeps.below);
                // Kubernetes' own form of the object has some fields always.
                keeps.member || below.is_some_and(|b| b.always) || !(held && empty(value))
            });
        }
        (relation @ (Relation::Set | Relation::Keyed), Value::Array(items)) => {
            let keys = of.keys();
            let inner = of.items();
            items.retain_mut(|item| {
                let Ok(element) = item_element(relation, &keys, item) else {
                    return true;
                };
                let Some(node) = gone.get(&element) else {
                    return true;
                };
                if !node.member {
                    let keeps = kept.get(&element).unwrap_or(&nothing);
                    remove(inner, item, &node.below, &keeps.below);
                }
                !node.member
            });
        }
        _ => {}
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
