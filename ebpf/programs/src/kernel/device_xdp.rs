//! A node device, frames that arrive, before the kernel makes buffers of them. What XDP cannot finish it leaves
//! untouched: `device_ingress` sees it next and finds the flow that was begun here.

use abi::events::kinds;
use abi::flows::flags::checked_at;
use abi::{Counter, devices};
use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use packet::balance::{code, source_changes};
use packet::{Family, Fault, Link, Tables, V4, V6, parse};

use super::count::{count, count_number};
use super::frame::Frame;
use super::outlined::{self, Plan, Told, place};
use super::route::{self, Route};
use super::tables::{Maps, device_has, routes_here};
use super::tunnel::Tunnelled;
use super::{direct, dns, events, hint, tunnel};

#[xdp(frags)]
pub(crate) fn device_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    match parse::link(&frame) {
        Link::V4(l3) => frame4(frame, l3),
        Link::V6(l3) => frame6(frame, l3),
        Link::Other => NEXT,
    }
}

/// The verdict on what the kernel carries on with.
pub(crate) const NEXT: u32 = XDP_PASS;

macro_rules! arriving {
    ($family:ty, $frame:expr, $l3:expr, $read:ident, $decide:ident, $carry:ident, $dns:ident) => {{
        let mut plan = Plan::new($l3);
        if outlined::$read($frame.ctx(), &mut plan) == 0 {
            return NEXT;
        }
        if dns::asks(&plan.headers) {
            let verdict = outlined::$dns($frame.ctx(), &plan);
            if verdict != dns::LEFT {
                return verdict as u32;
            }
        }
        let decision = outlined::$decide(&mut plan, place::WIRE, $frame.ifindex());
        if decision >= code::TUNNEL_NEW {
            if decision >= code::DROP {
                dropped(&plan, decision - code::DROP, $frame.ifindex())
            } else {
                <$family as Tunnelled>::send_frame($frame.ctx(), &plan, decision)
            }
        } else if decision == code::REFUSE {
            count(Counter::XdpNoEndpoint, plan.headers.bytes);
            NEXT
        } else if decision < code::REFUSE {
            // Not ours, or TC's; or in a packet of another node's.
            if !tunnel::may_be(&plan.headers) {
                return NEXT;
            }
            match tunnel::take_off_frame($frame, &mut plan) {
                code::PASS => NEXT,
                decision if decision >= code::DROP => {
                    dropped(&plan, decision - code::DROP, $frame.ifindex())
                }
                decision => outlined::$carry($frame.ctx(), &plan, decision),
            }
        } else {
            outlined::$carry($frame.ctx(), &plan, decision)
        }
    }};
}

// Functions of their own, so that only one family's plan lies on the stack.

#[inline(never)]
fn frame4(frame: Frame, l3: u32) -> u32 {
    arriving!(V4, frame, l3, xdp_read4, decide4, xdp_carry4, xdp_dns4)
}

#[inline(never)]
fn frame6(frame: Frame, l3: u32) -> u32 {
    arriving!(V6, frame, l3, xdp_read6, decide6, xdp_carry6, xdp_dns6)
}

/// Reads a frame; false where that is left to TC.
#[inline(always)]
pub(crate) fn read<F: Family>(frame: Frame, plan: &mut Plan<F>) -> bool {
    F::read(&frame, &mut plan.headers);
    plan.to = plan.headers.tuple;
    // Headers beyond the first buffer can be read by TC.
    plan.headers.fault == Fault::None || frame.is_one_buffer()
}

/// Sends a packet towards its new tuple, and counts it.
#[inline(always)]
pub(crate) fn forward<F: Told>(frame: Frame, plan: &Plan<F>, decision: u32) -> u32
where
    Maps: Tables<F>,
{
    let Plan { headers, to } = plan;
    let mut hop = NEXT;
    let changes_source = source_changes::<F>(&headers.tuple, to);
    // To a backend on this node TC delivers the packet, or the stack.
    if changes_source {
        // A tagged frame belongs to another device than the one that routes are looked up from.
        if headers.l3 == parse::ETHERNET_LEN && transmits(frame.ifindex()) {
            hop = send::<F>(frame, to);
        }
        if hop == NEXT {
            // TC counts the packet as one of a known flow, and sends it.
            if decision == code::NEW {
                count(Counter::XdpNewFlow, headers.bytes);
                tell_new(plan, frame);
            }
            return NEXT;
        }
    }
    let mut hops = hop != NEXT;
    if !changes_source && is_checked(frame, plan, decision) {
        let pod = direct::pod_behind::<F>(&frame, headers, to);
        hops = hint::leave(&frame, pod) && pod.is_some();
    }
    match frame.rewrite(headers, to, hops) {
        Ok(()) => {
            count(counter(decision), headers.bytes);
            if decision == code::NEW {
                tell_new(plan, frame);
            }
            hop
        }
        Err(counter) => dropped(plan, counter as u32, frame.ifindex()),
    }
}

/// Whether TC need not ask for the way back to the client of a packet for a pod of this node: it was asked for when the
/// flow began, or is now.
#[inline(always)]
fn is_checked<F: Family>(frame: Frame, plan: &Plan<F>, decision: u32) -> bool
where
    Maps: Tables<F>,
{
    if !routes_here::<F>() {
        return false;
    }
    let tuple = &plan.headers.tuple;
    match decision {
        code::CHECKED => true,
        code::NEW => {
            let checked = direct::is_from_outside::<F>(frame.ctx().cast(), frame.ifindex(), tuple);
            if checked {
                Maps.mark_flow(tuple, checked_at(frame.ifindex()));
            }
            checked
        }
        _ => false,
    }
}

#[inline(always)]
fn tell_new<F: Told>(plan: &Plan<F>, frame: Frame) {
    let what = events::what(kinds::NEW, Counter::XdpNewFlow);
    F::tell(plan, what, frame.ifindex());
}

#[inline(always)]
pub(crate) fn dropped<F: Told>(plan: &Plan<F>, counter: u32, ifindex: u32) -> u32 {
    count_number(counter, plan.headers.bytes);
    F::tell(plan, events::what_number(kinds::DROP, counter), ifindex);
    XDP_DROP
}

#[inline(always)]
fn counter(decision: u32) -> Counter {
    match decision {
        code::NEW => Counter::XdpNewFlow,
        code::FORWARD | code::CHECKED => Counter::XdpForward,
        _ => Counter::XdpReply,
    }
}

/// Addresses the frame to the next hop of a packet with the tuple `to`. The verdict sends it there; XDP_PASS where
/// the neighbour is unknown, or the device may not be sent from.
#[inline(never)]
fn send<F: Family>(frame: Frame, to: &F::Flow) -> u32 {
    let mut query = route::query::<F>(to, frame.ifindex());
    // SAFETY: the helper takes this hook's context and the query with its size.
    let answer = unsafe {
        fib_lookup(
            frame.ctx().cast(),
            &raw mut query,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    match route::answer(answer) {
        Route::Known if transmits(query.ifindex) => {}
        Route::Known | Route::NoNeighbour | Route::None => return XDP_PASS,
    }
    if frame.set_link(query.dmac, query.smac).is_err() {
        return XDP_PASS;
    }
    if query.ifindex == frame.ifindex() {
        XDP_TX
    } else {
        // SAFETY: the helper takes numbers.
        (unsafe { bpf_redirect(query.ifindex, 0) }) as u32
    }
}

#[inline(always)]
pub(crate) fn transmits(ifindex: u32) -> bool {
    device_has(ifindex, devices::flags::XDP_TRANSMIT)
}
