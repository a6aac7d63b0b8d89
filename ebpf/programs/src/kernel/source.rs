//! A pod sends from its own addresses: the reverse-path check of links that our CNI plugin made, which holds whatever
//! rp_filter says, and for every packet, whichever way it goes on.

use abi::Counter;
use abi::devices::flags;
use abi::events::kinds;
use packet::{Bytes as _, Family, Link, V4, V6, hop, parse};

use super::count::count;
use super::events;
use super::outlined::{self, Plan, Told as _};
use super::skb::Skb;
use super::tables::{device_has, endpoint};

/// Where the source is in an IP header.
const SOURCE4: u32 = 12;
const SOURCE6: u32 = 8;

/// Whether a packet that leaves a pod has a source that is none of the pod's own. It is counted then, and to be
/// dropped. Addresses that no packet takes off its link (those of a link alone in IPv6, those of whoever has none yet)
/// are the stack's matter.
#[inline(never)]
pub(crate) fn is_forged(skb: Skb) -> bool {
    if !device_has(skb.ifindex(), flags::SOURCE_CHECKED) {
        return false;
    }
    let own = match parse::link(&skb) {
        Link::V4(l3) => match skb.words::<1>(l3 + SOURCE4) {
            Some([word]) => is_own::<V4>(&skb, word.to_ne_bytes()),
            None => true, // too short for a header: the stack's, too
        },
        Link::V6(l3) => match skb.words::<4>(l3 + SOURCE6) {
            Some(words) => is_own::<V6>(&skb, zerocopy::transmute!(words)),
            None => true,
        },
        Link::Other => true,
    };
    if !own {
        count(Counter::DropForged, skb.len());
        tell(skb, Counter::DropForged);
    }
    !own
}

/// Tells whoever watches what was dropped: the headers are read for that alone.
#[inline(never)]
pub(crate) fn tell(skb: Skb, counter: Counter) {
    if !events::watched() {
        return;
    }
    let what = events::what(kinds::DROP, counter);
    match parse::link(&skb) {
        Link::V4(l3) => tell4(skb, l3, what),
        Link::V6(l3) => tell6(skb, l3, what),
        Link::Other => {}
    }
}

// Functions of their own, so that only one family's plan lies on the stack.

#[inline(never)]
fn tell4(skb: Skb, l3: u32, what: u32) {
    let mut plan = Plan::new(l3);
    outlined::skb_read4(skb.ctx(), &mut plan);
    V4::tell(&plan, what, skb.ifindex());
}

#[inline(never)]
fn tell6(skb: Skb, l3: u32, what: u32) {
    let mut plan = Plan::new(l3);
    outlined::skb_read6(skb.ctx(), &mut plan);
    V6::tell(&plan, what, skb.ifindex());
}

#[inline(always)]
fn is_own<F: Family>(skb: &Skb, source: F::Address) -> bool {
    !hop::is_routable::<F>(source) || hop::is_own_source(endpoint::<F>(source), skb.ifindex())
}
