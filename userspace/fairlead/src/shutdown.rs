//! SIGTERM and SIGINT ask for a graceful stop; a second one, or ten seconds, ends the process. A DNS server takes the time
//! that its Corefile gives it.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long a graceful stop may take.
const GRACE: Duration = Duration::from_secs(10);

/// A receiver that turns `true` when the process should stop.
pub(crate) fn on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.send_replace(true);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(GRACE) => {}
        }
        tracing::warn!("not stopped in time: ending the process");
        std::process::exit(1);
    });
    Ok(stopping)
}

/// As [`on_signal`], for a process that goes on for as long as it was told to (`lameduck`): as with CoreDNS, a second
/// SIGTERM changes nothing, and a second SIGINT, which somebody types, ends the process with code 2.
pub(crate) fn on_signal_in_peace() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        let mut interrupted = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {
                    if std::mem::replace(&mut interrupted, true) {
                        tracing::warn!("interrupted again: ending the process");
                        std::process::exit(2);
                    }
                }
            }
            if !stop.send_replace(true) {
                tracing::info!("stopping");
            }
        }
    });
    Ok(stopping)
}
