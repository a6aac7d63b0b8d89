//! The shell: streams in, steps to the kernel.

mod growth;
mod handover;
mod telling;

use std::collections::{BTreeMap, VecDeque};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use abi::NodeConfig;
use abi::balancing::Mode;
use bpf::{Datapath, Fill, Flow};
use client::Client;
use futures_util::{FutureExt, StreamExt};
use model::ServiceKey;
use plan::{Capacities, Epoch, Named, Store as _};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};
use view::{PodRanges, Services};

use crate::attach::{Attachments, Due};
use crate::balancer::Turn;
use crate::events::{About, Events};
use crate::health_checks::HealthChecks;
use crate::inputs::Input;
use crate::leaving::Leaving;
use crate::policy::PolicyTask;
use crate::rest_client::RestClient;
use crate::vanished::Vanishing;
use crate::{
    Balancer, Error, Settings, Trouble, apply, crowd, expiry, grace, healthz, inputs, members,
    metrics, policy, quotas, ways,
};

/// Follows the API server and keeps the kernel's tables right, until `shutdown` turns true; with
/// [`Settings::once`], until they are right for the first time. What is in the kernel stays there.
///
/// # Errors
///
/// What is missing at the start, see [`Error`]. Later nothing ends it: the API server may come and go, a step
/// that the kernel refuses is planned again.
pub async fn run(
    client: Client,
    settings: Settings,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let requests = Arc::new(RestClient::default());
    let client = client.observed(requests.clone());
    let mut proxy = Proxy::start(&client, settings, requests).await?;
    let mut inputs = Box::pin(inputs::inputs(&client, &proxy.settings));
    loop {
        let again = proxy.again;
        let pods_due = proxy.pods_due;
        let bounds_due = proxy.bounds_due;
        let release = proxy.cooling.front().map(|(when, _)| *when);
        let vanishing = proxy.vanishing.due();
        let held_until = proxy.held_until;
        let ways_due = proxy.ways_due;
        tokio::select! {
            () = stopped(&mut shutdown) => {
                info!("ends; what is in the kernel serves on");
                return Ok(());
            }
            Some(input) = inputs.next() => {
                let start = Instant::now();
                proxy.fold(input);
                for _ in 1..BURST_MAX {
                    let Some(Some(input)) = inputs.next().now_or_never() else { break };
                    proxy.fold(input);
                }
                proxy.program(start)?;
            }
            due = proxy.attachments.next() => {
                let start = Instant::now();
                if proxy.look_after(&due).await {
                    proxy.program(start)?;
                }
            }
            epoch = wait_for(proxy.grace.as_mut()) => {
                proxy.grace = None;
                proxy.reclaim(epoch)?;
            }
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                proxy.start_over()?;
            }
            () = sleep_until(pods_due.unwrap_or_else(Instant::now)), if pods_due.is_some() => {
                proxy.pods_due = None;
                if proxy.balancer.services_mut().stop_waiting_for_pods() {
                    warn!("host ports are not served yet: this node's Pods could not be listed");
                    proxy.program(Instant::now())?;
                }
            }
            () = sleep_until(bounds_due.unwrap_or_else(Instant::now)), if bounds_due.is_some() => {
                proxy.bounds_due = None;
                proxy.set_bounds();
            }
            () = sleep_until(ways_due.unwrap_or_else(Instant::now)), if ways_due.is_some() => {
                proxy.ways_due = None;
                proxy.set_reach();
                proxy.program(Instant::now())?;
            }
            () = sleep_until(release.unwrap_or_else(Instant::now)), if release.is_some() => {
                proxy.release()?;
            }
            Some(refused) = proxy.refusals.recv() => proxy.tell_refusals(refused),
            Some(service) = proxy.health_check_news.recv() => proxy.tell_health_check(&service),
            Some(crowd) = proxy.crowd.recv() => {
                proxy.make_room_for_clients(&crowd);
            }
            Some(crowd) = proxy.crowded_flows.recv() => {
                proxy.make_room_for_flows(&crowd);
            }
            () = sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => {
                proxy.release_translations();
            }
            () = sleep_until(vanishing.unwrap_or_else(Instant::now)), if vanishing.is_some() => {
                let dead = proxy.vanishing.dead(proxy.balancer.services());
                proxy.leaving.reset(dead);
            }
        }
        if proxy.settings.once && proxy.settings.status.borrow().ready && proxy.grace.is_none() {
            proxy.events.finish().await;
            return Ok(());
        }
    }
}

/// How many events are folded at most before what they mean is applied.
const BURST_MAX: usize = 4096;
/// Between a refused step and the next attempt: at first, and at most.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long Services wait for the list of Pods: host ports that are in the tables stay there meanwhile.
const PODS_WAIT: Duration = Duration::from_secs(5);
/// While the wait is shorter, what was refused may well succeed the next time.
const AGAIN_SOON: Duration = Duration::from_secs(4);

/// Waits until somebody asks to stop; for ever when nobody is left who could.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

type Grace = std::pin::Pin<Box<dyn Future<Output = Epoch> + Send>>;

async fn wait_for(grace: Option<&mut Grace>) -> Epoch {
    match grace {
        Some(grace) => grace.await,
        None => std::future::pending().await,
    }
}

struct Proxy {
    settings: Settings,
    datapath: Datapath,
    attachments: Attachments,
    events: Events,
    balancer: Balancer,
    capacities: Capacities,
    node: Option<NodeConfig>,
    groups: quotas::Groups,
    /// When the bounds on flows are to be gone through again.
    bounds_due: Option<Instant>,
    quotas: quotas::Keeper,
    /// Tells whose new flows found no room.
    refusals: mpsc::Receiver<Vec<(ServiceKey, u32, String)>>,
    nodes: PodRanges,
    /// When to see by which devices packets for other nodes go.
    ways_due: Option<Instant>,
    /// The Nodes have other addresses than the programs know.
    nodes_moved: bool,
    /// Runs while programs may still read what was retired up to the epoch that it gives.
    grace: Option<Grace>,
    /// When the identifiers of an epoch may be given out again, the oldest first.
    cooling: VecDeque<(Instant, Epoch)>,
    /// When to start over from what the kernel holds, after a step was refused.
    again: Option<Instant>,
    again_wait: Duration,
    /// A step was refused that others lean on: nothing is planned before that.
    blocked: bool,
    /// Tells when a table of flows is crowded with those that live; while it is there, those that are over are forgotten.
    crowded_flows: mpsc::Receiver<Fill>,
    /// When it was told last that they may not have more room.
    crowd_told: Option<Instant>,
    /// Tells when the table of clients with session affinity is nearly full.
    crowd: mpsc::Receiver<Fill>,
    /// When to see whether connections of kube-proxy's are still translated.
    held_until: Option<Instant>,
    /// kube-proxy's rules are to be removed.
    takes_over: bool,
    /// Until when no table is made larger, after the kernel refused that.
    no_growth_before: Option<Instant>,
    health_checks: HealthChecks,
    /// Tells whose health checks are served, or are not.
    health_check_news: mpsc::UnboundedReceiver<ServiceKey>,
    leaving: Leaving,
    /// Followed where connections to dead backends are to be reset.
    vanishing: Vanishing,
    /// Until when Services wait for the list of Pods.
    pods_due: Option<Instant>,
    /// `None` where packets are not judged.
    policies: Option<PolicyTask>,
}

impl Proxy {
    async fn start(
        client: &Client,
        settings: Settings,
        requests: Arc<RestClient>,
    ) -> Result<Proxy, Error> {
        let datapath_settings = settings.datapath.clone();
        let (mut datapath, is_first) = spawn_blocking(move || {
            if net::ensure_bpffs(&datapath_settings.bpffs_root)? {
                info!(path = %datapath_settings.bpffs_root.display(), "mounted a bpffs for maps, programs and links");
            }
            let is_first = std::fs::read_dir(&datapath_settings.bpffs_root)
                .map_or(true, |mut entries| entries.next().is_none());
            Ok::<_, Error>((Datapath::open(&datapath_settings)?, is_first))
        })
        .await??;
        let attachments = match Attachments::new(&mut datapath, &settings).await {
            Ok(attachments) => attachments,
            Err(error) => {
                // Nobody's traffic depends yet on what this start made: it goes with it.
                if is_first {
                    drop(datapath);
                    Datapath::uninstall(&settings.datapath.bpffs_root)?;
                }
                return Err(error);
            }
        };
        settings.status.send_modify(|status| status.loaded = true);
        let inherited = datapath.inherited();
        if !inherited.layouts.is_empty() {
            let (from, anew) = (&inherited.layouts, &inherited.anew);
            info!(
                ?from,
                ?anew,
                "took over what another version of the layout left"
            );
        }
        let capacities = growth::capacities(&datapath)?;
        let kernel = datapath.observe()?;
        info!(
            frontends = kernel.frontends.len(),
            backends = kernel.backends.len(),
            "took over what the kernel holds"
        );
        let given = attachments.addresses().to_vec();
        let mut services = Services::new(&settings.node_name, given);
        services.set_node_port_addresses(settings.node_port_addresses.clone());
        let mut pods_due = None;
        if settings.host_ports {
            services.follow_pods();
            pods_due = Some(Instant::now() + PODS_WAIT);
        }
        datapath.set_host(net::Netns::current_cookie()?)?;
        datapath.set_balancing(settings.load_balancing)?;
        let named = named(&datapath)?;
        if let Some(address) = settings.metrics_bind_address {
            metrics::serve(address, &settings, requests).await?;
        }
        if let Some(address) = settings.healthz_bind_address {
            healthz::serve(address, &settings).await?;
        }
        let takes_over = settings.take_over_kube_proxy;
        let root = settings.datapath.bpffs_root.clone();
        let (quotas, refusals) = quotas::Keeper::start(root.clone());
        let (health_checks, health_check_news) = HealthChecks::new();
        let leaving = Leaving::start(root.clone(), settings.status.clone());
        if !settings.masquerade {
            let table = bpf::Masquerading::open(&settings.datapath.bpffs_root)?;
            table.set(&BTreeMap::new(), abi::Masquerade::default())?;
        }
        let table = datapath.policy_table()?;
        let policies = if settings.network_policy && !settings.once {
            let whereabouts = attachments.whereabouts();
            Some(PolicyTask::start(client, &settings, table, whereabouts)?)
        } else {
            if !settings.network_policy {
                policy::switch_off(&table)?;
            }
            None
        };
        let proxy = Proxy {
            balancer: Balancer::new(services, &kernel, capacities, named)
                .with_mode(settings.load_balancing)
                .with_limits(settings.flow_limits.any()),
            events: Events::start(client.clone(), &settings.node_name, About::Service),
            settings,
            datapath,
            attachments,
            capacities,
            node: None,
            groups: quotas::Groups::default(),
            bounds_due: None,
            quotas,
            refusals,
            nodes: PodRanges::default(),
            ways_due: None,
            nodes_moved: false,
            grace: None,
            cooling: VecDeque::new(),
            again: None,
            again_wait: AGAIN_MIN,
            blocked: false,
            takes_over,
            held_until: None,
            crowded_flows: expiry::start(root.clone()),
            crowd_told: None,
            crowd: crowd::watch(root),
            no_growth_before: None,
            health_checks,
            health_check_news,
            leaving,
            vanishing: Vanishing::default(),
            pods_due,
            policies,
        };
        proxy.tell_devices();
        Ok(proxy)
    }

    /// Plans what changed since, and does it.
    fn program(&mut self, start: Instant) -> Result<(), Error> {
        if self.blocked {
            return Ok(()); // all of it is planned anew then
        }
        if self.nodes_moved {
            self.set_reach();
        }
        let full = !self.balancer.is_complete();
        let mut turn = self.balancer.turn();
        if !self.balancer.is_complete() {
            return Ok(());
        }
        self.set_node();
        self.set_members();
        self.tell_eligibility();
        let news = self.balancer.services_mut().take_news();
        let first = !self.settings.status.borrow().ready;
        if turn == Turn::default() && !first {
            return Ok(());
        }
        self.settings
            .status
            .send_modify(|status| status.kube_proxy.queued(SystemTime::now(), &news));
        if first {
            self.note_kube_proxy_rules();
        }
        let takes_over = self.takes_over;
        if takes_over {
            self.adopt(&turn.steps);
        }
        let refused = match apply::apply(&mut self.datapath, &turn.steps) {
            Ok(refused) => refused,
            Err(refused) => {
                self.blocked = true;
                return self.refused(refused);
            }
        };
        if takes_over && refused.is_empty() {
            // What began by kube-proxy's rules meanwhile, and then none any more.
            if self.adopt(&[]) {
                self.remove_kube_proxy_rules();
            }
        }
        self.leaving.tell(&turn.left);
        if self.settings.flow_limits.any() && !first {
            // All of them are gone through, which would take longer than a turn.
            self.bounds_due
                .get_or_insert_with(|| Instant::now() + quotas::WAIT);
        } else {
            self.set_bounds();
        }
        if self.settings.reset_dead_backends {
            self.vanishing.note(&turn.left);
        }
        // Who found room is served by now; who did not says so only where none can be made.
        let grew = match self.room_wanted() {
            Some(wanted) => self.grow(&wanted),
            None => false,
        };
        if grew {
            let waits = |troubles: &[Trouble]| troubles.iter().any(|it| it.reason == "TableFull");
            turn.troubles.retain(|(_, troubles)| !waits(troubles));
        }
        if refused.is_empty() && self.again.is_none() {
            self.again_wait = AGAIN_MIN;
        }
        let took = start.elapsed();
        let (services, steps) = (turn.services, turn.steps.len());
        if first {
            info!(services, steps, ?took, "programmed");
        } else {
            debug!(services, steps, ?took, "programmed");
        }
        self.tell(&turn, took);
        self.tell_kube_proxy(&news.triggers, took, full);
        for (key, check) in &turn.health_checks {
            let status = self.settings.status.subscribe();
            self.health_checks.set(key, check.clone(), &status);
        }
        self.report(refused)?;
        if grew {
            return self.start_over();
        }
        self.start_grace();
        Ok(())
    }

    fn reclaim(&mut self, epoch: Epoch) -> Result<(), Error> {
        // A frontend that was not switched leads where nobody else does. That stays for a while; for ever it would
        // fill the tables, and what is taken from it then is its own service's alone.
        if self.blocked || self.again.is_some() && self.again_wait < AGAIN_SOON {
            return Ok(());
        }
        let steps = self.balancer.planner_mut().reclaim(epoch);
        if let Err(refused) = self.datapath.apply(&steps) {
            let status = &self.settings.status;
            status.send_modify(|status| status.kube_proxy.failed_to_clean_up());
            self.blocked = true;
            return self.refused(refused);
        }
        debug!(epoch, steps = steps.len(), "reclaimed");
        let when = Instant::now() + grace::FORGET;
        match self.cooling.back_mut() {
            Some((last, up_to)) if *last + grace::FORGET_STEP > when => *up_to = epoch,
            Some(_) | None => self.cooling.push_back((when, epoch)),
        }
        self.program(Instant::now())?; // somebody may have waited for the room
        self.start_grace();
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        if let Some((_, epoch)) = self.cooling.pop_front() {
            self.balancer.planner_mut().release(epoch);
        }
        self.program(Instant::now())
    }

    fn start_grace(&mut self) {
        let planner = self.balancer.planner();
        if self.grace.is_none() && planner.has_retired() {
            let epoch = planner.epoch();
            self.grace = Some(Box::pin(grace::programs_ended().map(move |()| epoch)));
        }
    }

    /// What was planned and what the kernel holds are no longer the same: look again, after a while.
    fn refused(&mut self, refused: bpf::ApplyError) -> Result<(), Error> {
        self.settings.status.send_modify(|status| {
            status.failures += 1;
            status.kube_proxy.failed();
        });
        if self.settings.once {
            return Err(refused.into());
        }
        error!(
            error = &refused as &dyn StdError,
            again_in = ?self.again_wait,
            "the kernel refused a step"
        );
        self.again = Some(Instant::now() + self.again_wait);
        self.again_wait = (self.again_wait * 2).min(AGAIN_MAX);
        Ok(())
    }

    fn start_over(&mut self) -> Result<(), Error> {
        let read = self.datapath.observe();
        match read
            .map_err(Error::from)
            .and_then(|kernel| Ok((kernel, named(&self.datapath)?)))
        {
            Ok((kernel, named)) => {
                self.balancer.start_over(&kernel, self.capacities, named);
                self.again = None;
                self.blocked = false;
                self.grace = None;
                self.cooling.clear();
                self.program(Instant::now())
            }
            Err(error) => {
                error!(
                    error = &error as &dyn StdError,
                    "cannot read the tables back"
                );
                self.again = Some(Instant::now() + self.again_wait);
                Ok(())
            }
        }
    }

    /// Says whether it may concern Services.
    async fn look_after(&mut self, due: &Due) -> bool {
        let looked = self
            .attachments
            .look_after(due, &mut self.datapath, &self.settings)
            .await;
        if let Err(error) = looked {
            warn!(
                error = &error as &dyn StdError,
                "cannot follow a change of the host"
            );
        }
        if let Some(policies) = &self.policies {
            policies.tell(self.attachments.whereabouts());
        }
        if due.concerns_ways() && self.settings.load_balancing != Mode::Snat {
            self.ways_due
                .get_or_insert_with(|| Instant::now() + ways::WAIT);
        }
        if !due.concerns_devices() {
            return false;
        }
        let given = self.attachments.addresses().to_vec();
        self.balancer.services_mut().set_given_addresses(given);
        self.tell_devices();
        true
    }

    /// Tells the programs which addresses they may translate sources to.
    fn set_node(&mut self) {
        let mut node = NodeConfig {
            snat_port_min: (*abi::config::SNAT_PORTS.start()).into(),
            snat_port_max: (*abi::config::SNAT_PORTS.end()).into(),
            ..NodeConfig::default()
        };
        let addresses = &self.balancer.services().this_node().addresses;
        for addr in addresses.iter().rev() {
            match addr {
                std::net::IpAddr::V4(v4) => node.addr4 = v4.octets(),
                std::net::IpAddr::V6(v6) => node.addr6 = v6.octets(),
            }
        }
        if self.node == Some(node) {
            return;
        }
        match self.datapath.set_node(&node) {
            Ok(()) => self.node = Some(node),
            Err(error) => error!(error = &error as &dyn StdError, "cannot tell of this node"),
        }
    }

    fn fold(&mut self, input: Input) {
        self.nodes_moved |= input.fold(self.balancer.services_mut(), &mut self.nodes);
    }

    /// Says who may have how many flows.
    fn set_bounds(&mut self) {
        let services = self.balancer.planner().bounded();
        let bounds = self.groups.bounds(services, self.settings.flow_limits);
        self.quotas.set(bounds);
    }

    /// Sees how far packets in packets get, where there are any.
    fn set_reach(&mut self) {
        let nodes = self.nodes.nodes();
        if let Some(reach) = nodes.and_then(|nodes| ways::look(nodes, &self.settings)) {
            self.balancer.set_reach(reach);
        }
    }

    /// Tells the programs which addresses are the cluster's own.
    fn set_members(&mut self) {
        let Some(nodes) = self.nodes.nodes().filter(|_| self.nodes_moved) else {
            return;
        };
        let wanted = members::members(nodes, &self.settings.node_name);
        match self.datapath.set_members(&wanted) {
            Ok(changed) => {
                debug!(changed, "knows the cluster's addresses");
                self.nodes_moved = false;
            }
            Err(error) => error!(
                error = &error as &dyn StdError,
                "cannot tell of the cluster's addresses"
            ),
        }
    }
}

/// What flows still name.
fn named(datapath: &Datapath) -> Result<Named, Error> {
    let mut named = Named::default();
    datapath.walk_flows(|flows| {
        for flow in flows {
            let (service, backend) = match flow {
                Flow::V4(_, state) => (state.service, state.backend),
                Flow::V6(_, state) => (state.service, state.backend),
            };
            named.service = named.service.max(service);
            named.backend = named.backend.max(backend);
        }
        true
    })?;
    Ok(named)
}
