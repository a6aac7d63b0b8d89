//! What the programs hang on: the devices that were named, and the links of pods as they come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bpf::{Datapath, DeviceReport};
use net::{Change, Link, Links};
use tracing::{debug, info, warn};

use crate::pods::Pods;
use crate::policy::Whereabouts;
use crate::routing::Routing;
use crate::{Error, Settings};

/// Keeps the programs attached.
#[derive(Debug)]
pub(crate) struct Attachments {
    links: Links,
    /// By index.
    attached: BTreeMap<u32, DeviceReport>,
    /// Addresses of the named devices.
    addresses: Vec<IpAddr>,
    /// Addresses of every link: the node's own.
    own: Vec<IpAddr>,
    pods: Pods,
    /// Links where classifiers may see packets that TCX does not tell of.
    classified: BTreeSet<u32>,
    neighbours_kept: Instant,
    routing: Routing,
}

/// How often neighbours that packets go straight to are said to be in use. The kernel confirms an entry for half a
/// minute, more or less.
const KEEP_NEIGHBOURS_EVERY: Duration = Duration::from_secs(15);

/// Something to look after.
#[derive(Debug)]
pub(crate) enum Due {
    /// The links changed.
    Change(Change),
    /// The way that packets take may be another.
    Routing,
}

impl Due {
    /// Whether devices or their addresses may be others now.
    pub(crate) fn concerns_devices(&self) -> bool {
        match self {
            Due::Change(
                Change::Link(_) | Change::Gone { .. } | Change::Addresses { .. } | Change::Missed,
            ) => true,
            Due::Change(
                Change::Route { .. }
                | Change::RouteGone(_)
                | Change::Routes
                | Change::Neighbour(_)
                | Change::Rules,
            )
            | Due::Routing => false,
        }
    }

    /// Whether packets for other nodes may go by other devices now.
    pub(crate) fn concerns_ways(&self) -> bool {
        let is_route = matches!(
            self,
            Due::Change(Change::Route { .. } | Change::RouteGone(_) | Change::Routes)
        );
        is_route || self.concerns_devices()
    }
}

impl Attachments {
    /// Attaches to what is there and detaches from what an earlier process attached to and nobody asks for now.
    pub(crate) async fn new(datapath: &mut Datapath, settings: &Settings) -> Result<Self, Error> {
        let links = Links::open()?;
        // Before the links are listed: what a CNI plugin attaches to a link that it makes meanwhile stays.
        let before = datapath.attached()?;
        let list = links.list().await?;
        let mut attachments = Attachments {
            links,
            attached: BTreeMap::new(),
            addresses: Vec::new(),
            own: Vec::new(),
            pods: Pods::new(datapath.endpoints()?),
            classified: BTreeSet::new(),
            neighbours_kept: Instant::now(),
            routing: Routing::new(settings.host_routing),
        };
        for name in &settings.devices {
            match datapath.attach_device(name, settings.xdp) {
                Ok(report) => attachments.keep(report),
                Err(error) => {
                    // A start that fails leaves no device behind that was not attached to before it.
                    for ifindex in datapath.attached()?.difference(&before) {
                        datapath.detach(*ifindex)?;
                    }
                    return Err(error.into());
                }
            }
        }
        for link in &list {
            attachments.consider(link, datapath, settings);
        }
        for ifindex in &before {
            if !attachments.attached.contains_key(ifindex) {
                datapath.detach(*ifindex)?;
            }
        }
        attachments.set_addresses(&list, settings);
        attachments.list_pods(&list, datapath).await?;
        attachments.read_rules().await;
        attachments.look(datapath)?;
        Ok(attachments)
    }

    /// Waits for the next thing to look after.
    pub(crate) async fn next(&mut self) -> Due {
        let change = async {
            match self.links.next().await {
                Some(change) => change,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = change => Due::Change(change),
            () = self.routing.due() => Due::Routing,
        }
    }

    /// Looks after it.
    pub(crate) async fn look_after(
        &mut self,
        due: &Due,
        datapath: &mut Datapath,
        settings: &Settings,
    ) -> Result<(), Error> {
        match due {
            Due::Change(change) => self.follow(change, datapath, settings).await?,
            Due::Routing => {
                self.pods
                    .recheck(|ifindex| datapath.egress_is_ours(ifindex));
                self.keep_neighbours();
                self.look(datapath)?;
            }
        }
        self.tell_pods(datapath);
        Ok(())
    }

    /// Attaches and detaches after a change, and learns where pods are.
    async fn follow(
        &mut self,
        change: &Change,
        datapath: &mut Datapath,
        settings: &Settings,
    ) -> Result<(), Error> {
        match change {
            Change::Link(link) => {
                self.consider(link, datapath, settings);
                self.learn(link, datapath);
            }
            Change::Gone { ifindex, name } => {
                self.pods.link_gone(*ifindex);
                if self.attached.remove(ifindex).is_some() {
                    info!(device = name, ifindex, "gone");
                    datapath.detach(*ifindex)?;
                }
            }
            Change::Addresses { ifindex } => {
                let report = self.attached.get(ifindex);
                let named = report.is_some_and(|report| settings.devices.contains(&report.device));
                if named || settings.network_policy {
                    let list = self.links.list().await?;
                    self.set_addresses(&list, settings);
                }
            }
            Change::Missed => {
                let list = self.links.list().await?;
                for link in &list {
                    self.consider(link, datapath, settings);
                }
                self.attached.retain(|ifindex, _| {
                    let there = list.iter().any(|link| link.ifindex == *ifindex);
                    there || datapath.detach(*ifindex).is_err()
                });
                self.set_addresses(&list, settings);
                self.pods.start_over();
                self.list_pods(&list, datapath).await?;
                self.read_rules().await;
                self.look(datapath)?;
            }
            Change::Route { route, replaces } => self.pods.route(*route, *replaces),
            Change::RouteGone(route) => self.pods.route_gone(*route),
            Change::Routes => {}
            Change::Neighbour(neighbour) => self.pods.neighbour(*neighbour),
            Change::Rules => {
                self.read_rules().await;
                self.look(datapath)?;
            }
        }
        Ok(())
    }

    /// Learns of every pod anew.
    async fn list_pods(&mut self, list: &[Link], datapath: &mut Datapath) -> Result<(), Error> {
        for link in list {
            self.learn(link, datapath);
        }
        for route in self.links.host_routes().await? {
            self.pods.route(route, false);
        }
        for neighbour in self.links.neighbours().await? {
            self.pods.neighbour(neighbour);
        }
        self.classified = self.links.classified().await?;
        self.tell_pods(datapath);
        Ok(())
    }

    /// Decides anew which way packets take.
    fn look(&mut self, datapath: &mut Datapath) -> Result<(), Error> {
        let foreign = self.attached.iter().find(|(ifindex, _)| {
            datapath.uses_tcx() && self.classified.contains(ifindex)
                || !datapath.ingress_is_ours(**ifindex)
        });
        self.routing
            .set_foreign(foreign.map(|(_, report)| report.device.clone()));
        self.routing.look(datapath)
    }

    /// The kernel looks after neighbours that it sends to. It does not see what goes straight to pods, so it is told
    /// now and then that they are in use: a pod that changes its Ethernet address is found again.
    fn keep_neighbours(&mut self) {
        if self.neighbours_kept.elapsed() < KEEP_NEIGHBOURS_EVERY {
            return;
        }
        self.neighbours_kept = Instant::now();
        for (ifindex, addr) in self.pods.neighbours() {
            let request = self.links.use_neighbour(ifindex, addr);
            tokio::spawn(async move {
                if let Err(error) = request.await {
                    // Gone meanwhile, most likely; the kernel tells of that.
                    debug!(%addr, ifindex, error = &error as &dyn std::error::Error, "neighbour");
                }
            });
        }
    }

    /// Takes note of a pod's link.
    fn learn(&mut self, link: &Link, datapath: &Datapath) {
        let attached = self.attached.contains_key(&link.ifindex);
        if attached && link.leads_to_pod() {
            self.pods.link(link, datapath.egress_is_ours(link.ifindex));
        }
    }

    /// Tells the kernel where pods are. One that finds no room is reached through the stack.
    fn tell_pods(&mut self, datapath: &mut Datapath) {
        for (addr, endpoint) in self.pods.news() {
            if let Err(error) = datapath.set_endpoint(addr, endpoint) {
                self.pods.refused(addr);
                let error = &error as &dyn std::error::Error;
                warn!(%addr, error, "packets for this pod go through the stack");
            }
        }
    }

    async fn read_rules(&mut self) {
        let mut rules = [None, None];
        for (v6, rules) in [false, true].into_iter().zip(&mut rules) {
            match self.links.is_routed_by_more(v6).await {
                Ok(has) => *rules = Some(has),
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    v6, "the stack routes"
                ),
            }
        }
        self.routing.set_rules(rules);
    }

    fn set_addresses(&mut self, list: &[Link], settings: &Settings) {
        self.addresses = addresses(list, settings);
        let own = list.iter().flat_map(|link| &link.addresses);
        self.own = own.map(|address| address.addr).collect();
        self.own.sort_unstable();
        self.own.dedup();
    }

    /// Where pods of this node are, as policies need to know it.
    pub(crate) fn whereabouts(&self) -> Whereabouts {
        Whereabouts {
            pods: self.pods.links(),
            bridged: self.pods.enslaved(),
            node: self.own.clone(),
        }
    }

    /// What is attached, by index.
    pub(crate) fn reports(&self) -> &BTreeMap<u32, DeviceReport> {
        &self.attached
    }

    /// Addresses that clients may use: of the named devices, of loopback and of dummies.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Attaches to a link if it is asked for and not attached to yet. One that fails is tried again when it
    /// changes.
    fn consider(&mut self, link: &Link, datapath: &mut Datapath, settings: &Settings) {
        if self.attached.contains_key(&link.ifindex) {
            return;
        }
        let attached = if settings.devices.contains(&link.name) {
            datapath.attach_device(&link.name, settings.xdp)
        } else if settings.pod_links && link.leads_to_pod() {
            datapath.attach_pod(link.ifindex)
        } else {
            return;
        };
        match attached {
            Ok(report) => self.keep(report),
            Err(error) => warn!(
                device = link.name,
                error = &error as &dyn std::error::Error,
                "cannot attach"
            ),
        }
    }

    fn keep(&mut self, report: DeviceReport) {
        info!(device = report.device, ifindex = report.ifindex, xdp = %report.xdp, "attached");
        if let Some(reason) = &report.native_refused {
            info!(
                device = report.device,
                reason, "native XDP is not possible there"
            );
        }
        self.attached.insert(report.ifindex, report);
    }
}

fn addresses(list: &[Link], settings: &Settings) -> Vec<IpAddr> {
    // What comes for an address that no link is the way to (of a host that speaks BGP) arrives by any of them. kube-proxy
    // has a dummy for the services' own addresses.
    let is_nowhere = |link: &&Link| {
        link.loopback || link.kind.as_deref() == Some("dummy") && link.name != "kube-ipvs0"
    };
    let is_named = |link: &&Link| settings.devices.contains(&link.name);
    let named = list.iter().filter(is_named);
    let all = named
        .chain(
            list.iter()
                .filter(is_nowhere)
                .filter(|link| !is_named(link)),
        )
        .flat_map(|link| &link.addresses)
        .map(|address| address.addr);
    let usable = |addr: &IpAddr| match addr {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    all.filter(usable).collect()
}
