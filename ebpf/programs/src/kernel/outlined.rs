//! Functions that the verifier walks by themselves, once, whatever the calls to them look like: global functions in
//! its words. They take the context, pointers to memory of a known size and numbers, and return numbers. The caller
//! sees nothing of what happened in them but the number, so what they share goes through memory.
//!
//! Kernel 5.13 (e5069b9c23b3).

use abi::{Counter, Flow4, Flow6, FlowState4, FlowState6, Frontend};
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use packet::balance::{self, Beginning, code};
use packet::{Family, Headers, Inserted, V4, V6, reply};

use super::count::count;
use super::frame::Frame;
use super::skb::Skb;
use super::tables::Maps;
use super::{dns, events, masquerade, policy, tc, xdp};

/// A packet as it came and as it shall leave.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Plan<F: Family> {
    pub(crate) headers: Headers<F>,
    pub(crate) to: F::Flow,
}

impl<F: Family> Plan<F> {
    /// Of a packet whose IP header is at `l3`.
    #[inline(always)]
    pub(crate) fn new(l3: u32) -> Self {
        let headers = Headers::<F>::unread(l3);
        Self {
            headers,
            to: headers.tuple,
        }
    }
}

/// A family of packets that can be told of.
pub(crate) trait Told: Family {
    /// [`events::tell_packet`], walked by itself.
    fn tell(plan: &Plan<Self>, what: u32, ifindex: u32);
}

/// A family of packets whose headers are rewritten in a buffer.
pub(crate) trait Rewritten: Family {
    /// [`Skb::rewrite_in_place`] to the plan's tuple, walked by itself.
    fn rewrite(skb: Skb, plan: &Plan<Self>) -> Result<(), Counter>;
}

/// Where a packet is seen, as a number.
pub(crate) mod place {
    use packet::Place;

    pub(crate) const POD: u32 = 0;
    pub(crate) const DEVICE: u32 = 1;
    pub(crate) const WIRE: u32 = 2;

    #[inline(always)]
    pub(crate) fn of(number: u32) -> Place {
        match number {
            POD => Place::Pod,
            DEVICE => Place::Device,
            _ => Place::Wire,
        }
    }
}

/// [`packet::sctp::flipped`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn sctp_flipped(ports: u32, len: u32) -> u32 {
    packet::sctp::flipped(ports, len)
}

/// Length of an SCTP packet from its common header on.
#[inline(always)]
pub(crate) fn sctp_len<F: Family>(headers: &Headers<F>) -> u32 {
    headers
        .bytes
        .wrapping_sub(headers.l4.wrapping_sub(headers.l3))
}

macro_rules! outlined {
    ($family:ty, $flow:ty, $state:ty, $choose:ident, $claim:ident, $begin:ident, $read:ident, $read_frame:ident, $decide:ident,
     $answers:ident, $carry:ident, $answer:ident, $refuse:ident, $mend:ident, $forward:ident,
     $skb_dns:ident, $xdp_dns:ident, $judge:ident, $tell:ident, $masquerade:ident, $echo:ident, $note_asked:ident, $keep_first:ident, $hears:ident,
     $rewrite:ident) => {
        /// [`events::tell_packet`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $tell(plan: *const Plan<$family>, what: u32, ifindex: u32) -> u32 {
            // SAFETY: as below.
            if let Some(plan) = unsafe { plan.as_ref() } {
                events::tell_packet(plan, what, ifindex);
            }
            0
        }

        impl Told for $family {
            #[inline(always)]
            fn tell(plan: &Plan<Self>, what: u32, ifindex: u32) {
                $tell(plan, what, ifindex);
            }
        }

        /// [`Skb::rewrite_in_place`]; zero if it is done.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $rewrite(ctx: *mut __sk_buff, plan: *const Plan<$family>) -> u32 {
            // SAFETY: as below.
            let Some(plan) = (unsafe { plan.as_ref() }) else {
                return 1;
            };
            match Skb::of(ctx).rewrite_in_place(&plan.headers, &plan.to) {
                Ok(()) => 0,
                Err(_) => 1,
            }
        }

        impl Rewritten for $family {
            #[inline(always)]
            fn rewrite(skb: Skb, plan: &Plan<Self>) -> Result<(), Counter> {
                match $rewrite(skb.ctx(), plan) {
                    0 => Ok(()),
                    _ => Err(Counter::DropRewrite),
                }
            }
        }

        /// [`balance::choose`], as [`code`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $choose(
            frontend: *const Frontend,
            tuple: *const $flow,
            beginning: *mut Beginning,
            to: *mut $flow,
        ) -> u32 {
            // SAFETY: the verifier holds callers to memory of these sizes, or none. Nothing else has it.
            let arguments = unsafe {
                (
                    frontend.as_ref(),
                    tuple.as_ref(),
                    beginning.as_mut(),
                    to.as_mut(),
                )
            };
            let (Some(frontend), Some(tuple), Some(beginning), Some(to)) = arguments else {
                return code::PASS;
            };
            let chosen = balance::choose::<$family, _>(&Maps, frontend, tuple, beginning, to);
            if beginning.fell_back() {
                count(Counter::SnatInstead, 0);
            }
            code::of(chosen)
        }

        /// [`balance::keep_fragment`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $keep_first(headers: *const Headers<$family>) -> u32 {
            // SAFETY: as above.
            if let Some(headers) = unsafe { headers.as_ref() } {
                balance::keep_fragment::<$family, _>(&Maps, headers);
            }
            0
        }

        /// [`balance::hears`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $hears(tuple: *const $flow, state: *const $state) -> u32 {
            // SAFETY: as above.
            match unsafe { (tuple.as_ref(), state.as_ref()) } {
                (Some(tuple), Some(state)) => {
                    balance::hears::<$family, _>(&Maps, tuple, state).into()
                }
                _ => 0,
            }
        }

        /// [`balance::claim`]; an [`Inserted`] as a number.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $claim(answer: *const $flow, state: *const $state) -> u32 {
            // SAFETY: as above.
            match unsafe { (answer.as_ref(), state.as_ref()) } {
                (Some(answer), Some(state)) => {
                    balance::claim::<$family, _>(&Maps, answer, state) as u32
                }
                _ => Inserted::Full as u32,
            }
        }

        /// [`balance::begin`], as [`code`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $begin(
            tuple: *const $flow,
            beginning: *const Beginning,
            to: *mut $flow,
        ) -> u32 {
            // SAFETY: as above.
            let arguments = unsafe { (tuple.as_ref(), beginning.as_ref(), to.as_mut()) };
            let (Some(tuple), Some(beginning), Some(to)) = arguments else {
                return code::PASS;
            };
            code::of(balance::begin::<$family, _>(&Maps, tuple, beginning, to))
        }

        /// Reads a packet whose IP header is where the plan says.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $read(ctx: *mut __sk_buff, plan: *mut Plan<$family>) -> u32 {
            // SAFETY: as above.
            if let Some(plan) = unsafe { plan.as_mut() } {
                <$family>::read(&Skb::of(ctx), &mut plan.headers);
                plan.to = plan.headers.tuple;
            }
            0
        }

        /// As above, a frame. Returns zero where it is TC's to read it.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $read_frame(ctx: *mut xdp_md, plan: *mut Plan<$family>) -> u32 {
            // SAFETY: as above.
            match unsafe { plan.as_mut() } {
                Some(plan) => xdp::read(Frame::of(ctx), plan).into(),
                None => 0,
            }
        }

        /// [`balance::balance`] at a [`place`], as [`code`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $decide(
            plan: *mut Plan<$family>,
            place: u32,
            ifindex: u32,
        ) -> u32 {
            // SAFETY: as above.
            let Some(plan) = (unsafe { plan.as_mut() }) else {
                return code::PASS;
            };
            let Plan { headers, to } = plan;
            let place = place::of(place);
            code::of(balance::balance::<$family, _>(
                &Maps, place, ifindex, headers, to,
            ))
        }

        /// [`reply`], as [`code`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $answers(plan: *mut Plan<$family>) -> u32 {
            // SAFETY: as above.
            let Some(plan) = (unsafe { plan.as_mut() }) else {
                return code::PASS;
            };
            code::of(reply::<$family, _>(&Maps, &mut plan.headers, &mut plan.to))
        }

        /// Carries out a rewrite of a packet that arrived at a classifier, or sends on what is no service's.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $carry(
            ctx: *mut __sk_buff,
            plan: *const Plan<$family>,
            place: u32,
            decision: u32,
        ) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => {
                    if place == place::DEVICE
                        && decision == code::PASS
                        && masquerade::may_ask(&plan.headers)
                    {
                        $note_asked(plan);
                    }
                    tc::carry_out(Skb::of(ctx), plan, place::of(place), decision)
                }
                None => tc::NEXT,
            }
        }

        /// Carries out the rewrite of a packet that leaves.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $answer(ctx: *mut __sk_buff, plan: *const Plan<$family>) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => tc::answer(Skb::of(ctx), plan),
                None => tc::NEXT,
            }
        }

        /// Answers that nobody listens.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $refuse(ctx: *mut __sk_buff, plan: *const Plan<$family>) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => tc::refuse(Skb::of(ctx), plan),
                None => tc::NEXT,
            }
        }

        /// [`tc::mend`] of an ICMP error, seen on a [`tc::way`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $mend(
            ctx: *mut __sk_buff,
            plan: *const Plan<$family>,
            way: u32,
        ) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => tc::mend(Skb::of(ctx), plan, tc::way::of(way)),
                None => tc::NOT_MENDED,
            }
        }

        /// Carries out the rewrite of a frame.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $forward(
            ctx: *mut xdp_md,
            plan: *const Plan<$family>,
            decision: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => xdp::forward(Frame::of(ctx), plan, decision),
                None => xdp::NEXT,
            }
        }

        /// [`masquerade::leave`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $masquerade(
            ctx: *mut __sk_buff,
            plan: *mut Plan<$family>,
            decision: u32,
        ) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_mut() } {
                Some(plan) => masquerade::leave(Skb::of(ctx), plan, decision),
                None => tc::NEXT,
            }
        }

        /// [`masquerade::arrive`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $echo(ctx: *mut __sk_buff, plan: *mut Plan<$family>) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_mut() } {
                Some(plan) => masquerade::arrive(Skb::of(ctx), plan),
                None => tc::NOT_MENDED,
            }
        }

        /// [`packet::balance::masquerade::note_asked`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $note_asked(plan: *const Plan<$family>) -> u32 {
            // SAFETY: as above.
            if let Some(plan) = unsafe { plan.as_ref() } {
                packet::balance::masquerade::note_asked(&Maps, &plan.headers);
            }
            0
        }

        /// [`policy::judge`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $judge(
            ctx: *mut __sk_buff,
            plan: *const Plan<$family>,
            ifindex: u32,
            how: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => policy::judge(&Skb::of(ctx), plan, ifindex, how, true),
                None => 0,
            }
        }

        /// Answers a DNS query at a [`place`]; [`dns::LEFT`] where it goes on.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $skb_dns(
            ctx: *mut __sk_buff,
            plan: *const Plan<$family>,
            place: u32,
        ) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => dns::answer(Skb::of(ctx), plan, place == place::POD),
                None => dns::LEFT,
            }
        }

        /// As above, in a frame.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $xdp_dns(ctx: *mut xdp_md, plan: *const Plan<$family>) -> i32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => dns::answer(Frame::of(ctx), plan, false),
                None => dns::LEFT,
            }
        }
    };
}

outlined!(
    V4,
    Flow4,
    FlowState4,
    choose4,
    claim4,
    begin4,
    skb_read4,
    xdp_read4,
    decide4,
    reply4,
    skb_carry4,
    skb_answer4,
    skb_refuse4,
    skb_mend4,
    xdp_carry4,
    skb_dns4,
    xdp_dns4,
    skb_judge4,
    tell4,
    skb_masquerade4,
    skb_echo4,
    note_asked4,
    keep_first4,
    hears4,
    skb_rewrite4
);
outlined!(
    V6,
    Flow6,
    FlowState6,
    choose6,
    claim6,
    begin6,
    skb_read6,
    xdp_read6,
    decide6,
    reply6,
    skb_carry6,
    skb_answer6,
    skb_refuse6,
    skb_mend6,
    xdp_carry6,
    skb_dns6,
    xdp_dns6,
    skb_judge6,
    tell6,
    skb_masquerade6,
    skb_echo6,
    note_asked6,
    keep_first6,
    hears6,
    skb_rewrite6
);
