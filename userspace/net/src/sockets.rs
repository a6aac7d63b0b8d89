//! Connected sockets of a network namespace: found and closed through sock_diag(7), whoever has them.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::attributes::{u16_at, u32_at};

/// linux/sock_diag.h and linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Length of a netlink header.
const HEADER: usize = 16;
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
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(Sockets { socket })
    }

    /// Every connected socket of a protocol.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn connected(&self, protocol: u8) -> io::Result<Vec<Connected>> {
        let mut found = Vec::new();
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            let family = family.as_raw() as u8;
            let question = question(family, protocol, WITH_PEER, &[0; ID]);
            self.ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &question)?;
            // As large as the kernel makes an answer at most.
            let mut buffer = vec![0_u8; 1 << 15];
            loop {
                let read = match rustix::net::recv(
                    &self.socket,
                    buffer.as_mut_slice(),
                    RecvFlags::empty(),
                ) {
                    Ok((read, _)) => read,
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                if messages(&buffer[..read], protocol, &mut found)? {
                    break;
                }
            }
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
        let (read, _) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty())?;
        match messages(&buffer[..read], socket.protocol, &mut Vec::new()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let len = (HEADER + body.len()) as u32;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]); // no sequence, no port: there is one conversation at a time
        message.extend(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
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

/// Reads the messages of an answer; true when it is complete.
fn messages(mut bytes: &[u8], protocol: u8, found: &mut Vec<Connected>) -> io::Result<bool> {
    let cut = || io::Error::from(io::ErrorKind::InvalidData);
    while !bytes.is_empty() {
        let len = u32_at(bytes, 0).ok_or_else(cut)? as usize;
        let body = bytes.get(HEADER..len).ok_or_else(cut)?;
        match u16_at(bytes, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                let code = u32_at(body, 0).ok_or_else(cut)? as i32;
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            Some(SOCK_DIAG_BY_FAMILY) => found.extend(connected(body, protocol)),
            Some(_) | None => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
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
