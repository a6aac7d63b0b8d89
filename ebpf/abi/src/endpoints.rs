//! Pods of this node, by address: where a packet for one goes without asking the stack's routing, and whether
//! the link that a packet came from is its source's own. Written by the agent from the host's routes; read by the
//! TC programs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of pods' IPv4 addresses: hash, address in network order to [`Endpoint`].
pub const NAME4: &str = "ENDPOINTS4";
/// Table of pods' IPv6 addresses: hash, address in network order to [`Endpoint`].
pub const NAME6: &str = "ENDPOINTS6";
/// Default number of entries of each table. A pod that finds no room is reached by the stack's routing.
pub const CAPACITY: u32 = 4_096;

/// A pod's link.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Endpoint {
    /// Index of the host's side.
    pub ifindex: u32,
    /// A union of [`flags`].
    pub flags: u16,
    /// Link address of the pod's side; zeros where it is not known.
    pub pod_link: [u8; 6],
    /// Link address of the host's side.
    pub host_link: [u8; 6],
    /// Zero.
    pub _pad: [u8; 2],
}

/// Bits of [`Endpoint::flags`].
pub mod flags {
    /// Nothing but Fairlead treats what leaves the host's side, so that going past it passes nothing by: the link
    /// has no queueing discipline of somebody's.
    pub const DIRECT: u16 = 1 << 0;
}
