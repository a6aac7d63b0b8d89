//! Read, change, write: how an object that exists is changed, with retries when somebody else was quicker.

use admission::Operation;
use api::meta;
use api::status::Status;
use api::table::Resource;
use api::write::{self, Part};
use bytes::Bytes;
use serde_json::Value;
use storage::{Entry, Error, Revision, Write};

use crate::access;
use crate::admit;
use crate::allocate::Grant;
use crate::handlers::{Call, storage_failure};
use crate::object;

/// How often a write is tried again before the client is asked to.
const TRIES: usize = 32;

/// What a write came to.
pub(crate) struct Written {
    /// The stored form.
    pub(crate) stored: Bytes,
    pub(crate) revision: Revision,
}

/// What becomes of the object after the change was made.
pub(crate) enum Next {
    /// Store this in its place; its resourceVersion, if any, must be the current one.
    Put(Value),
    /// Remove it.
    Remove,
    /// Leave it as it is.
    Keep,
}

/// Changes the object that the call names. `decide` is given the object as it stands, and again after each time that
/// somebody else wrote in between.
pub(crate) async fn modify(
    call: &Call,
    dry_run: bool,
    mut decide: impl FnMut(&Value) -> Result<Next, Status>,
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
        let current = object::decode(call.row, &entry);
        let next = decide(&current)?;
        match replace(call, &entry, &current, next, dry_run).await? {
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

/// A full change of the object, as PUT and PATCH make it: checked against what stands there, ready to be stored.
pub(crate) fn prepare(
    call: &Call,
    part: Part,
    mut new: Value,
    current: &Value,
    managers: Managers,
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
    admit::mutate(call, Operation::Update, &mut new, Some(current), "")?;
    write::check_changed(row, &mut new, current, part)?;
    access::check_grant(call, &new, Some(current))?;
    admit::validate(call, Operation::Update, &new, Some(current))?;
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

enum Outcome {
    Done(Written),
    /// Somebody else wrote in between.
    Raced,
}

async fn replace(
    call: &Call,
    entry: &Entry,
    current: &Value,
    next: Next,
    dry_run: bool,
) -> Result<Outcome, Status> {
    let unchanged = || {
        Outcome::Done(Written {
            stored: entry.value.clone(),
            revision: entry.modified,
        })
    };
    let expected = entry.modified;
    let key = entry.key.to_string();
    let (mut writes, stored, grant, mut charge) = match next {
        Next::Keep => return Ok(unchanged()),
        Next::Remove => {
            let grant = grant(call, None, Some(current)).await?;
            (
                vec![Write::Delete { key, expected }],
                entry.value.clone(),
                grant,
                admit::charge(call, None, Some(current)).await?,
            )
        }
        Next::Put(mut new) => {
            let grant = grant(call, Some(&mut new), Some(current)).await?;
            let stored = stored_form(call.row, &new);
            if stored == entry.value {
                return Ok(unchanged());
            }
            let charge = admit::charge(call, Some(&new), Some(current)).await?;
            (
                vec![Write::Update {
                    key,
                    value: stored.clone(),
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

/// The addresses and ports that a change of a Service takes and gives back; nothing for all else.
pub(crate) async fn grant(
    call: &Call,
    new: Option<&mut Value>,
    old: Option<&Value>,
) -> Result<Grant, Status> {
    if call.row.kind == "Service" {
        call.app.allocator.grant(new, old).await
    } else {
        Ok(Grant::default())
    }
}
