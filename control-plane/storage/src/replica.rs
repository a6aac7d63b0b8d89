//! What readers of a store see, held in memory by the engines: the newest tree, retained history, and watches. An
//! engine publishes commits in order, each after it is durable; everything that is read is read from here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use futures_util::stream::{BoxStream, StreamExt};

use crate::fanout::Fanout;
use crate::history::{self, Commit, History, Marks, State, Tree};
use crate::memory::WatchLimits;
use crate::{Entry, Error, Page, Range, Revision, WatchEvent};

/// See the module.
#[derive(Debug)]
pub struct Replica {
    state: RwLock<State>,
    marks: Mutex<Marks>,
    fanout: Arc<Fanout>,
    history: History,
    watch: WatchLimits,
}

impl Replica {
    /// A replica that begins with this state.
    #[must_use]
    pub fn new(state: State, history: History, watch: WatchLimits) -> Self {
        Self {
            fanout: Arc::new(Fanout::new(state.revision)),
            state: RwLock::new(state),
            marks: Mutex::default(),
            history,
            watch,
        }
    }

    /// The newest revision that reads see.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.read().revision
    }

    /// The oldest revision that can be read.
    #[must_use]
    pub fn oldest(&self) -> Revision {
        self.read().oldest
    }

    /// The newest tree and its revision.
    #[must_use]
    pub fn tree(&self) -> (Tree, Revision) {
        let state = self.read();
        (state.tree.clone(), state.revision)
    }

    /// The newest value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Entry> {
        let found = self.read().tree.get(key).cloned();
        found.map(|entry| Entry::clone(&entry))
    }

    /// A consistent page of a range.
    ///
    /// # Errors
    /// [`Error::Compacted`] and [`Error::Future`].
    pub fn list(&self, range: &Range) -> Result<Page, Error> {
        // The state's lock is taken first here and where commits are published.
        let past = {
            let state = self.read();
            self.marks().past(&state, range.at)?
        };
        let revision = past.at;
        let tree = past.tree();
        let page = history::page(&tree, revision, range);
        if page.remaining > 0 {
            self.marks().page(revision, &tree);
        }
        Ok(page)
    }

    /// As [`crate::Storage::watch`].
    ///
    /// # Errors
    /// [`Error::Compacted`] and [`Error::Future`].
    pub fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Error>>, Error> {
        let watch = self.fanout.watch(prefix, self.watch.unread_bytes, || {
            let state = self.read();
            let from = from.unwrap_or(state.revision);
            state.readable(from)?;
            Ok((state.revision, state.since(from).into_iter()))
        })?;
        Ok(watch.boxed())
    }

    /// Lets readers and watchers see commits that lead to `tree` at `revision`, and forgets history that is older than
    /// `compact` or than the policy retains.
    pub fn publish(
        &self,
        tree: Tree,
        commits: &[Arc<Commit>],
        revision: Revision,
        compact: Revision,
    ) {
        let mut state = self.write();
        let before = state.revision;
        let replaced = state.publish(tree, commits);
        state.advance(revision);
        let expired = state.expired(&self.history, Instant::now());
        let forgotten = state.compact(expired.max(compact));
        let marks = self.marks().step(before, &state);
        let now = state.revision;
        drop(state);
        // Freed with no lock held.
        drop((replaced, forgotten, marks));
        self.fanout.deliver(commits, now);
    }

    /// Forgets history before `revision`.
    pub fn compact(&self, revision: Revision) {
        let (tree, newest) = self.tree();
        self.publish(tree, &[], newest, revision.min(newest));
    }

    /// Begins anew with another state, which what was published does not lead to: every watcher is cut off.
    pub fn reset(&self, state: State) {
        let revision = state.revision;
        let replaced = std::mem::replace(&mut *self.write(), state);
        let marks = std::mem::take(&mut *self.marks());
        drop((replaced, marks));
        self.fanout.cut(revision);
    }

    /// Lets every watcher that has nothing to read know how far the store has got.
    pub fn progress(&self) {
        self.fanout.progress();
    }

    /// Ends every watch.
    pub fn close(&self) {
        self.fanout.close();
    }

    /// A panic of another holder leaves a whole state behind: publishing only moves values that were made before.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
