//! Clients with session affinity, looked at now and then: one that is bound and finds no room takes another's, and that
//! one may be given another backend. The table grows before that.

use std::path::PathBuf;
use std::time::Duration;

use bpf::{Datapath, Fill};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::spawn_blocking;
use tracing::warn;

/// Between two looks, each of which walks through the table.
const PAUSE: Duration = Duration::from_secs(30);

/// Looks in the background; says how full the table is when it is nearly full of clients that are bound. Must be called in
/// a tokio runtime.
pub(crate) fn watch(bpffs_root: PathBuf) -> Receiver<Fill> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PAUSE).await;
            let root = bpffs_root.clone();
            let looked =
                spawn_blocking(move || Datapath::inspect(&root)?.bound_clients(bpf::now_secs()));
            match looked.await {
                Ok(Ok(fill)) if is_crowded(&fill) => {
                    if tell.send(fill).await.is_err() {
                        return;
                    }
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot count clients with session affinity"
                ),
                Err(_) => return,
            }
        }
    });
    told
}

/// The least recently used give way a little before the table is full.
fn is_crowded(fill: &Fill) -> bool {
    fill.used >= fill.capacity - fill.capacity / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_crowded_before_it_is_full() {
        for (used, capacity, crowded) in [
            (0, 64, false),
            (47, 64, false),
            (48, 64, true),
            (1, 1, true),
        ] {
            let fill = Fill {
                table: "AFFINITY",
                used,
                capacity,
                flag: "",
            };
            assert_eq!(is_crowded(&fill), crowded, "{fill:?}");
        }
    }
}
