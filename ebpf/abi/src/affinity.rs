//! Session affinity (`sessionAffinity: ClientIP`). Written and read by the programs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{BackendId, ServiceId};

/// Table of affinities: LRU hash, [`AffinityKey`] to [`Affinity`].
pub const NAME: &str = "AFFINITY";
/// Default number of entries.
pub const CAPACITY: u32 = 65_536;

/// A client of a service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AffinityKey {
    /// The client's address (IPv4 in the first four bytes) or, where a socket has no address yet, the cookie
    /// of its network namespace in the first eight: one pod is one namespace.
    pub client: [u8; 16],
    /// The service.
    pub service: ServiceId,
    /// One of [`client`].
    pub client_kind: u32,
}

/// Values of [`AffinityKey::client_kind`].
pub mod client {
    /// The client is named by its IP address.
    pub const ADDRESS: u32 = 0;
    /// The client is named by the cookie of its network namespace.
    pub const NETNS: u32 = 1;
}

/// Where a client was sent.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Affinity {
    /// The backend; holds only while that backend still belongs to the service.
    pub backend: BackendId,
    /// When the client last connected: seconds of `CLOCK_MONOTONIC`.
    pub last_used_secs: u32,
}
