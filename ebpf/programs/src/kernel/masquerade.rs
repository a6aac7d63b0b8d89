//! Pods' packets get this node's address where they leave it for the outside of the cluster, see
//! [`packet::balance::masquerade`]. What is of a flow that is known was found by whoever calls.

use abi::Counter;
use abi::events::kinds;
use abi::masquerade::families;
use packet::balance::code;
use packet::balance::masquerade::{self, Echo};
use packet::quote::{self, Way};
use packet::{Family, Flow as _, Headers, Tables, Transport};

use super::events;
use super::maps::MASQUERADE;
use super::outlined::{Plan, Told};
use super::skb::Skb;
use super::tables::Maps;
use super::tc::{self, NEXT, NOT_MENDED};

/// Whether packets of a family get this node's address at all.
#[inline(always)]
pub(crate) fn is_on<F: Family>() -> bool {
    let family = if F::NUMBER == abi::family::V4 {
        families::V4
    } else {
        families::V6
    };
    match MASQUERADE.get(0) {
        Some(control) => control.families & family != 0,
        None => false,
    }
}

/// Whether a packet that leaves by a node device may be a pod's: this host's own never came in.
#[inline(always)]
pub(crate) fn concerns<F: Family>(skb: Skb) -> bool {
    is_on::<F>() && skb.ingress_ifindex() != 0
}

/// Whether a pod's packet that goes to the next hop straight has to be seen where it leaves. A function of its own, for the
/// sake of the caller's stack.
#[inline(never)]
pub(crate) fn is_due<F: Family>(to: &F::Flow) -> bool {
    is_on::<F>() && masquerade::is_outside::<F, _>(&Maps, to.daddr())
}

/// Whether a packet that arrived at a node device, and that nothing was done to, may ask a pod from outside.
#[inline(always)]
pub(crate) fn may_ask<F: Family>(headers: &Headers<F>) -> bool {
    masquerade::may_ask(headers) && is_on::<F>()
}

/// Gives a packet that leaves by a node device this node's address, if it is a pod's for the outside.
#[inline(always)]
pub(crate) fn leave<F: Told>(skb: Skb, plan: &mut Plan<F>, decision: u32) -> i32
where
    Maps: Tables<F>,
{
    let is_icmp = plan.headers.transport == Transport::Icmp;
    let decision = if decision == code::FORWARD {
        decision
    } else {
        let Plan { headers, to } = plan;
        if is_icmp && masquerade::echo(&skb, headers) != Some(Echo::Request) {
            return NEXT;
        }
        code::of(masquerade::leave::<F, _>(&Maps, headers, to))
    };
    if decision == code::PASS {
        NEXT
    } else if decision >= code::DROP {
        tc::dropped(plan, decision - code::DROP, skb.ifindex())
    } else {
        carry_out(skb, plan, is_icmp, decision == code::NEW)
    }
}

/// Gives an echo reply that arrives at a node device, or an error about an echo request, to the pod that asked;
/// [`NOT_MENDED`] where it is none.
#[inline(always)]
pub(crate) fn arrive<F: Told>(skb: Skb, plan: &mut Plan<F>) -> i32
where
    Maps: Tables<F>,
{
    let Plan { headers, to } = plan;
    if masquerade::echo(&skb, headers) == Some(Echo::Reply)
        && code::of(masquerade::arrive::<F, _>(&Maps, headers, to)) == code::REPLY
    {
        carry_out(skb, plan, true, false)
    } else {
        // As it was read, for whoever looks next.
        headers.tuple = *to;
        mend(skb, plan)
    }
}

/// Gives an ICMP error about an echo request to the pod that asked; [`NOT_MENDED`] where it is about something else.
#[inline(always)]
fn mend<F: Told>(skb: Skb, plan: &Plan<F>) -> i32
where
    Maps: Tables<F>,
{
    let headers = &plan.headers;
    let Some(quote) = quote::echo_request(&skb, headers) else {
        return NOT_MENDED;
    };
    let Some(mended) = quote::mend(&Maps, Way::Arriving, headers, &quote.tuple) else {
        return NOT_MENDED;
    };
    match skb.mend(headers, &quote, &mended, true) {
        Ok(()) => {
            super::count::count(Counter::TcIcmpError, headers.bytes);
            let what = events::what(kinds::ERROR, Counter::TcIcmpError);
            F::tell(plan, what, skb.ifindex());
            NEXT
        }
        Err(counter) => tc::dropped(plan, counter as u32, skb.ifindex()),
    }
}

#[inline(always)]
fn carry_out<F: Told>(skb: Skb, plan: &Plan<F>, is_echo: bool, begins: bool) -> i32 {
    let Plan { headers, to } = plan;
    let rewritten = if is_echo {
        skb.rewrite_echo(headers, to)
    } else {
        skb.rewrite(headers, to)
    };
    match rewritten {
        Ok(()) => {
            super::count::count(Counter::TcMasquerade, headers.bytes);
            if begins {
                let what = events::what(kinds::NEW, Counter::TcMasquerade);
                F::tell(plan, what, skb.ifindex());
            }
            NEXT
        }
        Err(counter) => tc::dropped(plan, counter as u32, skb.ifindex()),
    }
}
