//! Clusters that are followed: watches folded into snapshots, which the threads that answer read without a lock.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use api::selector::LabelSelector;
use arc_swap::ArcSwap;
use client::{Client, Params};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinHandle;
use view::objects;
use zone::{Options, Snapshot, Store};

/// What is followed: two plugins that want the same share it, also across a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The API server; nothing for the process's own.
    pub kubeconfig: Option<PathBuf>,
    /// Services and EndpointSlices with these labels only.
    pub labels: String,
    /// Namespaces with these labels only.
    pub namespace_labels: String,
    /// Endpoints without a hostname are named after their pods.
    pub endpoint_pod_names: bool,
    /// EndpointSlices are not followed.
    pub no_endpoints: bool,
    /// Pods are followed.
    pub pods: bool,
    /// ServiceImports are followed.
    pub imports: bool,
}

/// Hears of each snapshot, so that who answers elsewhere is never behind who answers from here. It must be quick.
pub trait Follower: Send + Sync {
    /// This snapshot is shown now; nothing is known of the one before.
    fn all(&self, snapshot: &Snapshot);
    /// This snapshot is about to be shown; these Services may have changed (see [`Store::take_rendered`]).
    fn changed(&self, snapshot: &Snapshot, services: &[Arc<[u8]>]);
}

/// The follower of a cluster, if it has one.
type Following = Arc<Mutex<Option<Arc<dyn Follower>>>>;

/// A cluster as known at each instant.
pub struct Cluster {
    snapshot: Arc<ArcSwap<Snapshot>>,
    follower: Following,
    task: Mutex<Option<JoinHandle<()>>>,
    client: Client,
    wanted: Wanted,
}

/// The clusters that this process follows.
#[derive(Default)]
pub struct Clusters {
    own: Option<Client>,
    followed: Mutex<HashMap<Wanted, Weak<Cluster>>>,
}

/// Why a cluster cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No API server was named.
    #[error(
        "no API server is known: start with --kubeconfig FILE, or name one in the block with `kubeconfig FILE`"
    )]
    NoServer,
    /// The file cannot be used.
    #[error("kubeconfig {file}")]
    Kubeconfig {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: client::KubeconfigError,
    },
    /// Labels that cannot be read.
    #[error("{0}")]
    Labels(String),
}

impl Clusters {
    /// `own` is asked where a Corefile names no server.
    #[must_use]
    pub fn new(own: Option<Client>) -> Self {
        Clusters {
            own,
            followed: Mutex::default(),
        }
    }

    /// The cluster that is wanted, shared with whoever else wants it. Nothing is asked before [`Cluster::start`].
    ///
    /// # Errors
    /// When no server can be asked.
    pub fn follow(&self, wanted: Wanted) -> Result<Arc<Cluster>, ClusterError> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, cluster| cluster.strong_count() > 0);
        if let Some(cluster) = followed.get(&wanted).and_then(Weak::upgrade) {
            return Ok(cluster);
        }
        for labels in [&wanted.labels, &wanted.namespace_labels] {
            LabelSelector::parse(labels).map_err(|why| ClusterError::Labels(why.message))?;
        }
        let client = match (&wanted.kubeconfig, &self.own) {
            (Some(file), _) => {
                Client::from_kubeconfig(file).map_err(|source| ClusterError::Kubeconfig {
                    file: file.clone(),
                    source,
                })?
            }
            (None, Some(own)) => own.clone(),
            (None, None) => Client::in_cluster().map_err(|_| ClusterError::NoServer)?,
        };
        let cluster = Arc::new(Cluster {
            snapshot: Arc::default(),
            follower: Arc::default(),
            task: Mutex::default(),
            client,
            wanted: wanted.clone(),
        });
        followed.insert(wanted, Arc::downgrade(&cluster));
        Ok(cluster)
    }
}

impl Cluster {
    /// The cluster now. Reading it waits for nobody.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Begins to follow, unless that has begun. Call it inside the runtime. Ends when the cluster is dropped.
    pub fn start(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            let (client, wanted) = (self.client.clone(), self.wanted.clone());
            let out = Out {
                snapshot: Arc::clone(&self.snapshot),
                follower: Arc::clone(&self.follower),
            };
            *task = Some(tokio::spawn(run(client, wanted, out)));
        }
    }

    /// Has `follower` hear of each snapshot from now on, in place of the one before; it hears of the present one at
    /// once.
    pub fn follow(&self, follower: Option<Arc<dyn Follower>>) {
        let mut following = locked(&self.follower);
        if let Some(follower) = &follower {
            follower.all(&self.snapshot.load());
        }
        *following = follower;
    }

    /// A cluster that never changes, for tests.
    #[must_use]
    pub fn fixed(snapshot: Snapshot) -> Arc<Self> {
        let nobody = tower::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Empty::<
                bytes::Bytes,
            >::new()))
        });
        Arc::new(Cluster {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            follower: Arc::default(),
            task: Mutex::new(None),
            client: Client::in_process(nobody, ""),
            wanted: Wanted::default(),
        })
    }

    /// Puts another snapshot in place, for tests.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

/// Events that are folded before what they changed is shown.
const BATCH: usize = 256;

/// Where snapshots go.
struct Out {
    snapshot: Arc<ArcSwap<Snapshot>>,
    follower: Following,
}

impl Out {
    fn show(&self, snapshot: Snapshot, services: &[Arc<[u8]>], first: bool) {
        let following = locked(&self.follower);
        match &*following {
            // All names at once take their time, and nobody answers from them yet.
            Some(follower) if first => {
                self.snapshot.store(Arc::new(snapshot));
                follower.all(&self.snapshot.load());
            }
            Some(follower) => {
                follower.changed(&snapshot, services);
                self.snapshot.store(Arc::new(snapshot));
            }
            None => self.snapshot.store(Arc::new(snapshot)),
        }
    }
}

fn locked(following: &Following) -> std::sync::MutexGuard<'_, Option<Arc<dyn Follower>>> {
    following.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(client: Client, wanted: Wanted, out: Out) {
    let selector = (!wanted.namespace_labels.is_empty())
        .then(|| LabelSelector::parse(&wanted.namespace_labels).ok())
        .flatten();
    let mut store = Store::new(Options {
        endpoint_pod_names: wanted.endpoint_pod_names,
        namespace_selector: selector,
        no_endpoints: wanted.no_endpoints,
        pods: wanted.pods,
        imports: wanted.imports,
    });
    let labelled = || Params {
        label_selector: wanted.labels.clone(),
        ..Params::default()
    };
    let living = Params {
        field_selector: "status.phase!=Succeeded,status.phase!=Failed".to_owned(),
        ..Params::default()
    };
    let mut services = pin!(client.watch::<objects::Service>(labelled()));
    let mut slices = pin!(client.watch::<objects::EndpointSlice>(labelled()));
    let mut namespaces = pin!(client.watch::<objects::Namespace>(Params::default()));
    let mut pods = pin!(client.watch::<objects::Pod>(living));
    let mut imports = pin!(client.watch::<objects::ServiceImport>(Params::default()));
    let (endpoints, with_pods, with_imports) = (!wanted.no_endpoints, wanted.pods, wanted.imports);
    let mut synced = false;
    loop {
        // Every stream goes on for ever.
        tokio::select! {
            Some(event) = services.next() => store.service(event),
            Some(event) = slices.next(), if endpoints => store.slice(event),
            Some(event) = namespaces.next() => store.namespace(event),
            Some(event) = pods.next(), if with_pods => store.pod(event),
            Some(event) = imports.next(), if with_imports => store.import(event),
        }
        for _ in 0..BATCH {
            let mut more = false;
            if let Some(Some(event)) = services.next().now_or_never() {
                store.service(event);
                more = true;
            }
            if endpoints && let Some(Some(event)) = slices.next().now_or_never() {
                store.slice(event);
                more = true;
            }
            if !more {
                break;
            }
        }
        if !store.changed() {
            continue;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        // A list in progress is not shown: a copy of each intermediate state would cost more than the list.
        if synced || store.synced() {
            let first = !synced;
            if first {
                tracing::info!("every Service has been heard of");
                synced = true;
            }
            let rendered = store.take_rendered();
            out.show(store.publish(now), &rendered, first);
        }
    }
}
