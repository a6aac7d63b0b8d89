//! What watchers of the same event share: the object as a value for their selectors, and the event as bytes, encoded
//! once for each form that somebody wants.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use api::printing::IncludeObject;
use api::table::Resource;
use bytes::Bytes;
use serde_json::Value;
use storage::{Change, Entry, Revision};

use crate::negotiate::Form;
use crate::object;

/// How many events are kept. Watchers that are this far behind the newest encode for themselves.
const KEPT: usize = 256;
/// An event of more bytes is not kept, so that all that are kept stay within a few megabytes.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// The newest events of a server.
pub(crate) struct Events(Box<[Mutex<Option<Kept>>]>);

struct Kept {
    key: Arc<str>,
    revision: Revision,
    event: Arc<Event>,
}

/// One event.
#[derive(Default)]
pub(crate) struct Event {
    before: OnceLock<Value>,
    after: OnceLock<Value>,
    frames: Mutex<Vec<(Frame, Bytes)>>,
}

/// What tells the encodings of one event apart.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) row: &'static Resource,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(crate) kind: &'static str,
    pub(crate) form: Form,
    /// Rather than JSON.
    pub(crate) protobuf: bool,
    pub(crate) include: IncludeObject,
    /// Of a Table: whether its columns were sent before.
    pub(crate) without_columns: bool,
}

impl Frame {
    /// Asked for each event of each watcher: rows are told apart by where they are, not by their names.
    fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.row, other.row)
            && self.kind == other.kind
            && (self.form, self.protobuf) == (other.form, other.protobuf)
            && (self.include, self.without_columns) == (other.include, other.without_columns)
    }
}

impl Default for Events {
    fn default() -> Self {
        Events((0..KEPT).map(|_| Mutex::new(None)).collect())
    }
}

impl Events {
    /// The event of a change, the same for all who ask in time.
    pub(crate) fn of(&self, change: &Change) -> Arc<Event> {
        if change.bytes() > KEPT_BYTES_MAX {
            return Arc::default();
        }
        let (key, revision) = (change.key(), change.revision());
        // One write may change several keys at one revision.
        let spread = key
            .bytes()
            .fold(0u64, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
        let spread = spread.wrapping_add(revision.0);
        #[expect(clippy::cast_possible_truncation, reason = "any of the places will do")]
        let place = spread as usize % KEPT;
        let mut kept = lock(&self.0[place]);
        if let Some(kept) = &*kept
            && kept.revision == revision
            && kept.key == *key
        {
            return kept.event.clone();
        }
        let event = Arc::<Event>::default();
        // Who is far behind must not take the place of what the others are reading.
        if kept.as_ref().is_none_or(|kept| kept.revision <= revision) {
            *kept = Some(Kept {
                key: key.clone(),
                revision,
                event: event.clone(),
            });
        }
        event
    }
}

impl Event {
    /// The object as it stood before.
    pub(crate) fn before(&self, row: &Resource, entry: &Entry) -> &Value {
        self.before.get_or_init(|| object::decode(row, entry))
    }

    /// The object as it stands after.
    pub(crate) fn after(&self, row: &Resource, entry: &Entry) -> &Value {
        self.after.get_or_init(|| object::decode(row, entry))
    }

    /// The event as bytes; `encode` is called by the first who asks.
    pub(crate) fn frame(&self, frame: Frame, encode: impl FnOnce() -> Vec<u8>) -> Bytes {
        let mut frames = lock(&self.frames);
        if let Some((_, bytes)) = frames.iter().find(|(known, _)| known.is(&frame)) {
            return bytes.clone();
        }
        let bytes = Bytes::from(encode());
        frames.push((frame, bytes.clone()));
        bytes
    }
}

/// A panic of another holder leaves what these locks guard whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, revision: u64, bytes: usize) -> Change {
        let entry = Entry {
            key: Arc::from(key),
            value: Bytes::from(vec![b' '; bytes]),
            created: Revision(revision),
            modified: Revision(revision),
        };
        Change::Put {
            entry,
            previous: None,
        }
    }

    #[test]
    fn an_event_is_encoded_once_for_each_form() {
        let events = Events::default();
        let row = api::table::find("", "v1", "configmaps").unwrap();
        let frame = Frame {
            row,
            kind: "ADDED",
            form: Form::Object,
            protobuf: false,
            include: IncludeObject::Metadata,
            without_columns: false,
        };
        let mut encoded = 0;
        for (key, kind) in [
            ("/a", "ADDED"),
            ("/a", "ADDED"),
            ("/a", "DELETED"),
            ("/b", "ADDED"),
            ("/a", "DELETED"),
        ] {
            let event = events.of(&change(key, 7, 10));
            event.frame(Frame { kind, ..frame }, || {
                encoded += 1;
                Vec::new()
            });
        }
        assert_eq!(encoded, 3);
        // What is newer takes the place of what is older, never the other way round.
        let place = |revision| events.of(&change("/a", revision, 10));
        let newer = place(7 + KEPT as u64);
        let _ = place(7);
        assert!(Arc::ptr_eq(&newer, &place(7 + KEPT as u64)));
        // Large events are nobody's to keep.
        let large = change("/c", 9, KEPT_BYTES_MAX);
        assert!(!Arc::ptr_eq(&events.of(&large), &events.of(&large)));
    }
}
