//! Frames of dnstap: protobuf messages (dnstap.proto) within Frame Streams.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::message::Transport;

const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// Control frames of Frame Streams.
pub(super) const ACCEPT: u32 = 1;
pub(super) const START: u32 = 2;
pub(super) const STOP: u32 = 3;
pub(super) const READY: u32 = 4;

/// Who speaks to whom (`Message.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ClientQuery = 5,
    ClientResponse = 6,
    ForwarderQuery = 7,
    ForwarderResponse = 8,
}

/// One message on its way.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) kind: Kind,
    /// Who asks and who is asked.
    pub(super) asker: SocketAddr,
    pub(super) asked: SocketAddr,
    pub(super) transport: Transport,
    /// When the query came or went, and for answers when they did.
    pub(super) query_at: SystemTime,
    pub(super) response_at: Option<SystemTime>,
    /// The message whole, if it is wanted.
    pub(super) octets: Option<&'a [u8]>,
}

/// An event as a frame's data.
pub(super) fn data(identity: &str, version: &str, extra: &str, event: &Event<'_>) -> Vec<u8> {
    let (asker, asked) = (
        event.asker.ip().to_canonical(),
        event.asked.ip().to_canonical(),
    );
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut message = Proto::default();
    message.number(1, event.kind as u64);
    message.number(2, if asked.is_ipv4() { 1 } else { 2 });
    message.number(
        3,
        match event.transport {
            Transport::Udp => 1,
            Transport::Tcp => 2,
            Transport::Tls => 3,
            Transport::Https => 4,
        },
    );
    message.bytes(4, &octets(asker));
    message.bytes(5, &octets(asked));
    message.number(6, u64::from(event.asker.port()));
    message.number(7, u64::from(event.asked.port()));
    message.time(8, 9, event.query_at);
    if let Some(at) = event.response_at {
        message.time(12, 13, at);
    }
    if let Some(octets) = event.octets.filter(|octets| !octets.is_empty()) {
        message.bytes(if event.response_at.is_some() { 14 } else { 10 }, octets);
    }
    let mut frame = Proto::default();
    frame.bytes(1, identity.as_bytes());
    frame.bytes(2, version.as_bytes());
    if !extra.is_empty() {
        frame.bytes(3, extra.as_bytes());
    }
    frame.bytes(14, &message.0);
    frame.number(15, 1);
    frame.0
}

/// A control frame that names our content: escape, length, type, then the field.
pub(super) fn control(kind: u32) -> Vec<u8> {
    let length = CONTENT_TYPE.len() as u32;
    let mut frame = vec![0; 4];
    for number in [length + 12, kind, 1, length] {
        frame.extend(number.to_be_bytes());
    }
    frame.extend_from_slice(CONTENT_TYPE);
    frame
}

/// The control frame after which nothing comes.
pub(super) fn stop() -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend(4_u32.to_be_bytes());
    frame.extend(STOP.to_be_bytes());
    frame
}

/// Whether a control frame, without escape and length, accepts our content.
pub(super) fn accepts(frame: &[u8]) -> bool {
    let named = || {
        frame
            .windows(CONTENT_TYPE.len())
            .any(|part| part == CONTENT_TYPE)
    };
    frame.get(..4) == Some(&ACCEPT.to_be_bytes()) && named()
}

/// Fields of a protobuf message.
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push((number & 0x7f | 0x80) as u8);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(&mut self, field: u64, number: u64) {
        self.varint(field << 3);
        self.varint(number);
    }

    fn bytes(&mut self, field: u64, octets: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(octets.len() as u64);
        self.0.extend_from_slice(octets);
    }

    /// Seconds as a number, nanoseconds as four octets, low first.
    fn time(&mut self, seconds: u64, nanoseconds: u64, time: SystemTime) {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.number(seconds, since.as_secs());
        self.varint(nanoseconds << 3 | 5);
        self.0
            .extend_from_slice(&since.subsec_nanos().to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_frames() {
        let mut proto = Proto::default();
        proto.number(1, 300);
        proto.bytes(14, b"ab");
        assert_eq!(proto.0, [0x08, 0xac, 0x02, 0x72, 2, b'a', b'b']);
        let frame = control(READY);
        assert_eq!(frame.len(), 4 + 4 + 12 + CONTENT_TYPE.len());
        assert_eq!(frame[..12], [0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 4]);
        assert!(accepts(&control(ACCEPT)[8..]));
        assert!(!accepts(&control(START)[8..]));
        assert!(!accepts(&[]));
    }
}
