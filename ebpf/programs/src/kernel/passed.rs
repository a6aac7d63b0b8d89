//! What policies let pass a moment ago, remembered: a packet of a conversation that goes on costs no lookup by hash, and
//! a conversation like the last one none by prefix. See [`abi::passed`].

use abi::passed::{LASTS_MS, V6, place};
use abi::{Flow4, Flow6, PolicyAnswer};
use packet::policy::{Side, opens};
use packet::{Address as _, Family, Flow as _, V4, V6 as Ipv6};

use super::clock::millis;
use super::maps::{POLICY_ANSWERS, POLICY_PASSED};

/// The bit of a number beside TCP's flags by which a packet is on its way to the pod.
const INGRESS: u32 = 1 << 8;

/// Which way a packet goes with which of TCP's flags, as a number.
#[inline(always)]
pub(crate) fn how(side: Side, tcp_flags: u8) -> u32 {
    let side = match side {
        Side::Egress => 0,
        Side::Ingress => INGRESS,
    };
    side | u32::from(tcp_flags)
}

macro_rules! outlined {
    ($family:ty, $flow:ty, $has_passed:ident, $remember_passed:ident) => {
        /// [`has_passed`], walked by itself; see [`super::outlined`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $has_passed(
            tuple: *const $flow,
            link: u32,
            generation: u32,
            how: u32,
        ) -> u32 {
            // SAFETY: the verifier holds callers to memory of this size, or none.
            match unsafe { tuple.as_ref() } {
                Some(tuple) => has_passed::<$family>(tuple, link, generation, how).into(),
                None => 0,
            }
        }

        /// [`remember_passed`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $remember_passed(
            tuple: *const $flow,
            link: u32,
            generation: u32,
            how: u32,
        ) -> u32 {
            // SAFETY: as above.
            if let Some(tuple) = unsafe { tuple.as_ref() } {
                remember_passed::<$family>(tuple, link, generation, how);
            }
            0
        }
    };
}

outlined!(V4, Flow4, has_passed4, remember_passed4);
outlined!(Ipv6, Flow6, has_passed6, remember_passed6);

/// Whether a packet's conversation passed at a link a moment ago. Where the packet opens one, that is forgotten, or what
/// else has its place.
#[inline(always)]
fn has_passed<F: Family>(tuple: &F::Flow, link: u32, generation: u32, how: u32) -> bool {
    let Some(element) = POLICY_PASSED.get_ptr_mut(at::<F>(tuple, link)) else {
        return false;
    };
    // SAFETY: the pointer comes from the kernel, and its element, of this CPU alone, stays mapped until the program ends;
    // nothing else has it.
    let known = unsafe { &mut *element };
    if opens::<F>(tuple, how as u8) {
        known.generation = 0;
        return false;
    }
    let differs = known.generation ^ generation
        | known.link ^ link
        | known.what ^ what::<F>(tuple)
        | known.moment ^ moment();
    let (saddr, daddr, ports) = (tuple.saddr().words(), tuple.daddr().words(), tuple.ports());
    let differs_at_ends = if how & INGRESS != 0 {
        difference::<F>(&known.pod, &daddr)
            | difference::<F>(&known.remote, &saddr)
            | known.ports ^ ports.rotate_left(16)
    } else {
        difference::<F>(&known.pod, &saddr)
            | difference::<F>(&known.remote, &daddr)
            | known.ports ^ ports
    };
    differs | differs_at_ends == 0
}

/// Remembers that.
#[inline(always)]
fn remember_passed<F: Family>(tuple: &F::Flow, link: u32, generation: u32, how: u32) {
    let Some(element) = POLICY_PASSED.get_ptr_mut(at::<F>(tuple, link)) else {
        return;
    };
    let ports = tuple.ports();
    // SAFETY: as above. Each field is written by itself, as a whole would be made on the stack first.
    unsafe {
        (*element).what = what::<F>(tuple);
        (*element).link = link;
        (*element).generation = generation;
        (*element).moment = moment();
        if how & INGRESS != 0 {
            (*element).pod = tuple.daddr().words();
            (*element).remote = tuple.saddr().words();
            (*element).ports = ports.rotate_left(16);
        } else {
            (*element).pod = tuple.saddr().words();
            (*element).remote = tuple.daddr().words();
            (*element).ports = ports;
        }
    }
}

#[inline(always)]
fn at<F: Family>(tuple: &F::Flow, link: u32) -> u32 {
    let ends = [tuple.saddr().words(), tuple.daddr().words()];
    place(&ends, tuple.ports(), link)
}

/// Whether a set let this pass.
#[inline(always)]
pub(crate) fn is_answered(asked: &PolicyAnswer) -> bool {
    let Some(element) = POLICY_ANSWERS.get_ptr(asked.place()) else {
        return false;
    };
    // SAFETY: as above.
    let known = unsafe { &*element };
    let differs = known.generation ^ asked.generation
        | known.set ^ asked.set
        | known.usual ^ asked.usual
        | u32::from(known.port.get() ^ asked.port.get())
        | u32::from(known.proto ^ asked.proto)
        | u32::from(known.family ^ asked.family)
        | difference::<Ipv6>(&known.remote, &asked.remote);
    differs == 0
}

/// Remembers that.
#[inline(always)]
pub(crate) fn remember_answer(answer: &PolicyAnswer) {
    if let Some(element) = POLICY_ANSWERS.get_ptr_mut(answer.place()) {
        // SAFETY: as above.
        unsafe { *element = *answer };
    }
}

#[inline(always)]
fn what<F: Family>(key: &F::Flow) -> u32 {
    let family = if F::NUMBER == abi::family::V4 { 0 } else { V6 };
    u32::from(key.proto()) | family
}

/// Zero if two addresses are the same.
#[inline(always)]
fn difference<F: Family>(one: &[u32; 4], other: &[u32; 4]) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (*one, *other);
    if F::NUMBER == abi::family::V4 {
        a ^ e
    } else {
        a ^ e | b ^ f | c ^ g | d ^ h
    }
}

/// The time in units of [`LASTS_MS`], walked by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn moment() -> u32 {
    millis() / LASTS_MS
}
