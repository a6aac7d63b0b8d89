//! The two file systems that the datapath needs: bpffs for pins, cgroup2 for the socket hooks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// The mounts that this process sees.
const MOUNTS: &str = "/proc/self/mountinfo";
/// Where a bpffs is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";
/// What a bpffs that we mount is called as the source of its mount, which means nothing to the kernel.
const OURS: &str = "fairlead";
/// What the kernel itself puts into a bpffs (`bpf_preload`).
const KERNELS: [&str; 2] = ["maps.debug", "progs.debug"];

/// The mount point of the unified cgroup hierarchy; on hosts with both versions that is often
/// `/sys/fs/cgroup/unified`.
///
/// # Errors
///
/// [`Error::NoCgroup2`], or [`Error::Path`] if the mounts cannot be read.
pub fn cgroup2_mount() -> Result<PathBuf, Error> {
    let path = Path::new(MOUNTS);
    let text = fs::read_to_string(path).map_err(|source| Error::Path {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let found = mounts(&text).find(|mount| mount.kind == "cgroup2");
    found.map(|mount| mount.point).ok_or(Error::NoCgroup2)
}

/// Unmounts the bpffs that `path` is or was on, if [`ensure_bpffs`] has mounted it and nothing is left there; whether it
/// did.
///
/// # Errors
///
/// [`Error::Path`] if the mounts cannot be read or the kernel refuses.
pub fn release_bpffs(path: &Path) -> Result<bool, Error> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Path {
            action,
            path,
            source,
        }
    };
    let list = Path::new(MOUNTS);
    let text = fs::read_to_string(list).map_err(failed("read", list))?;
    // Of some at one place the last is on top.
    let here = mounts(&text).filter(|mount| path.starts_with(&mount.point));
    let Some(Mount {
        point,
        kind: "bpf",
        source: OURS,
    }) = here.max_by_key(depth)
    else {
        return Ok(false);
    };
    for left in fs::read_dir(&point).map_err(failed("list", &point))? {
        let left = left.map_err(failed("list", &point))?;
        if !KERNELS.iter().any(|name| left.file_name() == *name) {
            return Ok(false); // somebody's
        }
    }
    let unmounted = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty());
    unmounted.map_err(|error| failed("unmount", &point)(error.into()))?;
    Ok(true)
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
/// `path` itself for others. Whether it was.
///
/// # Errors
///
/// [`Error::MountBpffs`] if the kernel refuses, [`Error::HidesFiles`] if the mount would hide files.
pub fn ensure_bpffs(path: &Path) -> Result<bool, Error> {
    if is_bpffs(path) {
        return Ok(false);
    }
    let target = if path.starts_with(BPFFS) {
        Path::new(BPFFS)
    } else {
        path
    };
    let failed = |source| Error::MountBpffs {
        path: target.to_owned(),
        source,
    };
    fs::create_dir_all(target).map_err(failed)?;
    if fs::read_dir(target).map_err(failed)?.next().is_some() {
        return Err(Error::HidesFiles {
            path: target.to_owned(),
        });
    }
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    let mounted = rustix::mount::mount(OURS, target, "bpf", flags, None);
    mounted.map_err(|error| failed(error.into()))?;
    Ok(true)
}

fn depth(mount: &Mount<'_>) -> usize {
    mount.point.components().count()
}

/// A line of the text of /proc/self/mountinfo; see proc_pid_mountinfo(5).
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    source: &'a str,
}

/// The mounts that the text of /proc/self/mountinfo tells of, in order.
fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        // Optional fields end with a lone dash, behind which come kind and source.
        let (place, rest) = line.split_once(" - ")?;
        let mut rest = rest.split(' ');
        Some(Mount {
            point: place.split(' ').nth(4).map(unescape)?,
            kind: rest.next()?,
            source: rest.next().unwrap_or_default(),
        })
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
        let found: Vec<(PathBuf, &str)> = mounts(hybrid)
            .filter(|mount| mount.kind == "cgroup2")
            .map(|mount| (mount.point, mount.source))
            .collect();
        assert_eq!(found, [(PathBuf::from("/sys/fs/cgroup/my own"), "cgroup2")]);
        assert_eq!(mounts(hybrid).count(), 4);
        assert_eq!(mounts("").count() + mounts("not - ").count(), 0);
    }

    #[test]
    fn proc_is_no_bpffs() {
        assert!(!is_bpffs(Path::new("/proc/self/nothing/here")));
    }
}
