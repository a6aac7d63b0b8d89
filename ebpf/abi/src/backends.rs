//! What answers. Written by the agent through mmap, read once for every new flow.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ServiceId;

/// Table of backends: array (mmapable), [`BackendId`] to [`Backend`].
pub const NAME: &str = "BACKENDS";
/// Default number of entries.
pub const CAPACITY: u32 = 524_288;

/// Index into the backends table. Zero is never given out: element 0 stays empty.
pub type BackendId = u32;

/// An endpoint of one service port. The same pod behind two service ports is two backends, so that
/// `backend.service == frontend.service` is all it takes to see that an identifier kept elsewhere (session
/// affinity, a UDP flow) still names a live endpoint of this service.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Backend {
    /// Address, network order; IPv4 in the first four bytes and zeros behind.
    pub addr: [u8; 16],
    /// Port, network order.
    pub port: U16,
    /// See [`crate::family`].
    pub family: u8,
    /// A union of [`flags`].
    pub flags: u8,
    /// The service that it belongs to; zero marks an empty element.
    pub service: ServiceId,
}

/// Bits of [`Backend::flags`].
pub mod flags {
    /// On this node: no source translation is needed for the answer to come back through us.
    pub const LOCAL: u8 = 1 << 0;
    /// On another node of the cluster, which takes off what this node puts around a packet.
    pub const TUNNELS: u8 = 1 << 1;
}
