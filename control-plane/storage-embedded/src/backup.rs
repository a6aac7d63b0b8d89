//! Backups: a copy of everything that a store holds at one moment, in one file, which is a snapshot as the store itself
//! writes them.
//!
//! A copy is made of the files alone, also while another process writes to them: what it has acknowledged is in them,
//! and what it is just writing is passed over. A store that is made of a backup begins far beyond the revision of the
//! backup, and without history: no revision that a client has ever seen means anything else there, and whoever asks
//! for an older one is told to read everything anew.

use std::path::Path;
use std::time::Duration;

use storage::Revision;

use crate::disk::{Directory, Disk};
use crate::lock::Lock;
use crate::log::{self, Log};
use crate::{OpenError, recover, snapshot};

/// By how much the revision of a restored store is beyond that of its backup unless something else is asked for: more
/// writes than any store takes between two backups.
pub const BUMP: u64 = 1_000_000_000;

/// How often files are read again that changed while they were read, and how long after.
const TRIES: (u32, Duration) = (20, Duration::from_millis(50));

/// What was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    /// How many keys there are.
    pub keys: usize,
    /// Of the store that was copied, or that was made.
    pub revision: Revision,
}

/// Copies what the store in a directory holds into a file. The store may be open, in this process or another.
///
/// # Errors
/// A directory without a store, files that are damaged or can't be written.
pub fn backup(directory: impl AsRef<Path>, file: impl AsRef<Path>) -> Result<Copied, OpenError> {
    let disk = Directory(directory.as_ref().to_owned());
    let mut tries = TRIES.0;
    let state = loop {
        match recover::look(&disk) {
            Ok(state) => break state,
            // A store that is being written to removes files that it has superseded, and its newest log may be seen
            // half written.
            Err(OpenError::Io { .. } | OpenError::Missing { .. } | OpenError::Corrupt { .. })
                if tries > 0 =>
            {
                tries -= 1;
                std::thread::sleep(TRIES.1);
            }
            Err(error) => return Err(error),
        }
    };
    let (folder, name) = split(file.as_ref())?;
    let written = snapshot::write_as(&folder, &name, &state.tree, state.revision);
    written.map_err(OpenError::io("write", file.as_ref()))?;
    Ok(Copied {
        keys: state.tree.len(),
        revision: state.revision,
    })
}

/// Makes a store of a backup, in a directory that holds none. Its revision is `bump` beyond the backup's.
///
/// # Errors
/// A file that is no backup, a directory that holds a store or can't be written.
pub fn restore(
    file: impl AsRef<Path>,
    directory: impl AsRef<Path>,
    bump: u64,
) -> Result<Copied, OpenError> {
    let (folder, name) = split(file.as_ref())?;
    let (tree, revision) = snapshot::read(&folder, &name)?;
    let directory = directory.as_ref();
    let lock = Lock::take(directory)?;
    let disk = Directory(directory.to_owned());
    let names = disk.names().map_err(OpenError::io("list", directory))?;
    let of_store = |name: &&String| {
        log::base(name).is_some() || snapshot::revision(name).is_some() || *name == "begun"
    };
    if names.iter().any(|name| of_store(&name)) {
        return Err(OpenError::Occupied {
            directory: directory.to_owned(),
        });
    }
    let revision = Revision(revision.0.saturating_add(bump));
    let write = || {
        // Whatever this is interrupted at, the store opens whole or not at all: a snapshot without a log is missing one.
        snapshot::write_as(&disk, &snapshot::name(revision), &tree, revision)?;
        Log::prepare(&disk, revision)?.begin(&disk)
    };
    write().map_err(OpenError::io("write the store to", directory))?;
    recover::mark_begun(&disk)?;
    drop(lock);
    Ok(Copied {
        keys: tree.len(),
        revision,
    })
}

/// The folder of a file, and its name there.
fn split(file: &Path) -> Result<(Directory, String), OpenError> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| OpenError::Foreign {
        file: file.to_owned(),
    })?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok((Directory(folder.to_owned()), name.to_owned()))
}
