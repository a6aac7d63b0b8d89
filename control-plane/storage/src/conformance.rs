//! The suite that every engine runs: `storage::conformance::tests!(make)` in a test file makes one test per case.
//! `make` is a function from [`WatchLimits`] to an empty store.

mod histories;
mod random;
mod reads;
mod rebased;
mod watches;
mod writes;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};

use crate::memory::WatchLimits;
use crate::{Change, Entry, Error, Range, Revision, Storage, WatchEvent, Write};

/// Makes an empty store that feeds its watches by the limits given.
pub type Make<'a> = &'a dyn Fn(WatchLimits) -> Arc<dyn Storage>;

/// A name and what is to hold; panics where it does not.
pub type Case = (&'static str, fn(Make<'_>));

/// Every case of the suite.
pub const CASES: &[Case] = &[
    ("an_empty_store", writes::an_empty_store),
    ("create_get_update_delete", writes::create_get_update_delete),
    ("writes_expect_a_revision", writes::writes_expect_a_revision),
    ("several_writes_are_one", writes::several_writes_are_one),
    ("a_key_is_named_once", writes::a_key_is_named_once),
    ("lists_are_ranges", reads::lists_are_ranges),
    (
        "pages_are_of_one_revision",
        reads::pages_are_of_one_revision,
    ),
    ("lists_at_every_revision", reads::lists_at_every_revision),
    (
        "watch_from_every_revision",
        watches::watch_from_every_revision,
    ),
    (
        "watch_sees_what_was_before",
        watches::watch_sees_what_was_before,
    ),
    ("watch_tells_progress", watches::watch_tells_progress),
    ("compaction_forgets", reads::compaction_forgets),
    (
        "compaction_spares_a_watch",
        watches::compaction_spares_a_watch,
    ),
    ("the_future_is_refused", reads::the_future_is_refused),
    (
        "a_slow_watcher_is_cut_off",
        watches::a_slow_watcher_is_cut_off,
    ),
    (
        "a_backlog_is_not_slowness",
        watches::a_backlog_is_not_slowness,
    ),
    ("many_writers", writes::many_writers),
    ("one_winner_per_revision", writes::one_winner_per_revision),
    ("random_operations", random::random_operations),
    (
        "histories_are_linearizable",
        histories::histories_are_linearizable,
    ),
];

/// One test per case, each over a fresh store of `$make`.
#[macro_export]
macro_rules! conformance_tests {
    ($make:expr) => {
        $crate::conformance_tests!($make;
            an_empty_store create_get_update_delete writes_expect_a_revision several_writes_are_one
            a_key_is_named_once lists_are_ranges pages_are_of_one_revision lists_at_every_revision
            watch_from_every_revision watch_sees_what_was_before watch_tells_progress compaction_forgets
            compaction_spares_a_watch the_future_is_refused a_slow_watcher_is_cut_off
            a_backlog_is_not_slowness many_writers one_winner_per_revision random_operations
            histories_are_linearizable);
        #[test]
        fn every_case_has_a_test() {
            assert_eq!($crate::conformance::CASES.len(), 20);
        }
    };
    ($make:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::run(stringify!($name), &$make);
            }
        )*
    };
}

pub use conformance_tests as tests;

/// Runs the case of that name.
///
/// # Panics
/// Where the store does not do as it should, or there is no such case.
pub fn run(name: &str, make: Make<'_>) {
    let case = CASES.iter().find(|(known, _)| *known == name);
    let from_zero = |limits| -> Arc<dyn Storage> { Arc::new(rebased::Rebased::new(make(limits))) };
    case.expect("the case is in the list").1(&from_zero);
}

/// The longest that anything awaited may take before the case fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime starts")
        .block_on(async {
            let done = tokio::time::timeout(PATIENCE * 4, work).await;
            done.expect("the case ends in time")
        })
}

type Watch = BoxStream<'static, Result<WatchEvent, Error>>;

async fn next(watch: &mut Watch) -> Result<WatchEvent, Error> {
    let event = tokio::time::timeout(PATIENCE, watch.next()).await;
    event
        .expect("the watch yields in time")
        .expect("the watch goes on")
}

/// Every change up to the progress event that names `until` or later.
async fn changes_until(watch: &mut Watch, until: Revision) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        match next(watch).await.expect("the watch is not cut off") {
            WatchEvent::Change(change) => changes.push(change),
            WatchEvent::Progress(revision) if revision >= until => return changes,
            WatchEvent::Progress(_) => {}
        }
    }
}

fn create(key: &str, value: &str) -> Write {
    Write::Create {
        key: key.to_owned(),
        value: value.to_owned().into(),
    }
}

fn update(key: &str, value: &str, expected: u64) -> Write {
    Write::Update {
        key: key.to_owned(),
        value: value.to_owned().into(),
        expected: Revision(expected),
    }
}

fn delete(key: &str, expected: u64) -> Write {
    Write::Delete {
        key: key.to_owned(),
        expected: Revision(expected),
    }
}

fn entry(key: &str, value: &str, created: u64, modified: u64) -> Entry {
    Entry {
        key: Arc::from(key),
        value: value.to_owned().into(),
        created: Revision(created),
        modified: Revision(modified),
    }
}

fn put(entry: Entry, previous: Option<Entry>) -> Change {
    Change::Put { entry, previous }
}

fn prefix(prefix: &str) -> Range {
    Range {
        prefix: prefix.to_owned(),
        ..Range::default()
    }
}

/// Short enough that a test sees a progress event, long enough not to fill the stream with them.
fn quick() -> WatchLimits {
    WatchLimits {
        progress: Duration::from_millis(20),
        ..WatchLimits::default()
    }
}
