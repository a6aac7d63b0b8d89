//! What one object has that another has not.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::collect::item_element;
use crate::element;
use crate::set::{Node, Set};
use crate::types::{Relation, Type};

/// The difference between two objects.
#[derive(Default, Debug)]
pub(crate) struct Comparison {
    /// What is new or has another value.
    pub(crate) changed: Set,
    /// What is gone.
    pub(crate) removed: Set,
}

impl Comparison {
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What changed on the way from `old` to `new`.
pub(crate) fn compare(of: Type<'_>, old: &Value, new: &Value) -> Comparison {
    let (changed, removed) = values(of, Some(old), Some(new));
    Comparison {
        changed: changed.below,
        removed: removed.below,
    }
}

type Nodes = (Node, Node);

fn values(of: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Nodes {
    // Most of what is below a change is as it was. Looking whether it is costs a fraction of walking it by its type.
    if old.is_some() && old == new {
        return Nodes::default();
    }
    let shown = match (old, new) {
        (None, None) => return Nodes::default(),
        (Some(Value::Null), Some(new)) => new,
        (Some(old), _) => old,
        (None, Some(new)) => new,
    };
    let relation = of.relation(shown);
    if let (Some(old), Some(new)) = (old, new)
        && !old.is_null()
        && !new.is_null()
        && relation != of.relation(new)
    {
        return unlike(of, Some(old), Some(new));
    }
    let mut nodes = match relation {
        Relation::Leaf => return leaf(old, new),
        Relation::Fields => {
            let (Some(before), Some(after)) = (fields(old), fields(new)) else {
                return unlike(of, old, new);
            };
            if before.is_none_or(serde_json::Map::is_empty)
                && after.is_none_or(serde_json::Map::is_empty)
            {
                return empties(of, old, new);
            }
            members(of, old, new)
        }
        relation @ (Relation::Set | Relation::Keyed) => {
            let (Some(before), Some(after)) = (items(old), items(new)) else {
                return unlike(of, old, new);
            };
            if before.is_empty() && after.is_empty() {
                return empties(of, old, new);
            }
            match list(of, relation, before, after) {
                Some(nodes) => nodes,
                None => return leaf(old, new),
            }
        }
    };
    nodes.0.member |= old.is_none();
    nodes.1.member |= new.is_none();
    nodes
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Nodes {
    match (old, new) {
        (None, Some(_)) => (Node::leaf(), Node::default()),
        (Some(_), None) => (Node::default(), Node::leaf()),
        (old, new) if old == new => Nodes::default(),
        _ => (Node::leaf(), Node::default()),
    }
}

/// Nothing on both sides, which may yet be different kinds of nothing.
fn empties(of: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Nodes {
    if of.built() && old.is_some() && new.is_some() {
        Nodes::default()
    } else {
        leaf(old, new)
    }
}

/// Values of different kinds: the one goes and the other comes.
fn unlike(of: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Nodes {
    if old.is_none() || new.is_none() {
        return leaf(old, new);
    }
    let (mut changed, _) = values(of, None, new);
    let (_, mut removed) = values(of, old, None);
    changed.member = true;
    removed.member = false;
    (changed, removed)
}

/// The fields of what should be an object; the outer `None`: it is something else.
#[expect(
    clippy::option_option,
    reason = "absent and null are objects without fields"
)]
fn fields(value: Option<&Value>) -> Option<Option<&serde_json::Map<String, Value>>> {
    match value {
        None | Some(Value::Null) => Some(None),
        Some(Value::Object(fields)) => Some(Some(fields)),
        Some(_) => None,
    }
}

fn items(value: Option<&Value>) -> Option<&[Value]> {
    match value {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(items)) => Some(items),
        Some(_) => None,
    }
}

fn members(of: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Nodes {
    let mut both = Branches::default();
    let mut member = |name: &str, before: Option<&Value>, after: Option<&Value>| {
        let below = of.field(name);
        if below.is_none() && of.built() {
            // Kubernetes' own form of the object has no place for it, so that nobody owns it.
            return;
        }
        let inner = below.map_or(Type::open(), |b| b.of);
        let always = below.is_some_and(|b| b.always);
        let (changed, removed) = values(
            inner,
            inner.standing(before, always && old.is_some()),
            inner.standing(after, always && new.is_some()),
        );
        both.put(|| element::field(name), changed, removed);
    };
    let before = old.and_then(Value::as_object);
    let after = new.and_then(Value::as_object);
    for (name, value) in before.into_iter().flatten() {
        member(name, Some(value), after.and_then(|a| a.get(name)));
    }
    for (name, value) in after.into_iter().flatten() {
        if before.is_none_or(|b| !b.contains_key(name)) {
            member(name, None, Some(value));
        }
    }
    both.nodes()
}

/// The branches of both halves of a difference, as they are found.
#[derive(Default)]
struct Branches {
    changed: Vec<(Box<str>, Node)>,
    removed: Vec<(Box<str>, Node)>,
}

impl Branches {
    fn put(&mut self, element: impl Fn() -> Box<str>, changed: Node, removed: Node) {
        if !changed.is_empty() {
            self.changed.push((element(), changed));
        }
        if !removed.is_empty() {
            self.removed.push((element(), removed));
        }
    }

    fn nodes(self) -> Nodes {
        let node = |branches| Node {
            member: false,
            below: Set::gather(branches),
        };
        (node(self.changed), node(self.removed))
    }
}

/// `None`: an item does not say which it is, so that the list is one value.
fn list(of: Type<'_>, relation: Relation, old: &[Value], new: &[Value]) -> Option<Nodes> {
    let keys = of.keys();
    let index = |items| -> Option<BTreeMap<Box<str>, Vec<&Value>>> {
        let mut index: BTreeMap<Box<str>, Vec<&Value>> = BTreeMap::new();
        for item in items {
            let element = item_element(relation, &keys, item).ok()?;
            index.entry(element).or_default().push(item);
        }
        Some(index)
    };
    let (before, after) = (index(old)?, index(new)?);
    let inner = of.items();
    let mut both = Branches::default();
    let none = Vec::new();
    let all = before
        .keys()
        .chain(after.keys().filter(|k| !before.contains_key(*k)));
    for element in all {
        let (b, a) = (
            before.get(element).unwrap_or(&none),
            after.get(element).unwrap_or(&none),
        );
        let (changed, removed) = match (b.as_slice(), a.as_slice()) {
            ([] | [_], [] | [_]) => values(inner, b.first().copied(), a.first().copied()),
            // An item that comes more than once is owned as a whole.
            (b, a) if b == a => continue,
            (_, []) => (Node::default(), Node::leaf()),
            _ => (Node::leaf(), Node::default()),
        };
        both.put(|| element.clone(), changed, removed);
    }
    Some(both.nodes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(name: &str) -> Type<'static> {
        Type::built_in(api::schema::find(name).unwrap())
    }

    #[test]
    fn what_changed_and_what_went() {
        let service = schema("io.k8s.api.core.v1.Service");
        let custom = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                          "items": {"type": "object", "properties": {"name": {"type": "string", "default": "main"}, "size": {"type": "integer"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            }},
        }});
        let custom = Type::custom(&custom);
        #[rustfmt::skip]
        let cases = [
            (service, json!({}), json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": {"a": "b"}}}),
             json!({"f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}, "f:selector": {}}}), json!({})),
            // A key that is left out has its default.
            (service, json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}), json!({"spec": {"ports": [{"port": 80, "name": "x"}]}}),
             json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}}}),
             json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:protocol": {}}}}})),
            (service, json!({"metadata": {"labels": {"a": "1", "b": "1"}}}), json!({"metadata": {"labels": {"a": "2"}}}),
             json!({"f:metadata": {"f:labels": {"f:a": {}}}}), json!({"f:metadata": {"f:labels": {"f:b": {}}}})),
            (service, json!({"metadata": {"labels": {"a": "1"}}}), json!({"metadata": {}}),
             json!({}), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}})),
            // Nothing and nothing of another kind are the same where Kubernetes has a struct.
            (service, json!({"spec": {"ports": null}}), json!({"spec": {"ports": []}, "status": {}}), json!({}), json!({})),
            (custom, json!({"spec": {"free": null}}), json!({"spec": {"free": {}}}), json!({"f:spec": {"f:free": {}}}), json!({})),
            (custom, json!({}), json!({"spec": {"tags": ["x"], "free": {"deep": {"er": 1}}, "whole": {"a": "b"}}}),
             json!({"f:spec": {".": {}, "f:free": {".": {}, "f:deep": {".": {}, "f:er": {}}}, "f:tags": {".": {}, "v:\"x\"": {}}, "f:whole": {}}}), json!({})),
            (custom, json!({"spec": {"parts": [{"size": 1}]}}), json!({"spec": {"parts": [{"name": "main", "size": 2}, {"name": "b"}]}}),
             json!({"f:spec": {"f:parts": {"k:{\"name\":\"b\"}": {".": {}, "f:name": {}}, "k:{\"name\":\"main\"}": {"f:name": {}, "f:size": {}}}}}), json!({})),
            // Items that come twice are owned as one.
            (custom, json!({"spec": {"tags": ["x"]}}), json!({"spec": {"tags": ["x", "x"]}}), json!({"f:spec": {"f:tags": {"v:\"x\"": {}}}}), json!({})),
            (custom, json!({"spec": {"free": {"a": [1]}}}), json!({"spec": {"free": {"a": {"b": 1}}}}),
             json!({"f:spec": {"f:free": {"f:a": {".": {}, "f:b": {}}}}}), json!({})),
        ];
        for (of, old, new, changed, removed) in cases {
            let found = compare(of, &old, &new);
            assert_eq!(found.changed.encode(), changed, "{old} -> {new}");
            assert_eq!(found.removed.encode(), removed, "{old} -> {new}");
            assert!(compare(of, &new, &new).is_empty());
        }
    }
}
