//! Objects as they are in the versions of their managers. What somebody owns is told by fields of the version that he
//! wrote in: where another version has other fields for the same, the two are compared in his.

use std::collections::BTreeMap;

use api::table::{self, Resource};
use api::value::{set, text};
use serde_json::Value;

use crate::compare::Comparison;
use crate::entries::{Managers, Owned};
use crate::managers::Writer;
use crate::types::Type;

/// An object in another version of its kind, and how that merges. `None` where its fields are the same there, or nobody
/// knows them.
pub(crate) fn form(object: &Value, api_version: &str) -> Option<(Type<'static>, Value)> {
    let met = text(object, &["apiVersion"]);
    if met == api_version {
        return None;
    }
    let kind = text(object, &["kind"]);
    let (from, to) = (row(met, kind)?, row(api_version, kind)?);
    let stored_alike = from.storage_prefix == to.storage_prefix;
    if !stored_alike || (from.conversion.is_none() && to.conversion.is_none()) {
        return None;
    }
    let of = of(api_version, kind)?;
    let mut object = object.clone();
    if let Some(conversion) = &from.conversion {
        (conversion.to_stored)(&mut object);
    }
    if let Some(conversion) = &to.conversion {
        (conversion.from_stored)(&mut object);
    }
    set(&mut object, "apiVersion", api_version);
    for part in ["spec", "status"] {
        if let Some(Value::Object(members)) = object.get_mut(part) {
            // What a conversion leaves empty has no place in what Kubernetes writes.
            members.retain(|_, value| {
                !(value.is_null() || value.as_array().is_some_and(Vec::is_empty))
            });
        }
    }
    Some((of, object))
}

/// How built-in objects of a version and kind merge.
pub(crate) fn of(api_version: &str, kind: &str) -> Option<Type<'static>> {
    api::schema::of(row(api_version, kind)?).map(Type::built_in)
}

fn row(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    table::find_kind(group, version, kind)
}

/// What a write changes, in each version that somebody knows the object in.
pub(crate) struct Differences {
    /// In the writer's.
    pub(crate) own: Comparison,
    elsewhere: BTreeMap<String, Comparison>,
}

impl Differences {
    pub(crate) fn new(
        of: Type<'_>,
        old: &Value,
        new: &Value,
        writer: &Writer<'_>,
        managers: &Managers,
    ) -> Self {
        let mut elsewhere = BTreeMap::new();
        for owned in managers.0.values() {
            let version = &owned.api_version;
            if *version == writer.api_version || elsewhere.contains_key(version) {
                continue;
            }
            if let (Some((of, old)), Some((_, new))) = (form(old, version), form(new, version)) {
                elsewhere.insert(version.clone(), writer.difference(of, &old, &new));
            }
        }
        Differences {
            own: writer.difference(of, old, new),
            elsewhere,
        }
    }

    /// In the words of whoever owns this.
    pub(crate) fn to(&self, owned: &Owned) -> &Comparison {
        self.elsewhere.get(&owned.api_version).unwrap_or(&self.own)
    }
}
