//! What stands in the files. All integers are little-endian.
//!
//! A file is a header and frames. The header is 8 bytes of magic, the version (u32), a salt (u64), the revision that
//! the file begins at (u64), for snapshots the number of entries (u64; zero in logs), and the CRC-32C of all that
//! (u32). A frame is the length of its body (u32), a CRC-32C (u32) over salt, length and body, and the body.
//!
//! A log's frame is what one fsync made durable: a row of records, each an atomic write or a compaction. Frame N is
//! durable before a byte of frame N+1 is written, so what a crash can damage is the last frame and no other. The salt
//! differs from file to file, so that neither a value nor what the disk held before can be taken for a frame.
//!
//! A record is a kind (u8) and a revision (u64); a write (kind 1) goes on with the number of its changes (u32), each a
//! kind (u8: 1 put, 2 delete), the key and, for a put, the value, both after their length (u32). A compaction (kind 2)
//! ends there. A snapshot's frame is a row of entries: created (u64), modified (u64), key, value.

use std::sync::Arc;

use bytes::Bytes;
use storage::{Entry, Revision};

/// The version that this code writes, and the only one that it reads.
pub(crate) const VERSION: u32 = 1;

/// Length of a header in bytes.
pub(crate) const HEADER_LEN: usize = 40;

/// Length in bytes of what precedes a frame's body.
pub(crate) const FRAME_HEAD_LEN: usize = 8;

/// The longest body of a frame in bytes; a longer one is never written, so a greater length is damage.
pub(crate) const FRAME_MAX: usize = 256 << 20;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Log,
    Snapshot,
}

impl Kind {
    fn magic(self) -> [u8; 8] {
        *match self {
            Self::Log => b"FLEADLOG",
            Self::Snapshot => b"FLEADSNP",
        }
    }
}

/// The head of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) salt: u64,
    pub(crate) revision: Revision,
    pub(crate) entries: u64,
}

/// Why a header can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderFault {
    /// It is not a file of this kind at all.
    Foreign,
    /// It is of another version.
    Version(u32),
    /// Its checksum does not match.
    Damaged,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend(self.kind.magic());
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.salt.to_le_bytes());
        bytes.extend(self.revision.0.to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&bytes);
        header
    }

    pub(crate) fn decode(kind: Kind, bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderFault> {
        if bytes[..8] != kind.magic() {
            return Err(HeaderFault::Foreign);
        }
        let mut fields = Fields(&bytes[8..]);
        let mut next = || -> Option<(u32, u64, u64, u64, u32)> {
            let (version, salt) = (fields.u32()?, fields.u64()?);
            Some((version, salt, fields.u64()?, fields.u64()?, fields.u32()?))
        };
        let Some((version, salt, revision, entries, crc)) = next() else {
            return Err(HeaderFault::Damaged);
        };
        if crc != crc32c::crc32c(&bytes[..HEADER_LEN - 4]) {
            return Err(HeaderFault::Damaged);
        }
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        Ok(Self {
            kind,
            salt,
            revision: Revision(revision),
            entries,
        })
    }
}

/// A frame under construction; its head is filled in by [`Frame::finish`].
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; FRAME_HEAD_LEN],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == FRAME_HEAD_LEN
    }

    /// Length of the body in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - FRAME_HEAD_LEN
    }

    /// Adds a record that carries a write.
    pub(crate) fn write<'a>(
        &mut self,
        revision: Revision,
        changes: impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) {
        self.bytes.push(1);
        self.bytes.extend(revision.0.to_le_bytes());
        self.bytes.extend(length(changes.len()));
        for (key, value) in changes {
            self.bytes.push(if value.is_some() { 1 } else { 2 });
            self.blob(key.as_bytes());
            if let Some(value) = value {
                self.blob(value);
            }
        }
    }

    /// Adds a record of a compaction.
    pub(crate) fn compaction(&mut self, revision: Revision) {
        self.bytes.push(2);
        self.bytes.extend(revision.0.to_le_bytes());
    }

    /// Adds an entry of a snapshot.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.bytes.extend(entry.created.0.to_le_bytes());
        self.bytes.extend(entry.modified.0.to_le_bytes());
        self.blob(entry.key.as_bytes());
        self.blob(&entry.value);
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.bytes.extend(length(bytes.len()));
        self.bytes.extend(bytes);
    }

    /// The bytes to write. The frame is empty afterwards and keeps its memory.
    pub(crate) fn finish(&mut self, salt: u64) -> &[u8] {
        let (head, body) = self.bytes.split_at_mut(FRAME_HEAD_LEN);
        let len = length(body.len());
        head[..4].copy_from_slice(&len);
        head[4..].copy_from_slice(&checksum(salt, len, body).to_le_bytes());
        &self.bytes
    }

    /// Empties the frame for the next one.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(FRAME_HEAD_LEN);
        self.bytes.shrink_to(16 << 20);
    }
}

/// Writers refuse what is longer than [`FRAME_MAX`] before it gets here.
fn length(len: usize) -> [u8; 4] {
    (len as u32).to_le_bytes()
}

/// The checksum of a frame.
pub(crate) fn checksum(salt: u64, len: [u8; 4], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &len), body)
}

/// A record of a log, as read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    /// Keys with their new values, or none where the key was removed.
    Write {
        revision: Revision,
        changes: Vec<(String, Option<Bytes>)>,
    },
    Compaction(Revision),
}

/// The records of a frame's body; `None` where it is not a row of records.
pub(crate) fn records(body: &[u8]) -> Option<Vec<Record>> {
    let mut fields = Fields(body);
    let mut records = Vec::new();
    while !fields.0.is_empty() {
        let kind = fields.u8()?;
        let revision = Revision(fields.u64()?);
        records.push(match kind {
            1 => {
                let count = fields.u32()? as usize;
                // A change takes five bytes at the least, so the count can't ask for more memory than the body has.
                let mut changes = Vec::with_capacity(count.min(fields.0.len() / 5));
                for _ in 0..count {
                    let put = match fields.u8()? {
                        1 => true,
                        2 => false,
                        _ => return None,
                    };
                    let key = String::from_utf8(fields.blob()?.to_vec()).ok()?;
                    let value = if put {
                        Some(Bytes::copy_from_slice(fields.blob()?))
                    } else {
                        None
                    };
                    changes.push((key, value));
                }
                Record::Write { revision, changes }
            }
            2 => Record::Compaction(revision),
            _ => return None,
        });
    }
    Some(records)
}

/// The entries of a snapshot's frame; `None` where it is not a row of entries.
pub(crate) fn entries(body: &[u8]) -> Option<Vec<Entry>> {
    let mut fields = Fields(body);
    let mut entries = Vec::new();
    while !fields.0.is_empty() {
        let created = Revision(fields.u64()?);
        let modified = Revision(fields.u64()?);
        let key = Arc::from(std::str::from_utf8(fields.blob()?).ok()?);
        entries.push(Entry {
            key,
            value: Bytes::copy_from_slice(fields.blob()?),
            created,
            modified,
        });
    }
    Some(entries)
}

/// Takes fields from the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn blob(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        let (blob, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(blob)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let value =
            prop::option::of(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from));
        let changes = prop::collection::vec((".{0,12}", value), 0..4);
        prop_oneof![
            (any::<u64>(), changes).prop_map(|(revision, changes)| Record::Write {
                revision: Revision(revision),
                changes,
            }),
            any::<u64>().prop_map(|revision| Record::Compaction(Revision(revision))),
        ]
    }

    proptest! {
        #[test]
        fn records_are_read_as_written(wanted in prop::collection::vec(record(), 0..6)) {
            let mut frame = Frame::new();
            for record in &wanted {
                match record {
                    Record::Write { revision, changes } => {
                        let changes = changes.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
                        frame.write(*revision, changes);
                    }
                    Record::Compaction(revision) => frame.compaction(*revision),
                }
            }
            let body = &frame.finish(7)[FRAME_HEAD_LEN..];
            prop_assert_eq!(records(body), Some(wanted));
        }

        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // Whatever is read is no longer than what it was read from.
            let read = records(&bytes).unwrap_or_default();
            prop_assert!(read.len() <= bytes.len());
            prop_assert!(entries(&bytes).unwrap_or_default().len() <= bytes.len());
        }
    }

    #[test]
    fn headers() {
        let header = Header {
            kind: Kind::Log,
            salt: 0x0123_4567_89ab_cdef,
            revision: Revision(42),
            entries: 0,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(Kind::Log, &bytes), Ok(header));
        assert_eq!(
            Header::decode(Kind::Snapshot, &bytes),
            Err(HeaderFault::Foreign)
        );
        // What a later version would write.
        let mut later = bytes;
        later[8] = 2;
        let crc = crc32c::crc32c(&later[..HEADER_LEN - 4]);
        later[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            Header::decode(Kind::Log, &later),
            Err(HeaderFault::Version(2))
        );
        for byte in 8..HEADER_LEN {
            let mut damaged = bytes;
            damaged[byte] ^= 0x10;
            assert_eq!(
                Header::decode(Kind::Log, &damaged),
                Err(HeaderFault::Damaged)
            );
        }
    }
}
