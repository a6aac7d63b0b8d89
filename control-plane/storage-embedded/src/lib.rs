//! The embedded engine: a checksummed log with group commit under a persistent tree.
//!
//! Everything current is in memory, in a tree whose older versions share with the newer ones what they have in
//! common. One thread commits: it takes whatever writes are waiting, decides each on the state the one before it
//! leaves, appends all of them to the log as one frame, makes that durable with one fsync, and only then lets readers,
//! watchers and writers know. Snapshots bound the log; they are written beside the running store.
//!
//! An acknowledged write is on the disk. What a crash can leave unfinished was acknowledged to nobody, and is cut off
//! at the next start. Anything else that does not read back is an error that names the file, never a silent loss.
//!
//! The engine knows nothing about API objects and nothing about other machines.
#![forbid(unsafe_code)]

mod backup;
mod commit;
mod disk;
mod format;
mod lock;
mod log;
mod recover;
mod snapshot;

#[cfg(test)]
mod crash;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use futures_util::stream::BoxStream;
pub use storage::history::History;
use storage::memory::WatchLimits;
use storage::replica::Replica;
use storage::{Answer, Entry, Error, Page, Range, Revision, Storage, WatchEvent, Write};

pub use crate::backup::{BUMP, Copied, backup, restore};
use crate::commit::{Committer, Inbox};
use crate::disk::{Directory, Disk};
use crate::lock::Lock;

/// How a store behaves. That writes are durable before they are acknowledged is not for choosing.
#[derive(Clone, Debug)]
pub struct Options {
    /// What history is kept without being asked to forget it.
    pub history: History,
    /// How watches are fed.
    pub watch: WatchLimits,
    /// A snapshot is taken, and the log begun anew, when the log is longer than this and longer than what is current,
    /// in bytes. Two snapshots and the logs since the older of them are kept, which bounds the disk to about twice what
    /// is current and three such logs.
    pub log_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: History::default(),
            watch: WatchLimits::default(),
            log_bytes: 64 << 20,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error(
        "the data directory {} is in use by process {pid}; stop that process or choose another directory",
        directory.display()
    )]
    Locked {
        /// The data directory.
        directory: PathBuf,
        /// The process that holds it, as it wrote itself down; "unknown" where it did not.
        pid: String,
    },
    /// The operating system refused.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what was written to it, and it is not the unfinished end of the newest log.
    #[error("{} is damaged at offset {offset}: {what}; to repair it, {remedy}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
        /// What can be done.
        remedy: String,
    },
    /// A file has a name of ours and is something else.
    #[error("{} is not a storage file of Fairlead; move it away or choose another data directory", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// A file was written by another version.
    #[error(
        "{} is of format version {found} and this Fairlead reads version {}; run the version that wrote it",
        file.display(),
        format::VERSION
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A store was here, and neither a log nor a snapshot of it is left.
    #[error(
        "{} held a store whose files are gone; restore them from a backup, or remove the directory to begin anew",
        directory.display()
    )]
    Emptied {
        /// The data directory.
        directory: PathBuf,
    },
    /// A backup is to be restored where a store is.
    #[error(
        "{} holds a store already; move it away or choose another data directory",
        directory.display()
    )]
    Occupied {
        /// The data directory.
        directory: PathBuf,
    },
    /// A log that must be there is not.
    #[error(
        "the log that follows revision {after} is missing from {}; restore the directory from a backup",
        directory.display()
    )]
    Missing {
        /// The data directory.
        directory: PathBuf,
        /// The last revision that could be read back.
        after: u64,
    },
}

impl OpenError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// A store in a directory of this machine. Dropping it ends every watch and waits for writes that are under way.
pub struct Embedded {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    committer: Option<JoinHandle<()>>,
    /// Held until the committer is done.
    _lock: Option<Lock>,
}

/// What readers and the committer share.
pub(crate) struct Shared {
    pub(crate) replica: Replica,
    pub(crate) options: Options,
    /// What every write is answered since one failed: what is on the disk is not known any more.
    pub(crate) broken: OnceLock<Error>,
}

impl Embedded {
    /// Opens the store in a directory, which is made if it is not there. One process at a time can have it open.
    ///
    /// # Errors
    /// Each names the file or directory and what can be done.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let directory = directory.as_ref();
        let lock = Lock::take(directory)?;
        let disk = Arc::new(Directory(directory.to_owned()));
        let mut store = Self::open_on(disk, options)?;
        store._lock = Some(lock);
        Ok(store)
    }

    fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let recovered = recover::recover(&*disk, &options.history)?;
        let shared = Arc::new(Shared {
            replica: Replica::new(recovered.state.clone(), options.history, options.watch),
            options,
            broken: OnceLock::new(),
        });
        let inbox = Arc::new(Inbox::default());
        let path = disk.path("");
        let committer = Committer::new(Arc::clone(&shared), Arc::clone(&inbox), disk, recovered);
        let committer = std::thread::Builder::new()
            .name("storage-commit".to_owned())
            .spawn(move || committer.run())
            .map_err(OpenError::io("start a thread to write to", &path))?;
        Ok(Self {
            shared,
            inbox,
            committer: Some(committer),
            _lock: None,
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the thread that commits writes had panicked");
        }
        self.shared.replica.close();
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Storage for Embedded {
    fn revision(&self) -> Revision {
        self.shared.replica.revision()
    }

    fn refuses_writes(&self) -> Option<Error> {
        self.shared.broken.get().cloned()
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(std::future::ready(Ok(self.shared.replica.get(key))))
    }

    fn list(&self, range: Range) -> Answer<'_, Page> {
        Box::pin(async move { self.shared.replica.list(&range) })
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision> {
        Box::pin(async move {
            if writes.is_empty() {
                return Ok(self.revision());
            }
            commit::check(&writes)?;
            self.inbox.write(writes).await
        })
    }

    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>> {
        Box::pin(async move { self.shared.replica.watch(prefix, from) })
    }

    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        Box::pin(self.inbox.compact(revision))
    }
}
