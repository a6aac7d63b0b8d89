//! Clients that get into each other's way, and watchers that look on: what all of them saw is one history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join;

use super::{Make, block_on, quick};
use crate::linear::check;
use crate::linear::drive::{self, Size};
use crate::{Change, Revision, Storage};

/// How many histories are tried; `FAIRLEAD_HISTORIES` tries more.
fn histories() -> u64 {
    let given = std::env::var("FAIRLEAD_HISTORIES").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(4)
}

pub(super) fn histories_are_linearizable(make: Make<'_>) {
    for seed in 0..histories() {
        let store = make(quick());
        block_on(one(&store, seed));
    }
}

async fn one(store: &Arc<dyn Storage>, seed: u64) {
    let size = Size {
        clients: 6,
        operations: 60,
        keys: 3,
    };
    let until = AtomicU64::new(0);
    let working = async {
        let operations = drive::clients(store, size, seed).await;
        until.store(store.revision().0, Ordering::SeqCst);
        operations
    };
    let (operations, followed) = join(working, drive::follow(store, Revision(0), &until)).await;
    let log = drive::log(store, Revision(0)).await.unwrap();
    if let Err(why) = check(0, &operations, &log) {
        panic!("seed {seed}: {why}\nlog: {log:#?}");
    }
    assert!(log.len() > 60, "{} changes", log.len());
    // Whoever looked on while it happened saw the same, in the same order, each once.
    let revisions = |changes: &[Change]| changes.iter().map(Change::revision).collect::<Vec<_>>();
    assert_eq!(revisions(&followed.unwrap()), revisions(&log));
}
