//! Whose network namespace is whose: the addresses of the pod behind a cookie, so that a call on a socket, which has no
//! address yet, is known to session affinity as the same client that its packets would be. Written by whoever makes pods'
//! links; read by the cgroup programs where a Service has session affinity.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of pods' network namespaces: hash, cookie (`u64`) to [`Namespace`]. A cookie is never given twice.
pub const NAME: &str = "NAMESPACES";
/// Default number of entries.
pub const CAPACITY: u32 = 16_384;

/// The pod of a network namespace.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Namespace {
    /// Its IPv4 address, network order, in the first four bytes; zero where it has none.
    pub addr4: [u8; 16],
    /// Its IPv6 address; zero where it has none.
    pub addr6: [u8; 16],
}
