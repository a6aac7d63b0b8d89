//! A node device, frames that arrive, before the kernel makes buffers of them. What XDP cannot finish it leaves
//! untouched: `device_ingress` sees it next and finds the flow that was begun here.

use abi::{Counter, devices};
use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use packet::balance::{Kind, source_changes};
use packet::{Decision, Family, Fault, Headers, Link, Place, Tables, V4, V6, balance, parse};

use super::count::count;
use super::frame::Frame;
use super::maps::DEVICES;
use super::route::{self, Route};
use super::tables::Maps;

#[xdp(frags)]
pub(crate) fn device_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    match parse::link(&frame) {
        Link::V4(l3) => frame4(frame, l3),
        Link::V6(l3) => frame6(frame, l3),
        Link::Other => verdict(Outcome::Untouched),
    }
}

// Functions of their own, so that each family has a stack of its own: a kernel program has 512 bytes.

#[inline(never)]
fn frame4(frame: Frame, l3: u32) -> u32 {
    verdict(arriving::<V4>(&frame, l3))
}

#[inline(never)]
fn frame6(frame: Frame, l3: u32) -> u32 {
    verdict(arriving::<V6>(&frame, l3))
}

#[inline(always)]
fn verdict(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Untouched => XDP_PASS,
        Outcome::Left(counter, bytes) => {
            count(counter, bytes);
            XDP_PASS
        }
        Outcome::Sent(counter, bytes, verdict) => {
            count(counter, bytes);
            verdict
        }
        Outcome::Dropped(counter, bytes) => {
            count(counter, bytes);
            XDP_DROP
        }
    }
}

/// What became of a frame, with the bytes to count.
enum Outcome {
    /// Not ours, or TC's.
    Untouched,
    /// For the kernel to carry on with.
    Left(Counter, u32),
    /// Sent out again, by this verdict.
    Sent(Counter, u32, u32),
    /// Dropped.
    Dropped(Counter, u32),
}

const ETHERNET_LEN: u32 = 14;

#[inline(always)]
fn arriving<F: Family>(frame: &Frame, l3: u32) -> Outcome
where
    Maps: Tables<F>,
{
    let mut headers = F::headers(frame, l3);
    if headers.fault != Fault::None && !frame.is_one_buffer() {
        // Headers beyond the first buffer can be read by TC.
        return Outcome::Untouched;
    }
    let bytes = headers.bytes;
    let mut to = headers.tuple;
    match balance::<F, _>(&Maps, Place::Device, &mut headers, &mut to) {
        Decision::Pass => Outcome::Untouched,
        Decision::Rewrite(kind) => match rewrite(frame, &headers, &to) {
            Ok(Rewritten::Local) => Outcome::Left(counter(kind), bytes),
            Ok(Rewritten::Sent(verdict)) => Outcome::Sent(counter(kind), bytes, verdict),
            // TC counts the packet as one of a known flow, and sends it.
            Ok(Rewritten::Not) if kind == Kind::New => Outcome::Left(counter(kind), bytes),
            Ok(Rewritten::Not) => Outcome::Untouched,
            Err(counter) => Outcome::Dropped(counter, bytes),
        },
        Decision::Refuse => Outcome::Left(Counter::XdpNoEndpoint, bytes),
        Decision::Drop(counter) => Outcome::Dropped(counter, bytes),
    }
}

/// How a frame was given its new tuple.
enum Rewritten {
    /// The backend is on this node: the kernel routes the packet there.
    Local,
    /// It is on its way, by this verdict.
    Sent(u32),
    /// Not at all: XDP cannot send it.
    Not,
}

/// Gives a frame its new tuple and sends it where it cannot go by itself. A function of its own, so that what it
/// puts on the stack comes after what deciding did.
#[inline(never)]
fn rewrite<F: Family>(
    frame: &Frame,
    headers: &Headers<F>,
    to: &F::Flow,
) -> Result<Rewritten, Counter> {
    if !source_changes::<F>(&headers.tuple, to) {
        frame.rewrite(headers, to, false)?;
        return Ok(Rewritten::Local);
    }
    // A tagged frame belongs to another device than the one that routes are looked up from.
    if headers.l3 == ETHERNET_LEN && transmits(frame.ifindex()) {
        let mut query = route::query::<F>(headers, to, frame.ifindex());
        // SAFETY: the helper takes this hook's context and the query with its size.
        let answer = unsafe {
            fib_lookup(
                frame.ctx().cast(),
                &raw mut query,
                size_of::<bpf_fib_lookup>() as i32,
                0,
            )
        };
        if let Route::Known = route::answer(answer)
            && transmits(query.ifindex)
        {
            frame.rewrite(headers, to, true)?;
            frame.set_link(query.dmac, query.smac)?;
            let verdict = if query.ifindex == frame.ifindex() {
                XDP_TX
            } else {
                // SAFETY: the helper takes numbers.
                (unsafe { bpf_redirect(query.ifindex, 0) }) as u32
            };
            return Ok(Rewritten::Sent(verdict));
        }
    }
    Ok(Rewritten::Not)
}

#[inline(always)]
fn counter(kind: Kind) -> Counter {
    match kind {
        Kind::New => Counter::XdpNewFlow,
        Kind::Forward => Counter::XdpForward,
        Kind::Reply => Counter::XdpReply,
    }
}

#[inline(always)]
fn transmits(ifindex: u32) -> bool {
    // SAFETY: programs never change the map; the flags are read before anything else touches it.
    match unsafe { DEVICES.get(ifindex) } {
        Some(device) => device.flags & devices::flags::XDP_TRANSMIT != 0,
        None => false,
    }
}
