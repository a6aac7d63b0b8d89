//! Opening: the snapshot before the newest, then every log since, into the state that was acknowledged last and the
//! history that led there. The newest snapshot is what the next opening but one begins with.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use storage::history::{Commit, State};
use storage::{Change, Entry, Revision};

use crate::disk::Disk;
use crate::format::{Kind, Record};
use crate::log::{self, Frames, Log};
use crate::{History, OpenError, snapshot};

/// The name of a file that says that the directory holds a store. Logs and snapshots come and go; a directory with this
/// file and without any of them has lost them, and is not taken for a new one. Once the store was closed in order, the
/// file holds the name of the log that was the newest then, and where it ended.
pub(crate) const BEGUN: &str = "begun";

/// What was found.
pub(crate) struct Recovered {
    pub(crate) state: State,
    /// The log to go on with.
    pub(crate) log: Log,
    /// Bytes in the logs since the newest snapshot.
    pub(crate) log_bytes: u64,
    /// Where [`BEGUN`] says that the log ended; zero where it says nothing of it.
    pub(crate) noted: u64,
}

/// Reads the directory back, and clears away what an interrupted snapshot left.
pub(crate) fn recover(disk: &dyn Disk, policy: &History) -> Result<Recovered, OpenError> {
    let directory = disk.path("");
    let mut names = disk.names().map_err(OpenError::io("list", &directory))?;
    names.sort_unstable();
    let remove = |name: &str| {
        let path = disk.path(name);
        disk.remove(name).map_err(OpenError::io("remove", &path))
    };
    let unfinished = |name: &&String| {
        name.strip_suffix(".tmp")
            .is_some_and(|name| log::base(name).is_some() || snapshot::revision(name).is_some())
    };
    for name in names.iter().filter(unfinished) {
        remove(name)?;
    }

    let snapshots: Vec<&String> = names
        .iter()
        .filter(|name| snapshot::revision(name).is_some())
        .collect();
    let logs: Vec<(Revision, &String)> = names
        .iter()
        .filter_map(|name| Some((log::base(name)?, name)))
        .collect();
    let newest = match snapshots.last() {
        None => Revision(0),
        Some(name) => Frames::open(disk, name, Kind::Snapshot)?.header.revision,
    };
    // A store whose first log is there began with nothing.
    let whole = logs.first().is_some_and(|(base, _)| *base == Revision(0));
    let first_snapshot = match snapshots.as_slice() {
        [.., before, _] => Some(before),
        [only] if !whole => Some(only),
        _ => None,
    };
    let mut state = match first_snapshot {
        None => State::default(),
        Some(name) => {
            let (tree, revision) = snapshot::read(disk, name)?;
            State::new(tree, revision)
        }
    };
    let begun = names.iter().any(|name| name == BEGUN);
    if snapshots.is_empty() && logs.is_empty() {
        if begun {
            return Err(OpenError::Emptied { directory });
        }
        let path = disk.path(&log::name(Revision(0)));
        let log = Log::prepare(disk, Revision(0)).map_err(OpenError::io("create", &path))?;
        log.begin(disk).map_err(OpenError::io("create", &path))?;
        mark_begun(disk)?;
        return Ok(Recovered {
            state,
            log_bytes: log.len,
            log,
            noted: 0,
        });
    }

    if !begun {
        mark_begun(disk)?;
    }

    // What led to the newest snapshot is as old as anybody knows.
    let past = History {
        age: Duration::ZERO,
        ..*policy
    };
    // The last log that begins no later than the snapshot, and all after it, lead from the snapshot to the end.
    let needed = logs.partition_point(|(base, _)| *base <= state.revision);
    let missing = |after: Revision| OpenError::Missing {
        directory: directory.clone(),
        after: after.0,
    };
    let Some(first) = needed.checked_sub(1) else {
        return Err(missing(state.revision));
    };
    // A snapshot is written after the log that begins where it stands.
    if logs.iter().all(|(base, _)| *base != newest) {
        return Err(missing(newest));
    }
    // Logs are removed before the snapshot that they go on from.
    if snapshots.len() == 1 && first > 0 {
        return Err(missing(logs[0].0));
    }
    let closed = closed(disk, begun)?;
    let mut newest_log = None;
    let mut log_bytes = 0;
    for (i, (base, name)) in logs.iter().enumerate().skip(first) {
        if *base > state.revision {
            return Err(missing(state.revision));
        }
        let last = (i + 1 == logs.len()).then(|| closed.of(name));
        let read = Log::replay(disk, name, last, |record| {
            let policy = if state.revision < newest {
                &past
            } else {
                policy
            };
            replay(&mut state, policy, record)
        })?;
        if *base >= newest {
            log_bytes += read.len;
        }
        newest_log = Some(read);
    }
    let log = newest_log.ok_or_else(|| missing(state.revision))?;
    if log.base > state.revision || newest > state.revision {
        return Err(missing(state.revision));
    }
    for (_, superseded) in &logs[..first] {
        remove(superseded)?;
    }
    for superseded in snapshots.iter().rev().skip(2) {
        remove(superseded)?;
    }
    Ok(Recovered {
        state,
        noted: closed.of(&log.name),
        log,
        log_bytes,
    })
}

/// What the directory of a store holds, which may be open elsewhere and being written to. Nothing is touched.
pub(crate) fn look(disk: &dyn Disk) -> Result<State, OpenError> {
    let directory = disk.path("");
    let mut names = disk.names().map_err(OpenError::io("list", &directory))?;
    names.sort_unstable();
    let mut snapshots = names
        .iter()
        .filter(|name| snapshot::revision(name).is_some());
    let mut state = match snapshots.next_back() {
        None => State::default(),
        Some(newest) => {
            let (tree, revision) = snapshot::read(disk, newest)?;
            State::new(tree, revision)
        }
    };
    let logs: Vec<(Revision, &String)> = names
        .iter()
        .filter_map(|name| Some((log::base(name)?, name)))
        .collect();
    let needed = logs.partition_point(|(base, _)| *base <= state.revision);
    let missing = |after: Revision| OpenError::Missing {
        directory: directory.clone(),
        after: after.0,
    };
    let first = needed
        .checked_sub(1)
        .ok_or_else(|| missing(state.revision))?;
    // What is wanted is the newest state alone.
    let policy = History {
        revisions: 0,
        age: std::time::Duration::ZERO,
        bytes: 0,
    };
    for (i, (base, name)) in logs.iter().enumerate().skip(first) {
        if *base > state.revision {
            return Err(missing(state.revision));
        }
        // What is open elsewhere was not closed there.
        let newest = (i + 1 == logs.len()).then_some(0);
        log::scan(disk, name, newest, |record| {
            replay(&mut state, &policy, record)
        })?;
    }
    Ok(state)
}

/// Writes the mark, after the first log is durable: a crash between the two leaves a log without a mark, never a mark
/// without a log.
pub(crate) fn mark_begun(disk: &dyn Disk) -> Result<(), OpenError> {
    let path = disk.path(BEGUN);
    let io = |doing| OpenError::io(doing, &path);
    let mut file = disk.create(BEGUN).map_err(io("create"))?;
    file.sync().map_err(io("make durable"))?;
    disk.sync_names().map_err(io("make durable"))
}

/// Where a store was closed last.
#[derive(Default)]
struct Closed {
    log: String,
    end: u64,
}

impl Closed {
    /// Where the log ended then; zero where it was not the newest.
    fn of(&self, log: &str) -> u64 {
        if self.log == log { self.end } else { 0 }
    }
}

/// What the mark says of the last time that the store was closed: nothing where it never was, or by a version that noted
/// nothing.
fn closed(disk: &dyn Disk, begun: bool) -> Result<Closed, OpenError> {
    if !begun {
        return Ok(Closed::default());
    }
    let mut text = String::new();
    let read = disk.read(BEGUN);
    let read = read.and_then(|mut file| file.read_to_string(&mut text));
    read.map_err(OpenError::io("read", &disk.path(BEGUN)))?;
    let read = text.trim_end().split_once(' ');
    let closed = read.and_then(|(log, end)| {
        Some(Closed {
            log: log.to_owned(),
            end: end.parse().ok()?,
        })
    });
    Ok(closed.unwrap_or_default())
}

/// Notes where a log ends with which the store is closed.
pub(crate) fn mark_closed(disk: &dyn Disk, log: &Log) -> io::Result<()> {
    let temporary = format!("{BEGUN}.tmp");
    let mut file = disk.create(&temporary)?;
    file.write(0, format!("{} {}\n", log.name, log.len).as_bytes())?;
    file.sync()?;
    disk.rename(&temporary, BEGUN)?;
    disk.sync_names()
}

/// Carries a record out. What the snapshot covers already is passed over.
fn replay(state: &mut State, policy: &History, record: Record) -> Result<(), String> {
    match record {
        Record::Compaction(to) => {
            drop(state.compact(to.min(state.revision)));
        }
        Record::Write { revision, .. } if revision <= state.revision => {}
        Record::Write { revision, changes } => {
            let due = Revision(state.revision.0 + 1);
            if revision != due {
                let (found, due) = (revision.0, due.0);
                return Err(format!("revision {found} stands where {due} is due"));
            }
            // Taken out so that it is changed in place; after an error the state is not used.
            let mut tree = std::mem::take(&mut state.tree);
            let mut done = Vec::with_capacity(changes.len());
            for (key, value) in changes {
                let previous = tree.get(key.as_str()).map(|entry| Entry::clone(entry));
                done.push(match (value, previous) {
                    (Some(value), previous) => Change::Put {
                        entry: Entry {
                            key: previous
                                .as_ref()
                                .map_or_else(|| Arc::from(key), |old| Arc::clone(&old.key)),
                            value,
                            created: previous.as_ref().map_or(revision, |old| old.created),
                            modified: revision,
                        },
                        previous,
                    },
                    (None, Some(previous)) => Change::Delete { revision, previous },
                    (None, None) => {
                        return Err(format!(
                            "revision {} removes a key that is not there",
                            revision.0
                        ));
                    }
                });
            }
            let commit = Arc::new(Commit::new(revision, done));
            commit.apply(&mut tree);
            drop(state.publish(tree, &[commit]));
            if revision.0 % 1024 == 0 {
                drop(state.compact(state.expired(policy, Instant::now())));
            }
        }
    }
    Ok(())
}
