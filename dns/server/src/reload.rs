//! Changing the configuration under running traffic: the new one is built beside the old, which goes on answering
//! until the new one is in its place, and stays if the new one is wrong.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;

use crate::corefile;
use crate::corefile::ConfigError;
use crate::instance::Environment;
use crate::instance::Instance;
use crate::metrics::Kind;
use crate::transport::Addresses;
use crate::transport::Bound;
use crate::transport::ListenError;
use crate::transport::Sockets;

/// How often the Corefile is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// At least this long between two looks.
    pub every: Duration,
    /// And up to this long more, drawn anew each time, so that servers of a cluster do not change at once.
    pub jitter: Duration,
}

/// The running configuration and how to change it.
pub struct Reloader {
    environment: Arc<Environment>,
    file: Option<PathBuf>,
    current: Arc<ArcSwap<Instance>>,
    /// Open sockets, which follow each change, if there are any.
    sockets: Mutex<Option<Sockets>>,
    /// Told after each change.
    changed: tokio::sync::watch::Sender<u64>,
}

/// Why the configuration is not in service.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// It is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An HTTP server of `health`, `ready` or `prometheus` cannot listen.
    #[error("cannot listen on {0}; free the address or name another in the Corefile")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// Plugins of the new configuration know nothing yet, while all of the one in service can answer.
    #[error(
        "not ready after {} s: {}; the API server does not answer, perhaps; `reload` tries again", READY_WAIT.as_secs(), .0.join(", ")
    )]
    NotReady(Vec<&'static str>),
    /// An address for queries cannot be listened on.
    #[error(transparent)]
    Sockets(#[from] ListenError),
}

/// How long a new configuration is waited for until its plugins can answer: as long as CoreDNS waits for its informers
/// (`startup_timeout`).
const READY_WAIT: Duration = Duration::from_secs(5);

impl Reloader {
    /// Reads the Corefile and puts it into service; without a file, CoreDNS's answer to no Corefile. Call it inside
    /// the runtime.
    ///
    /// # Errors
    ///
    /// When the first configuration is wrong.
    pub fn start(
        environment: Arc<Environment>,
        file: Option<PathBuf>,
    ) -> Result<Arc<Self>, ReloadError> {
        let instance = Arc::new(build(&environment, file.as_deref())?);
        instance
            .bind_http()
            .and_then(|http| instance.start(http))
            .map_err(|(address, error)| ReloadError::Listen(address, error))?;
        let reloader = Arc::new(Self {
            environment,
            file,
            current: Arc::new(ArcSwap::new(instance)),
            sockets: Mutex::new(None),
            changed: tokio::sync::watch::Sender::new(0),
        });
        reloader.tell_version();
        Ok(reloader)
    }

    /// What answers now. Transports load it for each query.
    #[must_use]
    pub fn current(&self) -> &Arc<ArcSwap<Instance>> {
        &self.current
    }

    /// Hears of each change.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads the Corefile anew and puts it into service, once its plugins can answer. The one before goes on if the new one is
    /// wrong. Call it inside the runtime, on a thread that may wait.
    ///
    /// # Errors
    ///
    /// When the new configuration is wrong, or knows nothing yet of what the one in service knows.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let reloaded = self.try_reload();
        match &reloaded {
            Ok(()) => tracing::info!("the Corefile was read anew"),
            Err(error) => {
                self.failed().increment();
                let error = with_causes(error);
                tracing::error!(%error, "the Corefile cannot be put into service; the one before stays");
            }
        }
        reloaded
    }

    fn try_reload(&self) -> Result<(), ReloadError> {
        // Held to the end: one at a time.
        let mut sockets = self.sockets();
        let instance = Arc::new(build(&self.environment, self.file.as_deref())?);
        // All that can fail comes before anything that others notice: a socket that shares a port with one in service
        // gets some of its clients as soon as it listens, and they are reset where it is closed again.
        let failed = |(address, error)| ReloadError::Listen(address, error);
        let http = instance.bind_http().map_err(failed)?;
        let bound = match &*sockets {
            Some(sockets) => Some(sockets.bind(&instance, &self.current)?),
            None => None,
        };
        self.wait_for(&instance)?;
        let http = http.listen().map_err(failed)?;
        let bound = bound.map(Bound::listen).transpose()?;
        instance.start(http).map_err(failed)?;
        if let Some(sockets) = &*sockets {
            sockets.part(&instance, &self.current.load_full());
        }
        self.current.store(Arc::clone(&instance));
        if let (Some(sockets), Some(bound)) = (&mut *sockets, bound) {
            sockets.follow(bound, &instance);
        }
        self.tell_version();
        self.changed.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Waits until the plugins of a configuration can answer, while the one before does. One that cannot answer everything
    /// itself does not wait for long.
    fn wait_for(&self, instance: &Arc<Instance>) -> Result<(), ReloadError> {
        if instance.until_ready().now_or_never().is_some() {
            return Ok(());
        }
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = Arc::clone(instance);
        let task = tokio::spawn(async move {
            waiting.until_ready().await;
            // Who waited may have gone on.
            let _ = tell.send(());
        });
        let is_ready = told.recv_timeout(READY_WAIT).is_ok();
        task.abort();
        if is_ready || !self.current.load().unready().is_empty() {
            return Ok(());
        }
        Err(ReloadError::NotReady(instance.unready()))
    }

    /// Opens the sockets of the configuration in service; they follow it until [`Reloader::close`]. Gives where they
    /// are, at each instant.
    pub(crate) fn listen(&self) -> Result<Addresses, ListenError> {
        let mut open = self.sockets();
        let instance = self.current.load_full();
        let mut sockets = Sockets::default();
        let bound = sockets.bind(&instance, &self.current)?.listen()?;
        sockets.follow(bound, &instance);
        let addresses = Arc::clone(sockets.addresses());
        *open = Some(sockets);
        Ok(addresses)
    }

    /// Closes the sockets.
    pub(crate) fn close(&self) {
        drop(self.sockets().take());
    }

    fn sockets(&self) -> MutexGuard<'_, Option<Sockets>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> Arc<crate::metrics::Series> {
        self.environment
            .metrics
            .family(
                "coredns_reload_failed_total",
                "Counter of the number of failed reload attempts.",
                Kind::Counter,
                &[],
            )
            .with(&[])
    }

    fn tell_version(&self) {
        self.failed().add(0);
        let family = self.environment.metrics.family(
            "coredns_reload_version_info",
            "A metric with a constant '1' value labeled by hash, and value which type of hash generated.",
            Kind::Gauge,
            &["hash", "value"],
        );
        family.clear();
        family
            .with(&["sha512", self.current.load().digest()])
            .set(1.0);
    }

    /// Looks at the Corefile and what it imports as often as `reload` says, and reloads when they say something else;
    /// does not end. A wrong one is tried once.
    pub async fn watch(self: Arc<Self>) {
        let mut tried = self.current.load().digest().to_owned();
        let mut changes = self.changes();
        loop {
            let said = self.current.load().reload();
            let Some(interval) = said else {
                // Until somebody reloads by hand, and the new file says how often.
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let jitter = interval.jitter.mul_f64(fastrand::f64());
            tokio::time::sleep(interval.every + jitter).await;
            let reloader = Arc::clone(&self);
            let before = tried.clone();
            // Files may be on slow disks and a configuration may name great zones: not on a thread that answers.
            let looked = tokio::task::spawn_blocking(move || {
                let now = digest(&reloader.environment, reloader.file.as_deref());
                if now != before
                    && now != reloader.current.load().digest()
                    && let Err(ReloadError::NotReady(_)) = reloader.reload()
                {
                    return before;
                }
                now
            });
            if let Ok(now) = looked.await {
                tried = now;
            }
        }
    }
}

fn build(environment: &Arc<Environment>, file: Option<&Path>) -> Result<Instance, ReloadError> {
    let (file, text) = text(file)?;
    Ok(Instance::build(environment, file, &text)?)
}

/// The digest of what the Corefile says, or where it is wrong, of what is wrong with it.
fn digest(environment: &Environment, file: Option<&Path>) -> String {
    let read = text(file).and_then(|(file, text)| {
        let corefile = corefile::read(file, &text, &environment.variable)?;
        Ok(corefile.digest())
    });
    read.unwrap_or_else(|error| corefile::digest::of_text(&with_causes(&error)))
}

fn text(file: Option<&Path>) -> Result<(&Path, String), ReloadError> {
    match file {
        Some(file) => match std::fs::read_to_string(file) {
            Ok(text) => Ok((file, text)),
            Err(error) => Err(ReloadError::Read(file.to_path_buf(), error)),
        },
        None => Ok((Path::new("Corefile"), corefile::DEFAULT.to_owned())),
    }
}

/// An error and what lies behind it, in one line.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
