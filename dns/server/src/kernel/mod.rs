//! Names of Services answered by this node's BPF programs, and this node's queries sent to this process: what the
//! programs go by is kept here.
//!
//! A [`Mirror`](mirror::Mirror) hears of each snapshot of the cluster before the server answers from it, and writes what
//! changed. Once a second [`Kernel::run`] looks at the Corefile, the DNS Service and this process's own sockets, and
//! renews the leases by which the programs go on: they end with the process.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abi::dns::Reason;
use abi::{DnsAnswer, DnsControl, DnsName};
use arc_swap::ArcSwap;

use crate::cluster::Follower;
use crate::corefile::Scheme;
use crate::instance::{Instance, Listen};
use crate::metrics::{Kind, Series};
use crate::reload::Reloader;

pub mod mirror;
pub mod plan;
mod probe;

use mirror::Mirror;
use plan::Plan;

/// Why the programs' table cannot be used.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The table of names that the programs read (see [`abi::dns`]), which nobody else writes.
pub trait Table: Send {
    /// Every name that is answered.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn entries(&self) -> Result<Vec<(DnsName, DnsAnswer)>, Failure>;

    /// Forgets names, then writes others; gives the positions in `put` of those that found no room.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn write(
        &mut self,
        remove: &[DnsName],
        put: &[(DnsName, DnsAnswer)],
    ) -> Result<Vec<usize>, Failure>;

    /// Says what the programs go by.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn set_control(&mut self, control: &DnsControl) -> Result<(), Failure>;

    /// Seconds of the clock that leases are told in.
    fn now_secs(&self) -> u32;

    /// Queries answered since the programs were loaded.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn answered(&self) -> Result<u64, Failure>;

    /// False once the programs read another table.
    fn is_current(&self) -> bool;
}

/// Finds the table; asked again for as long as it fails.
pub type Opener = Box<dyn Fn() -> Result<Box<dyn Table>, Failure> + Send + Sync>;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The programs answer for names of Services.
    pub answers: bool,
    /// This node's queries come to this process.
    pub local: bool,
    /// Namespace and name of the DNS Service.
    pub service: (String, String),
    /// Addresses of this node that pods reach; without any, those of its interfaces.
    pub addresses: Vec<IpAddr>,
}

/// Keeps what the programs go by.
pub struct Kernel {
    settings: Settings,
    open: Opener,
    reloader: Arc<Reloader>,
    listening: Arc<ArcSwap<Vec<(Listen, SocketAddr)>>>,
    mirror: Arc<Mirror>,
    ended: AtomicBool,
    seen: Mutex<Seen>,
    series: Numbers,
}

/// What the last look found.
#[derive(Default)]
struct Seen {
    instance: Option<Arc<Instance>>,
    listening: Vec<(Listen, SocketAddr)>,
    /// What was said last, so that it is said once.
    said: String,
    answered: u64,
}

struct Numbers {
    answers: Arc<Series>,
    names: Arc<Series>,
    left_out: Arc<Series>,
}

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

impl Kernel {
    /// Nothing is opened before [`Kernel::run`].
    #[must_use]
    pub fn new(
        settings: Settings,
        open: Opener,
        reloader: &Arc<Reloader>,
        listening: Arc<ArcSwap<Vec<(Listen, SocketAddr)>>>,
    ) -> Arc<Self> {
        let current = reloader.current().load();
        let metrics = &current.environment().metrics;
        let family = |name, help, kind| metrics.family(name, help, kind, &[]).with(&[]);
        let series = Numbers {
            answers: family(
                "fairlead_dns_kernel_answers_total",
                "Counter of queries that this node's BPF programs answered.",
                Kind::Counter,
            ),
            names: family(
                "fairlead_dns_kernel_names",
                "Names that this node's BPF programs answer for.",
                Kind::Gauge,
            ),
            left_out: family(
                "fairlead_dns_kernel_names_left_out",
                "Names that found no room in the BPF programs' table.",
                Kind::Gauge,
            ),
        };
        Arc::new(Kernel {
            mirror: Arc::new(Mirror::new(settings.answers, settings.service.clone())),
            settings,
            open,
            reloader: Arc::clone(reloader),
            listening,
            ended: AtomicBool::new(false),
            seen: Mutex::default(),
            series,
        })
    }

    /// Follows configuration and cluster; does not end. Call it inside the runtime.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.reloader.changes();
        loop {
            let healthy = match self.settings.local {
                true => self.probe().await,
                false => None,
            };
            self.look(healthy);
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Ends what the programs do for this process: they leave queries to the Service's endpoints at once.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.mirror.close(Reason::Ended);
    }

    /// Where pods reach this process, if it answers there.
    async fn probe(&self) -> Option<SocketAddr> {
        let here = self.here();
        let first = *here.first()?;
        probe::answers(first).await.then_some(first)
    }

    /// Where plain DNS is listened on, as pods see it.
    fn here(&self) -> Vec<SocketAddr> {
        let listening = self.listening.load();
        let Some((_, bound)) = listening.iter().find(|(l, _)| l.scheme == Scheme::Dns) else {
            return Vec::new();
        };
        let addresses = match bound.ip() {
            ip if ip.is_unspecified() && self.settings.addresses.is_empty() => {
                crate::interface::all()
            }
            ip if ip.is_unspecified() => self.settings.addresses.clone(),
            ip => vec![ip],
        };
        let reached = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        let reached = addresses.into_iter().filter(reached);
        reached
            .map(|ip| SocketAddr::new(ip, bound.port()))
            .collect()
    }

    fn look(&self, healthy: Option<SocketAddr>) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.mirror.has_table() {
            match (self.open)() {
                Ok(table) => {
                    seen.answered = table.answered().unwrap_or_default();
                    self.mirror.set_table(table);
                    // Names are written when the plan is made anew.
                    seen.instance = None;
                }
                Err(error) => {
                    self.say(&mut seen, &format!("the programs answer nothing: {error}"));
                    return;
                }
            }
        }
        let instance = self.reloader.current().load_full();
        let listening = self.listening.load_full();
        let same = seen
            .instance
            .as_ref()
            .is_some_and(|i| Arc::ptr_eq(i, &instance));
        if !same || seen.listening != *listening {
            self.plan(&mut seen, &instance, &listening);
            seen.listening.clone_from(&listening);
            seen.instance = Some(instance);
        }
        let local = match (self.settings.local, healthy) {
            (false, _) => Err(Reason::NotAsked),
            (true, Some(_)) => Ok(()),
            (true, None) if self.here().is_empty() => Err(Reason::NoListener),
            (true, None) => Err(Reason::Unhealthy),
        };
        self.mirror.renew(&self.here(), local);
        let fill = self.mirror.fill();
        #[expect(clippy::cast_precision_loss, reason = "tables are small")]
        {
            self.series.names.set(fill.names as f64);
            self.series.left_out.set(fill.left_out as f64);
        }
        if let Some(answered) = fill.answered {
            self.series
                .answers
                .add(answered.saturating_sub(seen.answered));
            seen.answered = answered;
        }
    }

    /// Decides anew which blocks' names the programs may answer for.
    fn plan(&self, seen: &mut Seen, instance: &Instance, listening: &[(Listen, SocketAddr)]) {
        let before = self.mirror.cluster();
        let planned = match self.settings.answers {
            true => Plan::of(instance, listening),
            false => Err("nobody asked for it".to_owned()),
        };
        match planned {
            Ok(plan) => {
                let plan = Arc::new(plan);
                let cluster = Arc::clone(plan.cluster());
                if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &cluster)) {
                    before.follow(None);
                }
                self.say(seen, "the programs answer for names of Services");
                self.mirror.set_plan(Some(plan));
                cluster.follow(Some(Arc::clone(&self.mirror) as Arc<dyn Follower>));
            }
            Err(why) => {
                if self.settings.answers {
                    self.say(seen, &format!("the programs answer nothing: {why}"));
                }
                self.mirror.set_plan(None);
                // The address of the DNS Service is still to be known.
                if let Some(cluster) = plan::any_cluster(instance) {
                    if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &cluster)) {
                        before.follow(None);
                    }
                    self.mirror.watch(&cluster);
                    cluster.follow(Some(Arc::clone(&self.mirror) as Arc<dyn Follower>));
                }
            }
        }
    }

    fn say(&self, seen: &mut Seen, what: &str) {
        if seen.said != what {
            what.clone_into(&mut seen.said);
            tracing::info!("{what}");
        }
    }
}
