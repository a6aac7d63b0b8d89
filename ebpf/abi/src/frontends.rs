//! Where clients connect. Written by the agent, read once for every new connection or flow.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ServiceId;

/// Table of IPv4 frontends: hash, [`FrontendKey4`] to [`Frontend`].
pub const NAME4: &str = "FRONTENDS4";
/// Table of IPv6 frontends: hash, [`FrontendKey6`] to [`Frontend`].
pub const NAME6: &str = "FRONTENDS6";
/// Default number of entries of each table.
pub const CAPACITY: u32 = 131_072;

/// Who a frontend serves. Kubernetes' two traffic policies make one address answer differently to the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Scope {
    /// Every client that finds no entry of a closer scope.
    Any = 0,
    /// Clients outside of the cluster, where externalTrafficPolicy is Local. Those inside are served by every endpoint
    /// all the same, as if they had gone out to the load balancer and come back in at any node.
    External = 1,
}

/// An IPv4 address and port that clients connect to.
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
pub struct FrontendKey4 {
    /// Destination address, network order.
    pub addr: [u8; 4],
    /// Destination port, network order.
    pub port: U16,
    /// IP protocol number, see [`crate::protocol`].
    pub proto: u8,
    /// A [`Scope`].
    pub scope: u8,
}

/// An IPv6 address and port that clients connect to.
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
pub struct FrontendKey6 {
    /// Destination address, network order.
    pub addr: [u8; 16],
    /// Destination port, network order.
    pub port: U16,
    /// IP protocol number, see [`crate::protocol`].
    pub proto: u8,
    /// A [`Scope`].
    pub scope: u8,
}

/// What a frontend leads to: a contiguous range of the rings table.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Frontend {
    /// The service that this frontend belongs to; all frontends of a service share its ring and affinity.
    pub service: ServiceId,
    /// First slot of the ring.
    pub ring_offset: u32,
    /// Number of slots; zero means that the service has no endpoint and refuses.
    pub ring_len: u32,
    /// Session affinity timeout in seconds; zero means no affinity.
    pub affinity_secs: u32,
    /// A union of [`flags`].
    pub flags: u32,
}

/// Bits of [`Frontend::flags`].
pub mod flags {
    /// The frontend is a node's own address (NodePort): traffic from outside that goes to a backend on another
    /// node must carry this node's address as its source, or the answer would bypass us.
    pub const NODE_PORT: u32 = 1 << 0;
    /// While the ring is empty, packets are dropped rather than refused: there are endpoints, but a traffic policy
    /// keeps this node's clients from them. A socket is refused all the same, since nothing else could be done to it.
    pub const DROP: u32 = 1 << 1;
    /// Only clients in the service's [`crate::sources`] are served.
    pub const CHECK_SOURCE: u32 = 1 << 2;
    /// Only sockets of the host's own network namespace ([`crate::host`]) find the frontend: a loopback address is
    /// another one in every namespace.
    pub const HOST_ONLY: u32 = 1 << 3;
    /// Backends are chosen through a table of [`crate::spreads`]: the slot behind the ring's last one holds the index
    /// of its first element in the place of a backend.
    pub const SPREAD: u32 = 1 << 4;
    /// The place in the table is a hash of the packet's tuple, the same on every node; so it is for every packet but
    /// where [`LEAST`] is asked for alone. A socket that connects has no port yet, and goes by chance.
    pub const HASHED: u32 = 1 << 5;
    /// Of two backends that chance picks, a socket gets the one with fewer connections ([`crate::loads`]).
    pub const LEAST: u32 = 1 << 6;
    /// What comes from outside for a backend that [`crate::backends::flags::TUNNELS`] goes there as it came.
    pub const DSR: u32 = 1 << 7;
    /// New flows are counted against bounds ([`crate::quotas`]).
    pub const LIMITED: u32 = 1 << 8;
    /// Of a loopback address with [`HOST_ONLY`]: it stands for itself. Without, 127.0.0.1 stands for every address of
    /// its network that has no frontend of its own on that port.
    pub const EXACT: u32 = 1 << 9;
}

/// Port and protocol of an entry that says: this address is a service's alone (a ClusterIP, never a node's own).
/// It has no ring. What comes to such an address and has no readable port (a cut or malformed header, a
/// fragment whose first one never came) is dropped and counted; what would begin a conversation with a port that the
/// service does not have is refused. Without the entry both pass.
pub const WHOLE_ADDRESS: u8 = 0;
