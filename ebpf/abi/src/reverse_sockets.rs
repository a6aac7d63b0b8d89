//! What a balanced socket believes that it talks to, so that UDP answers and getpeername(2) show the service's
//! address. Written and read by the cgroup programs.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of balanced sockets: LRU hash, [`ReverseSocketKey`] to [`ReverseSocket`].
pub const NAME: &str = "REVERSE_SOCKETS";
/// Default number of entries.
pub const CAPACITY: u32 = 262_144;

/// A socket and the backend that it was sent to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReverseSocketKey {
    /// Socket cookie (`bpf_get_socket_cookie`).
    pub cookie: u64,
    /// The backend's address, network order; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// The backend's port, network order.
    pub port: U16,
    /// See [`crate::family`].
    pub family: u8,
    /// Zero.
    pub _pad: [u8; 5],
}

/// The frontend that the socket asked for.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ReverseSocket {
    /// The frontend's address, network order; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// The frontend's port, network order.
    pub port: U16,
    /// Zero.
    pub _pad: [u8; 2],
}
