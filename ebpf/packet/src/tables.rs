//! The tables as the decisions see them. The kernel's maps implement this in `programs`, plain maps in tests.

use abi::{
    Affinity, AffinityKey, Backend, BackendId, DnsControl, FragmentKey, FragmentPorts, Frontend,
    InsideKey, Member, MemberKey, NodeConfig, ServiceId, SourceKey, SpreadWord,
};

use crate::balance::{self, Beginning};
use crate::{Decision, Family, Headers};

/// What both families share.
pub trait Shared {
    /// The backend that a slot of the rings names; zero while the slot is empty.
    fn slot(&self, slot: u32) -> Option<BackendId>;
    /// An element of the spreads table.
    fn spread(&self, index: u32) -> Option<SpreadWord>;
    /// How many connections this node's sockets have to a backend.
    fn connections(&self, id: BackendId) -> u64;
    /// An element of the backends table.
    fn backend(&self, id: BackendId) -> Option<&Backend>;
    /// Where a client was sent before.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Remembers where a client is sent. A table that refuses costs the client its affinity, nothing else.
    fn keep_affinity(&self, key: &AffinityKey, affinity: &Affinity);
    /// Whether a service admits a client, where it does not admit all.
    fn admits(&self, key: &SourceKey) -> bool;
    /// What is known of the longest range of the cluster's that holds an address; `None` where none does.
    fn inside(&self, key: &InsideKey) -> Option<u32>;
    /// Counts a new flow of a service against its bounds; false where it has as many as it may have.
    fn takes_flow(&self, service: ServiceId) -> bool;
    /// What is known of an address of the cluster's own; `None` of any other.
    fn member(&self, key: &MemberKey) -> Option<Member>;
    /// The ports of a fragmented packet.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Remembers the ports of a fragmented packet. A table that refuses costs the later fragments.
    fn keep_fragment(&self, key: &FragmentKey, ports: &FragmentPorts);
    /// This node.
    fn node(&self) -> Option<&NodeConfig>;
    /// Whether our XDP program runs on the device with this interface index.
    fn runs_xdp(&self, ifindex: u32) -> bool;
    /// What the holder of the DNS zone says, where it ever answered names by the programs or sent queries to this node's
    /// instance.
    fn local_dns(&self) -> Option<&DnsControl>;
    /// Whether this node's instance answers at this moment.
    fn dns_answers(&self, control: &DnsControl) -> bool;
    /// 32 bits of chance.
    fn random(&self) -> u32;
    /// Seconds of `CLOCK_MONOTONIC`.
    fn now_secs(&self) -> u32;
}

/// What each family has of its own.
pub trait Tables<F: Family>: Shared {
    /// An entry of the frontends table.
    fn frontend(&self, key: &F::FrontendKey) -> Option<&Frontend>;
    /// Whether a pod of this node has an address.
    fn has_pod(&self, addr: F::Address) -> bool;
    /// An entry of the flows table, as a packet of it passes: the entry's time becomes now, and it gets these of
    /// [`abi::flows::flags`], see [`balance::passing`].
    fn flow(&self, key: &F::Flow, marks: u32) -> Option<&F::State>;
    /// An entry of the flows table, as it is.
    fn known(&self, key: &F::Flow) -> Option<&F::State>;
    /// Adds bits of [`abi::flows::flags`] to an entry of the flows table, if it is there.
    fn mark_flow(&self, key: &F::Flow, flags: u32);
    /// Writes a flow whose tuple no other flow may have.
    fn claim_flow(&self, key: &F::Flow, state: &F::State) -> Inserted;
    /// Writes a flow over whatever is there.
    fn put_flow(&self, key: &F::Flow, state: &F::State) -> Inserted;
    /// Takes the next place in the ring of flows that began, for one that begins with a packet of this tuple, and lets the flow
    /// that had it go if that is young ([`balance::is_young`]), see [`abi::openings`].
    fn take_place(&self, tuple: &F::Flow);

    // The parts of beginning a flow. The kernel programs make each a function of its own that the verifier walks once,
    // whatever led there, and whose stack does not lie there for every packet: a program has 512 bytes.

    /// [`balance::choose`].
    fn choose(
        &self,
        frontend: &Frontend,
        tuple: &F::Flow,
        beginning: &mut Beginning,
        to: &mut F::Flow,
    ) -> Decision
    where
        Self: Sized,
    {
        balance::choose(self, frontend, tuple, beginning, to)
    }

    /// [`balance::keep_fragment`].
    fn keep_first(&self, headers: &Headers<F>)
    where
        Self: Sized,
    {
        balance::keep_fragment(self, headers);
    }

    /// [`balance::hears`].
    fn hears(&self, tuple: &F::Flow, state: &F::State) -> bool
    where
        Self: Sized,
    {
        balance::hears(self, tuple, state)
    }

    /// [`balance::claim`].
    fn claim(&self, answer: &F::Flow, state: &F::State) -> Inserted
    where
        Self: Sized,
    {
        balance::claim(self, answer, state)
    }

    /// [`balance::begin`], of what has taken its place.
    fn begin(&self, tuple: &F::Flow, beginning: &Beginning, to: &mut F::Flow) -> Decision
    where
        Self: Sized,
    {
        self.take_place(tuple);
        balance::begin(self, tuple, beginning, to)
    }
}

/// What became of an insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Inserted {
    /// It is there.
    Done,
    /// Another entry has the key.
    Taken,
    /// The table refused.
    Full,
}
