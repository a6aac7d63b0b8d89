//! How long what nothing points at must stay readable.

use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};
use tokio::task::spawn_blocking;

/// How long identifiers stay unused after they were emptied. A UDP flow or an affinity that names a backend of
/// its service is believed; this is longer than one that nobody uses is kept by any client that we know of.
pub(crate) const FORGET: Duration = Duration::from_secs(600);

/// How far apart what is to be forgotten is noted; it may come early by this much.
pub(crate) const FORGET_STEP: Duration = Duration::from_secs(10);

/// Where the kernel cannot tell: far longer than any program runs.
const FALLBACK: Duration = Duration::from_secs(1);

/// On one CPU membarrier(2) has nothing to wait for; a program that was interrupted there ends in this time.
const LEAST: Duration = Duration::from_millis(10);

/// Waits until every program has ended that may have read the tables before the call. Programs run inside of
/// RCU read-side critical sections, and MEMBARRIER_CMD_GLOBAL waits for those (synchronize_rcu, kernel commit
/// 5b25b13ab08f).
pub(crate) async fn programs_ended() {
    let waited = spawn_blocking(|| membarrier(MembarrierCommand::Global)).await;
    let known = matches!(waited, Ok(Ok(())));
    tokio::time::sleep(if known { LEAST } else { FALLBACK }).await;
}
