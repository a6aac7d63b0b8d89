//! Who may use a load balancer's addresses (`loadBalancerSourceRanges`). Written by the agent, read once for every new
//! flow of a frontend that says so.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ServiceId;

/// Table of ranges: longest-prefix trie, [`SourceKey`] to [`Source`]. A client that no range of the service holds is
/// not served.
pub const NAME: &str = "SOURCES";
/// Default number of ranges.
pub const CAPACITY: u32 = 65_536;

/// A range of clients of a service.
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
pub struct SourceKey {
    /// How many leading bits of what follows count: [`SERVICE_BITS`] and those of the range.
    pub prefix_len: u32,
    /// The service.
    pub service: ServiceId,
    /// Address, network order; IPv4-mapped (RFC 4291 section 2.5.5.2) where it is IPv4, so that every range tells its
    /// family.
    pub addr: [u8; 16],
}

/// Bits of [`SourceKey::service`].
pub const SERVICE_BITS: u32 = 32;
/// Bits before an IPv4 address that is mapped.
pub const MAPPED_BITS: u32 = 96;

impl SourceKey {
    /// A range of IPv4 addresses; all bits of one of them ask for the range that holds it.
    #[inline(always)]
    #[must_use]
    pub const fn v4(service: ServiceId, [a, b, c, d]: [u8; 4], bits: u32) -> Self {
        SourceKey {
            prefix_len: SERVICE_BITS + MAPPED_BITS + bits,
            service,
            addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
        }
    }

    /// As [`v4`](Self::v4), of IPv6 addresses.
    #[inline(always)]
    #[must_use]
    pub const fn v6(service: ServiceId, addr: [u8; 16], bits: u32) -> Self {
        SourceKey {
            prefix_len: SERVICE_BITS + bits,
            service,
            addr,
        }
    }
}

/// What is known of a range: nothing but that it is there.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Source {
    /// Zero.
    pub _reserved: u32,
}
