//! Telling whoever watches what happened. Called where a flow begins, where a packet or call is dropped, refused or
//! answered with an error, and where policies are asked: packets of known flows cost what they did.

use abi::events::WATCHERS;
use abi::{Counter, Event, Watcher};
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns,
};
use packet::{Address as _, Family, Flow as _, Shared as _};
use zerocopy::network_endian::U16;

use super::maps::{EVENTS_LOST, EVENTS0, EVENTS1, EVENTS2, EVENTS3, SWITCHES};
use super::outlined::Plan;
use super::tables::Maps;

/// A call on a socket, as its owner asked and as it becomes.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) addr: [u8; 16],
    pub(crate) to: [u8; 16],
    pub(crate) port: U16,
    pub(crate) to_port: U16,
    pub(crate) family: u8,
    pub(crate) proto: u8,
    pub(crate) _pad: [u8; 2],
}

/// What happened, as one number: a bit of [`abi::events::kinds`] and the counter.
#[inline(always)]
pub(crate) const fn what(kind: u32, counter: Counter) -> u32 {
    what_number(kind, counter as u32)
}

/// As [`what`], for a counter's number or that of an [`abi::Judged`].
#[inline(always)]
pub(crate) const fn what_number(kind: u32, number: u32) -> u32 {
    kind << 16 | number
}

/// Whether anybody watches: what is looked at while nobody does.
#[inline(always)]
pub(crate) fn watched() -> bool {
    match SWITCHES.get(0) {
        Some(all) => {
            let [a, b, c, d] = &all.watchers;
            until(a) | until(b) | until(c) | until(d) != 0
        }
        None => false,
    }
}

#[inline(always)]
fn until(watcher: &Watcher) -> u32 {
    // SAFETY: an aligned word of memory that stays mapped; volatile, because it changes while the program runs.
    unsafe { core::ptr::read_volatile(&raw const watcher.until_secs) }
}

/// Whether a watcher is told of something of a kind now.
#[inline(always)]
fn is_told(ring: usize, kind: u32) -> bool {
    let Some(all) = SWITCHES.get(0) else {
        return false;
    };
    let watcher = &all.watchers[ring];
    let until_secs = until(watcher);
    until_secs != 0
        && watcher.kinds & kind != 0
        && (watcher.threshold == 0 || Maps.random() < watcher.threshold)
        && Maps.now_secs() < until_secs
}

#[inline(always)]
fn lose(ring: u32) {
    if let Some(lost) = EVENTS_LOST.get_ptr_mut(ring) {
        // SAFETY: the pointer comes from the kernel, and its element, one for each CPU, stays mapped until the program
        // ends.
        unsafe { *lost += 1 };
    }
}

const _: () = assert!(WATCHERS == 4);

/// Has an event filled in in each ring whose watcher is told of it, so that it takes no room on the stack. `fill` gets
/// its address and writes every field.
macro_rules! write {
    ($what:expr, $fill:expr) => {
        write!(@ $what, $fill, EVENTS0 0, EVENTS1 1, EVENTS2 2, EVENTS3 3);
    };
    (@ $what:expr, $fill:expr, $($map:ident $ring:literal),*) => {$(
        if is_told($ring, $what >> 16) {
            match $map.reserve(0) {
                Some(mut entry) => {
                    $fill(entry.as_mut_ptr());
                    entry.submit(0);
                }
                None => lose($ring),
            }
        }
    )*};
}

/// Tells of a packet; see [`what`].
#[inline(always)]
pub(crate) fn tell_packet<F: Family>(plan: &Plan<F>, what: u32, ifindex: u32) {
    if !watched() {
        return;
    }
    let (from, to) = (&plan.headers.tuple, &plan.to);
    // SAFETY: the helper takes nothing and cannot fail.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let fill = |event: *mut Event| {
        // SAFETY: memory of an event's size, aligned to eight bytes, which nobody else has until it is submitted.
        unsafe {
            (*event).time_ns = time_ns;
            (*event).netns_cookie = 0;
            (*event).saddr = from.saddr().padded();
            (*event).daddr = from.daddr().padded();
            (*event).to_saddr = to.saddr().padded();
            (*event).to_daddr = to.daddr().padded();
            (*event).sport = from.sport();
            (*event).dport = from.dport();
            (*event).to_sport = to.sport();
            (*event).to_dport = to.dport();
            (*event).bytes = plan.headers.bytes;
            (*event).ifindex = ifindex;
            (*event).pid = 0;
            (*event).what = what as u16;
            (*event).family = F::NUMBER;
            (*event).proto = from.proto();
            (*event).comm = [0; 16];
        }
    };
    write!(what, fill);
}

/// Tells of a call; see [`what`]. A function that the verifier walks by itself, see [`super::outlined`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell_call(seen: *const Seen, netns_cookie: u64, what: u32) -> u32 {
    // SAFETY: the verifier holds callers to memory of this size, or none.
    let Some(seen) = (unsafe { seen.as_ref() }) else {
        return 0;
    };
    // SAFETY: the helpers take nothing and cannot fail. Kernel 5.7 (834ebca83175) for socket hooks.
    let (time_ns, pid) = unsafe { (bpf_ktime_get_ns(), bpf_get_current_pid_tgid() >> 32) };
    let fill = |event: *mut Event| {
        // SAFETY: as for packets; the helper writes as many octets as it is told there are.
        unsafe {
            (*event).time_ns = time_ns;
            (*event).netns_cookie = netns_cookie;
            (*event).saddr = [0; 16];
            (*event).daddr = seen.addr;
            (*event).to_saddr = [0; 16];
            (*event).to_daddr = seen.to;
            (*event).sport = U16::ZERO;
            (*event).dport = seen.port;
            (*event).to_sport = U16::ZERO;
            (*event).to_dport = seen.to_port;
            (*event).bytes = 0;
            (*event).ifindex = 0;
            (*event).pid = pid as u32;
            (*event).what = what as u16;
            (*event).family = seen.family;
            (*event).proto = seen.proto;
            bpf_get_current_comm(
                (&raw mut (*event).comm).cast(),
                abi::events::COMM_LEN as u32,
            );
        }
    };
    write!(what, fill);
    0
}
