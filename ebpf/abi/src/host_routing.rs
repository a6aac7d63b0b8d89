//! Whether the TC programs send packets on past the host's stack: to pods of this node, and from these to others.
//! Written by the agent, read with every packet that could go so.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of one element: array, 0 to [`HostRouting`].
pub const NAME: &str = "HOST_ROUTING";

/// A lease rather than a switch: while nobody follows the host's routes and firewall, the stack routes.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct HostRouting {
    /// IPv4 packets go straight until then: seconds of `CLOCK_MONOTONIC`. Zero leaves all to the stack.
    pub until_secs4: u32,
    /// The same for IPv6.
    pub until_secs6: u32,
    /// Why IPv4 packets do not: a [`Reason`]. For people; no program reads it.
    pub reason4: u32,
    /// The same for IPv6.
    pub reason6: u32,
}

labelled! {
    /// Why packets take the stack's way.
    pub enum Reason: u32 {
        /// No agent has said anything yet.
        Unknown = 0, "no agent has decided yet";
        /// They do not.
        None = 1, "nothing stands in the way";
        /// It was asked for.
        Asked = 2, "asked for by --host-routing";
        /// The host forwards nothing.
        NoForwarding = 3, "the host does not forward packets of this family";
        /// Chains or tables hang where forwarded packets pass, and would be passed by.
        Netfilter = 4, "netfilter has chains where forwarded packets pass";
        /// Rules choose among routing tables, or routes go by more than addresses.
        Rules = 5, "the host has routing rules, or routes with an MTU or type of service, of its own";
        /// The host could not be asked.
        Unread = 6, "the host's firewall, rules or IPsec policies could not be read";
        /// Packets for other hosts might have to be encrypted.
        Ipsec = 7, "the host has IPsec policies";
        /// Programs or filters of others see what arrives at a link, behind ours.
        Foreign = 8, "programs or filters of others see what arrives at our links";
    }
}

/// How long a lease lasts, in seconds: longer than an agent takes to be replaced.
pub const LEASE_SECS: u32 = 10;
