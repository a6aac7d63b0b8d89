//! Frames: packets that XDP puts another one around, and takes one off.

use abi::Counter;
use abi::events::kinds;
use aya_ebpf::bindings::{bpf_fib_lookup, xdp_action::XDP_TX};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup as fib_lookup, bpf_redirect, bpf_xdp_adjust_head,
};
use packet::balance::{code, tunnel};
use packet::parse::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use packet::{Bytes as _, Flow as _, Shared as _, Tables, hop};
use zerocopy::network_endian::U16;

use super::super::count::count;
use super::super::events;
use super::super::frame::Frame;
use super::super::outlined::Plan;
use super::super::route::{self, Route};
use super::super::skb::done;
use super::super::tables::Maps;
use super::super::xdp::{self, transmits};
use super::{Tunnelled, is_told, look_inside, move_up};

#[inline(always)]
pub(super) fn send<F: Tunnelled>(frame: Frame, plan: &Plan<F>, decision: u32) -> u32
where
    Maps: Tables<F>,
{
    let ifindex = frame.ifindex();
    let sent = try_send(frame, plan);
    if decision == code::TUNNEL_NEW && sent.is_ok() {
        // TC counts what it has to send as a packet of a known flow.
        count(Counter::XdpNewFlow, plan.headers.bytes);
        F::tell(plan, events::what(kinds::NEW, Counter::XdpNewFlow), ifindex);
    }
    match sent {
        Ok(xdp::NEXT) => xdp::NEXT,
        Ok(verdict) => {
            count(Counter::XdpTunnelled, plan.headers.bytes);
            if decision != code::TUNNEL_NEW {
                count(Counter::XdpForward, plan.headers.bytes);
            }
            verdict
        }
        Err(counter) => xdp::dropped(plan, counter as u32, ifindex),
    }
}

/// The verdict; [`xdp::NEXT`] where TC is to send the packet, which is untouched then.
#[inline(always)]
fn try_send<F: Tunnelled>(frame: Frame, plan: &Plan<F>) -> Result<u32, Counter>
where
    Maps: Tables<F>,
{
    const NEXT: u32 = xdp::NEXT;
    let Plan { headers, to } = plan;
    let len = tunnel::outer_len::<F>();
    let Some(node) = Maps.node().and_then(F::node_address) else {
        return Ok(NEXT);
    };
    let Ok(whole) = u16::try_from(headers.bytes + len) else {
        return Ok(NEXT);
    };
    if headers.l3 != ETHERNET_LEN || headers.ttl <= 1 || !transmits(frame.ifindex()) {
        return Ok(NEXT);
    }
    let outer = F::Flow::new(node, to.daddr(), U16::ZERO, U16::ZERO, tunnel::proto::<F>());
    let mut query = route::query::<F>(&outer, frame.ifindex());
    query.__bindgen_anon_1.tot_len = whole;
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
        Route::Known | Route::NoNeighbour | Route::None => return Ok(NEXT),
    }
    let Some([first]) = frame.words::<1>(ETHERNET_LEN) else {
        return Ok(NEXT);
    };
    // SAFETY: the helper checks the room.
    if unsafe { bpf_xdp_adjust_head(frame.ctx(), -(len as i32)) } != 0 {
        return Ok(NEXT);
    }
    link(frame, query.dmac, query.smac, F::CHECK_OFFSET.is_some())?;
    let header = tunnel::header::<F>(node, to, headers.bytes, first);
    if F::CHECK_OFFSET.is_some() {
        let words = frame.at::<5>(ETHERNET_LEN)?;
        for i in 0..5 {
            words.set_word(i, header[i]);
        }
    } else {
        let words = frame.at::<10>(ETHERNET_LEN)?;
        for i in 0..10 {
            words.set_word(i, header[i]);
        }
    }
    let ttl = frame.at::<1>(ETHERNET_LEN + len + (F::TTL_OFFSET & !3))?;
    ttl.set_word(0, hop::one_less::<F>(ttl.word(0)));
    if query.ifindex == frame.ifindex() {
        Ok(XDP_TX)
    } else {
        // SAFETY: the helper takes numbers.
        Ok((unsafe { bpf_redirect(query.ifindex, 0) }) as u32)
    }
}

/// Writes a link header.
#[inline(always)]
fn link(frame: Frame, destination: [u8; 6], source: [u8; 6], is_v4: bool) -> Result<(), Counter> {
    frame.set_link(destination, source)?;
    let kind = if is_v4 {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    };
    frame.half(ETHERNET_LEN - 2)?.set(kind.to_be());
    Ok(())
}

/// As [`super::take_off`], of a frame; the plan of what passes is no more.
#[inline(never)]
pub(crate) fn take_off_frame<F: Tunnelled>(frame: Frame, plan: &mut Plan<F>) -> u32 {
    let mut told = plan.to;
    if !is_told(&frame, plan, &mut told) {
        return code::PASS;
    }
    let end = look_inside(plan);
    if F::read_frame(frame.ctx(), plan) == 0 || !tunnel::is_whole(&plan.headers, end) {
        return code::PASS;
    }
    plan.to = told;
    let decision = F::arrive(plan, frame.ifindex());
    if decision == code::PASS || decision >= code::DROP {
        return decision;
    }
    match strip(frame, tunnel::outer_len::<F>(), F::CHECK_OFFSET.is_some()) {
        Ok(()) => {
            move_up(plan);
            count(Counter::XdpUntunnelled, plan.headers.bytes);
            decision
        }
        Err(counter) => code::DROP + counter as u32,
    }
}

/// Takes `len` octets off behind the link header.
#[inline(always)]
fn strip(frame: Frame, len: u32, is_v4: bool) -> Result<(), Counter> {
    let [a, b, c] = frame.words::<3>(0).ok_or(Counter::DropRewrite)?;
    // SAFETY: the helper checks that so much is there.
    done(unsafe { bpf_xdp_adjust_head(frame.ctx(), len as i32) })?;
    let [d0, d1, d2, d3] = a.to_ne_bytes();
    let [d4, d5, s0, s1] = b.to_ne_bytes();
    let [s2, s3, s4, s5] = c.to_ne_bytes();
    link(
        frame,
        [d0, d1, d2, d3, d4, d5],
        [s0, s1, s2, s3, s4, s5],
        is_v4,
    )
}
