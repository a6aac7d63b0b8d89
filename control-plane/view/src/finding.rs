//! What could not be understood of a Service, and what was done instead.

use std::fmt;
use std::net::IpAddr;

/// A part of a Service or one of its EndpointSlices that is passed over while the rest works.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// An address that is no address, or one that cannot be balanced.
    Address {
        /// The field, or the EndpointSlice by name.
        at: String,
        /// As written.
        address: String,
        /// Why it is passed over.
        reason: &'static str,
    },
    /// A port outside of 1 to 65535.
    Port {
        /// The field, or the EndpointSlice by name.
        at: String,
        /// As written.
        port: i32,
    },
    /// A protocol that is not balanced.
    Protocol {
        /// The field, or the EndpointSlice by name.
        at: String,
        /// As written.
        protocol: String,
    },
    /// An annotation of ours that says nothing that we know.
    Annotation {
        /// The annotation, and the EndpointSlice by name where it is not the Service's.
        at: String,
        /// As written, or the part that is wrong.
        value: String,
        /// What would be right, and what holds instead.
        expected: &'static str,
    },
    /// A range of addresses that is none.
    Range {
        /// The field.
        at: &'static str,
        /// As written.
        range: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Address {
                at,
                address,
                reason,
            } => write!(f, "{at}: address {address:?} is left out: {reason}"),
            Finding::Port { at, port } => {
                write!(f, "{at}: port {port} is left out: not between 1 and 65535")
            }
            Finding::Protocol { at, protocol } => write!(
                f,
                "{at}: protocol {protocol:?} is left out: only TCP, UDP and SCTP are balanced"
            ),
            Finding::Annotation {
                at,
                value,
                expected,
            } => write!(f, "{at}: {value:?} is left out: {expected}"),
            Finding::Range { at, range } => {
                write!(f, "{at}: {range:?} is left out: not a range of addresses")
            }
        }
    }
}

/// Reads an address that packets can be sent to.
///
/// # Errors
///
/// Why it cannot be balanced. Kubernetes' API server refuses the same ones for endpoints.
pub(crate) fn usable(address: &str) -> Result<IpAddr, &'static str> {
    let addr: IpAddr = api::net::parse_ip(address).ok_or("not an IP address")?;
    let (link_local, mapped) = match addr {
        IpAddr::V4(v4) => (v4.is_link_local(), false),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.to_ipv4_mapped().is_some()),
    };
    match addr {
        _ if addr.is_unspecified() => Err("the unspecified address"),
        _ if addr.is_loopback() => Err("a loopback address"),
        _ if addr.is_multicast() => Err("a multicast address"),
        _ if link_local => Err("a link-local address"),
        _ if mapped => Err("an IPv4 address written as IPv6"),
        _ => Ok(addr),
    }
}

/// A port number that can be connected to.
pub(crate) fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}
