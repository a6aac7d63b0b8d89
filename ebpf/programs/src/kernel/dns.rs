//! DNS queries for names of Services, answered where they arrive and sent back the way they came. Whatever is not
//! answered is left as it was.

use abi::dns::NAME_MAX;
use abi::events::kinds;
use abi::{Counter, DnsControl, DnsName};
use aya_ebpf::helpers::generated::{bpf_map_lookup_elem, bpf_sk_release};
use packet::dns::{
    HEADER, MESSAGE_AT, MESSAGE_MAX, Scratch, TAIL_MAX, fold_name, header, message_len, name_len,
    question, records,
};
use packet::parse::UDP_LEN;
use packet::{Bytes, Family, Flow as _, Headers, Shared as _, Transport};
use zerocopy::IntoBytes as _;

use super::count::count;
use super::events;
use super::maps::{DNS_ALIVE, DNS_CONTROL, DNS_NAMES, DNS_SCRATCH};
use super::mem::octets;
use super::outlined::{Plan, Told};
use super::tables::Maps;

/// The verdict on a packet that is not answered: no program returns it.
pub(crate) const LEFT: i32 = i32::MIN;

/// Whether a packet may be a query that is answered here: what most packets are not, in a few instructions.
#[inline(always)]
pub(crate) fn asks<F: Family>(headers: &Headers<F>) -> bool {
    headers.transport == Transport::Udp
        && match DNS_CONTROL.get(0) {
            Some(control) => {
                let port = headers.tuple.dport();
                control.answers_until_secs != 0
                    && (port == control.service_port || port == control.local_port)
            }
            None => false,
        }
}

/// Whether the holder of the DNS zone lives: the kernel takes its socket out of the table as it ends.
#[inline(always)]
pub(crate) fn is_alive() -> bool {
    let (map, index) = (&raw const DNS_ALIVE, 0_u32);
    // SAFETY: the helper takes a map and a key of its size. What it finds it holds until it is released. Kernel 5.8
    // (64d85290d79c).
    unsafe {
        let socket = bpf_map_lookup_elem(map.cast_mut().cast(), (&raw const index).cast());
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket);
    }
    true
}

/// What the holder of the DNS zone says of this node's instance, see [`packet::Shared::local_dns`].
#[inline(always)]
pub(crate) fn local<'a>() -> Option<&'a DnsControl> {
    match DNS_CONTROL.get(0) {
        Some(control) if control.local_until_secs | control.answers_until_secs != 0 => {
            Some(control)
        }
        Some(_) | None => None,
    }
}

/// Whether this node's instance answers.
#[inline(always)]
pub(crate) fn answers(control: &DnsControl) -> bool {
    // Where queries are not sent to it, it is known by the names that it has answered here.
    let until_secs = match control.local_until_secs {
        0 => control.answers_until_secs,
        until_secs => until_secs,
    };
    Maps.now_secs() < until_secs && is_alive()
}

/// A packet as a hook has it.
pub(crate) trait Carrier: Bytes + Copy {
    /// What counts the answers of this hook.
    const ANSWERED: Counter;
    /// The verdict on a packet that is neither query nor answer any more.
    const DROP: i32;

    /// The verdict on a query that cannot be answered from here, and may be where the packet is seen next.
    const ELSEWHERE: i32;

    /// Index of the device where it was seen.
    fn device(&self) -> u32;

    /// Whether answers can be sent from here.
    fn may_answer(&self) -> bool;

    /// Copies `len` octets of the packet from `offset` on; `to` has at least as many, of which the verifier knows the
    /// bound.
    fn load(&self, offset: u32, to: &mut [u8], len: u64) -> bool;

    /// Makes the packet `len` octets long; false where there is no room, and the packet is as it was. What lies before
    /// the end is whatever it may be afterwards.
    fn resize(&self, len: u32) -> bool;

    /// Overwrites the packet from `offset` on; `from` has at least `len` octets, of which the verifier knows the bound.
    fn store_octets(&self, offset: u32, from: &[u8], len: u64) -> Result<(), Counter>;

    /// Gives the packet the headers of an answer whose datagram is `udp_len` octets long, and sends it back. The sum of
    /// the message changed by `change`.
    fn send_back<F: Family>(
        &self,
        headers: &Headers<F>,
        query: &Query,
        udp_len: u32,
        change: u64,
    ) -> Result<i32, Counter>;
}

/// What is kept of a query's headers.
pub(crate) struct Query {
    /// The first twelve octets of the link header.
    pub(crate) link: [u32; 3],
    /// The UDP header's length.
    pub(crate) len: [u8; 2],
    /// The UDP header's checksum.
    pub(crate) check: [u8; 2],
}

/// In a socket buffer or a frame.
#[inline(always)]
pub(crate) fn answer<F: Told, C: Carrier>(carrier: C, plan: &Plan<F>, from_pod: bool) -> i32 {
    let headers = &plan.headers;
    let Some(control) = DNS_CONTROL.get(0) else {
        return LEFT;
    };
    let Some(len) = message_len(headers, control, from_pod) else {
        return LEFT;
    };
    let Some(scratch) = scratch() else {
        return LEFT;
    };
    let message = headers.l4 + UDP_LEN;
    if Maps.now_secs() >= control.answers_until_secs || !is_alive() {
        return LEFT;
    }
    if !carrier.may_answer() {
        return C::ELSEWHERE;
    }
    let octets_len = octets(len);
    if octets_len == 0 || !carrier.load(message, &mut scratch.message[MESSAGE_AT..], octets_len) {
        return LEFT;
    }
    // What follows, one after the other rather than one within the other: a program has little stack.
    let name_len = dns_name_len();
    if dns_question(len, name_len) == 0 {
        return LEFT;
    }
    let name_len = octets(name_len);
    scratch.name = DnsName {
        words: [0; NAME_MAX / 8],
    };
    if name_len == 0
        || name_len > NAME_MAX as u64
        || !carrier.load(message + HEADER, scratch.name.as_mut_bytes(), name_len)
        || dns_records() == 0
    {
        return LEFT;
    }
    dns_header();
    match turn(carrier, headers, scratch) {
        None => LEFT,
        Some(Ok(verdict)) => {
            count(C::ANSWERED, headers.bytes);
            verdict
        }
        Some(Err(counter)) => {
            count(counter, headers.bytes);
            F::tell(plan, events::what(kinds::DROP, counter), carrier.device());
            C::DROP
        }
    }
}

/// Turns the query into the answer in `scratch`; `None` where there is no room for it, and the packet is as it was.
#[inline(always)]
fn turn<F: Family, C: Carrier>(
    carrier: C,
    headers: &Headers<F>,
    scratch: &Scratch,
) -> Option<Result<i32, Counter>> {
    let l4 = headers.l4;
    let (head_len, tail_len) = (octets(scratch.head_len), octets(scratch.tail_len));
    let fits = |len: u64, max: u32| len != 0 && len <= u64::from(max);
    if !fits(head_len, MESSAGE_MAX) || !fits(tail_len, TAIL_MAX) {
        return None;
    }
    let link = carrier.words::<3>(0)?;
    let [_, len_check] = carrier.words::<2>(l4)?;
    let [l0, l1, c0, c1] = len_check.to_ne_bytes();
    if F::CHECK_OFFSET.is_none() && [c0, c1] == [0, 0] {
        return None; // RFC 8200 section 8.1: not for us to answer
    }
    let udp_len = UDP_LEN + head_len as u32 + tail_len as u32;
    if !carrier.resize(l4 + udp_len) {
        return None;
    }
    let query = Query {
        link,
        len: [l0, l1],
        check: [c0, c1],
    };
    let message = l4 + UDP_LEN;
    Some(
        carrier
            .store_octets(message, &scratch.message[MESSAGE_AT..], head_len)
            .and_then(|()| carrier.store_octets(message + head_len as u32, &scratch.tail, tail_len))
            .and_then(|()| carrier.send_back(headers, &query, udp_len, scratch.change)),
    )
}

/// This CPU's own until the program ends.
#[inline(always)]
fn scratch<'s>() -> Option<&'s mut Scratch> {
    let scratch = DNS_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: an element of a per-CPU table; packet programs are not preempted by each other, and of those who call each
    // other here only one at a time uses it.
    Some(unsafe { &mut *scratch })
}

// Functions that the verifier walks by themselves, once for both families: see `super::outlined`.

/// [`name_len`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_name_len() -> u32 {
    match scratch() {
        Some(scratch) => name_len(scratch),
        None => 0,
    }
}

/// [`question`]; zero for what goes on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_question(len: u32, name_len: u32) -> u32 {
    // A register of its own: what the compiler knows of the callers' numbers, the verifier does not.
    let name_len = octets(name_len) as u32;
    match scratch() {
        Some(scratch) => question(scratch, len, name_len).into(),
        None => 0,
    }
}

/// [`records`] of the name, in lower case; zero where nothing is known of it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_records() -> u32 {
    let (Some(control), Some(scratch)) = (DNS_CONTROL.get(0), scratch()) else {
        return 0;
    };
    fold_name(&mut scratch.name);
    let generation = generation(control);
    // SAFETY: used only if the table did not change meanwhile.
    let Some(found) = (unsafe { DNS_NAMES.get(&scratch.name) }) else {
        return 0;
    };
    records(scratch, found, control);
    u32::from(generation & 1 == 0 && generation == self::generation(control))
}

/// [`header`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_header() -> u32 {
    if let Some(scratch) = scratch() {
        header(scratch);
    }
    0
}

#[inline(always)]
fn generation(control: &DnsControl) -> u32 {
    // SAFETY: an aligned word of memory that stays mapped; volatile, because it changes while the program runs.
    unsafe { core::ptr::read_volatile(&raw const control.generation) }
}
