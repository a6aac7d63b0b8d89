//! A set of paths into an object, in the shape of `fieldsV1`: a tree whose edges are path elements as they are written
//! there (`f:spec`, `k:{"name":"c"}`, `v:"x"`, `i:0`).

use serde_json::{Map, Value};

use crate::element;

/// A set of paths. Holds no branch that leads to no member, and its branches in order of element: a sorted list is
/// built and walked at a fraction of the cost of a tree of small maps, and every write of an object builds one.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Set(Vec<(Box<str>, Node)>);

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

    /// Of branches in any order; those of one element become one.
    pub(crate) fn gather(mut branches: Vec<(Box<str>, Node)>) -> Self {
        branches.retain(|(_, node)| !node.is_empty());
        branches.sort_by(|(a, _), (b, _)| a.cmp(b));
        branches.dedup_by(|(later, node), (earlier, kept)| {
            let same = later == earlier;
            if same {
                kept.member |= node.member;
                kept.below.extend(std::mem::take(&mut node.below));
            }
            same
        });
        Set(branches)
    }

    /// What is below an element.
    pub(crate) fn get(&self, element: &str) -> Option<&Node> {
        let found = self.0.binary_search_by(|(e, _)| (**e).cmp(element));
        found.ok().map(|at| &self.0[at].1)
    }

    /// The branches, in order of element.
    pub(crate) fn branches(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(element, node)| (&**element, node))
    }

    /// Changes the branches, and drops those in which nothing is left.
    pub(crate) fn retain(&mut self, mut change: impl FnMut(&str, &mut Node)) {
        self.0.retain_mut(|(element, node)| {
            change(element, node);
            !node.is_empty()
        });
    }

    /// Takes in every member of the other.
    pub fn extend(&mut self, other: Set) {
        if self.is_empty() {
            *self = other;
            return;
        }
        // Two sorted runs, which the sort merges in one pass.
        let mut branches = std::mem::take(&mut self.0);
        branches.extend(other.0);
        *self = Set::gather(branches);
    }

    /// Takes out every member of the other.
    pub fn subtract(&mut self, other: &Set) {
        if other.is_empty() {
            return;
        }
        self.retain(|element, mine| {
            if let Some(node) = other.get(element) {
                mine.member &= !node.member;
                mine.below.subtract(&node.below);
            }
        });
    }

    /// The members that both have.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let common = self.0.iter().filter_map(|(element, mine)| {
            let node = other.get(element)?;
            let both = Node {
                member: mine.member && node.member,
                below: mine.below.intersection(&node.below),
            };
            Some((element.clone(), both))
        });
        Set::gather(common.collect())
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
    pub fn encode(self) -> Value {
        let below = |node: Node| {
            if node.below.is_empty() {
                return Value::Object(Map::new());
            }
            let mut fields = node.below.encode();
            if node.member
                && let Value::Object(fields) = &mut fields
            {
                fields.insert(".".to_owned(), Value::Object(Map::new()));
            }
            fields
        };
        let entries = self
            .0
            .into_iter()
            .map(|(e, node)| (e.into_string(), below(node)));
        Value::Object(entries.collect())
    }

    /// From `fieldsV1`. Elements of a kind that is not known are left out, as Kubernetes does.
    ///
    /// # Errors
    /// Where something is no object, or an element is not written as its kind asks.
    pub fn decode(fields: &Value) -> Result<Set, String> {
        let object = fields.as_object().ok_or("fieldsV1 must be an object")?;
        let mut branches = Vec::with_capacity(object.len());
        for (key, below) in object.iter().filter(|(key, _)| *key != ".") {
            let Some(element) = element::canonical(key)? else {
                continue;
            };
            let inner = Set::decode(below)?;
            let member = inner.is_empty() || below.get(".").is_some();
            branches.push((
                element,
                Node {
                    member,
                    below: inner,
                },
            ));
        }
        Ok(Set::gather(branches))
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
            both.clone().encode(),
            json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}, "f:e": {}})
        );
        assert_eq!(a.intersection(&b).encode(), json!({"f:a": {"f:b": {}}}));
        let mut rest = both.clone();
        rest.subtract(&a);
        assert_eq!(rest.encode(), json!({"f:a": {"f:d": {}}, "f:e": {}}));
        assert_eq!(both.paths(), [".a", ".c", ".e", ".a.b", ".a.d"]);
    }
}
