//! What goes on without a request: history is forgotten after a while, Events too, and what Pods reach the server by
//! is put back when somebody deletes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use storage::{Change, Entry, Error, Range, Revision, Storage, WatchEvent, Write};
use time::OffsetDateTime;

use crate::{State, bootstrap, masters};

/// History that is older than this is forgotten, as kube-apiserver does with etcd.
const HISTORY: Duration = Duration::from_secs(300);
/// Events that nobody wrote for so many times [`HISTORY`] are removed: an hour, as kube-apiserver's `--event-ttl`.
const EVENTS_KEPT: usize = 12;
/// As long, for those whose age is known by what they say alone.
const EVENTS_LIVE: time::Duration = time::Duration::HOUR;
/// How many are looked at together.
const EVENTS_AT_ONCE: usize = 500;
/// Where Events stand in the store.
const EVENTS: &str = "/registry/events/";
/// How many removals are under way at a time, so that the store makes one durable batch of them.
const REMOVALS: usize = 64;
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Compacts the store and removes old Events from time to time; until it is dropped. A store that does so itself is
/// left alone.
pub(crate) async fn forget(storage: Arc<dyn Storage>) {
    if storage.keeps_house() {
        return;
    }
    let began = storage.revision();
    // The revision at each waking: what is older than the oldest of these has not been written since.
    let mut past = VecDeque::from([began]);
    loop {
        let before = if past.len() > EVENTS_KEPT {
            past.pop_front().unwrap_or_default()
        } else {
            Revision(0)
        };
        if let Err(error) = remove_events(&*storage, before, began).await {
            tracing::warn!(%error, "old Events could not be removed");
        }
        tokio::time::sleep(HISTORY).await;
        if let Some(before) = past.back().filter(|revision| revision.0 > 0)
            && let Err(error) = storage.compact(*before).await
        {
            tracing::warn!(%error, revision = before.0, "the store's history could not be compacted");
        }
        past.push_back(storage.revision());
    }
}

/// Removes the Events that were last written at `before` or earlier. Of those that were written before this process
/// `began`, only they themselves can tell how old they are.
async fn remove_events(
    storage: &dyn Storage,
    before: Revision,
    began: Revision,
) -> Result<(), Error> {
    let mut range = Range {
        prefix: EVENTS.into(),
        limit: EVENTS_AT_ONCE,
        faulty: true,
        ..Range::default()
    };
    let now = OffsetDateTime::now_utc();
    let old = |entry: &Entry| {
        entry.modified <= before
            || entry.modified <= began
                && written(&entry.value).is_some_and(|written| now - written > EVENTS_LIVE)
    };
    let remove = |entry: Entry| {
        let key = entry.key.to_string();
        let expected = entry.modified;
        storage.write(vec![Write::Delete { key, expected }])
    };
    loop {
        let page = storage.list(range.clone()).await?;
        let last = page.entries.last().filter(|_| page.remaining > 0);
        range.start = last.map(|entry| format!("{}\0", entry.key));
        let old = page.entries.into_iter().filter(old);
        let mut removals = stream::iter(old.map(remove)).buffer_unordered(REMOVALS);
        while let Some(removed) = removals.next().await {
            match removed {
                // Somebody wrote or removed it in the meantime.
                Ok(_) | Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if range.start.is_none() {
            return Ok(());
        }
    }
}

/// When an object says that it was last written: the newest time among its creation and its managers' writes.
fn written(stored: &[u8]) -> Option<OffsetDateTime> {
    let object: serde_json::Value = serde_json::from_slice(stored).ok()?;
    let metadata = &object["metadata"];
    let managers = metadata["managedFields"].as_array().into_iter().flatten();
    let mut times = managers.map(|manager| &manager["time"]).collect::<Vec<_>>();
    times.push(&metadata["creationTimestamp"]);
    let times = times.into_iter().filter_map(serde_json::Value::as_str);
    times.filter_map(api::duration::parse_time).max()
}

/// Keeps the Service `kubernetes` and its endpoints in being; until it is dropped.
pub(crate) async fn keep_service(state: Arc<State>, port: u16) {
    loop {
        match wait_for_deletion(&*state.storage).await {
            Ok(()) => tracing::info!(
                "the Service kubernetes or its endpoints were deleted; they are put back"
            ),
            Err(error) => {
                tracing::debug!(%error, "watching the Service kubernetes");
                tokio::time::sleep(RETRY).await;
            }
        }
        let restored = async {
            bootstrap::namespaces_and_service(&state).await?;
            masters::point(&state, port).await
        };
        if let Err(error) = restored.await {
            tracing::warn!(%error, "the Service kubernetes could not be put back");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn wait_for_deletion(storage: &dyn Storage) -> Result<(), Error> {
    let mut changes = Vec::new();
    for key in bootstrap::KEYS {
        changes.push(storage.watch(key.to_owned(), None).await?);
    }
    let mut changes = futures_util::stream::select_all(changes);
    while let Some(event) = changes.next().await {
        if let WatchEvent::Change(Change::Delete { previous, .. }) = event?
            && bootstrap::KEYS.contains(&&*previous.key)
        {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::memory::Memory;

    async fn put(storage: &Memory, key: &str) {
        let write = match storage.get(key).await.unwrap() {
            None => Write::Create {
                key: key.into(),
                value: "1".into(),
            },
            Some(entry) => Write::Update {
                key: key.into(),
                value: "2".into(),
                expected: entry.modified,
            },
        };
        storage.write(vec![write]).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_nobody_writes_go_after_an_hour() {
        let storage = Memory::new();
        let upkeep = tokio::spawn(forget(Arc::new(storage.clone())));
        let (old, renewed, other) = (
            "/registry/events/a/old",
            "/registry/events/a/new",
            "/registry/pods/a/p",
        );
        for key in [old, renewed, other] {
            put(&storage, key).await;
        }
        let exists = async |key: &str| storage.get(key).await.unwrap().is_some();
        tokio::time::sleep(Duration::from_secs(50 * 60)).await;
        put(&storage, renewed).await;
        assert!(exists(old).await);
        tokio::time::sleep(Duration::from_secs(20 * 60)).await;
        assert_eq!(
            (
                exists(old).await,
                exists(renewed).await,
                exists(other).await
            ),
            (false, true, true)
        );
        tokio::time::sleep(Duration::from_secs(60 * 60)).await;
        assert_eq!((exists(renewed).await, exists(other).await), (false, true));
        upkeep.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_an_earlier_process_tell_their_age() {
        let storage = Memory::new();
        let now = OffsetDateTime::now_utc();
        let at = |minutes| api::meta::timestamp(now - time::Duration::minutes(minutes));
        for (name, created, written) in [("old", 90, 61), ("new", 90, 50), ("young", 10, 10)] {
            let event = serde_json::json!({"metadata": {
                "creationTimestamp": at(created), "managedFields": [{"time": at(written)}],
            }});
            let write = Write::Create {
                key: format!("{EVENTS}a/{name}"),
                value: event.to_string().into(),
            };
            storage.write(vec![write]).await.unwrap();
        }
        let upkeep = tokio::spawn(forget(Arc::new(storage.clone())));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let left = storage.list(Range::default()).await.unwrap().entries;
        let left: Vec<&str> = left.iter().map(|entry| &*entry.key).collect();
        assert_eq!(left, [format!("{EVENTS}a/new"), format!("{EVENTS}a/young")]);
        upkeep.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn history_is_forgotten() {
        let storage = Memory::new();
        let upkeep = tokio::spawn(forget(Arc::new(storage.clone())));
        put(&storage, "/registry/pods/a/p").await;
        let first = storage.revision();
        put(&storage, "/registry/pods/a/p").await;
        let read = async || {
            let range = Range {
                prefix: "/registry/".into(),
                at: Some(first),
                ..Range::default()
            };
            storage.list(range).await.map(|page| page.entries.len())
        };
        assert_eq!(read().await.ok(), Some(1));
        tokio::time::sleep(2 * HISTORY + Duration::from_secs(1)).await;
        put(&storage, "/registry/pods/a/p").await;
        assert!(matches!(read().await, Err(Error::Compacted { .. })));
        upkeep.abort();
    }
}
