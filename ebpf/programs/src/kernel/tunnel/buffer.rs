//! Socket buffers: packets that TC puts another one around, and takes one off.

use core::mem::offset_of;

use abi::Counter;
use abi::events::kinds;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
    BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_RECOMPUTE_CSUM,
    BPF_FIB_LKUP_RET_FRAG_NEEDED, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_fib_lookup,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_skb_adjust_room};
use packet::balance::{code, tunnel};
use packet::parse::ETHERNET_LEN;
use packet::refuse::Undelivered;
use packet::{Bytes as _, Family, Flow as _, Shared as _, Tables, Transport};
use zerocopy::network_endian::U16;

use super::super::count::count;
use super::super::events;
use super::super::mem::field;
use super::super::outlined::Plan;
use super::super::route::{self, Route};
use super::super::skb::{Skb, done, redirect_to};
use super::super::tables::Maps;
use super::super::tc;
use super::{Tunnelled, is_told, look_inside, move_up};

/// What is written where checksums of IPv6 count in a buffer's sum; IPv4's header makes up for itself.
#[inline(always)]
pub(super) fn summed<F: Family>() -> u64 {
    if F::CHECK_OFFSET.is_some() {
        0
    } else {
        u64::from(BPF_F_RECOMPUTE_CSUM)
    }
}

/// Every link takes packets of that length (RFC 791, RFC 8200).
#[inline(always)]
fn least<F: Family>() -> u32 {
    if F::CHECK_OFFSET.is_some() { 576 } else { 1280 }
}

#[inline(always)]
pub(super) fn send<F: Tunnelled>(skb: Skb, plan: &Plan<F>, decision: u32) -> i32
where
    Maps: Tables<F>,
{
    let ifindex = skb.ifindex();
    match try_send(skb, plan) {
        Ok(Sent::Sent(verdict)) => {
            count(Counter::TcTunnelled, plan.headers.bytes);
            if decision == code::TUNNEL_NEW {
                count(Counter::TcNewFlow, plan.headers.bytes);
                F::tell(plan, events::what(kinds::NEW, Counter::TcNewFlow), ifindex);
            } else {
                count(Counter::TcForward, plan.headers.bytes);
            }
            verdict
        }
        Ok(Sent::TooBig(verdict)) => {
            count(Counter::TcTooBig, plan.headers.bytes);
            F::tell(
                plan,
                events::what(kinds::REFUSE, Counter::TcTooBig),
                ifindex,
            );
            verdict
        }
        Err(counter) => tc::dropped(plan, counter as u32, ifindex),
    }
}

/// What became of a packet.
enum Sent {
    Sent(i32),
    /// Its client was told to send shorter ones.
    TooBig(i32),
}

#[inline(always)]
fn try_send<F: Tunnelled>(skb: Skb, plan: &Plan<F>) -> Result<Sent, Counter>
where
    Maps: Tables<F>,
{
    let Plan { headers, to } = plan;
    let node = Maps.node().and_then(F::node_address);
    let node = node.ok_or(Counter::DropNoNodeAddress)?;
    let len = tunnel::outer_len::<F>();
    let outer = F::Flow::new(node, to.daddr(), U16::ZERO, U16::ZERO, tunnel::proto::<F>());
    let (mut query, wire) = skb
        .sized_query(headers, &outer)
        .ok_or(Counter::DropRewrite)?;
    query.__bindgen_anon_1.tot_len = u16::try_from(wire + len).map_err(|_| Counter::DropRewrite)?;
    let mut keep_segments = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
    let mut answer = ask(skb, &mut query);
    if answer == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        // SAFETY: a number, which the helper has put there with this answer.
        let mtu = u32::from(unsafe { query.__bindgen_anon_1.mtu_result });
        if headers.transport == Transport::Tcp && skb.is_segmented() && wire <= mtu {
            // What a device cuts into segments anyway is cut into shorter ones.
            keep_segments = 0;
        } else if wire > least::<F>() {
            let mtu = mtu.saturating_sub(len).max(least::<F>());
            let told = skb.undelivered(headers, Undelivered::TooBig(mtu))?;
            return Ok(Sent::TooBig(told));
        }
        query.__bindgen_anon_1.tot_len = 0;
        answer = ask(skb, &mut query);
    }
    match route::answer(answer) {
        Route::Known | Route::NoNeighbour => {}
        Route::None => return Err(Counter::DropNoRoute),
    }
    skb.decrement_ttl(headers)?;
    let [first] = skb.words::<1>(headers.l3).ok_or(Counter::DropRewrite)?;
    skb.untag(headers.l3)?;
    let kind = if F::CHECK_OFFSET.is_some() {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    };
    let room = u64::from(kind) | keep_segments;
    // SAFETY: the helper checks the length.
    done(unsafe { bpf_skb_adjust_room(skb.ctx(), len as i32, BPF_ADJ_ROOM_MAC, room) })?;
    store_header::<F>(skb, &tunnel::header::<F>(node, to, headers.bytes, first))?;
    Ok(Sent::Sent(redirect_to(&query)))
}

#[inline(always)]
fn ask(skb: Skb, query: &mut bpf_fib_lookup) -> i64 {
    // SAFETY: the helper takes this hook's context and the query with its size.
    unsafe {
        fib_lookup(
            skb.ctx().cast(),
            query,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    }
}

/// Writes an IP header of the family behind the link header.
#[inline(always)]
pub(super) fn store_header<F: Family>(skb: Skb, header: &[u32; 10]) -> Result<(), Counter> {
    if F::CHECK_OFFSET.is_some() {
        let [a, b, c, d, e, ..] = *header;
        skb.store(ETHERNET_LEN, &[a, b, c, d, e], summed::<F>())
    } else {
        skb.store(ETHERNET_LEN, header, summed::<F>())
    }
}

/// Decides on what arrived, and takes the outer header off what another node sent: the plan is that of the packet inside
/// then. [`code::PASS`] of anything else, whose plan is as it was. A function of its own, whose stack is not that of every
/// packet.
#[inline(never)]
pub(crate) fn take_off<F: Tunnelled>(skb: Skb, plan: &mut Plan<F>) -> u32 {
    let mut told = plan.to;
    if !is_told(&skb, plan, &mut told) {
        return code::PASS;
    }
    let end = look_inside(plan);
    F::read_skb(skb.ctx(), plan);
    let decision = if tunnel::is_whole(&plan.headers, end) {
        plan.to = told;
        F::arrive(plan, skb.ifindex())
    } else {
        code::PASS
    };
    if decision == code::PASS {
        *plan = Plan::new(ETHERNET_LEN);
        F::read_skb(skb.ctx(), plan);
    }
    if decision == code::PASS || decision >= code::DROP {
        return decision;
    }
    let len = tunnel::outer_len::<F>();
    let room = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET);
    // SAFETY: the helper checks the length.
    let taken = unsafe { bpf_skb_adjust_room(skb.ctx(), -(len as i32), BPF_ADJ_ROOM_MAC, room) };
    if taken != 0 {
        return code::DROP + Counter::DropRewrite as u32;
    }
    move_up(plan);
    count(Counter::TcUntunnelled, plan.headers.bytes);
    decision
}

impl Skb {
    /// Whether a device will cut it into segments.
    #[inline(always)]
    fn is_segmented(&self) -> bool {
        field::<_, { offset_of!(__sk_buff, gso_size) }>(self.ctx()) != 0
    }
}
