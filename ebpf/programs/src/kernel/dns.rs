//! DNS queries for names of Services, answered where they arrive and sent back the way they came. Whatever is not
//! answered is left as it was.

use abi::{Counter, DnsAnswer, DnsControl};
use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_map_lookup_elem, bpf_sk_release};
use packet::dns::{Answered, Asked, Scratch, answer, message_len, question};
use packet::parse::UDP_LEN;
use packet::{Bytes as _, Family, Flow as _, Headers, Shared as _, Transport};

use super::count::count;
use super::device_xdp::transmits;
use super::frame::Frame;
use super::maps::{DNS_ALIVE, DNS_CONTROL, DNS_NAMES, DNS_SCRATCH};
use super::skb::Skb;
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
        Some(control) if control.local_until_secs != 0 => Some(control),
        Some(_) | None => None,
    }
}

/// Whether this node's instance answers.
#[inline(always)]
pub(crate) fn answers(control: &DnsControl) -> bool {
    Maps.now_secs() < control.local_until_secs && is_alive()
}

/// What a query becomes.
struct Turned<'s> {
    scratch: &'s Scratch,
    asked: Asked,
    answered: Answered,
}

impl Turned<'_> {
    /// Octets of the datagram from its UDP header on.
    #[inline(always)]
    fn udp_len(&self) -> u32 {
        UDP_LEN + self.asked.head_len + self.answered.tail_len
    }
}

/// Reads the query with `load` and looks its name up.
#[inline(always)]
fn turn<'s, F: Family>(
    headers: &Headers<F>,
    from_pod: bool,
    load: impl FnOnce(&mut Scratch, u32) -> bool,
    forget: impl Fn(u32) -> u32,
) -> Option<Turned<'s>> {
    let control = DNS_CONTROL.get(0)?;
    let len = message_len(headers, control, from_pod)?;
    if Maps.now_secs() >= control.answers_until_secs || !is_alive() {
        return None;
    }
    // SAFETY: the element is this CPU's own until the program ends.
    let scratch: &'s mut Scratch = unsafe { &mut *DNS_SCRATCH.get_ptr_mut(0)? };
    if !load(scratch, len) {
        return None;
    }
    let asked = question(scratch, len, &forget)?;
    let generation = generation(control);
    // SAFETY: copied out, and used only if the table did not change meanwhile.
    let found: DnsAnswer = *unsafe { DNS_NAMES.get(&scratch.name) }?;
    let answered = answer(scratch, &asked, &found, control, &forget);
    if generation & 1 != 0 || generation != self::generation(control) {
        return None;
    }
    Some(Turned {
        scratch,
        asked,
        answered,
    })
}

#[inline(always)]
fn generation(control: &DnsControl) -> u32 {
    // SAFETY: an aligned word of memory that stays mapped; volatile, because it changes while the program runs.
    unsafe { core::ptr::read_volatile(&raw const control.generation) }
}

/// In a socket buffer.
#[inline(always)]
pub(crate) fn answer_skb<F: Family>(skb: Skb, headers: &Headers<F>, from_pod: bool) -> i32 {
    if !skb.is_for_this_device() {
        return LEFT;
    }
    let at = headers.l4 + UDP_LEN;
    let Some(turned) = turn(
        headers,
        from_pod,
        |scratch, len| skb.load(at, scratch, len),
        |number| skb.merge_paths(number),
    ) else {
        return LEFT;
    };
    let Turned {
        scratch,
        asked,
        answered,
    } = &turned;
    match skb.turn(headers, scratch, asked.head_len, answered, turned.udp_len()) {
        None => LEFT,
        Some(Ok(verdict)) => {
            count(Counter::TcDnsAnswer, headers.bytes);
            verdict
        }
        Some(Err(counter)) => {
            count(counter, headers.bytes);
            TC_ACT_SHOT as i32
        }
    }
}

/// In a frame.
#[inline(always)]
pub(crate) fn answer_frame<F: Family>(frame: Frame, headers: &Headers<F>) -> i32 {
    if !transmits(frame.ifindex()) || !frame.is_one_buffer() {
        return LEFT;
    }
    let at = headers.l4 + UDP_LEN;
    let Some(turned) = turn(
        headers,
        false,
        |scratch, len| frame.load(at, scratch, len),
        |number| frame.merge_paths(number),
    ) else {
        return LEFT;
    };
    let Turned {
        scratch,
        asked,
        answered,
    } = &turned;
    match frame.turn(headers, scratch, asked.head_len, answered, turned.udp_len()) {
        None => LEFT,
        Some(Ok(())) => {
            count(Counter::XdpDnsAnswer, headers.bytes);
            XDP_TX as i32
        }
        Some(Err(counter)) => {
            count(counter, headers.bytes);
            XDP_DROP as i32
        }
    }
}
