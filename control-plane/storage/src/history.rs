//! What readers see: the newest tree, the changes that led to it, and through both every retained revision.
//!
//! A list at an older revision starts from the nearest later tree that is at hand and undoes the changes between.
//! Trees share what they have in common, so keeping one costs what changed since and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Change, Entry, Error, Page, Range, Revision};
use imbl::{OrdMap, Vector};

/// History that is retained for lists at older revisions and watches from them. A revision is forgotten when it is
/// beyond `revisions` and older than `age`, or when all of history is larger than `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// So many newest revisions are kept however old they are.
    pub revisions: u64,
    /// What is younger is kept however much it is.
    pub age: Duration,
    /// The most that history may occupy, in bytes of keys and values; it prevails over the other two.
    pub bytes: usize,
}

/// Everything that stands at one revision.
pub type Tree = OrdMap<Arc<str>, Arc<Entry>>;

/// A tree is kept at every so many revisions, which bounds the changes that a list has to undo.
const STEP: u64 = 4096;

/// How many trees are kept for lists that are read in pages.
const PAGED_MAX: usize = 64;

/// What a commit occupies beside keys and values, roughly.
const COMMIT_OVERHEAD: usize = 256;

/// One atomic write as it was carried out.
#[derive(Debug)]
pub struct Commit {
    /// What it made.
    pub revision: Revision,
    /// What it changed, in the order in which it was asked for.
    pub changes: Box<[Change]>,
    /// Of keys and values, with what they replaced, and of the commit itself.
    pub bytes: usize,
    at: Instant,
}

impl Commit {
    /// A write that was carried out now.
    #[must_use]
    pub fn new(revision: Revision, changes: Vec<Change>) -> Self {
        let bytes = changes.iter().map(Change::bytes).sum::<usize>() + COMMIT_OVERHEAD;
        Self {
            revision,
            changes: changes.into_boxed_slice(),
            bytes,
            at: Instant::now(),
        }
    }

    /// Carries the commit out on the tree before it.
    pub fn apply(&self, tree: &mut Tree) {
        for change in &self.changes {
            match change {
                Change::Put { entry, .. } => {
                    tree.insert(Arc::clone(&entry.key), Arc::new(entry.clone()));
                }
                Change::Delete { previous, .. } => {
                    tree.remove(&previous.key);
                }
            }
        }
    }

    /// Takes the tree back to before the commit.
    fn undo(&self, tree: &mut Tree) {
        for change in self.changes.iter().rev() {
            match change {
                Change::Put {
                    entry,
                    previous: None,
                } => {
                    tree.remove(&entry.key);
                }
                Change::Put {
                    previous: Some(previous),
                    ..
                }
                | Change::Delete { previous, .. } => {
                    tree.insert(Arc::clone(&previous.key), Arc::new(previous.clone()));
                }
            }
        }
    }
}

/// The published state: what stands at `revision`, and every commit between `oldest` and there. A revision without a
/// commit changed nothing here: it was taken by somebody else who writes to the same store.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Everything that stands at `revision`.
    pub tree: Tree,
    /// The newest.
    pub revision: Revision,
    /// The oldest that can be read.
    pub oldest: Revision,
    commits: Vector<Arc<Commit>>,
    commit_bytes: usize,
}

impl State {
    /// A state without history.
    #[must_use]
    pub fn new(tree: Tree, revision: Revision) -> Self {
        Self {
            tree,
            revision,
            oldest: revision,
            ..Self::default()
        }
    }

    /// Whether lists at the revision and watches from it can be answered.
    ///
    /// # Errors
    /// [`Error::Future`] and [`Error::Compacted`].
    pub fn readable(&self, at: Revision) -> Result<(), Error> {
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

    /// Takes in the commits that lead to `tree`.
    pub fn publish(&mut self, tree: Tree, commits: &[Arc<Commit>]) -> Tree {
        for commit in commits {
            self.revision = commit.revision;
            self.commit_bytes += commit.bytes;
            self.commits.push_back(Arc::clone(commit));
        }
        std::mem::replace(&mut self.tree, tree)
    }

    /// Forgets what is older than `to`. Returns what was forgotten, to be dropped where nobody waits.
    pub fn compact(&mut self, to: Revision) -> Vector<Arc<Commit>> {
        if to <= self.oldest {
            return Vector::new();
        }
        let kept = self.commits.split_off(self.index(to));
        let forgotten = std::mem::replace(&mut self.commits, kept);
        self.oldest = to;
        self.commit_bytes -= forgotten.iter().map(|commit| commit.bytes).sum::<usize>();
        forgotten
    }

    /// The revision that the policy lets history be forgotten up to.
    #[must_use]
    pub fn expired(&self, policy: &History, now: Instant) -> Revision {
        let mut bytes = self.commit_bytes;
        let mut to = self.oldest;
        for commit in &self.commits {
            let many = self.revision.0 - commit.revision.0 >= policy.revisions;
            let old = now.saturating_duration_since(commit.at) > policy.age;
            if !(bytes > policy.bytes || many && old) {
                break;
            }
            bytes -= commit.bytes;
            to = commit.revision;
        }
        to
    }

    /// The commits after a readable revision.
    #[must_use]
    pub fn since(&self, from: Revision) -> Vector<Arc<Commit>> {
        let mut commits = self.commits.clone();
        commits.split_off(self.index(from))
    }

    /// Where in the commits the first one after `revision` stands.
    fn index(&self, revision: Revision) -> usize {
        // Found at once where revisions follow each other, which they do unless others write to the store too.
        let guess = revision.0.saturating_sub(self.oldest.0) as usize;
        let at = |index: usize| self.commits.get(index).map(|commit| commit.revision);
        let before = guess.checked_sub(1).map(at);
        if before.is_none_or(|found| found == Some(revision))
            && at(guess).is_none_or(|next| next > revision)
        {
            return guess;
        }
        let found = self
            .commits
            .binary_search_by(|commit| commit.revision.cmp(&revision));
        found.map_or_else(|place| place, |place| place + 1)
    }

    /// The store moved on without a change here.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }
}

/// Trees of older revisions that are at hand.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    trees: BTreeMap<Revision, Tree>,
    /// Those of `trees` that are there for a list read in pages, in order of arrival.
    paged: VecDeque<Revision>,
}

impl Marks {
    /// Keeps the newest tree where a step of revisions was passed, and forgets those that can't be read any more.
    pub(crate) fn step(&mut self, before: Revision, state: &State) -> BTreeMap<Revision, Tree> {
        if before.0 / STEP != state.revision.0 / STEP {
            self.trees.insert(state.revision, state.tree.clone());
        }
        let kept = self.trees.split_off(&state.oldest);
        self.paged.retain(|revision| *revision >= state.oldest);
        std::mem::replace(&mut self.trees, kept)
    }

    /// Keeps a tree because pages of it will be asked for.
    pub(crate) fn page(&mut self, revision: Revision, tree: &Tree) {
        if self.trees.contains_key(&revision) {
            return;
        }
        self.trees.insert(revision, tree.clone());
        self.paged.push_back(revision);
        if self.paged.len() > PAGED_MAX
            && let Some(oldest) = self.paged.pop_front()
        {
            self.trees.remove(&oldest);
        }
    }

    /// The tree of the nearest revision not before the one wanted.
    fn nearest(&self, at: Revision) -> Option<(Revision, Tree)> {
        let (revision, tree) = self.trees.range(at..).next()?;
        Some((*revision, tree.clone()))
    }

    /// What it takes to see the state at a revision; [`Past::tree`] does the work, outside every lock.
    pub(crate) fn past(&self, state: &State, at: Option<Revision>) -> Result<Past, Error> {
        let at = at.unwrap_or(state.revision);
        state.readable(at)?;
        let newest = || (state.revision, state.tree.clone());
        let (from, tree) = if at == state.revision {
            newest()
        } else {
            self.nearest(at)
                .filter(|(revision, _)| *revision <= state.revision)
                .unwrap_or_else(newest)
        };
        let mut commits = state.since(at);
        commits.truncate(state.index(from) - state.index(at));
        Ok(Past {
            at,
            tree,
            undo: commits,
        })
    }
}

/// A later tree, and what to undo in it.
pub(crate) struct Past {
    pub(crate) at: Revision,
    tree: Tree,
    undo: Vector<Arc<Commit>>,
}

impl Past {
    pub(crate) fn tree(self) -> Tree {
        let mut tree = self.tree;
        for commit in self.undo.iter().rev() {
            commit.undo(&mut tree);
        }
        tree
    }
}

/// Reads a page out of a tree.
pub(crate) fn page(tree: &Tree, revision: Revision, range: &Range) -> Page {
    let prefix = range.prefix.as_str();
    let start = range.start.as_deref().unwrap_or("").max(prefix);
    let end = after_prefix(prefix);
    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    if matches!(end, Bound::Excluded(end) if end <= start) {
        return Page {
            entries: Vec::new(),
            revision,
            remaining: 0,
        };
    }
    // With both ends known, counting what remains touches no key.
    let mut found = tree.range::<_, str>((Bound::Included(start), end));
    let limit = match range.limit {
        0 => usize::MAX,
        limit => limit,
    };
    let entries = found
        .by_ref()
        .take(limit)
        .map(|(_, entry)| Entry::clone(entry))
        .collect();
    Page {
        entries,
        revision,
        remaining: found.count() as u64,
    }
}

/// The least string greater than every string with the prefix; `None` where there is none. UTF-8 sorts as its
/// characters do, so it is the prefix with its last character raised by one.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters = prefix.chars();
    while let Some(last) = characters.next_back() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            let mut end = characters.as_str().to_owned();
            end.push(next);
            return Some(end);
        }
    }
    None
}

impl Default for History {
    fn default() -> Self {
        Self {
            revisions: 10_000,
            age: Duration::from_secs(5 * 60),
            bytes: 256 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// So many commits of one key each, each of the same size.
    fn state(commits: u64) -> State {
        let mut state = State::default();
        for revision in 1..=commits {
            let entry = Entry {
                key: Arc::from(format!("/{:02}", revision % 7)),
                value: Bytes::from(vec![0; 1_000]),
                created: Revision(revision),
                modified: Revision(revision),
            };
            let previous = state.tree.get(&entry.key).map(|entry| Entry::clone(entry));
            let commit = Commit::new(Revision(revision), vec![Change::Put { entry, previous }]);
            let mut tree = state.tree.clone();
            commit.apply(&mut tree);
            state.publish(tree, &[Arc::new(commit)]);
        }
        state
    }

    #[test]
    fn history_expires_by_policy() {
        let state = state(100);
        let hour = Duration::from_secs(3600);
        // Revisions kept, how long, bytes; how far history may be forgotten, an hour later and at once.
        let table = [
            (10, hour / 2, usize::MAX, 90, 0),
            (10, Duration::ZERO, usize::MAX, 90, 90),
            (10, hour * 2, usize::MAX, 0, 0),
            (1_000, Duration::ZERO, usize::MAX, 0, 0),
            (0, Duration::ZERO, usize::MAX, 100, 100),
            (1_000, hour, 0, 100, 100),
        ];
        for (revisions, age, bytes, later, at_once) in table {
            let policy = History {
                revisions,
                age,
                bytes,
            };
            let made = Instant::now();
            assert_eq!(state.expired(&policy, made + hour).0, later, "{policy:?}");
            assert_eq!(state.expired(&policy, made).0, at_once, "{policy:?}");
        }
        let policy = History {
            bytes: 20_000,
            ..History::default()
        };
        let mut state = state;
        let to = state.expired(&policy, Instant::now());
        assert!((85..=95).contains(&to.0), "{to:?}");
        drop(state.compact(to));
        assert!(state.commit_bytes <= 20_000, "{} bytes", state.commit_bytes);
        assert_eq!(state.oldest, to);
        assert_eq!(state.since(to).len() as u64, 100 - to.0);
    }

    #[test]
    fn the_end_of_a_prefix() {
        for (prefix, end) in [
            ("", None),
            ("a", Some("b")),
            ("/a/", Some("/a0")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{7f}", Some("\u{80}")),
        ] {
            assert_eq!(after_prefix(prefix).as_deref(), end, "{prefix:?}");
        }
    }
}
