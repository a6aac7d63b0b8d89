//! Network namespaces: a thread is in one of them, and what it asks about links is answered there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::Error;

/// Where iproute2 and CNI plugins keep the namespaces that have names.
const NAMED: &str = "/run/netns";

/// A network namespace. It exists at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    name: String,
}

impl Netns {
    /// The namespace of this thread.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] if /proc is not there.
    pub fn current() -> Result<Netns, Error> {
        Netns::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Every namespace that a process is in or that has a name, this thread's first; each once. Those that end
    /// meanwhile are left out.
    #[must_use]
    pub fn all() -> Vec<Netns> {
        let named = fs::read_dir(NAMED).into_iter().flatten().flatten();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = processes.filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        });
        let paths = [PathBuf::from("/proc/thread-self/ns/net")].into_iter();
        let paths = paths.chain(named.map(|entry| entry.path()));
        let paths = paths.chain(processes.map(|entry| entry.path().join("ns/net")));
        let mut seen = BTreeSet::new();
        let opened = paths.filter_map(|path| {
            // Most processes share a namespace; looking costs less than opening.
            let inode = fs::metadata(&path).ok()?.ino();
            let new = seen.insert(inode);
            new.then(|| Netns::open(&path).ok()).flatten()
        });
        opened.collect()
    }

    /// The cookie of this thread's namespace, by which BPF programs know it. Kernel 5.14 (e8b9eab99232).
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] if the kernel refuses.
    pub fn current_cookie() -> Result<u64, Error> {
        netns_cookie().map_err(|source| Error::Netns {
            action: "ask for the cookie of",
            name: "this thread's".to_owned(),
            source,
        })
    }

    /// The namespace that a file stands for: `/run/netns/NAME`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] if the file cannot be opened.
    pub fn open(path: &Path) -> Result<Netns, Error> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Netns { file, name }),
            Err(source) => Err(Error::Netns {
                action: "open",
                name,
                source,
            }),
        }
    }

    /// The namespace that `ip netns add NAME` made.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] if there is none of that name.
    pub fn named(name: &str) -> Result<Netns, Error> {
        Netns::open(&Path::new(NAMED).join(name))
    }

    /// A new namespace without a name: it holds a loopback device that is down, and no route to anywhere.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] if the kernel refuses.
    pub fn create() -> Result<Netns, Error> {
        let made = thread::spawn(|| {
            // SAFETY: only this thread changes its network namespace, and it ends right after; no memory and no
            // descriptor is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| {
                Error::Netns {
                    action: "make",
                    name: "without a name".to_owned(),
                    source: error.into(),
                }
            })?;
            Netns::current()
        });
        made.join().unwrap_or_else(|_| {
            Err(Error::Netns {
                action: "make",
                name: "without a name".to_owned(),
                source: io::Error::other("the thread that should make it ended early"),
            })
        })
    }

    /// Its inode number: two values with the same one are the same namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] if the kernel refuses.
    pub fn id(&self) -> Result<u64, Error> {
        self.file
            .metadata()
            .map(|metadata| metadata.ino())
            .map_err(|source| self.error("look at", source))
    }

    /// Moves this thread there, for good. Threads that it starts afterwards are there too.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] if the kernel refuses.
    pub fn enter(&self) -> Result<(), Error> {
        rustix::thread::move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| self.error("enter", error.into()))
    }

    /// Runs something there, on a thread of its own, and returns what it returned.
    ///
    /// # Errors
    ///
    /// [`Error::Netns`] if the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            match inside.join() {
                Ok(result) => result,
                // A panic of the work is the caller's own.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn error(&self, action: &'static str, source: io::Error) -> Error {
        Error::Netns {
            action,
            name: self.name.clone(),
            source,
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn netns_cookie() -> io::Result<u64> {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets to `cookie`, which is that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `asm-generic/socket.h`; libc does not name it on every architecture.
const SO_NETNS_COOKIE: libc::c_int = 71;
