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
            changed: Arc::new(changed),
            task: Mutex::new(None),
        }
    }

    /// Begins to look at the file. Call it inside the runtime.
    pub fn start(&self) {
        if self.every.is_zero() {
            return;
        }
        let (path, every, changed) = (self.path.clone(), self.every, Arc::clone(&self.changed));
        let task = tokio::spawn(async move {
            let mut before = stamp(&path);
            loop {
                tokio::time::sleep(every).await;
                let now = stamp(&path);
                if now == before {
                    continue;
                }
                let (file, changed) = (path.clone(), Arc::clone(&changed));
                // Reading and parsing may take long; not on a thread that answers.
                let read = tokio::task::spawn_blocking(move || {
                    match std::fs::read_to_string(&file) {
                        Ok(text) => changed(&file, &text),
                        Err(error) => {
                            tracing::warn!(file = %file.display(), %error, "cannot read a watched file")
                        }
                    }
                });
                let _ = read.await;
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
