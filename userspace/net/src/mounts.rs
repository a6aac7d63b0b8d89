//! The two file systems that the datapath needs: bpffs for pins, cgroup2 for the socket hooks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// Where a bpffs is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";

/// The mount point of the unified cgroup hierarchy; on hosts with both versions that is often
/// `/sys/fs/cgroup/unified`.
///
/// # Errors
///
/// [`Error::NoCgroup2`], or [`Error::Path`] if the mounts cannot be read.
pub fn cgroup2_mount() -> Result<PathBuf, Error> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(|source| Error::Path {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    find_mount(&text, "cgroup2").ok_or(Error::NoCgroup2)
}

/// True if `path`, or the nearest directory above it that exists, is on a bpffs.
#[must_use]
pub fn is_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find(|path| path.exists())
        .and_then(|path| rustix::fs::statfs(path).ok())
        .is_some_and(|stat| stat.f_type as u64 == BPFFS_MAGIC)
}

/// Sees to it that `path` is on a bpffs: if it is not, one is mounted at `/sys/fs/bpf` for paths below that and at
/// `path` itself for others.
///
/// # Errors
///
/// [`Error::MountBpffs`] if the kernel refuses.
pub fn ensure_bpffs(path: &Path) -> Result<(), Error> {
    if is_bpffs(path) {
        return Ok(());
    }
    let target = if path.starts_with(BPFFS) {
        Path::new(BPFFS)
    } else {
        path
    };
    fs::create_dir_all(target)
        .and_then(|()| {
            let flags = rustix::mount::MountFlags::NOSUID
                | rustix::mount::MountFlags::NODEV
                | rustix::mount::MountFlags::NOEXEC;
            rustix::mount::mount("bpf", target, "bpf", flags, None).map_err(Into::into)
        })
        .map_err(|source| Error::MountBpffs {
            path: target.to_owned(),
            source,
        })
}

/// The first mount point of a kind in the text of /proc/self/mountinfo; see proc_pid_mountinfo(5).
fn find_mount(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        // Optional fields end with a lone dash, behind which comes the kind.
        let (place, rest) = line.split_once(" - ")?;
        (rest.split(' ').next() == Some(kind)).then_some(())?;
        place.split(' ').nth(4).map(unescape)
    })
}

/// Undoes the octal escapes for blanks and backslashes in mount points.
fn unescape(text: &str) -> PathBuf {
    let text = text
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\");
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_among_other_mounts() {
        let hybrid = "24 1 8:1 / / rw - ext4 /dev/root rw\n\
            30 24 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu rw shared:10 master:1 - cgroup cgroup rw,cpu\n\
            40 30 0:36 / /sys/fs/cgroup/my\\040own rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            find_mount(hybrid, "cgroup2"),
            Some(PathBuf::from("/sys/fs/cgroup/my own"))
        );
        assert_eq!(find_mount(hybrid, "bpf"), None);
        assert_eq!(find_mount("", "cgroup2"), None);
        assert_eq!(find_mount("not - ", "cgroup2"), None);
    }

    #[test]
    fn proc_is_no_bpffs() {
        assert!(!is_bpffs(Path::new("/proc/self/nothing/here")));
    }
}
