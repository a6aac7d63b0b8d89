//! What an earlier version of the layout left is taken over by this one, under the traffic that uses it.
//!
//! Tables that are the same in both are pinned in the new place too: programs of both layouts use one table. What
//! changed is converted, where [`CHANGES`] says how, or begins anew. The pins of the links move, so that today's programs
//! take the places of yesterday's, one link after the other; nothing is ever attached twice. What packets begin in
//! yesterday's tables meanwhile is converted once more when no link leads there any longer. A process that dies in
//! between leaves both places: the next one goes on where it stood.
//!
//! A layout that is newer than this build's is not understood: its links are taken over, its tables are not.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::pins::{self, Pins};
use crate::spec::{self, Spec};
use crate::sys;
use crate::{Error, grow};

/// A table that is not what it was.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The first version of the layout that has it so.
    pub version: u32,
    /// Its name, then and now.
    pub table: &'static str,
    /// Makes an element of today's of one of yesterday's, key and value; `None` for one that has no place any more.
    /// Without this the table begins anew.
    pub convert: Option<Convert>,
}

/// See [`Change::convert`].
pub type Convert = fn(&[u8], &[u8]) -> Option<(Vec<u8>, Vec<u8>)>;

/// Every change, by version. The first version has none before it.
pub const CHANGES: &[Change] = &[];

/// What was found of another layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Versions whose places were taken.
    pub layouts: Vec<u32>,
    /// Tables that began anew although that layout had them.
    pub anew: Vec<&'static str>,
}

/// A layout whose place is taken.
#[derive(Debug)]
pub(crate) struct Heir<'a> {
    pins: Pins,
    changes: &'a [Change],
    /// The others, the oldest first.
    former: Vec<(u32, Pins)>,
    pub(crate) inherited: Inherited,
}

impl<'a> Heir<'a> {
    /// Looks for other layouts, and pins what this one shares with them. To be called before the tables are made.
    pub(crate) fn find(pins: &Pins, changes: &'a [Change]) -> Result<Heir<'a>, Error> {
        let own = pins.layout();
        let every = Pins::every_layout(pins.root())?;
        let others = every
            .into_iter()
            .filter_map(|pins| Some((pins.layout()?, pins)));
        let mut former: Vec<(u32, Pins)> = others
            .filter(|(version, _)| Some(*version) != own)
            .collect();
        former.sort_by_key(|(version, _)| *version);
        let mut heir = Heir {
            pins: pins.clone(),
            changes,
            inherited: Inherited {
                layouts: former.iter().map(|(version, _)| *version).collect(),
                anew: Vec::new(),
            },
            former,
        };
        // The newest of those that are understood knows best.
        let last = heir
            .understood()
            .map(|(version, former)| (version, former.clone()));
        for table in spec::ALL {
            let Some((version, former)) = &last else {
                heir.note_lost(table)?;
                continue;
            };
            heir.share(table, *version, former)?;
        }
        Ok(heir)
    }

    /// The layout that tables are taken from.
    fn understood(&self) -> Option<(u32, &Pins)> {
        let own = self.pins.layout()?;
        let older = self.former.iter().rev().find(|(version, _)| *version < own);
        older.map(|(version, pins)| (*version, pins))
    }

    /// The last change of a table since a version.
    fn change(&self, table: &Spec, since: u32) -> Option<&Change> {
        let changes = self.changes.iter().rev();
        let mut of_table = changes.filter(|change| change.table == table.name);
        of_table.find(|change| change.version > since)
    }

    fn note_lost(&mut self, table: &'static Spec) -> Result<(), Error> {
        for (_, former) in &self.former {
            if pins::open(&former.map(table.name))?.is_some() {
                self.inherited.anew.push(table.name);
                break;
            }
        }
        Ok(())
    }

    /// Pins a table in its new place, where it is the same.
    fn share(&mut self, table: &'static Spec, since: u32, former: &Pins) -> Result<(), Error> {
        let Some(old) = pins::open(&former.map(table.name))? else {
            return Ok(());
        };
        let change = self.change(table, since);
        let same_shape = table.check_shape(&info(table, &old)?).is_ok();
        if change.is_none() && same_shape {
            let path = self.pins.map(table.name);
            return match sys::pin(old.as_fd(), &path) {
                // An earlier process came so far.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                done => done.map_err(Error::path("pin", &path)),
            };
        }
        if change.and_then(|change| change.convert).is_none() {
            self.inherited.anew.push(table.name);
        }
        Ok(())
    }

    /// Converts what changed, into the tables that are there by now. What is there already is newer.
    pub(crate) fn convert(&self) -> Result<(), Error> {
        let Some((since, former)) = self.understood() else {
            return Ok(());
        };
        for table in spec::ALL {
            let change = self.change(table, since);
            let Some(convert) = change.and_then(|change| change.convert) else {
                continue;
            };
            let new = pins::open(&self.pins.map(table.name))?;
            let (Some(old), Some(new)) = (pins::open(&former.map(table.name))?, new) else {
                continue;
            };
            convert_table(table, &old, &new, convert)
                .map_err(|source| table.failed("convert", "the elements", source))?;
        }
        Ok(())
    }

    /// Moves the links' pins. Their programs are replaced where links are refreshed.
    pub(crate) fn take_links(&self) -> Result<(), Error> {
        for (_, former) in &self.former {
            for name in former.links()? {
                let (from, to) = (former.link(&name), self.pins.link(&name));
                if pins::open(&to)?.is_some() {
                    // Both are attached, which no start of ours leaves: the newer one stays.
                    crate::link::remove_link(&from)?;
                    continue;
                }
                fs::rename(&from, &to).map_err(Error::path("move", &from))?;
            }
        }
        Ok(())
    }

    /// Lets go of the other layouts. No link may lead to their programs any longer.
    pub(crate) fn finish(self) -> Result<Inherited, Error> {
        self.convert()?;
        for (_, former) in &self.former {
            former.remove()?;
        }
        Ok(self.inherited)
    }
}

fn info(table: &Spec, fd: &OwnedFd) -> Result<sys::MapInfo, Error> {
    sys::map_info(fd.as_fd()).map_err(|source| table.failed("look at", "the shape", source))
}

fn convert_table(table: &Spec, old: &OwnedFd, new: &OwnedFd, convert: Convert) -> io::Result<()> {
    let from = sys::map_info(old.as_fd())?;
    let to = sys::map_info(new.as_fd())?;
    let mut failed = None;
    grow::walk(
        old,
        from.key_size as usize,
        from.value_size as usize,
        |key, value| {
            let Some((key, value)) = convert(key, value) else {
                return true;
            };
            if (key.len(), value.len()) != (to.key_size as usize, to.value_size as usize) {
                failed = Some(io::Error::other(format!(
                    "{} has another shape",
                    table.name
                )));
                return false;
            }
            match sys::insert(new.as_fd(), &key, &value) {
                Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
                    failed = Some(error);
                    false
                }
                _ => true,
            }
        },
    )?;
    failed.map_or(Ok(()), Err)
}
