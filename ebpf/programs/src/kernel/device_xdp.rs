//! A node device, frames that arrive: those of flows that go on, and those that are none of ours, in as few instructions as
//! may be. All others are `device_xdp_rest`'s.
//!
//! Nothing is called here but helpers: a kernel that calls functions of programs may not let such a program go on in another
//! one (arm64 before 6.0).

use abi::Counter;
use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use packet::balance::{Kind, known};
use packet::parse::{ETHERNET_LEN, Ethertype, ethertype};
use packet::{Decision, Family, Headers, Tables, Transport, V4, V6};

use super::count::count;
use super::dns;
use super::frame::Frame;
use super::maps::DEVICE_XDP;
use super::mem::blur;
use super::outlined::Plan;
use super::tables::Maps;
use super::xdp::{NEXT, give};

#[xdp(frags)]
pub(crate) fn device_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    let verdict = match ethertype(&frame) {
        Ethertype::V4 => go_on::<V4>(frame),
        Ethertype::V6 => go_on::<V6>(frame),
        Ethertype::Tag => None,
        Ethertype::Other => Some(NEXT),
    };
    verdict.unwrap_or_else(|| {
        // SAFETY: the programs of the table are of this hook, and nothing is left to be done here.
        unsafe { DEVICE_XDP.tail_call(&ctx, 0) };
        // What no program could look at is left to TC.
        NEXT
    })
}

/// The verdict on a frame; `None` where it is for the other program, and as it was.
#[inline(always)]
fn go_on<F: Family>(frame: Frame) -> Option<u32>
where
    Maps: Tables<F>,
{
    let mut plan = Plan::<F>::new(ETHERNET_LEN);
    let Plan { headers, to } = &mut plan;
    // Of a packet whose time is up somebody is told.
    if !F::read_plain(&frame, headers) || headers.ttl <= 1 {
        return None;
    }
    let len = frame.first_len();
    let is_udp = blur((headers.transport == Transport::Udp).into(), len) & 1;
    headers.transport = transport(is_udp);
    headers.tcp_flags = blur(headers.tcp_flags.into(), len) as u8;
    if dns::asks(headers) {
        return None;
    }
    let decision = known::decide(&Maps, frame.ifindex(), headers, to)?;
    let Decision::Rewrite(kind) = decision else {
        return Some(NEXT);
    };
    let counter = match kind {
        Kind::Forward | Kind::Checked => Counter::XdpForward,
        _ => Counter::XdpReply,
    };
    let counter = blur(counter as u32, len);
    let checked = blur((kind == Kind::Checked).into(), len);
    // Said once more: behind a look-up the compiler knows nothing of what its key lies in.
    let headers = Headers {
        transport: transport(blur(is_udp, len)),
        ..plan.headers
    };
    let plan = Plan { headers, ..plan };
    match give(frame, &plan, || checked != 0, counter) {
        Ok(given) => Some(given.unwrap_or(NEXT)),
        Err(counter) => {
            count(counter, plan.headers.bytes);
            Some(XDP_DROP)
        }
    }
}

#[inline(always)]
fn transport(is_udp: u32) -> Transport {
    if is_udp == 0 {
        Transport::Tcp
    } else {
        Transport::Udp
    }
}
