//! Decisions as numbers, for functions that the kernel's verifier walks by themselves: those return numbers alone.

use abi::Counter;

use super::{Decision, Kind};

/// [`Decision::Pass`].
pub const PASS: u32 = 0;
/// [`Decision::Answer`].
pub const ANSWER: u32 = 1;
/// [`Decision::Refuse`].
pub const REFUSE: u32 = 2;
/// [`Decision::Rewrite`], of each kind.
pub const NEW: u32 = 3;
/// As [`NEW`].
pub const FORWARD: u32 = 4;
/// As [`NEW`].
pub const REPLY: u32 = 5;
/// As [`NEW`].
pub const CHECKED: u32 = 6;
/// No decision of these: the packet was given its new tuple before, as with [`CHECKED`].
pub const DONE: u32 = 7;
/// As [`NEW`].
pub const NESTED: u32 = 8;
/// As [`NEW`]; nothing between this and [`DROP`] gives the packet another tuple.
pub const TUNNEL_NEW: u32 = 9;
/// As [`NEW`].
pub const TUNNEL: u32 = 10;
/// [`Decision::Drop`] begins here, plus the counter.
pub const DROP: u32 = 16;

/// The number of a decision.
#[inline(always)]
#[must_use]
pub const fn of(decision: Decision) -> u32 {
    match decision {
        Decision::Pass => PASS,
        Decision::Answer => ANSWER,
        Decision::Refuse => REFUSE,
        Decision::Rewrite(kind) => of_kind(kind),
        Decision::Drop(counter) => DROP + counter as u32,
    }
}

/// The number of a decision to rewrite.
#[inline(always)]
#[must_use]
pub const fn of_kind(kind: Kind) -> u32 {
    match kind {
        Kind::New => NEW,
        Kind::Forward => FORWARD,
        Kind::Reply => REPLY,
        Kind::Checked => CHECKED,
        Kind::Nested => NESTED,
        Kind::TunnelNew => TUNNEL_NEW,
        Kind::Tunnel => TUNNEL,
    }
}

/// The decision on beginning a flow that a number stands for; there are no other ones.
#[inline(always)]
#[must_use]
pub const fn beginning(code: u32) -> Decision {
    const NO_NODE_ADDRESS: u32 = DROP + Counter::DropNoNodeAddress as u32;
    const FLOWS_FULL: u32 = DROP + Counter::DropFlowsFull as u32;
    const SNAT_EXHAUSTED: u32 = DROP + Counter::DropSnatExhausted as u32;
    const NO_LOCAL_ENDPOINT: u32 = DROP + Counter::DropNoLocalEndpoint as u32;
    const SOURCE: u32 = DROP + Counter::DropSource as u32;
    const QUOTA: u32 = DROP + Counter::DropQuota as u32;
    match code {
        PASS => Decision::Pass,
        NEW => Decision::Rewrite(Kind::New),
        TUNNEL_NEW => Decision::Rewrite(Kind::TunnelNew),
        REFUSE => Decision::Refuse,
        NO_NODE_ADDRESS => Decision::Drop(Counter::DropNoNodeAddress),
        FLOWS_FULL => Decision::Drop(Counter::DropFlowsFull),
        SNAT_EXHAUSTED => Decision::Drop(Counter::DropSnatExhausted),
        NO_LOCAL_ENDPOINT => Decision::Drop(Counter::DropNoLocalEndpoint),
        SOURCE => Decision::Drop(Counter::DropSource),
        QUOTA => Decision::Drop(Counter::DropQuota),
        _ => Decision::Drop(Counter::DropNoBackend),
    }
}
