//! The storage trait: an ordered log of revisions over keys and bytes, in the manner of etcd's data model.
//! Beside it the in-memory reference model and the conformance suite that every engine runs.
//!
//! Bytes in, bytes out: this crate knows nothing about API objects.
#![forbid(unsafe_code)]

mod fanout;
pub mod fault;
pub mod history;
pub mod memory;
pub mod replica;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(test, feature = "conformance"))]
pub mod linear;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;

/// A point in the store's history. Grows with every acknowledged write; zero is "before everything".
///
/// Where the store has one writer, it grows by one. In an etcd that others write to as well, their writes take
/// revisions too, and an empty store need not be at zero: nobody may conclude from one revision which is the next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

/// A key and its value as of some revision. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// For instance `/registry/services/specs/default/web`.
    pub key: Arc<str>,
    /// What was written, byte for byte; see [`Entry::fault`].
    pub value: Bytes,
    /// Revision of the write that created the key.
    pub created: Revision,
    /// Revision of the newest write.
    pub modified: Revision,
}

/// A consistent page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// In order of key.
    pub entries: Vec<Entry>,
    /// The revision that the whole page is of.
    pub revision: Revision,
    /// How many keys of the range follow this page.
    pub remaining: u64,
}

/// What to list: the keys that begin with `prefix`, from `start` (inclusive) on where given.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Every key begins with it.
    pub prefix: String,
    /// First key wanted, for the pages after the first.
    pub start: Option<String>,
    /// The most entries to return; zero means all.
    pub limit: usize,
    /// The revision to read at; `None` means the newest.
    pub at: Option<Revision>,
    /// Whether entries that can't be read come along ([`Entry::fault`]), instead of being the answer.
    pub faulty: bool,
}

/// A change as watchers see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Created or replaced; `previous` is what stood there before.
    Put {
        /// As written.
        entry: Entry,
        /// As it was.
        previous: Option<Entry>,
    },
    /// Removed at `revision`; `previous` is what was removed.
    Delete {
        /// Of the deletion.
        revision: Revision,
        /// As it was.
        previous: Entry,
    },
}

/// What a watch yields, in order of revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// A change of a key in the range.
    Change(Change),
    /// Every change up to and including this revision has been yielded. Sent once the backlog is through, and
    /// from time to time when the store moved on since the last one, with or without a change in the range.
    Progress(Revision),
}

/// Why the store did not do as it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Create met an existing key.
    #[error("key {key} exists already")]
    Exists {
        /// The key.
        key: String,
    },
    /// Update or delete met no such key.
    #[error("key {key} does not exist")]
    NotFound {
        /// The key.
        key: String,
    },
    /// Update or delete met another revision than it expected.
    #[error("key {} was changed at revision {}", current.key, current.modified.0)]
    Conflict {
        /// What stands there.
        current: Entry,
    },
    /// The revision is older than what is retained. Kubernetes: 410 Gone.
    #[error("revision {} has been compacted; the oldest retained one is {}", asked.0, oldest.0)]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest that can be read or watched from.
        oldest: Revision,
    },
    /// The revision is not yet written.
    #[error("revision {} is in the future; the newest is {}", asked.0, newest.0)]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest.
        newest: Revision,
    },
    /// What stands there is nothing that we can read.
    #[error("unable to transform key {key:?}: {why}")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with its value.
        why: Arc<str>,
    },
    /// The watcher read too slowly and was cut off; watch again from the last revision seen.
    #[error("the watcher fell behind and was cut off")]
    Slow,
    /// The write is not one that any store carries out: it names a key twice, or is larger than the engine takes.
    #[error("the write was refused: {reason}")]
    Refused {
        /// What is wrong with it.
        reason: String,
    },
    /// The engine can't write or read any more: a full disk, a failed device, a lost peer.
    #[error("{doing}: {cause}")]
    Unavailable {
        /// What was attempted, on what, and the remedy where one is known.
        doing: String,
        /// Why it failed.
        cause: Arc<str>,
    },
}

/// A boxed future, so that engines are used as `Arc<dyn Storage>`.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// One key in an atomic write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// The key must not exist.
    Create {
        /// Key.
        key: String,
        /// Value.
        value: Bytes,
    },
    /// The key must stand at exactly `expected`.
    Update {
        /// Key.
        key: String,
        /// New value.
        value: Bytes,
        /// Revision that the write was decided on.
        expected: Revision,
    },
    /// The key must stand at exactly `expected`.
    Delete {
        /// Key.
        key: String,
        /// Revision that the write was decided on.
        expected: Revision,
    },
}

impl Write {
    /// The key that it names.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// What the write changes at `revision` where `current` stands at its key.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`] or [`Error::Conflict`] where `current` is not what the write expects.
    pub fn decide(&self, current: Option<&Entry>, revision: Revision) -> Result<Change, Error> {
        let standing = |key: &String, expected: &Revision| match current {
            None => Err(Error::NotFound { key: key.clone() }),
            Some(current) if current.modified != *expected => Err(Error::Conflict {
                current: current.clone(),
            }),
            Some(current) => Ok(current.clone()),
        };
        match self {
            Self::Create { key, .. } if current.is_some() => {
                Err(Error::Exists { key: key.clone() })
            }
            Self::Create { key, value } => Ok(Change::Put {
                entry: Entry {
                    key: Arc::from(key.as_str()),
                    value: value.clone(),
                    created: revision,
                    modified: revision,
                },
                previous: None,
            }),
            Self::Update {
                key,
                value,
                expected,
            } => {
                let previous = standing(key, expected)?;
                let entry = Entry {
                    key: Arc::clone(&previous.key),
                    value: value.clone(),
                    created: previous.created,
                    modified: revision,
                };
                Ok(Change::Put {
                    entry,
                    previous: Some(previous),
                })
            }
            Self::Delete { key, expected } => Ok(Change::Delete {
                revision,
                previous: standing(key, expected)?,
            }),
        }
    }
}

impl Change {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Put { entry, .. } => &entry.key,
            Self::Delete { previous, .. } => &previous.key,
        }
    }

    /// The revision that the change made.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { entry, .. } => entry.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }

    /// Bytes of the key and of the values it carries, by which queues are bounded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (key, new, old) = match self {
            Self::Put { entry, previous } => (
                &entry.key,
                entry.value.len(),
                previous.as_ref().map_or(0, |old| old.value.len()),
            ),
            Self::Delete { previous, .. } => (&previous.key, 0, previous.value.len()),
        };
        key.len() + new + old
    }
}

/// How values are written where others read them too: what callers hold against what stands in the store.
pub trait Codec: Send + Sync + 'static {
    /// What stands in the store for a value.
    fn encode(&self, key: &str, value: &Bytes) -> Bytes;

    /// The value that what stands in the store is.
    ///
    /// # Errors
    /// Why it can't be read.
    fn decode(&self, key: &str, stored: Bytes) -> Result<Bytes, String>;
}

/// A store. A write is durable when its future resolves to `Ok`; a write whose future was dropped may or may not
/// have happened.
pub trait Storage: Send + Sync + 'static {
    /// The newest revision that reads see without asking anybody.
    fn revision(&self) -> Revision;

    /// The newest revision of all that was acknowledged before the call, be it to others who write to the same store.
    /// Reads see it when this resolves.
    fn newest(&self) -> Answer<'_, Revision> {
        Box::pin(std::future::ready(Ok(self.revision())))
    }

    /// Whether history is forgotten, and what has a time to live removed, by the store itself.
    fn keeps_house(&self) -> bool {
        false
    }

    /// Why writes are refused from here on, until the process starts anew.
    fn refuses_writes(&self) -> Option<Error> {
        None
    }

    /// The newest value of a key, or [`Error::Unreadable`].
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>>;

    /// A consistent page of a range, or [`Error::Unreadable`] unless [`Range::faulty`] entries are wanted.
    fn list(&self, range: Range) -> Answer<'_, Page>;

    /// Carries out all writes at one new revision, or none: the Service and the address that it was given are
    /// written together, so that no crash can separate them. Returns the new revision. The writes are checked in
    /// order and the first that can't be carried out is the answer. A key may be named once only. No writes at all
    /// are carried out at once: the answer is the newest revision.
    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision>;

    /// Every change of a key that begins with `prefix` after revision `from`, without gap or repetition.
    /// `None` starts at the newest revision. Compaction does not touch a watch that has begun. The stream ends
    /// after an error and when the store is closed. Entries that can't be read are among the changes.
    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>>;

    /// Forgets history before `revision`: older reads and watches are answered [`Error::Compacted`]. A list at
    /// `revision` and a watch from it go on working. What is compacted already is left as it is.
    fn compact(&self, revision: Revision) -> Answer<'_, ()>;
}
