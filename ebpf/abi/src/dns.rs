//! Names of Services that the programs answer for, and how: written by the process that holds the cluster's DNS zone,
//! read with every datagram to the DNS Service. What is not in the table goes on to the server.
//!
//! A name is in the table as it is on the wire (RFC 1035 section 3.1), in lower case, whole, so that no other name is
//! taken for it. Order: before the server shows a change, the table has it; a lease ends what a dead process left.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of names: hash, [`DnsName`] to [`DnsAnswer`].
pub const NAMES: &str = "DNS_NAMES";
/// Default number of entries. A name that finds no room is answered by the server.
pub const NAMES_CAPACITY: u32 = 65_536;
/// Octets of a name at most, the root's included; a longer one is answered by the server.
pub const NAME_MAX: usize = 128;

/// Table of one element: array in shared memory, 0 to [`DnsControl`].
pub const CONTROL: &str = "DNS_CONTROL";

/// Room where a program takes a message apart, one copy for each CPU: array, 0 to [`SCRATCH_LEN`] octets.
pub const SCRATCH: &str = "DNS_SCRATCH";
/// Octets of an element of [`SCRATCH`].
pub const SCRATCH_LEN: usize = 512;

/// Table of one socket, which its process only holds open: the kernel takes it out at the moment that the process ends,
/// and nothing goes by [`DnsControl`] any more.
pub const ALIVE: &str = "DNS_ALIVE";

/// How long a lease lasts, in seconds. It is renewed every second.
pub const LEASE_SECS: u32 = 3;

/// A name in wire form and lower case, zeros behind.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DnsName {
    /// The octets, in words as they lie in memory: a program moves and folds eight at a time.
    pub words: [u64; NAME_MAX / 8],
}

impl DnsName {
    /// From wire form in lower case; `None` when it is too long.
    #[must_use]
    pub fn new(wire: &[u8]) -> Option<Self> {
        let mut name = DnsName {
            words: [0; NAME_MAX / 8],
        };
        let room = name.words.as_mut_bytes().get_mut(..wire.len())?;
        room.copy_from_slice(wire);
        Some(name)
    }
}

/// What is answered for a name: addresses of a Service, one of a family.
#[repr(C, align(4))]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DnsAnswer {
    /// The A record's address, if [`flags::A`] says that there is one.
    pub addr4: [u8; 4],
    /// The AAAA record's, if [`flags::AAAA`] does.
    pub addr6: [u8; 16],
    /// Seconds that answers may be kept.
    pub ttl: U32,
    /// Where the zone begins in the name: a family without an address is answered with the zone's SOA.
    pub zone_at: u8,
    /// A union of [`flags`].
    pub flags: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

/// Bits of [`DnsAnswer::flags`].
pub mod flags {
    /// There is an A record.
    pub const A: u8 = 1 << 0;
    /// There is an AAAA record.
    pub const AAAA: u8 = 1 << 1;
}

/// The DNS Service, this node's own instance of it, and until when to go by either. Zeros name nothing.
///
/// Memory that the writer shares with the programs: words of eight bytes change whole, the last one last. Addresses
/// change only while nothing goes by them, so that a program that reads them half written does no harm.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DnsControl {
    /// The Service's IPv4 address.
    pub service4: [u8; 4],
    /// The Service's IPv6 address.
    pub service6: [u8; 16],
    /// IPv4 address of this node's instance.
    pub local4: [u8; 4],
    /// IPv6 address of this node's instance.
    pub local6: [u8; 16],
    /// The Service's port, UDP and TCP alike.
    pub service_port: U16,
    /// Port of this node's instance.
    pub local_port: U16,
    /// Why names are not answered: a [`Reason`]. For people; no program reads it.
    pub answers_reason: u8,
    /// Why queries are not sent to this node's instance.
    pub local_reason: u8,
    /// Names that found no room, as many as can be told. For people.
    pub left_out: u16,
    /// Grows before [`NAMES`] changes and again after: odd meanwhile. The kernel may give the memory of an entry that
    /// goes to another one at once, so that what was read is an answer only if this stayed the same and even.
    pub generation: u32,
    /// Serial of the zones (RFC 1035 section 3.3.13).
    pub serial: U32,
    /// Names are answered until then: seconds of `CLOCK_MONOTONIC`. Zero leaves all to the server; where queries are not
    /// sent to this node's instance, pods' queries pass it by after this time.
    pub answers_until_secs: u32,
    /// Pods' queries go to this node's own instance until then, afterwards to other endpoints of the Service. Zero where
    /// nobody asked for it: the instance is an endpoint like any other.
    pub local_until_secs: u32,
}

labelled! {
    /// Why the programs leave queries to the Service's endpoints.
    pub enum Reason: u8 {
        /// Nobody asked for it.
        NotAsked = 0, "not asked for";
        /// They do not.
        None = 1, "nothing stands in the way";
        /// The zone is not known yet.
        Unsynced = 2, "not every Service has been heard of yet";
        /// There is no Service to answer for.
        NoService = 3, "the cluster has no DNS Service with an address of its own";
        /// No block of the Corefile answers names of the cluster without looking at each query.
        Chain = 4, "the Corefile has plugins that may change answers; the server's log names them";
        /// The process ended.
        Ended = 5, "the DNS server ended";
        /// The instance does not answer.
        Unhealthy = 6, "this node's instance does not answer";
        /// It listens nowhere where pods reach it.
        NoListener = 7, "this node's instance listens on no address that pods reach";
    }
}
