//! The follower: etcd's state, and every change of it, into the replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage::history::{Commit, State, Tree};
use storage::{Change, Codec, Entry, Error, Revision, fault};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::fresh::revision;
use crate::keys::Keys;
use crate::proto::{Event, KeyValue, RangeRequest, WatchResponse};
use crate::rpc::Rpc;
use crate::{ConnectError, Options, Shared};

/// Keys in a page of the first list.
const PAGE: i64 = 2000;
/// After a failure, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The state to begin with, once etcd answers.
pub(crate) async fn first(
    rpc: &Rpc,
    keys: &Keys,
    codec: &dyn Codec,
    options: &Options,
) -> Result<State, ConnectError> {
    let began = Instant::now();
    let mut pause = RETRY.0;
    loop {
        match load(rpc, keys, codec, options.history.revisions).await {
            Ok(state) => return Ok(state),
            Err(status) => {
                let source = rpc.error("reading from", Revision(0), &status);
                if began.elapsed() + pause >= options.patience {
                    return Err(ConnectError::Away {
                        waited: options.patience,
                        source,
                    });
                }
                tracing::info!(error = %source, "waiting for etcd");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// The state as it was so many revisions ago, or as of the oldest that etcd still has: the watch from there brings the
/// history since.
async fn load(rpc: &Rpc, keys: &Keys, codec: &dyn Codec, back: u64) -> Result<State, Status> {
    let newest = rpc
        .range(RangeRequest {
            key: Bytes::from_static(b"\0"),
            keys_only: true,
            ..RangeRequest::default()
        })
        .await?;
    let newest = revision(newest.header.as_ref());
    let mut at = Revision(newest.0.saturating_sub(back).max(1));
    loop {
        match load_at(rpc, keys, codec, at).await {
            Err(status) if status.code() == Code::OutOfRange => {
                at = compacted(rpc, at).await?.max(Revision(at.0 + 1));
            }
            loaded => return loaded.map(|tree| State::new(tree, at)),
        }
    }
}

async fn load_at(rpc: &Rpc, keys: &Keys, codec: &dyn Codec, at: Revision) -> Result<Tree, Status> {
    let (mut key, range_end) = keys.range();
    let mut tree = Tree::new();
    loop {
        let page = rpc
            .range(RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: PAGE,
                revision: signed(at),
                keys_only: false,
            })
            .await?;
        let Some(last) = page.kvs.last() else {
            return Ok(tree);
        };
        let mut next = last.key.to_vec();
        next.push(0);
        key = next.into();
        for kv in page.kvs {
            if let Some(name) = keys.inner(&kv.key) {
                let entry = entry(codec, name, kv);
                tree.insert(entry.key.clone(), Arc::new(entry));
            }
        }
        if !page.more {
            return Ok(tree);
        }
    }
}

/// The revision that history was last compacted to, which only a watch from before it is told.
async fn compacted(rpc: &Rpc, before: Revision) -> Result<Revision, Status> {
    let mut events = rpc.watch(signed(before)).await?;
    while let Some(told) = events.message().await? {
        if told.compact_revision > 0 {
            return Ok(Revision(told.compact_revision.unsigned_abs()));
        }
        if !told.events.is_empty() {
            break;
        }
    }
    Ok(before)
}

pub(crate) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub(crate) fn entry(codec: &dyn Codec, key: Arc<str>, kv: KeyValue) -> Entry {
    let value = codec.decode(&key, kv.value).unwrap_or_else(|why| {
        tracing::error!(%key, why, "a value in etcd can't be read");
        fault::value(&why)
    });
    Entry {
        value,
        key,
        created: Revision(kv.create_revision.unsigned_abs()),
        modified: Revision(kv.mod_revision.unsigned_abs()),
    }
}

/// Until it is dropped.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut pause = RETRY.0;
    loop {
        let began = Instant::now();
        let ended = watch(&shared).await;
        if began.elapsed() > RETRY.1 {
            pause = RETRY.0;
        }
        if let Err(why) = ended {
            tracing::warn!(endpoint = shared.rpc.endpoint(), %why, "the watch of etcd ended; it is begun again");
        }
        shared.rpc.leave_active();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// One watch, from where the replica is, to its end.
async fn watch(shared: &Shared) -> Result<(), Error> {
    let from = Revision(shared.replica.revision().0 + 1);
    let failed = |status: Status| shared.rpc.error("following", from, &status);
    let mut events = shared.rpc.watch(signed(from)).await.map_err(failed)?;
    loop {
        let told = tokio::select! {
            told = events.message() => told.map_err(failed)?,
            () = shared.stuck.notified() => return Err(Error::Unavailable {
                doing: format!("following etcd at {}", shared.rpc.endpoint()),
                cause: Arc::from("its watch lags behind what it answers"),
            }),
        };
        let Some(told) = told else { return Ok(()) };
        if told.compact_revision > 0 {
            // What happened in between is forgotten.
            let back = shared.options.history.revisions;
            let state = load(&shared.rpc, &shared.keys, &*shared.codec, back);
            let state = state.await.map_err(failed)?;
            let revision = state.revision.0;
            tracing::warn!(
                revision,
                "etcd has forgotten what happened while it was away; watches begin anew"
            );
            shared.replica.reset(state);
            shared.seen.send_replace(revision);
            return Ok(());
        }
        if told.canceled {
            return Err(Error::Unavailable {
                doing: format!("following etcd at {}", shared.rpc.endpoint()),
                cause: told.cancel_reason.into(),
            });
        }
        if !told.created {
            take(shared, told);
        }
    }
}

/// Publishes what one message tells: whole revisions, in order.
fn take(shared: &Shared, told: WatchResponse) {
    let (mut tree, newest) = shared.replica.tree();
    let mut revisions: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
    for event in told.events {
        let at = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        if at.unsigned_abs() > newest.0 {
            revisions.entry(at).or_default().push(event);
        }
    }
    let Some((last, _)) = revisions.last_key_value() else {
        return;
    };
    let last = Revision(last.unsigned_abs());
    let mut commits = Vec::new();
    for (at, events) in revisions {
        let at = Revision(at.unsigned_abs());
        let changes: Vec<Change> = events
            .into_iter()
            .filter_map(|event| change(shared, &tree, at, event))
            .collect();
        if !changes.is_empty() {
            let commit = Arc::new(Commit::new(at, changes));
            commit.apply(&mut tree);
            commits.push(commit);
        }
    }
    shared.replica.publish(tree, &commits, last, Revision(0));
    shared.seen.send_replace(last.0);
}

fn change(shared: &Shared, tree: &Tree, at: Revision, event: Event) -> Option<Change> {
    let kv = event.kv?;
    let key = shared.keys.inner(&kv.key)?;
    let previous = tree.get(&*key).map(|entry| Entry::clone(entry));
    if event.kind == 1 {
        return previous.map(|previous| Change::Delete {
            revision: at,
            previous,
        });
    }
    let key = previous
        .as_ref()
        .map_or(key, |previous| previous.key.clone());
    Some(Change::Put {
        entry: entry(&*shared.codec, key, kv),
        previous,
    })
}
