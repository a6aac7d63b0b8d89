//! What kernel and userspace both read: the key, the value, the name and the default capacity of every
//! table, one module a table, and the closed list of what the programs count.
//!
//! Addresses and ports are in network order, so that bytes of a packet are a key as they stand; keys and values
//! are aligned to four bytes, so that programs move them in words. Identifiers and counts are the host's own integers.
//! No type has hidden padding: [`zerocopy::IntoBytes`] refuses it at compile time.
//!
//! This crate knows nothing about aya, the bpf(2) system call or Kubernetes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[macro_use]
mod labels;

pub mod affinity;
pub mod backends;
pub mod balancing;
pub mod config;
pub mod counters;
pub mod devices;
pub mod dns;
pub mod endpoints;
pub mod events;
pub mod flows;
pub mod fragments;
pub mod frontends;
pub mod host;
pub mod host_routing;
pub mod limits;
pub mod loads;
pub mod masquerade;
pub mod members;
pub mod namespaces;
pub mod next_hops;
pub mod openings;
pub mod passed;
pub mod policy;
pub mod quotas;
pub mod reverse_sockets;
pub mod rings;
pub mod sources;
pub mod spreads;

pub use affinity::{Affinity, AffinityKey};
pub use backends::{Backend, BackendId};
pub use balancing::Balancing;
pub use config::NodeConfig;
pub use counters::{Counter, CounterValue};
pub use devices::Device;
pub use dns::{DnsAnswer, DnsControl, DnsName};
pub use endpoints::Endpoint;
pub use events::{Event, Judged, Watcher, Watchers};
pub use flows::{Flow4, Flow6, FlowState4, FlowState6};
pub use fragments::{FragmentKey, FragmentPorts};
pub use frontends::{Frontend, FrontendKey4, FrontendKey6, Scope};
pub use host::Host;
pub use host_routing::HostRouting;
pub use limits::{Bucket, Limit};
pub use loads::{Connection, Load};
pub use masquerade::{InsideKey, Masquerade};
pub use members::{Member, MemberKey};
pub use namespaces::Namespace;
pub use next_hops::NextHop;
pub use passed::{PolicyAnswer, PolicyPassed};
pub use policy::{
    Conversation, PolicyControl, PolicyHeld, PolicyHeldKey, PolicyLink, PolicyLinkKey,
    PolicyPeerKey, PolicyPod, PolicyPortKey, PolicyVerdictKey,
};
pub use quotas::Quota;
pub use reverse_sockets::{ReverseSocket, ReverseSocketKey};
pub use rings::RingSlot;
pub use sources::{Source, SourceKey};
pub use spreads::SpreadWord;

/// Version of the whole layout; part of the pin path, so that programs and tables of two layouts never mix.
/// A test compares [`fingerprint`](layout::FINGERPRINT) with it: change a type and the version moves. Tables and
/// counters may be added to a version (see [`layout::ADDED`]): a program that does not know them loses nothing.
pub const LAYOUT_VERSION: u32 = 1;

/// Identifies a service port of one address family: the unit that frontends share and backends belong to.
/// Zero is never given out.
pub type ServiceId = u32;

/// The two IP versions, by the number that each carries in its first four bits.
pub mod family {
    /// IPv4.
    pub const V4: u8 = 4;
    /// IPv6.
    pub const V6: u8 = 6;
}

/// IP protocol numbers (IANA) that a Service may name.
pub mod protocol {
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 9260.
    pub const SCTP: u8 = 132;
}

pub mod layout;
