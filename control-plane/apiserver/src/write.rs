//! Read, change, write: how an object that exists is changed, with retries when somebody else was quicker.

use admission::Operation;
use api::meta;
use api::status::Status;
use api::table::Resource;
use api::write::{self, Fate, Part};
use bytes::Bytes;
use serde_json::Value;
use storage::{Entry, Error, Revision, Write};

use crate::access;
use crate::admit;
use crate::allocate::Grant;
use crate::handlers::{Call, storage_failure};
use crate::hooks::conversion;
use crate::object;

/// How often a write is tried again before the client is asked to.
const TRIES: usize = 32;

/// What a write came to.
pub(crate) struct Written {
    /// The stored form, in the version that was asked for.
    pub(crate) stored: Bytes,
    pub(crate) revision: Revision,
}

/// What a request wants of the object that stands there.
pub(crate) enum Wish {
    /// A full change, as PUT and PATCH make it: to be admitted and checked against what stands there.
    Change {
        new: Value,
        part: Part,
        managers: Managers,
    },
    /// A deletion, to be admitted.
    Delete(Fate),
    /// Store this in its place as it is; its resourceVersion, if any, must be the current one.
    Put(Value),
    /// Leave it as it is.
    Keep,
}

/// What becomes of the object.
enum Next {
    Put(Value),
    Remove,
    Keep,
}

/// Changes the object that the call names. `decide` is given the object as it stands, and again after each time that
/// somebody else wrote in between.
pub(crate) async fn modify(
    call: &Call,
    dry_run: bool,
    mut decide: impl FnMut(&Value) -> Result<Wish, Status>,
) -> Result<Written, Status> {
    let key = call.key();
    for _ in 0..TRIES {
        let entry = call
            .app
            .storage
            .get(&key)
            .await
            .map_err(|e| storage_failure(&e))?;
        let entry = entry.ok_or_else(|| call.not_found())?;
        let shown = conversion::entry(&call.app, call.row, entry.clone()).await?;
        let current = object::decode(call.row, &shown);
        let next = match decide(&current)? {
            Wish::Change {
                new,
                part,
                managers,
            } => prepare(call, part, new, &current, managers, dry_run).await?,
            Wish::Delete(fate) => {
                admit::deletion(call, &current, dry_run).await?;
                match fate {
                    Fate::Remove => Next::Remove,
                    Fate::Mark(marked) => Next::Put(*marked),
                    Fate::Waits => Next::Keep,
                }
            }
            Wish::Put(new) => Next::Put(new),
            Wish::Keep => Next::Keep,
        };
        let from = Standing {
            entry: &entry,
            shown: &shown,
            current: &current,
        };
        match replace(call, &from, next, dry_run).await? {
            Outcome::Done(written) => return Ok(written),
            Outcome::Raced => {}
        }
    }
    Err(Status::modified(call.row, &call.name))
}

/// Whether a change still has to be put down to its manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Managers {
    /// It is an update: what differs is the writer's.
    Track,
    /// It was applied, and the object says so already.
    Known,
}

/// A full change of the object: checked against what stands there, ready to be stored.
async fn prepare(
    call: &Call,
    part: Part,
    mut new: Value,
    current: &Value,
    managers: Managers,
    dry_run: bool,
) -> Result<Next, Status> {
    let (row, name) = (call.row, call.name.as_str());
    let sent = meta::resource_version(&new);
    if meta::name(&new) == name
        && !matches!(sent, "" | "0")
        && sent != meta::resource_version(current)
    {
        return Err(Status::modified(row, name));
    }
    write::fill_changed(row, &mut new, current, part)?;
    if managers == Managers::Track {
        crate::managers::track(call, Some(current), &mut new);
    }
    let admitted = admit::Asked {
        operation: Operation::Update,
        dry_run,
    };
    admit::mutate(call, admitted, &mut new, Some(current), "").await?;
    write::check_changed(row, &mut new, current, part)?;
    access::check_grant(call, &new, Some(current))?;
    admit::validate(call, admitted, &new, Some(current)).await?;
    if part == Part::Main {
        call.warn((row.warnings)(&new, Some(current)));
    }
    if write::is_done(row, &new) {
        Ok(Next::Remove)
    } else {
        Ok(Next::Put(new))
    }
}

/// The stored form of an object of the row.
pub(crate) fn stored_form(row: &Resource, object: &Value) -> Bytes {
    match &row.conversion {
        Some(conversion) => {
            let mut object = object.clone();
            (conversion.to_stored)(&mut object);
            object::encode(&object)
        }
        None => match row.rules() {
            Some(rules) if rules.storage_version() != row.api_version() => {
                let mut object = object.clone();
                api::value::set(&mut object, "apiVersion", rules.storage_version());
                object::encode(&object)
            }
            _ => object::encode(object),
        },
    }
}

/// The bytes that an answer is made of, where `value` was stored: the version that was asked for.
pub(crate) fn answered(call: &Call, new: &Value, value: &Bytes) -> Bytes {
    if conversion::converts(call.row) {
        object::encode(new)
    } else {
        value.clone()
    }
}

enum Outcome {
    Done(Written),
    /// Somebody else wrote in between.
    Raced,
}

/// What a change begins from.
struct Standing<'a> {
    entry: &'a Entry,
    /// In the version that is asked for.
    shown: &'a Entry,
    /// The same, parsed.
    current: &'a Value,
}

async fn replace(
    call: &Call,
    from: &Standing<'_>,
    next: Next,
    dry_run: bool,
) -> Result<Outcome, Status> {
    let Standing {
        entry,
        shown,
        current,
    } = *from;
    let unchanged = || {
        Outcome::Done(Written {
            stored: shown.value.clone(),
            revision: entry.modified,
        })
    };
    let expected = entry.modified;
    let key = entry.key.to_string();
    let (mut writes, stored, grant, mut charge) = match next {
        Next::Keep => return Ok(unchanged()),
        Next::Remove => {
            let grant = grant(call, None, Some(current)).await?;
            let mut writes = vec![Write::Delete { key, expected }];
            writes.extend(endpoints_of(call, current).await?);
            (
                writes,
                shown.value.clone(),
                grant,
                admit::charge(call, None, Some(current)).await?,
            )
        }
        Next::Put(mut new) => {
            let grant = grant(call, Some(&mut new), Some(current)).await?;
            let value = conversion::stored(&call.app, call.row, &new).await?;
            if value == entry.value {
                return Ok(unchanged());
            }
            let stored = answered(call, &new, &value);
            let charge = admit::charge(call, Some(&new), Some(current)).await?;
            (
                vec![Write::Update {
                    key,
                    value,
                    expected,
                }],
                stored,
                grant,
                charge,
            )
        }
    };
    if dry_run {
        return Ok(Outcome::Done(Written {
            stored,
            revision: expected,
        }));
    }
    writes.extend(grant.writes());
    writes.extend(charge.writes());
    match call.app.storage.write(writes).await {
        Ok(revision) => {
            grant.keep();
            drop(charge);
            admit::written(call, revision).await;
            Ok(Outcome::Done(Written { stored, revision }))
        }
        Err(Error::Conflict { .. } | Error::NotFound { .. }) => Ok(Outcome::Raced),
        Err(Error::Exists { key }) => {
            grant.refuse(&key);
            Ok(Outcome::Raced)
        }
        Err(error) => Err(storage_failure(&error)),
    }
}

/// Endpoints go together with their Service, whoever made them: a later Service of the name must not find them. Those
/// that somebody waits for by a finalizer stay.
async fn endpoints_of(call: &Call, service: &Value) -> Result<Option<Write>, Status> {
    if !call.row.is("", "Service") {
        return Ok(None);
    }
    let row = api::table::find("", "v1", "endpoints").ok_or_else(Status::unknown_resource)?;
    let key = row.key(meta::namespace(service), meta::name(service));
    let entry = call.app.storage.get(&key).await;
    let entry = entry.map_err(|error| storage_failure(&error))?;
    let free = entry.filter(|entry| meta::finalizers(&object::decode(row, entry)).is_empty());
    Ok(free.map(|entry| Write::Delete {
        key,
        expected: entry.modified,
    }))
}

/// The addresses and ports that a change of a Service takes and gives back; nothing for all else.
pub(crate) async fn grant(
    call: &Call,
    new: Option<&mut Value>,
    old: Option<&Value>,
) -> Result<Grant, Status> {
    if call.row.is("", "Service") {
        call.app.allocator.grant(new, old).await
    } else {
        Ok(Grant::default())
    }
}
