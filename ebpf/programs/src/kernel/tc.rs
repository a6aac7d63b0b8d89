//! What the TC programs share: a packet is read and decided on, then what was decided is done. Each step is one of
//! [`super::outlined`].

use abi::Counter;
use abi::events::kinds;
use abi::flows::flags::checked_at;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use packet::balance::{bounces, code, source_changes};
use packet::quote::{Mended, Quote, Way};
use packet::refuse::Undelivered;
use packet::{
    Address as _, Family, Flow as _, Headers, Link, Place, Tables, Transport, V4, V6, parse, quote,
};
use zerocopy::network_endian::U16;

use super::count::{count, count_number};
use super::direct::{self, Source};
use super::next_hops::{Leaving, NOT_KNOWN, TO_LEAVE};
use super::outlined::{self, Plan, Rewritten, Told, place};
use super::policy::{self, how};
use super::skb::Skb;
use super::tables::Maps;
use super::tunnel::Tunnelled;
use super::{dns, events, hint, masquerade, tunnel};

/// The verdict on what is not redirected or dropped: it goes on to other programs.
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;

/// Judges what may go straight to a pod, whose link's program does not see it then.
macro_rules! judge_straight {
    ($family:ty, $skb:expr, $plan:expr, $how:expr, $judge:ident) => {
        if policy::is_on() {
            let straight = policy::straight_to::<$family>(&$plan.to, $skb.ifindex());
            if straight != 0 {
                let denied = outlined::$judge($skb.ctx(), &$plan, straight, $how);
                if denied != 0 {
                    return dropped(&$plan, denied - 1, straight);
                }
            }
        }
    };
}

macro_rules! arriving {
    ($family:ty, $skb:expr, $place:expr, $l3:expr, $read:ident, $decide:ident, $carry:ident, $refuse:ident, $dns:ident, $mend:ident, $judge:ident, $echo:ident) => {{
        let mut plan = Plan::new($l3);
        outlined::$read($skb.ctx(), &mut plan);
        if $place == place::DEVICE && hint::is_on(&$skb) {
            judge_straight!($family, $skb, plan, 0, $judge);
            return outlined::$carry($skb.ctx(), &plan, $place, code::DONE);
        }
        if dns::asks(&plan.headers)
            && ($place != place::POD || !policy::limits_egress::<$family>($skb.ifindex()))
        {
            let verdict = outlined::$dns($skb.ctx(), &plan, $place);
            if verdict != dns::LEFT {
                return verdict;
            }
        }
        if plan.headers.transport == Transport::Icmp {
            let verdict = outlined::$mend($skb.ctx(), &plan, way::ARRIVING);
            if verdict != NOT_MENDED {
                return verdict;
            }
            if $place == place::DEVICE {
                if masquerade::is_on::<$family>() {
                    let verdict = outlined::$echo($skb.ctx(), &mut plan);
                    if verdict != NOT_MENDED {
                        return verdict;
                    }
                }
                let verdict = <$family as Tunnelled>::relay($skb.ctx(), &plan);
                if verdict != NOT_MENDED {
                    return verdict;
                }
            }
        }
        let decision = if $place == place::DEVICE && tunnel::may_be(&plan.headers) {
            tunnel::take_off($skb, &mut plan)
        } else {
            outlined::$decide(&mut plan, $place, $skb.ifindex())
        };
        if decision < code::DROP && decision != code::REFUSE {
            if $place == place::POD && policy::is_on() {
                let egress = how::after(decision) | how::EGRESS;
                let denied = outlined::$judge($skb.ctx(), &plan, $skb.ifindex(), egress);
                if denied != 0 {
                    return dropped(&plan, denied - 1, $skb.ifindex());
                }
            }
            judge_straight!($family, $skb, plan, how::straight(decision), $judge);
            if $place == place::POD && (decision == code::PASS || decision == code::ANSWER) {
                let verdict = <$family as Leaving>::leave($skb.ctx(), &plan, decision, 0);
                if verdict != NOT_KNOWN {
                    return verdict;
                }
            }
        }
        if decision >= code::TUNNEL_NEW {
            if decision >= code::DROP {
                dropped(&plan, decision - code::DROP, $skb.ifindex())
            } else if $place == place::DEVICE {
                <$family as Tunnelled>::send($skb.ctx(), &plan, decision)
            } else {
                NEXT
            }
        } else if decision == code::REFUSE {
            outlined::$refuse($skb.ctx(), &plan)
        } else {
            let verdict = outlined::$carry($skb.ctx(), &plan, $place, decision);
            if $place == place::POD && verdict == TO_LEAVE {
                <$family as Leaving>::leave($skb.ctx(), &plan, decision, 1)
            } else {
                verdict
            }
        }
    }};
}

macro_rules! leaving {
    ($family:ty, $skb:expr, $place:expr, $l3:expr, $read:ident, $reply:ident, $answer:ident, $mend:ident, $judge:ident, $masquerade:ident) => {{
        let mut plan = Plan::new($l3);
        outlined::$read($skb.ctx(), &mut plan);
        if plan.headers.transport == Transport::Icmp {
            let verdict = outlined::$mend($skb.ctx(), &plan, way::LEAVING);
            if verdict != NOT_MENDED {
                return verdict;
            }
        }
        let decision = if plan.headers.transport == Transport::Icmp {
            code::PASS
        } else {
            outlined::$reply(&mut plan)
        };
        if $place == place::POD && is_for_pod($skb) {
            let denied = outlined::$judge($skb.ctx(), &plan, $skb.ifindex(), 0);
            if denied != 0 {
                return dropped(&plan, denied - 1, $skb.ifindex());
            }
        }
        if decision == code::REPLY {
            outlined::$answer($skb.ctx(), &plan)
        } else if $place == place::DEVICE
            && (decision == code::FORWARD || masquerade::concerns::<$family>($skb))
        {
            outlined::$masquerade($skb.ctx(), &mut plan, decision)
        } else {
            NEXT
        }
    }};
}

/// Packets that arrive: clients on their way to services, and what must not go through routing.
#[inline(always)]
pub(crate) fn ingress(skb: Skb, place: u32) -> i32 {
    match parse::link(&skb) {
        Link::V4(l3) => ingress4(skb, place, l3),
        Link::V6(l3) => ingress6(skb, place, l3),
        Link::Other => NEXT,
    }
}

/// Packets that leave: answers of services on their way to clients.
#[inline(always)]
pub(crate) fn egress(skb: Skb, place: u32) -> i32 {
    match parse::link(&skb) {
        Link::V4(l3) => egress4(skb, place, l3),
        Link::V6(l3) => egress6(skb, place, l3),
        Link::Other => NEXT,
    }
}

// Functions of their own, so that only one family's plan lies on the stack.

#[inline(never)]
fn ingress4(skb: Skb, place: u32, l3: u32) -> i32 {
    arriving!(
        V4,
        skb,
        place,
        l3,
        skb_read4,
        decide4,
        skb_carry4,
        skb_refuse4,
        skb_dns4,
        skb_mend4,
        skb_judge4,
        skb_echo4
    )
}

#[inline(never)]
fn ingress6(skb: Skb, place: u32, l3: u32) -> i32 {
    arriving!(
        V6,
        skb,
        place,
        l3,
        skb_read6,
        decide6,
        skb_carry6,
        skb_refuse6,
        skb_dns6,
        skb_mend6,
        skb_judge6,
        skb_echo6
    )
}

#[inline(never)]
fn egress4(skb: Skb, place: u32, l3: u32) -> i32 {
    leaving!(
        V4,
        skb,
        place,
        l3,
        skb_read4,
        reply4,
        skb_answer4,
        skb_mend4,
        skb_judge4,
        skb_masquerade4
    )
}

#[inline(never)]
fn egress6(skb: Skb, place: u32, l3: u32) -> i32 {
    leaving!(
        V6,
        skb,
        place,
        l3,
        skb_read6,
        reply6,
        skb_answer6,
        skb_mend6,
        skb_judge6,
        skb_masquerade6
    )
}

/// Whether a packet that leaves by a pod's link is to be judged. A node may always reach its pods; and what came from
/// the pod itself comes back to it as our answer, or because it asked for itself.
#[inline(always)]
fn is_for_pod(skb: Skb) -> bool {
    let from = skb.ingress_ifindex();
    policy::is_on() && from != 0 && from != skb.ifindex()
}

/// Gives a packet that arrived its new tuple, if it has one, sends it where it cannot go by itself or gets quicker,
/// and counts it.
#[inline(always)]
pub(crate) fn carry_out<F: Told + Rewritten>(
    skb: Skb,
    plan: &Plan<F>,
    place: Place,
    decision: u32,
) -> i32
where
    Maps: Tables<F>,
{
    match send(skb, plan, place, decision) {
        Ok(sent) => {
            // What is no service's, and an answer that is translated where it leaves, have no counter here.
            if sent.translated {
                translated(plan, decision, skb.ifindex());
            }
            sent.verdict
        }
        Err(counter) => dropped(plan, counter as u32, skb.ifindex()),
    }
}

/// Counts a packet that got its new tuple.
#[inline(always)]
pub(crate) fn translated<F: Told>(plan: &Plan<F>, decision: u32, ifindex: u32) {
    count(counter(decision), plan.headers.bytes);
    if decision == code::NEW {
        let what = events::what(kinds::NEW, Counter::TcNewFlow);
        F::tell(plan, what, ifindex);
    }
}

/// What became of a packet.
struct Sent {
    translated: bool,
    verdict: i32,
}

#[inline(always)]
fn send<F: Told + Rewritten>(
    skb: Skb,
    plan: &Plan<F>,
    place: Place,
    decision: u32,
) -> Result<Sent, Counter>
where
    Maps: Tables<F>,
{
    let Plan { headers, to } = plan;
    let changes = decision != code::PASS && decision != code::DONE;
    // An answer keeps its sender's source until it has passed the check of that; otherwise a source that changes is
    // ours.
    let ours = changes && decision != code::ANSWER && source_changes::<F>(&headers.tuple, to);
    if ours && place == Place::Pod && bounces::<F>(&headers.tuple, to) {
        F::rewrite(skb, plan)?;
        return Ok(Sent {
            translated: true,
            verdict: skb.bounce()?,
        });
    }
    let source = if ours {
        Source::Ours
    } else if decision == code::CHECKED || decision == code::DONE {
        Source::Checked
    } else {
        Source::Senders
    };
    if decision != code::NESTED
        && let Some(pod) = direct::pod::<F>(&skb, place, headers, to, source)
    {
        if decision == code::NEW && source == Source::Senders && place != Place::Pod {
            Maps.mark_flow(&headers.tuple, checked_at(skb.ifindex()));
        }
        if changes {
            F::rewrite(skb, plan)?;
        }
        return Ok(Sent {
            translated: changes,
            verdict: direct::deliver(&skb, headers, pod)?,
        });
    }
    if ours {
        let mtu = skb.too_big(headers, to);
        if mtu != 0 {
            count(Counter::TcTooBig, headers.bytes);
            let what = events::what(kinds::REFUSE, Counter::TcTooBig);
            F::tell(plan, what, skb.ifindex());
            return Ok(Sent {
                translated: false,
                verdict: skb.undelivered(headers, Undelivered::TooBig(mtu))?,
            });
        }
        skb.decrement_ttl(headers)?;
    }
    if !ours && place == Place::Pod {
        return Ok(Sent {
            translated: false,
            verdict: TO_LEAVE,
        });
    }
    let translated = changes && decision != code::ANSWER;
    if translated {
        F::rewrite(skb, plan)?;
    }
    let verdict = if ours {
        skb.forward::<F>(headers.l3, to)?
    } else {
        NEXT
    };
    Ok(Sent {
        translated,
        verdict,
    })
}

/// What [`mend`] says of a packet that is no error about a flow, or not to be mended here. No verdict of TC's.
pub(crate) const NOT_MENDED: i32 = -2;

/// Where an error is seen, as a number.
pub(crate) mod way {
    use packet::quote::Way;

    pub(crate) const ARRIVING: u32 = 0;
    pub(crate) const LEAVING: u32 = 1;

    #[inline(always)]
    pub(crate) fn of(number: u32) -> Way {
        if number == LEAVING {
            Way::Leaving
        } else {
            Way::Arriving
        }
    }
}

/// Gives an ICMP error about a packet of a flow to whoever sent that packet.
#[inline(always)]
pub(crate) fn mend<F: Told>(skb: Skb, plan: &Plan<F>, way: Way) -> i32
where
    Maps: Tables<F>,
{
    let headers = &plan.headers;
    let Some(quote) = quote::quote(&skb, headers) else {
        return NOT_MENDED;
    };
    let Some(mended) = quote::mend(&Maps, way, headers, &quote.tuple) else {
        // About a flow's packet all the same, perhaps: it leaves behind the stack's routing, where it is looked at.
        return if way == Way::Arriving {
            NEXT
        } else {
            NOT_MENDED
        };
    };
    let sent = send_mended(skb, headers, &quote, &mended, way);
    match sent {
        Ok(verdict) => {
            count(Counter::TcIcmpError, headers.bytes);
            let what = events::what(kinds::ERROR, Counter::TcIcmpError);
            F::tell(plan, what, skb.ifindex());
            verdict
        }
        Err(counter) => dropped(plan, counter as u32, skb.ifindex()),
    }
}

#[inline(always)]
fn send_mended<F: Family>(
    skb: Skb,
    headers: &Headers<F>,
    quote: &Quote<F>,
    mended: &Mended<F>,
    way: Way,
) -> Result<i32, Counter> {
    // A source of ours or a service's would not pass the stack's check of what arrives.
    let ours = way == Way::Arriving && !mended.saddr.is(headers.tuple.saddr());
    if ours {
        skb.decrement_ttl(headers)?;
    }
    skb.mend(headers, quote, mended, false)?;
    if ours {
        let to = F::Flow::new(mended.saddr, mended.daddr, U16::ZERO, U16::ZERO, F::ICMP);
        skb.forward::<F>(headers.l3, &to)
    } else {
        Ok(NEXT)
    }
}

/// Gives an answer that leaves its service's address.
#[inline(always)]
pub(crate) fn answer<F: Told>(skb: Skb, plan: &Plan<F>) -> i32 {
    match skb.rewrite(&plan.headers, &plan.to) {
        Ok(()) => {
            count(Counter::TcReply, plan.headers.bytes);
            NEXT
        }
        Err(counter) => dropped(plan, counter as u32, skb.ifindex()),
    }
}

/// Answers that nobody listens there. What cannot be answered is dropped, and counted all the same.
#[inline(always)]
pub(crate) fn refuse<F: Told>(skb: Skb, plan: &Plan<F>) -> i32 {
    let headers = &plan.headers;
    let answered = match headers.transport {
        Transport::Tcp => skb.reset(headers),
        Transport::Udp | Transport::Sctp => skb.undelivered(headers, Undelivered::NoPort),
        Transport::Icmp | Transport::Elsewhere | Transport::Other => Err(Counter::TcNoEndpoint),
    };
    count(Counter::TcNoEndpoint, headers.bytes);
    let what = events::what(kinds::REFUSE, Counter::TcNoEndpoint);
    F::tell(plan, what, skb.ifindex());
    answered.unwrap_or(TC_ACT_SHOT as i32)
}

#[inline(always)]
pub(crate) fn dropped<F: Told>(plan: &Plan<F>, counter: u32, ifindex: u32) -> i32 {
    count_number(counter, plan.headers.bytes);
    F::tell(plan, events::what_number(kinds::DROP, counter), ifindex);
    TC_ACT_SHOT as i32
}

#[inline(always)]
fn counter(decision: u32) -> Counter {
    match decision {
        code::NEW => Counter::TcNewFlow,
        code::FORWARD | code::CHECKED => Counter::TcForward,
        _ => Counter::TcReply,
    }
}
