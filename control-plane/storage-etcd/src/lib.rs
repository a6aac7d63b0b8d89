//! The etcd engine: the storage trait over a real etcd.
//!
//! A follower reads what stands below the prefix, watches etcd from there, and publishes every revision into a replica
//! in memory ([`storage::replica`]), values decoded once. Lists, watches and history are answered from the replica. A
//! read of the newest state first asks etcd which revision is the newest (one small question for all readers who wait
//! at that moment) and waits until the replica has it: what anybody wrote before is seen. A write is one transaction,
//! and resolves when etcd has acknowledged it and the replica shows it.
//!
//! The follower watches all of etcd's keys, whatever the prefix: only then does every revision come with an event, and
//! the replica knows that it has missed none. (Progress notifications of etcd before 3.4.25 and 3.5.8 may overtake
//! events; they are not relied upon.) What stands elsewhere in that etcd is passed over.
//!
//! Revisions are etcd's. They grow with every write, also with those of others to the same etcd.
#![forbid(unsafe_code)]

mod follow;
mod fresh;
mod house;
mod keys;
mod lease;
mod proto;
mod rpc;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod txn;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use storage::history::History;
use storage::memory::WatchLimits;
use storage::replica::Replica;
use storage::{Answer, Codec, Entry, Error, Page, Range, Revision, Storage, WatchEvent, Write};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fresh::Fresh;
use crate::keys::Keys;
use crate::lease::Leases;
use crate::rpc::Rpc;

/// How etcd is reached and used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Client URLs of its members.
    pub endpoints: Vec<String>,
    /// The authority that signed the members' certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// The certificate that we show, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// What keys begin with at our callers, without a slash at the end; empty where they begin with a slash.
    pub root: String,
    /// What stands in its place in etcd.
    pub prefix: String,
    /// The longest that a request waits for etcd.
    pub timeout: Duration,
    /// The longest that the start waits for etcd.
    pub patience: Duration,
    /// How often history is forgotten, after as long again; `None`: only when asked to.
    pub compaction: Option<Duration>,
    /// Keys that begin with the text are removed when nobody has written them for so long.
    pub leases: Vec<(String, Duration)>,
    /// What history is held in memory.
    pub history: History,
    /// How watches are fed.
    pub watch: WatchLimits,
}

impl Options {
    /// As kube-apiserver uses etcd: everything below `/registry`, history kept for five minutes, Events for an hour.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            ca_file: None,
            cert_file: None,
            key_file: None,
            root: "/registry".to_owned(),
            prefix: "/registry".to_owned(),
            timeout: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            compaction: Some(Duration::from_secs(300)),
            leases: vec![
                ("/registry/events/".to_owned(), Duration::from_secs(3600)),
                (
                    "/registry/masterleases/".to_owned(),
                    Duration::from_secs(15),
                ),
            ],
            history: History::default(),
            watch: WatchLimits::default(),
        }
    }
}

/// Why a store could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options make no sense.
    #[error("{0}")]
    Config(String),
    /// A certificate or key.
    #[error("could not read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// Nobody answered as etcd does.
    #[error("no etcd answered within {} s", waited.as_secs())]
    Away {
        /// How long it was tried.
        waited: Duration,
        /// What the last try came to.
        source: Error,
    },
}

/// A store in etcd. Dropping it ends every watch.
pub struct Etcd {
    shared: Arc<Shared>,
    fresh: Fresh,
    leases: Leases,
    /// End with the store.
    _tasks: JoinSet<()>,
}

/// What requests and the tasks behind them share.
pub(crate) struct Shared {
    pub(crate) rpc: Rpc,
    pub(crate) keys: Keys,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) replica: Replica,
    /// The newest revision in the replica.
    pub(crate) seen: watch::Sender<u64>,
    /// Told to let its watch go and begin another.
    pub(crate) stuck: tokio::sync::Notify,
    pub(crate) options: Options,
}

impl Etcd {
    /// Reads everything and follows it from there.
    ///
    /// # Errors
    /// Options that make no sense, and an etcd that does not answer in [`Options::patience`].
    pub async fn connect(options: Options, codec: Arc<dyn Codec>) -> Result<Self, ConnectError> {
        let rpc = Rpc::new(&options)?;
        let keys = Keys::new(&options.root, &options.prefix);
        let state = follow::first(&rpc, &keys, &*codec, &options).await?;
        let shared = Arc::new(Shared {
            seen: watch::Sender::new(state.revision.0),
            replica: Replica::new(state, options.history, options.watch),
            rpc,
            keys,
            codec,
            stuck: tokio::sync::Notify::new(),
            options,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::follow(shared.clone()));
        let (fresh, asking) = Fresh::new(shared.clone());
        tasks.spawn(asking);
        tasks.spawn(house::progress(shared.clone()));
        if let Some(every) = shared.options.compaction {
            tasks.spawn(house::compact_every(shared.clone(), every));
        }
        // The history that is on its way belongs to what is there at the start.
        let waited = shared.options.patience;
        let newest = fresh.newest().await;
        newest.map_err(|source| ConnectError::Away { waited, source })?;
        Ok(Self {
            leases: Leases::new(shared.clone()),
            shared,
            fresh,
            _tasks: tasks,
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.shared.replica.close();
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("endpoint", &self.shared.rpc.endpoint())
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Resolves when the replica has the revision.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it does not come in time.
    pub(crate) async fn caught_up(&self, revision: Revision) -> Result<(), Error> {
        let mut seen = self.seen.subscribe();
        let reached = seen.wait_for(|seen| *seen >= revision.0);
        match tokio::time::timeout(self.rpc.timeout(), reached).await {
            Ok(_) => Ok(()),
            Err(_) => {
                self.stuck.notify_one();
                Err(Error::Unavailable {
                    doing: format!("following etcd at {}", self.rpc.endpoint()),
                    cause: format!(
                        "its watch has come to revision {} and not to {} within {} s",
                        self.replica.revision().0,
                        revision.0,
                        self.rpc.timeout().as_secs_f32()
                    )
                    .into(),
                })
            }
        }
    }
}

impl Storage for Etcd {
    fn revision(&self) -> Revision {
        self.shared.replica.revision()
    }

    fn newest(&self) -> Answer<'_, Revision> {
        Box::pin(self.fresh.newest())
    }

    fn keeps_house(&self) -> bool {
        self.shared.options.compaction.is_some()
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move {
            self.fresh.newest().await?;
            let found = self.shared.replica.get(key);
            found.map(Entry::readable).transpose()
        })
    }

    fn list(&self, range: Range) -> Answer<'_, Page> {
        Box::pin(async move {
            if range.at.is_none_or(|at| at > self.revision()) {
                self.fresh.newest().await?;
            }
            let page = self.shared.replica.list(&range)?;
            let mut entries = page.entries.iter();
            match entries.find(|entry| !range.faulty && entry.fault().is_some()) {
                Some(entry) => entry.clone().readable().map(|_| page),
                None => Ok(page),
            }
        })
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision> {
        Box::pin(async move {
            if writes.is_empty() {
                return self.fresh.newest().await;
            }
            if let Some(place) = txn::repetition(&writes) {
                // What is wrong before it is said first.
                self.fresh.newest().await?;
                for write in &writes[..place] {
                    let current = self.shared.replica.get(write.key());
                    write.decide(current.as_ref(), Revision(0))?;
                }
                return Err(Error::Refused {
                    reason: format!("key {} is named twice", writes[place].key()),
                });
            }
            let revision = txn::write(&self.shared, &self.leases, &writes).await?;
            // It is durable whether it is seen here in time or not.
            if let Err(error) = self.shared.caught_up(revision).await {
                tracing::warn!(%error, "a write is not seen by the watch that reads are made from");
            }
            Ok(revision)
        })
    }

    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>> {
        Box::pin(async move {
            if from.is_none_or(|from| from > self.revision()) {
                self.fresh.newest().await?;
            }
            self.shared.replica.watch(prefix, from)
        })
    }

    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        Box::pin(house::compact(&self.shared, revision))
    }
}
