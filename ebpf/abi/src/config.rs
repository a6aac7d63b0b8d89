//! What the programs need to know of this node. Written by the agent, read where source translation happens.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of one element: array, 0 to [`NodeConfig`].
pub const NAME: &str = "CONFIG";

/// This node.
#[repr(C, align(4))]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct NodeConfig {
    /// IPv4 address that translated packets carry; zeros when this node has none.
    pub addr4: [u8; 4],
    /// IPv6 address that translated packets carry; zeros when this node has none.
    pub addr6: [u8; 16],
    /// First port for translated sources, network order.
    pub snat_port_min: U16,
    /// Last port for translated sources, network order.
    pub snat_port_max: U16,
}

/// Default range of ports for translated sources: above Linux's default `ip_local_port_range` (32768 to 60999),
/// so that no socket of the host gets the same one.
pub const SNAT_PORTS: core::ops::RangeInclusive<u16> = 61_000..=65_535;
