//! Clusters that are followed: watches folded into snapshots, which the threads that answer read without a lock.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::selector::LabelSelector;
use arc_swap::ArcSwap;
use client::{Client, Params};
use futures_util::{FutureExt as _, StreamExt as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use view::{Event, objects};
use zone::{Options, Snapshot, Store};

use crate::metrics::rest_client::RestClient;
use crate::metrics::{Kind, Registry, Series};

/// What is followed: two plugins that want the same share it, also across a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Which API server.
    pub server: Server,
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

/// An API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Server {
    /// The process's own.
    #[default]
    Own,
    /// As a kubeconfig says.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// A context of it other than the current one.
        context: Option<String>,
    },
    /// By its address.
    Endpoint {
        /// With its scheme.
        url: String,
        /// Files: our certificate, its key, and the certificates of whom we believe.
        tls: Option<[PathBuf; 3]>,
    },
}

/// A cluster as known at each instant.
pub struct Cluster {
    shown: Arc<Shown>,
    task: Mutex<Option<JoinHandle<()>>>,
    client: Client,
    wanted: Wanted,
    /// `wanted.namespace_labels`, read.
    namespace_selector: Option<LabelSelector>,
    /// From the change of a Pod or Service to its answer.
    latency: Arc<Series>,
}

/// What those who answer see of a cluster.
#[derive(Default)]
struct Shown {
    snapshot: ArcSwap<Snapshot>,
    /// Counts the snapshots.
    changes: watch::Sender<u64>,
    follower: Mutex<Option<Arc<dyn Follower>>>,
}

impl Shown {
    fn show(&self, snapshot: Snapshot, services: &[Arc<[u8]>], first: bool) {
        let following = self.follower();
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
        drop(following);
        self.changes.send_modify(|count| *count += 1);
    }

    fn follower(&self) -> MutexGuard<'_, Option<Arc<dyn Follower>>> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// What names the API server cannot be used.
    #[error("the API server cannot be asked")]
    Server(#[source] client::KubeconfigError),
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
    pub fn follow(&self, wanted: Wanted, metrics: &Registry) -> Result<Arc<Cluster>, ClusterError> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, cluster| cluster.strong_count() > 0);
        if let Some(cluster) = followed.get(&wanted).and_then(Weak::upgrade) {
            return Ok(cluster);
        }
        let read = |labels: &str| {
            LabelSelector::parse(labels).map_err(|why| ClusterError::Labels(why.message))
        };
        read(&wanted.labels)?;
        let namespace_selector = match &*wanted.namespace_labels {
            "" => None,
            labels => Some(read(labels)?),
        };
        let client = match (&wanted.server, &self.own) {
            (
                Server::Kubeconfig {
                    file,
                    context: None,
                },
                _,
            ) => Client::from_kubeconfig(file).map_err(ClusterError::Server)?,
            (
                Server::Kubeconfig {
                    file,
                    context: Some(context),
                },
                _,
            ) => Client::from_kubeconfig_context(file, context).map_err(ClusterError::Server)?,
            (Server::Endpoint { url, tls }, _) => {
                let tls = tls
                    .as_ref()
                    .map(|files| files.each_ref().map(|file| &**file));
                Client::from_endpoint(url, tls).map_err(ClusterError::Server)?
            }
            (Server::Own, Some(own)) => own.clone(),
            (Server::Own, None) => Client::in_cluster().map_err(|_| ClusterError::NoServer)?,
        };
        let client = client.observed(Arc::new(RestClient::new(metrics)));
        let cluster = Arc::new(Cluster {
            shown: Arc::default(),
            latency: latency(metrics),
            task: Mutex::default(),
            client,
            wanted: wanted.clone(),
            namespace_selector,
        });
        followed.insert(wanted, Arc::downgrade(&cluster));
        Ok(cluster)
    }
}

impl Cluster {
    /// The cluster now. Reading it waits for nobody.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.shown.snapshot.load()
    }

    /// Changes each time that another snapshot is in place.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shown.changes.subscribe()
    }

    /// Ends when everything that exists was heard of once.
    pub async fn until_synced(&self) {
        let mut changes = self.changes();
        // The sender lives as long as `self` does.
        let _ = changes
            .wait_for(|_| self.shown.snapshot.load().synced())
            .await;
    }

    /// Begins to follow, unless that has begun. Call it inside the runtime. Ends when the cluster is dropped.
    pub fn start(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            let options = Options {
                endpoint_pod_names: self.wanted.endpoint_pod_names,
                namespace_selector: self.namespace_selector.clone(),
                no_endpoints: self.wanted.no_endpoints,
                pods: self.wanted.pods,
                imports: self.wanted.imports,
            };
            let (client, labels) = (self.client.clone(), self.wanted.labels.clone());
            let (shown, latency) = (Arc::clone(&self.shown), Arc::clone(&self.latency));
            *task = Some(tokio::spawn(run(client, options, labels, shown, latency)));
        }
    }

    /// Has `follower` hear of each snapshot from now on, in place of the one before; it hears of the present one at
    /// once.
    pub fn follow(&self, follower: Option<Arc<dyn Follower>>) {
        let mut following = self.shown.follower();
        if let Some(follower) = &follower {
            follower.all(&self.snapshot());
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
            shown: Arc::new(Shown {
                snapshot: ArcSwap::from_pointee(snapshot),
                changes: watch::Sender::new(1),
                follower: Mutex::default(),
            }),
            latency: latency(&Registry::default()),
            task: Mutex::new(None),
            client: Client::in_process(nobody, ""),
            wanted: Wanted::default(),
            namespace_selector: None,
        })
    }

    /// Puts another snapshot in place, for tests.
    pub fn replace(&self, snapshot: Snapshot) {
        self.shown.snapshot.store(Arc::new(snapshot));
        self.shown.changes.send_modify(|count| *count += 1);
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

/// The histogram of how long a change took to be answered (Kubernetes' SLI `DNS programming latency`), of headless
/// Services with a selector: the others' addresses do not follow their endpoints.
fn latency(metrics: &Registry) -> Arc<Series> {
    let family = metrics.family(
        "coredns_kubernetes_dns_programming_duration_seconds",
        "Histogram of the time (in seconds) it took to program a dns instance.",
        Kind::Histogram(PROGRAMMING_SECONDS),
        &["service_kind"],
    );
    family.with(&["headless_with_selector"])
}

/// 1 ms doubling to 524 s, as CoreDNS has it.
const PROGRAMMING_SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192, 16.384, 32.768, 65.536, 131.072, 262.144, 524.288,
];

/// When the change behind an event of a headless Service's slice happened, as who wrote the slice says.
fn changed_at(event: &Event<objects::EndpointSlice>) -> Option<OffsetDateTime> {
    let Event::Applied(slice) = event else {
        return None;
    };
    let meta = &slice.metadata;
    meta.labels.get("service.kubernetes.io/headless")?;
    let at = meta
        .annotations
        .get("endpoints.kubernetes.io/last-change-trigger-time")?;
    OffsetDateTime::parse(at, &Rfc3339).ok()
}

/// How long everything that exists is waited for before what is known so far is shown: some of it may never be heard of, as
/// kinds that the API server lacks or that we may not see.
const WAIT: Duration = Duration::from_secs(5);

/// Events that are folded before what they changed is shown.
const BATCH: usize = 256;

async fn run(
    client: Client,
    options: Options,
    labels: String,
    out: Arc<Shown>,
    latency: Arc<Series>,
) {
    let (endpoints, with_pods, with_imports) =
        (!options.no_endpoints, options.pods, options.imports);
    let mut store = Store::new(options);
    let labelled = || Params {
        label_selector: labels.clone(),
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
    let mut synced = false;
    // Times of the changes that are not shown yet.
    let mut changed: Vec<OffsetDateTime> = Vec::new();
    let begun = tokio::time::Instant::now();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut second = false;
        // Every stream goes on for ever.
        tokio::select! {
            Some(event) = services.next() => store.service(event),
            Some(event) = slices.next(), if endpoints => {
                changed.extend(changed_at(&event).filter(|_| synced));
                store.slice(event);
            }
            Some(event) = namespaces.next() => store.namespace(event),
            Some(event) = pods.next(), if with_pods => store.pod(event),
            Some(event) = imports.next(), if with_imports => store.import(event),
            // Nothing more may happen after a second's last change, whose serial is an earlier one's.
            _ = seconds.tick(), if store.shares_serial() || !synced => second = true,
        }
        for _ in 0..BATCH {
            let mut more = false;
            if let Some(Some(event)) = services.next().now_or_never() {
                store.service(event);
                more = true;
            }
            if endpoints && let Some(Some(event)) = slices.next().now_or_never() {
                changed.extend(changed_at(&event).filter(|_| synced));
                store.slice(event);
                more = true;
            }
            if !more {
                break;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        if !store.due(now) {
            changed.clear();
            continue;
        }
        // A list in progress is not shown each time: a copy of every intermediate state would cost more than the list.
        let overdue = second && begun.elapsed() >= WAIT;
        if synced || store.synced() || overdue {
            let first = !synced;
            if store.synced() && first {
                tracing::info!("every Service has been heard of");
                synced = true;
            }
            let rendered = store.take_rendered();
            out.show(store.publish(now), &rendered, first);
            let now = OffsetDateTime::now_utc();
            for at in changed.drain(..) {
                latency.observe((now - at).as_seconds_f64().max(0.0));
            }
        }
    }
}
