//! A request, read in one pass without allocation. What is out of the ordinary is named and left to the caller.

use crate::name::{LABEL_MAX, NAME_MAX};

/// Octets of a message's header (RFC 1035 section 4.1.1).
pub const HEADER: usize = 12;

/// Labels of a name at most: each takes two octets or more.
const LABELS_MAX: usize = NAME_MAX / 2;

/// Types of records that this crate knows (IANA).
pub mod types {
    #![allow(missing_docs, reason = "the names are IANA's")]
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// Class `IN`.
pub const CLASS_IN: u16 = 1;

/// An ordinary request: opcode QUERY, one question of class IN, at most an OPT record beside it.
#[derive(Clone, Debug)]
pub struct Query<'m> {
    /// The request's octets up to the end of the question: the answer begins with them.
    pub head: &'m [u8],
    /// What is asked for.
    pub question: Question,
    /// EDNS(0), when the client speaks it.
    pub edns: Option<Edns>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    name: [u8; NAME_MAX],
    length: u8,
    offsets: [u8; LABELS_MAX],
    labels: u8,
    /// Type of the records wanted.
    pub qtype: u16,
}

/// What an OPT record says (RFC 6891).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    /// Octets of a UDP answer that the client takes.
    pub udp_size: u16,
    /// Wants DNSSEC records.
    pub dnssec_ok: bool,
    /// A client cookie, with the server's when the client has one (RFC 7873).
    pub cookie: Option<Cookie>,
    /// The client pads its requests, so answers should be padded (RFC 7830).
    pub padded: bool,
    /// Asks who answers (RFC 5001).
    pub nsid: bool,
}

/// A COOKIE option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Chosen by the client.
    pub client: [u8; 8],
    server: [u8; 32],
    server_length: u8,
}

impl Cookie {
    /// The server's part; empty when the client has none yet.
    #[must_use]
    pub fn server(&self) -> &[u8] {
        &self.server[..usize::from(self.server_length)]
    }
}

/// A message that is no ordinary request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// Not a request, or too short to be answered: silence.
    Ignored,
    /// Malformed: FORMERR.
    Malformed,
    /// An opcode other than QUERY.
    Opcode(u8),
    /// An EDNS version above 0: BADVERS.
    Version,
    /// No question, or several.
    Questions(u16),
    /// A class other than IN.
    Class(u16),
    /// Records beside the question, for instance a signature.
    Records,
}

/// The header and the question of a message that was found odd for what follows them.
#[must_use]
pub fn head(message: &[u8]) -> Option<&[u8]> {
    let (_, _, used) = Question::parse(message.get(HEADER..)?)?;
    message.get(..HEADER + used)
}

/// The OPT record of a message without a question (RFC 7873 section 5.4), if it is the only record and can be read.
#[must_use]
pub fn edns_alone(message: &[u8]) -> Option<Edns> {
    let (header, rest) = message.split_at_checked(HEADER)?;
    if header[4..] != [0, 0, 0, 0, 0, 0, 0, 1] {
        return None;
    }
    Edns::parse(rest).ok()
}

/// Whether a message's question, if it has one, is followed by an OPT record, whatever is in that.
#[must_use]
pub fn speaks_edns(message: &[u8]) -> bool {
    let end = match message.get(4..6) {
        Some([0, 0]) => Some(HEADER),
        Some([0, 1]) => head(message).map(<[u8]>::len),
        _ => None,
    };
    let Some(end) = end else {
        return false;
    };
    let [high, low] = types::OPT.to_be_bytes();
    // Its owner is the root.
    message.get(end..end + 3) == Some(&[0, high, low])
}

impl<'m> Query<'m> {
    /// Reads a request.
    ///
    /// # Errors
    /// What is out of the ordinary about it.
    pub fn parse(message: &'m [u8]) -> Result<Self, Odd> {
        let Some((header, rest)) = message.split_at_checked(HEADER) else {
            return Err(Odd::Ignored);
        };
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if header[2] & 0x80 != 0 {
            return Err(Odd::Ignored);
        }
        let opcode = header[2] >> 3 & 0x0f;
        if opcode != 0 {
            return Err(Odd::Opcode(opcode));
        }
        if number(4) != 1 {
            return Err(Odd::Questions(number(4)));
        }
        let (question, class, used) = Question::parse(rest).ok_or(Odd::Malformed)?;
        // An OPT record speaks of its message: nobody has one to be asked for (RFC 6891 section 6.1.1).
        if question.qtype == types::OPT {
            return Err(Odd::Malformed);
        }
        if number(6) != 0 || number(8) != 0 || number(10) > 1 {
            return Err(Odd::Records);
        }
        let head = &message[..HEADER + used];
        let after = &rest[used..];
        let edns = match number(10) {
            0 if after.is_empty() => None,
            0 => return Err(Odd::Malformed),
            _ => Some(Edns::parse(after)?),
        };
        if class != CLASS_IN {
            return Err(Odd::Class(class));
        }
        Ok(Query {
            head,
            question,
            edns,
        })
    }
}

impl Question {
    /// A question for a name in wire form, in any case; `None` when the octets are no whole name.
    #[must_use]
    pub fn new(wire: &[u8], qtype: u16) -> Option<Self> {
        let mut rest = wire.to_vec();
        rest.extend_from_slice(&qtype.to_be_bytes());
        rest.extend_from_slice(&CLASS_IN.to_be_bytes());
        let (question, _, used) = Question::parse(&rest)?;
        (used == rest.len()).then_some(question)
    }

    /// Reads name, type and class; gives the question, the class and the octets used.
    fn parse(octets: &[u8]) -> Option<(Self, u16, usize)> {
        let mut question = Question {
            name: [0; NAME_MAX],
            length: 0,
            offsets: [0; LABELS_MAX],
            labels: 0,
            qtype: 0,
        };
        let mut at = 0;
        loop {
            let length = usize::from(*octets.get(at)?);
            // A pointer in the first name of a message has nothing to point at.
            if length > LABEL_MAX || at + 1 + length > NAME_MAX {
                return None;
            }
            if length == 0 {
                break;
            }
            *question.offsets.get_mut(usize::from(question.labels))? = u8::try_from(at).ok()?;
            question.labels += 1;
            at += 1 + length;
        }
        let end = at + 1;
        let fixed = octets.get(end..end + 4)?;
        let name = &mut question.name[..end];
        name.copy_from_slice(&octets[..end]);
        // A label's length is at most 63, below any letter, so the whole can be folded.
        name.make_ascii_lowercase();
        question.length = u8::try_from(end).ok()?;
        question.qtype = u16::from_be_bytes([fixed[0], fixed[1]]);
        let class = u16::from_be_bytes([fixed[2], fixed[3]]);
        Some((question, class, end + 4))
    }

    /// The name in wire form, in lower case.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name[..usize::from(self.length)]
    }

    /// How many labels, the root's not counted.
    #[must_use]
    pub fn labels(&self) -> usize {
        usize::from(self.labels)
    }

    /// Where the `n`th label, length first, begins in [`Question::name`]; the root's after the last one.
    #[must_use]
    pub fn offset(&self, n: usize) -> usize {
        match self.offsets[..self.labels()].get(n) {
            Some(offset) => usize::from(*offset),
            None => self.name().len().saturating_sub(1),
        }
    }

    /// The `n`th label without its length; empty after the last one.
    #[must_use]
    pub fn label(&self, n: usize) -> &[u8] {
        if n >= self.labels() {
            return &[];
        }
        &self.name()[self.offset(n) + 1..self.offset(n + 1)]
    }

    /// How many labels stand before `zone`; `None` when the name does not lie within.
    #[must_use]
    pub fn labels_above(&self, zone: &[u8]) -> Option<usize> {
        let at = self.name().len().checked_sub(zone.len())?;
        if &self.name()[at..] != zone {
            return None;
        }
        // Not in the middle of a label.
        (0..=self.labels())
            .find(|n| self.offset(*n) >= at)
            .filter(|n| self.offset(*n) == at)
    }
}

impl Edns {
    /// Reads what must be one OPT record and nothing after it.
    fn parse(octets: &[u8]) -> Result<Self, Odd> {
        let Some((fixed, mut options)) = octets.split_at_checked(11) else {
            return Err(Odd::Malformed);
        };
        let number = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        if number(1) != types::OPT {
            return Err(Odd::Records);
        }
        if fixed[0] != 0 || options.len() != usize::from(number(9)) {
            return Err(Odd::Malformed);
        }
        if fixed[6] != 0 {
            return Err(Odd::Version);
        }
        let mut edns = Edns {
            udp_size: number(3),
            dnssec_ok: fixed[7] & 0x80 != 0,
            ..Edns::default()
        };
        while !options.is_empty() {
            let (head, rest) = options.split_at_checked(4).ok_or(Odd::Malformed)?;
            let code = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (value, rest) = rest.split_at_checked(length).ok_or(Odd::Malformed)?;
            match code {
                3 => edns.nsid = true,
                10 => edns.cookie = Some(Cookie::parse(value).ok_or(Odd::Malformed)?),
                12 => edns.padded = true,
                _ => {}
            }
            options = rest;
        }
        Ok(edns)
    }
}

impl Cookie {
    /// RFC 7873 section 4: eight octets of the client's, then none or 8 to 32 of the server's.
    fn parse(value: &[u8]) -> Option<Self> {
        let (client, rest) = value.split_first_chunk::<8>()?;
        if !(rest.is_empty() || (8..=32).contains(&rest.len())) {
            return None;
        }
        let mut server = [0; 32];
        server[..rest.len()].copy_from_slice(rest);
        Some(Cookie {
            client: *client,
            server,
            server_length: u8::try_from(rest.len()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [u8; 12] = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

    fn message(changes: &[(usize, u8)], rest: &[u8]) -> Vec<u8> {
        let mut message = [&HEAD[..], rest].concat();
        for (at, octet) in changes {
            message[*at] = *octet;
        }
        message
    }

    #[test]
    fn ordinary_requests_are_read() {
        let plain = message(&[], b"\x03WwW\x02ns\x00\x00\x1c\x00\x01");
        let query = Query::parse(&plain).unwrap();
        assert_eq!(query.question.name(), b"\x03www\x02ns\x00");
        assert_eq!(query.question.qtype, types::AAAA);
        assert_eq!(query.head, &plain[..]);
        assert_eq!(query.question.labels(), 2);
        assert_eq!(query.question.label(0), b"www");
        assert_eq!(query.question.label(1), b"ns");
        assert_eq!(query.question.label(2), b"");
        assert_eq!(query.question.labels_above(b"\x02ns\x00"), Some(1));
        assert_eq!(query.question.labels_above(b"\x00"), Some(2));
        assert_eq!(query.question.labels_above(b"\x01s\x00"), None);

        let opt = b"\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x0c\x00\x0a\x00\x08abcdefgh";
        let edns = message(&[(11, 1)], opt);
        let query = Query::parse(&edns).unwrap();
        assert_eq!(query.question.name(), b"\x00");
        assert_eq!(query.question.labels_above(b"\x00"), Some(0));
        let edns = query.edns.unwrap();
        assert_eq!((edns.udp_size, edns.dnssec_ok), (1232, true));
        assert_eq!(edns.cookie.unwrap().client, *b"abcdefgh");
        assert!(edns.cookie.unwrap().server().is_empty());
    }

    #[test]
    fn what_is_odd_is_named() {
        let root = b"\x00\x00\x01\x00\x01";
        let with = |opt: &[u8]| [&root[..], opt].concat();
        let opt = |version: u8, options: &[u8]| {
            let length = u8::try_from(options.len()).unwrap();
            let head = [0, 0, 41, 4, 0xd0, 0, version, 0, 0, 0, length];
            with(&[&head[..], options].concat())
        };
        let cases = [
            (vec![], Odd::Ignored),
            (HEAD[..11].to_vec(), Odd::Ignored),
            (message(&[(2, 0x81)], root), Odd::Ignored),
            (message(&[(2, 0x28)], root), Odd::Opcode(5)),
            (message(&[(5, 0)], root), Odd::Questions(0)),
            (message(&[(5, 2)], root), Odd::Questions(2)),
            (message(&[], b""), Odd::Malformed),
            (message(&[], b"\xc0\x0c\x00\x01\x00\x01"), Odd::Malformed),
            (message(&[], b"\x05a\x00\x00\x01\x00\x01"), Odd::Malformed),
            (message(&[], &[[1, b'a']; 128].concat()), Odd::Malformed),
            (message(&[], b"\x00\x00\x01\x00"), Odd::Malformed),
            (message(&[], &with(b"x")), Odd::Malformed),
            (message(&[(16, 3)], root), Odd::Class(3)),
            (message(&[(14, 41)], root), Odd::Malformed),
            (message(&[(7, 1)], root), Odd::Records),
            (message(&[(11, 1)], root), Odd::Malformed),
            (message(&[(11, 1)], &opt(1, b"")), Odd::Version),
            (
                message(&[(11, 1)], &opt(0, b"\x00\x0a\x00\x09abcdefgh")),
                Odd::Malformed,
            ),
            (
                message(&[(11, 1)], &opt(0, b"\x00\x0a\x00\x07abcdefg")),
                Odd::Malformed,
            ),
            (message(&[(11, 1)], &opt(0, b"\x00")), Odd::Malformed),
            (message(&[(11, 2)], &opt(0, b"")), Odd::Records),
        ];
        for (message, want) in cases {
            assert_eq!(Query::parse(&message).err(), Some(want), "{message:?}");
        }
    }
}
