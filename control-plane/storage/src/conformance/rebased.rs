//! A store whose revisions begin elsewhere, seen as if it began at zero: etcd is never at zero, and one that a test
//! uses may have a past. The cases name revisions; what they say holds for any beginning.

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt};

use crate::{Answer, Change, Entry, Error, Page, Range, Revision, Storage, WatchEvent, Write};

/// See the module.
pub(super) struct Rebased {
    store: Arc<dyn Storage>,
    base: u64,
}

impl Rebased {
    /// What is there now becomes zero.
    pub(super) fn new(store: Arc<dyn Storage>) -> Self {
        let base = store.revision().0;
        Self { store, base }
    }

    fn up(&self, revision: Revision) -> Revision {
        Revision(revision.0 + self.base)
    }

    fn error(&self, error: Error) -> Error {
        let down = |revision| down(self.base, revision);
        match error {
            Error::Conflict { current } => Error::Conflict {
                current: entry(self.base, current),
            },
            Error::Compacted { asked, oldest } => Error::Compacted {
                asked: down(asked),
                oldest: down(oldest),
            },
            Error::Future { asked, newest } => Error::Future {
                asked: down(asked),
                newest: down(newest),
            },
            error @ (Error::Exists { .. }
            | Error::NotFound { .. }
            | Error::Unreadable { .. }
            | Error::Slow
            | Error::Refused { .. }
            | Error::Unavailable { .. }) => error,
        }
    }

    fn write(&self, write: Write) -> Write {
        match write {
            Write::Create { key, value } => Write::Create { key, value },
            Write::Update {
                key,
                value,
                expected,
            } => Write::Update {
                key,
                value,
                expected: self.up(expected),
            },
            Write::Delete { key, expected } => Write::Delete {
                key,
                expected: self.up(expected),
            },
        }
    }
}

fn down(base: u64, revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(base))
}

fn entry(base: u64, entry: Entry) -> Entry {
    Entry {
        created: down(base, entry.created),
        modified: down(base, entry.modified),
        ..entry
    }
}

fn event(base: u64, event: WatchEvent) -> WatchEvent {
    match event {
        WatchEvent::Change(Change::Put {
            entry: new,
            previous,
        }) => WatchEvent::Change(Change::Put {
            entry: entry(base, new),
            previous: previous.map(|old| entry(base, old)),
        }),
        WatchEvent::Change(Change::Delete { revision, previous }) => {
            WatchEvent::Change(Change::Delete {
                revision: down(base, revision),
                previous: entry(base, previous),
            })
        }
        WatchEvent::Progress(revision) => WatchEvent::Progress(down(base, revision)),
    }
}

impl Storage for Rebased {
    fn revision(&self) -> Revision {
        down(self.base, self.store.revision())
    }

    fn newest(&self) -> Answer<'_, Revision> {
        Box::pin(async move {
            let newest = self.store.newest().await;
            newest
                .map(|revision| down(self.base, revision))
                .map_err(|error| self.error(error))
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move {
            let found = self.store.get(key).await;
            found
                .map(|found| found.map(|found| entry(self.base, found)))
                .map_err(|error| self.error(error))
        })
    }

    fn list(&self, range: Range) -> Answer<'_, Page> {
        Box::pin(async move {
            let at = range.at.map(|at| self.up(at));
            let page = self.store.list(Range { at, ..range }).await;
            page.map(|page| Page {
                entries: page
                    .entries
                    .into_iter()
                    .map(|found| entry(self.base, found))
                    .collect(),
                revision: down(self.base, page.revision),
                remaining: page.remaining,
            })
            .map_err(|error| self.error(error))
        })
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision> {
        Box::pin(async move {
            let writes = writes
                .into_iter()
                .map(|write| Rebased::write(self, write))
                .collect();
            let written = self.store.write(writes).await;
            written
                .map(|revision| down(self.base, revision))
                .map_err(|error| self.error(error))
        })
    }

    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>> {
        Box::pin(async move {
            let base = self.base;
            let watch = self.store.watch(prefix, from.map(|from| self.up(from)));
            let watch = watch.await.map_err(|error| self.error(error))?;
            Ok(watch
                .map(move |told| told.map(|told| event(base, told)))
                .boxed())
        })
    }

    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        Box::pin(async move {
            let done = self.store.compact(self.up(revision)).await;
            done.map_err(|error| self.error(error))
        })
    }
}
