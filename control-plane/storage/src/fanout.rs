//! Watches. A commit is handed to those whose prefix it touches and to no others; what a watcher has not read is
//! bounded in bytes, and the commits themselves are shared.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::history::Commit;
use crate::{Change, Error, Revision, WatchEvent};
use futures_util::Stream;

/// All watches of a store.
#[derive(Debug, Default)]
pub(crate) struct Fanout {
    watchers: Mutex<Watchers>,
    /// Every commit up to here has been handed out.
    delivered: AtomicU64,
}

#[derive(Debug, Default)]
struct Watchers {
    by_prefix: BTreeMap<Box<str>, Vec<Arc<Watcher>>>,
    closed: bool,
}

#[derive(Debug)]
struct Watcher {
    prefix: Box<str>,
    /// The watch began here; what came before is its backlog.
    began: Revision,
    unread_max: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    /// Of what was ever in the queue or in the backlog.
    newest: Revision,
    /// Too much waited; the queue was dropped.
    slow: bool,
    closed: bool,
    /// A progress event is due.
    progress: bool,
    waker: Option<Waker>,
}

impl Fanout {
    /// A store that begins at `revision`.
    pub(crate) fn new(revision: Revision) -> Self {
        Self {
            watchers: Mutex::default(),
            delivered: AtomicU64::new(revision.0),
        }
    }

    /// Begins a watch. `backlog` is called while no commit is handed out; it tells the newest revision and the
    /// commits after the one that the watch is from.
    pub(crate) fn watch<B: Iterator<Item = Arc<Commit>>>(
        self: &Arc<Self>,
        prefix: String,
        unread_max: usize,
        backlog: impl FnOnce() -> Result<(Revision, B), Error>,
    ) -> Result<Watch, Error> {
        let mut watchers = lock(&self.watchers);
        let (began, backlog) = backlog()?;
        let watcher = Arc::new(Watcher {
            prefix: prefix.into_boxed_str(),
            began,
            unread_max,
            queue: Mutex::new(Queue {
                closed: watchers.closed,
                newest: began,
                ..Queue::default()
            }),
        });
        watchers.add(&watcher);
        drop(watchers);
        let backlog = backlog
            .filter(|commit| commit.changes.iter().any(|change| watcher.wants(change)))
            .collect();
        Ok(Watch {
            fanout: Arc::clone(self),
            watcher,
            backlog,
            current: None,
            told: None,
            over: false,
        })
    }

    /// Hands out commits that were published. They lead to `revision`.
    pub(crate) fn deliver(&self, commits: &[Arc<Commit>], revision: Revision) {
        let watchers = lock(&self.watchers);
        // By prefix, the commits that it concerns: a watcher is given all of them at once. One that is woken for the
        // first sends it by itself while the others are handed out.
        let mut concerning: BTreeMap<&str, Concerned<'_>> = BTreeMap::new();
        for commit in commits {
            for change in &commit.changes {
                watchers.each_of(change.key(), |prefix, same| {
                    let (_, commits) = concerning.entry(prefix).or_insert((same, Vec::new()));
                    commits.push(commit);
                });
            }
        }
        for (same, commits) in concerning.into_values() {
            for watcher in same {
                watcher.push(&commits);
            }
        }
        self.delivered.store(revision.0, Ordering::Release);
    }

    /// Lets every watcher that has nothing to read know how far the store has got.
    pub(crate) fn progress(&self) {
        for watcher in lock(&self.watchers).by_prefix.values().flatten() {
            let mut queue = lock(&watcher.queue);
            queue.progress = true;
            queue.wake();
        }
    }

    /// Cuts every watcher off: what follows can't be told without a gap. `revision` is where the store is now.
    pub(crate) fn cut(&self, revision: Revision) {
        let watchers = lock(&self.watchers);
        for watcher in watchers.by_prefix.values().flatten() {
            let mut queue = lock(&watcher.queue);
            queue.slow = true;
            queue.commits = VecDeque::new();
            queue.wake();
        }
        self.delivered.store(revision.0, Ordering::Release);
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        let mut watchers = lock(&self.watchers);
        watchers.closed = true;
        for watcher in watchers.by_prefix.values().flatten() {
            let mut queue = lock(&watcher.queue);
            queue.closed = true;
            queue.wake();
        }
    }
}

/// The watchers of a prefix, and the commits that they are to be given.
type Concerned<'a> = (&'a [Arc<Watcher>], Vec<&'a Arc<Commit>>);

impl Watchers {
    fn add(&mut self, watcher: &Arc<Watcher>) {
        let same = self.by_prefix.entry(watcher.prefix.clone()).or_default();
        same.push(Arc::clone(watcher));
    }

    fn remove(&mut self, watcher: &Arc<Watcher>) {
        let Some(same) = self.by_prefix.get_mut(&watcher.prefix) else {
            return;
        };
        same.retain(|other| !Arc::ptr_eq(other, watcher));
        if same.is_empty() {
            self.by_prefix.remove(&watcher.prefix);
        }
    }

    /// The watchers of each prefix that the key begins with.
    fn each_of<'a>(&'a self, key: &str, mut tell: impl FnMut(&'a str, &'a [Arc<Watcher>])) {
        // What sorts behind `bound` is no prefix of the key that was not told of yet.
        let mut bound = Bound::Included(key);
        while let Some((found, same)) = self
            .by_prefix
            .range::<str, _>((Bound::Unbounded, bound))
            .next_back()
        {
            let common = common(found, key);
            bound = if common == found.len() {
                tell(found, same);
                Bound::Excluded(&key[..common])
            } else {
                // Any other prefix of the key before this one is as short as what the two have in common.
                Bound::Included(&key[..common])
            };
        }
    }
}

/// How many bytes two texts begin with in common, whole characters only.
fn common(one: &str, other: &str) -> usize {
    let bytes = one.bytes().zip(other.bytes());
    other.floor_char_boundary(bytes.take_while(|(a, b)| a == b).count())
}

impl Watcher {
    fn wants(&self, change: &Change) -> bool {
        change.key().starts_with(&*self.prefix)
    }

    fn push(&self, commits: &[&Arc<Commit>]) {
        let mut queue = lock(&self.queue);
        for commit in commits {
            // A commit comes once for each of its changes, and those before the watch began are in its backlog.
            if queue.slow || commit.revision <= queue.newest {
                continue;
            }
            queue.newest = commit.revision;
            queue.bytes += commit.bytes;
            if queue.bytes > self.unread_max {
                queue.slow = true;
                queue.commits = VecDeque::new();
            } else {
                queue.commits.push_back(Arc::clone(commit));
            }
            queue.wake();
        }
    }
}

impl Queue {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// One watch, as a stream.
pub(crate) struct Watch {
    fanout: Arc<Fanout>,
    watcher: Arc<Watcher>,
    backlog: VecDeque<Arc<Commit>>,
    /// The commit being yielded and the change in it that is next.
    current: Option<(Arc<Commit>, usize)>,
    /// The revision of the last progress event.
    told: Option<Revision>,
    over: bool,
}

impl Watch {
    /// The next change of the commit at hand.
    fn change(&mut self) -> Option<Change> {
        let (commit, next) = self.current.as_mut()?;
        while let Some(change) = commit.changes.get(*next) {
            *next += 1;
            if self.watcher.wants(change) {
                return Some(change.clone());
            }
        }
        self.current = None;
        None
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.over {
                return Poll::Ready(None);
            }
            if let Some(change) = this.change() {
                return Poll::Ready(Some(Ok(WatchEvent::Change(change))));
            }
            if let Some(commit) = this.backlog.pop_front() {
                this.current = Some((commit, 0));
                continue;
            }
            if this.told.is_none() {
                this.told = Some(this.watcher.began);
                let began = WatchEvent::Progress(this.watcher.began);
                return Poll::Ready(Some(Ok(began)));
            }
            // Read before the queue is: what was delivered up to here is in the queue or was yielded.
            let delivered = Revision(this.fanout.delivered.load(Ordering::Acquire));
            let mut queue = lock(&this.watcher.queue);
            if queue.slow {
                this.over = true;
                return Poll::Ready(Some(Err(Error::Slow)));
            }
            if let Some(commit) = queue.commits.pop_front() {
                queue.bytes -= commit.bytes;
                this.current = Some((commit, 0));
                continue;
            }
            if queue.closed {
                this.over = true;
                continue;
            }
            if std::mem::take(&mut queue.progress) && this.told < Some(delivered) {
                this.told = Some(delivered);
                return Poll::Ready(Some(Ok(WatchEvent::Progress(delivered))));
            }
            queue.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.fanout.watchers).remove(&self.watcher);
    }
}

/// A panic of another holder leaves what these locks guard whole: each step of a change is a valid state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::Entry;
    use bytes::Bytes;

    fn commit(revision: u64, keys: &[&str]) -> Arc<Commit> {
        let put = |key: &&str| Change::Put {
            entry: Entry {
                key: Arc::from(*key),
                value: Bytes::from_static(&[0; 100]),
                created: Revision(revision),
                modified: Revision(revision),
            },
            previous: None,
        };
        let changes = keys.iter().map(put).collect();
        Arc::new(Commit::new(Revision(revision), changes))
    }

    fn watch(fanout: &Arc<Fanout>, prefix: &str, unread_max: usize) -> Watch {
        let nothing = || Ok((Revision(0), std::iter::empty()));
        let watch = fanout.watch(prefix.to_owned(), unread_max, nothing);
        watch.expect("nothing stands against it")
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything that the watch yields without waiting, in words.
    fn drain(watch: &mut Watch, wakes: &Arc<Wakes>) -> Vec<String> {
        let waker = Waker::from(Arc::clone(wakes));
        let mut context = Context::from_waker(&waker);
        let mut seen = Vec::new();
        loop {
            seen.push(match Pin::new(&mut *watch).poll_next(&mut context) {
                Poll::Pending => return seen,
                Poll::Ready(None) => "end".to_owned(),
                Poll::Ready(Some(Err(error))) => format!("{error:?}"),
                Poll::Ready(Some(Ok(WatchEvent::Progress(revision)))) => {
                    format!("progress {}", revision.0)
                }
                Poll::Ready(Some(Ok(WatchEvent::Change(change)))) => {
                    format!("{} {}", change.revision().0, change.key())
                }
            });
            if seen.last().is_some_and(|last| last == "end") {
                return seen;
            }
        }
    }

    #[test]
    fn a_commit_wakes_those_whom_it_concerns() {
        let fanout = Arc::new(Fanout::new(Revision(0)));
        let prefixes = ["", "/a", "/a/", "/é", "/b/x"];
        let mut watches = Vec::new();
        for prefix in prefixes {
            let wakes = Arc::new(Wakes::default());
            let mut watch = watch(&fanout, prefix, 1 << 20);
            assert_eq!(drain(&mut watch, &wakes), ["progress 0"]);
            watches.push((watch, wakes));
        }
        // The keys of each commit, and how many of the watches it wakes.
        let commits: [(&[&str], usize); 5] = [
            (&["/a"], 2),
            (&["/a/1", "/a/2"], 3),
            (&["/é"], 2),
            (&["/b"], 1),
            (&["/b/x", "/a/3"], 4),
        ];
        for (i, (keys, concerned)) in commits.into_iter().enumerate() {
            fanout.deliver(&[commit(i as u64 + 1, keys)], Revision(i as u64 + 1));
            let woken: usize = watches
                .iter()
                .map(|(_, w)| w.0.swap(0, Ordering::Relaxed))
                .sum();
            assert_eq!(woken, concerned, "{keys:?}");
            for (prefix, (watch, wakes)) in prefixes.iter().zip(&mut watches) {
                let wanted: Vec<String> = keys
                    .iter()
                    .filter(|key| key.starts_with(prefix))
                    .map(|key| format!("{} {key}", i + 1))
                    .collect();
                assert_eq!(drain(watch, wakes), wanted, "{prefix:?}");
            }
        }
        fanout.progress();
        for (watch, wakes) in &mut watches {
            assert_eq!(drain(watch, wakes), ["progress 5"]);
        }
        fanout.progress();
        for (watch, wakes) in &mut watches {
            assert!(drain(watch, wakes).is_empty(), "nothing new to tell");
        }
        fanout.close();
        for (watch, wakes) in &mut watches {
            assert_eq!(drain(watch, wakes), ["end"]);
        }
        drop(watches);
        let watchers = lock(&fanout.watchers);
        assert!(watchers.by_prefix.is_empty());
    }

    #[test]
    fn the_prefixes_of_a_key_are_found_between_all_others() {
        let letters = ["", "/", "a", "é", "ê"];
        let mut texts = std::collections::BTreeSet::new();
        for (one, two, three) in letters
            .iter()
            .flat_map(|a| letters.iter().map(move |b| (a, b)))
            .flat_map(|(a, b)| letters.iter().map(move |c| (a, b, c)))
        {
            texts.insert(format!("{one}{two}{three}"));
        }
        let fanout = Arc::new(Fanout::new(Revision(0)));
        // Every other one, so that what is looked up is now there, now not.
        let watches: Vec<Watch> = texts
            .iter()
            .step_by(2)
            .map(|prefix| watch(&fanout, prefix, 1 << 20))
            .collect();
        let watchers = lock(&fanout.watchers);
        for key in &texts {
            let mut found = Vec::new();
            watchers.each_of(key, |prefix, _| found.push(prefix));
            found.reverse();
            let prefixes = watches.iter().map(|watch| &*watch.watcher.prefix);
            let expected: Vec<&str> = prefixes.filter(|prefix| key.starts_with(prefix)).collect();
            assert_eq!(found, expected, "{key}");
        }
        drop(watchers);
    }

    #[test]
    fn a_group_of_commits_wakes_once() {
        let fanout = Arc::new(Fanout::new(Revision(0)));
        let (mut watch, wakes) = (watch(&fanout, "/a", 1 << 20), Arc::new(Wakes::default()));
        assert_eq!(drain(&mut watch, &wakes), ["progress 0"]);
        let commits = [
            commit(1, &["/a/1", "/a/2"]),
            commit(2, &["/b"]),
            commit(3, &["/a/1"]),
        ];
        fanout.deliver(&commits, Revision(3));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(drain(&mut watch, &wakes), ["1 /a/1", "1 /a/2", "3 /a/1"]);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let fanout = Arc::new(Fanout::new(Revision(0)));
        let one = commit(1, &["/a"]).bytes;
        let mut watch = watch(&fanout, "/a", 3 * one);
        for revision in 1..=3 {
            fanout.deliver(&[commit(revision, &["/a"])], Revision(revision));
        }
        assert_eq!(lock(&watch.watcher.queue).bytes, 3 * one);
        let wakes = Arc::default();
        assert_eq!(
            drain(&mut watch, &wakes),
            ["progress 0", "1 /a", "2 /a", "3 /a"]
        );
        for revision in 4..=9 {
            fanout.deliver(&[commit(revision, &["/a"])], Revision(revision));
        }
        let queue = lock(&watch.watcher.queue);
        assert!(
            queue.slow && queue.commits.capacity() == 0,
            "its memory is given back at once"
        );
        drop(queue);
        assert_eq!(drain(&mut watch, &wakes), ["Slow", "end"]);
    }

    #[test]
    fn a_backlog_and_what_follows_do_not_overlap() {
        let fanout = Arc::new(Fanout::new(Revision(2)));
        let commits: Vec<_> = (1..=4).map(|revision| commit(revision, &["/a"])).collect();
        // Published and not yet handed out: the third is in the backlog.
        let backlog = commits[..3].to_vec();
        let mut watch = fanout
            .watch("/a".to_owned(), 1 << 20, || {
                Ok((Revision(3), backlog.into_iter()))
            })
            .expect("nothing stands against it");
        fanout.deliver(&commits[2..], Revision(4));
        let seen = drain(&mut watch, &Arc::default());
        assert_eq!(seen, ["1 /a", "2 /a", "3 /a", "progress 3", "4 /a"]);
    }
}
