//! Who has which address, on disk: the journal of [`ipam::journal`] in a file for each network.
//!
//! A change is on disk before anybody is told of it. The folder is locked while one process reads and writes; the
//! kernel lets the lock go with the process, however that ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ipam::{Leases, Record, journal};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::{Code, Failure};

/// How long others may hold the lock: a change takes a few milliseconds, and as many as pods fit on a node may wait.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(1);
/// The journal's name in its folder.
const FILE: &str = "leases";
const NEW: &str = "leases.new";
const DAMAGED: &str = "leases.damaged";

/// The leases of a network, held alone.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    file: File,
    leases: Leases,
    _lock: File,
}

impl Store {
    /// Takes hold of a network's leases; they begin empty. A journal that is damaged is mended, with a word on stderr
    /// and a copy of it beside.
    ///
    /// # Errors
    ///
    /// [`Code::Io`]; [`Code::TryAgainLater`] where somebody does not let go.
    pub(crate) fn open(state_dir: &Path, network: &str) -> Result<Store, Failure> {
        let folder = state_dir.join(network);
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        let lock = File::open(&folder).map_err(io_error("open", &folder))?;
        wait_for(&lock, &folder)?;
        let path = folder.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let read = journal::read(&bytes);
        if !read.damaged.is_empty() {
            let copy = folder.join(DAMAGED);
            fs::write(&copy, &bytes).map_err(io_error("write", &copy))?;
            eprintln!(
                "{}: {} lines are damaged, from line {} on; what they said is lost, a copy is in {}",
                path.display(),
                read.damaged.len(),
                read.damaged.first().copied().unwrap_or_default(),
                copy.display()
            );
        }
        if read.stale {
            let new = folder.join(NEW);
            write_whole(&new, &journal::text(&read.leases)).map_err(io_error("write", &new))?;
            fs::rename(&new, &path).map_err(io_error("replace", &path))?;
            lock.sync_all().map_err(io_error("sync", &folder))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        if bytes.is_empty() {
            // The file's name must be on disk as well.
            lock.sync_all().map_err(io_error("sync", &folder))?;
        } else if !read.stale && read.whole < bytes.len() {
            let whole = read.whole as u64;
            file.set_len(whole).map_err(io_error("mend", &path))?;
        }
        Ok(Store {
            folder,
            file,
            leases: read.leases,
            _lock: lock,
        })
    }

    /// Who has which address.
    #[must_use]
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Makes changes: they are on disk when this returns.
    ///
    /// # Errors
    ///
    /// [`Code::Io`]; then nothing has changed, or the next process mends what has.
    pub(crate) fn write(&mut self, records: &[Record]) -> Result<(), Failure> {
        let text: String = records.iter().map(journal::line).collect();
        if text.is_empty() {
            return Ok(());
        }
        let path = self.folder.join(FILE);
        let before = self
            .file
            .metadata()
            .map_err(io_error("look at", &path))?
            .len();
        let written = self.file.write_all(text.as_bytes());
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Half a line is nothing, but nobody should have to guess.
            let _ = self.file.set_len(before);
            return Err(io_error("write", &path)(error));
        }
        records.iter().for_each(|record| self.leases.apply(record));
        Ok(())
    }
}

fn wait_for(lock: &File, folder: &Path) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let msg = format!(
                    "another process has held the lock on {} for {} s: `fuser {0}` names it",
                    folder.display(),
                    PATIENCE.as_secs()
                );
                return Err(Failure::new(Code::TryAgainLater, msg));
            }
            Err(error) => return Err(io_error("lock", folder)(error.into())),
        }
    }
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure {
        details: error.to_string(),
        ..Failure::new(Code::Io, format!("cannot {action} {path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipam::{Attachment, Range};

    fn who(n: usize) -> Attachment {
        Attachment {
            container: format!("c{n}"),
            ifname: "eth0".to_owned(),
        }
    }

    fn take(folder: &Path, n: usize) -> String {
        let mut store = Store::open(folder, "pods").unwrap();
        let sets = [vec![Range::whole("10.0.0.0/24".parse().unwrap())]];
        let record = store.leases().take(&who(n), "", &sets, &[]).unwrap();
        store.write(&[record]).unwrap();
        store.leases().get(&who(n)).unwrap().addresses[0].to_string()
    }

    #[test]
    fn leases_outlive_the_process_and_a_torn_tail_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(take(folder.path(), 1), "10.0.0.1");
        assert_eq!(take(folder.path(), 2), "10.0.0.2");
        let path = folder.path().join("pods/leases");
        let whole = fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn.extend_from_slice(b"00000000 {\"take");
        fs::write(&path, &torn).unwrap();
        assert_eq!(take(folder.path(), 3), "10.0.0.3");
        let mended = fs::read(&path).unwrap();
        assert!(mended.starts_with(&whole));
        assert!(journal::read(&mended).damaged.is_empty());

        let mut damaged = mended;
        damaged[3] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(take(folder.path(), 4), "10.0.0.4");
        assert_eq!(
            fs::read(folder.path().join("pods/leases.damaged")).unwrap(),
            damaged
        );
        assert!(journal::read(&fs::read(&path).unwrap()).damaged.is_empty());
    }

    #[test]
    fn fifty_at_once_get_fifty_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let given: Vec<String> = thread::scope(|scope| {
            let threads: Vec<_> = (0..50)
                .map(|n| {
                    let folder = folder.path();
                    scope.spawn(move || take(folder, n))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let distinct: std::collections::BTreeSet<&String> = given.iter().collect();
        assert_eq!(distinct.len(), 50);
    }
}
