//! Messages to octets: EDNS, sizes, truncation, and answers to what is no ordinary query.

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use zone::query::HEADER;
use zone::reply::{UDP_MIN, rcodes};
use zone::{Odd, Query, Reply};

use super::Turn;
use crate::fast::{PAD_TO, UDP_SIZE};
use crate::message::Transport;

/// What an answer is fitted to.
pub(super) struct Frame<'a> {
    /// The query as it came.
    pub(super) asked: &'a Message,
    /// What carries the answer.
    pub(super) transport: Transport,
    /// The COOKIE option's value.
    pub(super) cookie: Option<[u8; 24]>,
}

impl Frame<'_> {
    /// Writes a message so that it fits; nothing if it cannot be written at all.
    pub(super) fn encode(&self, mut message: Message, size_max: u16) -> Option<Vec<u8>> {
        let size_max = match self.transport {
            Transport::Udp => usize::from(size_max).min(net::SEND_MAX),
            Transport::Tcp | Transport::Tls | Transport::Https => usize::from(u16::MAX),
        };
        message.metadata.id = self.asked.metadata.id;
        message.metadata.op_code = self.asked.metadata.op_code;
        message.queries.clone_from(&self.asked.queries);
        self.edns(&mut message);
        let mut octets = write(&message)?;
        if octets.len() > size_max {
            octets = cut(message.clone(), size_max)?;
        }
        if let Transport::Tls | Transport::Https = self.transport
            && self.pads()
        {
            octets = pad(message, octets)?;
        }
        Some(octets)
    }

    /// Whoever speaks EDNS is answered in it, and nobody else (RFC 6891 section 7).
    fn edns(&self, message: &mut Message) {
        let Some(asked) = &self.asked.edns else {
            message.edns = None;
            // The high part of a code stands in the OPT record. What is left without it means something else, which
            // for BADVERS is that all is well.
            if message.metadata.response_code.high() > 0 {
                message.metadata.response_code = ResponseCode::ServFail;
            }
            return;
        };
        let edns = message.edns.get_or_insert_with(Edns::new);
        edns.set_max_payload(UDP_SIZE);
        edns.set_version(0);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        // What an upstream server agreed with us is nothing to the client.
        for code in [EdnsCode::Cookie, EdnsCode::Padding, EdnsCode::Keepalive] {
            edns.options_mut().remove(code);
        }
        if let Some(cookie) = self.cookie {
            let option = EdnsOption::Unknown(u16::from(EdnsCode::Cookie), cookie.to_vec());
            edns.options_mut().insert(option);
        }
    }

    fn pads(&self) -> bool {
        let edns = self.asked.edns.as_ref();
        edns.is_some_and(|edns| edns.option(EdnsCode::Padding).is_some())
    }
}

/// Leaves out what can be asked for again: additional records first and silently, then authority and answers
/// from the end, which sets TC (RFC 2181 section 9).
fn cut(mut message: Message, size_max: usize) -> Option<Vec<u8>> {
    message.additionals.clear();
    let octets = write(&message)?;
    if octets.len() <= size_max {
        return Some(octets);
    }
    message.metadata.truncation = true;
    message.authorities.clear();
    // The greatest number of answers that fits.
    let all = std::mem::take(&mut message.answers);
    let (mut fits, mut too_many) = (0, all.len() + 1);
    let mut best = write(&message)?;
    while too_many - fits > 1 {
        let tried = fits + (too_many - fits) / 2;
        message.answers = all.get(..tried)?.to_vec();
        let octets = write(&message)?;
        if octets.len() <= size_max {
            fits = tried;
            best = octets;
        } else {
            too_many = tried;
        }
    }
    if best.len() > size_max
        && let Some(edns) = &mut message.edns
    {
        *edns.options_mut() = Edns::new().options().clone();
        message.answers.clear();
        best = write(&message)?;
    }
    Some(best)
}

/// Fills up to a multiple of [`PAD_TO`] (RFC 8467 section 4.1).
fn pad(mut message: Message, octets: Vec<u8>) -> Option<Vec<u8>> {
    let unit = usize::from(PAD_TO);
    let missing = (unit - (octets.len() + 4) % unit) % unit;
    if octets.len() + 4 + missing > usize::from(u16::MAX) {
        return Some(octets);
    }
    let edns = message.edns.as_mut()?;
    let option = EdnsOption::Unknown(u16::from(EdnsCode::Padding), vec![0; missing]);
    edns.options_mut().insert(option);
    write(&message)
}

fn write(message: &Message) -> Option<Vec<u8>> {
    match message.to_vec() {
        Ok(octets) => Some(octets),
        Err(error) => {
            tracing::warn!(%error, "an answer cannot be written");
            None
        }
    }
}

/// Records that a request has at most in its answer, authority and additional section: a SOA each (RFC 1996 section 3.7,
/// RFC 1995 section 3), OPT and TSIG. A message of 64 kB with thousands of them would take megabytes to be read.
const RECORDS_MAX: [u16; 3] = [1, 1, 2];

/// Answers what is no ordinary query, as far as that needs no chain.
pub(super) fn odd(odd: Odd, octets: &[u8], buffer: &mut [u8]) -> Turn {
    let counts = octets.get(6..HEADER).unwrap_or_default().as_chunks::<2>().0;
    let mut counts = counts
        .iter()
        .map(|count| u16::from_be_bytes(*count))
        .zip(RECORDS_MAX);
    let length = match odd {
        Odd::Records | Odd::Opcode(4) if counts.any(|(count, most)| count > most) => {
            form_error(octets, buffer)
        }
        Odd::Ignored => return Turn::Silence,
        // CH, signatures and NOTIFY are matters of plugins.
        Odd::Class(_) | Odd::Records | Odd::Opcode(4) => return Turn::Slow,
        Odd::Opcode(_) => header(octets, rcodes::NOTIMP, buffer),
        // RFC 9619 section 4.
        Odd::Malformed | Odd::Questions(_) => form_error(octets, buffer),
        Odd::Version => bad_version(octets, buffer),
    };
    length.map_or(Turn::Silence, Turn::Answered)
}

/// Refuses a query; the answer is hardly longer than the query, so that it is no use to who sends in others' names.
pub(super) fn refused(query: &Query<'_>, buffer: &mut [u8]) -> Turn {
    let frame = zone::Frame {
        udp_size: UDP_SIZE,
        ..zone::Frame::default()
    };
    Reply::new(buffer, query, UDP_MIN).map_or(Turn::Silence, |reply| {
        Turn::Answered(reply.finish(query, rcodes::REFUSED, &frame))
    })
}

/// Says that a query cannot be answered now; gives the answer's length.
pub(super) fn failed(octets: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let Ok(query) = Query::parse(octets) else {
        return header(octets, rcodes::SERVFAIL, buffer);
    };
    let frame = zone::Frame {
        udp_size: UDP_SIZE,
        ..zone::Frame::default()
    };
    let reply = Reply::new(buffer, &query, UDP_MIN)?;
    Some(reply.finish(&query, rcodes::SERVFAIL, &frame))
}

/// The answer to octets that cannot be read.
pub(super) fn malformed(octets: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = [0; HEADER];
    if octets.len() < HEADER || octets[2] & 0x80 != 0 {
        return None;
    }
    header(octets, rcodes::FORMERR, &mut buffer)?;
    Some(buffer.to_vec())
}

/// A header alone: what the question was could not be understood, or does not matter.
fn header(octets: &[u8], rcode: u8, buffer: &mut [u8]) -> Option<usize> {
    let (from, to) = (octets.get(..HEADER)?, buffer.get_mut(..HEADER)?);
    to.fill(0);
    to[..2].copy_from_slice(&from[..2]);
    to[2] = 0x80 | from[2] & 0x79;
    to[3] = rcode;
    Some(HEADER)
}

/// FORMERR; who speaks EDNS sees that we do (RFC 6891 section 7).
fn form_error(octets: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let end = header(octets, rcodes::FORMERR, buffer)?;
    match zone::query::speaks_edns(octets) {
        true => opt_alone(&[], buffer),
        false => Some(end),
    }
}

/// Answers who asks for nothing but our cookie (RFC 7873 section 5.4).
pub(super) fn cookie_alone(octets: &[u8], cookie: &[u8; 24], buffer: &mut [u8]) -> Turn {
    let option = [&[0, 10, 0, 24], &cookie[..]].concat();
    let answered = header(octets, rcodes::NOERROR, buffer).and_then(|_| opt_alone(&option, buffer));
    answered.map_or(Turn::Silence, Turn::Answered)
}

/// Appends an OPT record to a header that stands alone; gives the length of both.
fn opt_alone(options: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let [u0, u1] = UDP_SIZE.to_be_bytes();
    let [l0, l1] = u16::try_from(options.len()).ok()?.to_be_bytes();
    let opt = [&[0, 0, 41, u0, u1, 0, 0, 0, 0, l0, l1], options].concat();
    let end = HEADER + opt.len();
    buffer.get_mut(HEADER..end)?.copy_from_slice(&opt);
    buffer[11] = 1;
    Some(end)
}

/// RFC 6891 section 6.1.3: BADVERS, 16, whose high part stands in the OPT record.
fn bad_version(octets: &[u8], buffer: &mut [u8]) -> Option<usize> {
    header(octets, 0, buffer)?;
    let head = zone::query::head(octets)?;
    let end = head.len();
    buffer
        .get_mut(HEADER..end)?
        .copy_from_slice(head.get(HEADER..)?);
    let high = u8::try_from(u16::from(ResponseCode::BADVERS) >> 4).unwrap_or(1);
    let [u0, u1] = UDP_SIZE.to_be_bytes();
    let opt = [0, 0, 41, u0, u1, high, 0, 0, 0, 0, 0];
    buffer.get_mut(end..end + opt.len())?.copy_from_slice(&opt);
    // One question, and one record beside it.
    buffer[5] = 1;
    buffer[11] = 1;
    Some(end + opt.len())
}
