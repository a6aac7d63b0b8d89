//! Changing the configuration under running traffic: the new one is built beside the old, which goes on answering
//! until the new one is in its place, and stays if the new one is wrong.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::corefile;
use crate::corefile::ConfigError;
use crate::instance::Environment;
use crate::instance::Instance;
use crate::metrics::Kind;

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
    /// Told after each change: listeners open and close by it.
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
}

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
            .start()
            .map_err(|(address, error)| ReloadError::Listen(address, error))?;
        let reloader = Arc::new(Self {
            environment,
            file,
            current: Arc::new(ArcSwap::new(instance)),
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

    /// Reads the Corefile anew and puts it into service. The one before goes on if the new one is wrong.
    ///
    /// # Errors
    ///
    /// When the new configuration is wrong.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let reloaded = self.try_reload();
        match &reloaded {
            Ok(()) => tracing::info!("the Corefile was read anew"),
            Err(error) => {
                self.failed().increment();
                tracing::error!(%error, "the Corefile is wrong; the one before stays in service");
            }
        }
        reloaded
    }

    fn try_reload(&self) -> Result<(), ReloadError> {
        let instance = Arc::new(build(&self.environment, self.file.as_deref())?);
        instance
            .start()
            .map_err(|(address, error)| ReloadError::Listen(address, error))?;
        self.current.store(instance);
        self.tell_version();
        self.changed.send_modify(|generation| *generation += 1);
        Ok(())
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
            .with(&["sha512", &digest(&self.current.load().files)])
            .set(1.0);
    }

    /// Looks at the files as often as `reload` says, and reloads when they changed; does not end.
    pub async fn watch(self: Arc<Self>) {
        let mut before = digest(&self.current.load().files);
        let mut changes = self.changes();
        loop {
            let said = *interval(&self.environment);
            let Some(interval) = said else {
                // Until somebody reloads by hand, and the new file says how often.
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let jitter = interval.jitter.mul_f64(fastrand::f64());
            tokio::time::sleep(interval.every + jitter).await;
            let files = self.current.load().files.clone();
            let reloader = Arc::clone(&self);
            let old = before.clone();
            // Files may be on slow disks and a configuration may name great zones: not on a thread that answers.
            let looked = tokio::task::spawn_blocking(move || {
                let now = digest(&files);
                if now != old {
                    let _ = reloader.reload();
                }
                now
            });
            if let Ok(now) = looked.await {
                before = now;
            }
        }
    }
}

fn build(environment: &Arc<Environment>, file: Option<&Path>) -> Result<Instance, ReloadError> {
    // Said anew by the file; a file that no longer says it switches it off. A wrong file changes nothing.
    let before = interval(environment).take();
    let built = build_from(environment, file);
    if built.is_err() {
        *interval(environment) = before;
    }
    built
}

fn interval(environment: &Environment) -> MutexGuard<'_, Option<Interval>> {
    environment
        .reload
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn build_from(
    environment: &Arc<Environment>,
    file: Option<&Path>,
) -> Result<Instance, ReloadError> {
    let (file, text) = match file {
        Some(file) => (
            file,
            std::fs::read_to_string(file)
                .map_err(|error| ReloadError::Read(file.to_path_buf(), error))?,
        ),
        None => (Path::new("Corefile"), corefile::DEFAULT.to_owned()),
    };
    Ok(Instance::build(environment, file, &text)?)
}

/// One digest over the files' contents, in hexadecimal. A file that cannot be read counts as empty.
fn digest(files: &[PathBuf]) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA512);
    for file in files {
        context.update(&std::fs::read(file).unwrap_or_default());
    }
    let octets = context.finish();
    octets
        .as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}
