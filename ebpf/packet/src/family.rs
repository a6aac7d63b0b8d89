//! What differs between IPv4 and IPv6, so that everything else is written once.

use core::hint::black_box;

use abi::{
    Flow4, Flow6, FlowState4, FlowState6, FrontendKey4, FrontendKey6, NodeConfig, Scope, ServiceId,
    SourceKey, family,
};
use zerocopy::network_endian::U16;

use crate::{Bytes, Headers, parse, plain};

/// One of the two IP versions.
pub trait Family: Copy + Eq + core::fmt::Debug {
    /// Address, network order.
    type Address: Address;
    /// Key of the flows table: the tuple of a packet.
    type Flow: Flow<Address = Self::Address>;
    /// Value of the flows table.
    type State: State<Flow = Self::Flow>;
    /// Key of the frontends table.
    type FrontendKey: Copy + Eq + core::fmt::Debug;

    /// See [`abi::family`].
    const NUMBER: u8;

    /// Offset of the source address in the IP header; the destination follows it.
    const ADDRESSES_OFFSET: u32;
    /// Offset of the time to live (hop limit) in the IP header.
    const TTL_OFFSET: u32;
    /// Offset of the header checksum in the IP header, where there is one.
    const CHECK_OFFSET: Option<u32>;

    /// Protocol number of the family's ICMP.
    const ICMP: u8;

    /// Reads the IP header at `l3` and what follows.
    fn headers<B: Bytes + ?Sized>(bytes: &B, l3: u32) -> Headers<Self>;

    /// The same, into headers of which nothing is read yet.
    fn read<B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<Self>);

    /// The same of a packet whose headers are where they always are, behind a link header without tags; false of any other.
    fn read_plain<B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<Self>) -> bool;

    /// Builds a key of the frontends table.
    fn frontend_key(addr: Self::Address, port: U16, proto: u8, scope: Scope) -> Self::FrontendKey;

    /// Asks whether a service admits a client.
    fn source_key(service: ServiceId, client: Self::Address) -> SourceKey;

    /// The address of this node that translated sources carry; `None` when it has none of the family.
    fn node_address(config: &NodeConfig) -> Option<Self::Address>;
}

/// An IP address, network order.
pub trait Address: Copy + Eq + core::fmt::Debug {
    /// The address in sixteen bytes, IPv4 first and zeros behind: the form of tables that hold both families.
    fn padded(self) -> [u8; 16];
    /// The inverse of [`padded`](Self::padded).
    fn from_padded(padded: &[u8; 16]) -> Self;
    /// Number of its 32-bit words.
    const WORDS: usize;
    /// Its 32-bit words as they lie in memory, zeros behind.
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        zerocopy::transmute!(self.padded())
    }
    /// Whether it is the same address: compared in words, where `==` would call a function for every byte.
    #[inline(always)]
    fn is(self, other: Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.words(), other.words());
        a == e && b == f && c == g && d == h
    }
    /// Sum of its 32-bit words as they lie in memory, for [`crate::checksum`].
    fn sum(self) -> u64;
    /// Whom a socket reaches that names this address: the unspecified one stands for the host itself.
    fn reached(self) -> Self;
    /// The address that stands for it and all others of the loopback network, where that is another one.
    fn loopback(self) -> Option<Self>;
}

/// The tuple of a packet.
pub trait Flow: Copy + Eq + core::fmt::Debug {
    /// Address of the family.
    type Address: Address;

    /// A tuple of its parts, ports in network order.
    fn new(saddr: Self::Address, daddr: Self::Address, sport: U16, dport: U16, proto: u8) -> Self;
    /// Source address.
    fn saddr(&self) -> Self::Address;
    /// Destination address.
    fn daddr(&self) -> Self::Address;
    /// Source port, network order.
    fn sport(&self) -> U16;
    /// Destination port, network order.
    fn dport(&self) -> U16;
    /// IP protocol number.
    fn proto(&self) -> u8;
    /// Replaces the source port.
    fn set_sport(&mut self, port: U16);
    /// Replaces the destination port.
    fn set_dport(&mut self, port: U16);

    /// Whether it is the same tuple, compared in words.
    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        self.saddr().is(other.saddr())
            && self.daddr().is(other.daddr())
            && self.ports() == other.ports()
            && self.proto() == other.proto()
    }

    /// Both ports as they lie in a header.
    #[inline(always)]
    fn ports(&self) -> u32 {
        let ([a, b], [c, d]) = (self.sport().to_bytes(), self.dport().to_bytes());
        u32::from_ne_bytes([a, b, c, d])
    }

    /// The tuple of the answer.
    #[inline(always)]
    fn reversed(&self) -> Self {
        Self::new(
            self.daddr(),
            self.saddr(),
            self.dport(),
            self.sport(),
            self.proto(),
        )
    }
}

/// One direction of a flow.
pub trait State: Copy + Eq + core::fmt::Debug {
    /// Tuple of the family.
    type Flow: Flow;

    /// A state of its parts, see [`abi::flows`].
    fn new(to: Self::Flow, service: u32, backend: u32, last_seen_secs: u32, flags: u32) -> Self;
    /// What the packet becomes.
    fn to(&self) -> &Self::Flow;
    /// The service.
    fn service(&self) -> u32;
    /// The backend.
    fn backend(&self) -> u32;
    /// Bits of [`abi::flows::flags`].
    fn flags(&self) -> u32;
    /// When a packet last passed in this direction: seconds of `CLOCK_MONOTONIC`.
    fn last_seen_secs(&self) -> u32;
    /// Makes it the state of the other direction.
    fn redirect(&mut self, to: &Self::Flow, flags: u32);
}

/// IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V6;

macro_rules! family {
    ($family:ident, $len:literal, $number:expr, $flow:ident, $state:ident, $key:ident, $node:ident,
     $parse:path, $read:path, $plain:path, $addresses:literal, $ttl:literal, $check:expr, $icmp:path, $source:path) => {
        impl Family for $family {
            type Address = [u8; $len];
            type Flow = $flow;
            type State = $state;
            type FrontendKey = $key;

            const NUMBER: u8 = $number;
            const ADDRESSES_OFFSET: u32 = $addresses;
            const TTL_OFFSET: u32 = $ttl;
            const CHECK_OFFSET: Option<u32> = $check;
            const ICMP: u8 = $icmp;

            #[inline(always)]
            fn headers<B: Bytes + ?Sized>(bytes: &B, l3: u32) -> Headers<Self> {
                $parse(bytes, l3)
            }

            #[inline(always)]
            fn read<B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<Self>) {
                $read(bytes, headers);
            }

            #[inline(always)]
            fn read_plain<B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<Self>) -> bool {
                $plain(bytes, headers)
            }

            #[inline(always)]
            fn frontend_key(addr: [u8; $len], port: U16, proto: u8, scope: Scope) -> $key {
                $key {
                    addr,
                    port,
                    proto,
                    scope: scope as u8,
                }
            }

            #[inline(always)]
            fn source_key(service: ServiceId, client: [u8; $len]) -> SourceKey {
                $source(service, client, $len * 8)
            }

            #[inline(always)]
            fn node_address(config: &NodeConfig) -> Option<[u8; $len]> {
                (!config.$node.is([0; $len])).then_some(config.$node)
            }
        }

        impl Flow for $flow {
            type Address = [u8; $len];

            #[inline(always)]
            fn new(
                saddr: [u8; $len],
                daddr: [u8; $len],
                sport: U16,
                dport: U16,
                proto: u8,
            ) -> Self {
                Self {
                    saddr,
                    daddr,
                    sport,
                    dport,
                    proto,
                    _pad: [0; 3],
                }
            }
            #[inline(always)]
            fn saddr(&self) -> [u8; $len] {
                self.saddr
            }
            #[inline(always)]
            fn daddr(&self) -> [u8; $len] {
                self.daddr
            }
            #[inline(always)]
            fn sport(&self) -> U16 {
                self.sport
            }
            #[inline(always)]
            fn dport(&self) -> U16 {
                self.dport
            }
            #[inline(always)]
            fn proto(&self) -> u8 {
                self.proto
            }
            #[inline(always)]
            fn set_sport(&mut self, port: U16) {
                self.sport = port;
            }
            #[inline(always)]
            fn set_dport(&mut self, port: U16) {
                self.dport = port;
            }
        }

        impl State for $state {
            type Flow = $flow;

            #[inline(always)]
            fn new(to: $flow, service: u32, backend: u32, last_seen_secs: u32, flags: u32) -> Self {
                Self {
                    to,
                    service,
                    backend,
                    last_seen_secs,
                    flags,
                }
            }
            #[inline(always)]
            fn to(&self) -> &$flow {
                &self.to
            }
            #[inline(always)]
            fn service(&self) -> u32 {
                self.service
            }
            #[inline(always)]
            fn backend(&self) -> u32 {
                self.backend
            }
            #[inline(always)]
            fn flags(&self) -> u32 {
                self.flags
            }
            #[inline(always)]
            fn last_seen_secs(&self) -> u32 {
                self.last_seen_secs
            }
            #[inline(always)]
            fn redirect(&mut self, to: &$flow, flags: u32) {
                self.to = *to;
                self.flags = flags;
            }
        }
    };
}

family!(
    V4,
    4,
    family::V4,
    Flow4,
    FlowState4,
    FrontendKey4,
    addr4,
    parse::ipv4,
    parse::read_ipv4,
    plain::read_ipv4,
    12,
    8,
    Some(10),
    parse::ICMP,
    SourceKey::v4
);
family!(
    V6,
    16,
    family::V6,
    Flow6,
    FlowState6,
    FrontendKey6,
    addr6,
    parse::ipv6,
    parse::read_ipv6,
    plain::read_ipv6,
    8,
    7,
    None,
    parse::ICMPV6,
    SourceKey::v6
);

/// The loopback addresses that hosts have (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
const LOCALHOST4: [u8; 4] = [127, 0, 0, 1];
const LOCALHOST6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// `value` where `bits` are zero, else zero: without a branch, of which the verifier would walk both sides to the end.
#[inline(always)]
fn if_zero(bits: u32, value: u32) -> u32 {
    let sign = black_box(u64::from(bits).wrapping_sub(1)) >> 63;
    value * sign as u32
}

impl Address for [u8; 4] {
    const WORDS: usize = 1;

    #[inline(always)]
    fn padded(self) -> [u8; 16] {
        let [a, b, c, d] = self;
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }
    #[inline(always)]
    fn from_padded(padded: &[u8; 16]) -> Self {
        [padded[0], padded[1], padded[2], padded[3]]
    }
    #[inline(always)]
    fn sum(self) -> u64 {
        u64::from(u32::from_ne_bytes(self))
    }
    #[inline(always)]
    fn reached(self) -> Self {
        let addr = u32::from_be_bytes(self);
        (addr | if_zero(addr, u32::from_be_bytes(LOCALHOST4))).to_be_bytes()
    }
    #[inline(always)]
    fn loopback(self) -> Option<Self> {
        (self[0] == LOCALHOST4[0] && !self.is(LOCALHOST4)).then_some(LOCALHOST4)
    }
}

impl Address for [u8; 16] {
    const WORDS: usize = 4;

    #[inline(always)]
    fn padded(self) -> [u8; 16] {
        self
    }
    #[inline(always)]
    fn from_padded(padded: &[u8; 16]) -> Self {
        *padded
    }
    #[inline(always)]
    fn sum(self) -> u64 {
        let [a, b, c, d]: [u32; 4] = zerocopy::transmute!(self);
        u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d)
    }
    #[inline(always)]
    fn reached(self) -> Self {
        let [a, b, c, d] = self.words();
        let [.., one] = LOCALHOST6.words();
        zerocopy::transmute!([a, b, c, d | if_zero(a | b | c | d, one)])
    }
    #[inline(always)]
    fn loopback(self) -> Option<Self> {
        None
    }
}
