//! Flows in the order in which they began: a ring for each family, of which every flow that begins takes the next place. The
//! flow that had it before is let go where nothing but what began it was ever seen of it, so that a flood of those never
//! fills more than half of the table of flows, and flows that go on need not give way to it. Written and read by the
//! programs where a flow begins, and nowhere else.

/// Table of IPv4: array, a place to the tuple of the packet that began a flow
/// ([`crate::Flow4`]). The first element is none: it counts the places that were taken.
pub const NAME4: &str = "OPENINGS4";
/// The same of IPv6 ([`crate::Flow6`]).
pub const NAME6: &str = "OPENINGS6";

/// Elements of a ring beside a table of flows of `flows` entries, two of which are a flow.
#[must_use]
pub const fn capacity(flows: u32) -> u32 {
    flows / 4 + 1
}
