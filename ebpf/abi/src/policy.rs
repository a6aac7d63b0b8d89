//! Which packets pods may send and receive (NetworkPolicy, ClusterNetworkPolicy). Written by the agent; read at the
//! links of pods.
//!
//! A packet's remote address has an *identity*: the class of all addresses that the node's policies treat alike. What
//! a pod's policies of one direction say together is a *set*, which pods of equal policies share; what it lets pass
//! of an identity is a *profile* of ports. So a new conversation costs two lookups by prefix and one by key, however
//! many rules there are, and a packet of one that was judged costs one; most cost none, see [`crate::passed`].

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of one element: array, 0 to [`PolicyControl`]. Written last of all that a change takes.
pub const CONTROL: &str = "POLICY_CONTROL";
/// Table of pods' links: hash, [`PolicyLinkKey`] to [`PolicyLink`].
pub const LINKS: &str = "POLICY_LINKS";
/// Table of identities: longest-prefix trie, [`PolicyPeerKey`] to identity (`u32`).
pub const PEERS: &str = "POLICY_PEERS";
/// Table of what sets say of identities: hash, [`PolicyVerdictKey`] to profile (`u32`).
pub const VERDICTS: &str = "POLICY_VERDICTS";
/// Table of what profiles let pass: longest-prefix trie, [`PolicyPortKey`] to anything. What is not in it is refused.
pub const PORTS: &str = "POLICY_PORTS";
/// Table of conversations of pods that have policies, IPv4: LRU hash, a tuple whose lower end stands first to
/// [`Conversation`].
pub const FLOWS4: &str = "POLICY_FLOWS4";
/// The same, IPv6.
pub const FLOWS6: &str = "POLICY_FLOWS6";
/// Table of what holds where, for people: hash, [`PolicyHeldKey`] to [`PolicyHeld`]. No program reads it.
pub const HELD: &str = "POLICY_HELD";

/// Table of the cgroups of pods that use the node's network and have policies: hash, a cgroup's identifier (`u64`) to the
/// number that stands for the index of a link of the pod (`u32`), see [`CGROUP_LINK`].
pub const CGROUPS: &str = "POLICY_CGROUPS";
/// Table of those pods, for people and for an agent that starts: hash, that number to [`PolicyPod`]. No program reads it.
pub const PODS: &str = "POLICY_PODS";

/// Links, of two epochs.
pub const LINKS_CAPACITY: u32 = 8_192;
/// Prefixes, of two epochs.
pub const PEERS_CAPACITY: u32 = 131_072;
/// Sets and identities, of two epochs.
pub const VERDICTS_CAPACITY: u32 = 524_288;
/// Prefixes of ports, of two epochs.
pub const PORTS_CAPACITY: u32 = 65_536;
/// Conversations of each family; the least recently used give way, and are judged anew when they go on.
pub const FLOWS_CAPACITY: u32 = 65_536;
/// Pods that use the node's network and have policies.
pub const CGROUPS_CAPACITY: u32 = 4_096;
/// Pairs of policy and pod.
pub const HELD_CAPACITY: u32 = 65_536;

/// A bit of numbers that stand for the index of a pod's link where the pod has none: no device's index has it.
pub const CGROUP_LINK: u32 = 1 << 31;
/// Cgroups above a process, of which one may be its pod's: deeper ones are not looked at.
pub const CGROUP_LEVELS: u32 = 16;
/// Octets of the longest identifier of a pod.
pub const POD_UID_LEN: usize = 64;

/// A pod that uses the node's network and has policies.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PolicyPod {
    /// The identifier of its cgroup; zero where it was not found, and no policy holds.
    pub cgroup: u64,
    /// The identifier that its cgroup is named after, zeros behind.
    pub uid: [u8; POD_UID_LEN],
}

/// What holds at this moment.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PolicyControl {
    /// A union of [`flags`].
    pub flags: u32,
    /// Which links and identities hold: others are those before, or are being written.
    pub epoch: u32,
    /// Changes with everything that may change a verdict; what was judged under another one is judged anew. Never
    /// zero.
    pub generation: u32,
    /// Zero.
    pub _pad: u32,
}

/// Bits of [`PolicyControl::flags`].
pub mod flags {
    /// There are policies: pods' links are looked up.
    pub const ENFORCED: u32 = 1 << 0;
    /// A link that is not in the table is a pod's of which nothing is known yet: nothing passes there but what the
    /// node itself has to do with it.
    pub const UNKNOWN_CLOSED: u32 = 1 << 1;
}

/// A link in an epoch.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct PolicyLinkKey {
    /// Index of the host's side.
    pub ifindex: u32,
    /// The epoch.
    pub epoch: u32,
}

/// What holds for the pod behind a link. A set of zero lets everything pass in its direction.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PolicyLink {
    /// The set for conversations that others begin.
    pub ingress: u32,
    /// The profile of identities of which that set says nothing.
    pub ingress_default: u32,
    /// The set for conversations that the pod begins.
    pub egress: u32,
    /// As `ingress_default`.
    pub egress_default: u32,
    /// Conversations may have begun before there was a policy, and until then who began them is told from their
    /// ports: seconds of `CLOCK_MONOTONIC`.
    pub adopt_until_secs: u32,
}

/// Identity of addresses that no policy names.
pub const NOBODY: u32 = 0;
/// A bit of the identities of this node's own addresses: a pod may always answer its node. No part of the identity
/// that sets know.
pub const NODE: u32 = 1 << 31;
/// The first identity, set or profile that is given out.
pub const FIRST_ID: u32 = 16;
/// The set of a pod whose policies found no room: nothing passes.
pub const CLOSED: u32 = 1;
/// The profile that lets nothing pass.
pub const REFUSE: u32 = 0;
/// The profile that lets everything pass.
pub const ACCEPT: u32 = 1;

/// A range of addresses in an epoch.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct PolicyPeerKey {
    /// How many leading bits of what follows count: [`EPOCH_BITS`] and those of the range.
    pub prefix_len: u32,
    /// The epoch.
    pub epoch: u32,
    /// Address, network order; IPv4-mapped (RFC 4291 section 2.5.5.2) where it is IPv4.
    pub addr: [u8; 16],
}

/// Bits of [`PolicyPeerKey::epoch`].
pub const EPOCH_BITS: u32 = 32;
/// Bits of a whole address.
pub const ADDRESS_BITS: u32 = 128;

/// What a set says of an identity.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct PolicyVerdictKey {
    /// The set.
    pub set: u32,
    /// The identity.
    pub identity: u32,
}

/// Ports that begin alike, of a profile.
#[repr(C, align(4))]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct PolicyPortKey {
    /// How many leading bits of what follows count: [`PORT_AT`] and those of the port.
    pub prefix_len: u32,
    /// The profile.
    pub profile: u32,
    /// IP protocol number; zero for all that have no ports a policy could name.
    pub proto: u8,
    /// Zero.
    pub _pad: u8,
    /// The server's port.
    pub port: U16,
}

/// Bits before [`PolicyPortKey::port`].
pub const PORT_AT: u32 = 48;

/// What was said of a conversation. The generations are of those who said it; zero where nobody has.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Conversation {
    /// Generation in which its client's policies let it pass.
    pub egress: u32,
    /// Generation in which its server's policies let it pass.
    pub ingress: u32,
    /// When a packet last passed: seconds of `CLOCK_MONOTONIC`.
    pub last_seen_secs: u32,
    /// Whether the end that stands second began it; zero or one.
    pub second_began: u32,
}

/// After that long without a packet a conversation is over, in seconds; one of TCP's is over when it is. Linux'
/// `nf_conntrack_udp_timeout_stream` and more.
pub const IDLE_SECS: u32 = 180;

/// A policy at a pod's link.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct PolicyHeldKey {
    /// The policy as it was written: a mark of its kind, name and generation, in two halves.
    pub policy: [u32; 2],
    /// Index of the host's side of the pod's link.
    pub ifindex: u32,
}

/// Since when a policy holds for a pod.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PolicyHeld {
    /// Seconds since 1970, in two halves, the lower first.
    pub since_secs: [u32; 2],
    /// Bits of [`held`]; zero where it holds as it is written.
    pub closed: u32,
}

/// Bits of [`PolicyHeld::closed`].
pub mod held {
    /// It found no room, and nothing passes in its stead.
    pub const NO_ROOM: u32 = 1 << 0;
    /// Something of it is not known here, and denies everything or lets nothing through in its stead.
    pub const ALTERED: u32 = 1 << 1;
}
