//! Flows of the packet paths (TC and XDP). A flow is written as two entries, one for each direction; an entry
//! gives the whole tuple that a packet is rewritten to, so destination, source and hairpin translation are
//! one mechanism. Written and read by the programs; read by the agent for display and garbage collection.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{BackendId, ServiceId};

/// Table of IPv4 flows: LRU hash, [`Flow4`] to [`FlowState4`].
pub const NAME4: &str = "FLOWS4";
/// Table of IPv6 flows: LRU hash, [`Flow6`] to [`FlowState6`].
pub const NAME6: &str = "FLOWS6";
/// Default number of entries of each table.
pub const CAPACITY: u32 = 262_144;

macro_rules! flow {
    ($tuple:ident, $state:ident, $len:literal, $doc:literal) => {
        #[doc = concat!("The tuple of an ", $doc, " packet as it arrives, or as it is rewritten.")]
        #[repr(C, align(4))]
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        pub struct $tuple {
            /// Source address, network order.
            pub saddr: [u8; $len],
            /// Destination address, network order.
            pub daddr: [u8; $len],
            /// Source port, network order.
            pub sport: U16,
            /// Destination port, network order.
            pub dport: U16,
            /// IP protocol number.
            pub proto: u8,
            /// Zero.
            pub _pad: [u8; 3],
        }

        #[doc = concat!("One direction of an ", $doc, " flow.")]
        #[repr(C)]
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        pub struct $state {
            /// What the packet becomes.
            pub to: $tuple,
            /// The service that the flow belongs to.
            pub service: ServiceId,
            /// The backend that answers it.
            pub backend: BackendId,
            /// When a packet last passed in this direction: seconds of `CLOCK_MONOTONIC`.
            pub last_seen_secs: u32,
            /// A union of [`flags`].
            pub flags: u32,
        }

        impl $state {
            /// The tuple of what answers these packets: the key of the other direction's entry.
            #[must_use]
            pub const fn answer(&self) -> $tuple {
                $tuple {
                    saddr: self.to.daddr,
                    daddr: self.to.saddr,
                    sport: self.to.dport,
                    dport: self.to.sport,
                    ..self.to
                }
            }
        }
    };
}

flow!(Flow4, FlowState4, 4, "IPv4");
flow!(Flow6, FlowState6, 16, "IPv6");

/// Bits of `FlowState::flags`.
pub mod flags {
    /// The entry rewrites what the backend answers; otherwise what the client sends.
    pub const REPLY: u32 = 1 << 0;
    /// The source was translated to this node's address and a port of ours.
    pub const SNAT: u32 = 1 << 1;
    /// A FIN or RST passed: the flow is ending.
    pub const CLOSING: u32 = 1 << 2;
    /// Of the entry of answers: TCP's SYN began the flow, and its source address is the client's at the backend too.
    pub const OPENING: u32 = 1 << 3;
    /// The backend answered what began the flow.
    pub const ANSWERED: u32 = 1 << 4;
    /// The backend took what began the flow for a packet of another conversation: the client has one with the backend
    /// itself, of the same ports. The answers are that one's.
    pub const TAKEN: u32 = 1 << 5;

    /// Of the entry of answers from outside of the cluster to this node's address: they are answers of a service's flow,
    /// too, whose backend is there. What has become of them by this entry has another one.
    pub const NESTED: u32 = 1 << 6;
    /// The packet goes to the backend's node as it came, in another packet (`dsr`): the tuple that it becomes is what
    /// that node is told, and the answers do not come this way, so that there is no entry for them.
    pub const TUNNELLED: u32 = 1 << 7;

    /// Of this direction a RST or ABORT passed: neither side goes on, whatever the other direction says. Nobody
    /// looked at its sequence number.
    pub const RESET: u32 = 1 << 30;
    /// A packet of this direction passed that only goes on with what had begun: of TCP and SCTP one that neither opens nor
    /// refuses a connection, of other protocols any but the first. A flow without it in both of its entries is *young*,
    /// see [`crate::openings`].
    pub const GOES_ON: u32 = 1 << 31;

    /// The bits that hold the index of the device where packets of the client arrive, if it was asked once whether the
    /// way back to the client is the way that its packets come. Zero otherwise.
    pub const CHECKED_AT: u32 = 0x3fff_ff00;

    /// [`CHECKED_AT`] of a device.
    #[must_use]
    pub const fn checked_at(ifindex: u32) -> u32 {
        // No host counts so far; one that did would ask with each packet.
        if ifindex < 1 << 22 { ifindex << 8 } else { 0 }
    }
}
