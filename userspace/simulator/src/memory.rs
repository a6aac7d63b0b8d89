//! The tables in memory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use abi::masquerade::FAMILY_BITS;
use abi::{
    Affinity, AffinityKey, Backend, BackendId, Conversation, Counter, DnsControl, Flow4, Flow6,
    FlowState4, FlowState6, FragmentKey, FragmentPorts, Frontend, FrontendKey4, FrontendKey6,
    InsideKey, Masquerade, Member, MemberKey, NodeConfig, SourceKey, SpreadWord,
};
use packet::balance::{self, Beginning};
use packet::{Decision, Flow as _, Inserted, Shared, Tables, V4, V6};
use plan::FrontendKey;
use plan::policy::PolicyTables;

use crate::slots::Slots;

/// What a simulation begins with.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Frontends, rings and what is behind them, backends and ranges of clients.
    pub tables: plan::Tables,
    /// What pods' packets are judged by.
    pub policies: PolicyTables,
    /// Whether pods' packets to the outside get this node's address, and what is inside.
    pub masquerade: Masquerade,
    /// The cluster's ranges.
    pub inside: BTreeMap<InsideKey, u32>,
    /// How many connections each backend has, where its service is balanced by that.
    pub connections: HashMap<BackendId, u64>,
    /// The node.
    pub node: NodeConfig,
    /// Bounds on flows.
    pub quotas: BTreeMap<u32, abi::Quota>,
    /// The cluster's own addresses.
    pub members: BTreeMap<MemberKey, Member>,
    /// What the holder of the DNS zone says of this node's instance, where it ever said anything, and whether that
    /// answers.
    pub dns: Option<(DnsControl, bool)>,
    /// Devices where our XDP program runs.
    pub xdp_devices: BTreeSet<u32>,
    /// Places in the rings of flows that began; zero where there is room for all.
    pub places: usize,
    /// Seconds of `CLOCK_MONOTONIC`.
    pub now_secs: u32,
}

/// Tables that decisions read and write.
#[derive(Debug, Default)]
pub struct Memory {
    start: Start,
    /// An element of the backends that was never written.
    nobody: Backend,
    affinity: RefCell<HashMap<AffinityKey, Affinity>>,
    fragments: RefCell<HashMap<FragmentKey, FragmentPorts>>,
    flows4: RefCell<HashMap<Flow4, FlowState4>>,
    flows6: RefCell<HashMap<Flow6, FlowState6>>,
    places4: RefCell<Places<Flow4>>,
    places6: RefCell<Places<Flow6>>,
    pub(crate) conversations4: RefCell<HashMap<Flow4, Conversation>>,
    pub(crate) conversations6: RefCell<HashMap<Flow6, Conversation>>,
    lent4: Slots<FlowState4>,
    lent6: Slots<FlowState6>,
    /// Numbers that stand in for chance, before those of the generator.
    chances: RefCell<VecDeque<u32>>,
    seed: Cell<u64>,
    /// How many flows groups have by now.
    began: RefCell<HashMap<u32, u32>>,
    /// What was counted while a flow began.
    pub(crate) counted: RefCell<Vec<Counter>>,
}

/// A ring of flows that began, by the tuples of what began them.
#[derive(Clone, Debug)]
struct Places<F> {
    next: usize,
    taken: HashMap<usize, F>,
}

impl<F> Default for Places<F> {
    fn default() -> Self {
        Places {
            next: 0,
            taken: HashMap::new(),
        }
    }
}

impl Memory {
    /// Tables without flows.
    #[must_use]
    pub fn new(start: Start, seed: u64) -> Memory {
        Memory {
            start,
            seed: Cell::new(seed),
            ..Memory::default()
        }
    }

    /// What it began with, to be changed.
    pub fn start_mut(&mut self) -> &mut Start {
        &mut self.start
    }

    /// What it began with.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Other bounds on flows, with how many there are.
    pub fn set_quotas(&mut self, quotas: BTreeMap<u32, abi::Quota>) {
        self.start.quotas = quotas;
        self.began.get_mut().clear();
    }

    /// How many flows a group has by now.
    pub fn flows_of(&mut self, group: u32) -> u32 {
        let counted = self.start.quotas.get(&group).map_or(0, |quota| quota.flows);
        self.began.get_mut().get(&group).copied().unwrap_or(counted)
    }

    /// Gives the numbers that stand in for chance next.
    pub fn set_chances(&mut self, chances: impl IntoIterator<Item = u32>) {
        *self.chances.get_mut() = chances.into_iter().collect();
    }

    /// Where clients were sent.
    pub fn affinities(&mut self) -> &mut HashMap<AffinityKey, Affinity> {
        self.affinity.get_mut()
    }

    /// Flows of IPv4.
    pub fn flows4(&mut self) -> &mut HashMap<Flow4, FlowState4> {
        self.flows4.get_mut()
    }

    /// Flows of IPv6.
    pub fn flows6(&mut self) -> &mut HashMap<Flow6, FlowState6> {
        self.flows6.get_mut()
    }

    /// The same tables once more, to try something on.
    #[must_use]
    pub fn copy(&self) -> Memory {
        Memory {
            start: self.start.clone(),
            nobody: self.nobody,
            affinity: self.affinity.clone(),
            fragments: self.fragments.clone(),
            flows4: self.flows4.clone(),
            flows6: self.flows6.clone(),
            places4: self.places4.clone(),
            places6: self.places6.clone(),
            conversations4: self.conversations4.clone(),
            conversations6: self.conversations6.clone(),
            chances: self.chances.clone(),
            seed: self.seed.clone(),
            began: self.began.clone(),
            ..Memory::default()
        }
    }

    /// Between two packets: what was lent to the decision on one is taken back.
    pub fn settle(&mut self) {
        self.lent4.clear();
        self.lent6.clear();
    }
}

impl Shared for Memory {
    fn slot(&self, slot: u32) -> Option<BackendId> {
        // An element that was never written is zero in the kernel.
        Some(self.start.tables.rings.get(&slot).copied().unwrap_or(0))
    }

    fn spread(&self, index: u32) -> Option<SpreadWord> {
        let words = self.start.tables.spreads.get(&index).copied();
        Some(SpreadWord {
            words: words.unwrap_or_default(),
        })
    }

    fn connections(&self, id: BackendId) -> u64 {
        self.start.connections.get(&id).copied().unwrap_or(0)
    }

    fn backend(&self, id: BackendId) -> Option<&Backend> {
        Some(self.start.tables.backends.get(&id).unwrap_or(&self.nobody))
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.borrow().get(key).copied()
    }

    fn keep_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        self.affinity.borrow_mut().insert(*key, *affinity);
    }

    fn admits(&self, key: &SourceKey) -> bool {
        // As a trie answers: whether any range of the service holds the address.
        let mut ranges = self.start.tables.sources.iter();
        ranges.any(|range| range.service == key.service && holds(range, key))
    }

    fn inside(&self, key: &InsideKey) -> Option<u32> {
        let holds = |range: &InsideKey| {
            let bits = range.prefix_len.saturating_sub(FAMILY_BITS);
            let differs = u128::from_be_bytes(range.addr) ^ u128::from_be_bytes(key.addr);
            range.family == key.family && (bits == 0 || bits <= 128 && differs >> (128 - bits) == 0)
        };
        let ranges = self.start.inside.iter();
        let longest = ranges
            .filter(|(range, _)| holds(range))
            .max_by_key(|(range, _)| range.prefix_len);
        longest.map(|(_, flags)| *flags)
    }

    fn takes_flow(&self, service: abi::ServiceId) -> bool {
        let quotas = &self.start.quotas;
        let groups = quotas.get(&service).map_or([0; 2], |quota| quota.groups);
        let mut began = self.began.borrow_mut();
        groups.iter().filter(|group| **group != 0).all(|group| {
            let Some(quota) = quotas.get(group) else {
                return true;
            };
            let count = began.entry(*group).or_insert(quota.flows);
            let takes = *count < quota.flows_max;
            *count += u32::from(takes);
            takes
        })
    }

    fn member(&self, key: &MemberKey) -> Option<Member> {
        // As a trie answers: the longest range that holds the address.
        let addr = u128::from_be_bytes(key.addr);
        let ranges = self.start.members.iter();
        let holding = ranges.filter(|(range, _)| {
            let differs = u128::from_be_bytes(range.addr) ^ addr;
            differs
                .checked_shr(128 - range.prefix_len.min(128))
                .unwrap_or(0)
                == 0
        });
        let longest = holding.max_by_key(|(range, _)| range.prefix_len);
        longest.map(|(_, member)| *member)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn keep_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, *ports);
    }

    fn node(&self) -> Option<&NodeConfig> {
        Some(&self.start.node)
    }

    fn runs_xdp(&self, ifindex: u32) -> bool {
        self.start.xdp_devices.contains(&ifindex)
    }

    fn local_dns(&self) -> Option<&DnsControl> {
        self.start.dns.as_ref().map(|(control, _)| control)
    }

    fn dns_answers(&self, _control: &DnsControl) -> bool {
        self.start.dns.as_ref().is_some_and(|(_, answers)| *answers)
    }

    fn random(&self) -> u32 {
        if let Some(chance) = self.chances.borrow_mut().pop_front() {
            return chance;
        }
        // splitmix64
        let seed = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(seed);
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    fn now_secs(&self) -> u32 {
        self.start.now_secs
    }
}

/// Whether a range holds an address, both behind the service that they are of.
fn holds(range: &SourceKey, key: &SourceKey) -> bool {
    let bits = range.prefix_len.saturating_sub(abi::sources::SERVICE_BITS);
    let (range, addr) = (
        u128::from_be_bytes(range.addr),
        u128::from_be_bytes(key.addr),
    );
    bits == 0 || bits <= 128 && (range ^ addr) >> (128 - bits) == 0
}

macro_rules! tables {
    ($family:ty, $variant:ident, $flows:ident, $lent:ident, $places:ident, $key:ty, $flow:ty, $state:ty) => {
        impl Tables<$family> for Memory {
            fn frontend(&self, key: &$key) -> Option<&Frontend> {
                self.start
                    .tables
                    .frontends
                    .get(&FrontendKey::$variant(*key))
            }

            fn has_pod(&self, _addr: <$family as packet::Family>::Address) -> bool {
                false
            }

            fn choose(
                &self,
                frontend: &Frontend,
                tuple: &$flow,
                beginning: &mut Beginning,
                to: &mut $flow,
            ) -> Decision {
                let chosen = balance::choose::<$family, _>(self, frontend, tuple, beginning, to);
                if beginning.fell_back() {
                    self.counted.borrow_mut().push(Counter::SnatInstead);
                }
                chosen
            }

            fn flow(&self, key: &$flow, marks: u32) -> Option<&$state> {
                let mut flows = self.$flows.borrow_mut();
                let state = flows.get_mut(key)?;
                state.last_seen_secs = self.start.now_secs;
                state.flags |= marks;
                self.$lent.lend(*state)
            }

            fn known(&self, key: &$flow) -> Option<&$state> {
                self.$lent.lend(*self.$flows.borrow().get(key)?)
            }

            fn mark_flow(&self, key: &$flow, flags: u32) {
                if let Some(state) = self.$flows.borrow_mut().get_mut(key) {
                    state.flags |= flags;
                }
            }

            fn claim_flow(&self, key: &$flow, state: &$state) -> Inserted {
                let mut flows = self.$flows.borrow_mut();
                if flows.contains_key(key) {
                    return Inserted::Taken;
                }
                flows.insert(*key, *state);
                Inserted::Done
            }

            fn put_flow(&self, key: &$flow, state: &$state) -> Inserted {
                self.$flows.borrow_mut().insert(*key, *state);
                Inserted::Done
            }

            fn take_place(&self, tuple: &$flow) {
                let mut places = self.$places.borrow_mut();
                if self.start.places == 0 {
                    return;
                }
                // As in the kernel: who comes at the end of the ring has no place.
                let at = places.next;
                places.next = if at < self.start.places { at + 1 } else { 0 };
                if at == self.start.places {
                    return;
                }
                let Some(before) = places.taken.insert(at, *tuple) else {
                    return;
                };
                let mut flows = self.$flows.borrow_mut();
                let young = |state: &&$state| balance::is_young(state.flags);
                if let Some(state) = flows.get(&before).filter(young) {
                    let answer = state.to.reversed();
                    if flows.get(&answer).is_none_or(|state| young(&state)) {
                        flows.remove(&before);
                        flows.remove(&answer);
                    }
                }
            }
        }
    };
}

tables!(
    V4,
    V4,
    flows4,
    lent4,
    places4,
    FrontendKey4,
    Flow4,
    FlowState4
);
tables!(
    V6,
    V6,
    flows6,
    lent6,
    places6,
    FrontendKey6,
    Flow6,
    FlowState6
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_its_leading_bits_are_those_of() {
        let range = SourceKey::v4(1, [192, 0, 2, 0], 24);
        for (key, held) in [
            (SourceKey::v4(1, [192, 0, 2, 77], 32), true),
            (SourceKey::v4(1, [192, 0, 3, 77], 32), false),
            (SourceKey::v6(1, [0; 16], 128), false),
        ] {
            assert_eq!(holds(&range, &key), held, "{key:?}");
        }
        let all = SourceKey::v6(1, [0; 16], 0);
        assert!(holds(&all, &SourceKey::v4(1, [1, 2, 3, 4], 32)));
    }
}
