//! All maps beside each other. The names are those of [`abi`]; the capacities are its defaults, which the loader
//! may override.
//!
//! Concurrency: the agent writes FRONTENDS, SOURCES, RINGS, SPREADS, BACKENDS, CONFIG, DEVICES, ENDPOINTS, HOST,
//! HOST_ROUTING, INSIDE and MASQUERADE, the holder of the cluster's DNS zone DNS_NAMES and DNS_CONTROL; programs
//! only read them. A hash update replaces the whole element (a reader keeps the old one or finds the new one).
//! RINGS and BACKENDS are memory shared with the agent: it writes an element before anything points at it and
//! clears it after nothing does any more, so that no reader meets an element half written. The LRU tables are
//! written by programs on any CPU: insertions are atomic per entry, and what is changed in place is a single
//! aligned word.

use abi::{
    Affinity, AffinityKey, Backend, Balancing, Connection, Conversation, CounterValue, Device,
    DnsAnswer, DnsControl, DnsName, Endpoint, Event, Flow4, Flow6, FlowState4, FlowState6,
    FragmentKey, FragmentPorts, Frontend, FrontendKey4, FrontendKey6, Host, HostRouting, Limit,
    Load, Masquerade, Member, Namespace, NextHop, NodeConfig, PolicyAnswer, PolicyControl,
    PolicyHeld, PolicyHeldKey, PolicyLink, PolicyLinkKey, PolicyPassed, PolicyPod,
    PolicyVerdictKey, Quota, ReverseSocket, ReverseSocketKey, RingSlot, Source, SpreadWord,
    Watchers, affinity, backends, counters, devices, dns, endpoints, events, flows, fragments,
    frontends, limits, masquerade, members, namespaces, next_hops, openings, passed, policy,
    quotas, reverse_sockets, rings, sources, spreads,
};
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{
    Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, SkStorage, SockMap,
};
use aya_ebpf::macros::btf_map;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Replaced whole by the agent, one entry at a time.
#[btf_map]
pub(crate) static FRONTENDS4: HashMap<
    FrontendKey4,
    Frontend,
    { frontends::CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// As FRONTENDS4.
#[btf_map]
pub(crate) static FRONTENDS6: HashMap<
    FrontendKey6,
    Frontend,
    { frontends::CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// Written by the agent through shared memory before a frontend names the slots.
#[btf_map]
pub(crate) static RINGS: Array<RingSlot, { rings::CAPACITY as usize }, MMAPABLE> = Array::new();

/// Written by the agent through shared memory before a slot names the element.
#[btf_map]
pub(crate) static BACKENDS: Array<Backend, { backends::CAPACITY as usize }, MMAPABLE> =
    Array::new();

/// Written by the agent through shared memory before a ring names the element.
#[btf_map]
pub(crate) static SPREADS: Array<SpreadWord, { spreads::CAPACITY as usize }, MMAPABLE> =
    Array::new();

/// Counted up and down by the socket hooks on any CPU, in single atomic additions; emptied by the agent through shared
/// memory.
#[btf_map]
pub(crate) static LOADS: Array<Load, { backends::CAPACITY as usize }, MMAPABLE> = Array::new();

/// Written and read by calls on one socket, see REVERSE_SOCKETS.
#[btf_map]
pub(crate) static CONNECTIONS: SkStorage<Connection> = SkStorage::new();

/// Replaced by the last connect of a client; when two race, either choice is a valid one.
#[btf_map]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, Affinity, { affinity::CAPACITY as usize }> =
    LruHashMap::new();

/// The reply entry is inserted with BPF_NOEXIST, which decides between two CPUs that want one tuple; the entry
/// of the client's direction is written after it. Time and flags of an entry change in place.
#[btf_map]
pub(crate) static FLOWS4: LruHashMap<Flow4, FlowState4, { flows::CAPACITY as usize }> =
    LruHashMap::new();

/// As FLOWS4.
#[btf_map]
pub(crate) static FLOWS6: LruHashMap<Flow6, FlowState6, { flows::CAPACITY as usize }> =
    LruHashMap::new();

/// The first element counts in single atomic additions; each of the others is written by whoever got its number.
#[btf_map]
pub(crate) static OPENINGS4: Array<
    Flow4,
    { openings::capacity(flows::CAPACITY) as usize },
    MMAPABLE,
> = Array::new();

/// As OPENINGS4.
#[btf_map]
pub(crate) static OPENINGS6: Array<
    Flow6,
    { openings::capacity(flows::CAPACITY) as usize },
    MMAPABLE,
> = Array::new();

/// Written by the first fragment of a packet; the later ones read it on any CPU.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<
    FragmentKey,
    FragmentPorts,
    { fragments::CAPACITY as usize },
> = LruHashMap::new();

/// Written and read by calls on one socket, which the kernel runs under that socket's lock or one after another.
#[btf_map]
pub(crate) static REVERSE_SOCKETS: LruHashMap<
    ReverseSocketKey,
    ReverseSocket,
    { reverse_sockets::CAPACITY as usize },
> = LruHashMap::new();

/// Replaced whole by the agent.
#[btf_map]
pub(crate) static CONFIG: Array<NodeConfig, 1> = Array::new();

/// Replaced whole by the agent.
#[btf_map]
pub(crate) static DEVICES: HashMap<u32, Device, { devices::CAPACITY as usize }> = HashMap::new();

/// Replaced whole by the agent, one entry at a time. The key is an address as it lies in memory.
#[btf_map]
pub(crate) static ENDPOINTS4: HashMap<
    [u32; 1],
    Endpoint,
    { endpoints::CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// As ENDPOINTS4.
#[btf_map]
pub(crate) static ENDPOINTS6: HashMap<
    [u32; 4],
    Endpoint,
    { endpoints::CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// Entries come and go one at a time. The key is a [`abi::SourceKey`] behind its length.
#[btf_map]
pub(crate) static SOURCES: LpmTrie<[u32; 5], Source, { sources::CAPACITY as usize }> =
    LpmTrie::new();

/// Entries come and go one at a time. The key is a [`abi::MemberKey`] behind its length.
#[btf_map]
pub(crate) static MEMBERS: LpmTrie<[u32; 4], Member, { members::CAPACITY as usize }> =
    LpmTrie::new();

/// Replaced whole by the agent; in between the programs count on any CPU, in single words, and a lost count is made up
/// when the agent counts.
#[btf_map]
pub(crate) static QUOTAS: HashMap<u32, Quota, { quotas::CAPACITY as usize }, NO_PREALLOC> =
    HashMap::new();

/// The agent's own.
#[btf_map]
pub(crate) static BALANCING: Array<Balancing, 1> = Array::new();

/// Replaced whole by the agent.
#[btf_map]
pub(crate) static HOST: Array<Host, 1> = Array::new();

/// Replaced whole by the agent; either half is one aligned word.
#[btf_map]
pub(crate) static HOST_ROUTING: Array<HostRouting, 1> = Array::new();

/// One copy for each CPU; packet programs are not preempted by each other.
#[btf_map]
pub(crate) static NEXT_HOPS: PerCpuArray<NextHop, { next_hops::CAPACITY as usize }> =
    PerCpuArray::new();

/// Entries come and go one at a time. The key is a [`abi::InsideKey`] behind its length.
#[btf_map]
pub(crate) static INSIDE: LpmTrie<[u32; 5], u32, { masquerade::CAPACITY as usize }> =
    LpmTrie::new();

/// Written by the CNI plugin when it makes a link, moved on in place by the programs of that link, on any CPU.
#[btf_map]
pub(crate) static LIMITS: HashMap<u32, Limit, { limits::CAPACITY as usize }, NO_PREALLOC> =
    HashMap::new();

/// Written by the CNI plugin.
#[btf_map]
pub(crate) static LIMITING: Array<u32, 1> = Array::new();

/// Written by the CNI plugin when it makes a link, before the pod has a socket.
#[btf_map]
pub(crate) static NAMESPACES: HashMap<
    u64,
    Namespace,
    { namespaces::CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// Replaced whole by the agent, behind INSIDE.
#[btf_map]
pub(crate) static MASQUERADE: Array<Masquerade, 1> = Array::new();

/// Replaced whole by the agent, last of all that a change of policies takes.
#[btf_map]
pub(crate) static POLICY_CONTROL: Array<PolicyControl, 1> = Array::new();

/// Replaced whole by the agent, one entry at a time; those of another epoch than the one that holds are read by
/// nobody. So with every table of policies.
#[btf_map]
pub(crate) static POLICY_LINKS: HashMap<
    PolicyLinkKey,
    PolicyLink,
    { policy::LINKS_CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// As POLICY_LINKS. The key is a [`abi::PolicyPeerKey`] behind its length.
#[btf_map]
pub(crate) static POLICY_PEERS: LpmTrie<[u32; 5], u32, { policy::PEERS_CAPACITY as usize }> =
    LpmTrie::new();

/// As POLICY_LINKS.
#[btf_map]
pub(crate) static POLICY_VERDICTS: HashMap<
    PolicyVerdictKey,
    u32,
    { policy::VERDICTS_CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// As POLICY_LINKS. The key is a [`abi::PolicyPortKey`] behind its length.
#[btf_map]
pub(crate) static POLICY_PORTS: LpmTrie<[u32; 2], u32, { policy::PORTS_CAPACITY as usize }> =
    LpmTrie::new();

/// Replaced whole by whichever CPU judged last; what another one judged at the same moment is judged again.
#[btf_map]
pub(crate) static POLICY_FLOWS4: LruHashMap<
    Flow4,
    Conversation,
    { policy::FLOWS_CAPACITY as usize },
> = LruHashMap::new();

/// As POLICY_FLOWS4.
#[btf_map]
pub(crate) static POLICY_FLOWS6: LruHashMap<
    Flow6,
    Conversation,
    { policy::FLOWS_CAPACITY as usize },
> = LruHashMap::new();

/// As NEXT_HOPS.
#[btf_map]
pub(crate) static POLICY_PASSED: PerCpuArray<PolicyPassed, { passed::CAPACITY as usize }> =
    PerCpuArray::new();

/// As NEXT_HOPS.
#[btf_map]
pub(crate) static POLICY_ANSWERS: PerCpuArray<PolicyAnswer, { passed::ANSWERS_CAPACITY as usize }> =
    PerCpuArray::new();

/// The agent's own.
#[btf_map]
pub(crate) static POLICY_HELD: HashMap<
    PolicyHeldKey,
    PolicyHeld,
    { policy::HELD_CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// Entries come and go one at a time, each before its cgroup gets the programs and after it lost them.
#[btf_map]
pub(crate) static POLICY_CGROUPS: HashMap<
    u64,
    u32,
    { policy::CGROUPS_CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// The agent's own.
#[btf_map]
pub(crate) static POLICY_PODS: HashMap<
    u32,
    PolicyPod,
    { policy::CGROUPS_CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// Replaced whole by the holder of the DNS zone, one entry at a time; see `abi::DnsControl::generation`.
#[btf_map]
pub(crate) static DNS_NAMES: HashMap<
    DnsName,
    DnsAnswer,
    { dns::NAMES_CAPACITY as usize },
    NO_PREALLOC,
> = HashMap::new();

/// Memory shared with the holder of the DNS zone, which writes it in words.
#[btf_map]
pub(crate) static DNS_CONTROL: Array<DnsControl, 1, MMAPABLE> = Array::new();

/// Written once by the holder of the DNS zone; emptied by the kernel when that ends.
#[btf_map]
pub(crate) static DNS_ALIVE: SockMap<1> = SockMap::new();

/// One copy for each CPU; packet programs are not preempted by each other.
#[btf_map]
pub(crate) static DNS_SCRATCH: PerCpuArray<packet::dns::Scratch, 1> = PerCpuArray::new();

/// Memory shared with those who watch: each writes its own element, in words of eight bytes.
#[btf_map]
pub(crate) static SWITCHES: Array<Watchers, 1, MMAPABLE> = Array::new();

/// One copy for each CPU, as COUNTERS.
#[btf_map]
pub(crate) static EVENTS_LOST: PerCpuArray<u64, { events::WATCHERS }> = PerCpuArray::new();

/// Written on any CPU, an event at a time; read by whoever has the ring.
#[btf_map]
pub(crate) static EVENTS0: RingBuf<Event, { events::RING_LEN as usize }> = RingBuf::new();

/// As EVENTS0.
#[btf_map]
pub(crate) static EVENTS1: RingBuf<Event, { events::RING_LEN as usize }> = RingBuf::new();

/// As EVENTS0.
#[btf_map]
pub(crate) static EVENTS2: RingBuf<Event, { events::RING_LEN as usize }> = RingBuf::new();

/// As EVENTS0.
#[btf_map]
pub(crate) static EVENTS3: RingBuf<Event, { events::RING_LEN as usize }> = RingBuf::new();

/// One copy for each CPU. Packet programs are not preempted by each other; a socket hook may be, between reading
/// and writing, and a count is lost then.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<CounterValue, { counters::CAPACITY as usize }> =
    PerCpuArray::new();

/// Where `device_xdp` goes on. No table of the layout: each set of programs has its own, filled as they are loaded.
#[btf_map]
pub(crate) static DEVICE_XDP: ProgramArray<1> = ProgramArray::new();

/// One copy for each CPU, see `clock`. No table of the layout: each set of programs has its own.
#[btf_map]
pub(crate) static CLOCK: PerCpuArray<u64, 2> = PerCpuArray::new();
