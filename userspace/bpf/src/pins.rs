//! Where maps, programs and links outlive the process, and the lock that gives them one owner.
//!
//! `<root>/v<layout>/maps/<TABLE>`, `/programs/<program>`, `/links/<what>`; `/watchers/<ring>` are only locked.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::{Error, sys};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Ends the name of a pin that is about to replace another.
pub(crate) const NEW: &str = "~new";

/// The pins below one root, for the layout of this build.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    base: PathBuf,
}

impl Pins {
    pub(crate) fn new(root: &Path) -> Pins {
        Pins {
            root: root.to_owned(),
            base: root.join(format!("v{}", abi::LAYOUT_VERSION)),
        }
    }

    /// The pins of every layout below a root, this build's or not.
    pub(crate) fn every_layout(root: &Path) -> Result<Vec<Pins>, Error> {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::path("list", root)(error)),
        };
        let is_layout = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            let version = name.and_then(|name| name.strip_prefix('v'));
            version.is_some_and(|version| version.parse::<u32>().is_ok())
        };
        Ok(entries
            .flatten()
            .map(|entry| entry.path())
            .filter(is_layout)
            .map(|base| Pins {
                root: root.to_owned(),
                base,
            })
            .collect())
    }

    /// The version of the layout.
    pub(crate) fn layout(&self) -> Option<u32> {
        let name = self.base.file_name()?.to_str()?;
        name.strip_prefix('v')?.parse().ok()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.base.join("maps").join(name)
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.base.join("programs").join(name)
    }

    pub(crate) fn link(&self, name: &str) -> PathBuf {
        self.base.join("links").join(name)
    }

    /// Makes the directories.
    pub(crate) fn create(&self) -> Result<(), Error> {
        require_bpffs(&self.root)?;
        for dir in ["maps", "programs", "links"] {
            let path = self.base.join(dir);
            fs::create_dir_all(&path).map_err(Error::path("create", &path))?;
        }
        Ok(())
    }

    /// Names of the pinned links, in order.
    pub(crate) fn links(&self) -> Result<Vec<String>, Error> {
        let mut names = self.link_names()?;
        names.retain(|name| !name.ends_with(NEW));
        names.sort();
        Ok(names)
    }

    /// Names of pins of links in the making: somebody makes them now, or was killed meanwhile.
    pub(crate) fn unfinished(&self) -> Result<Vec<String>, Error> {
        let mut names = self.link_names()?;
        names.retain(|name| name.ends_with(NEW));
        Ok(names)
    }

    fn link_names(&self) -> Result<Vec<String>, Error> {
        let path = self.base.join("links");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::path("list", &path)(error)),
        };
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect())
    }

    /// Removes everything that is pinned for this layout, the root too if it is empty then. Links go first, so
    /// that traffic takes the plain path before the tables vanish.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        for dir in ["links", "programs", "maps", "watchers"] {
            let path = self.base.join(dir);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::path("remove", &path)(error));
                }
                _ => {}
            }
        }
        for path in [&self.base, &self.root] {
            match fs::remove_dir(path) {
                // Other layouts may live beside this one; a mount point stays.
                Err(error)
                    if !matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::ENOTEMPTY | libc::EBUSY)
                    ) =>
                {
                    return Err(Error::path("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Pins `fd` at `path` in place of whatever is pinned there, without a moment in which nothing is.
pub(crate) fn replace(fd: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW);
    let new = PathBuf::from(name);
    unpin(&new)?;
    sys::pin(fd, &new).map_err(Error::path("pin", &new))?;
    fs::rename(&new, path).map_err(Error::path("pin", path))
}

/// Removes a pin, which may be gone already.
pub(crate) fn unpin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::path("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Opens a pinned program or link, if it is there.
pub(crate) fn open(path: &Path) -> Result<Option<OwnedFd>, Error> {
    match sys::get(path, false) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::path("open", path)(error)),
    }
}

/// The nearest directory that exists: `path` itself or one above.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|path| path.exists())
        .unwrap_or_else(|| Path::new("/"))
}

fn require_bpffs(path: &Path) -> Result<(), Error> {
    let dir = existing(path);
    let stat = rustix::fs::statfs(dir)
        .map_err(|error| Error::path("look at the file system of", dir)(error.into()))?;
    if stat.f_type as u64 == BPFFS_MAGIC {
        Ok(())
    } else {
        Err(Error::NoBpffs {
            path: path.to_owned(),
        })
    }
}

/// Opens a directory of the unified cgroup hierarchy; also returns its identifier.
pub(crate) fn open_cgroup(path: &Path) -> Result<(OwnedFd, u64), Error> {
    let not_there = || Error::NoCgroup {
        path: path.to_owned(),
    };
    let fd = rustix::fs::open(
        path,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|_| not_there())?;
    let stat = rustix::fs::fstatfs(&fd).map_err(|_| not_there())?;
    if stat.f_type as u64 != CGROUP2_MAGIC {
        return Err(not_there());
    }
    let inode = rustix::fs::fstat(&fd).map_err(|_| not_there())?.st_ino;
    Ok((fd, inode))
}

/// The directory below `mount` of the cgroup with this identifier, if it is still there.
pub(crate) fn cgroup_path(mount: &Path, id: u64) -> Option<PathBuf> {
    let mut pending = vec![mount.to_owned()];
    while let Some(dir) = pending.pop() {
        // Cgroups come and go meanwhile; one that is gone is not the one.
        let (Ok(metadata), Ok(entries)) = (fs::metadata(&dir), fs::read_dir(&dir)) else {
            continue;
        };
        if metadata.ino() == id {
            return Some(dir);
        }
        pending.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    None
}

/// How long a predecessor may take to end. A process that was killed holds its lock until the kernel has taken it
/// apart, and a child that it was just starting until that has become its program.
const HANDOVER: Duration = Duration::from_millis(500);

/// Ownership of the pins below a root: an flock(2) on the directory, so that the kernel releases it with the
/// process however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _dir: OwnedFd,
}

impl Lock {
    /// Of everything.
    pub(crate) fn acquire(pins: &Pins) -> Result<Lock, Error> {
        Self::of(pins, pins.root())
    }

    /// Of the tables that the holder of the DNS zone writes, who may be another process than the agent.
    pub(crate) fn acquire_maps(pins: &Pins) -> Result<Lock, Error> {
        Self::of(pins, &pins.base.join("maps"))
    }

    /// Of the first ring of events that nobody has; `None` where all are taken.
    pub(crate) fn acquire_ring(pins: &Pins, rings: usize) -> Result<Option<(usize, Lock)>, Error> {
        for number in 0..rings {
            let path = pins.base.join("watchers").join(number.to_string());
            fs::create_dir_all(&path).map_err(Error::path("create", &path))?;
            if let Some(lock) = Self::try_of(&path)? {
                return Ok(Some((number, lock)));
            }
        }
        Ok(None)
    }

    fn of(pins: &Pins, path: &Path) -> Result<Lock, Error> {
        let deadline = Instant::now() + HANDOVER;
        loop {
            if let Some(lock) = Self::try_of(path)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(Error::Owned {
                    path: pins.root().to_owned(),
                    pid: owner_of(path),
                });
            }
            std::thread::sleep(HANDOVER / 50);
        }
    }

    /// `None` where somebody has it.
    fn try_of(path: &Path) -> Result<Option<Lock>, Error> {
        let dir = rustix::fs::open(
            path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| Error::path("open", path)(error.into()))?;
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _dir: dir })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::path("lock", path)(error.into())),
        }
    }
}

/// The process that owns the pins, if one runs.
pub(crate) fn owner(pins: &Pins) -> Option<u32> {
    owner_of(pins.root())
}

fn owner_of(path: &Path) -> Option<u32> {
    let stat = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    lock_holder(
        &locks,
        rustix::fs::major(stat.dev()),
        rustix::fs::minor(stat.dev()),
        stat.ino(),
    )
}

/// Finds the holder of an flock in the text of /proc/locks; see proc_locks(5).
fn lock_holder(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        // A waiter is marked by an arrow: it does not hold the lock.
        (words.next() == Some("FLOCK")).then_some(())?;
        let pid = words.nth(2)?;
        (words.next() == Some(&file)).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  READ 11 00:2d:77 128 128\n\
                     2: FLOCK  ADVISORY  WRITE 22 00:2d:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 33 00:2d:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 44 00:2d:77 0 EOF\n";
        assert_eq!(lock_holder(locks, 0, 0x2d, 77), Some(44));
        assert_eq!(lock_holder(locks, 0, 0x2d, 78), Some(22));
        assert_eq!(lock_holder(locks, 8, 0x2d, 77), None);
    }

    #[test]
    fn a_place_that_is_no_bpffs_is_named() {
        let error = require_bpffs(Path::new("/proc/self/nothing")).unwrap_err();
        assert!(error.to_string().contains("/proc/self/nothing"), "{error}");
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    }
}
