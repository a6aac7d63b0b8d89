//! The kernel's own connection tracking, as far as it translates: ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::attributes::{find, u16_at, u32_at};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// A bit of a connection's status (linux/netfilter/nf_conntrack_common.h).
const IPS_DST_NAT: u32 = 1 << 5;
/// linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 0x8000;
/// Length of a netlink header, and of that with nfnetlink's behind it.
const HEADER: usize = 16;
const BODY: usize = 20;

/// A connection whose destination is translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// IP protocol number.
    pub protocol: u8,
    /// Who asked.
    pub client: SocketAddr,
    /// Whom it asked.
    pub asked: SocketAddr,
    /// Who answers.
    pub answers: SocketAddr,
    /// To whom: the client, or what its source was translated to.
    pub answered: SocketAddr,
    /// The original direction's tuple, by which the kernel finds it.
    tuple: Vec<u8>,
}

/// A conversation about the connections of the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack {
    socket: OwnedFd,
}

impl Conntrack {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn open() -> io::Result<Conntrack> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        Ok(Conntrack { socket })
    }

    /// Every connection of both families whose destination is translated. None where the kernel tracks none.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn translated(&self) -> io::Result<Vec<Translated>> {
        self.ask(IPCTNL_MSG_CT_GET, NLM_F_DUMP, 0, &[])?;
        let mut found = Vec::new();
        let mut buffer = vec![0_u8; 1 << 16];
        loop {
            let len = self.receive(&mut buffer)?;
            let ended = messages(&buffer[..len], &mut found)?;
            if ended {
                return Ok(found);
            }
        }
    }

    /// Makes the kernel forget a connection: its next packet is new. One that is gone is as good as forgotten.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forget(&self, connection: &Translated) -> io::Result<()> {
        let family = if connection.client.is_ipv4() { 2 } else { 10 };
        let tuple = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, &connection.tuple);
        self.ask(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, family, &tuple)?;
        let mut buffer = [0_u8; 1 << 12];
        let len = self.receive(&mut buffer)?;
        match messages(&buffer[..len], &mut Vec::new()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    fn ask(&self, kind: u16, flags: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
        let len = BODY + attributes.len();
        let mut request = Vec::with_capacity(len);
        request.extend((len as u32).to_ne_bytes());
        request.extend((NFNL_SUBSYS_CTNETLINK << 8 | kind).to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend([0; 8]); // sequence, port
        request.extend([family, 0, 0, 0]);
        request.extend(attributes);
        rustix::net::send(&self.socket, &request, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((len, _)) => return Ok(len),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Reads the messages of one datagram; whether they end the answer.
fn messages(mut bytes: &[u8], found: &mut Vec<Translated>) -> io::Result<bool> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "short answer from ctnetlink");
    while !bytes.is_empty() {
        let len = u32_at(bytes, 0).ok_or_else(short)? as usize;
        let message = bytes
            .get(..len)
            .filter(|_| len >= HEADER)
            .ok_or_else(short)?;
        match u16_at(message, 4).ok_or_else(short)? {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let errno = u32_at(message, HEADER).ok_or_else(short)? as i32;
                return match -errno {
                    // It is done; or there is no connection tracking in this kernel.
                    0 | libc::EINVAL | libc::EOPNOTSUPP => Ok(true),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
            kind if kind == NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW => {
                found.extend(message.get(BODY..).and_then(connection));
            }
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `None` where the destination is not translated, or there are no ports.
fn connection(attributes: &[u8]) -> Option<Translated> {
    let status = find(attributes, CTA_STATUS)?;
    let status = u32::from_be_bytes(status.try_into().ok()?);
    if status & IPS_DST_NAT == 0 {
        return None;
    }
    let original = find(attributes, CTA_TUPLE_ORIG)?;
    let (protocol, client, asked) = tuple(original)?;
    let (_, answers, answered) = tuple(find(attributes, CTA_TUPLE_REPLY)?)?;
    Some(Translated {
        protocol,
        client,
        asked,
        answers,
        answered,
        tuple: original.to_vec(),
    })
}

/// Protocol, source and destination.
fn tuple(attributes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (ip, proto) = (
        find(attributes, CTA_TUPLE_IP)?,
        find(attributes, CTA_TUPLE_PROTO)?,
    );
    let addr = |v4: u16, v6: u16| -> Option<IpAddr> {
        if let Some(addr) = find(ip, v4) {
            return Some(<[u8; 4]>::try_from(addr).ok()?.into());
        }
        Some(<[u8; 16]>::try_from(find(ip, v6)?).ok()?.into())
    };
    let port = |kind: u16| Some(u16::from_be_bytes(find(proto, kind)?.try_into().ok()?));
    let source = SocketAddr::new(
        addr(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        port(CTA_PROTO_SRC_PORT)?,
    );
    let destination = SocketAddr::new(
        addr(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        port(CTA_PROTO_DST_PORT)?,
    );
    Some((*find(proto, CTA_PROTO_NUM)?.first()?, source, destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | NLA_F_NESTED, &parts.concat())
    }

    fn direction(kind: u16, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        nested(
            kind,
            &[
                nested(
                    CTA_TUPLE_IP,
                    &[
                        attribute(CTA_IP_V4_SRC, &from.0),
                        attribute(CTA_IP_V4_DST, &to.0),
                    ],
                ),
                nested(
                    CTA_TUPLE_PROTO,
                    &[
                        attribute(CTA_PROTO_NUM, &[6]),
                        attribute(CTA_PROTO_SRC_PORT, &from.1.to_be_bytes()),
                        attribute(CTA_PROTO_DST_PORT, &to.1.to_be_bytes()),
                    ],
                ),
            ],
        )
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn entry(status: u32) -> Vec<u8> {
        let (client, asked) = (([10, 0, 0, 1], 4000), ([10, 96, 0, 1], 80));
        let (pod, node) = (([10, 244, 0, 2], 8080), ([192, 0, 2, 1], 61_000));
        let body = [
            vec![2, 0, 0, 0],
            direction(CTA_TUPLE_ORIG, client, asked),
            direction(CTA_TUPLE_REPLY, pod, node),
            attribute(CTA_STATUS, &status.to_be_bytes()),
        ];
        message(
            NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW,
            &body.concat(),
        )
    }

    #[test]
    fn what_is_translated_is_told_from_what_is_not() {
        let mut found = Vec::new();
        let bytes = [entry(0x18e), entry(IPS_DST_NAT | 0x18e)].concat();
        assert!(!messages(&bytes, &mut found).unwrap());
        let [it] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(
            [it.client, it.asked, it.answers, it.answered].map(|at| at.to_string()),
            [
                "10.0.0.1:4000",
                "10.96.0.1:80",
                "10.244.0.2:8080",
                "192.0.2.1:61000"
            ]
        );
        assert_eq!(it.protocol, 6);
        assert!(messages(&message(NLMSG_DONE, &[0; 4]), &mut found).unwrap());
        assert!(messages(&message(NLMSG_ERROR, &[0; 4]), &mut found).unwrap());
        let refused = message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
        assert!(messages(&refused, &mut found).is_err());
        for len in 0..bytes.len() {
            let _ = messages(&bytes[..len], &mut found);
        }
    }
}
