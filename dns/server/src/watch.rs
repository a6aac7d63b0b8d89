//! Files that are read again when they change, as ConfigMaps do under a running process.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use tokio::task::JoinHandle;

/// A file of at most this many octets is read.
pub const OCTETS_MAX: u64 = 256 << 20;

type Changed = Arc<dyn Fn(&Path, &str) + Send + Sync>;

/// A file and who wants to hear its new text. The task ends when this is dropped.
pub struct Watched {
    path: PathBuf,
    every: Duration,
    /// Its text is known already.
    read: bool,
    changed: Changed,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Watched {
    /// Nothing happens before [`Watched::start`]. An interval of zero means never.
    pub fn new(
        path: PathBuf,
        every: Duration,
        changed: impl Fn(&Path, &str) + Send + Sync + 'static,
    ) -> Self {
        Self {
            path,
            every,
            read: true,
            changed: Arc::new(changed),
            task: Mutex::new(None),
        }
    }

    /// The file could not be read: its text is news as soon as it is there.
    #[must_use]
    pub fn unread(self) -> Self {
        Self {
            path: self.path.clone(),
            every: self.every,
            read: false,
            changed: Arc::clone(&self.changed),
            task: Mutex::new(None),
        }
    }

    /// Begins to look at the file. Call it inside the runtime.
    pub fn start(&self) {
        if self.every.is_zero() {
            return;
        }
        let (path, every, changed) = (self.path.clone(), self.every, Arc::clone(&self.changed));
        let read = self.read;
        let task = tokio::spawn(async move {
            let mut before = if read { stamp(&path) } else { None };
            loop {
                tokio::time::sleep(every).await;
                let now = stamp(&path);
                if now == before {
                    continue;
                }
                let (file, changed) = (path.clone(), Arc::clone(&changed));
                // Reading and parsing may take long; not on a thread that answers.
                let reading = tokio::task::spawn_blocking(move || {
                    match std::fs::read_to_string(&file) {
                        Ok(text) => changed(&file, &text),
                        Err(error) => {
                            tracing::warn!(file = %file.display(), %error, "cannot read a watched file");
                        }
                    }
                });
                let _ = reading.await;
                before = now;
            }
        });
        let before = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(task);
        if let Some(before) = before {
            before.abort();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

/// What tells a changed file from an unchanged one without reading it.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    (metadata.len() <= OCTETS_MAX).then_some(())?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the file's text is told although it stays as it is from before the first look.
    async fn told(known: bool) -> bool {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let every = Duration::from_millis(1);
        let mut watched = Watched::new(file.path().to_path_buf(), every, move |_, _| {
            let _ = tell.send(());
        });
        if !known {
            watched = watched.unread();
        }
        watched.start();
        let patience = Duration::from_millis(if known { 50 } else { 10_000 });
        matches!(
            tokio::time::timeout(patience, heard.recv()).await,
            Ok(Some(()))
        )
    }

    #[tokio::test]
    async fn a_file_that_could_not_be_read_is_news() {
        assert!(told(false).await);
        assert!(!told(true).await);
    }
}
