//! Flows that are over are forgotten now and then, sooner where many begin. What a look costs follows the flows that there
//! are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf::{Begun, Fill, Looked};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Between two looks where little begins: short beside the timeouts.
const PAUSE: Duration = Duration::from_secs(30);
/// How often it is asked whether much has begun, where something does.
const POLL: Duration = Duration::from_millis(250);
/// And where nothing does.
const IDLE_POLL: Duration = Duration::from_secs(1);

/// Forgets flows in the background, and says which tables are crowded with flows that live. Must be called in a tokio
/// runtime; ends with the receiver.
pub(crate) fn start(bpffs_root: PathBuf) -> Receiver<Fill> {
    let (tell, told) = mpsc::channel(2);
    tokio::spawn(async move {
        let mut looked_at: Option<(Instant, Begun)> = None;
        let mut polled: Option<Begun> = None;
        let mut pause = POLL;
        while !tell.is_closed() {
            tokio::time::sleep(pause).await;
            let root = bpffs_root.clone();
            let before = looked_at;
            match spawn_blocking(move || look(&root, before)).await {
                Ok(Ok((begun, looked))) => {
                    pause = match polled.replace(begun) {
                        Some(then) if then == begun => IDLE_POLL,
                        _ => POLL,
                    };
                    let Some(looked) = looked else {
                        continue;
                    };
                    looked_at = Some((Instant::now(), begun));
                    if looked.forgotten > 0 {
                        debug!(entries = looked.forgotten, "forgot flows that are over");
                    }
                    for fill in looked.fills.into_iter().filter(Fill::is_crowded) {
                        // Who is busy hears of it after the next look.
                        let _ = tell.try_send(fill);
                    }
                }
                Ok(Err(error)) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot look for flows that are over"
                    );
                    pause = PAUSE;
                }
                Err(_) => return,
            }
        }
    });
    told
}

/// How far the rings of flows are; and a look at the flows, if there is reason to.
fn look(
    root: &Path,
    before: Option<(Instant, Begun)>,
) -> Result<(Begun, Option<Looked>), bpf::Error> {
    let begun = Begun::look(root)?;
    let is_due =
        before.is_none_or(|(when, then)| when.elapsed() >= PAUSE || begun.is_far_from(&then));
    let looked = is_due.then(|| bpf::expire_flows(root, bpf::now_secs()));
    Ok((begun, looked.transpose()?))
}
