//! The kernel's own connection tracking, as far as it translates: ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::netlink::{
    self, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLMSG_DONE, NLMSG_ERROR, attribute,
    find, nested,
};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_NAT_SRC: u16 = 6;
const CTA_TIMEOUT: u16 = 7;
const CTA_NAT_DST: u16 = 13;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
const CTA_NAT_V4_MINIP: u16 = 1;
const CTA_NAT_V4_MAXIP: u16 = 2;
const CTA_NAT_PROTO: u16 = 3;
const CTA_NAT_V6_MINIP: u16 = 4;
const CTA_NAT_V6_MAXIP: u16 = 5;
const CTA_PROTONAT_PORT_MIN: u16 = 1;
const CTA_PROTONAT_PORT_MAX: u16 = 2;
/// Bits of a connection's status (linux/netfilter/nf_conntrack_common.h).
const IPS_SEEN_REPLY: u32 = 1 << 1;
const IPS_ASSURED: u32 = 1 << 2;
const IPS_CONFIRMED: u32 = 1 << 3;
const IPS_DST_NAT: u32 = 1 << 5;
/// linux/netfilter/nf_conntrack_tcp.h.
const TCP_CONNTRACK_ESTABLISHED: u8 = 3;
/// No sequence number is outside of the window: nobody knows it.
const IP_CT_TCP_FLAG_BE_LIBERAL: u8 = 8;
/// A connection of TCP is forgotten when it was silent for so many seconds, as kube-proxy has it; a flow of UDP, as the
/// kernel has it.
const TCP_SECS: u32 = 86_400;
const UDP_SECS: u32 = 120;
const IPPROTO_TCP: u8 = 6;
/// Length of nfnetlink's header: family, version, resource.
const HEAD: usize = 4;

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

impl Translated {
    /// A connection of TCP or UDP; its ends are of one family.
    #[must_use]
    pub fn new(
        protocol: u8,
        [client, asked]: [SocketAddr; 2],
        [answered, answers]: [SocketAddr; 2],
    ) -> Self {
        Translated {
            protocol,
            client,
            asked,
            answers,
            answered,
            tuple: tuple_of(protocol, client, asked),
        }
    }
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
        let socket = netlink::socket(netlink::NETFILTER)?;
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
        while !read(netlink::receive(&self.socket, &mut buffer)?, &mut found)? {}
        Ok(found)
    }

    /// Makes the kernel forget a connection: its next packet is new. One that is gone is as good as forgotten.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forget(&self, connection: &Translated) -> io::Result<()> {
        let family = if connection.client.is_ipv4() { 2 } else { 10 };
        let tuple = nested(CTA_TUPLE_ORIG, std::slice::from_ref(&connection.tuple));
        self.ask(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, family, &tuple)?;
        let mut buffer = [0_u8; 1 << 12];
        match read(
            netlink::receive(&self.socket, &mut buffer)?,
            &mut Vec::new(),
        ) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Has the kernel translate a connection as it says, from its next packet on. What the kernel tracked between its
    /// ends as they are behind the translation gives way.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, as where no rule translates and nothing is tracked.
    pub fn translate(&self, connection: &Translated) -> io::Result<()> {
        let Translated {
            protocol,
            client,
            asked,
            answers,
            answered,
            ..
        } = *connection;
        let behind = Translated::new(protocol, [answered, answers], [answered, answers]);
        self.forget(&behind)?;
        self.forget(connection)?;
        let family = if client.is_ipv4() { 2 } else { 10 };
        let status = IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED;
        let tcp = protocol == IPPROTO_TCP;
        let secs = if tcp { TCP_SECS } else { UDP_SECS };
        let mut attributes = vec![
            nested(CTA_TUPLE_ORIG, &[connection.tuple.clone()]),
            nested(CTA_TUPLE_REPLY, &[tuple_of(protocol, asked, client)]),
            attribute(CTA_STATUS, &status.to_be_bytes()),
            attribute(CTA_TIMEOUT, &secs.to_be_bytes()),
            nested(CTA_NAT_DST, &[range(answers)]),
        ];
        if answered != client {
            attributes.push(nested(CTA_NAT_SRC, &[range(answered)]));
        }
        if tcp {
            let liberal = [IP_CT_TCP_FLAG_BE_LIBERAL; 2];
            let info = [
                attribute(CTA_PROTOINFO_TCP_STATE, &[TCP_CONNTRACK_ESTABLISHED]),
                attribute(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &liberal),
                attribute(CTA_PROTOINFO_TCP_FLAGS_REPLY, &liberal),
            ];
            attributes.push(nested(CTA_PROTOINFO, &[nested(CTA_PROTOINFO_TCP, &info)]));
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(IPCTNL_MSG_CT_NEW, flags, family, &attributes.concat())?;
        let mut buffer = [0_u8; 1 << 12];
        acknowledged(netlink::receive(&self.socket, &mut buffer)?)
    }

    fn ask(&self, kind: u16, flags: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
        let body = [&[family, 0, 0, 0], attributes].concat();
        let request = netlink::request(NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, &body);
        netlink::send(&self.socket, &request)
    }
}

/// Reads a datagram of an answer; true when that is complete.
fn read(bytes: &[u8], found: &mut Vec<Translated>) -> io::Result<bool> {
    for message in netlink::messages(bytes) {
        let message = message?;
        match message.kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                return match message.errno()? {
                    // It is done; or there is no connection tracking in this kernel.
                    0 | libc::EINVAL | libc::EOPNOTSUPP => Ok(true),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
            kind if kind == NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW => {
                found.extend(message.body.get(HEAD..).and_then(connection));
            }
            _ => {}
        }
    }
    Ok(false)
}

/// Whether a change was made; an error where it was not.
fn acknowledged(bytes: &[u8]) -> io::Result<()> {
    for message in netlink::messages(bytes) {
        let message = message?;
        if message.kind == NLMSG_ERROR {
            return match message.errno()? {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            };
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// The attributes of a tuple.
fn tuple_of(protocol: u8, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let address = |kinds: [u16; 2], addr: IpAddr| match addr {
        IpAddr::V4(addr) => attribute(kinds[0], &addr.octets()),
        IpAddr::V6(addr) => attribute(kinds[1], &addr.octets()),
    };
    let ip = [
        address([CTA_IP_V4_SRC, CTA_IP_V6_SRC], source.ip()),
        address([CTA_IP_V4_DST, CTA_IP_V6_DST], destination.ip()),
    ];
    let proto = [
        attribute(CTA_PROTO_NUM, &[protocol]),
        attribute(CTA_PROTO_SRC_PORT, &source.port().to_be_bytes()),
        attribute(CTA_PROTO_DST_PORT, &destination.port().to_be_bytes()),
    ];
    [nested(CTA_TUPLE_IP, &ip), nested(CTA_TUPLE_PROTO, &proto)].concat()
}

/// The range to translate to that is one address and one port.
fn range(to: SocketAddr) -> Vec<u8> {
    let address = match to.ip() {
        IpAddr::V4(addr) => {
            [CTA_NAT_V4_MINIP, CTA_NAT_V4_MAXIP].map(|kind| attribute(kind, &addr.octets()))
        }
        IpAddr::V6(addr) => {
            [CTA_NAT_V6_MINIP, CTA_NAT_V6_MAXIP].map(|kind| attribute(kind, &addr.octets()))
        }
    };
    let port = [CTA_PROTONAT_PORT_MIN, CTA_PROTONAT_PORT_MAX]
        .map(|kind| attribute(kind, &to.port().to_be_bytes()));
    [address.concat(), nested(CTA_NAT_PROTO, &port)].concat()
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
    use crate::netlink::{attribute, request};

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

    fn entry(status: u32) -> Vec<u8> {
        let (client, asked) = (([10, 0, 0, 1], 4000), ([10, 96, 0, 1], 80));
        let (pod, node) = (([10, 244, 0, 2], 8080), ([192, 0, 2, 1], 61_000));
        let body = [
            vec![2, 0, 0, 0],
            direction(CTA_TUPLE_ORIG, client, asked),
            direction(CTA_TUPLE_REPLY, pod, node),
            attribute(CTA_STATUS, &status.to_be_bytes()),
        ];
        let kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW;
        request(kind, 0, &body.concat())
    }

    #[test]
    fn what_is_translated_is_told_from_what_is_not() {
        let mut found = Vec::new();
        let bytes = [entry(0x18e), entry(IPS_DST_NAT | 0x18e)].concat();
        assert!(!read(&bytes, &mut found).unwrap());
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
        assert!(read(&request(NLMSG_DONE, 0, &[0; 4]), &mut found).unwrap());
        assert!(read(&request(NLMSG_ERROR, 0, &[0; 4]), &mut found).unwrap());
        let refused = request(NLMSG_ERROR, 0, &(-libc::EPERM).to_ne_bytes());
        assert!(read(&refused, &mut found).is_err());
        for len in 0..bytes.len() {
            let _ = read(&bytes[..len], &mut found);
        }
    }
}
