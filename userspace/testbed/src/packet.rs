//! Packets as values: built from scratch with every checksum computed in full, so that what a program made of one
//! packet can be compared, byte for byte, with another that was built as it should be.

use std::net::{IpAddr, SocketAddr};

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp {
    /// The sender has no more to send.
    pub const FIN: u8 = 1;
    /// Opens the connection.
    pub const SYN: u8 = 2;
    /// Ends the connection at once.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

/// The header behind IP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Flags, see [`tcp`].
        flags: u8,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledged: u32,
    },
    /// UDP.
    Udp {
        /// Whether it carries a checksum.
        checked: bool,
    },
    /// SCTP with one chunk of the given type, whose value is the payload.
    Sctp {
        /// Verification tag.
        tag: u32,
        /// The chunk's type.
        chunk: u8,
    },
    /// What follows IP as it is, under this protocol number.
    Raw(u8),
}

/// A packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Link addresses: destination, source.
    pub link: [[u8; 6]; 2],
    /// VLAN tags: protocol and identifier.
    pub tags: Vec<(u16, u16)>,
    /// Source.
    pub source: SocketAddr,
    /// Destination, of the same family.
    pub destination: SocketAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: number and content behind the length byte, which makes eight bytes with it or a
    /// multiple.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// The fragment to cut out: offset and length in bytes of what follows IP, and the identification.
    pub fragment: Option<(usize, usize, u32)>,
    /// The header behind IP.
    pub transport: Transport,
    /// What the transport carries.
    pub payload: Vec<u8>,
}

/// Link address of whoever sends.
pub const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Link address of whoever receives.
pub const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 2];

impl Packet {
    /// A TCP segment.
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        let transport = Transport::Tcp {
            flags,
            sequence: 0x0102_0304,
            acknowledged: 0x0506_0708,
        };
        Self::new(source, destination, transport)
    }

    /// A UDP datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Udp { checked: true })
    }

    /// An SCTP packet that opens an association (an INIT without parameters) or, with `opened`, carries data.
    pub fn sctp(source: SocketAddr, destination: SocketAddr, opened: bool) -> Self {
        let (tag, chunk) = if opened { (0x1122_3344, 0) } else { (0, 1) };
        Self {
            payload: b"tag, window, streams".to_vec(),
            ..Self::new(source, destination, Transport::Sctp { tag, chunk })
        }
    }

    /// A packet of its two ends and the header behind IP.
    pub fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        Self {
            link: [RECEIVER, SENDER],
            tags: Vec::new(),
            source,
            destination,
            ttl: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            transport,
            payload: b"a payload of odd length".to_vec(),
        }
    }

    /// The same between two other ends.
    #[must_use]
    pub fn between(&self, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            source,
            destination,
            ..self.clone()
        }
    }

    /// The same where a backend answers with it for the first time: TCP accepts the connection.
    #[must_use]
    pub fn accepting(mut self) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags = tcp::SYN | tcp::ACK;
        }
        self
    }

    /// The same, sent back over the link that it came from.
    #[must_use]
    pub fn sent_back(&self) -> Self {
        let [destination, source] = self.link;
        Self {
            link: [source, destination],
            ..self.clone()
        }
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = self.link.concat();
        for (protocol, id) in &self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        let ethertype: u16 = if self.source.is_ipv4() {
            0x0800
        } else {
            0x86dd
        };
        frame.extend(ethertype.to_be_bytes());
        let (proto, mut segment) = self.segment();
        let mut fragment = None;
        if let Some((offset, len, id)) = self.fragment {
            let more = offset + len < segment.len();
            segment = segment[offset..offset + len].to_vec();
            fragment = Some((offset as u16 | u16::from(more), id));
        }
        frame.extend(self.ip(proto, fragment, &segment));
        frame.extend(segment);
        frame
    }

    fn ip(&self, proto: u8, fragment: Option<(u16, u32)>, segment: &[u8]) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = 20 + self.options.len();
                let mut header = vec![0x40 | (len / 4) as u8, 0];
                header.extend(((len + segment.len()) as u16).to_be_bytes());
                let (place, id) = fragment.map_or((0x4000, 0), |(place, id)| {
                    (place >> 3 | (place & 1) << 13, id as u16)
                });
                header.extend(id.to_be_bytes());
                header.extend(place.to_be_bytes());
                header.extend([self.ttl, proto, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.options);
                let check = checksum(&header);
                header[10..12].copy_from_slice(&check.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut chain: Vec<(u8, Vec<u8>)> = self
                    .extensions
                    .iter()
                    .map(|(number, content)| {
                        let mut bytes = vec![0, ((content.len() + 2) / 8 - 1) as u8];
                        bytes.extend(content);
                        (*number, bytes)
                    })
                    .collect();
                if let Some((place, id)) = fragment {
                    let mut bytes = vec![0, 0];
                    bytes.extend(place.to_be_bytes());
                    bytes.extend(id.to_be_bytes());
                    chain.push((44, bytes));
                }
                let numbers: Vec<u8> = chain.iter().map(|(number, _)| *number).collect();
                let following = numbers.iter().copied().chain([proto]);
                for ((_, bytes), next) in chain.iter_mut().zip(following.clone().skip(1)) {
                    bytes[0] = next;
                }
                let extensions: Vec<u8> = chain.into_iter().flat_map(|(_, bytes)| bytes).collect();
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(((extensions.len() + segment.len()) as u16).to_be_bytes());
                header.extend([following.clone().next().unwrap_or(proto), self.ttl]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(extensions);
                header
            }
            _ => panic!(
                "{} and {} are of two families",
                self.source, self.destination
            ),
        }
    }

    fn segment(&self) -> (u8, Vec<u8>) {
        let mut segment = Vec::new();
        let (proto, check_at) = match self.transport {
            Transport::Tcp {
                flags,
                sequence,
                acknowledged,
            } => {
                segment.extend(self.source.port().to_be_bytes());
                segment.extend(self.destination.port().to_be_bytes());
                segment.extend(sequence.to_be_bytes());
                segment.extend(acknowledged.to_be_bytes());
                segment.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
                (6, Some(16))
            }
            Transport::Udp { checked } => {
                segment.extend(self.source.port().to_be_bytes());
                segment.extend(self.destination.port().to_be_bytes());
                segment.extend((8 + self.payload.len() as u16).to_be_bytes());
                segment.extend([0, 0]);
                (17, checked.then_some(6))
            }
            Transport::Sctp { tag, chunk } => {
                segment.extend(self.source.port().to_be_bytes());
                segment.extend(self.destination.port().to_be_bytes());
                segment.extend(tag.to_be_bytes());
                segment.extend([0, 0, 0, 0, chunk, 0]);
                segment.extend((4 + self.payload.len() as u16).to_be_bytes());
                (132, None)
            }
            Transport::Raw(proto) => (proto, None),
        };
        segment.extend(&self.payload);
        if let Transport::Sctp { .. } = self.transport {
            segment.resize(segment.len().next_multiple_of(4), 0);
            let check = crc32c(&segment).to_le_bytes();
            segment[8..12].copy_from_slice(&check);
        }
        if let Some(at) = check_at {
            let check = match transport_checksum(
                self.source.ip(),
                self.destination.ip(),
                proto,
                &segment,
            ) {
                0 if proto == 17 => 0xffff,
                check => check,
            };
            segment[at..at + 2].copy_from_slice(&check.to_be_bytes());
        }
        (proto, segment)
    }
}

/// The Internet checksum (RFC 1071) of bytes, word by word and without any trick.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of SCTP (RFC 9260 appendix A), bit by bit and without any trick.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// The checksum of a transport segment under its pseudo-header.
pub fn transport_checksum(source: IpAddr, destination: IpAddr, proto: u8, segment: &[u8]) -> u16 {
    let mut bytes = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            [source.octets(), destination.octets()].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            [source.octets(), destination.octets()].concat()
        }
        _ => panic!("{source} and {destination} are of two families"),
    };
    bytes.extend((segment.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, proto]);
    bytes.extend(segment);
    checksum(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_what_rfc_1071_says() {
        // The example of RFC 1071 section 3: the sum is ddf2.
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }

    #[test]
    fn headers_check_out_to_zero() {
        let v4 = Packet::udp(
            "192.0.2.1:1000".parse().unwrap(),
            "192.0.2.2:53".parse().unwrap(),
        )
        .bytes();
        assert_eq!(checksum(&v4[14..34]), 0);
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(transport_checksum(source, destination, 17, &v4[34..]), 0);
    }
}
