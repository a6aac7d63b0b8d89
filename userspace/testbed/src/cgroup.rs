//! Cgroups below the cgroup2 mount, one per node of a test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait::wait_for;

/// A cgroup of ours; its processes are killed and it is removed, with those below it, when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one directly below the cgroup2 mount.
    ///
    /// # Errors
    ///
    /// When cgroup2 is not mounted or without root.
    pub fn create(name: &str) -> Result<Self> {
        let path = mount()?.join(name);
        std::fs::create_dir(&path)
            .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a cgroup below it, made when it is not there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn below(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Where cgroup2 is mounted.
///
/// # Errors
///
/// When it is not, with what to do.
pub fn mount() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .context("cannot read /proc/self/mountinfo")?;
    find(&mounts).context(
        "cgroup2 is not mounted; `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified` does it",
    )
}

/// Moves the calling process into a cgroup.
///
/// # Errors
///
/// When there is no such cgroup, or without root.
pub fn join(path: &Path) -> Result<()> {
    std::fs::write(path.join("cgroup.procs"), "0")
        .with_context(|| format!("cannot join the cgroup {}", path.display()))
}

/// Kills what runs in it and removes it with all below it.
pub(crate) fn remove(path: &Path) {
    let _ = std::fs::write(path.join("cgroup.kill"), "1");
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    // A killed process leaves its cgroup a moment later. A failure here is for the next sweep.
    let _ = wait_for("a cgroup to empty", Duration::from_secs(5), || {
        (std::fs::remove_dir(path).is_ok() || !path.exists()).then_some(())
    });
}

/// The mount point of the first cgroup2 in the text of mountinfo (proc_pid_mountinfo(5)).
fn find(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_cgroup2 = after.starts_with("cgroup2 ");
        is_cgroup2.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find("31 23 0:28 / /sys rw - sysfs sysfs rw\n"), None);
    }
}
