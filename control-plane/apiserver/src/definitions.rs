//! What happens to CustomResourceDefinitions after they are stored: names are accepted or refused, resources are
//! served, and when a definition goes its objects go first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::meta;
use api::table::Resource;
use api::write::{Deletion, Fate};
use custom_resources::conditions::{self, FINALIZER};
use custom_resources::definition::Names;
use custom_resources::row::DEFINITIONS;
use futures_util::StreamExt as _;
use storage::{Entry, Error, Range, Storage, Write};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::object;
use crate::registry::{Registry, Stored};

/// How long to wait before looking again at a definition whose objects are still there, or after the store failed.
const AGAIN: Duration = Duration::from_millis(250);
/// How many objects of a definition that goes are read at once.
const CHUNK: usize = 500;

/// Follows the definitions in the store until the server closes.
pub(crate) async fn follow(
    storage: Arc<dyn Storage>,
    registry: Arc<Registry>,
    closing: watch::Receiver<bool>,
) {
    until_closed(&*storage, &registry, closing).await;
    registry.close();
}

async fn until_closed(
    storage: &dyn Storage,
    registry: &Registry,
    mut closing: watch::Receiver<bool>,
) {
    let mut known = BTreeMap::new();
    while !*closing.borrow() {
        let round = round(storage, registry, &mut known);
        let wait = tokio::select! {
            _ = closing.changed() => return,
            result = round => match result {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "definitions of custom resources cannot be read; trying again");
                    Wait::Short
                }
            },
        };
        let changed = async {
            match wait {
                Wait::Short => tokio::time::sleep(AGAIN).await,
                Wait::Change(mut changes) => {
                    let _ = changes.next().await;
                }
            }
        };
        tokio::select! {
            closed = closing.changed() => if closed.is_err() { return },
            () = changed => {}
        }
    }
}

/// What to wait for before the next look.
enum Wait {
    Short,
    Change(futures_util::stream::BoxStream<'static, Result<storage::WatchEvent, Error>>),
}

/// One look at all definitions: settles what is not settled, and serves what is.
async fn round(
    storage: &dyn Storage,
    registry: &Registry,
    known: &mut BTreeMap<String, Stored>,
) -> Result<Wait, Error> {
    let prefix = DEFINITIONS.key_prefix("");
    let page = storage
        .list(Range {
            prefix: prefix.clone(),
            faulty: true,
            ..Range::default()
        })
        .await?;
    let revision = page.revision;
    read(&page.entries, known);
    registry.update(&ordered(known));
    let mut wrote = false;
    let mut waits = false;
    for stored in ordered(known) {
        if meta::is_terminating(&stored.object) {
            let done = remove(storage, registry, &stored).await?;
            waits |= !done;
            wrote |= done;
        } else {
            wrote |= settle(storage, known, &stored).await?;
        }
    }
    if wrote || waits {
        return Ok(if waits && !wrote {
            Wait::Short
        } else {
            Wait::Change(futures_util::stream::empty().boxed())
        });
    }
    let changes = storage.watch(prefix, Some(revision)).await?;
    // Progress of the store is no change of a definition.
    let changes = changes
        .filter(|event| std::future::ready(!matches!(event, Ok(storage::WatchEvent::Progress(_)))));
    Ok(Wait::Change(changes.boxed()))
}

/// Parses what changed since the last look.
fn read(entries: &[Entry], known: &mut BTreeMap<String, Stored>) {
    known.retain(|key, _| entries.iter().any(|entry| *entry.key == **key));
    // Of one that can't be read, what was read before goes on to hold.
    for entry in entries.iter().filter(|entry| entry.fault().is_none()) {
        let same = known
            .get(&*entry.key)
            .is_some_and(|stored| stored.revision == entry.modified);
        if !same {
            let stored = Stored {
                revision: entry.modified,
                bytes: entry.value.clone(),
                object: object::decode(&DEFINITIONS, entry),
            };
            known.insert(entry.key.to_string(), stored);
        }
    }
}

/// The oldest first: it was there before others wanted its names.
fn ordered(known: &BTreeMap<String, Stored>) -> Vec<Stored> {
    let mut all: Vec<Stored> = known.values().cloned().collect();
    all.sort_by_key(|stored| {
        api::value::text(&stored.object, &["metadata", "creationTimestamp"]).to_owned()
    });
    all
}

/// Whether the status was written.
async fn settle(
    storage: &dyn Storage,
    known: &mut BTreeMap<String, Stored>,
    stored: &Stored,
) -> Result<bool, Error> {
    let group = api::value::text(&stored.object, &["spec", "group"]);
    let name = meta::name(&stored.object);
    let others: Vec<Names> = known
        .values()
        .map(|other| &other.object)
        .filter(|other| {
            meta::name(other) != name && api::value::text(other, &["spec", "group"]) == group
        })
        .map(|other| Names::parse(api::value::at(other, &["status", "acceptedNames"])))
        .collect();
    let mut object = stored.object.clone();
    let now = meta::timestamp(OffsetDateTime::now_utc());
    conditions::settle(&mut object, &others, crate::hooks::is_trust, &now);
    if object == stored.object {
        return Ok(false);
    }
    let written = put(storage, stored, &object).await?;
    if let Some(entry) = known.get_mut(&DEFINITIONS.key("", name)) {
        // The next in line must see the names that this one got.
        entry.object = object;
    }
    Ok(written)
}

async fn put(
    storage: &dyn Storage,
    stored: &Stored,
    object: &serde_json::Value,
) -> Result<bool, Error> {
    let write = Write::Update {
        key: DEFINITIONS.key("", meta::name(object)),
        value: object::encode(object),
        expected: stored.revision,
    };
    raced(storage.write(vec![write]).await)
}

/// Somebody else was quicker: the next look sees what he wrote.
fn raced(result: Result<storage::Revision, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) | Err(Error::Conflict { .. } | Error::NotFound { .. } | Error::Exists { .. }) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Removes the objects of a definition that is to go, then lets it go. Whether the definition was written.
async fn remove(
    storage: &dyn Storage,
    registry: &Registry,
    stored: &Stored,
) -> Result<bool, Error> {
    let object = &stored.object;
    if !meta::finalizers(object)
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
    {
        return Ok(false);
    }
    let now = meta::timestamp(OffsetDateTime::now_utc());
    let mut changed = object.clone();
    let established = conditions::is_true(object, "Established");
    let left = if established {
        empty(storage, registry, object).await?
    } else {
        0
    };
    if left > 0 {
        let message = "CustomResource deletion is in progress";
        conditions::set_condition(
            &mut changed,
            "Terminating",
            true,
            "InstanceDeletionInProgress",
            message,
            &now,
        );
        return if changed == *object {
            Ok(false)
        } else {
            put(storage, stored, &changed).await
        };
    }
    let message = "removed all instances";
    conditions::set_condition(
        &mut changed,
        "Terminating",
        false,
        "InstanceDeletionCompleted",
        message,
        &now,
    );
    let rest: Vec<serde_json::Value> = meta::finalizers(object)
        .iter()
        .filter(|finalizer| *finalizer != FINALIZER)
        .cloned()
        .collect();
    if rest.is_empty() {
        let key = DEFINITIONS.key("", meta::name(object));
        let write = Write::Delete {
            key,
            expected: stored.revision,
        };
        return raced(storage.write(vec![write]).await);
    }
    api::value::set(&mut changed["metadata"], "finalizers", rest);
    put(storage, stored, &changed).await
}

/// Deletes the objects of a definition; how many are still there.
async fn empty(
    storage: &dyn Storage,
    registry: &Registry,
    object: &serde_json::Value,
) -> Result<usize, Error> {
    let definition = custom_resources::Definition::parse(object);
    let row = definition
        .versions
        .iter()
        .find_map(|version| {
            registry.custom(&definition.group, &version.name, &definition.names.plural)
        })
        .map(|served| served.row);
    let mut start = None;
    let mut left = 0;
    loop {
        let range = Range {
            prefix: format!("{}/", definition.storage_prefix()),
            start: start.take(),
            limit: CHUNK,
            faulty: true,
            ..Range::default()
        };
        let page = storage.list(range).await?;
        for entry in &page.entries {
            left += usize::from(!delete(storage, row, entry).await?);
        }
        match page.entries.last().filter(|_| page.remaining > 0) {
            Some(last) => start = Some(format!("{}\0", last.key)),
            None => return Ok(left),
        }
    }
}

/// Whether the object is gone; one with finalizers is marked and stays.
async fn delete(
    storage: &dyn Storage,
    row: Option<&'static Resource>,
    entry: &Entry,
) -> Result<bool, Error> {
    let key = entry.key.to_string();
    let row = row.filter(|_| entry.fault().is_none());
    let fate = row.map(|row| {
        let object = object::decode(row, entry);
        (
            row,
            Deletion::default().fate(row, &object, OffsetDateTime::now_utc()),
        )
    });
    let write = match fate {
        Some((_, Fate::Waits)) => return Ok(false),
        Some((row, Fate::Mark(object))) => {
            let value = crate::write::stored_form(row, &object);
            let write = Write::Update {
                key,
                value,
                expected: entry.modified,
            };
            raced(storage.write(vec![write]).await)?;
            return Ok(false);
        }
        Some((_, Fate::Remove)) | None => Write::Delete {
            key,
            expected: entry.modified,
        },
    };
    match storage.write(vec![write]).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(true),
        Err(Error::Conflict { .. } | Error::Exists { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
