//! How many flows the frontends of a Service, and those of a namespace together, may have: a flood against one does not
//! take the others' room in the table of flows. Bounds and members are written by the agent, which counts anew now and
//! then; the programs count what begins in between.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of bounds: hash, [`crate::ServiceId`] or [`GROUP`] and a number to [`Quota`]. Read for a new flow of a frontend
/// that is [`crate::frontends::flags::LIMITED`]; what is not in the table has no bound.
pub const NAME: &str = "QUOTAS";
/// Default number of entries.
pub const CAPACITY: u32 = 262_144;
/// The bit of a key that is a group's: no service has it.
pub const GROUP: u32 = 1 << 31;

/// A service's groups, or a group's bound.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Quota {
    /// Of a service: the groups whose bounds hold for it; zero for none.
    pub groups: [u32; 2],
    /// Of a group: the most flows that it may have.
    pub flows_max: u32,
    /// How many it has, nearly.
    pub flows: u32,
    /// New flows that found no room since the agent last counted.
    pub refused: u32,
}
