//! The default roles and bindings in the store, and ClusterRoles that gather others.

use std::sync::Arc;
use std::time::Duration;

use api::meta::{self, Stamps};
use authorization::{aggregate, bootstrap};
use serde_json::Value;
use storage::{Error as StorageError, Write};
use time::OffsetDateTime;

use crate::{Error, State, object, write};

const GROUP: &str = "rbac.authorization.k8s.io";
/// How often everything is looked at anew where somebody else writes at the same time.
const TRIES: usize = 5;
/// Between two looks after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Objects in one write: an etcd takes 128, unless it was told otherwise.
const AT_ONCE: usize = 100;

/// Makes what is missing of the default roles and bindings and mends what grants less than it should.
pub(crate) async fn reconcile(state: &State) -> Result<(), Error> {
    let wanted: Vec<_> = bootstrap::objects()
        .into_iter()
        .filter_map(|object| Some((row(&object)?, object)))
        .collect();
    for wanted in wanted.chunks(AT_ONCE) {
        reconcile_some(state, wanted).await?;
    }
    Ok(())
}

/// In one write.
async fn reconcile_some(
    state: &State,
    wanted: &[(&'static api::table::Resource, Value)],
) -> Result<(), Error> {
    let failed = |source| Error::Storage {
        doing: "writing the default roles and bindings",
        source,
    };
    for _ in 0..TRIES {
        let mut writes = Vec::new();
        let mut rows = Vec::new();
        for (row, wanted) in wanted {
            let key = row.key(meta::namespace(wanted), meta::name(wanted));
            let entry = state.storage.get(&key).await.map_err(failed)?;
            let change = match entry {
                None => Some(Write::Create {
                    value: stored(row, wanted)?,
                    key,
                }),
                Some(entry) => {
                    let expected = entry.modified;
                    let current = object::decode(row, &entry);
                    let new = if bootstrap::must_replace(&current, wanted) {
                        Some(stored(row, wanted)?)
                    } else {
                        bootstrap::mended(&current, wanted).map(|new| write::stored_form(row, &new))
                    };
                    new.map(|value| Write::Update {
                        key,
                        value,
                        expected,
                    })
                }
            };
            if let Some(change) = change {
                writes.push(change);
                rows.push(*row);
            }
        }
        match state.storage.write(writes).await {
            Ok(revision) => {
                rows.dedup();
                for row in rows {
                    state.mirror.caught_up(row, revision).await;
                }
                return Ok(());
            }
            Err(
                StorageError::Conflict { .. }
                | StorageError::Exists { .. }
                | StorageError::NotFound { .. },
            ) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    tracing::warn!("the default roles and bindings are being changed by others; left as they are");
    Ok(())
}

fn row(object: &Value) -> Option<&'static api::table::Resource> {
    api::table::find_kind(GROUP, "v1", object["kind"].as_str()?)
}

fn stored(row: &api::table::Resource, object: &Value) -> Result<bytes::Bytes, Error> {
    let mut new = object.clone();
    let stamps = Stamps {
        now: OffsetDateTime::now_utc(),
        uid: uuid::Uuid::new_v4().to_string(),
        suffix: String::new(),
    };
    let namespace = meta::namespace(object).to_owned();
    api::write::create(row, &mut new, &namespace, &stamps).map_err(|status| Error::Bootstrap {
        what: format!("{} {:?}", row.kind, meta::name(object)),
        why: status.message,
    })?;
    Ok(write::stored_form(row, &new))
}

/// Keeps the rules of gathering ClusterRoles what they should be; until it is dropped.
pub(crate) async fn aggregate(state: Arc<State>) {
    let Some(row) = api::table::find(GROUP, "v1", "clusterroles") else {
        return;
    };
    let Some(mut changes) = state.mirror.changes("clusterroles") else {
        return;
    };
    // The revision up to which nothing was to be done.
    let mut checked = 0;
    loop {
        let now = *changes.borrow_and_update();
        if now > checked {
            match gather(&state, row).await {
                Ok(()) => checked = now,
                Err(error) => {
                    tracing::debug!(%error, "ClusterRoles that gather others");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn gather(state: &State, row: &'static api::table::Resource) -> Result<(), StorageError> {
    let all = state.mirror.list("clusterroles", "");
    for role in &all {
        let Some(rules) = aggregate::wanted(role, all.iter().map(|role| &**role)) else {
            continue;
        };
        let mut new = Value::clone(role);
        let expected: u64 = meta::resource_version(role).parse().unwrap_or_default();
        api::value::set(
            &mut new,
            "rules",
            serde_json::to_value(rules).unwrap_or_default(),
        );
        let key = row.key("", meta::name(role));
        let value = write::stored_form(row, &new);
        let expected = storage::Revision(expected);
        let written = state.storage.write(vec![Write::Update {
            key,
            value,
            expected,
        }]);
        match written.await {
            Ok(revision) => state.mirror.caught_up(row, revision).await,
            // The change of somebody else comes as a change of its own.
            Err(StorageError::Conflict { .. } | StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
