//! Values that stand in a store and that nobody can read: written by others, damaged, or encrypted with keys that we do
//! not have. Their keys are taken all the same; that they cannot be read is told to whoever asks for them.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Change, Entry, Error};

/// What the value of an entry begins with that tells why what stands in the store can't be read. No text does.
const MARK: u8 = 0xff;

/// The value of an entry for what can't be read.
#[must_use]
pub fn value(why: &str) -> Bytes {
    let mut value = Vec::with_capacity(why.len() + 1);
    value.push(MARK);
    value.extend_from_slice(why.as_bytes());
    value.into()
}

impl Entry {
    /// Why what stands in the store can't be read; `None` where the value is it.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        let why = self.value.strip_prefix(&[MARK])?;
        Some(std::str::from_utf8(why).unwrap_or_default())
    }

    /// The entry.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn readable(self) -> Result<Self, Error> {
        match self.fault() {
            None => Ok(self),
            Some(why) => Err(Error::Unreadable {
                key: self.key.to_string(),
                why: Arc::from(why),
            }),
        }
    }
}

impl Change {
    /// The change as one sees it for whom there is nothing where nothing can be read.
    #[must_use]
    pub fn passed_over(self) -> Option<Self> {
        let known = |entry: &Entry| entry.fault().is_none();
        match self {
            Self::Put { entry, previous } => {
                let previous = previous.filter(known);
                if known(&entry) {
                    return Some(Self::Put { entry, previous });
                }
                let revision = entry.modified;
                previous.map(|previous| Self::Delete { revision, previous })
            }
            Self::Delete { ref previous, .. } => known(previous).then_some(self),
        }
    }

    /// The change, of which what stood there before may not be known.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn readable(self) -> Result<Self, Error> {
        Ok(match self {
            Self::Put { entry, previous } => Self::Put {
                entry: entry.readable()?,
                previous: previous.filter(|previous| previous.fault().is_none()),
            },
            Self::Delete { revision, previous } => Self::Delete {
                revision,
                previous: previous.readable()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revision;

    fn entry(value: Bytes, modified: u64) -> Entry {
        Entry {
            key: Arc::from("/a"),
            value,
            created: Revision(1),
            modified: Revision(modified),
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_or_passed_over() {
        let good = |at| entry("{}".into(), at);
        let bad = |at| entry(value("cut short"), at);
        assert_eq!(good(1).fault(), None);
        assert_eq!(bad(1).fault(), Some("cut short"));
        let told = bad(1).readable().unwrap_err().to_string();
        assert_eq!(told, "unable to transform key \"/a\": cut short");

        let put = |entry, previous| Change::Put { entry, previous };
        let gone = |at, previous| Change::Delete {
            revision: Revision(at),
            previous,
        };
        for (change, passed_over, told) in [
            (put(good(1), None), Some(put(good(1), None)), true),
            (put(bad(1), None), None, false),
            (put(bad(2), Some(good(1))), Some(gone(2, good(1))), false),
            (put(bad(2), Some(bad(1))), None, false),
            (put(good(2), Some(bad(1))), Some(put(good(2), None)), true),
            (gone(2, good(1)), Some(gone(2, good(1))), true),
            (gone(2, bad(1)), None, false),
        ] {
            assert_eq!(change.clone().passed_over(), passed_over);
            let readable = change.readable();
            assert_eq!(readable.is_ok(), told);
            assert_eq!(readable.ok(), passed_over.filter(|_| told));
        }
    }
}
