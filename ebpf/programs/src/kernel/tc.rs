//! What the TC programs share: from a decision to what happens to the packet.

use abi::Counter;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use packet::balance::{Kind, bounces, source_changes};
use packet::{
    Decision, Family, Headers, Link, Place, Tables, Transport, V4, V6, balance, parse, reply,
};

use super::count::count;
use super::skb::Skb;
use super::tables::Maps;

/// What became of a packet, with the bytes to count.
enum Outcome {
    /// Not ours.
    Untouched,
    /// Rewritten; the verdict says whether the kernel carries on with it or it was sent past its routing.
    Rewritten(Counter, u32, i32),
    /// Dropped.
    Dropped(Counter, u32),
}

/// Packets that arrive: clients on their way to services, and what must not go through routing.
#[inline(always)]
pub(crate) fn ingress(skb: Skb, place: Place) -> i32 {
    match parse::link(&skb) {
        Link::V4(l3) => ingress4(skb, place, l3),
        Link::V6(l3) => ingress6(skb, place, l3),
        Link::Other => verdict(Outcome::Untouched),
    }
}

/// Packets that leave: answers of services on their way to clients.
#[inline(always)]
pub(crate) fn egress(skb: Skb) -> i32 {
    match parse::link(&skb) {
        Link::V4(l3) => egress4(skb, l3),
        Link::V6(l3) => egress6(skb, l3),
        Link::Other => verdict(Outcome::Untouched),
    }
}

// Functions of their own, so that each family has a stack of its own: a kernel program has 512 bytes.

#[inline(never)]
fn ingress4(skb: Skb, place: Place, l3: u32) -> i32 {
    arriving::<V4>(skb, place, l3)
}

#[inline(never)]
fn ingress6(skb: Skb, place: Place, l3: u32) -> i32 {
    arriving::<V6>(skb, place, l3)
}

#[inline(never)]
fn egress4(skb: Skb, l3: u32) -> i32 {
    verdict(leaving::<V4>(&skb, l3))
}

#[inline(never)]
fn egress6(skb: Skb, l3: u32) -> i32 {
    verdict(leaving::<V6>(&skb, l3))
}

/// The verdict of a classifier, and the count. What is not redirected or dropped goes on to other programs.
#[inline(always)]
fn verdict(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Untouched => TC_ACT_UNSPEC,
        Outcome::Rewritten(counter, bytes, verdict) => {
            count(counter, bytes);
            verdict
        }
        Outcome::Dropped(counter, bytes) => {
            count(counter, bytes);
            TC_ACT_SHOT as i32
        }
    }
}

#[inline(always)]
fn arriving<F: Family>(skb: Skb, place: Place, l3: u32) -> i32
where
    Maps: Tables<F>,
{
    let mut headers = F::headers(&skb, l3);
    let mut to = headers.tuple;
    match balance::<F, _>(&Maps, place, skb.ifindex(), &mut headers, &mut to) {
        Decision::Pass => verdict(Outcome::Untouched),
        Decision::Rewrite(kind) => rewrite(skb, place, &headers, &to, kind),
        Decision::Refuse => refuse(skb, &headers),
        Decision::Drop(counter) => verdict(Outcome::Dropped(counter, headers.bytes)),
    }
}

#[inline(always)]
fn leaving<F: Family>(skb: &Skb, l3: u32) -> Outcome
where
    Maps: Tables<F>,
{
    let mut headers = F::headers(skb, l3);
    let mut to = headers.tuple;
    match reply::<F, _>(&Maps, &mut headers, &mut to) {
        Decision::Rewrite(kind) => match skb.rewrite(&headers, &to) {
            Ok(()) => Outcome::Rewritten(counter(kind), headers.bytes, TC_ACT_UNSPEC),
            Err(counter) => Outcome::Dropped(counter, headers.bytes),
        },
        Decision::Pass | Decision::Refuse | Decision::Drop(_) => Outcome::Untouched,
    }
}

/// Gives a packet its new tuple, sends it where it cannot go by itself, and counts it. A function of its own, so
/// that what it puts on the stack comes after what deciding did.
#[inline(never)]
fn rewrite<F: Family>(
    skb: Skb,
    place: Place,
    headers: &Headers<F>,
    to: &F::Flow,
    kind: Kind,
) -> i32 {
    verdict(match carry_out(skb, place, headers, to) {
        Ok(verdict) => Outcome::Rewritten(counter(kind), headers.bytes, verdict),
        Err(counter) => Outcome::Dropped(counter, headers.bytes),
    })
}

#[inline(always)]
fn carry_out<F: Family>(
    skb: Skb,
    place: Place,
    headers: &Headers<F>,
    to: &F::Flow,
) -> Result<i32, Counter> {
    if !source_changes::<F>(&headers.tuple, to) {
        skb.rewrite(headers, to)?;
        Ok(TC_ACT_UNSPEC)
    } else if place == Place::Pod && bounces::<F>(&headers.tuple, to) {
        skb.rewrite(headers, to)?;
        skb.bounce()
    } else {
        skb.decrement_ttl(headers)?;
        skb.rewrite(headers, to)?;
        skb.forward::<F>(to)
    }
}

/// Answers that nobody listens there. What cannot be answered is dropped, and counted all the same.
#[inline(never)]
fn refuse<F: Family>(skb: Skb, headers: &Headers<F>) -> i32 {
    let answered = match headers.transport {
        Transport::Tcp => skb.reset(headers),
        Transport::Udp => skb.unreachable(headers),
        Transport::Icmp | Transport::Elsewhere | Transport::Other => Err(Counter::TcNoEndpoint),
    };
    verdict(match answered {
        Ok(verdict) => Outcome::Rewritten(Counter::TcNoEndpoint, headers.bytes, verdict),
        Err(_) => Outcome::Dropped(Counter::TcNoEndpoint, headers.bytes),
    })
}

#[inline(always)]
fn counter(kind: Kind) -> Counter {
    match kind {
        Kind::New => Counter::TcNewFlow,
        Kind::Forward => Counter::TcForward,
        Kind::Reply => Counter::TcReply,
    }
}
