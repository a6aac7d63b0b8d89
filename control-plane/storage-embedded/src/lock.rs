//! One process at a time: an exclusive lock on a file in the data directory, which the kernel gives up when the
//! process ends, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::OpenError;
use crate::disk::sync_directory;

/// Held as long as the file is open.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory, for its owner only, where it is not there, and locks it.
    pub(crate) fn take(directory: &Path) -> Result<Self, OpenError> {
        let io = |doing| OpenError::io(doing, directory);
        if !directory.is_dir() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(directory).map_err(io("create"))?;
            let whole = fs::canonicalize(directory).map_err(io("find"))?;
            if let Some(parent) = whole.parent() {
                sync_directory(parent).map_err(io("make durable"))?;
            }
        }
        let path = directory.join("lock");
        let io = |doing| OpenError::io(doing, &path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let mut file = options.open(&path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = file.read_to_string(&mut pid);
                let pid = match pid.trim() {
                    pid if read.is_ok() && !pid.is_empty() => pid.to_owned(),
                    _ => "unknown".to_owned(),
                };
                return Err(OpenError::Locked {
                    directory: directory.to_owned(),
                    pid,
                });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(io("write"))?;
        Ok(Self { _file: file })
    }
}
