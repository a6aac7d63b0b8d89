//! What the kernel should hold of policies in an epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::policy::{ACCEPT, CLOSED, FIRST_ID, NOBODY, NODE, REFUSE};
use abi::{PolicyPeerKey, PolicyPortKey, PolicyVerdictKey};
use model::Range;
use model::policy::{
    Direction, Labels, Peer, Peers as Others, Pod, PodKey, PolicyKey, Selection, Selector, World,
};

use super::peers::{self, Block, Element, Peers, Signature, in_order};
use super::ports::PortSet;
use super::sets::{Clause, ClauseKey, Set, SetKey};
use super::{ACCEPTED, PolicyLimits};

/// What numbers stand for. None is given out twice.
#[derive(Debug)]
pub(crate) struct Ids {
    next: u32,
    clauses: BTreeMap<ClauseKey, u32>,
    identities: BTreeMap<Signature, u32>,
    sets: BTreeMap<SetKey, u32>,
    profiles: BTreeMap<PortSet, u32>,
}

impl Ids {
    /// Numbers from above those that are in use.
    pub(crate) fn above(used: u32) -> Ids {
        Ids {
            next: used.saturating_add(1).max(FIRST_ID),
            clauses: BTreeMap::new(),
            identities: BTreeMap::new(),
            sets: BTreeMap::new(),
            profiles: BTreeMap::new(),
        }
    }

    /// An epoch begins: only profiles mean what they meant.
    pub(crate) fn begin_epoch(&mut self) {
        self.clauses.clear();
        self.identities.clear();
        self.sets.clear();
    }

    /// How many clauses the epoch has seen.
    pub(crate) fn clauses(&self) -> usize {
        self.clauses.len()
    }

    fn give<K: Ord>(map: &mut BTreeMap<K, u32>, next: &mut u32, key: K) -> u32 {
        *map.entry(key).or_insert_with(|| {
            let id = *next;
            // The highest bit is [`NODE`]; two thousand million numbers are years of changes.
            *next = if id >= NODE - 1 { FIRST_ID } else { id + 1 };
            id
        })
    }

    fn profile(&mut self, ports: PortSet) -> u32 {
        if ports.is_empty() {
            REFUSE
        } else if ports.is_all() {
            ACCEPT
        } else {
            Self::give(&mut self.profiles, &mut self.next, ports)
        }
    }
}

/// What a link has in a direction: a set and what it says of those whom it does not know.
pub(crate) type Assigned = (u32, u32);

/// What was decided.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) sets: BTreeMap<SetKey, Assigned>,
    pub(crate) peers: BTreeMap<PolicyPeerKey, u32>,
    pub(crate) verdicts: BTreeMap<PolicyVerdictKey, u32>,
    pub(crate) ports: BTreeMap<PolicyPortKey, u32>,
    /// Sets that found no room, with the table that has none.
    pub(crate) closed: BTreeMap<SetKey, &'static str>,
}

/// What is asked of [`compile`].
pub(crate) struct Wanted<'a> {
    pub(crate) world: &'a World,
    /// Which pod has an address.
    pub(crate) owners: &'a BTreeMap<IpAddr, &'a PodKey>,
    pub(crate) node: &'a [IpAddr],
    pub(crate) epoch: u32,
    /// Sets of links.
    pub(crate) sets: &'a BTreeSet<SetKey>,
    /// Sets that links have until they are told of theirs: they must know every identity, too.
    pub(crate) lingering: &'a BTreeSet<SetKey>,
    /// Of one epoch.
    pub(crate) limits: PolicyLimits,
}

pub(crate) fn compile(ids: &mut Ids, wanted: &Wanted<'_>) -> Compiled {
    let mut compiled = attempt(ids, wanted, BTreeMap::new());
    if compiled.peers.len() > wanted.limits.peers {
        let closed = closed(ids, wanted);
        compiled = attempt(ids, wanted, closed);
        if compiled.peers.len() > wanted.limits.peers {
            // Not even the node's own addresses find room, and all is closed.
            compiled.peers.clear();
        }
    }
    let identities: BTreeSet<u32> = compiled.peers.values().map(|id| id & !NODE).collect();
    ids.identities.retain(|_, id| identities.contains(id));
    let named = ids.identities.keys().flat_map(|signature| signature.iter());
    let mut profiles: BTreeSet<u32> = named.map(|(_, profile)| *profile).collect();
    profiles.extend(compiled.ports.keys().map(|key| key.profile));
    ids.profiles.retain(|_, id| profiles.contains(id));
    compiled
}

/// The sets to close so that the others' prefixes find room: those whose rules name the most.
fn closed(ids: &mut Ids, wanted: &Wanted<'_>) -> BTreeMap<SetKey, &'static str> {
    let mut sets: Vec<(usize, &SetKey)> = wanted
        .sets
        .iter()
        .map(|key| (weight(wanted.world, key), key))
        .collect();
    sets.sort();
    let without = |from: usize| -> BTreeMap<SetKey, &'static str> {
        let dear = sets.iter().skip(from);
        let lingering = wanted
            .lingering
            .iter()
            .filter(|key| !wanted.sets.contains(*key));
        dear.map(|(_, key)| *key)
            .chain(lingering)
            .map(|key| (key.clone(), abi::policy::PEERS))
            .collect()
    };
    let (mut fits, mut does_not) = (0, sets.len());
    while fits < does_not {
        let middle = (fits + does_not).div_ceil(2);
        if attempt(ids, wanted, without(middle)).peers.len() > wanted.limits.peers {
            does_not = middle - 1;
        } else {
            fits = middle;
        }
    }
    without(fits)
}

/// How much the rules of a set name.
fn weight(world: &World, key: &SetKey) -> usize {
    let policies = key
        .policies
        .iter()
        .filter_map(|policy| world.policies.get(policy));
    let rules = policies.flat_map(|policy| policy.rules(key.direction).unwrap_or_default());
    let weight = |peer: &Peer| match peer {
        Peer::Pods(_) => world.pods.len(),
        Peer::Block { except, .. } => 1 + except.len(),
        Peer::Nodes(_) => world.nodes.len(),
    };
    rules
        .map(|rule| match &rule.peers {
            Others::All => 0,
            Others::Some(peers) => peers.iter().map(weight).sum(),
        })
        .sum()
}

fn attempt(ids: &mut Ids, wanted: &Wanted<'_>, closed: BTreeMap<SetKey, &'static str>) -> Compiled {
    let Wanted { world, epoch, .. } = *wanted;
    let mut compiled = Compiled {
        closed,
        ..Compiled::default()
    };
    let all: BTreeSet<&SetKey> = wanted.sets.union(wanted.lingering).collect();
    let open: Vec<&SetKey> = all
        .into_iter()
        .filter(|key| !compiled.closed.contains_key(*key))
        .collect();
    let clauses = clauses(ids, world, &open);
    let sets: Vec<(&SetKey, Set<'_>)> = open
        .into_iter()
        .map(|key| (key, Set::new(key, world, &clauses)))
        .collect();
    let mut knowing: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (at, (_, set)) in sets.iter().enumerate() {
        for clause in set.particular() {
            knowing.entry(clause).or_default().push(at);
        }
    }

    let peers = find_peers(ids, wanted, &clauses);
    let mut signatures: BTreeMap<Signature, u32> = BTreeMap::new();
    peers.walk(|prefix, signature, node| {
        let identity = if signature.is_empty() {
            NOBODY
        } else {
            Ids::give(&mut ids.identities, &mut ids.next, signature.clone())
        };
        signatures.insert(signature.clone(), identity);
        let bit = if node { NODE } else { 0 };
        compiled
            .peers
            .insert(peers::key(epoch, prefix), identity | bit);
    });

    let by_id: BTreeMap<u32, PortSet> = ids
        .profiles
        .iter()
        .map(|(ports, id)| (*id, ports.clone()))
        .collect();
    let named = |profile: u32| by_id.get(&profile).cloned().unwrap_or_default();
    let mut found: Vec<Vec<(u32, PortSet)>> = sets.iter().map(|_| Vec::new()).collect();
    let mut asked: BTreeMap<(usize, Vec<Element>), PortSet> = BTreeMap::new();
    for (signature, identity) in &signatures {
        let concerned: BTreeSet<usize> = signature
            .iter()
            .filter_map(|(clause, _)| knowing.get(clause))
            .flatten()
            .copied()
            .collect();
        for at in concerned {
            let (_, set) = &sets[at];
            let elements = set.concerning(signature);
            let ports = asked
                .entry((at, elements))
                .or_insert_with_key(|(_, elements)| set.passes(elements, named));
            found[at].push((*identity, ports.clone()));
        }
    }
    let usual: Vec<PortSet> = sets.iter().map(|(_, set)| set.passes(&[], named)).collect();
    emit(ids, wanted, &mut compiled, sets, found, usual);
    compiled
}

/// Writes what sets say, as long as there is room.
fn emit(
    ids: &mut Ids,
    wanted: &Wanted<'_>,
    compiled: &mut Compiled,
    sets: Vec<(&SetKey, Set<'_>)>,
    found: Vec<Vec<(u32, PortSet)>>,
    usual: Vec<PortSet>,
) {
    for (((key, _), found), usual) in sets.into_iter().zip(found).zip(usual) {
        let said: Vec<(u32, PortSet)> = found
            .into_iter()
            .filter(|(_, ports)| *ports != usual)
            .collect();
        let different: BTreeSet<&PortSet> = said
            .iter()
            .map(|(_, ports)| ports)
            .chain([&usual])
            .collect();
        let mut keys: Vec<PolicyPortKey> = Vec::new();
        for ports in different {
            let profile = ids.profile(ports.clone());
            if profile >= FIRST_ID {
                keys.extend(ports.keys(profile));
            }
        }
        keys.retain(|key| !compiled.ports.contains_key(key));
        let full = if compiled.ports.len() + keys.len() > wanted.limits.ports {
            Some(abi::policy::PORTS)
        } else if compiled.verdicts.len() + said.len() > wanted.limits.verdicts {
            Some(abi::policy::VERDICTS)
        } else {
            None
        };
        if let Some(table) = full {
            compiled.closed.insert(key.clone(), table);
            continue;
        }
        compiled
            .ports
            .extend(keys.into_iter().map(|key| (key, ACCEPTED)));
        let set = Ids::give(&mut ids.sets, &mut ids.next, key.clone());
        for (identity, ports) in said {
            let profile = ids.profile(ports);
            compiled
                .verdicts
                .insert(PolicyVerdictKey { set, identity }, profile);
        }
        compiled.sets.insert(key.clone(), (set, ids.profile(usual)));
    }
    for key in compiled.closed.keys() {
        compiled.sets.insert(key.clone(), (CLOSED, REFUSE));
    }
}

/// The rules of every policy of some sets.
fn clauses<'a>(
    ids: &mut Ids,
    world: &'a World,
    sets: &[&SetKey],
) -> BTreeMap<ClauseKey, Clause<'a>> {
    let mut clauses = BTreeMap::new();
    let used: BTreeSet<(&PolicyKey, Direction)> = sets
        .iter()
        .flat_map(|set| set.policies.iter().map(|policy| (policy, set.direction)))
        .collect();
    for (key, direction) in used {
        let Some(policy) = world.policies.get(key) else {
            continue;
        };
        for (at, rule) in policy
            .rules(direction)
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let clause = (key.clone(), direction, at);
            let id = Ids::give(&mut ids.clauses, &mut ids.next, clause.clone());
            clauses.insert(clause, Clause::new(id, direction, policy.tier, rule));
        }
    }
    clauses
}

/// What of a pod decides whether a selection means it, and what names of ports mean at it.
type Kind<'a> = (
    &'a str,
    &'a Labels,
    &'a [(std::sync::Arc<str>, model::Protocol, u16)],
);

fn find_peers<'a>(
    ids: &mut Ids,
    wanted: &Wanted<'a>,
    clauses: &BTreeMap<ClauseKey, Clause<'a>>,
) -> Peers<'a> {
    let mut blocks = Vec::new();
    let mut selecting: BTreeMap<&Selection, Vec<&Clause<'_>>> = BTreeMap::new();
    let mut naming: Vec<&Clause<'_>> = Vec::new();
    let mut naming_within: Vec<(&Clause<'_>, Block<'_>)> = Vec::new();
    for clause in clauses.values() {
        // At every pod they may mean other ports, whether it is meant as a pod or by its address.
        let names = clause.names && clause.direction == Direction::Egress;
        let mut add = |block: Block<'a>| {
            if names {
                naming_within.push((clause, block.clone()));
            }
            blocks.push(block);
        };
        match &clause.rule.peers {
            Others::All if names => naming.push(clause),
            Others::All => {}
            Others::Some(peers) => {
                for peer in peers {
                    match peer {
                        Peer::Pods(selection) => {
                            selecting.entry(selection).or_default().push(clause);
                        }
                        Peer::Block { range, except } => add(Block {
                            clause: clause.id,
                            range: *range,
                            except,
                        }),
                        Peer::Nodes(selector) => {
                            addresses(wanted.world, selector).for_each(|range| {
                                add(Block {
                                    clause: clause.id,
                                    range,
                                    except: &[],
                                });
                            });
                        }
                    }
                }
            }
        }
    }
    let mut peers = Peers::new(blocks);
    for addr in wanted.node {
        peers.node(*addr);
    }
    if selecting.is_empty() && naming.is_empty() && naming_within.is_empty() {
        return peers;
    }
    let names = clauses
        .values()
        .any(|clause| clause.names && clause.direction == Direction::Egress);
    let mut kinds: BTreeMap<Kind<'_>, Signature> = BTreeMap::new();
    for (addr, key) in wanted.owners {
        let Some(pod) = wanted.world.pods.get(*key) else {
            continue;
        };
        let named_ports: &[_] = if names { &pod.named_ports } else { &[] };
        let kind = (&*key.namespace, &pod.labels, named_ports);
        let signature = kinds.entry(kind).or_insert_with(|| {
            signature(ids, wanted.world, &key.namespace, pod, &selecting, &naming)
        });
        let within = naming_within
            .iter()
            .filter(|(_, block)| block.contains(*addr));
        let mut more = within
            .map(|(clause, _)| element(ids, clause, pod))
            .peekable();
        if more.peek().is_some() {
            peers.pod(*addr, &in_order(signature.iter().copied().chain(more)));
        } else if !signature.is_empty() {
            peers.pod(*addr, signature);
        }
    }
    peers
}

/// The addresses of the nodes that are selected.
fn addresses(world: &World, selector: &Selector) -> impl Iterator<Item = Range> {
    let nodes = world.nodes.values();
    let selected = nodes.filter(|node| selector.matches(&node.labels));
    selected
        .flat_map(|node| &node.addresses)
        .filter_map(|addr| Range::new(*addr, if addr.is_ipv4() { 32 } else { 128 }))
}

fn signature(
    ids: &mut Ids,
    world: &World,
    namespace: &str,
    pod: &Pod,
    selecting: &BTreeMap<&Selection, Vec<&Clause<'_>>>,
    naming: &[&Clause<'_>],
) -> Signature {
    let labels = world.namespace(namespace);
    let matching = selecting
        .iter()
        .filter(|(selection, _)| selection.matches(namespace, labels, &pod.labels));
    let clauses = matching.flat_map(|(_, clauses)| clauses).chain(naming);
    in_order(clauses.map(|clause| element(ids, clause, pod)))
}

/// That a clause means a pod, with the ports that its names mean there.
fn element(ids: &mut Ids, clause: &Clause<'_>, pod: &Pod) -> Element {
    let named = if clause.names && clause.direction == Direction::Egress {
        PortSet::named(&clause.rule.ports, &pod.named_ports)
    } else {
        PortSet::default()
    };
    (clause.id, ids.profile(named))
}
