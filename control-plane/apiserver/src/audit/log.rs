//! Where events go: a file that is changed for a new one when it is large, or standard output; a line of JSON each.
//!
//! One thread writes. Requests hand it their events and wait for it where it falls behind, so that no event is lost and
//! what waits in memory is bounded; only what cannot wait (the end of a watch) is counted as lost then.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::Error;

/// The most bytes of events that wait to be written.
const WAITING_MAX: usize = 32 << 20;
/// A file is as large as this where nothing is said.
const SIZE_MAX_MIB: u64 = 100;
/// In the names of files that were changed for new ones.
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:3]");

/// The file, and how long what was written before is kept.
#[derive(Clone, Default, Debug)]
pub struct LogConfig {
    /// `-` for standard output.
    pub path: PathBuf,
    /// Megabytes; 0: 100.
    pub max_size: u32,
    /// Files beside the current one; 0: any number.
    pub max_backup: u32,
    /// Days that these are kept; 0: for ever.
    pub max_age: u32,
}

enum Item {
    Line(Vec<u8>, OwnedSemaphorePermit),
    /// Everything before it is to be written; then this is told.
    Flush(oneshot::Sender<()>),
}

/// The end of the queue that requests hold.
pub(super) struct Log {
    queue: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
    lost: AtomicU64,
}

impl Log {
    /// Opens the file, and starts the thread, which ends with the log.
    pub(super) fn open(config: &LogConfig) -> Result<Self, Error> {
        let mut output = Output::open(config)?;
        let (queue, mut items) = mpsc::unbounded_channel();
        let write = move || {
            while let Some(first) = items.blocking_recv() {
                let mut next = Some(first);
                while let Some(item) = next {
                    match item {
                        Item::Line(line, _room) => output.line(&line),
                        Item::Flush(done) => {
                            output.flush();
                            // Who asked may have gone.
                            let _ = done.send(());
                        }
                    }
                    next = items.try_recv().ok();
                }
                output.flush();
            }
        };
        let thread = std::thread::Builder::new().name("audit-log".to_owned());
        thread
            .spawn(write)
            .map_err(|source| Error::io("starting the thread that writes", &config.path, source))?;
        Ok(Log {
            queue,
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            lost: AtomicU64::new(0),
        })
    }

    /// Writes a line, which ends with a newline, once there is room.
    pub(super) async fn write(&self, line: Vec<u8>) {
        let room = self.room.clone().acquire_many_owned(share(&line)).await;
        // It is never closed.
        if let Ok(room) = room {
            let _ = self.queue.send(Item::Line(line, room));
        }
    }

    /// Writes a line if there is room.
    pub(super) fn write_now(&self, line: Vec<u8>) {
        match self.room.clone().try_acquire_many_owned(share(&line)) {
            Ok(room) => {
                let _ = self.queue.send(Item::Line(line, room));
            }
            Err(_) => {
                let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::warn!(
                    lost,
                    "the audit log is not written fast enough: an event is lost"
                );
            }
        }
    }

    /// How many events were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Resolves once everything is written, or after some seconds.
    pub(super) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(5), written).await;
        }
    }
}

fn share(line: &[u8]) -> u32 {
    u32::try_from(line.len().min(WAITING_MAX)).unwrap_or(u32::MAX)
}

enum Output {
    Stdout(io::Stdout),
    File(Box<Rotated>),
}

struct Rotated {
    config: LogConfig,
    file: io::BufWriter<File>,
    size: u64,
    /// Whether the last write failed: it is told once.
    failing: bool,
}

impl Output {
    fn open(config: &LogConfig) -> Result<Self, Error> {
        if config.path.as_os_str() == "-" {
            return Ok(Output::Stdout(io::stdout()));
        }
        let failed = |source| Error::io("opening the audit log", &config.path, source);
        if let Some(folder) = config.path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let (file, size) = open(&config.path).map_err(failed)?;
        Ok(Output::File(Box::new(Rotated {
            config: config.clone(),
            file,
            size,
            failing: false,
        })))
    }

    fn line(&mut self, line: &[u8]) {
        match self {
            Output::Stdout(out) => {
                // Who read it may have gone; there is nobody else to tell.
                let _ = out.lock().write_all(line);
            }
            Output::File(file) => {
                let written = file.line(line);
                file.told(written);
            }
        }
    }

    fn flush(&mut self) {
        match self {
            Output::Stdout(out) => {
                let _ = out.lock().flush();
            }
            Output::File(file) => {
                let flushed = file.file.flush();
                file.told(flushed);
            }
        }
    }
}

impl Rotated {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let max = match u64::from(self.config.max_size) {
            0 => SIZE_MAX_MIB << 20,
            megabytes => megabytes << 20,
        };
        if self.size > 0 && self.size + line.len() as u64 > max {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn told(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                let path = self.config.path.display();
                tracing::error!(%path, %error, "can't write the audit log: events are lost");
                self.failing = true;
            }
            Err(_) => {}
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let stamp = OffsetDateTime::now_utc().format(STAMP).unwrap_or_default();
        fs::rename(&self.config.path, aside(&self.config.path, &stamp))?;
        (self.file, self.size) = open(&self.config.path)?;
        prune(&self.config, OffsetDateTime::now_utc())
    }
}

fn open(path: &Path) -> io::Result<(io::BufWriter<File>, u64)> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((io::BufWriter::with_capacity(64 << 10, file), size))
}

/// `audit-2026-01-02T03-04-05.678.log` beside `audit.log`.
fn aside(path: &Path, stamp: &str) -> PathBuf {
    let (begin, end) = around(path);
    path.with_file_name(format!("{begin}{stamp}{end}"))
}

/// What stands before and behind the stamp in the names of older files.
fn around(path: &Path) -> (String, String) {
    let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let end = match text(path.extension()) {
        extension if extension.is_empty() => extension,
        extension => format!(".{extension}"),
    };
    (format!("{}-", text(path.file_stem())), end)
}

/// Removes older files beyond the number and the age that are kept.
fn prune(config: &LogConfig, now: OffsetDateTime) -> io::Result<()> {
    if config.max_backup == 0 && config.max_age == 0 {
        return Ok(());
    }
    let folder = match config.path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (begin, end) = around(&config.path);
    let stamp_of = |name: &OsStr| {
        let stamp = name.to_str()?.strip_prefix(&begin)?.strip_suffix(&end)?;
        let time = time::PrimitiveDateTime::parse(stamp, STAMP).ok()?;
        Some(time.assume_utc())
    };
    let mut older = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(time) = stamp_of(&entry.file_name()) {
            older.push((time, entry.path()));
        }
    }
    older.sort_unstable();
    older.reverse();
    let oldest = now - time::Duration::days(i64::from(config.max_age));
    for (index, (time, path)) in older.iter().enumerate() {
        let too_many = config.max_backup > 0 && index >= config.max_backup as usize;
        if too_many || (config.max_age > 0 && *time < oldest) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn lines_are_written_and_files_changed() {
        let folder = tempfile::tempdir().unwrap();
        let config = LogConfig {
            path: folder.path().join("logs/audit.log"),
            max_size: 1,
            ..LogConfig::default()
        };
        let log = Log::open(&config).unwrap();
        let line = [vec![b'x'; 300 << 10], vec![b'\n']].concat();
        for _ in 0..5 {
            log.write(line.clone()).await;
        }
        log.write_now(b"end\n".to_vec());
        log.flush().await;
        let folder = config.path.parent().unwrap();
        let found = names(folder);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[1], "audit.log");
        let size = |name: &str| fs::metadata(folder.join(name)).unwrap().len();
        assert_eq!(size(&found[0]), 3 * line.len() as u64);
        assert_eq!(size(&found[1]), 2 * line.len() as u64 + 4);
        // Opened anew it goes on.
        drop(log);
        let log = Log::open(&config).unwrap();
        log.write(b"more\n".to_vec()).await;
        log.flush().await;
        assert!(fs::read(&config.path).unwrap().ends_with(b"\nend\nmore\n"));
    }

    #[test]
    fn older_files_go() {
        let all = [
            "audit-2026-01-01T00-00-00.000.log",
            "audit-2026-01-05T00-00-00.000.log",
            "audit-2026-01-09T00-00-00.000.log",
            "audit-mine.log",
            "audit.log",
        ];
        let now = time::macros::datetime!(2026-01-10 00:00 UTC);
        for (max_backup, max_age, kept) in [(0, 0, 5), (2, 0, 4), (1, 0, 3), (0, 3, 3), (2, 6, 4)] {
            let folder = tempfile::tempdir().unwrap();
            for name in all {
                fs::write(folder.path().join(name), "").unwrap();
            }
            let config = LogConfig {
                path: folder.path().join("audit.log"),
                max_backup,
                max_age,
                max_size: 0,
            };
            prune(&config, now).unwrap();
            assert_eq!(
                names(folder.path()),
                all[5 - kept..],
                "{max_backup} {max_age}"
            );
        }
    }
}
