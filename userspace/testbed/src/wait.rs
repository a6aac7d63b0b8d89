//! Waiting for a condition, never for a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Set when the user wants an end: whatever waits gives up, and what it has made is cleaned up on the way out.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Asks every few milliseconds until there is an answer.
///
/// # Errors
///
/// When there is none within `limit`; the message says what was awaited.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted while waiting for {what}");
        }
        if started.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}
