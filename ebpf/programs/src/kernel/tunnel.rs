//! Packets in packets at a node's device: put around, taken off, and errors about them. What is decided is in
//! [`packet::balance::tunnel`].
//!
//! The functions that the verifier walks by themselves are those of [`Tunnelled`]; see [`super::outlined`].

mod buffer;
mod error;
mod wire;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use packet::balance::{code, tunnel};
use packet::parse::ETHERNET_LEN;
use packet::{Family, V4, V6};

pub(crate) use packet::balance::tunnel::may_be;

pub(crate) use self::buffer::take_off;
pub(crate) use self::wire::take_off_frame;
use super::frame::Frame;
use super::outlined::{self, Plan, Told};
use super::skb::Skb;
use super::tables::Maps;
use super::tc::{self, NOT_MENDED};
use super::xdp;

/// A family whose packets go in packets. Each is walked by itself.
pub(crate) trait Tunnelled: Told {
    /// Reads a packet whose IP header is where the plan says.
    fn read_skb(ctx: *mut __sk_buff, plan: &mut Plan<Self>);
    /// The same of a frame; zero where it is TC's to read it.
    fn read_frame(ctx: *mut xdp_md, plan: &mut Plan<Self>) -> u32;
    /// Decides on a packet that arrived in another one, as [`code`].
    fn arrive(plan: &mut Plan<Self>, ifindex: u32) -> u32;
    /// Sends a packet to the node of its backend.
    fn send(ctx: *mut __sk_buff, plan: &Plan<Self>, decision: u32) -> i32;
    /// The same of a frame.
    fn send_frame(ctx: *mut xdp_md, plan: &Plan<Self>, decision: u32) -> u32;
    /// Gives an ICMP error about an outer packet to the client whose packet was in it.
    fn relay(ctx: *mut __sk_buff, plan: &Plan<Self>) -> i32;
}

macro_rules! tunnelled {
    ($family:ty, $read:ident, $read_frame:ident, $arrive:ident, $send:ident, $send_frame:ident, $relay:ident) => {
        /// [`tunnel::arrive`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $arrive(plan: *mut Plan<$family>, ifindex: u32) -> u32 {
            // SAFETY: the verifier holds callers to memory of this size, or none. Nothing else has it.
            let Some(plan) = (unsafe { plan.as_mut() }) else {
                return code::PASS;
            };
            let Plan { headers, to } = plan;
            code::of(tunnel::arrive::<$family, _>(&Maps, ifindex, headers, to))
        }

        /// [`Tunnelled::send`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $send(ctx: *mut __sk_buff, plan: *const Plan<$family>, decision: u32) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => buffer::send(Skb::of(ctx), plan, decision),
                None => tc::NEXT,
            }
        }

        /// [`Tunnelled::send_frame`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $send_frame(
            ctx: *mut xdp_md,
            plan: *const Plan<$family>,
            decision: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => wire::send(Frame::of(ctx), plan, decision),
                None => xdp::NEXT,
            }
        }

        /// [`Tunnelled::relay`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $relay(ctx: *mut __sk_buff, plan: *const Plan<$family>) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => error::relay(Skb::of(ctx), plan),
                None => NOT_MENDED,
            }
        }

        impl Tunnelled for $family {
            #[inline(always)]
            fn read_skb(ctx: *mut __sk_buff, plan: &mut Plan<Self>) {
                outlined::$read(ctx, plan);
            }
            #[inline(always)]
            fn read_frame(ctx: *mut xdp_md, plan: &mut Plan<Self>) -> u32 {
                outlined::$read_frame(ctx, plan)
            }
            #[inline(always)]
            fn arrive(plan: &mut Plan<Self>, ifindex: u32) -> u32 {
                $arrive(plan, ifindex)
            }
            #[inline(always)]
            fn send(ctx: *mut __sk_buff, plan: &Plan<Self>, decision: u32) -> i32 {
                $send(ctx, plan, decision)
            }
            #[inline(always)]
            fn send_frame(ctx: *mut xdp_md, plan: &Plan<Self>, decision: u32) -> u32 {
                $send_frame(ctx, plan, decision)
            }
            #[inline(always)]
            fn relay(ctx: *mut __sk_buff, plan: &Plan<Self>) -> i32 {
                $relay(ctx, plan)
            }
        }
    };
}

tunnelled!(
    V4,
    skb_read4,
    xdp_read4,
    tunnel_arrive4,
    skb_tunnel4,
    xdp_tunnel4,
    skb_relay4
);
tunnelled!(
    V6,
    skb_read6,
    xdp_read6,
    tunnel_arrive6,
    skb_tunnel6,
    xdp_tunnel6,
    skb_relay6
);

#[inline(always)]
fn is_told<F: Family, B: packet::Bytes>(bytes: &B, plan: &Plan<F>, told: &mut F::Flow) -> bool {
    plan.headers.l3 == ETHERNET_LEN && tunnel::told(bytes, &plan.headers, told)
}

/// Makes the plan that of the packet inside, which is to be read. Returns where the packet ends.
#[inline(always)]
fn look_inside<F: Family>(plan: &mut Plan<F>) -> u32 {
    let end = tunnel::end(&plan.headers);
    *plan = Plan::new(plan.headers.l4);
    end
}

/// What was read lies behind the link header now.
#[inline(always)]
fn move_up<F: Family>(plan: &mut Plan<F>) {
    plan.headers.l3 = ETHERNET_LEN;
    plan.headers.l4 = plan.headers.l4.wrapping_sub(tunnel::outer_len::<F>());
}
