//! What goes on without a request: history is forgotten after a while, and what Pods reach the server by is put back
//! when somebody deletes it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use storage::{Change, Storage, WatchEvent};

use crate::{State, bootstrap};

/// History that is older than once to twice this is forgotten, as kube-apiserver does with etcd.
const KEEP: Duration = Duration::from_secs(300);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Compacts the store from time to time; until it is dropped.
pub(crate) async fn forget_history(storage: Arc<dyn Storage>) {
    let mut before = storage.revision();
    loop {
        tokio::time::sleep(KEEP).await;
        let now = storage.revision();
        if before.0 > 0
            && let Err(error) = storage.compact(before).await
        {
            tracing::warn!(%error, revision = before.0, "the store's history could not be compacted");
        }
        before = now;
    }
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
            bootstrap::endpoints(&state, port).await
        };
        if let Err(error) = restored.await {
            tracing::warn!(%error, "the Service kubernetes could not be put back");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn wait_for_deletion(storage: &dyn Storage) -> Result<(), storage::Error> {
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
