//! Whether the TC programs send packets straight to pods of this node. Written by the agent, read with every packet
//! that could go so.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of one element: array, 0 to [`HostRouting`].
pub const NAME: &str = "HOST_ROUTING";

/// A lease rather than a switch: while nobody follows the host's routes and firewall, the stack routes.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct HostRouting {
    /// IPv4 packets go straight until then: seconds of `CLOCK_MONOTONIC`. Zero leaves all to the stack.
    pub until_secs4: u32,
    /// The same for IPv6.
    pub until_secs6: u32,
}
