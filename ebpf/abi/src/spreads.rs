//! Tables that spread a space of hashes over the backends of a ring: Maglev's, by which equal sets of backends give
//! equal tables on every node, and a set that changes moves little more than it must. They hold places in a ring
//! rather than backends, so that all services with equal sets share one. Written by the agent through mmap, read once
//! for every new flow of a frontend that says so.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of tables: array (mmapable), index to [`SpreadWord`]. A table begins with an element whose first word is the
/// number of its places; those follow, [`NARROW_PLACES`] or [`WIDE_PLACES`] an element.
pub const NAME: &str = "SPREADS";
/// Default number of elements.
pub const CAPACITY: u32 = 1_048_576;

/// Eight bytes of a table.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SpreadWord {
    /// Places from the lowest bits of the first word on, each one more than the place in the ring, so that no element
    /// of a table is empty.
    pub words: [u32; 2],
}

/// The longest ring whose places are bytes; those of a longer one are of sixteen bits.
pub const NARROW_MAX: u32 = 255;
/// The longest ring that there can be a table for.
pub const WIDE_MAX: u32 = 65_535;
/// Places in an element where they are bytes.
pub const NARROW_PLACES: u32 = 8;
/// Places in an element where they are of sixteen bits.
pub const WIDE_PLACES: u32 = 4;
