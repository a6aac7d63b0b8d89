//! Tables of plain maps, for tests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use abi::{
    Affinity, AffinityKey, Backend, BackendId, DnsControl, Flow4, FlowState4, FragmentKey,
    FragmentPorts, Frontend, FrontendKey4, InsideKey, Member, MemberKey, NodeConfig, SourceKey,
    SpreadWord,
};
use zerocopy::{Immutable, IntoBytes};

use crate::{Inserted, Shared, Tables, V4};

/// What the kernel holds in maps. Flows are leaked, so that a reference may stay as it does there.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) frontends: BTreeMap<Vec<u8>, Frontend>,
    pub(crate) slots: BTreeMap<u32, BackendId>,
    pub(crate) spreads: BTreeMap<u32, SpreadWord>,
    pub(crate) connections: BTreeMap<BackendId, u64>,
    pub(crate) backends: BTreeMap<BackendId, Backend>,
    /// Every client of a service that admits not all.
    pub(crate) admitted: Vec<SourceKey>,
    /// The cluster's ranges, the longest first.
    pub(crate) inside: Vec<(InsideKey, u32)>,
    pub(crate) members: BTreeMap<MemberKey, Member>,
    pub(crate) node: NodeConfig,
    /// How many flows may begin; `None` for any number.
    pub(crate) room: Cell<Option<u32>>,
    pub(crate) xdp: bool,
    pub(crate) dns: Option<DnsControl>,
    pub(crate) dns_answers: Cell<bool>,
    pub(crate) now_secs: Cell<u32>,
    pub(crate) seed: Cell<u32>,
    pub(crate) flows: RefCell<BTreeMap<Vec<u8>, &'static FlowState4>>,
    pub(crate) affinity: RefCell<BTreeMap<Vec<u8>, Affinity>>,
    pub(crate) fragments: RefCell<BTreeMap<Vec<u8>, FragmentPorts>>,
}

fn bytes<T: IntoBytes + Immutable>(value: &T) -> Vec<u8> {
    value.as_bytes().to_vec()
}

impl Shared for Model {
    fn slot(&self, slot: u32) -> Option<BackendId> {
        self.slots.get(&slot).copied()
    }

    fn spread(&self, index: u32) -> Option<SpreadWord> {
        self.spreads.get(&index).copied()
    }

    fn connections(&self, id: BackendId) -> u64 {
        self.connections.get(&id).copied().unwrap_or(0)
    }

    fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(&id)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.borrow().get(&bytes(key)).copied()
    }

    fn keep_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        self.affinity.borrow_mut().insert(bytes(key), *affinity);
    }

    fn admits(&self, key: &SourceKey) -> bool {
        self.admitted.contains(key)
    }

    fn inside(&self, key: &InsideKey) -> Option<u32> {
        let holds = |range: &InsideKey| {
            let bits = range.prefix_len - abi::masquerade::FAMILY_BITS;
            let differ = u128::from_be_bytes(range.addr) ^ u128::from_be_bytes(key.addr);
            range.family == key.family && (bits == 0 || differ >> (128 - bits) == 0)
        };
        let found = self.inside.iter().find(|(range, _)| holds(range));
        found.map(|(_, flags)| *flags)
    }

    fn takes_flow(&self, _service: abi::ServiceId) -> bool {
        match self.room.get() {
            None => true,
            Some(0) => false,
            Some(room) => {
                self.room.set(Some(room - 1));
                true
            }
        }
    }

    /// Of whole addresses.
    fn member(&self, key: &MemberKey) -> Option<Member> {
        self.members.get(key).copied()
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(&bytes(key)).copied()
    }

    fn keep_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(bytes(key), *ports);
    }

    fn node(&self) -> Option<&NodeConfig> {
        Some(&self.node)
    }

    fn runs_xdp(&self, _ifindex: u32) -> bool {
        self.xdp
    }

    fn local_dns(&self) -> Option<&DnsControl> {
        self.dns.as_ref()
    }

    fn dns_answers(&self, _control: &DnsControl) -> bool {
        self.dns_answers.get()
    }

    fn random(&self) -> u32 {
        let seed = self.seed.get();
        let next = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.seed.set(next);
        next
    }

    fn now_secs(&self) -> u32 {
        self.now_secs.get()
    }
}

impl Tables<V4> for Model {
    fn frontend(&self, key: &FrontendKey4) -> Option<&Frontend> {
        self.frontends.get(&bytes(key))
    }

    fn has_pod(&self, _addr: [u8; 4]) -> bool {
        false
    }

    fn flow(&self, key: &Flow4, marks: u32) -> Option<&FlowState4> {
        let mut flows = self.flows.borrow_mut();
        let state = flows.get_mut(&bytes(key))?;
        let mut seen = **state;
        seen.last_seen_secs = self.now_secs();
        seen.flags |= marks;
        *state = Box::leak(Box::new(seen));
        Some(*state)
    }

    fn known(&self, key: &Flow4) -> Option<&FlowState4> {
        self.flows.borrow().get(&bytes(key)).copied()
    }

    fn mark_flow(&self, key: &Flow4, flags: u32) {
        if let Some(state) = self.flows.borrow_mut().get_mut(&bytes(key)) {
            let mut marked = **state;
            marked.flags |= flags;
            *state = Box::leak(Box::new(marked));
        }
    }

    fn claim_flow(&self, key: &Flow4, state: &FlowState4) -> Inserted {
        if self.flows.borrow().contains_key(&bytes(key)) {
            return Inserted::Taken;
        }
        self.put_flow(key, state)
    }

    fn put_flow(&self, key: &Flow4, state: &FlowState4) -> Inserted {
        let state: &FlowState4 = Box::leak(Box::new(*state));
        self.flows.borrow_mut().insert(bytes(key), state);
        Inserted::Done
    }

    /// As if there were room for all.
    fn take_place(&self, _tuple: &Flow4) {}
}
