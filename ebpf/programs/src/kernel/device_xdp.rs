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
use super::route::{self, Route};
use super::tables::{Maps, device_has};

#[xdp(frags)]
pub(crate) fn device_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    match parse::link(&frame) {
        Link::V4(l3) => frame4(frame, l3),
        Link::V6(l3) => frame6(frame, l3),
        Link::Other => verdict(Outcome::Untouched),
    }
}

// Functions of their own, here and below, so that each has a stack of its own that does not lie under the others:
// a kernel program has 512 bytes.

#[inline(never)]
fn frame4(frame: Frame, l3: u32) -> u32 {
    arriving::<V4>(frame, l3)
}

#[inline(never)]
fn frame6(frame: Frame, l3: u32) -> u32 {
    arriving::<V6>(frame, l3)
}

#[inline(always)]
fn verdict(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Untouched => XDP_PASS,
        Outcome::Left(counter, bytes) => {
            count(counter, bytes);
            XDP_PASS
        }
        Outcome::Rewritten(counter, bytes, verdict) => {
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
    /// Left as it is for TC.
    Left(Counter, u32),
    /// Rewritten; the verdict says whether the kernel carries on with it or it goes out again.
    Rewritten(Counter, u32, u32),
    /// Dropped.
    Dropped(Counter, u32),
}

const ETHERNET_LEN: u32 = 14;

#[inline(always)]
fn arriving<F: Family>(frame: Frame, l3: u32) -> u32
where
    Maps: Tables<F>,
{
    let mut headers = F::headers(&frame, l3);
    if headers.fault != Fault::None && !frame.is_one_buffer() {
        // Headers beyond the first buffer can be read by TC.
        return verdict(Outcome::Untouched);
    }
    let bytes = headers.bytes;
    let mut to = headers.tuple;
    match balance::<F, _>(&Maps, Place::Wire, frame.ifindex(), &mut headers, &mut to) {
        Decision::Pass => verdict(Outcome::Untouched),
        Decision::Rewrite(kind) => forward(frame, &headers, &to, kind),
        Decision::Refuse => verdict(Outcome::Left(Counter::XdpNoEndpoint, bytes)),
        Decision::Drop(counter) => verdict(Outcome::Dropped(counter, bytes)),
    }
}

/// Sends a packet towards its new tuple.
#[inline(always)]
fn forward<F: Family>(frame: Frame, headers: &Headers<F>, to: &F::Flow, kind: Kind) -> u32 {
    if !source_changes::<F>(&headers.tuple, to) {
        // To a backend on this node: the kernel routes the packet there.
        return rewrite(frame, headers, to, kind, XDP_PASS);
    }
    // A tagged frame belongs to another device than the one that routes are looked up from.
    if headers.l3 == ETHERNET_LEN && transmits(frame.ifindex()) {
        let hop = send::<F>(frame, to);
        if hop != XDP_PASS {
            return rewrite(frame, headers, to, kind, hop);
        }
    }
    verdict(match kind {
        // TC counts the packet as one of a known flow, and sends it.
        Kind::New => Outcome::Left(Counter::XdpNewFlow, headers.bytes),
        Kind::Forward | Kind::Reply => Outcome::Untouched,
    })
}

/// Gives a frame its new tuple on its way to the verdict `hop`, and counts it.
#[inline(never)]
fn rewrite<F: Family>(
    frame: Frame,
    headers: &Headers<F>,
    to: &F::Flow,
    kind: Kind,
    hop: u32,
) -> u32 {
    verdict(match frame.rewrite(headers, to, hop != XDP_PASS) {
        Ok(()) => Outcome::Rewritten(counter(kind), headers.bytes, hop),
        Err(counter) => Outcome::Dropped(counter, headers.bytes),
    })
}

#[inline(always)]
fn counter(kind: Kind) -> Counter {
    match kind {
        Kind::New => Counter::XdpNewFlow,
        Kind::Forward => Counter::XdpForward,
        Kind::Reply => Counter::XdpReply,
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
fn transmits(ifindex: u32) -> bool {
    device_has(ifindex, devices::flags::XDP_TRANSMIT)
}
