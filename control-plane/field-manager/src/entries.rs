//! `metadata.managedFields`: a manager and its fields an entry.

use std::collections::BTreeMap;

use api::value::{at, text};
use serde_json::Value;

use crate::set::Set;

/// The most bytes in the name of a manager.
pub const NAME_MAX: usize = 128;

/// What tells managers apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) applies: bool,
    pub(crate) manager: String,
    /// Empty for appliers: they go on being themselves when they change to another version.
    pub(crate) api_version: String,
    pub(crate) subresource: String,
}

/// What a manager owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owned {
    pub(crate) fields: Set,
    /// Of the newest write that took fields, RFC 3339.
    pub(crate) time: Option<String>,
    /// The version that the fields are of.
    pub(crate) api_version: String,
}

/// Every manager of an object.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Managers(pub(crate) BTreeMap<Key, Owned>);

/// The name that a write goes by: what the client says, or what its program is called in its User-Agent.
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let program = user_agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for c in program.chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        name.push(c);
    }
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}

impl Key {
    /// As conflicts name it.
    pub(crate) fn shown(&self) -> String {
        let mut out = api::field::quoted(&self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(
                " with subresource {}",
                api::field::quoted(&self.subresource)
            ));
        }
        if !self.applies {
            out.push_str(&format!(" using {}", self.api_version));
        }
        out
    }
}

impl Managers {
    /// From the list in an object's metadata.
    ///
    /// # Errors
    /// What is wrong with the first entry that is not valid.
    pub(crate) fn decode(entries: &[Value]) -> Result<Self, String> {
        let mut managers = BTreeMap::new();
        for (i, entry) in entries.iter().enumerate() {
            let applies = match text(entry, &["operation"]) {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            let api_version = text(entry, &["apiVersion"]);
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text(entry, &["fieldsType"]) {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => {
                    return Err(format!(
                        "invalid fieldsType {other:?} in managed fields entry {i}"
                    ));
                }
            }
            let key = Key {
                applies,
                manager: text(entry, &["manager"]).to_owned(),
                api_version: if applies {
                    String::new()
                } else {
                    api_version.to_owned()
                },
                subresource: text(entry, &["subresource"]).to_owned(),
            };
            let fields = match at(entry, &["fieldsV1"]) {
                Value::Null => Set::default(),
                fields => Set::decode(fields).map_err(|why| {
                    format!("error decoding versioned set for {}: {why}", key.shown())
                })?,
            };
            let owned = Owned {
                fields,
                time: at(entry, &["time"]).as_str().map(str::to_owned),
                api_version: api_version.to_owned(),
            };
            managers.insert(key, owned);
        }
        Ok(Managers(managers))
    }

    /// The list for an object's metadata, in Kubernetes' order: appliers first, then by time and name.
    pub(crate) fn encode(self) -> Vec<Value> {
        let mut sorted: Vec<(Key, Owned)> = self.0.into_iter().collect();
        sorted.sort_by(|(a, x), (b, y)| {
            b.applies
                .cmp(&a.applies)
                .then_with(|| x.time.cmp(&y.time))
                .then_with(|| a.manager.cmp(&b.manager))
                .then_with(|| x.api_version.cmp(&y.api_version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
        let entry = |(key, owned): (Key, Owned)| {
            let mut entry = serde_json::Map::new();
            let mut set = |name: &str, value: Value| entry.insert(name.to_owned(), value);
            set("manager", key.manager.into());
            set(
                "operation",
                if key.applies { "Apply" } else { "Update" }.into(),
            );
            set("apiVersion", owned.api_version.into());
            set("fieldsType", "FieldsV1".into());
            set("fieldsV1", owned.fields.encode());
            if let Some(time) = owned.time {
                set("time", time.into());
            }
            if !key.subresource.is_empty() {
                set("subresource", key.subresource.into());
            }
            Value::Object(entry)
        };
        sorted.into_iter().map(entry).collect()
    }

    /// Forgets those who own nothing.
    pub(crate) fn drop_empty(&mut self) {
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Whether the same managers own the same fields, at whatever times.
    pub(crate) fn same_fields(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|((a, x), (b, y))| {
                a == b && x.fields == y.fields && x.api_version == y.api_version
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_without_a_name_are_called_by_their_program() {
        let long = "x".repeat(300);
        for (manager, agent, name) in [
            ("me", "kubectl/v1.33", "me"),
            (
                "",
                "kubectl/v1.33.1 (linux/amd64) kubernetes/8adc0f0",
                "kubectl",
            ),
            ("", "curl", "curl"),
            ("", "a\u{7}b/1", "ab"),
            ("", "", "unknown"),
            ("", "/x", "unknown"),
            ("", long.as_str(), &long[..NAME_MAX]),
        ] {
            assert_eq!(manager_name(manager, agent), name);
        }
    }
}
