//! Connected sockets of a network namespace: found and closed through sock_diag(7), whoever has them.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::netlink::{self, NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, u32_at};

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Of an `inet_diag_sockid`, and where it begins in a question and in an answer (linux/inet_diag.h).
const ID: usize = 48;
const ID_IN_QUESTION: usize = 8;
const ID_IN_ANSWER: usize = 4;
/// A bit for each state of a socket; a UDP socket that is connected says `TCP_ESTABLISHED` too.
const ESTABLISHED: u32 = 1 << 1;
/// States in which a socket has a peer that it waits for: established, SYN sent, closing from either side.
const WITH_PEER: u32 = ESTABLISHED | 1 << 2 | 1 << 4 | 1 << 8 | 1 << 9;
const EVERY_STATE: u32 = u32::MAX;

/// A conversation about the sockets of the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Sockets {
    socket: OwnedFd,
}

/// A socket with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// `AF_INET` or `AF_INET6`: the socket's own, whatever its peer's.
    family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Whom it is connected to; IPv4 also where the socket itself is of IPv6.
    pub peer: SocketAddr,
    /// Unlike every other one of this boot.
    pub cookie: u64,
    id: [u8; ID],
}

impl Sockets {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or knows no sock_diag.
    pub fn open() -> io::Result<Sockets> {
        let socket = netlink::socket(netlink::SOCK_DIAG)?;
        Ok(Sockets { socket })
    }

    /// Every connected socket of a protocol.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn connected(&self, protocol: u8) -> io::Result<Vec<Connected>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let question = question(family as u8, protocol, WITH_PEER, &[0; ID]);
            self.ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &question)?;
            // As large as the kernel makes an answer at most.
            let mut buffer = vec![0_u8; 1 << 15];
            while !read(
                netlink::receive(&self.socket, &mut buffer)?,
                protocol,
                &mut found,
            )? {}
        }
        Ok(found)
    }

    /// Closes a socket: whoever waits on it hears ECONNABORTED, and a TCP peer a reset. One that is gone already is as
    /// good as closed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn destroy(&self, socket: &Connected) -> io::Result<()> {
        let question = question(socket.family, socket.protocol, EVERY_STATE, &socket.id);
        self.ask(SOCK_DESTROY, NLM_F_ACK, &question)?;
        let mut buffer = [0_u8; 1 << 10];
        let answer = netlink::receive(&self.socket, &mut buffer)?;
        match read(answer, socket.protocol, &mut Vec::new()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        netlink::send(&self.socket, &netlink::request(kind, flags, body))
    }
}

/// An `inet_diag_req_v2`.
fn question(family: u8, protocol: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut body = vec![family, protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    debug_assert_eq!(body.len(), ID_IN_QUESTION);
    body.extend(id);
    body
}

/// Reads a datagram of an answer; true when that is complete.
fn read(bytes: &[u8], protocol: u8, found: &mut Vec<Connected>) -> io::Result<bool> {
    for message in netlink::messages(bytes) {
        let message = message?;
        match message.kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                return match message.errno()? {
                    0 => Ok(true),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
            SOCK_DIAG_BY_FAMILY => found.extend(connected(message.body, protocol)),
            _ => {}
        }
    }
    Ok(false)
}

/// Reads an `inet_diag_msg`.
fn connected(body: &[u8], protocol: u8) -> Option<Connected> {
    let family = *body.first()?;
    let id: [u8; ID] = body.get(ID_IN_ANSWER..ID_IN_ANSWER + ID)?.try_into().ok()?;
    let port = u16::from_be_bytes([id[2], id[3]]);
    let addr: [u8; 16] = id[20..36].try_into().ok()?;
    let [a, b, c, d, ..] = addr;
    let addr = if i32::from(family) == libc::AF_INET {
        IpAddr::from([a, b, c, d])
    } else {
        Ipv6Addr::from(addr).to_canonical()
    };
    let (low, high) = (u32_at(&id, 40)?, u32_at(&id, 44)?);
    Some(Connected {
        family,
        protocol,
        peer: SocketAddr::new(addr, port),
        cookie: u64::from(high) << 32 | u64::from(low),
        id,
    })
}
