//! Questions for addresses of Services, answered where they pass: the datagram is turned round, its question kept as it
//! came, and records appended that are octet for octet those of the server (crate `zone`).
//!
//! Only what is plain is answered: one question for A or AAAA of class IN, no records but an OPT without options
//! (RFC 6891), nothing behind it. The rest is the server's.

use abi::dns::{NAME_MAX, SCRATCH_LEN, flags};
use abi::{DnsAnswer, DnsControl, DnsName};

use crate::checksum::{difference, fold};
use crate::local_dns::{is_local, is_service};
use crate::{Family, Flow as _, Headers, Transport, hop};

/// Octets of a message's header (RFC 1035 section 4.1.1).
pub const HEADER: u32 = 12;
/// Octets of type and class behind a question's name.
const QUESTION_FIXED: u32 = 4;
/// Octets of an OPT record without options.
const OPT: u32 = 11;
/// The shortest message that is looked at: a question for the root.
pub const MESSAGE_MIN: u32 = HEADER + 1 + QUESTION_FIXED;
/// The longest.
pub const MESSAGE_MAX: u32 = HEADER + NAME_MAX as u32 + QUESTION_FIXED + OPT;
/// Octets of what is appended at most: an SOA record and an OPT record.
pub const TAIL_MAX: u32 = SOA + OPT;
/// Labels of a name at most.
const LABELS_MAX: u32 = 16;
/// Octets of a UDP request that the server takes, as it tells those who speak EDNS.
const UDP_SIZE: u16 = 1232;

const TYPE_A: u16 = 1;
const TYPE_SOA: u8 = 6;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u8 = 41;
const CLASS_IN: u16 = 1;

/// Octets of the records, each with a pointer as its owner.
const A: u32 = 16;
const AAAA: u32 = 28;
const SOA: u32 = 54;

/// Where the message begins in [`Scratch::message`]: its name is then aligned to a word.
pub const MESSAGE_AT: usize = 4;
const NAME_AT: usize = MESSAGE_AT + HEADER as usize;
/// Any index into [`Scratch::message`].
const INDEX: usize = 0xff;
const TAIL_ROOM: usize = 72;

/// Where a message is taken apart. A program has 512 bytes of stack, so this is an element of a table there; what an
/// earlier message left in it does no harm.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// The message, from [`MESSAGE_AT`] on.
    pub message: [u8; 256],
    /// Its question's name.
    pub name: DnsName,
    /// What is appended to header and question.
    pub tail: [u8; TAIL_ROOM],
    _rest: [u8; SCRATCH_LEN - 256 - NAME_MAX - TAIL_ROOM],
}

const _: () = assert!(size_of::<Scratch>() == SCRATCH_LEN);
const _: () = assert!(MESSAGE_AT + MESSAGE_MAX as usize <= INDEX && TAIL_MAX as usize <= TAIL_ROOM);

impl Scratch {
    /// Zeros.
    #[must_use]
    pub const fn new() -> Self {
        Scratch {
            message: [0; 256],
            name: DnsName {
                words: [0; NAME_MAX / 8],
            },
            tail: [0; TAIL_ROOM],
            _rest: [0; SCRATCH_LEN - 256 - NAME_MAX - TAIL_ROOM],
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
}

/// A question that may be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Octets of header and question.
    pub head_len: u32,
    /// For AAAA rather than for A.
    v6: bool,
    /// There is an OPT record.
    edns: bool,
    /// It wants DNSSEC records.
    dnssec_ok: u8,
}

/// What the message becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered {
    /// The header without the identification, which stays.
    pub header: [u8; 10],
    /// Octets of the tail, behind the question.
    pub tail_len: u32,
    /// What a checksum over the message changes by, see [`difference`].
    pub change: u64,
}

/// Whether a packet is a datagram to the DNS Service, or a pod's to this node's instance, that may be answered here, and
/// how long its message is then.
#[inline(always)]
pub fn message_len<F: Family>(
    headers: &Headers<F>,
    control: &DnsControl,
    from_pod: bool,
) -> Option<u32> {
    let (addr, port) = (headers.tuple.daddr(), headers.tuple.dport());
    let ours =
        is_service::<F>(control, addr, port) || from_pod && is_local::<F>(control, addr, port);
    let header_len = headers.l4.wrapping_sub(headers.l3) + crate::parse::UDP_LEN;
    let len = headers.bytes.wrapping_sub(header_len);
    let fits = MESSAGE_MIN <= len && len <= MESSAGE_MAX;
    (ours && fits && headers.transport == Transport::Udp && hop::is_plain(headers)).then_some(len)
}

/// Reads the message of `len` octets in `scratch`, whose name becomes that of the question. `forget` gives back the same
/// number, of which the kernel's verifier knows nothing any more: it walks what follows once, and not once for each way
/// there (see [`crate::Bytes::merge_paths`]).
#[inline(always)]
pub fn question(scratch: &mut Scratch, len: u32, forget: impl Fn(u32) -> u32) -> Option<Asked> {
    let message = &scratch.message;
    let octet = |at: u32| message[(MESSAGE_AT + at as usize) & INDEX];
    let half = |at: u32| u16::from_be_bytes([octet(at), octet(at + 1)]);
    // A request (QR is zero) of opcode QUERY; the other flags concern nobody here.
    if octet(2) & 0xf8 != 0 {
        return None;
    }
    let extra = half(10);
    if half(4) != 1 || half(6) != 0 || half(8) != 0 || extra > 1 {
        return None;
    }
    let name_len = forget(name_len(message)?);
    let fixed = HEADER + name_len;
    let head_len = fixed + QUESTION_FIXED;
    let edns = extra == 1;
    if len != head_len + if edns { OPT } else { 0 } || half(fixed + 2) != CLASS_IN {
        return None;
    }
    let v6 = match half(fixed) {
        TYPE_A => false,
        TYPE_AAAA => true,
        _ => return None,
    };
    let mut dnssec_ok = 0;
    if edns {
        let at = head_len;
        // Root, type; the version; no options.
        let opt = octet(at) == 0 && octet(at + 1) == 0 && octet(at + 2) == TYPE_OPT;
        if !opt || octet(at + 6) != 0 || octet(at + 9) != 0 || octet(at + 10) != 0 {
            return None;
        }
        dnssec_ok = octet(at + 7) & 0x80;
    }
    fold_name(scratch, name_len, &forget);
    Some(Asked {
        head_len: forget(head_len),
        v6: forget(u32::from(v6)) != 0,
        edns: forget(u32::from(edns)) != 0,
        dnssec_ok: forget(u32::from(dnssec_ok)) as u8,
    })
}

/// Octets of the question's name, which is not compressed.
#[inline(always)]
fn name_len(message: &[u8; 256]) -> Option<u32> {
    let mut at = 0_u32;
    let mut labels = 0;
    while labels <= LABELS_MAX {
        let length = u32::from(message[(NAME_AT + at as usize) & INDEX]);
        if length == 0 {
            return Some(at + 1);
        }
        at += 1 + length;
        if length > 63 || at >= NAME_MAX as u32 {
            return None;
        }
        labels += 1;
    }
    None
}

/// Copies the name in lower case, eight octets at a time. Lengths of labels are below any letter.
#[inline(always)]
fn fold_name(scratch: &mut Scratch, len: u32, forget: &impl Fn(u32) -> u32) {
    let message = &scratch.message;
    let mut at = 0;
    while at < NAME_MAX / 8 {
        let begin = (at * 8) as u32;
        // What a round learns of the length is not carried into the next: each is walked once.
        let len = forget(len);
        let word = if begin < len {
            let from = NAME_AT + at * 8;
            let word = u64::from_le_bytes([
                message[from],
                message[from + 1],
                message[from + 2],
                message[from + 3],
                message[from + 4],
                message[from + 5],
                message[from + 6],
                message[from + 7],
            ]);
            let left = len - begin;
            let kept = if left < 8 {
                word & ((1 << ((left & 7) * 8)) - 1)
            } else {
                word
            };
            lower(kept).to_le()
        } else {
            0
        };
        scratch.name.words[at] = word;
        at += 1;
    }
}

/// Eight ASCII octets in lower case.
#[inline(always)]
const fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7f * EACH);
    // The high bit of each octet tells: from 'A' on, beyond 'Z', not ASCII.
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let beyond_z = low + (0x7f - b'Z' as u64) * EACH;
    let upper = (from_a & !beyond_z & !word) & (0x80 * EACH);
    word | upper >> 2
}

/// Answers the question in `scratch`, whose tail becomes what is appended. For `forget` see [`question`].
#[inline(always)]
pub fn answer(
    scratch: &mut Scratch,
    asked: &Asked,
    found: &DnsAnswer,
    control: &DnsControl,
    forget: impl Fn(u32) -> u32,
) -> Answered {
    let Scratch { message, tail, .. } = scratch;
    let has = found.flags & if asked.v6 { flags::AAAA } else { flags::A } != 0;
    *tail = [0; TAIL_ROOM];
    let ttl = found.ttl.to_bytes();
    let (records_len, answers) = if has && asked.v6 {
        put(
            tail,
            0,
            [0xc0, HEADER as u8, 0, TYPE_AAAA as u8, 0, CLASS_IN as u8],
        );
        put(tail, 6, ttl);
        put(tail, 10, [0, 16]);
        put(tail, 12, found.addr6);
        (AAAA, 1)
    } else if has {
        put(
            tail,
            0,
            [0xc0, HEADER as u8, 0, TYPE_A as u8, 0, CLASS_IN as u8],
        );
        put(tail, 6, ttl);
        put(tail, 10, [0, 4]);
        put(tail, 12, found.addr4);
        (A, 1)
    } else {
        soa(tail, found, control);
        (SOA, 0)
    };
    let mut tail_len = records_len;
    if asked.edns {
        let [high, low] = UDP_SIZE.to_be_bytes();
        let opt = [0, 0, TYPE_OPT, high, low, 0, 0, asked.dnssec_ok, 0, 0, 0];
        // One place each, so that no index is computed.
        if records_len == A {
            put(tail, A as usize, opt);
        } else if records_len == AAAA {
            put(tail, AAAA as usize, opt);
        } else {
            put(tail, SOA as usize, opt);
        }
        tail_len += OPT;
    }
    let octet = |at: usize| message[MESSAGE_AT + at];
    // QR, AA, RD as it came; CD as it came.
    let flags = [0x84 | octet(2) & 1, octet(3) & 0x10];
    let answers = forget(answers) as u8 & 1;
    let authorities = 1 - answers;
    let additionals = forget(u32::from(asked.edns)) as u8;
    let header = [
        flags[0],
        flags[1],
        0,
        1,
        0,
        answers,
        0,
        authorities,
        0,
        additionals,
    ];
    let half =
        |at: usize, octets: &[u8]| u64::from(u16::from_ne_bytes([octets[at], octets[at + 1]]));
    let mut old = 0;
    let mut new = 0;
    let mut at = 0;
    while at < 10 {
        old += half(MESSAGE_AT + 2 + at, message);
        new += half(at, &header);
        at += 2;
    }
    let odd = asked.head_len & 1 != 0;
    old += at_parity(old_opt(message, asked), odd);
    new += at_parity(sum(tail), odd);
    Answered {
        header,
        tail_len: forget(tail_len),
        change: difference(old, new),
    }
}

/// The zone's SOA record (RFC 1035 section 3.3.13, RFC 2308 section 3).
#[inline(always)]
fn soa(tail: &mut [u8; TAIL_ROOM], found: &DnsAnswer, control: &DnsControl) {
    let pointer = [0xc0, HEADER as u8 + found.zone_at];
    let ttl = found.ttl.to_bytes();
    put(tail, 0, pointer);
    put(tail, 2, [0, TYPE_SOA, 0, CLASS_IN as u8]);
    put(tail, 6, ttl);
    put(tail, 10, [0, (SOA - 12) as u8]);
    put(tail, 12, *b"\x02ns\x03dns");
    put(tail, 19, pointer);
    put(tail, 21, *b"\x0ahostmaster");
    put(tail, 32, pointer);
    put(tail, 34, control.serial.to_bytes());
    put(tail, 38, 7200_u32.to_be_bytes());
    put(tail, 42, 1800_u32.to_be_bytes());
    put(tail, 46, 86400_u32.to_be_bytes());
    put(tail, 50, ttl);
}

#[inline(always)]
fn put<const N: usize>(tail: &mut [u8; TAIL_ROOM], at: usize, octets: [u8; N]) {
    let mut i = 0;
    while i < N {
        tail[at + i] = octets[i];
        i += 1;
    }
}

/// Sum of the tail's words, as if it began at an even offset.
#[inline(always)]
fn sum(tail: &[u8; TAIL_ROOM]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < TAIL_ROOM {
        let word = u32::from_ne_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
        sum += u64::from(word);
        at += 4;
    }
    sum
}

/// Sum of the words of the OPT record that came, as if it began at an even offset.
#[inline(always)]
fn old_opt(message: &[u8; 256], asked: &Asked) -> u64 {
    if !asked.edns {
        return 0;
    }
    let octet = |at: usize| message[(MESSAGE_AT + asked.head_len as usize + at) & INDEX];
    let half = |at: usize| u64::from(u16::from_ne_bytes([octet(at), octet(at + 1)]));
    half(0) + half(2) + half(4) + half(6) + half(8)
}

/// A sum of octets that begin at an odd offset has the octets of each word the other way round (RFC 1071 section 2B).
#[inline(always)]
fn at_parity(sum: u64, odd: bool) -> u64 {
    let folded = fold(sum);
    u64::from(if odd { folded.swap_bytes() } else { folded })
}
