//! The way of a pod's packets off this node, remembered for a moment: the routing table, the pods of this node and the
//! devices' flags have said it, and are not asked again with each packet. See [`abi::next_hops`].

use abi::devices::flags;
use abi::next_hops::{self, LASTS_MS};
use abi::{Counter, NextHop};
use aya_ebpf::bindings::{__sk_buff, bpf_fib_lookup};
use aya_ebpf::helpers::generated::bpf_fib_lookup as fib_lookup;
use packet::balance::code;
use packet::{Address as _, Family, Flow as _, Headers, V4, V6, hop};

use super::clock;
use super::count::count;
use super::maps::NEXT_HOPS;
use super::masquerade;
use super::outlined::{Plan, Rewritten, Told};
use super::route::{self, Route};
use super::skb::{self, Skb};
use super::tables::{device_has, endpoint, routes_here};
use super::tc::{self, NEXT};

/// A family of packets that leave this node.
pub(crate) trait Leaving: Told {
    /// [`leave`], walked by itself.
    fn leave(ctx: *mut __sk_buff, plan: &Plan<Self>, decision: u32, asks: u32) -> i32;
}

macro_rules! leaving {
    ($family:ty, $leave:ident) => {
        /// [`leave`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $leave(
            ctx: *mut __sk_buff,
            plan: *const Plan<$family>,
            decision: u32,
            asks: u32,
        ) -> i32 {
            // SAFETY: the verifier holds callers to memory of this size, or none. Nothing else has it.
            match unsafe { plan.as_ref() } {
                Some(plan) => leave(Skb::of(ctx), plan, decision, asks != 0),
                None => NEXT,
            }
        }

        impl Leaving for $family {
            #[inline(always)]
            fn leave(ctx: *mut __sk_buff, plan: &Plan<Self>, decision: u32, asks: u32) -> i32 {
                $leave(ctx, plan, decision, asks)
            }
        }
    };
}

leaving!(V4, skb_leave4);
leaving!(V6, skb_leave6);

/// What [`leave`] says of a packet whose way is to be asked for. No verdict of TC's.
pub(crate) const NOT_KNOWN: i32 = -2;

/// What is said of a pod's packet that is to [`leave`]. No verdict of TC's.
pub(crate) const TO_LEAVE: i32 = -3;

/// Sends a pod's packet to its next hop past the stack, where it may go so: by what is remembered, or where it `asks`, by
/// the routing table. Answers of services get their address on the way.
#[inline(always)]
fn leave<F: Told + Rewritten>(skb: Skb, plan: &Plan<F>, decision: u32, asks: bool) -> i32 {
    let Plan { headers, to } = plan;
    let is_answer = decision == code::ANSWER;
    let translates = decision != code::PASS && !is_answer;
    let tuple = if translates { to } else { &headers.tuple };
    let next = if asks {
        ask::<F>(&skb, headers, tuple)
    } else {
        known::<F>(&skb, headers, tuple.daddr())
    };
    let mut leaves = None;
    if let Some(next) = next
        && skb.len_on_wire(headers) <= next.mtu.into()
        && skb.age::<F>(headers.l3).is_ok()
    {
        leaves = Some(next);
    }
    if leaves.is_none() && !asks {
        return NOT_KNOWN;
    }
    if translates || is_answer && leaves.is_some() {
        if let Err(counter) = F::rewrite(skb, plan) {
            return tc::dropped(plan, counter as u32, skb.ifindex());
        }
        tc::translated(plan, decision, skb.ifindex());
    }
    let Some(next) = leaves else {
        return NEXT;
    };
    if is_answer || !masquerade::is_due::<F>(tuple) {
        skb.mark();
    }
    count(Counter::TcHostRouted, headers.bytes);
    let address = route::next_hop(next.next_family.into(), next.next);
    skb::redirect(next.ifindex, address)
}

/// What is remembered of the way to a packet's destination, if it may go past the stack.
#[inline(always)]
fn known<'a, F: Family>(skb: &Skb, headers: &Headers<F>, daddr: F::Address) -> Option<&'a NextHop> {
    if !hop::is_plain(headers) || !skb.is_for_this_device() {
        return None;
    }
    let (saddr, daddr) = (headers.tuple.saddr().words(), daddr.words());
    let from = from::<F>(skb.ifindex());
    let place = NEXT_HOPS.get_ptr(next_hops::place(&saddr, &daddr, from))?;
    // SAFETY: the pointer comes from the kernel, and its element, of this CPU alone, stays mapped until the program
    // ends; nothing writes it before that.
    let known = unsafe { &*place };
    let is_this = known.from == from
        && is_same::<F>(&known.daddr, &daddr)
        && is_same::<F>(&known.saddr, &saddr)
        && clock::millis().wrapping_sub(known.asked_ms) < LASTS_MS;
    (is_this && routes_here::<F>()).then_some(known)
}

/// Asks for the way to where a packet goes that now has the tuple `to`, and remembers it. `None` where it must not go past
/// the stack; where it leaves by a device without [`flags::TC_RUNS`]; where the next hop's link address has to be asked for
/// first, or the packet is too long for the route: that the stack does.
#[inline(always)]
fn ask<'a, F: Family>(skb: &Skb, headers: &Headers<F>, to: &F::Flow) -> Option<&'a NextHop> {
    let (saddr, daddr) = (headers.tuple.saddr(), to.daddr());
    let may = hop::is_plain(headers)
        && skb.is_for_this_device()
        && hop::is_routable::<F>(daddr)
        && hop::is_own_source(endpoint::<F>(saddr), skb.ifindex())
        && routes_here::<F>();
    if !may {
        return None;
    }
    let (mut query, _) = skb.sized_query(headers, to)?;
    // SAFETY: the helper takes this hook's context and the query with its size.
    let answer = unsafe {
        fib_lookup(
            skb.ctx().cast(),
            &raw mut query,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    match route::answer(answer) {
        Route::Known if device_has(query.ifindex, flags::TC_RUNS) => {}
        Route::Known | Route::NoNeighbour | Route::None => return None,
    }
    if query.ifindex == skb.ifindex() {
        return None;
    }
    let (saddr, daddr, from) = (saddr.words(), daddr.words(), from::<F>(skb.ifindex()));
    let place = NEXT_HOPS.get_ptr_mut(next_hops::place(&saddr, &daddr, from))?;
    // SAFETY: the pointer comes from the kernel, and its element, of this CPU alone, stays mapped until the program
    // ends. Nothing else has it; each field is written by itself, as a whole would be made on the stack first. Of the
    // union every bit pattern is a number: the helper writes the route's limit there, kernel 5.12 (e1850ea9bd9e).
    unsafe {
        (*place).saddr = saddr;
        (*place).daddr = daddr;
        (*place).from = from;
        (*place).ifindex = query.ifindex;
        (*place).next = route::next_address(&query);
        (*place).next_family = query.family.into();
        (*place).mtu = query.__bindgen_anon_1.mtu_result;
        (*place).asked_ms = clock::millis();
        Some(&*place)
    }
}

/// The source in the key of what is remembered of the way back to a client.
const NOBODY: [u32; 4] = [0; 4];

/// Whether the way to a client was found a moment ago to be the one that its packets came, by the device `ifindex`.
#[inline(always)]
pub(crate) fn leads_back<F: Family>(ifindex: u32, client: F::Address) -> bool {
    let (client, from) = (client.words(), from::<F>(ifindex));
    let Some(place) = NEXT_HOPS.get_ptr(next_hops::place(&NOBODY, &client, from)) else {
        return false;
    };
    // SAFETY: as above.
    let known = unsafe { &*place };
    known.from == from
        && is_same::<F>(&known.daddr, &client)
        && is_same::<F>(&known.saddr, &NOBODY)
        && clock::millis().wrapping_sub(known.asked_ms) < LASTS_MS
}

/// Remembers that.
#[inline(always)]
pub(crate) fn remember_back<F: Family>(ifindex: u32, client: F::Address) {
    let (client, from) = (client.words(), from::<F>(ifindex));
    if let Some(place) = NEXT_HOPS.get_ptr_mut(next_hops::place(&NOBODY, &client, from)) {
        // SAFETY: as above.
        unsafe {
            (*place).saddr = NOBODY;
            (*place).daddr = client;
            (*place).from = from;
            (*place).ifindex = ifindex;
            (*place).asked_ms = clock::millis();
        }
    }
}

#[inline(always)]
fn from<F: Family>(ifindex: u32) -> u32 {
    if F::NUMBER == abi::family::V4 {
        ifindex
    } else {
        ifindex | next_hops::V6
    }
}

#[inline(always)]
fn is_same<F: Family>(one: &[u32; 4], other: &[u32; 4]) -> bool {
    let ([a, b, c, d], [e, f, g, h]) = (*one, *other);
    a == e && (F::NUMBER == abi::family::V4 || b == f && c == g && d == h)
}
