//! The write-ahead log: written one frame per group of writes, read back after a restart.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use storage::Revision;

use crate::disk::{Disk, DiskFile};
use crate::format::{
    FRAME_HEAD_LEN, FRAME_MAX, Frame, HEADER_LEN, Header, HeaderFault, Kind, Record, checksum,
    records,
};
use crate::{OpenError, recover};

/// A log being written.
pub(crate) struct Log {
    file: Box<dyn DiskFile>,
    pub(crate) name: String,
    salt: u64,
    /// The revision that the log begins after.
    pub(crate) base: Revision,
    /// Bytes in it.
    pub(crate) len: u64,
    /// Length of the file: what is behind `len` is room, of zeros.
    room_end: u64,
}

fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// The name of the log that begins after a revision.
pub(crate) fn name(base: Revision) -> String {
    format!("log-{:020}", base.0)
}

/// The revision in the name of a log.
pub(crate) fn base(name: &str) -> Option<Revision> {
    numbered(name, "log-")
}

/// The number after a prefix, where a name is of that form exactly.
pub(crate) fn numbered(name: &str, prefix: &str) -> Option<Revision> {
    let digits = name.strip_prefix(prefix)?;
    let plain = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok().map(Revision))?
}

impl Log {
    /// A new log under a temporary name, its header durable. A failure changes nothing that matters.
    pub(crate) fn prepare(disk: &dyn Disk, base: Revision) -> io::Result<Self> {
        let header = Header {
            kind: Kind::Log,
            salt: fastrand::u64(..),
            revision: base,
            entries: 0,
        };
        let name = name(base);
        let temporary = temporary(&name);
        let written = disk.create(&temporary).and_then(|mut file| {
            file.write(0, &header.encode())?;
            file.sync()?;
            Ok(file)
        });
        let file = written.inspect_err(|_| {
            // What is left of it occupies space that may be what is missing.
            let _ = disk.remove(&temporary);
        })?;
        Ok(Self {
            file,
            name,
            salt: header.salt,
            base,
            len: HEADER_LEN as u64,
            room_end: HEADER_LEN as u64,
        })
    }

    /// Gives a prepared log its name; from here on it is the newest. After a failure it may or may not be, so nothing
    /// can be written any more, neither to it nor to the one before.
    pub(crate) fn begin(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.rename(&temporary(&self.name), &self.name)?;
        disk.sync_names()
    }

    /// Appends a frame and makes it durable. With one that no room is left for goes room for others, `step` bytes of it,
    /// in the same sync.
    pub(crate) fn append(&mut self, frame: &mut Frame, step: u64) -> io::Result<()> {
        let bytes = frame.finish(self.salt);
        let end = self.len + bytes.len() as u64;
        self.file.write(self.len, bytes)?;
        if end > self.room_end {
            // Where there is no space for it, the next frame takes longer, and that is all.
            let made = self.file.write(end, &vec![0; step as usize]).is_ok();
            self.room_end = if made { end + step } else { end };
        }
        self.file.sync()?;
        self.len = end;
        Ok(())
    }

    /// How many bytes of room are behind the last frame.
    pub(crate) fn room(&self) -> u64 {
        self.room_end - self.len
    }

    /// Writes zeros, so that `room` bytes of them are behind the last frame. A frame that is written over zeros
    /// changes neither the file's length nor where it is on the disk, and its sync need not wait for the file
    /// system's own log.
    pub(crate) fn make_room(&mut self, room: u64) -> io::Result<()> {
        let end = self.len + room;
        let zeros = vec![0; end.saturating_sub(self.room_end) as usize];
        self.file.write(self.room_end, &zeros)?;
        self.file.sync()?;
        self.room_end = end.max(self.room_end);
        Ok(())
    }

    /// Reads an existing log, hands over its records in order, and opens it for writing after the last whole frame.
    ///
    /// Only the newest log may end in a frame that is not whole: it was being written when the process or the
    /// machine stopped, nobody was told that it is durable, and it is cut off. `newest` says where such a log ended when
    /// the store was closed last: nothing before that was being written.
    pub(crate) fn replay(
        disk: &dyn Disk,
        name: &str,
        newest: Option<u64>,
        each: impl FnMut(Record) -> Result<(), String>,
    ) -> Result<Self, OpenError> {
        let scanned = scan(disk, name, newest, each)?;
        let path = disk.path(name);
        let failed = |doing| OpenError::io(doing, &path);
        let mut file = disk.open(name).map_err(failed("open"))?;
        let mut room_end = scanned.len;
        if let Some(fault) = scanned.torn {
            let offset = scanned.end;
            tracing::warn!(
                file = %path.display(), offset, bytes = scanned.len - offset, fault,
                "the log ends in an incomplete write; cutting it off. After a crash such a write was never acknowledged; where the file was damaged otherwise, restore a backup"
            );
            file.truncate(offset).map_err(failed("truncate"))?;
            room_end = offset;
        }
        Ok(Self {
            file,
            name: name.to_owned(),
            salt: scanned.header.salt,
            base: scanned.header.revision,
            len: scanned.end,
            room_end,
        })
    }
}

/// What is in a log.
pub(crate) struct Scanned {
    pub(crate) header: Header,
    /// Behind the last whole frame.
    pub(crate) end: u64,
    /// Bytes in the file.
    len: u64,
    /// Why what follows is no frame, where it is not room.
    torn: Option<&'static str>,
}

/// Reads a log without touching it, and hands over its records in order. As with [`Log::replay`], the `newest` one may
/// end in a frame that is not whole.
pub(crate) fn scan(
    disk: &dyn Disk,
    name: &str,
    newest: Option<u64>,
    mut each: impl FnMut(Record) -> Result<(), String>,
) -> Result<Scanned, OpenError> {
    let mut frames = Frames::open(disk, name, Kind::Log)?;
    let torn = loop {
        let offset = frames.offset;
        let fault = match frames.frame()? {
            Next::End => break None,
            Next::Body(body) => {
                let unreadable = || "its checksum matches but it is no row of records".to_owned();
                let read = records(&body).ok_or_else(unreadable);
                let read = read.and_then(|records| records.into_iter().try_for_each(&mut each));
                match read {
                    Ok(()) => continue,
                    Err(what) => return Err(frames.corrupt(offset, what)),
                }
            }
            Next::Damaged(what) => what,
        };
        if newest.is_none() {
            return Err(frames.corrupt(offset, format!("{fault}, and a newer log exists")));
        }
        if let Some(after) = frames.whole_frame_after(offset)? {
            let what = format!("{fault}, and a whole record follows at offset {after}");
            return Err(frames.corrupt(offset, what));
        }
        break Some(fault);
    };
    if let Some(closed) = newest.filter(|closed| frames.offset < *closed) {
        return Err(frames.cut_short(closed, torn));
    }
    Ok(Scanned {
        header: frames.header,
        end: frames.offset,
        len: frames.len,
        torn,
    })
}

/// Reads the frames of a file.
pub(crate) struct Frames<'a> {
    disk: &'a dyn Disk,
    name: String,
    path: PathBuf,
    reader: io::BufReader<Box<dyn Read>>,
    pub(crate) header: Header,
    /// Where the next frame begins.
    pub(crate) offset: u64,
    /// Bytes in the file.
    pub(crate) len: u64,
}

/// What stands at the offset.
pub(crate) enum Next {
    Body(Vec<u8>),
    /// The end of the file, or of what was written to it.
    End,
    /// Nothing whole, and why.
    Damaged(&'static str),
}

impl<'a> Frames<'a> {
    pub(crate) fn open(disk: &'a dyn Disk, name: &str, kind: Kind) -> Result<Self, OpenError> {
        let path = disk.path(name);
        let len = disk.len(name).map_err(OpenError::io("read", &path))?;
        let reader = disk.read(name).map_err(OpenError::io("read", &path))?;
        let mut frames = Self {
            disk,
            name: name.to_owned(),
            path,
            reader: io::BufReader::with_capacity(256 << 10, reader),
            header: Header {
                kind,
                salt: 0,
                revision: Revision(0),
                entries: 0,
            },
            offset: 0,
            len,
        };
        if len < HEADER_LEN as u64 {
            return Err(frames.corrupt(0, "the file is shorter than its header".to_owned()));
        }
        let mut header = [0; HEADER_LEN];
        frames.read(&mut header)?;
        frames.header = match Header::decode(kind, &header) {
            Ok(header) => header,
            Err(HeaderFault::Damaged) => {
                return Err(frames.corrupt(0, "the checksum of the header is wrong".to_owned()));
            }
            Err(HeaderFault::Foreign) => {
                return Err(OpenError::Foreign { file: frames.path });
            }
            Err(HeaderFault::Version(found)) => {
                return Err(OpenError::Version {
                    file: frames.path,
                    found,
                });
            }
        };
        Ok(frames)
    }

    pub(crate) fn frame(&mut self) -> Result<Next, OpenError> {
        let rest = self.len - self.offset;
        if rest == 0 {
            return Ok(Next::End);
        }
        if rest < FRAME_HEAD_LEN as u64 {
            return Ok(if self.only_zeros_follow()? {
                Next::End
            } else {
                Next::Damaged("the record is cut short")
            });
        }
        let mut head = [0; FRAME_HEAD_LEN];
        self.read(&mut head)?;
        let (len, crc) = split(head);
        let length = u32::from_le_bytes(len) as usize;
        if head == [0; FRAME_HEAD_LEN] && self.only_zeros_follow()? {
            return Ok(Next::End);
        }
        if length == 0 || length > FRAME_MAX {
            return Ok(Next::Damaged("the length of the record is impossible"));
        }
        if length as u64 > rest - FRAME_HEAD_LEN as u64 {
            return Ok(Next::Damaged("the record is cut short"));
        }
        let mut body = vec![0; length];
        self.read(&mut body)?;
        if checksum(self.header.salt, len, &body) != crc {
            return Ok(Next::Damaged("the checksum of the record is wrong"));
        }
        self.offset += (FRAME_HEAD_LEN + length) as u64;
        Ok(Next::Body(body))
    }

    /// Whether the rest of a log is room. A snapshot has none.
    fn only_zeros_follow(&mut self) -> Result<bool, OpenError> {
        if self.header.kind != Kind::Log {
            return Ok(false);
        }
        let failed = OpenError::io("read", &self.path);
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) => return Err(failed(error)),
            };
            if bytes.is_empty() {
                return Ok(true);
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            let len = bytes.len();
            self.reader.consume(len);
        }
    }

    /// Looks for a whole frame anywhere behind a damaged one. The checksum covers the file's salt, so what is found
    /// was written to this log as a frame.
    fn whole_frame_after(&self, offset: u64) -> Result<Option<u64>, OpenError> {
        let failed = OpenError::io("read", &self.path);
        let mut bytes = Vec::new();
        let read = self
            .disk
            .read(&self.name)
            .and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(failed)?;
        let damaged = offset as usize;
        let found = (damaged + 1..bytes.len().saturating_sub(FRAME_HEAD_LEN)).find(|start| {
            let Some((head, rest)) = bytes[*start..].split_first_chunk::<FRAME_HEAD_LEN>() else {
                return false;
            };
            let (len, crc) = split(*head);
            let length = u32::from_le_bytes(len) as usize;
            // The first byte of a body is a record's kind: a cheap test before the checksum.
            length <= rest.len()
                && matches!(rest.first(), Some(1 | 2))
                && length >= 9
                && checksum(self.header.salt, len, &rest[..length]) == crc
        });
        Ok(found.map(|start| start as u64))
    }

    pub(crate) fn corrupt(&self, offset: u64, what: String) -> OpenError {
        let path = self.path.display();
        let remedy = match self.header.kind {
            Kind::Log if offset > 0 => format!(
                "restore the directory from a backup; or, giving up every write from here on, move the newer files \
                 away and run `truncate -s {offset} {path}`"
            ),
            Kind::Log | Kind::Snapshot => "restore the directory from a backup".to_owned(),
        };
        OpenError::Corrupt {
            file: self.path.clone(),
            offset,
            what,
            remedy,
        }
    }

    /// The log went on behind what is whole of it, and was closed with that.
    fn cut_short(&self, closed: u64, fault: Option<&str>) -> OpenError {
        let fault = fault.unwrap_or("the log ends");
        let begun = self.disk.path(recover::BEGUN);
        OpenError::Corrupt {
            file: self.path.clone(),
            offset: self.offset,
            what: format!("{fault}, and it was {closed} bytes long when the store was closed"),
            remedy: format!(
                "restore the directory from a backup; or, giving up every write from here on, empty {}",
                begun.display()
            ),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), OpenError> {
        let read = self.reader.read_exact(bytes);
        read.map_err(OpenError::io("read", &self.path))?;
        if self.offset == 0 {
            self.offset = bytes.len() as u64;
        }
        Ok(())
    }
}

fn split(head: [u8; FRAME_HEAD_LEN]) -> ([u8; 4], u32) {
    let [a, b, c, d, e, f, g, h] = head;
    ([a, b, c, d], u32::from_le_bytes([e, f, g, h]))
}
