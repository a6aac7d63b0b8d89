//! What the store needs from time to time: history is forgotten after a while.

use std::sync::Arc;
use std::time::Duration;

use storage::Storage;

/// History that is older than once to twice this is forgotten, as kube-apiserver does with etcd.
const KEEP: Duration = Duration::from_secs(300);

/// Runs until it is dropped.
pub(crate) async fn run(storage: Arc<dyn Storage>) {
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
