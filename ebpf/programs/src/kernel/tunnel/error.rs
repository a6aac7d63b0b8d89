//! ICMP errors about packets that another one was put around.

use abi::Counter;
use abi::events::kinds;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::helpers::generated::bpf_skb_adjust_room;
use packet::balance::tunnel;
use packet::balance::tunnel::error::Relayed;
use packet::parse::ETHERNET_LEN;
use packet::{Family, Tables};

use super::super::count::count;
use super::super::events;
use super::super::outlined::Plan;
use super::super::skb::{Skb, done};
use super::super::tables::Maps;
use super::super::tc::{self, NOT_MENDED};
use super::Tunnelled;
use super::buffer::{store_header, summed};

#[inline(always)]
pub(super) fn relay<F: Tunnelled>(skb: Skb, plan: &Plan<F>) -> i32
where
    Maps: Tables<F>,
{
    if plan.headers.l3 != ETHERNET_LEN {
        return NOT_MENDED;
    }
    let mut relayed = Relayed {
        icmp: [0; 2],
        payload: 0,
        flow: plan.headers.tuple,
    };
    if !read_error(skb, &plan.headers, &mut relayed) {
        return NOT_MENDED;
    }
    let ifindex = skb.ifindex();
    let mut verdict = tc::NEXT;
    let failed = send_relayed(skb, &relayed, &mut verdict);
    if failed != 0 {
        return tc::dropped(plan, failed - 1, ifindex);
    }
    count(Counter::TcIcmpError, plan.headers.bytes);
    F::tell(
        plan,
        events::what(kinds::ERROR, Counter::TcIcmpError),
        ifindex,
    );
    verdict
}

/// [`tunnel::error::relay`]. A function of its own, whose stack is gone when the error is sent.
#[inline(never)]
fn read_error<F: Family>(skb: Skb, headers: &packet::Headers<F>, relayed: &mut Relayed<F>) -> bool
where
    Maps: Tables<F>,
{
    match tunnel::error::relay::<F, _, _>(&skb, &Maps, headers) {
        Some(found) => {
            *relayed = found;
            true
        }
        None => false,
    }
}

/// Sends what was read; what went wrong as a counter's number and one, or zero. A function of its own, whose stack is not
/// there yet when the error is read.
#[inline(never)]
fn send_relayed<F: Family>(skb: Skb, relayed: &Relayed<F>, verdict: &mut i32) -> u32 {
    match try_send_relayed(skb, relayed) {
        Ok(sent) => {
            *verdict = sent;
            0
        }
        Err(counter) => counter as u32 + 1,
    }
}

#[inline(always)]
fn try_send_relayed<F: Family>(skb: Skb, relayed: &Relayed<F>) -> Result<i32, Counter> {
    let len = tunnel::outer_len::<F>();
    // SAFETY: the helper checks the length.
    done(unsafe { bpf_skb_adjust_room(skb.ctx(), -(len as i32), BPF_ADJ_ROOM_MAC, 0) })?;
    store_header::<F>(skb, &relayed.ip())?;
    // The sum of an ICMP message is zero, whatever it says.
    skb.store(ETHERNET_LEN + len, &relayed.icmp, summed::<F>())?;
    skb.forward::<F>(ETHERNET_LEN, &relayed.flow)
}
