//! Snapshots: everything current at one revision, in one file. With it the logs that led to the one before are
//! superseded.

use std::io;
use std::sync::Arc;

use storage::Revision;
use storage::history::Tree;

use crate::OpenError;
use crate::disk::Disk;
use crate::format::{Frame, Header, Kind, entries};
use crate::log::{self, Frames, Next, numbered};

/// A frame of a snapshot is closed when it is this long, in bytes.
const FRAME_LEN: usize = 1 << 20;

/// The name of the snapshot of a revision.
pub(crate) fn name(revision: Revision) -> String {
    format!("snapshot-{:020}", revision.0)
}

/// The revision in the name of a snapshot.
pub(crate) fn revision(name: &str) -> Option<Revision> {
    numbered(name, "snapshot-")
}

/// Writes the snapshot of a tree and then removes what it supersedes. It has its name only when it is durable.
pub(crate) fn write(disk: &dyn Disk, tree: &Tree, revision: Revision) -> io::Result<()> {
    write_as(disk, &name(revision), tree, revision)?;
    remove_superseded(disk, revision)
}

/// Writes the snapshot of a tree under a name.
pub(crate) fn write_as(
    disk: &dyn Disk,
    name: &str,
    tree: &Tree,
    revision: Revision,
) -> io::Result<()> {
    let header = Header {
        kind: Kind::Snapshot,
        salt: fastrand::u64(..),
        revision,
        entries: tree.len() as u64,
    };
    let temporary = format!("{name}.tmp");
    let written = write_to(disk, &temporary, tree, &header);
    if let Err(error) = written {
        // What is left of it occupies space that may be what is missing.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, name)?;
    disk.sync_names()
}

fn write_to(disk: &dyn Disk, name: &str, tree: &Tree, header: &Header) -> io::Result<()> {
    let mut file = disk.create(name)?;
    let mut end = 0;
    let mut write = |bytes: &[u8]| {
        let offset = end;
        end += bytes.len() as u64;
        file.write(offset, bytes)
    };
    write(&header.encode())?;
    let mut frame = Frame::new();
    for (_, entry) in tree {
        frame.entry(entry);
        if frame.len() >= FRAME_LEN {
            write(frame.finish(header.salt))?;
            frame.clear();
        }
    }
    if !frame.is_empty() {
        write(frame.finish(header.salt))?;
    }
    file.sync()
}

/// Removes what is older than the snapshot before this one: history that is retained reaches back beyond the newest.
/// The logs that begin at either exist already; logs are removed oldest first, so what is left after a crash is a row
/// without a gap.
fn remove_superseded(disk: &dyn Disk, revision: Revision) -> io::Result<()> {
    let mut names = disk.names()?;
    names.sort_unstable();
    let snapshots = names.iter().filter_map(|name| self::revision(name));
    let Some(kept) = snapshots.filter(|of| *of < revision).max() else {
        // The first: the log that the store began with leads to it.
        return Ok(());
    };
    for name in names {
        let older_snapshot = self::revision(&name).is_some_and(|of| of < kept);
        let older_log = log::base(&name).is_some_and(|base| base < kept);
        if older_snapshot || older_log {
            disk.remove(&name)?;
        }
    }
    disk.sync_names()
}

/// Reads a snapshot back.
pub(crate) fn read(disk: &dyn Disk, name: &str) -> Result<(Tree, Revision), OpenError> {
    let mut frames = Frames::open(disk, name, Kind::Snapshot)?;
    let mut tree = Tree::new();
    loop {
        let offset = frames.offset;
        match frames.frame()? {
            Next::End => break,
            Next::Damaged(what) => return Err(frames.corrupt(offset, what.to_owned())),
            Next::Body(body) => {
                let Some(entries) = entries(&body) else {
                    let what = "its checksum matches but it is no row of entries".to_owned();
                    return Err(frames.corrupt(offset, what));
                };
                for entry in entries {
                    tree.insert(Arc::clone(&entry.key), Arc::new(entry));
                }
            }
        }
    }
    let (found, wanted) = (tree.len() as u64, frames.header.entries);
    if found != wanted {
        let what = format!("{wanted} entries were written and {found} are there");
        return Err(frames.corrupt(frames.len, what));
    }
    Ok((tree, frames.header.revision))
}
