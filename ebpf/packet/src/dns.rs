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
/// Any index into [`Scratch::message`].
const INDEX: usize = 0xff;
const TAIL_ROOM: usize = 72;

/// Where a message is taken apart and becomes its answer. A program has 512 bytes of stack, so this is an element of a
/// table there; what an earlier message left in it does no harm. The steps below leave their results here: to the
/// kernel's verifier what comes from a table is any number, so that it walks each step once.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// The message, from [`MESSAGE_AT`] on.
    pub message: [u8; 256],
    /// Its question's name: a copy, with zeros behind.
    pub name: DnsName,
    /// What is appended to header and question.
    pub tail: [u8; TAIL_ROOM],
    /// What a checksum over the message changes by, see [`difference`].
    pub change: u64,
    /// Octets of header and question.
    pub head_len: u32,
    /// Octets of the tail, behind the question.
    pub tail_len: u32,
    /// Records in the answer section: none or one.
    answers: u8,
    /// The question is for AAAA rather than for A.
    v6: u8,
    /// There is an OPT record.
    edns: u8,
    /// It wants DNSSEC records: the bit as it stands in the OPT record.
    dnssec_ok: u8,
    _rest: [u8; SCRATCH_LEN - 256 - NAME_MAX - TAIL_ROOM - 20],
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
            change: 0,
            head_len: 0,
            tail_len: 0,
            answers: 0,
            v6: 0,
            edns: 0,
            dnssec_ok: 0,
            _rest: [0; SCRATCH_LEN - 256 - NAME_MAX - TAIL_ROOM - 20],
        }
    }

    /// The octet at an offset in the message.
    #[inline(always)]
    fn octet(&self, at: u32) -> u8 {
        self.message[(MESSAGE_AT + at as usize) & INDEX]
    }

    /// The two octets there, as a number.
    #[inline(always)]
    fn half(&self, at: u32) -> u16 {
        u16::from_be_bytes([self.octet(at), self.octet(at + 1)])
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
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
    let fits = (MESSAGE_MIN..=MESSAGE_MAX).contains(&len);
    (ours && fits && headers.transport == Transport::Udp && hop::is_plain(headers)).then_some(len)
}

/// Octets of the question's name, which is not compressed; zero where it is too long or none.
#[inline(always)]
#[must_use]
pub fn name_len(scratch: &Scratch) -> u32 {
    let mut at = 0_u32;
    let mut labels = 0;
    while labels <= LABELS_MAX {
        let length = u32::from(scratch.octet(HEADER + at));
        if length == 0 {
            return at + 1;
        }
        at += 1 + length;
        if length > 63 || at >= NAME_MAX as u32 {
            return 0;
        }
        labels += 1;
    }
    0
}

/// Reads the message of `len` octets in `scratch` around its question's name; false for what is not answered here.
#[inline(always)]
#[must_use]
pub fn question(scratch: &mut Scratch, len: u32, name_len: u32) -> bool {
    // A request (QR is zero) of opcode QUERY; the other flags concern nobody here.
    if name_len == 0 || scratch.octet(2) & 0xf8 != 0 {
        return false;
    }
    let extra = scratch.half(10);
    if scratch.half(4) != 1 || scratch.half(6) != 0 || scratch.half(8) != 0 || extra > 1 {
        return false;
    }
    let fixed = HEADER + name_len;
    let head_len = fixed + QUESTION_FIXED;
    let opt_len = if extra == 1 { OPT } else { 0 };
    if len != head_len + opt_len || scratch.half(fixed + 2) != CLASS_IN {
        return false;
    }
    let v6 = match scratch.half(fixed) {
        TYPE_A => 0,
        TYPE_AAAA => 1,
        _ => return false,
    };
    let mut dnssec_ok = 0;
    if extra == 1 {
        let octet = |at: u32| scratch.octet(head_len + at);
        // Root, type; the version; no options.
        let opt = octet(0) == 0 && octet(1) == 0 && octet(2) == TYPE_OPT;
        if !opt || octet(6) != 0 || octet(9) != 0 || octet(10) != 0 {
            return false;
        }
        dnssec_ok = octet(7) & 0x80;
    }
    scratch.head_len = head_len;
    scratch.v6 = v6;
    scratch.edns = extra as u8;
    scratch.dnssec_ok = dnssec_ok;
    true
}

/// Puts the name in lower case, eight octets at a time. Lengths of labels are below any letter.
#[inline(always)]
pub fn fold_name(name: &mut DnsName) {
    let mut at = 0;
    while at < NAME_MAX / 8 {
        name.words[at] = lower(u64::from_le(name.words[at])).to_le();
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

/// Makes the tail: what is known of the question's name.
#[inline(always)]
pub fn records(scratch: &mut Scratch, found: &DnsAnswer, control: &DnsControl) {
    let v6 = scratch.v6 != 0;
    let edns = scratch.edns != 0;
    let opt = [
        0,
        0,
        TYPE_OPT,
        UDP_SIZE.to_be_bytes()[0],
        UDP_SIZE.to_be_bytes()[1],
        0,
        0,
        scratch.dnssec_ok,
        0,
        0,
        0,
    ];
    let tail = &mut scratch.tail;
    let has = found.flags & if v6 { flags::AAAA } else { flags::A } != 0;
    *tail = [0; TAIL_ROOM];
    let ttl = found.ttl.to_bytes();
    // The OPT record has one place each, so that no index is computed.
    let (answers, len) = if has && v6 {
        put(
            tail,
            0,
            [0xc0, HEADER as u8, 0, TYPE_AAAA as u8, 0, CLASS_IN as u8],
        );
        put(tail, 6, ttl);
        put(tail, 10, [0, 16]);
        put(tail, 12, found.addr6);
        if edns {
            put(tail, AAAA as usize, opt);
        }
        (1, AAAA)
    } else if has {
        put(
            tail,
            0,
            [0xc0, HEADER as u8, 0, TYPE_A as u8, 0, CLASS_IN as u8],
        );
        put(tail, 6, ttl);
        put(tail, 10, [0, 4]);
        put(tail, 12, found.addr4);
        if edns {
            put(tail, A as usize, opt);
        }
        (1, A)
    } else {
        soa(tail, found, control);
        if edns {
            put(tail, SOA as usize, opt);
        }
        (0, SOA)
    };
    scratch.answers = answers;
    scratch.tail_len = if edns { len + OPT } else { len };
}

/// Makes the message's header that of an answer, whose tail is made already.
#[inline(always)]
pub fn header(scratch: &mut Scratch) {
    // QR, AA, RD as it came; CD as it came.
    let flags = [0x84 | scratch.octet(2) & 1, scratch.octet(3) & 0x10];
    let (answers, authorities) = (scratch.answers & 1, 1 - (scratch.answers & 1));
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
        scratch.edns & 1,
    ];
    let half =
        |at: usize, octets: &[u8]| u64::from(u16::from_ne_bytes([octets[at], octets[at + 1]]));
    let mut old = 0;
    let mut new = 0;
    let mut at = 0;
    while at < 10 {
        old += half(MESSAGE_AT + 2 + at, &scratch.message);
        new += half(at, &header);
        at += 2;
    }
    let odd = scratch.head_len & 1 != 0;
    old += at_parity(old_opt(scratch), odd);
    new += at_parity(sum(&scratch.tail), odd);
    scratch.change = difference(old, new);
    let mut at = 0;
    while at < 10 {
        scratch.message[MESSAGE_AT + 2 + at] = header[at];
        at += 1;
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
fn old_opt(scratch: &Scratch) -> u64 {
    if scratch.edns == 0 {
        return 0;
    }
    let octet = |at: u32| scratch.octet(scratch.head_len + at);
    let half = |at: u32| u64::from(u16::from_ne_bytes([octet(at), octet(at + 1)]));
    half(0) + half(2) + half(4) + half(6) + half(8)
}

/// A sum of octets that begin at an odd offset has the octets of each word the other way round (RFC 1071 section 2B).
#[inline(always)]
fn at_parity(sum: u64, odd: bool) -> u64 {
    let folded = fold(sum);
    u64::from(if odd { folded.swap_bytes() } else { folded })
}
