//! Which item of a list before an update is the same as one after it: only lists that are maps tell.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::schema::{ListType, Schema};

/// The items of a list before an update, by key.
pub(crate) struct Items<'a> {
    keys: &'a [Box<str>],
    by_key: BTreeMap<String, &'a Value>,
    of: &'a Schema,
}

impl<'a> Items<'a> {
    pub(crate) fn of(schema: &'a Schema, old: Option<&'a Value>) -> Self {
        let keys: &[Box<str>] = match &schema.list {
            ListType::Map(keys) => keys,
            ListType::Atomic | ListType::Set => &[],
        };
        let mut items = Items {
            keys,
            by_key: BTreeMap::new(),
            of: schema,
        };
        if !keys.is_empty() {
            for item in old.and_then(Value::as_array).into_iter().flatten() {
                let key = items.key(item);
                items.by_key.entry(key).or_insert(item);
            }
        }
        items
    }

    /// The item that had the keys of this one.
    pub(crate) fn get(&self, item: &Value) -> Option<&'a Value> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&self.key(item)).copied()
    }

    fn key(&self, item: &Value) -> String {
        key_of(self.of, self.keys, item)
    }
}

/// The keys of an item as one text; an absent key counts as its default.
pub(crate) fn key_of(list: &Schema, keys: &[Box<str>], item: &Value) -> String {
    let mut all = String::new();
    for key in keys {
        let value = item.get(&**key).or_else(|| {
            let schema = list.items.as_deref()?.property(key)?;
            schema.default.as_deref()
        });
        all.push_str(&value.unwrap_or(&Value::Null).to_string());
        all.push('\u{1f}');
    }
    all
}
