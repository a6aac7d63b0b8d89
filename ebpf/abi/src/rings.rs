//! Rings of backends: a frontend names a contiguous range of this table and a backend is chosen by index.
//! Written by the agent through mmap, read once for every new flow.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::BackendId;

/// Table of ring slots: array (mmapable), slot to [`RingSlot`].
pub const NAME: &str = "RINGS";
/// Default number of slots.
pub const CAPACITY: u32 = 1_048_576;

/// One slot of a ring. The kernel spaces array elements by eight bytes, so the second half is ours for free.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RingSlot {
    /// The backend that answers; zero while the slot belongs to no ring.
    pub backend: BackendId,
    /// Zero; room for a weight.
    pub _reserved: u32,
}
