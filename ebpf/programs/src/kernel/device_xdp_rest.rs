//! What `device_xdp` leaves of the frames that arrive at a node device: flows that begin, and packets that need a closer
//! look.

use abi::Counter;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use packet::balance::code;
use packet::{Link, V4, V6, parse};

use super::count::count;
use super::frame::Frame;
use super::outlined::{self, Plan, place};
use super::tunnel::Tunnelled;
use super::xdp::{NEXT, dropped};
use super::{dns, tunnel};

#[xdp(frags)]
pub(crate) fn device_xdp_rest(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    match parse::link(&frame) {
        Link::V4(l3) => frame4(frame, l3),
        Link::V6(l3) => frame6(frame, l3),
        Link::Other => NEXT,
    }
}

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
