//! The committer: one thread that turns waiting writes into durable revisions.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use storage::history::{Commit, Tree};
use storage::{Change, Entry, Error, Revision, Write};
use tokio::sync::oneshot;

use crate::Shared;
use crate::disk::Disk;
use crate::format::Frame;
use crate::log::{self, Log};
use crate::recover::{self, Recovered};
use crate::snapshot;

/// A frame is closed when it is this long, in bytes, and what waits goes into the next one.
const GROUP_LEN: usize = 8 << 20;

/// The largest write, in bytes of keys and values.
const WRITE_MAX: usize = 64 << 20;

/// How far ahead the log has room at most, in bytes.
const ROOM: u64 = 4 << 20;

/// How much room is made at once, in bytes: nobody waits for more than that.
const STEP: u64 = 512 << 10;

/// When nothing was written for so long, nobody is kept waiting by making room.
const QUIET: Duration = Duration::from_millis(20);

/// What is asked of the committer.
enum Request {
    Write {
        writes: Vec<Write>,
        reply: oneshot::Sender<Result<Revision, Error>>,
    },
    Compact {
        to: Revision,
        reply: oneshot::Sender<Result<(), Error>>,
    },
}

/// Where requests wait.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    closed: bool,
    /// Whether the committer sleeps and nobody has woken it yet: a wake-up is a system call.
    asleep: bool,
}

/// Whether the writes are of a size that can be carried out.
pub(crate) fn check(writes: &[Write]) -> Result<(), Error> {
    let bytes: usize = writes.iter().map(write_len).sum();
    if bytes > WRITE_MAX {
        return Err(Error::Refused {
            reason: format!("it has {bytes} bytes and {WRITE_MAX} is the most"),
        });
    }
    Ok(())
}

fn write_len(write: &Write) -> usize {
    let value = match write {
        Write::Create { value, .. } | Write::Update { value, .. } => value.len(),
        Write::Delete { .. } => 0,
    };
    write.key().len() + value + 16
}

impl Inbox {
    /// Has writes carried out.
    pub(crate) async fn write(&self, writes: Vec<Write>) -> Result<Revision, Error> {
        let (reply, answer) = oneshot::channel();
        self.push(Request::Write { writes, reply });
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Has history forgotten.
    pub(crate) fn compact(
        &self,
        to: Revision,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.push(Request::Compact { to, reply });
        async { answer.await.unwrap_or_else(|_| Err(closed())) }
    }

    /// Lets the committer finish what waits and end.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// A request that comes too late is dropped, and with it its reply, which the caller notices.
    fn push(&self, request: Request) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        waiting.requests.push(request);
        let asleep = std::mem::take(&mut waiting.asleep);
        // Whom it wakes needs the lock.
        drop(waiting);
        if asleep {
            self.arrived.notify_one();
        }
    }

    /// What has arrived; empty when `until` passes first, `None` when closed and nothing waits.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        loop {
            waiting.asleep = false;
            if !waiting.requests.is_empty() {
                return Some(std::mem::take(&mut waiting.requests));
            }
            if waiting.closed {
                return None;
            }
            waiting = match until {
                None => {
                    waiting.asleep = true;
                    self.arrived
                        .wait(waiting)
                        .unwrap_or_else(PoisonError::into_inner)
                }
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        return Some(Vec::new());
                    }
                    waiting.asleep = true;
                    self.arrived
                        .wait_timeout(waiting, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    /// A panic of another holder leaves the list whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> Error {
    Error::Unavailable {
        doing: "writing to the store".to_owned(),
        cause: Arc::from("it has been closed"),
    }
}

/// The thread's own state. Its tree and revision are what was published last.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    disk: Arc<dyn Disk>,
    tree: Tree,
    revision: Revision,
    log: Log,
    frame: Frame,
    /// Bytes of keys and values that are current.
    live_bytes: u64,
    /// Bytes of log that a snapshot would supersede.
    log_bytes: u64,
    snapshot: Option<JoinHandle<()>>,
    /// How far ahead the log has room, in bytes.
    room: u64,
    /// See [`Recovered::noted`]: with nothing written since, there is nothing to note at the end.
    noted: u64,
    /// When a group was written last.
    wrote: Instant,
    /// The revision that watchers were last told of, and when.
    told: (Revision, Instant),
}

/// A request that was decided and awaits the disk.
enum Decided {
    Write(
        oneshot::Sender<Result<Revision, Error>>,
        Result<Revision, Error>,
    ),
    Compact(oneshot::Sender<Result<(), Error>>, Result<(), Error>),
}

/// Ends what waits on the committer however the thread ends.
struct CloseOnExit(Arc<Shared>, Arc<Inbox>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        self.1.close();
        self.1.lock().requests.clear();
        self.0.replica.close();
    }
}

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        inbox: Arc<Inbox>,
        disk: Arc<dyn Disk>,
        recovered: Recovered,
    ) -> Self {
        let state = recovered.state;
        let room = (shared.options.log_bytes / 4).min(ROOM);
        let live = state.tree.values().map(|entry| entry_len(entry)).sum();
        Self {
            shared,
            inbox,
            disk,
            revision: state.revision,
            told: (state.revision, Instant::now()),
            tree: state.tree,
            noted: recovered.noted,
            log: recovered.log,
            frame: Frame::new(),
            live_bytes: live,
            log_bytes: recovered.log_bytes,
            snapshot: None,
            room,
            wrote: Instant::now(),
        }
    }

    /// Works until the inbox is closed.
    pub(crate) fn run(mut self) {
        let _closer = CloseOnExit(Arc::clone(&self.shared), Arc::clone(&self.inbox));
        // With nothing untold and room in the log there is nothing to wake up for.
        while let Some(requests) = self.inbox.take(self.due()) {
            let mut requests = requests.into_iter();
            while requests.len() > 0 {
                self.group(&mut requests);
                self.wrote = Instant::now();
            }
            if self.room_due().is_some_and(|due| due <= Instant::now()) {
                self.make_room();
            }
            if self.progress_due().is_some_and(|due| due <= Instant::now()) {
                self.told = (self.revision, Instant::now());
                self.shared.replica.progress();
            }
        }
        if let Some(snapshot) = self.snapshot.take() {
            // It has logged its failure.
            let _ = snapshot.join();
        }
        self.close();
    }

    /// Notes where the log ends: what ends it sooner later on is damage, and not a write that a crash cut short.
    fn close(&self) {
        if self.noted == self.log.len || self.shared.broken.get().is_some() {
            return;
        }
        if let Err(cause) = recover::mark_closed(&*self.disk, &self.log) {
            tracing::warn!(%cause, "where the log ends could not be noted");
        }
    }

    /// When to wake up though nobody asks for anything.
    fn due(&self) -> Option<Instant> {
        [self.progress_due(), self.room_due()]
            .into_iter()
            .flatten()
            .min()
    }

    fn room_due(&self) -> Option<Instant> {
        let lacking = self.shared.broken.get().is_none() && self.log.room() < self.room / 2;
        lacking.then(|| self.wrote + QUIET)
    }

    fn progress_due(&self) -> Option<Instant> {
        let (revision, at) = self.told;
        (revision < self.revision).then(|| at + self.shared.options.watch.progress)
    }

    /// Decides requests, makes the outcome durable, publishes it, and answers.
    fn group(&mut self, requests: &mut impl Iterator<Item = Request>) {
        let mut tree = self.tree.clone();
        let mut revision = self.revision;
        let mut live_bytes = self.live_bytes as i64;
        let mut commits = Vec::new();
        let mut compact = Revision(0);
        let mut decided = Vec::new();
        self.frame.clear();
        while self.frame.len() < GROUP_LEN
            && let Some(request) = requests.next()
        {
            match request {
                Request::Write { writes, reply } => {
                    let next = Revision(revision.0 + 1);
                    let answer = decide(&tree, next, &writes).map(|changes| {
                        let commit = Arc::new(Commit::new(next, changes));
                        commit.apply(&mut tree);
                        live_bytes += commit.changes.iter().map(growth).sum::<i64>();
                        self.frame.write(next, commit.changes.iter().map(wire));
                        commits.push(commit);
                        revision = next;
                        next
                    });
                    decided.push(Decided::Write(reply, answer));
                }
                Request::Compact { to, reply } => {
                    let answer = if to > revision {
                        Err(Error::Future {
                            asked: to,
                            newest: revision,
                        })
                    } else {
                        self.frame.compaction(to);
                        compact = compact.max(to);
                        Ok(())
                    };
                    decided.push(Decided::Compact(reply, answer));
                }
            }
        }
        // Refusals wait too: they may rest on a write of the same group.
        if let Err(error) = self.persist() {
            for decided in decided {
                decided.answer(Some(&error));
            }
            return;
        }
        self.tree = tree.clone();
        self.revision = revision;
        self.live_bytes = live_bytes.max(0) as u64;
        self.shared
            .replica
            .publish(tree, &commits, revision, compact);
        for decided in decided {
            decided.answer(None);
        }
        self.maybe_snapshot();
    }

    /// Writes the frame and waits for the disk. After a failure nothing is written any more: what an fsync failed on
    /// may be lost whatever a later one says.
    fn persist(&mut self) -> Result<(), Error> {
        if let Some(error) = self.shared.broken.get() {
            return Err(error.clone());
        }
        if self.frame.is_empty() {
            return Ok(());
        }
        let before = self.log.len;
        if let Err(cause) = self.log.append(&mut self.frame, self.room.min(STEP)) {
            let path = self.disk.path(&self.log.name);
            return Err(self.fail(&path, &cause));
        }
        self.log_bytes += self.log.len - before;
        Ok(())
    }

    /// Makes some room for later writes. Without it they take longer, and that is all.
    fn make_room(&mut self) {
        let room = self.room.min(self.log.room() + STEP);
        if self.shared.broken.get().is_none()
            && let Err(cause) = self.log.make_room(room)
        {
            let path = self.disk.path(&self.log.name);
            tracing::debug!(file = %path.display(), %cause, "no room could be made in the log");
            self.room = 0;
        }
    }

    /// Makes the store read-only. Returns what every write is answered from here on.
    fn fail(&mut self, path: &Path, cause: &io::Error) -> Error {
        let file = path.display();
        tracing::error!(%file, %cause, "the store is read-only: its log can't be written");
        let remedy = match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free space on its file system"
            }
            io::ErrorKind::ReadOnlyFilesystem => "mount its file system for writing",
            _ => "check its file system and device",
        };
        let doing = format!(
            "the store is read-only since writing {file} failed; {remedy}, then restart Fairlead"
        );
        let error = Error::Unavailable {
            doing,
            cause: Arc::from(cause.to_string()),
        };
        self.shared.broken.get_or_init(|| error).clone()
    }

    /// Begins a snapshot where the log has grown long enough. The writers go on, into a new log.
    fn maybe_snapshot(&mut self) {
        let limit = self.shared.options.log_bytes.max(self.live_bytes);
        let running = self
            .snapshot
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        if self.log_bytes <= limit || running || self.log.base == self.revision {
            return;
        }
        // Whether it works or not, the next attempt is one whole log away.
        self.log_bytes = 0;
        let path = self.disk.path(&log::name(self.revision));
        match Log::prepare(&*self.disk, self.revision) {
            Ok(log) => {
                if let Err(cause) = log.begin(&*self.disk) {
                    self.fail(&path, &cause);
                    return;
                }
                self.log = log;
                self.noted = 0;
            }
            Err(cause) => {
                tracing::warn!(file = %path.display(), %cause, "no new log could be begun; staying with this one");
                return;
            }
        }
        let (disk, tree, revision) = (Arc::clone(&self.disk), self.tree.clone(), self.revision);
        let work = move || {
            let began = Instant::now();
            match snapshot::write(&*disk, &tree, revision) {
                Ok(()) => {
                    let (entries, took) = (tree.len(), began.elapsed());
                    tracing::debug!(revision = revision.0, entries, ?took, "snapshot written");
                }
                Err(cause) => {
                    let path = disk.path(&snapshot::name(revision));
                    let path = path.display();
                    tracing::warn!(file = %path, %cause, "the snapshot failed; the logs stay until the next one");
                }
            }
        };
        let thread = std::thread::Builder::new().name("storage-snapshot".to_owned());
        match thread.spawn(work) {
            Ok(thread) => self.snapshot = Some(thread),
            Err(cause) => tracing::warn!(%cause, "no thread could be started for a snapshot"),
        }
    }
}

impl Decided {
    /// Tells whoever asked; a caller that has gone away is not missed.
    fn answer(self, failed: Option<&Error>) {
        let failed = failed.cloned();
        match self {
            Self::Write(reply, answer) => drop(reply.send(failed.map_or(answer, Err))),
            Self::Compact(reply, answer) => drop(reply.send(failed.map_or(answer, Err))),
        }
    }
}

/// What the writes change in the tree, or why not.
fn decide(tree: &Tree, revision: Revision, writes: &[Write]) -> Result<Vec<Change>, Error> {
    let mut changes: Vec<Change> = Vec::with_capacity(writes.len());
    let mut keys = std::collections::BTreeSet::new();
    for write in writes {
        if !keys.insert(write.key()) {
            return Err(Error::Refused {
                reason: format!("key {} is named twice", write.key()),
            });
        }
        let current = tree.get(write.key()).map(|entry| &**entry);
        changes.push(write.decide(current, revision)?);
    }
    Ok(changes)
}

/// A change as the log has it.
fn wire(change: &Change) -> (&str, Option<&[u8]>) {
    match change {
        Change::Put { entry, .. } => (&entry.key, Some(&entry.value)),
        Change::Delete { previous, .. } => (&previous.key, None),
    }
}

/// By how many bytes a change makes what is current larger.
fn growth(change: &Change) -> i64 {
    let len = |entry: &Entry| entry_len(entry) as i64;
    match change {
        Change::Put { entry, previous } => len(entry) - previous.as_ref().map_or(0, len),
        Change::Delete { previous, .. } => -len(previous),
    }
}

fn entry_len(entry: &Entry) -> u64 {
    (entry.key.len() + entry.value.len()) as u64
}
