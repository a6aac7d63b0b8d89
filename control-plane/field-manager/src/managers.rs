//! The two ways to come to own fields: by writing them, and by applying them.

use std::collections::BTreeMap;

use api::value::{self, at, list, text};
use serde_json::{Map, Value};

use crate::attempt::{Attempt, Conflicts};
use crate::collect::collect;
use crate::compare::{Comparison, compare};
use crate::entries::{Key, Managers, Owned};
use crate::last_applied;
use crate::refusal::Refusal;
use crate::set::{Node, Set};
use crate::types::Type;
use crate::versions::Differences;

/// More entries of updates than this are not kept apart: the oldest become one.
const UPDATERS_MAX: usize = 10;
/// The manager of fields that were set before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager of updates that are too many to be told apart.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// Metadata that nobody owns.
const NOBODYS: [&str; 9] = [
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:clusterName",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
];

/// Who writes, and which part of the object.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The name of the manager; see [`crate::manager_name`].
    pub manager: &'a str,
    /// Empty for the object as a whole.
    pub subresource: &'a str,
    /// Group and version of the object.
    pub api_version: &'a str,
    /// RFC 3339, to the second.
    pub now: &'a str,
    /// Whether the status has a path of its own and is out of reach here.
    pub without_status: bool,
}

impl Writer<'_> {
    pub(crate) fn key(&self, applies: bool) -> Key {
        self.key_of(self.manager, applies)
    }

    fn key_of(&self, manager: &str, applies: bool) -> Key {
        Key {
            applies,
            manager: manager.to_owned(),
            api_version: if applies {
                String::new()
            } else {
                self.api_version.to_owned()
            },
            subresource: self.subresource.to_owned(),
        }
    }

    /// Takes out what nobody owns, and what a write through this path cannot change.
    pub(crate) fn reduce(&self, set: &mut Set) {
        set.retain(|element, node| {
            let out_of_reach = match element {
                "f:apiVersion" | "f:kind" => true,
                "f:status" => self.without_status,
                "f:metadata" => false,
                _ => self.subresource == "status",
            };
            if out_of_reach {
                *node = Node::default();
            } else if element == "f:metadata" {
                node.member = false;
                node.below.retain(|name, node| {
                    if NOBODYS.contains(&name) {
                        *node = Node::default();
                    }
                });
            }
        });
    }

    pub(crate) fn difference(&self, of: Type<'_>, old: &Value, new: &Value) -> Comparison {
        let mut found = compare(of, old, new);
        self.reduce(&mut found.changed);
        self.reduce(&mut found.removed);
        found
    }
}

/// Records in `new` what it changes of `live`. To be called with an object that has its defaults; `live` is `None`
/// where the object is new. What the client sent as `managedFields` is heeded as Kubernetes heeds it: a list with one
/// empty entry gives up all records, and a list that cannot be read is ignored.
pub fn track(of: Type<'_>, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    static NOTHING: Value = Value::Null;
    let sent = take_entries(new);
    let stored = list(live.unwrap_or(&NOTHING), &["metadata", "managedFields"]);
    let sent = if writer.subresource.is_empty() {
        sent
    } else {
        Vec::new()
    };
    if is_reset(&sent) {
        return;
    }
    // What the client read and sends back says nothing new.
    let own = if sent == stored {
        None
    } else {
        Managers::decode(&sent).ok()
    };
    let own = own.filter(|managers| !managers.0.is_empty());
    if live.is_some() && own.is_none() && stored.is_empty() {
        // Nobody's records are kept since somebody gave them up; the next apply begins anew.
        return;
    }
    let empty = Value::Object(Map::new());
    let (given, live) = (own.is_some(), live.unwrap_or(&empty));
    let managers = own.unwrap_or_else(|| Managers::decode(stored).unwrap_or_default());
    let found = Differences::new(of, live, new, writer, &managers);
    if !given && found.own.is_empty() {
        put_entries(new, stored.to_vec());
        return;
    }
    let managers = updated(managers, found, writer);
    put_entries(new, managers.encode());
}

/// After a write that made this difference.
fn updated(mut managers: Managers, found: Differences, writer: &Writer<'_>) -> Managers {
    let key = writer.key(false);
    for (other, owned) in &mut managers.0 {
        let Comparison { changed, removed } = found.to(owned);
        if *other != key {
            owned.fields.subtract(changed);
        }
        owned.fields.subtract(removed);
    }
    managers.drop_empty();
    let changed = found.own.changed;
    if !changed.is_empty() {
        let own = managers.0.entry(key).or_insert_with(|| Owned {
            fields: Set::default(),
            time: None,
            api_version: String::new(),
        });
        own.fields.extend(changed);
        own.time = Some(writer.now.to_owned());
        writer.api_version.clone_into(&mut own.api_version);
    }
    cap(&mut managers);
    managers
}

/// Merges the oldest updates of each version where there are too many.
fn cap(managers: &mut Managers) {
    let mut updaters: Vec<Key> = managers.0.keys().filter(|k| !k.applies).cloned().collect();
    let mut left = updaters.len();
    if left <= UPDATERS_MAX {
        return;
    }
    updaters.sort_by_key(|key| managers.0.get(key).and_then(|owned| owned.time.clone()));
    let mut first_of: BTreeMap<String, Key> = BTreeMap::new();
    for key in updaters {
        if left <= UPDATERS_MAX {
            return;
        }
        let Some(first) = first_of.get(&key.api_version) else {
            first_of.insert(key.api_version.clone(), key);
            continue;
        };
        let bucket = Key {
            applies: false,
            manager: ANCIENT_CHANGES.to_owned(),
            api_version: key.api_version.clone(),
            subresource: String::new(),
        };
        if let Some(owned) = managers.0.remove(first) {
            managers.0.insert(bucket.clone(), owned);
        }
        first_of.insert(key.api_version.clone(), bucket.clone());
        if key != bucket
            && let Some(owned) = managers.0.remove(&key)
            && let Some(merged) = managers.0.get_mut(&bucket)
        {
            merged.fields.extend(owned.fields);
            merged.time = owned.time;
            left -= 1;
        }
    }
}

/// What becomes of `live` when `config` is applied to it; its `managedFields` say who owns what then. An object that
/// is equal to `live` is one that need not be written. Defaults are the caller's to fill in.
///
/// # Errors
/// Conflicts unless `force`, and whatever keeps the two from being merged.
pub fn apply(
    of: Type<'_>,
    live: &Value,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Refusal> {
    if !at(config, &["metadata", "managedFields"]).is_null() {
        return Err(Refusal::BadRequest(
            "metadata.managedFields must be nil".into(),
        ));
    }
    let mut live = live.clone();
    let stored = take_entries(&mut live);
    let before = Managers::decode(&stored)
        .map_err(|why| Refusal::Failed(format!("failed to decode managed fields: {why}")))?;
    let mut managers = before.clone();
    if managers.0.is_empty() {
        let empty = Value::Object(Map::new());
        let set = writer.difference(of, &empty, &live).changed;
        let owned = Owned {
            fields: set,
            time: Some(writer.now.to_owned()),
            api_version: writer.api_version.to_owned(),
        };
        managers
            .0
            .insert(writer.key_of(BEFORE_FIRST_APPLY, false), owned);
        managers.drop_empty();
    }
    let claimed = collect(of, config).map_err(|why| {
        let name = format!(
            "{}/{}; {}",
            text(config, &["metadata", "namespace"]),
            text(config, &["metadata", "name"]),
            group_version_kind(config)
        );
        Refusal::Failed(format!(
            "failed to create typed patch object ({name}): {why}"
        ))
    })?;
    let attempt = Attempt {
        of,
        live: &live,
        config,
        writer,
        claimed,
    };
    let result = attempt.carry_out(managers.clone(), force);
    let result = match result {
        Err(conflicts) if writer.manager == last_applied::MANAGER => {
            match last_applied::allowed(of, &live, writer.api_version) {
                Some(allowed) => {
                    let left = without(conflicts, &allowed);
                    if left.is_empty() {
                        attempt.carry_out(managers, true)
                    } else {
                        Err(left)
                    }
                }
                None => Err(conflicts),
            }
        }
        result => result,
    };
    let (mut object, mut managers) = result.map_err(|conflicts| {
        let told = conflicts
            .iter()
            .flat_map(|(key, set)| set.paths().into_iter().map(|path| (key.into(), path)));
        Refusal::Conflicts(told.collect())
    })?;
    if writer.manager == last_applied::MANAGER {
        last_applied::renew(&mut object, config);
    }
    let own = writer.key(true);
    let changed = object != live;
    let same = before.same_fields(&managers);
    if let Some(owned) = managers.0.get_mut(&own)
        && (changed || before.0.get(&own).is_none_or(|o| o.fields != owned.fields))
    {
        owned.time = Some(writer.now.to_owned());
    }
    let entries = if same && !changed {
        stored
    } else {
        managers.encode()
    };
    put_entries(&mut object, entries);
    Ok(object)
}

fn without(conflicts: Conflicts, allowed: &Set) -> Conflicts {
    let rest = conflicts.into_iter().map(|(key, mut set)| {
        set.subtract(allowed);
        (key, set)
    });
    rest.filter(|(_, set)| !set.is_empty()).collect()
}

fn take_entries(object: &mut Value) -> Vec<Value> {
    let entries = object
        .get_mut("metadata")
        .and_then(|metadata| value::remove(metadata, "managedFields"));
    match entries {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    }
}

fn put_entries(object: &mut Value, entries: Vec<Value>) {
    if !entries.is_empty()
        && let Some(metadata) = value::object_mut(object, "metadata")
    {
        value::set(metadata, "managedFields", entries);
    }
}

/// `managedFields: [{}]` gives up every record.
fn is_reset(entries: &[Value]) -> bool {
    matches!(entries, [one] if one.as_object().is_some_and(Map::is_empty))
}

/// As Go prints it: `apps/v1, Kind=Deployment`.
fn group_version_kind(object: &Value) -> String {
    format!(
        "{}, Kind={}",
        group_version(text(object, &["apiVersion"])),
        text(object, &["kind"])
    )
}

fn group_version(api_version: &str) -> String {
    // The core group has no name: "/v1".
    if api_version.contains('/') {
        api_version.to_owned()
    } else {
        format!("/{api_version}")
    }
}
