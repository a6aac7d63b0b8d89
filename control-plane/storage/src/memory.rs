//! The reference model: every version of every key, in plain maps under one lock. Nothing is clever and nothing is
//! durable; the other engines are compared with it, and tests that need a store use it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::{Answer, Change, Entry, Error, Page, Range, Revision, Storage, WatchEvent, Write};

/// How a watch is fed, in every engine.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// Bytes of changes that may wait for a watcher, keys and values counted; beyond, it is cut off.
    pub unread_bytes: usize,
    /// The longest time that a watcher is left without word while the store moves on.
    pub progress: Duration,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self {
            unread_bytes: 32 << 20,
            progress: Duration::from_secs(5),
        }
    }
}

/// A store in memory. Cloning gives another handle on the same store.
#[derive(Clone, Debug)]
pub struct Memory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    newest: watch::Sender<Revision>,
    limits: WatchLimits,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    oldest: Revision,
    /// Per key, what stood there from each revision on; `None` is "nothing".
    history: BTreeMap<Arc<str>, BTreeMap<Revision, Option<Entry>>>,
    /// Every change ever made, also before `oldest`: watches that have begun still read it.
    changes: BTreeMap<Revision, Vec<Change>>,
}

impl Memory {
    /// An empty store with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(WatchLimits::default())
    }

    /// An empty store.
    #[must_use]
    pub fn with_limits(limits: WatchLimits) -> Self {
        let inner = Inner {
            state: Mutex::default(),
            newest: watch::Sender::new(Revision(0)),
            limits,
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Storage for Memory {
    fn revision(&self) -> Revision {
        self.inner.lock().revision
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move { Ok(self.inner.lock().newest(key).cloned()) })
    }

    fn list(&self, range: Range) -> Answer<'_, Page> {
        Box::pin(async move { self.inner.lock().list(&range) })
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision> {
        Box::pin(async move {
            let mut state = self.inner.lock();
            let revision = state.write(&writes)?;
            drop(state);
            self.inner.newest.send_replace(revision);
            Ok(revision)
        })
    }

    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>> {
        Box::pin(async move {
            let state = self.inner.lock();
            let from = from.unwrap_or(state.revision);
            state.readable(from)?;
            let watcher = Watcher {
                store: Arc::clone(&self.inner),
                newest: self.inner.newest.subscribe(),
                prefix,
                began: state.revision,
                read: (from, usize::MAX),
                told: None,
                over: false,
            };
            Ok(stream::unfold(watcher, |mut watcher| async move {
                let event = watcher.next().await?;
                Some((event, watcher))
            })
            .boxed())
        })
    }

    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        Box::pin(async move { self.inner.lock().compact(revision) })
    }
}

impl Inner {
    /// A panic of another holder leaves the maps whole: every change of them is the last step of its method.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn newest(&self, key: &str) -> Option<&Entry> {
        self.history.get(key)?.values().next_back()?.as_ref()
    }

    fn readable(&self, at: Revision) -> Result<(), Error> {
        if at > self.revision {
            return Err(Error::Future {
                asked: at,
                newest: self.revision,
            });
        }
        if at < self.oldest {
            return Err(Error::Compacted {
                asked: at,
                oldest: self.oldest,
            });
        }
        Ok(())
    }

    fn list(&self, range: &Range) -> Result<Page, Error> {
        let revision = range.at.unwrap_or(self.revision);
        self.readable(revision)?;
        let start = range.start.as_deref().unwrap_or("");
        let found: Vec<&Entry> = self
            .history
            .iter()
            .filter(|(key, _)| key.starts_with(&range.prefix) && &***key >= start)
            .filter_map(|(_, versions)| versions.range(..=revision).next_back()?.1.as_ref())
            .collect();
        let take = match range.limit {
            0 => found.len(),
            limit => found.len().min(limit),
        };
        Ok(Page {
            entries: found[..take].iter().copied().cloned().collect(),
            revision,
            remaining: (found.len() - take) as u64,
        })
    }

    fn write(&mut self, writes: &[Write]) -> Result<Revision, Error> {
        if writes.is_empty() {
            return Ok(self.revision);
        }
        let revision = Revision(self.revision.0 + 1);
        let mut changes = Vec::new();
        for (i, write) in writes.iter().enumerate() {
            if writes[..i].iter().any(|other| other.key() == write.key()) {
                return Err(Error::Refused {
                    reason: format!("key {} is named twice", write.key()),
                });
            }
            changes.push(write.decide(self.newest(write.key()), revision)?);
        }
        for change in &changes {
            let (key, entry) = match change {
                Change::Put { entry, .. } => (Arc::clone(&entry.key), Some(entry.clone())),
                Change::Delete { previous, .. } => (Arc::clone(&previous.key), None),
            };
            self.history.entry(key).or_default().insert(revision, entry);
        }
        self.changes.insert(revision, changes);
        self.revision = revision;
        Ok(revision)
    }

    fn compact(&mut self, to: Revision) -> Result<(), Error> {
        if to > self.revision {
            return Err(Error::Future {
                asked: to,
                newest: self.revision,
            });
        }
        self.oldest = self.oldest.max(to);
        for versions in self.history.values_mut() {
            while versions.range(..=to).count() > 1 {
                versions.pop_first();
            }
        }
        self.history
            .retain(|_, versions| versions.values().any(Option::is_some));
        Ok(())
    }
}

/// One watch: where it has read to in the changes.
struct Watcher {
    store: Arc<Inner>,
    newest: watch::Receiver<Revision>,
    prefix: String,
    /// What came before is backlog, which no watcher is too slow for.
    began: Revision,
    /// Everything up to here has been yielded: a revision and a place among its changes.
    read: (Revision, usize),
    /// The revision of the last progress event.
    told: Option<Revision>,
    over: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        if self.over {
            return None;
        }
        let mut told = Instant::now();
        let mut idle = false;
        loop {
            self.newest.mark_unchanged();
            if let Some(event) = self.look(idle) {
                self.over = event.is_err();
                return Some(event);
            }
            if idle {
                told = Instant::now();
            }
            let until = told + self.store.limits.progress;
            idle = timeout_at(until, self.newest.changed()).await.is_err();
        }
    }

    /// The next thing to yield, if there is one: that too much waits, that the backlog is through, a change, or,
    /// where the watcher has been `idle` long enough, how far the store has got.
    fn look(&mut self, idle: bool) -> Option<Result<WatchEvent, Error>> {
        let store = Arc::clone(&self.store);
        let state = store.lock();
        let waiting = state
            .changes
            .range((Bound::Included(self.read.0), Bound::Unbounded))
            .flat_map(|(revision, changes)| {
                let numbered = changes.iter().enumerate();
                numbered.map(|(i, change)| ((*revision, i), change))
            })
            .filter(|(place, change)| *place > self.read && change.key().starts_with(&self.prefix));
        let mut bytes = 0;
        let mut first = None;
        for (place, change) in waiting {
            if place.0 > self.began {
                bytes += change.bytes();
            }
            first.get_or_insert((place, change));
        }
        if bytes > store.limits.unread_bytes {
            return Some(Err(Error::Slow));
        }
        if self.told.is_none() && first.is_none_or(|(place, _)| place.0 > self.began) {
            self.told = Some(self.began);
            self.read = (self.began, usize::MAX);
            return Some(Ok(WatchEvent::Progress(self.began)));
        }
        if let Some((place, change)) = first {
            self.read = place;
            return Some(Ok(WatchEvent::Change(change.clone())));
        }
        (idle && self.told < Some(state.revision)).then(|| {
            self.told = Some(state.revision);
            self.read = (state.revision, usize::MAX);
            Ok(WatchEvent::Progress(state.revision))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::conformance::tests!(|limits| Arc::new(Memory::with_limits(limits)) as Arc<dyn Storage>);
}
