//! Which fields an object sets: what an applier claims by sending it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::element;
use crate::set::{Node, Set};
use crate::types::{Relation, Type};

/// The fields of an object.
///
/// # Errors
/// Everything in it that the schema has no place for, as Kubernetes words it.
pub(crate) fn collect(of: Type<'_>, object: &Value) -> Result<Set, String> {
    let mut walk = Walk {
        wrong: Vec::new(),
        strict: true,
    };
    let node = walk.value(of, object, "");
    match walk.wrong.as_slice() {
        [] => Ok(node.below),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

/// The fields of an object that is stored already: what does not fit is owned as it stands.
pub(crate) fn collect_stored(of: Type<'_>, object: &Value) -> Set {
    let mut walk = Walk {
        wrong: Vec::new(),
        strict: false,
    };
    walk.value(of, object, "").below
}

/// The element of an item of a list that is no atomic one.
///
/// # Errors
/// The item lacks a key, or is of a kind that such a list cannot hold.
pub(crate) fn item_element(
    relation: Relation,
    keys: &[(&str, Option<&Value>)],
    item: &Value,
) -> Result<Box<str>, String> {
    if relation == Relation::Set {
        return match item {
            Value::Null => Err("associative list without keys may not have a null element".into()),
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".into())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(element::value(item)),
        };
    }
    let object = match item {
        Value::Object(object) => object,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut fields: Vec<(&str, &Value)> = Vec::with_capacity(keys.len());
    for (name, default) in keys {
        match object.get(*name).or(*default) {
            Some(value) => fields.push((name, value)),
            None => {
                return Err(format!(
                    "associative list with keys has an element that omits key field {name:?} (and doesn't have default value)"
                ));
            }
        }
    }
    Ok(element::key(&fields))
}

struct Walk {
    wrong: Vec<String>,
    /// Whether duplicates and strangers are faults.
    strict: bool,
}

/// More faults than this are not looked for: a body can be made of nothing else.
const FAULTS_MAX: usize = 100;

impl Walk {
    fn fault(&mut self, path: &str, why: &str) {
        if self.strict && self.wrong.len() < FAULTS_MAX {
            self.wrong.push(if path.is_empty() {
                why.to_owned()
            } else {
                format!("{path}: {why}")
            });
        }
    }

    /// The path below an element; not made where nobody asks for it.
    fn path(&self, path: &str, element: &str) -> String {
        if self.strict {
            format!("{path}{}", element::shown(element))
        } else {
            String::new()
        }
    }

    fn value(&mut self, of: Type<'_>, value: &Value, path: &str) -> Node {
        if let Some(why) = of.mismatch(value) {
            self.fault(path, &why);
            return Node::leaf();
        }
        match (of.relation(value), value) {
            (Relation::Leaf, _) => Node::leaf(),
            (Relation::Fields, Value::Object(fields)) => self.fields(of, fields, path),
            (relation @ (Relation::Set | Relation::Keyed), Value::Array(items)) => {
                self.items(of, relation, items, path)
            }
            // Null, and what was said to be a fault.
            _ => Node::default(),
        }
    }

    fn fields(
        &mut self,
        of: Type<'_>,
        fields: &serde_json::Map<String, Value>,
        path: &str,
    ) -> Node {
        let mut branches = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let element = element::field(name);
            let path = self.path(path, &element);
            let Some(below) = of.field(name) else {
                self.fault(&path, "field not declared in schema");
                if !self.strict {
                    branches.push((element, Node::leaf()));
                }
                continue;
            };
            let mut inner = self.value(below.of, value, &path);
            let nothing = match value {
                Value::Null => true,
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            inner.member |= nothing || !below.named;
            branches.push((element, inner));
        }
        Node {
            member: false,
            below: Set::gather(branches),
        }
    }

    fn items(&mut self, of: Type<'_>, relation: Relation, items: &[Value], path: &str) -> Node {
        let keys = of.keys();
        let inner = of.items();
        let mut branches: BTreeMap<Box<str>, Node> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            let element = match item_element(relation, &keys, item) {
                Ok(element) => element,
                Err(why) => {
                    self.fault(path, &format!("element {i}: {why}"));
                    continue;
                }
            };
            let below = self.path(path, &element);
            if self.strict && branches.contains_key(&element) {
                self.fault(
                    path,
                    &format!("duplicate entries for key {}", element::shown(&element)),
                );
                continue;
            }
            let mut inner = self.value(inner, item, &below);
            inner.member = true;
            branches.insert(element, inner);
        }
        Node {
            member: false,
            below: Set::gather(branches.into_iter().collect()),
        }
    }
}

/// The set, and every field of a struct on the way to its members: an applier that owns what is below a named field
/// owns the field, when it comes to removing it.
pub(crate) fn with_named_parents(of: Type<'_>, set: &Set) -> Set {
    let parents = set.branches().map(|(element, node)| {
        let (inner, named) = descend(of, element);
        let below = with_named_parents(inner, &node.below);
        let member = node.member || (named && !below.is_empty());
        (element.into(), Node { member, below })
    });
    Set::gather(parents.collect())
}

/// The type below an element, and whether it is a named field.
pub(crate) fn descend<'a>(of: Type<'a>, element: &str) -> (Type<'a>, bool) {
    match element.strip_prefix("f:") {
        Some(name) => of
            .field(name)
            .map_or((Type::open(), false), |b| (b.of, b.named)),
        None => (of.items(), false),
    }
}
