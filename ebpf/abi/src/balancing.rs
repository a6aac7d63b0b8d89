//! How external traffic gets to backends of other nodes. For people: the programs go by
//! [`crate::frontends::flags::DSR`] of each frontend.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of one element: array, 0 to [`Balancing`].
pub const NAME: &str = "BALANCING";

/// What the agent was told.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Balancing {
    /// A [`Mode`].
    pub mode: u32,
}

labelled! {
    /// The way of external traffic to backends of other nodes.
    pub enum Mode: u32 {
        /// With this node's address as its source; answers come back through this node.
        Snat = 0, "snat";
        /// As it came, in a packet to the backend's node; answers go straight to the client.
        Dsr = 1, "dsr";
        /// TCP as with `dsr`, the rest as with `snat`.
        Hybrid = 2, "hybrid";
    }
}
