//! Which packets of pods leave the cluster with this node's address as their source. Written by the agent; read where a
//! packet that may be a pod's leaves by a node device and is of no flow yet, and where a pod's packet would pass that by.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of the cluster's ranges: longest-prefix trie, [`InsideKey`] to a union of [`flags`]. What is in none of them is
/// outside of the cluster.
pub const INSIDE: &str = "INSIDE";
/// Default number of ranges: some for each node.
pub const CAPACITY: u32 = 65_536;

/// Table of one element: array, 0 to [`Masquerade`].
pub const NAME: &str = "MASQUERADE";

/// Whether sources are translated at all. Written behind the ranges, so that none is missing when it begins; flows that
/// are translated stay so when it ends.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Masquerade {
    /// A union of [`families`].
    pub families: u32,
}

/// Bits of [`Masquerade::families`].
pub mod families {
    /// IPv4.
    pub const V4: u32 = 1 << 0;
    /// IPv6.
    pub const V6: u32 = 1 << 1;
}

/// A range of the cluster's.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct InsideKey {
    /// How many leading bits of what follows count: [`FAMILY_BITS`] and those of the range.
    pub prefix_len: u32,
    /// See [`crate::family`].
    pub family: u32,
    /// Address, network order, IPv4 in the first four bytes and zeros behind.
    pub addr: [u8; 16],
}

/// Bits of [`InsideKey::family`].
pub const FAMILY_BITS: u32 = 32;

/// What is known of a range.
pub mod flags {
    /// Pods of this node have its addresses.
    pub const PODS_HERE: u32 = 1 << 0;
}
