//! The cluster's own addresses: those of its nodes, and the ranges that their pods are in. Written by the agent from the
//! Nodes; read where an outside client's new flow might go to another node as it came, and where such a packet arrives.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of addresses: longest-prefix trie, [`MemberKey`] to [`Member`]. What no range holds is outside of the cluster.
pub const NAME: &str = "MEMBERS";
/// Default number of ranges: some of each family for each of ten thousand nodes.
pub const CAPACITY: u32 = 65_536;

/// A range of addresses.
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
pub struct MemberKey {
    /// How many leading bits of what follows count.
    pub prefix_len: u32,
    /// Address, network order; IPv4-mapped (RFC 4291 section 2.5.5.2) where it is IPv4.
    pub addr: [u8; 16],
}

/// What is known of a range.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Member {
    /// A union of [`flags`].
    pub flags: u32,
}

/// Bits of [`Member::flags`]. A range with none of them is that of another node's pods.
pub mod flags {
    /// A node's own address. A packet in a packet is taken off where a node sent it, and nowhere else.
    pub const NODE: u32 = 1 << 0;
    /// This node's, or its pods'.
    pub const HERE: u32 = 1 << 1;
    /// Set in every entry, so that an entry is told from none.
    pub const KNOWN: u32 = 1 << 31;
}
