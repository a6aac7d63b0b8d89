//! Which objects of a namespace bear a label: so that a change costs what it touches, at any number of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Names = BTreeSet<Arc<str>>;
type ByValue = BTreeMap<Box<str>, Names>;
type ByKey = BTreeMap<Box<str>, ByValue>;

/// Names by namespace, label key and label value.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    namespaces: BTreeMap<Arc<str>, ByKey>,
}

impl LabelIndex {
    pub(crate) fn insert(&mut self, namespace: &Arc<str>, key: &str, value: &str, name: &Arc<str>) {
        let by_key = self.namespaces.entry(Arc::clone(namespace)).or_default();
        let by_value = by_key.entry(key.into()).or_default();
        by_value
            .entry(value.into())
            .or_default()
            .insert(Arc::clone(name));
    }

    pub(crate) fn remove(&mut self, namespace: &str, key: &str, value: &str, name: &str) {
        let Some(by_key) = self.namespaces.get_mut(namespace) else {
            return;
        };
        if let Some(by_value) = by_key.get_mut(key) {
            if let Some(names) = by_value.get_mut(value) {
                names.remove(name);
                if names.is_empty() {
                    by_value.remove(value);
                }
            }
            if by_value.is_empty() {
                by_key.remove(key);
            }
        }
        if by_key.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    pub(crate) fn get(&self, namespace: &str, key: &str, value: &str) -> Option<&Names> {
        self.namespaces.get(namespace)?.get(key)?.get(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_nothing_behind() {
        let (namespace, a, b): (Arc<str>, Arc<str>, Arc<str>) =
            ("n".into(), "a".into(), "b".into());
        let mut index = LabelIndex::default();
        index.insert(&namespace, "app", "web", &a);
        index.insert(&namespace, "app", "web", &b);
        index.insert(&namespace, "app", "db", &b);
        assert_eq!(index.get("n", "app", "web").map(BTreeSet::len), Some(2));
        assert_eq!(index.get("m", "app", "web"), None);
        for (value, name) in [("web", "a"), ("web", "b"), ("db", "b"), ("db", "b")] {
            index.remove("n", "app", value, name);
        }
        assert!(index.namespaces.is_empty());
    }
}
