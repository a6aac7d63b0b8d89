//! How much a pod may send and get. Written by the CNI plugin, as the container runtime says; read and moved on by the
//! programs of the pod's link, which drop what is more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of pods' links that have a limit: hash, interface index (`u32`) to [`Limit`].
pub const NAME: &str = "LIMITS";
/// Default number of entries.
pub const CAPACITY: u32 = 4_096;

/// Table of one element: array, 0 to a number that is zero while no link ever had a limit. So a pod's packet costs one
/// look at a word where there are none.
pub const LIMITING: &str = "LIMITING";

/// A link's limits.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Limit {
    /// Of what the pod sends.
    pub sent: Bucket,
    /// Of what it gets.
    pub got: Bucket,
}

/// A bucket that leaks at a rate: what finds it full is too much.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Bucket {
    /// Octets that leak out in a second; zero for no limit.
    pub bytes_per_sec: u64,
    /// How long a full bucket takes to leak out, in nanoseconds.
    pub burst_ns: u64,
    /// When it will have leaked out: nanoseconds of `CLOCK_MONOTONIC`.
    pub empty_at_ns: u64,
}
