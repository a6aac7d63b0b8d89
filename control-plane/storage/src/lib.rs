//! The storage trait: an ordered log of revisions over keys and bytes, in the manner of etcd's data model.
//! Beside it the in-memory reference model and the conformance suite that every engine runs.
//!
//! Bytes in, bytes out: this crate knows nothing about API objects.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;

/// A point in the store's history. Grows by one with every acknowledged write; zero is "before everything".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

/// A key and its value as of some revision. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// For instance `/registry/services/specs/default/web`.
    pub key: Arc<str>,
    /// What was written, byte for byte.
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
    /// from time to time when the store moved on without a change in the range.
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
    /// The watcher read too slowly and was cut off; watch again from the last revision seen.
    #[error("the watcher fell behind and was cut off")]
    Slow,
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

/// A store. A write is durable when its future resolves to `Ok`; a write whose future was dropped may or may not
/// have happened.
pub trait Storage: Send + Sync + 'static {
    /// The newest revision that reads see.
    fn revision(&self) -> Revision;

    /// The newest value of a key.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>>;

    /// A consistent page of a range.
    fn list(&self, range: Range) -> Answer<'_, Page>;

    /// Carries out all writes at one new revision, or none: the Service and the address that it was given are
    /// written together, so that no crash can separate them. Returns the new revision.
    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision>;

    /// Every change of a key that begins with `prefix` after revision `from`, without gap or repetition.
    /// `None` starts at the newest revision.
    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>>;

    /// Forgets history up to `revision`: older reads and watches are answered [`Error::Compacted`].
    fn compact(&self, revision: Revision) -> Answer<'_, ()>;
}
