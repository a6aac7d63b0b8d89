//! What the programs tell those who watch: flows that begin, packets and calls that are dropped or refused, errors that
//! are given to whoever they are about, and conversations that policies let begin. While nobody watches nothing is told,
//! and only four words are looked at; packets of known flows do not come near those.
//!
//! Each watcher has a ring of its own among a few, and renews a lease: one that was killed is told nothing for long.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rings of [`Event`]s, a watcher's each.
pub const RINGS: [&str; WATCHERS] = ["EVENTS0", "EVENTS1", "EVENTS2", "EVENTS3"];
/// Bytes of a ring: some two thousand events.
pub const RING_LEN: u32 = 1 << 18;
/// How many may watch at once.
pub const WATCHERS: usize = 4;

/// Table of one element: array in shared memory, 0 to [`Watchers`].
pub const SWITCHES: &str = "SWITCHES";

/// Table of events that found no room, by ring: per-CPU array, ring to a count.
pub const LOST: &str = "EVENTS_LOST";

/// How long a lease lasts, in seconds. It is renewed every second.
pub const LEASE_SECS: u32 = 3;

/// Who watches what. Each watcher writes its own element, in words.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Watchers {
    /// By ring.
    pub watchers: [Watcher; WATCHERS],
}

/// What is told to a ring. The first word goes last when it begins, and first when it ends.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Watcher {
    /// Until then: seconds of `CLOCK_MONOTONIC`. Zero while nobody has the ring.
    pub until_secs: u32,
    /// A union of [`kinds`].
    pub kinds: u32,
    /// Of 2^32 random numbers, those below are told; zero tells all.
    pub threshold: u32,
    /// Zero.
    pub _pad: u32,
}

/// Bits of [`Watcher::kinds`].
pub mod kinds {
    /// A flow begins, or a connect is sent to a backend.
    pub const NEW: u32 = 1 << 0;
    /// A packet is dropped, or a call refused since something is amiss.
    pub const DROP: u32 = 1 << 1;
    /// A packet or call is answered with an error: nobody listens there, or it is too big for its way.
    pub const REFUSE: u32 = 1 << 2;
    /// An ICMP error about a packet of a flow is given to whoever sent that packet.
    pub const ERROR: u32 = 1 << 3;
    /// The policies of a pod were asked, and let a conversation begin.
    pub const POLICY: u32 = 1 << 4;
    /// All of them.
    pub const ALL: u32 = NEW | DROP | REFUSE | ERROR | POLICY;
}

labelled! {
    /// What happens without being counted, in [`Event::what`] beside the numbers of [`crate::Counter`].
    pub enum Judged: u16 {
        /// The policies of the pod that it is for let a conversation begin.
        Ingress = 256, "policy_ingress";
        /// The policies of the pod that it is from let a conversation begin.
        Egress = 257, "policy_egress";
    }
}

/// Octets of a process's name, see `TASK_COMM_LEN` of linux/sched.h.
pub const COMM_LEN: usize = 16;

/// Something that happened.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Event {
    /// When: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Of a call on a socket, the cookie of its network namespace; zero otherwise.
    pub netns_cookie: u64,
    /// Source address as it came, network order, IPv4 in the first four bytes; zeros for a call, whose socket may have
    /// none yet.
    pub saddr: [u8; 16],
    /// Destination address.
    pub daddr: [u8; 16],
    /// Source address as it leaves.
    pub to_saddr: [u8; 16],
    /// Destination address as it leaves.
    pub to_daddr: [u8; 16],
    /// Source port, network order.
    pub sport: U16,
    /// Destination port.
    pub dport: U16,
    /// Source port as it leaves.
    pub to_sport: U16,
    /// Destination port as it leaves.
    pub to_dport: U16,
    /// Bytes from the network header on; zero for a call.
    pub bytes: u32,
    /// Index of the device where the packet was seen, or of the pod's link whose policies judged it; zero for a call.
    pub ifindex: u32,
    /// Of a call, the process that makes it (thread group, as the initial PID namespace numbers it); zero otherwise.
    pub pid: u32,
    /// What happened, and why: the number of a [`crate::Counter`] or a [`Judged`].
    pub what: u16,
    /// See [`crate::family`].
    pub family: u8,
    /// IP protocol number.
    pub proto: u8,
    /// Of a call, the name of the thread that makes it, with zeros behind; zeros otherwise.
    pub comm: [u8; COMM_LEN],
}
