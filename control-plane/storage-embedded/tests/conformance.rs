//! The suite over the embedded engine.

use std::sync::Arc;

use storage::conformance;
use storage::memory::WatchLimits;
use storage::{Answer, Entry, Error, Page, Range, Revision, Storage, WatchEvent, Write};
use storage_embedded::{Embedded, Options};

/// A store and the directory that goes away with it.
struct Temporary {
    store: Embedded,
    _directory: tempfile::TempDir,
}

fn make(watch: WatchLimits) -> Arc<dyn Storage> {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        watch,
        // So that snapshots happen while the cases run.
        log_bytes: 16 << 10,
        ..Options::default()
    };
    Arc::new(Temporary {
        store: Embedded::open(directory.path(), options).unwrap(),
        _directory: directory,
    })
}

impl Storage for Temporary {
    fn revision(&self) -> Revision {
        self.store.revision()
    }
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        self.store.get(key)
    }
    fn list(&self, range: Range) -> Answer<'_, Page> {
        self.store.list(range)
    }
    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision> {
        self.store.write(writes)
    }
    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, futures_util::stream::BoxStream<'static, Result<WatchEvent, Error>>> {
        self.store.watch(prefix, from)
    }
    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        self.store.compact(revision)
    }
}

conformance::tests!(make);
