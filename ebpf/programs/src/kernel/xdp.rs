//! What the two XDP programs share: a node device, frames that arrive, before the kernel makes buffers of them. What XDP
//! cannot finish it leaves untouched: `device_ingress` sees it next and finds the flow that was begun here.

use abi::events::kinds;
use abi::flows::flags::checked_at;
use abi::{Counter, devices};
use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect};
use packet::balance::{code, source_changes};
use packet::{Family, Fault, Tables, parse};

use super::count::{count, count_number};
use super::frame::Frame;
use super::mem::blur;
use super::outlined::{Plan, Told};
use super::route::{self, Route};
use super::tables::{Maps, device_has, routes_here};
use super::{direct, events, hint};

/// The verdict on what the kernel carries on with.
pub(crate) const NEXT: u32 = XDP_PASS;

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
    let begins = decision == code::NEW;
    let counter = match decision {
        code::NEW => Counter::XdpNewFlow,
        code::FORWARD | code::CHECKED => Counter::XdpForward,
        _ => Counter::XdpReply,
    };
    let is_checked = || decision == code::CHECKED || begins && check(frame, plan);
    let counter = blur(counter as u32, frame.first_len());
    match give(frame, plan, is_checked, counter) {
        Ok(given) => {
            if begins {
                if given.is_none() {
                    count(Counter::XdpNewFlow, plan.headers.bytes);
                }
                let what = events::what(kinds::NEW, Counter::XdpNewFlow);
                F::tell(plan, what, frame.ifindex());
            }
            given.unwrap_or(NEXT)
        }
        Err(counter) => dropped(plan, counter as u32, frame.ifindex()),
    }
}

/// Gives a packet its new tuple, counts it by the number of a counter, and says where it goes. `None` where TC does all that:
/// as with a packet of a known flow, if this one began it.
///
/// `is_checked` says whether TC need not ask for the way back to the client of a packet for a pod of this node.
#[inline(always)]
pub(crate) fn give<F: Family>(
    frame: Frame,
    plan: &Plan<F>,
    is_checked: impl FnOnce() -> bool,
    counter: u32,
) -> Result<Option<u32>, Counter>
where
    Maps: Tables<F>,
{
    let Plan { headers, to } = plan;
    let mut verdict = NEXT;
    let mut hops = false;
    // To a backend on this node TC delivers the packet, or the stack.
    if source_changes::<F>(&headers.tuple, to) {
        // A tagged frame belongs to another device than the one that routes are looked up from.
        if headers.l3 != parse::ETHERNET_LEN || !transmits(frame.ifindex()) {
            return Ok(None);
        }
        verdict = send::<F>(frame, to);
        if verdict == NEXT {
            return Ok(None);
        }
        hops = true;
    } else if routes_here::<F>() && is_checked() {
        let pod = direct::pod_behind::<F>(&frame, headers, to);
        hops = hint::leave(&frame, pod) && pod.is_some();
    }
    frame.rewrite(headers, to, hops)?;
    count_number(counter, headers.bytes);
    Ok(Some(verdict))
}

/// Whether a packet that begins a flow came the way that leads back to its client; the flow remembers.
#[inline(always)]
fn check<F: Family>(frame: Frame, plan: &Plan<F>) -> bool
where
    Maps: Tables<F>,
{
    let tuple = &plan.headers.tuple;
    let checked = direct::is_from_outside::<F>(frame.ctx().cast(), frame.ifindex(), tuple);
    if checked {
        Maps.mark_flow(tuple, checked_at(frame.ifindex()));
    }
    checked
}

#[inline(always)]
pub(crate) fn dropped<F: Told>(plan: &Plan<F>, counter: u32, ifindex: u32) -> u32 {
    count_number(counter, plan.headers.bytes);
    F::tell(plan, events::what_number(kinds::DROP, counter), ifindex);
    XDP_DROP
}

/// Addresses the frame to the next hop of a packet with the tuple `to`. The verdict sends it there; XDP_PASS where
/// the neighbour is unknown, or the device may not be sent from.
#[inline(always)]
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
