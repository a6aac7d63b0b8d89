//! From policies, pods and links to the steps that make the kernel hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::policy::held;
use abi::policy::{CGROUP_LINK, FIRST_ID, NODE, flags};
use abi::{PolicyControl, PolicyHeld, PolicyHeldKey, PolicyLink, PolicyLinkKey};
use model::policy::{Direction, Pod, PodKey, PolicyKey, Tier, World};

use super::compile::{self, Assigned, Ids, Wanted};
use super::sets::SetKey;
use super::{PolicyLimits, PolicyProblem, PolicyStep, PolicyTables};

/// How long conversations that are older than the policies of their pod are taken over, in seconds: longer than TCP
/// waits before it sends again.
pub const ADOPT_SECS: u32 = 60;

/// Clauses that nobody uses any more, beyond as many as are in use, before an epoch ends for their sake.
const UNUSED_MAX: usize = 64;

/// What is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Policies, pods and namespaces.
    pub world: &'a World,
    /// Where addresses of this node's pods are: the index of the host's side of the link.
    pub links: &'a BTreeMap<IpAddr, u32>,
    /// The numbers that stand for the links of pods of this node that use the node's network.
    pub host_links: &'a BTreeMap<PodKey, u32>,
    /// Links where nothing is judged.
    pub open: &'a BTreeSet<u32>,
    /// This node's own addresses.
    pub node: &'a [IpAddr],
    /// Seconds of `CLOCK_MONOTONIC`.
    pub now_secs: u32,
    /// Seconds since 1970.
    pub unix_secs: u64,
}

/// What is to be done, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyPlan {
    /// In this order.
    pub steps: Vec<PolicyStep>,
    /// All that is wrong now.
    pub problems: BTreeSet<PolicyProblem>,
    /// Pods of this node that a policy selects, with their links.
    pub selected: usize,
}

/// Remembers what the kernel holds and what the numbers there stand for.
#[derive(Debug)]
pub struct PolicyPlanner {
    told: PolicyTables,
    limits: PolicyLimits,
    ids: Ids,
    /// Policies in use, as they were written.
    used: BTreeMap<PolicyKey, u64>,
    /// Sets that links have.
    sets: BTreeSet<SetKey>,
    /// The last plan still knew sets that no link has any more.
    lingers: bool,
    /// Nothing is known yet of what the numbers in the kernel stand for.
    fresh: bool,
    /// What should be there; the rest of what is told may go.
    wanted: PolicyTables,
}

impl PolicyPlanner {
    /// Starts from what the kernel holds.
    #[must_use]
    pub fn new(told: PolicyTables, limits: PolicyLimits) -> Self {
        let used = told
            .peers
            .values()
            .map(|identity| identity & !NODE)
            .chain(
                told.verdicts
                    .iter()
                    .flat_map(|(key, profile)| [key.set, key.identity, *profile]),
            )
            .chain(told.ports.keys().map(|key| key.profile))
            .chain(
                told.links
                    .values()
                    .flat_map(|link| [link.ingress, link.egress]),
            )
            .max();
        PolicyPlanner {
            ids: Ids::above(used.unwrap_or(FIRST_ID)),
            wanted: told.clone(),
            told,
            limits,
            used: BTreeMap::new(),
            sets: BTreeSet::new(),
            lingers: false,
            fresh: true,
        }
    }

    /// What the kernel holds, if every step was carried out.
    #[must_use]
    pub fn told(&self) -> &PolicyTables {
        &self.told
    }

    /// Whether the last plan kept what sets mean that no link has any more, since programs that began before it may
    /// ask for them. Their room is had back by planning once more, after the garbage.
    #[must_use]
    pub fn lingers(&self) -> bool {
        self.lingers
    }

    /// Decides.
    pub fn plan(&mut self, inputs: &Inputs<'_>) -> PolicyPlan {
        let before = self.told.control;
        if inputs.world.policies.is_empty() {
            self.sets.clear();
            self.lingers = false;
            self.used.clear();
            self.fresh = true;
            self.wanted = PolicyTables::default();
            let control = PolicyControl {
                flags: 0,
                generation: next(before.generation),
                ..before
            };
            let was_on = before.flags != 0;
            return self.done(was_on.then_some(control), BTreeSet::new(), 0);
        }
        let owners = owners(inputs.world);
        let pods = Pods::of(inputs, &owners);
        let sets: BTreeSet<SetKey> = pods.links.values().flatten().flatten().cloned().collect();
        let policies = sets.iter().flat_map(|set| &set.policies);
        let used: BTreeMap<PolicyKey, u64> = policies
            .filter_map(|key| Some((key.clone(), inputs.world.policies.get(key)?.mark)))
            .collect();
        let changed = self.used.iter().any(|(key, mark)| {
            inputs.world.policies.get(key).map(|policy| policy.mark) != Some(*mark)
        });
        let unused = self.ids.clauses() > 2 * clauses(inputs.world, &sets) + UNUSED_MAX;
        let flip = self.fresh || changed || unused;
        let epoch = if flip {
            next(before.epoch)
        } else {
            before.epoch
        };
        let nothing = BTreeSet::new();
        let lingering = if flip { &nothing } else { &self.sets };
        self.lingers = !lingering.is_subset(&sets);
        if flip {
            self.ids.begin_epoch();
        }
        let compiled = compile::compile(
            &mut self.ids,
            &Wanted {
                world: inputs.world,
                owners: &owners,
                node: inputs.node,
                epoch,
                sets: &sets,
                lingering,
                limits: PolicyLimits {
                    links: self.limits.links / 2,
                    peers: self.limits.peers / 2,
                    verdicts: self.limits.verdicts / 2,
                    ports: self.limits.ports / 2,
                },
            },
        );
        let control = PolicyControl {
            flags: flags::ENFORCED | flags::UNKNOWN_CLOSED,
            epoch,
            generation: next(before.generation),
            _pad: 0,
        };
        let mut links = BTreeMap::new();
        // A link that finds no room is as one of which nothing is known: closed.
        for (ifindex, wants) in pods.links.iter().take(self.limits.links / 2) {
            let assigned = wants
                .clone()
                .map(|set| assigned(set.as_ref(), &compiled.sets));
            let link = self.link(*ifindex, assigned, inputs.now_secs);
            let key = PolicyLinkKey {
                ifindex: *ifindex,
                epoch,
            };
            links.insert(key, link);
        }
        for ifindex in inputs.open {
            let key = PolicyLinkKey {
                ifindex: *ifindex,
                epoch,
            };
            links.entry(key).or_insert(PolicyLink::default());
        }
        let held = self.held(inputs, &pods, &compiled.closed);
        let problems = compiled
            .closed
            .iter()
            .flat_map(|(set, table)| {
                let policies = set.policies.iter().cloned();
                policies.map(|policy| PolicyProblem { policy, table })
            })
            .collect();
        self.wanted = PolicyTables {
            control,
            links,
            peers: compiled.peers,
            verdicts: compiled.verdicts,
            ports: compiled.ports,
            held,
        };
        self.used.extend(used);
        if flip {
            self.used
                .retain(|key, _| sets.iter().any(|set| set.policies.contains(key)));
        }
        self.sets = sets;
        self.fresh = false;
        let selected = pods
            .links
            .values()
            .filter(|wants| wants.iter().any(Option::is_some));
        let selected = selected.count();
        self.done(Some(control), problems, selected)
    }

    /// What nothing leads to any more. May be carried out once no program runs that began before the last plan was.
    pub fn garbage(&mut self) -> Vec<PolicyStep> {
        let mut steps = Vec::new();
        let (told, wanted) = (&self.told, &self.wanted);
        steps.extend(gone(&told.links, &wanted.links, PolicyStep::RemoveLink));
        steps.extend(gone(&told.peers, &wanted.peers, PolicyStep::RemovePeer));
        steps.extend(gone(
            &told.verdicts,
            &wanted.verdicts,
            PolicyStep::RemoveVerdict,
        ));
        steps.extend(gone(&told.ports, &wanted.ports, PolicyStep::RemovePort));
        self.tell(&steps);
        steps
    }

    /// The steps from what is told to what is wanted, without what may go later.
    fn done(
        &mut self,
        control: Option<PolicyControl>,
        problems: BTreeSet<PolicyProblem>,
        selected: usize,
    ) -> PolicyPlan {
        let mut steps = Vec::new();
        let (told, wanted) = (&self.told, &self.wanted);
        steps.extend(new(&told.ports, &wanted.ports, |key, _| {
            PolicyStep::PutPort(key)
        }));
        steps.extend(new(
            &told.verdicts,
            &wanted.verdicts,
            PolicyStep::PutVerdict,
        ));
        steps.extend(new(&told.peers, &wanted.peers, PolicyStep::PutPeer));
        // Addresses that mean nothing any more mean what is around them.
        let here = |steps: &mut Vec<PolicyStep>| {
            let epoch = wanted.control.epoch;
            let peers = gone(&told.peers, &wanted.peers, PolicyStep::RemovePeer);
            steps.extend(peers.filter(|step| match step {
                PolicyStep::RemovePeer(key) => key.epoch == epoch,
                _ => false,
            }));
        };
        here(&mut steps);
        steps.extend(new(&told.links, &wanted.links, PolicyStep::PutLink));
        let links = gone(&told.links, &wanted.links, PolicyStep::RemoveLink);
        steps.extend(links.filter(|step| match step {
            PolicyStep::RemoveLink(key) => key.epoch == wanted.control.epoch,
            _ => false,
        }));
        let told_control = told.control;
        if let Some(control) = control
            && (!steps.is_empty()
                || control.flags != told_control.flags
                || control.epoch != told_control.epoch)
        {
            steps.push(PolicyStep::Control(control));
        }
        steps.extend(new(&told.held, &wanted.held, PolicyStep::PutHeld));
        steps.extend(gone(&told.held, &wanted.held, PolicyStep::RemoveHeld));
        self.tell(&steps);
        PolicyPlan {
            steps,
            problems,
            selected,
        }
    }

    fn tell(&mut self, steps: &[PolicyStep]) {
        for step in steps {
            self.told.apply(step);
        }
    }

    fn link(&self, ifindex: u32, assigned: [Assigned; 2], now_secs: u32) -> PolicyLink {
        let [(ingress, ingress_default), (egress, egress_default)] = assigned;
        let control = self.told.control;
        let key = PolicyLinkKey {
            ifindex,
            epoch: control.epoch,
        };
        let on = control.flags & flags::ENFORCED != 0;
        let adopt_until_secs = match self.told.links.get(&key) {
            _ if ingress == 0 && egress == 0 => 0,
            Some(link) if on && (link.ingress != 0 || link.egress != 0) => link.adopt_until_secs,
            // A pod that comes while policies hold has said nothing before, where its link came before it.
            None if on && ifindex & CGROUP_LINK == 0 => 0,
            Some(_) | None => now_secs.saturating_add(ADOPT_SECS),
        };
        PolicyLink {
            ingress,
            ingress_default,
            egress,
            egress_default,
            adopt_until_secs,
        }
    }

    fn held(
        &self,
        inputs: &Inputs<'_>,
        pods: &Pods,
        closed: &BTreeMap<SetKey, &'static str>,
    ) -> BTreeMap<PolicyHeldKey, PolicyHeld> {
        let mut rows: BTreeMap<PolicyHeldKey, PolicyHeld> = BTreeMap::new();
        for (ifindex, wants) in pods.links.iter().take(self.limits.links / 2) {
            for set in wants.iter().flatten() {
                let no_room = if closed.contains_key(set) {
                    held::NO_ROOM
                } else {
                    0
                };
                for key in &set.policies {
                    let Some(policy) = inputs.world.policies.get(key) else {
                        continue;
                    };
                    let altered = inputs.world.altered.contains(key);
                    let closed = no_room | if altered { held::ALTERED } else { 0 };
                    let key = PolicyHeldKey {
                        policy: halves(policy.mark),
                        ifindex: *ifindex,
                    };
                    let since_secs = match self.told.held.get(&key) {
                        Some(before) if before.closed == closed => before.since_secs,
                        Some(_) | None => halves(inputs.unix_secs),
                    };
                    let row = rows.entry(key).or_insert(PolicyHeld { since_secs, closed });
                    row.closed |= closed;
                }
            }
        }
        while rows.len() > abi::policy::HELD_CAPACITY as usize {
            rows.pop_last();
        }
        rows
    }
}

fn assigned(set: Option<&SetKey>, sets: &BTreeMap<SetKey, Assigned>) -> Assigned {
    match set {
        None => (0, abi::policy::ACCEPT),
        Some(set) => sets
            .get(set)
            .copied()
            .unwrap_or((abi::policy::CLOSED, abi::policy::REFUSE)),
    }
}

/// A number in two halves, the lower first.
#[must_use]
pub fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

fn next(number: u32) -> u32 {
    number.checked_add(1).unwrap_or(1)
}

fn new<'a, K: Ord + Copy, V: PartialEq + Copy, S: 'a>(
    told: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, V>,
    step: impl Fn(K, V) -> S + 'a,
) -> impl Iterator<Item = S> + 'a {
    let differs = |(key, value): &(&K, &V)| told.get(key) != Some(*value);
    wanted
        .iter()
        .filter(differs)
        .map(move |(key, value)| step(*key, *value))
}

fn gone<'a, K: Ord + Copy, V, S: 'a>(
    told: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, V>,
    step: impl Fn(K) -> S + 'a,
) -> impl Iterator<Item = S> + 'a {
    let keys = told.keys().filter(|key| !wanted.contains_key(key));
    keys.map(move |key| step(*key))
}

/// How many rules the policies of some sets have.
fn clauses(world: &World, sets: &BTreeSet<SetKey>) -> usize {
    let used: BTreeSet<(&PolicyKey, Direction)> = sets
        .iter()
        .flat_map(|set| set.policies.iter().map(|policy| (policy, set.direction)))
        .collect();
    used.iter()
        .filter_map(|(key, direction)| world.policies.get(key)?.rules(*direction))
        .map(<[_]>::len)
        .sum()
}

/// Which pod has an address: of several, the youngest.
fn owners(world: &World) -> BTreeMap<IpAddr, &PodKey> {
    let mut owners: BTreeMap<IpAddr, (u64, &PodKey)> = BTreeMap::new();
    for (key, pod) in &world.pods {
        for addr in &pod.addresses {
            let owner = owners.entry(*addr).or_insert((pod.created, key));
            if owner.0 < pod.created {
                *owner = (pod.created, key);
            }
        }
    }
    owners
        .into_iter()
        .map(|(addr, (_, key))| (addr, key))
        .collect()
}

/// This node's pods whose links are known.
struct Pods {
    /// By index: the sets of ingress and egress.
    links: BTreeMap<u32, [Option<SetKey>; 2]>,
}

impl Pods {
    fn of(inputs: &Inputs<'_>, owners: &BTreeMap<IpAddr, &PodKey>) -> Pods {
        let world = inputs.world;
        let mut behind: BTreeMap<u32, BTreeSet<&PodKey>> = BTreeMap::new();
        for (addr, ifindex) in inputs.links {
            if let Some(key) = owners.get(addr)
                && world.pods.get(*key).is_some_and(|pod| pod.local)
            {
                behind.entry(*ifindex).or_default().insert(key);
            }
        }
        let mut anywhere = Vec::new();
        let mut within: BTreeMap<&str, Vec<&PolicyKey>> = BTreeMap::new();
        for (key, policy) in &world.policies {
            match (&policy.tier, key) {
                (Tier::Namespace, PolicyKey::Namespaced(namespace, _)) => {
                    within.entry(namespace).or_default().push(key);
                }
                _ => anywhere.push(key),
            }
        }
        let sets = |key: &PodKey, pod: &Pod| {
            let own = within.get(&*key.namespace).into_iter().flatten();
            let selecting: Vec<&PolicyKey> = anywhere
                .iter()
                .chain(own)
                .filter(|policy| {
                    let policy = world.policies.get(**policy);
                    policy.is_some_and(|policy| world.selects(policy, key, pod))
                })
                .copied()
                .collect();
            Direction::BOTH.map(|direction| SetKey::of(world, pod, &selecting, direction))
        };
        let mut links = BTreeMap::new();
        for (ifindex, pods) in behind {
            // Whoever shares a link cannot be told apart on it: it is one for which nothing is known.
            let mut pods = pods.into_iter();
            let (Some(key), None) = (pods.next(), pods.next()) else {
                continue;
            };
            let Some(pod) = world.pods.get(key) else {
                continue;
            };
            links.insert(ifindex, sets(key, pod));
        }
        for (key, link) in inputs.host_links {
            if let Some(host) = world.host_pods.get(key) {
                links.insert(*link, sets(key, &host.pod));
            }
        }
        Pods { links }
    }
}
