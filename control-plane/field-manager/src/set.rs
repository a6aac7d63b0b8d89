//! A set of paths into an object, in the shape of `fieldsV1`: a tree whose edges are path elements as they are written
//! there (`f:spec`, `k:{"name":"c"}`, `v:"x"`, `i:0`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::element;

/// A set of paths. Holds no branch that leads to no member.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Set(pub(crate) BTreeMap<Box<str>, Node>);

/// What is below a path element.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    /// Whether the path that ends here is in the set.
    pub(crate) member: bool,
    /// The longer paths.
    pub(crate) below: Set,
}

impl Node {
    pub(crate) fn leaf() -> Self {
        Node {
            member: true,
            below: Set::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a branch in, unless there is nothing in it.
    pub(crate) fn put(&mut self, element: Box<str>, node: Node) {
        if !node.is_empty() {
            self.0.insert(element, node);
        }
    }

    /// What is below an element.
    pub(crate) fn get(&self, element: &str) -> Option<&Node> {
        self.0.get(element)
    }

    /// Takes in every member of the other.
    pub fn extend(&mut self, other: Set) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (element, node) in other.0 {
            let mine = self.0.entry(element).or_default();
            mine.member |= node.member;
            mine.below.extend(node.below);
        }
    }

    /// Takes out every member of the other.
    pub fn subtract(&mut self, other: &Set) {
        if other.is_empty() || self.is_empty() {
            return;
        }
        self.0.retain(|element, mine| {
            if let Some(node) = other.0.get(element) {
                mine.member &= !node.member;
                mine.below.subtract(&node.below);
            }
            !mine.is_empty()
        });
    }

    /// The members that both have.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let mut common = Set::default();
        for (element, mine) in &self.0 {
            if let Some(node) = other.0.get(element) {
                let both = Node {
                    member: mine.member && node.member,
                    below: mine.below.intersection(&node.below),
                };
                common.put(element.clone(), both);
            }
        }
        common
    }

    /// Takes out an element and all that is below it.
    pub(crate) fn cut(&mut self, element: &str) {
        self.0.remove(element);
    }

    /// Every member, as people read paths: `.spec.containers[name="c"].image`. Those that end at an element come before
    /// those that go on.
    pub fn paths(&self) -> Vec<String> {
        fn walk(set: &Set, prefix: &str, out: &mut Vec<String>) {
            let path = |element: &str| format!("{prefix}{}", element::shown(element));
            let ends = set.0.iter().filter(|(_, node)| node.member);
            out.extend(ends.map(|(element, _)| path(element)));
            for (element, node) in &set.0 {
                if !node.below.is_empty() {
                    walk(&node.below, &path(element), out);
                }
            }
        }
        let mut out = Vec::new();
        walk(self, "", &mut out);
        out
    }

    /// As `fieldsV1` writes it.
    pub fn encode(&self) -> Value {
        fn fill(set: &Set, into: &mut Map<String, Value>) {
            for (element, node) in &set.0 {
                let mut below = Map::new();
                if node.member && !node.below.is_empty() {
                    below.insert(".".to_owned(), Value::Object(Map::new()));
                }
                fill(&node.below, &mut below);
                into.insert(element.as_ref().to_owned(), Value::Object(below));
            }
        }
        let mut out = Map::new();
        fill(self, &mut out);
        Value::Object(out)
    }

    /// From `fieldsV1`. Elements of a kind that is not known are left out, as Kubernetes does.
    ///
    /// # Errors
    /// Where something is no object, or an element is not written as its kind asks.
    pub fn decode(fields: &Value) -> Result<Set, String> {
        let object = fields.as_object().ok_or("fieldsV1 must be an object")?;
        let mut set = Set::default();
        for (key, below) in object.iter().filter(|(key, _)| *key != ".") {
            let Some(element) = element::canonical(key)? else {
                continue;
            };
            let inner = Set::decode(below)?;
            let member = inner.is_empty() || below.get(".").is_some();
            let mine = set.0.entry(element).or_default();
            mine.member |= member;
            mine.below.extend(inner);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(value: &Value) -> Set {
        Set::decode(value).unwrap()
    }

    #[test]
    fn fields_come_back_as_they_went() {
        for fields in [
            json!({}),
            json!({"f:a": {}}),
            json!({"f:a": {".": {}, "f:b": {}}, "v:\"x\"": {}, "i:3": {}}),
            json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}),
        ] {
            assert_eq!(set(&fields).encode(), fields);
        }
        // A key's fields are in order of name, and a member that is said twice is one.
        assert_eq!(
            set(&json!({"k:{\"b\": 1, \"a\":2}": {".": {}}})).encode(),
            json!({"k:{\"a\":2,\"b\":1}": {}})
        );
        assert_eq!(set(&json!({"z:what": {}})).encode(), json!({}));
        for wrong in [
            json!([]),
            json!({"f:a": 1}),
            json!({"k:[]": {}}),
            json!({"i:x": {}}),
            json!({"v:{": {}}),
            json!({"f": {}}),
        ] {
            assert!(Set::decode(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sets_are_sets() {
        let a = set(&json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(&json!({"f:a": {"f:b": {}, "f:d": {}}, "f:e": {}}));
        let mut both = a.clone();
        both.extend(b.clone());
        assert_eq!(
            both.encode(),
            json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}, "f:e": {}})
        );
        assert_eq!(a.intersection(&b).encode(), json!({"f:a": {"f:b": {}}}));
        let mut rest = both.clone();
        rest.subtract(&a);
        assert_eq!(rest.encode(), json!({"f:a": {"f:d": {}}, "f:e": {}}));
        assert_eq!(both.paths(), [".a", ".c", ".e", ".a.b", ".a.d"]);
    }
}
