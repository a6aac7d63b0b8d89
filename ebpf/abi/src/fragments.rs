//! The ports of fragmented packets: only the first fragment carries them, the later ones find them here.
//! Written by the programs when a first fragment is translated; read on every later fragment.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of fragmented packets: LRU hash, [`FragmentKey`] to [`FragmentPorts`].
pub const NAME: &str = "FRAGMENTS";
/// Default number of entries. A packet stays reassemblable for 30 s (`ipfrag_time`) at most.
pub const CAPACITY: u32 = 8_192;

/// What all fragments of a packet share (RFC 791 section 3.2, RFC 8200 section 4.5).
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentKey {
    /// Source address as the fragment arrives, network order; IPv4 in the first four bytes.
    pub saddr: [u8; 16],
    /// Destination address as the fragment arrives, network order; IPv4 in the first four bytes.
    pub daddr: [u8; 16],
    /// Identification, as it lies in the header; IPv4's in the first two bytes.
    pub id: [u8; 4],
    /// Protocol of IPv4, next header of IPv6's fragment header.
    pub proto: u8,
    /// See [`crate::family`].
    pub family: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

/// What only the first fragment carries.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentPorts {
    /// Source port, network order.
    pub sport: U16,
    /// Destination port, network order.
    pub dport: U16,
    /// Protocol of the transport header, behind IPv6's extension headers.
    pub proto: u8,
    /// Zero.
    pub _pad: [u8; 3],
}
