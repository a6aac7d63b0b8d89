//! How many connections each backend has from sockets of this node, for services that ask for the least used one.
//!
//! Counted where a socket connects and where it is closed, whatever the peer did meanwhile: what a client holds open
//! counts. Clients that the packet programs balance, and those of other nodes, are not seen.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{BackendId, ServiceId};

/// Table of loads: array (mmapable), [`BackendId`] to [`Load`]. As many elements as [`crate::backends`]. Written by the
/// programs; emptied by the agent when the identifier gets a new meaning.
pub const NAME: &str = "LOADS";

/// Table of counted sockets: socket storage, [`Connection`]. Written and read by the programs; the kernel drops the
/// entry with the socket.
pub const CONNECTIONS: &str = "CONNECTIONS";

/// What a backend has to do.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Load {
    /// Sockets that are connected to it, or were and are not closed yet. Read as a signed number: one that was counted
    /// for the identifier's earlier meaning may make it less than none.
    pub connections: u64,
}

/// What a socket is counted for.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Connection {
    /// The backend; zero when the socket is counted for none.
    pub backend: BackendId,
    /// The service that the backend belonged to.
    pub service: ServiceId,
}
