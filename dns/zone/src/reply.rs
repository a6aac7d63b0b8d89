//! An answer, written straight into the buffer that is sent.

use crate::query::{CLASS_IN, Edns, HEADER, Query, types};

/// Codes of answers (IANA).
pub mod rcodes {
    #![allow(missing_docs, reason = "the names are IANA's")]
    pub const NOERROR: u8 = 0;
    pub const FORMERR: u8 = 1;
    pub const SERVFAIL: u8 = 2;
    pub const NXDOMAIN: u8 = 3;
    pub const NOTIMP: u8 = 4;
    pub const REFUSED: u8 = 5;
}

/// UDP payload of clients without EDNS (RFC 1035 section 4.2.1).
pub const UDP_MIN: usize = 512;

/// Which part of the message records go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Whose the zone is: SOA of a negative answer.
    Authority,
    /// What spares a further question; left out silently where there is no room (RFC 2181 section 9).
    Additional,
}

/// Whose a record is.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// The rest of the question's name from an offset on (0 is the whole), compressed to a pointer. The
    /// client's own letter case is thereby kept.
    Question(usize),
    /// A label before that.
    Below(&'a [u8], usize),
    /// A whole name in wire form.
    Name(&'a [u8]),
}

/// What goes out beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Answered from a zone of our own.
    pub authoritative: bool,
    /// Somebody here resolves other names.
    pub recursion_available: bool,
    /// Octets of a UDP request that we take; told to those who speak EDNS.
    pub udp_size: u16,
    /// The whole COOKIE option's value, client's part first.
    pub cookie: Option<&'a [u8]>,
    /// Who answers, for clients that ask (RFC 5001).
    pub nsid: Option<&'a [u8]>,
    /// An extended error and what it says (RFC 8914).
    pub extended: Option<(u16, &'a str)>,
    /// Pad to a multiple of this many octets; 0 pads nothing (RFC 8467 asks for 468).
    pub pad_to: u16,
}

/// An answer in the making: header and question are there, records follow.
#[derive(Debug)]
pub struct Reply<'b> {
    buffer: &'b mut [u8],
    at: usize,
    /// Where records must end so that OPT still has room.
    limit: usize,
    counts: [u16; 3],
    truncated: bool,
}

/// Octets kept for an OPT record with what usually goes into it: 11, a whole cookie with its head 44.
const OPT_ROOM: usize = 11;
const COOKIE_ROOM: usize = 28;

impl<'b> Reply<'b> {
    /// Begins an answer that must fit `size` octets, or the buffer when that is smaller. `None` when not even
    /// the question fits.
    pub fn new(buffer: &'b mut [u8], query: &Query<'_>, size: usize) -> Option<Self> {
        let size = size.min(buffer.len());
        let room = match query.edns {
            None => 0,
            Some(Edns { cookie: None, .. }) => OPT_ROOM,
            Some(_) => OPT_ROOM + COOKIE_ROOM,
        };
        let head = query.head;
        let limit = size.checked_sub(room).filter(|l| *l >= head.len())?;
        buffer[..head.len()].copy_from_slice(head);
        Some(Reply {
            buffer,
            at: head.len(),
            limit,
            counts: [0; 3],
            truncated: false,
        })
    }

    /// Forgets every record, so that something else can be answered.
    pub fn clear(&mut self, query: &Query<'_>) {
        self.at = query.head.len();
        self.counts = [0; 3];
        self.truncated = false;
    }

    /// How many records a section has.
    #[must_use]
    pub fn count(&self, section: Section) -> u16 {
        self.counts[section as usize]
    }

    /// Whether records of an answer were left out for want of room.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// Appends a record whose data is the concatenation of `data`. Sections must be filled in their order.
    pub fn record(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        rtype: u16,
        ttl: u32,
        data: &[&[u8]],
    ) {
        let length: usize = data.iter().map(|part| part.len()).sum();
        let owner_length = match owner {
            Owner::Question(_) => 2,
            Owner::Below(label, _) => label.len() + 3,
            Owner::Name(name) => name.len(),
        };
        let Ok(data_length) = u16::try_from(length) else {
            self.truncated = true;
            return;
        };
        if !self.room(section, owner_length + 10 + length) {
            return;
        }
        match owner {
            Owner::Question(offset) => self.pointer(offset),
            Owner::Below(label, offset) => {
                self.put(&[u8::try_from(label.len()).unwrap_or(0)]);
                self.put(label);
                self.pointer(offset);
            }
            Owner::Name(name) => self.put(name),
        }
        let [t0, t1] = rtype.to_be_bytes();
        let [c0, c1] = CLASS_IN.to_be_bytes();
        let [s0, s1, s2, s3] = ttl.to_be_bytes();
        let [l0, l1] = data_length.to_be_bytes();
        self.put(&[t0, t1, c0, c1, s0, s1, s2, s3, l0, l1]);
        for part in data {
            self.put(part);
        }
        self.counts[section as usize] += 1;
    }

    /// Appends ready-made records, each of `stride` octets with its owner a pointer to the question, beginning
    /// with the `first`th and going round; as many as fit.
    pub fn ready(&mut self, records: &[u8], stride: usize, first: usize, ttl: u32) {
        let count = records.len() / stride.max(1);
        if count == 0 {
            return;
        }
        let fit = (self.limit - self.at) / stride;
        if fit < count {
            self.truncated = true;
        }
        let taken = fit.min(count).min(usize::from(u16::MAX));
        let cut = first % count * stride;
        let begin = self.at;
        let (head, tail) = records.split_at(cut);
        let room = taken * stride;
        let tail = &tail[..tail.len().min(room)];
        self.put(tail);
        self.put(&head[..room - tail.len()]);
        for record in self.buffer[begin..self.at].chunks_exact_mut(stride) {
            record[6..10].copy_from_slice(&ttl.to_be_bytes());
        }
        self.counts[0] += u16::try_from(taken).unwrap_or(u16::MAX);
    }

    /// Ends the answer; gives its length.
    pub fn finish(mut self, query: &Query<'_>, rcode: u8, frame: &Frame<'_>) -> usize {
        let asked = query.head;
        let flags = 0x80
            | u8::from(frame.authoritative) << 2
            | u8::from(self.truncated) << 1
            | asked.get(2).copied().unwrap_or(0) & 1;
        let checking_disabled = asked.get(3).copied().unwrap_or(0) & 0x10;
        if let Some(edns) = query.edns {
            self.opt(edns, frame);
        }
        self.buffer[2] = flags;
        self.buffer[3] =
            u8::from(frame.recursion_available) << 7 | checking_disabled | rcode & 0x0f;
        for (at, count) in self.counts.iter().enumerate() {
            let at = 6 + 2 * at;
            self.buffer[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        debug_assert!(self.at >= HEADER);
        self.at
    }

    fn opt(&mut self, edns: Edns, frame: &Frame<'_>) {
        let begin = self.at;
        let flags = u8::from(edns.dnssec_ok) << 7;
        let [u0, u1] = frame.udp_size.to_be_bytes();
        let [o0, o1] = types::OPT.to_be_bytes();
        if !self.put_if(&[0, o0, o1, u0, u1, 0, 0, flags, 0, 0, 0]) {
            return;
        }
        self.counts[2] += 1;
        if let Some(cookie) = frame.cookie.filter(|_| edns.cookie.is_some()) {
            self.option(10, cookie);
        }
        if let Some(nsid) = frame.nsid.filter(|_| edns.nsid) {
            self.option(3, nsid);
        }
        if let Some((code, text)) = frame.extended {
            let code = code.to_be_bytes();
            if !self.truncated {
                self.option_parts(15, &[&code, text.as_bytes()]);
            }
        }
        if frame.pad_to > 0 && edns.padded {
            let unit = usize::from(frame.pad_to);
            let missing = (unit - (self.at + 4) % unit) % unit;
            let zeros = [0; 512];
            let room = self.buffer.len().saturating_sub(self.at + 4);
            self.option(12, &zeros[..missing.min(room).min(zeros.len())]);
        }
        let length = u16::try_from(self.at - begin - 11).unwrap_or(0);
        self.buffer[begin + 9..begin + 11].copy_from_slice(&length.to_be_bytes());
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.option_parts(code, &[value]);
    }

    fn option_parts(&mut self, code: u16, value: &[&[u8]]) {
        let length: usize = value.iter().map(|part| part.len()).sum();
        let Ok(short) = u16::try_from(length) else {
            return;
        };
        if self.at + 4 + length > self.buffer.len() {
            return;
        }
        self.put(&code.to_be_bytes());
        self.put(&short.to_be_bytes());
        for part in value {
            self.put(part);
        }
    }

    /// Whether `octets` more fit; notes what is lost when not.
    fn room(&mut self, section: Section, octets: usize) -> bool {
        // Records after one that was left out are left out as well.
        if self.truncated {
            return false;
        }
        let fits = self.at + octets <= self.limit;
        if !fits && section != Section::Additional {
            self.truncated = true;
        }
        fits
    }

    fn pointer(&mut self, offset: usize) {
        let target = u16::try_from(HEADER + offset).unwrap_or(0) & 0x3fff;
        self.put(&(0xc000 | target).to_be_bytes());
    }

    fn put_if(&mut self, octets: &[u8]) -> bool {
        let fits = self.at + octets.len() <= self.buffer.len();
        if fits {
            self.put(octets);
        }
        fits
    }

    fn put(&mut self, octets: &[u8]) {
        let end = self.at + octets.len();
        if let Some(room) = self.buffer.get_mut(self.at..end) {
            room.copy_from_slice(octets);
            self.at = end;
        }
    }
}
