//! A BPF file system of one's own, so that pins of one test never meet those of another.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A folder with a BPF file system on it; unmounted and removed when dropped, which frees what is pinned.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
}

impl Bpffs {
    /// Makes the folder and mounts.
    ///
    /// # Errors
    ///
    /// Without root, or when the kernel has no BPF file system.
    pub fn create(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        mount("bpf", path, "bpf", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount a BPF file system on {}", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
        })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Unmounts and removes; nothing where nothing is mounted.
pub(crate) fn remove(path: &Path) {
    let _ = unmount(path, UnmountFlags::DETACH);
    let _ = std::fs::remove_dir(path);
}
