//! Flows that are over are forgotten now and then. What a look costs follows the flows that there are.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, warn};

/// Between two looks: short beside the timeouts.
const PAUSE: Duration = Duration::from_secs(30);

/// Forgets flows in the background, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Expiry(JoinHandle<()>);

impl Expiry {
    /// Starts, for the tables that are pinned below `bpffs_root`. Must be called in a tokio runtime.
    pub(crate) fn start(bpffs_root: PathBuf) -> Expiry {
        Expiry(tokio::spawn(async move {
            loop {
                tokio::time::sleep(PAUSE).await;
                let root = bpffs_root.clone();
                let expired = spawn_blocking(move || bpf::expire_flows(&root, bpf::now_secs()));
                match expired.await {
                    Ok(Ok(0)) => {}
                    Ok(Ok(entries)) => debug!(entries, "forgot flows that are over"),
                    Ok(Err(error)) => warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot look for flows that are over"
                    ),
                    Err(_) => return,
                }
            }
        }))
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        self.0.abort();
    }
}
