//! The host that the agent runs on, as the socket programs need to know it. Written by the agent when it starts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of one element: array, 0 to [`Host`].
pub const NAME: &str = "HOST";

/// The agent's own network namespace.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Host {
    /// Its cookie (`SO_NETNS_COOKIE`, `bpf_get_netns_cookie`); zero while nobody said, which is no namespace's.
    pub netns_cookie: u64,
}
