//! Tables that turn out too small are swapped for larger ones under the traffic that uses them.
//!
//! A table cannot change its size, and a loaded program cannot change its tables. So the pin of what is too small is set
//! aside, the loader makes a larger table in its place, programs are loaded against that, and what the old one holds is
//! copied before the links turn to them. What packets began in the old tables meanwhile is copied once more when no link
//! leads there any longer. A process that dies in between leaves the pin aside: the next one copies again, which changes
//! nothing that is newer.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::Error;
use crate::pins::{self, Pins};
use crate::spec::{self, Capacities, Spec};
use crate::sys::{self, Mapping};
use crate::table::PART;

/// Ends the name of a pin that was set aside.
const OLD: &str = "~old";
/// Entries in one batched read.
const BATCH: usize = 4096;

/// The kinds of tables that grow (`enum bpf_map_type`).
mod kind {
    pub(super) const HASH: u32 = 1;
    pub(super) const ARRAY: u32 = 2;
    pub(super) const LRU_HASH: u32 = 9;
    pub(super) const LPM_TRIE: u32 = 11;
}

/// Tables whose pins were set aside.
#[derive(Debug)]
pub(crate) struct Aside {
    pins: Pins,
    tables: Vec<&'static Spec>,
}

impl Aside {
    /// Sets the pins of tables aside that hold fewer entries than are wanted.
    pub(crate) fn set(pins: &Pins, capacities: &Capacities) -> Result<Aside, Error> {
        let mut aside = Aside {
            pins: pins.clone(),
            tables: Vec::new(),
        };
        let set = spec::ALL.iter().try_for_each(|table| {
            let wanted = table.capacity(capacities);
            wanted.map_or(Ok(()), |wanted| aside.set_table(table, wanted))
        });
        set.inspect_err(|_| aside.put_back())?;
        Ok(aside)
    }

    fn set_table(&mut self, table: &'static Spec, wanted: u32) -> Result<(), Error> {
        let left = self.old(table)?.is_some();
        let small = match pins::open(&self.pins.map(table.name))? {
            Some(fd) => info(table, &fd)?.entries_max < wanted,
            None => false,
        };
        if small {
            if left {
                // What an earlier process did not finish, before the next table takes that place.
                self.copy_table(table)?;
            }
            let (from, to) = (self.pins.map(table.name), self.path(table));
            fs::rename(&from, &to).map_err(Error::path("set aside", &from))?;
        }
        if small || left {
            self.tables.push(table);
        }
        Ok(())
    }

    /// Puts everything back as it was, since no program uses the larger tables.
    pub(crate) fn put_back(&self) {
        for table in &self.tables {
            // What remains aside is found there by the next start.
            let _ = fs::rename(self.path(table), self.pins.map(table.name));
        }
    }

    /// Copies what the new tables do not have yet.
    pub(crate) fn copy(&self) -> Result<(), Error> {
        self.tables
            .iter()
            .try_for_each(|table| self.copy_table(table))
    }

    /// Copies what packets began since, and lets the old tables go. No program may use them any longer. The rest is
    /// written by this process alone, but for the counts of least-connection: what sockets did to those meanwhile is
    /// lost, and none of them falls below zero for it.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        let mut done = Ok(());
        for table in &self.tables {
            let finished = self.finish_table(table);
            done = done.and(finished);
        }
        done
    }

    fn finish_table(&self, table: &Spec) -> Result<(), Error> {
        if matches!(self.old(table)?, Some(old) if info(table, &old)?.kind == kind::LRU_HASH) {
            self.copy_table(table)?;
        }
        pins::unpin(&self.path(table))
    }

    fn path(&self, table: &Spec) -> PathBuf {
        self.pins.map(&format!("{}{OLD}", table.name))
    }

    fn old(&self, table: &Spec) -> Result<Option<OwnedFd>, Error> {
        pins::open(&self.path(table))
    }

    fn copy_table(&self, table: &Spec) -> Result<(), Error> {
        let new = pins::open(&self.pins.map(table.name))?;
        let (Some(old), Some(new)) = (self.old(table)?, new) else {
            return Ok(());
        };
        let (from, to) = (info(table, &old)?, info(table, &new)?);
        table.check_shape(&from)?;
        let copied = match from.kind {
            kind::ARRAY => copy_array(table, &old, &new, from.entries_max.min(to.entries_max)),
            kind::HASH | kind::LRU_HASH | kind::LPM_TRIE => copy_hash(table, &old, &new),
            _ => Ok(()),
        };
        copied.map_err(|source| table.failed("copy", "the elements", source))
    }
}

fn info(table: &Spec, fd: &OwnedFd) -> Result<sys::MapInfo, Error> {
    sys::map_info(fd.as_fd()).map_err(|source| table.failed("look at", "the shape", source))
}

/// Elements that the new table has already are left: they are newer. In parts, so that never all of both is mapped.
fn copy_array(table: &Spec, old: &OwnedFd, new: &OwnedFd, entries: u32) -> io::Result<()> {
    let size = table.value_size.next_multiple_of(8) as usize;
    for first in (0..entries).step_by(PART as usize) {
        let bytes = PART.min(entries - first) as usize * size;
        let len = bytes.next_multiple_of(rustix::param::page_size());
        let offset = first as usize * size;
        let from = Mapping::new(old, offset, len, true)?;
        let to = Mapping::new(new, offset, len, false)?;
        for (from, to) in from.words().iter().zip(to.words()).take(bytes / 8) {
            let word = from.load(Ordering::Acquire);
            if word != 0 {
                // Where it fails, the word is no longer empty.
                let _ = to.compare_exchange(0, word, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// As [`copy_array`].
fn copy_hash(table: &Spec, old: &OwnedFd, new: &OwnedFd) -> io::Result<()> {
    let mut failed = Ok(());
    let (key_size, value_size) = (table.key_size as usize, table.value_size as usize);
    walk(old, key_size, value_size, |key, value| {
        match sys::insert(new.as_fd(), key, value) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => failed = Err(error),
            _ => {}
        }
        failed.is_ok()
    })?;
    failed
}

/// Shows every element of a table, key and value; ends where `visit` returns false.
pub(crate) fn walk(
    old: &OwnedFd,
    key_size: usize,
    value_size: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> bool,
) -> io::Result<()> {
    let mut size = BATCH;
    let mut from: Option<sys::Cursor> = None;
    let mut to: sys::Cursor = [0; 64];
    let (mut keys, mut values) = (vec![0; size * key_size], vec![0; size * value_size]);
    loop {
        let read = sys::lookup_batch(
            old.as_fd(),
            from.as_ref(),
            &mut to,
            &mut keys,
            &mut values,
            size,
        );
        let (count, more) = match read {
            Ok(read) => read,
            // A single bucket holds more than there is room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                size *= 2;
                keys.resize(size * key_size, 0);
                values.resize(size * value_size, 0);
                continue;
            }
            Err(error) => return Err(error),
        };
        let elements = keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size));
        let mut elements = elements.take(count);
        if !elements.all(|(key, value)| visit(key, value)) || !more {
            return Ok(());
        }
        from = Some(to);
    }
}
