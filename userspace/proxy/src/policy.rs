//! NetworkPolicy and ClusterNetworkPolicy: what watches say and where pods are, to what the kernel holds.
//!
//! A task of its own, beside the one that keeps Services: neither waits for the other. Pods and Namespaces are watched
//! only once there is a policy; until then the kernel looks at none.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bpf::PolicyTable;
use client::{Client, Params, Path};
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt as _, StreamExt as _};
use model::policy::{Pod, PodKey, PolicyKey, World};
use plan::policy::{Inputs, PolicyLimits, PolicyPlan, PolicyPlanner, PolicyProblem};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};
use view::{Event, Policies, objects};

use crate::events::{About, Events};
use crate::host_pods::HostPods;
use crate::status::Status;
use crate::{Error, Settings, Trouble, grace};

/// Where pods of this node are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// Links by address.
    pub(crate) pods: BTreeMap<IpAddr, u32>,
    /// Links behind which pods cannot be told apart by the host's routes: ports of a bridge. No policy holds there.
    pub(crate) bridged: BTreeSet<u32>,
    /// The node's own addresses.
    pub(crate) node: Vec<IpAddr>,
}

/// What is said of policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Whether everything was listed and what it means holds.
    pub ready: bool,
    /// Policies in the cluster.
    pub policies: usize,
    /// Pods of this node that one selects and that can be told by their links.
    pub pods: usize,
    /// Changes that were carried out.
    pub changes: u64,
    /// How often the kernel refused one; it was decided anew then.
    pub failures: u64,
    /// Seconds that the last change took to decide and to carry out.
    pub last_change_secs: f64,
    /// What is wrong, by policy. What is not named there holds.
    pub troubles: BTreeMap<String, Vec<String>>,
    /// Links behind a bridge, where no policy holds.
    pub unenforced_links: BTreeSet<u32>,
    /// Pods of this node that a policy selects and does not hold for, with the reason.
    pub unheld_pods: BTreeMap<String, String>,
}

/// Keeps the kernel's tables of policies right, until dropped. What they hold stays.
#[derive(Debug)]
pub(crate) struct PolicyTask {
    whereabouts: watch::Sender<Whereabouts>,
    task: JoinHandle<()>,
}

impl PolicyTask {
    pub(crate) fn start(
        client: &Client,
        settings: &Settings,
        table: PolicyTable,
        whereabouts: Whereabouts,
    ) -> Result<Self, Error> {
        let (whereabouts, heard) = watch::channel(whereabouts);
        let planner = PolicyPlanner::new(table.tables()?, PolicyLimits::default());
        let cgroups = match &settings.datapath.cgroup_root {
            Some(root) => root.clone(),
            None => net::cgroup2_mount().unwrap_or_else(|_| PathBuf::from("/sys/fs/cgroup")),
        };
        let host_pods = HostPods::new(&cgroups, table.cgroups())?;
        let keeper = Keeper {
            client: client.clone(),
            policies: Some(Policies::new(&settings.node_name)),
            planner: Some(planner),
            host_pods: Some(host_pods),
            table: Arc::new(table),
            whereabouts: heard,
            status: settings.status.clone(),
            events: Events::start(client.clone(), &settings.node_name, About::NetworkPolicy),
            cluster_events: Events::start(
                client.clone(),
                &settings.node_name,
                About::ClusterNetworkPolicy,
            ),
            told: BTreeMap::new(),
            inputs: SelectAll::new(),
            pods_asked: false,
            nodes_asked: false,
        };
        Ok(PolicyTask {
            whereabouts,
            task: tokio::spawn(keeper.run()),
        })
    }

    /// Pods may be elsewhere now.
    pub(crate) fn tell(&self, now: Whereabouts) {
        self.whereabouts.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                *before = now;
            }
            changed
        });
    }
}

/// Lets everything pass that an earlier process had judged.
pub(crate) fn switch_off(table: &PolicyTable) -> Result<(), bpf::Error> {
    let mut planner = PolicyPlanner::new(table.tables()?, PolicyLimits::default());
    let plan = planner.plan(&Inputs {
        world: &World::default(),
        links: &BTreeMap::new(),
        host_links: &BTreeMap::new(),
        open: &BTreeSet::new(),
        node: &[],
        now_secs: 0,
        unix_secs: 0,
    });
    table.apply(&plan.steps)?;
    for link in table.cgroups().pods()?.into_keys() {
        table.cgroups().release(link)?;
    }
    table.apply(&planner.garbage())
}

impl Drop for PolicyTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a watch said.
enum Input {
    NetworkPolicy(Event<objects::NetworkPolicy>),
    ClusterNetworkPolicy(Event<objects::ClusterNetworkPolicy>),
    Pod(Event<objects::Pod>),
    Namespace(Event<objects::Namespace>),
    Node(Event<objects::Node>),
}

impl Input {
    fn fold(self, policies: &mut Policies) {
        match self {
            Input::NetworkPolicy(event) => policies.network_policy(event),
            Input::ClusterNetworkPolicy(event) => policies.cluster_network_policy(event),
            Input::Pod(event) => policies.pod(event),
            Input::Namespace(event) => policies.namespace(event),
            Input::Node(event) => policies.node(event),
        }
    }
}

/// Events that are folded at most before what they mean is decided.
const BURST_MAX: usize = 4096;
/// Between two decisions at least; many changes of a moment are one.
const EVERY: Duration = Duration::from_millis(5);
/// Until then everything should have been listed.
const LISTED_BY: Duration = Duration::from_secs(5);
/// After the kernel refused something.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is asked whether ClusterNetworkPolicies are served, while they are not.
const ASK_SERVED: Duration = Duration::from_secs(30);
/// How often the cgroups of pods that use the node's network are looked for: those that are there, or have been missing
/// for long, and new ones.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_SOON: Duration = Duration::from_millis(50);
/// How long a pod is a new one: its cgroup is made when its node begins with it.
const SOON: Duration = Duration::from_secs(30);

struct Keeper {
    client: Client,
    /// `None` only while something is decided.
    policies: Option<Policies>,
    planner: Option<PolicyPlanner>,
    host_pods: Option<HostPods>,
    table: Arc<PolicyTable>,
    whereabouts: watch::Receiver<Whereabouts>,
    status: Arc<watch::Sender<Status>>,
    events: Events,
    cluster_events: Events,
    /// Troubles that Events were written of.
    told: BTreeMap<PolicyKey, Vec<Trouble>>,
    inputs: SelectAll<BoxStream<'static, Input>>,
    pods_asked: bool,
    nodes_asked: bool,
}

impl Keeper {
    async fn run(mut self) {
        let policies = self.client.watch(Params::default());
        self.inputs.push(policies.map(Input::NetworkPolicy).boxed());
        let mut ask_served = Some(Instant::now());
        let mut warn_at = Some(Instant::now() + LISTED_BY);
        let mut due: Option<Instant> = None;
        let mut look_at: Option<Instant> = None;
        let mut missing_since: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(input) = self.inputs.next() => {
                    let Some(policies) = &mut self.policies else { return };
                    input.fold(policies);
                    for _ in 1..BURST_MAX {
                        let Some(Some(input)) = self.inputs.next().now_or_never() else { break };
                        input.fold(policies);
                    }
                }
                changed = self.whereabouts.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    due = due.or(Some(Instant::now()));
                }
                () = sleep_until(ask_served.unwrap_or_else(Instant::now)), if ask_served.is_some() => {
                    ask_served = self.ask_served().await;
                }
                () = sleep_until(warn_at.unwrap_or_else(Instant::now)), if warn_at.is_some() => {
                    warn_at = None;
                    if self.policies.as_ref().is_some_and(|policies| !policies.synced()) {
                        warn!("policies are as they were: NetworkPolicies, Pods or Namespaces could not be listed yet; may this user list and watch them?");
                    }
                }
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    if self.look_for_pods() {
                        due = due.or(Some(Instant::now()));
                    }
                    look_at = self.look_next(&mut missing_since);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let started = Instant::now();
                    due = match self.decide().await {
                        Ok(again) => again.then(Instant::now),
                        Err(error) => {
                            error!(error = &*error, "policies are as they were: the kernel refused a step");
                            self.status.send_modify(|status| status.policies.failures += 1);
                            let tables = self.table.tables();
                            if let Ok(tables) = tables {
                                self.planner = Some(PolicyPlanner::new(tables, PolicyLimits::default()));
                            }
                            Some(started + AGAIN)
                        }
                    };
                    look_at = self.look_next(&mut missing_since);
                    tokio::time::sleep(EVERY.max(started.elapsed())).await;
                    continue;
                }
            }
            let Some(policies) = &mut self.policies else {
                return;
            };
            if policies.asks_for_pods() && !self.pods_asked {
                self.pods_asked = true;
                let pods = self.client.watch(Params::default());
                self.inputs.push(pods.map(Input::Pod).boxed());
                let namespaces = self.client.watch(Params::default());
                self.inputs.push(namespaces.map(Input::Namespace).boxed());
            }
            if policies.asks_for_nodes() && !self.nodes_asked {
                self.nodes_asked = true;
                let nodes = self.client.watch(Params::default());
                self.inputs.push(nodes.map(Input::Node).boxed());
            }
            if policies.take_changed() {
                due = due.or(Some(Instant::now()));
            }
        }
    }

    /// Follows ClusterNetworkPolicies where they are served; says when to ask again.
    async fn ask_served(&mut self) -> Option<Instant> {
        let path = Path::raw("/apis/policy.networking.k8s.io/v1alpha2");
        let served = match self.client.get::<serde_json::Value>(&path).await {
            Ok(resources) => resources["resources"].as_array().is_some_and(|all| {
                all.iter()
                    .any(|one| one["name"] == "clusternetworkpolicies")
            }),
            Err(error) if error.is_not_found() => false,
            Err(error) => {
                debug!(
                    error = &error as &dyn StdError,
                    "cannot ask for ClusterNetworkPolicies"
                );
                return Some(Instant::now() + AGAIN);
            }
        };
        if let Some(policies) = &mut self.policies {
            policies.serves_cluster_policies(served);
        }
        if !served {
            return Some(Instant::now() + ASK_SERVED);
        }
        let policies = self.client.watch(Params::default());
        self.inputs
            .push(policies.map(Input::ClusterNetworkPolicy).boxed());
        None
    }

    /// Looks for the cgroups of pods that use the node's network; says whether there is something to decide.
    fn look_for_pods(&mut self) -> bool {
        let (Some(policies), Some(host_pods)) = (&self.policies, &mut self.host_pods) else {
            return false;
        };
        host_pods.look(&on_host(policies)) || host_pods.refuses()
    }

    /// When to look again. A pod that was just bound to this node gets its cgroup soon.
    fn look_next(&self, missing_since: &mut Option<Instant>) -> Option<Instant> {
        let host_pods = self.host_pods.as_ref().filter(|pods| !pods.is_empty())?;
        if !host_pods.misses() {
            *missing_since = None;
            return Some(Instant::now() + LOOK);
        }
        let since = *missing_since.get_or_insert_with(Instant::now);
        let wait = if since.elapsed() < SOON {
            LOOK_SOON
        } else {
            LOOK
        };
        Some(Instant::now() + wait)
    }

    /// Decides what should hold, and makes it so. Says whether to do it once more, for the room of what held before.
    async fn decide(&mut self) -> Result<bool, Box<dyn StdError + Send + Sync>> {
        let held = (
            self.policies.take(),
            self.planner.take(),
            self.host_pods.take(),
        );
        let (Some(policies), Some(mut planner), Some(mut host_pods)) = held else {
            return Err("something was decided twice at once".into());
        };
        if !policies.synced() {
            self.policies = Some(policies);
            self.planner = Some(planner);
            self.host_pods = Some(host_pods);
            return Ok(false);
        }
        let started = Instant::now();
        let whereabouts = self.whereabouts.borrow_and_update().clone();
        let table = self.table.clone();
        let (policies, planner, host_pods, plan) = spawn_blocking(move || {
            host_pods.look(&on_host(&policies));
            let released = host_pods.release(table.cgroups());
            let plan = planner.plan(&Inputs {
                world: policies.world(),
                links: &whereabouts.pods,
                host_links: &host_pods.links(),
                open: &whereabouts.bridged,
                node: &whereabouts.node,
                now_secs: bpf::now_secs(),
                unix_secs: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs()),
            });
            let applied = released.and_then(|()| table.apply(&plan.steps));
            if applied.is_ok() {
                host_pods.hold(table.cgroups());
            }
            (policies, planner, host_pods, applied.map(|()| plan))
        })
        .await?;
        let count = policies.world().policies.len();
        self.policies = Some(policies);
        self.planner = Some(planner);
        self.host_pods = Some(host_pods);
        let plan = plan?;
        let took = started.elapsed();
        if !plan.steps.is_empty() {
            info!(
                policies = count,
                pods = plan.selected,
                steps = plan.steps.len(),
                ?took,
                "policies hold"
            );
        }
        self.tell(&plan, count, took);
        if plan.steps.is_empty() {
            return Ok(self.planner.as_ref().is_some_and(PolicyPlanner::lingers));
        }
        grace::programs_ended().await;
        let Some(mut planner) = self.planner.take() else {
            return Ok(false);
        };
        let table = self.table.clone();
        let (planner, cleared) = spawn_blocking(move || {
            let steps = planner.garbage();
            let cleared = table.apply(&steps);
            (planner, cleared)
        })
        .await?;
        let lingers = planner.lingers();
        self.planner = Some(planner);
        cleared?;
        Ok(lingers)
    }

    /// Says what holds and what does not, in the status, the log and Events.
    fn tell(&mut self, plan: &PolicyPlan, count: usize, took: Duration) {
        let mut troubles: BTreeMap<PolicyKey, Vec<Trouble>> = BTreeMap::new();
        for problem in &plan.problems {
            let of_policy = troubles.entry(problem.policy.clone()).or_default();
            of_policy.push(Trouble::from(problem));
        }
        if let Some(policies) = &self.policies {
            for (key, findings) in policies.findings() {
                let of_policy = troubles.entry(key.clone()).or_default();
                of_policy.extend(findings.iter().map(|finding| Trouble {
                    reason: "PolicyLeftOut",
                    message: finding.clone(),
                }));
            }
        }
        let mut unheld_pods = BTreeMap::new();
        if let (Some(policies), Some(host_pods)) = (&self.policies, &self.host_pods) {
            for (key, policy) in &policies.world().policies {
                let unheld: Vec<(String, String)> = policies
                    .host_pods(policy)
                    .filter_map(|(pod, _)| Some((pod.to_string(), host_pods.trouble(pod)?)))
                    .collect();
                if !unheld.is_empty() {
                    let of_policy = troubles.entry(key.clone()).or_default();
                    of_policy.push(Trouble {
                        reason: "HostNetworkPods",
                        message: format!(
                            "it does not hold for pods of this node that use the node's network: {}",
                            listed(&unheld)
                        ),
                    });
                }
                unheld_pods.extend(unheld);
            }
        }
        if let Some(policies) = &self.policies {
            let whereabouts = self.whereabouts.borrow();
            for (key, unheld) in behind_bridges(policies.world(), &whereabouts) {
                troubles.entry(key).or_default().push(Trouble {
                    reason: "BridgedPods",
                    message: format!(
                        "it does not hold for pods of this node that no link of their own leads to, while links of pods are \
                         ports of a bridge: {}; give each pod a link that the host routes to, as fairlead-cni and ptp do",
                        listed(&unheld)
                    ),
                });
                unheld_pods.extend(unheld);
            }
        }
        let gone = self.told.keys().filter(|key| !troubles.contains_key(*key));
        let gone: Vec<PolicyKey> = gone.cloned().collect();
        for (key, now) in troubles
            .iter()
            .chain(gone.iter().map(|key| (key, const { &Vec::new() })))
        {
            if self.told.get(key) == Some(now) {
                continue;
            }
            for Trouble { reason, message } in now {
                warn!(policy = %key, reason, trouble = message, "does not hold as it is written");
            }
            let (events, namespace, name) = match key {
                PolicyKey::Namespaced(namespace, name) => (&self.events, &**namespace, name),
                PolicyKey::Cluster(name) => (&self.cluster_events, "", name),
            };
            events.tell(&model::ServiceKey::new(namespace, name), now);
        }
        let bridged = self.whereabouts.borrow().bridged.clone();
        self.status.send_modify(|status| {
            let of = &mut status.policies;
            of.ready = true;
            of.policies = count;
            of.pods = plan.selected;
            of.changes += u64::from(!plan.steps.is_empty());
            of.last_change_secs = took.as_secs_f64();
            of.unheld_pods = unheld_pods;
            of.unenforced_links = if count == 0 { BTreeSet::new() } else { bridged };
            of.troubles = troubles
                .iter()
                .map(|(key, all)| {
                    (
                        key.to_string(),
                        all.iter().map(ToString::to_string).collect(),
                    )
                })
                .collect();
        });
        self.told = troubles;
    }
}

/// Pods that are named at most where a policy does not hold for some.
const NAMED_MAX: usize = 5;

/// Pods, each with the reason, as many as are named.
fn listed(pods: &[(String, String)]) -> String {
    let named = pods[..pods.len().min(NAMED_MAX)].iter();
    let named: Vec<String> = named.map(|(pod, why)| format!("{pod} ({why})")).collect();
    let more = match pods.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
}

/// Pods of this node that a policy selects and that no link is known to lead to, where links are ports of a bridge: of those
/// the host's routes do not tell which pod is whose.
fn behind_bridges(
    world: &World,
    whereabouts: &Whereabouts,
) -> BTreeMap<PolicyKey, Vec<(String, String)>> {
    let mut found: BTreeMap<PolicyKey, Vec<(String, String)>> = BTreeMap::new();
    if whereabouts.bridged.is_empty() {
        return found;
    }
    let is_hidden = |pod: &Pod| {
        let known = |addr: &IpAddr| whereabouts.pods.contains_key(addr);
        pod.local && !pod.addresses.is_empty() && !pod.addresses.iter().any(known)
    };
    let hidden: Vec<(&PodKey, &Pod)> = world
        .pods
        .iter()
        .filter(|(_, pod)| is_hidden(pod))
        .collect();
    for (key, policy) in &world.policies {
        let unheld: Vec<(String, String)> = hidden
            .iter()
            .filter(|(pod_key, pod)| world.selects(policy, pod_key, pod))
            .map(|(pod_key, _)| (pod_key.to_string(), "behind a bridge".to_owned()))
            .collect();
        if !unheld.is_empty() {
            found.insert(key.clone(), unheld);
        }
    }
    found
}

/// The pods of this node that a policy selects and that use the node's network, with the identifiers that their cgroups
/// are named after.
fn on_host(policies: &Policies) -> BTreeMap<PodKey, String> {
    let all = policies.world().policies.values();
    let selected = all.flat_map(|policy| policies.host_pods(policy));
    selected
        .map(|(key, host)| (key.clone(), host.uid.clone()))
        .collect()
}

impl From<&PolicyProblem> for Trouble {
    fn from(problem: &PolicyProblem) -> Self {
        Trouble {
            reason: "PolicyTableFull",
            message: format!(
                "table {} has no room for it: the pods of this node that it selects are closed in its direction; select fewer peers or use fewer different policies on one node",
                problem.table
            ),
        }
    }
}
