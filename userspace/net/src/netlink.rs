//! Netlink, for those parts of the kernel that no crate here speaks to: sockets, messages and attributes
//! (linux/netlink.h). Numbers are in the host's byte order where nothing else is said.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
pub(crate) use rustix::net::netlink::{NETFILTER, SOCK_DIAG, XFRM};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Kinds of messages that every part of the kernel has.
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
/// Flags of messages.
const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
/// A flag of an attribute's kind, and the bits that are none.
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Length of a message's header.
const HEADER: usize = 16;

/// Opens a conversation with a part of the kernel, about the network namespace of the calling thread.
pub(crate) fn socket(protocol: Protocol) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )
}

/// Asks. The kernel has worked when this returns.
pub(crate) fn send(socket: &OwnedFd, messages: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, messages, SendFlags::empty())?;
    Ok(())
}

/// Waits for the next datagram of an answer.
pub(crate) fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let len = loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((len, _)) => break len,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    Ok(buffer.get(..len).unwrap_or(buffer))
}

/// A request; without a sequence or a port, because there is one conversation at a time.
pub(crate) fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let len = (HEADER + body.len()) as u32;
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// An attribute with a value.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute made of others.
pub(crate) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &parts.concat())
}

/// A message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// The result that an [`NLMSG_ERROR`] tells: an errno, zero where all went well.
    pub(crate) fn errno(&self) -> io::Result<i32> {
        let errno = u32_at(self.body, 0).ok_or_else(cut)? as i32;
        Ok(errno.saturating_neg())
    }
}

/// The messages of a datagram. What is cut short ends them with an error.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let read = first(bytes).map(|(message, len)| {
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
            message
        });
        if read.is_none() {
            bytes = &[];
        }
        Some(read.ok_or_else(cut))
    })
}

/// The message that bytes begin with, and its length.
fn first(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let len = u32_at(bytes, 0)? as usize;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        body: bytes.get(HEADER..len)?,
    };
    Some((message, len))
}

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a message of the kernel's is cut short",
    )
}

/// The value of the first attribute of a kind.
pub(crate) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..len)?;
        if u16_at(attributes, 2)? & NLA_TYPE_MASK == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

/// Two bytes as the kernel writes them.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes as the kernel writes them.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_until_one_is_cut_short() {
        let bytes = [request(7, NLM_F_ACK, b"odd"), request(8, 0, &[])].concat();
        // A message is filled up to four bytes where another one follows.
        assert!(messages(&bytes).any(|message| message.is_err()));
        let bytes = [request(7, NLM_F_ACK, b"even"), request(8, 0, &[])].concat();
        let read: Vec<_> = messages(&bytes).map(Result::unwrap).collect();
        let message = |kind, flags, body| Message { kind, flags, body };
        assert_eq!(
            read,
            [
                message(7, NLM_F_REQUEST | NLM_F_ACK, &b"even"[..]),
                message(8, NLM_F_REQUEST, &[])
            ]
        );
        for len in 0..bytes.len() {
            // The first one ends after 20.
            let whole = messages(&bytes[..len]).filter(Result::is_ok).count();
            assert_eq!(whole, usize::from(len >= 20), "{len}");
            let cut = messages(&bytes[..len]).filter(Result::is_err).count();
            assert_eq!(cut, usize::from(len != 0 && len != 20), "{len}");
        }
        // A length that is none does not go on for ever.
        assert_eq!(messages(&[0; 64]).count(), 1);
    }

    #[test]
    fn an_error_tells_its_number() {
        let told = |body: &[u8]| {
            let message = Message {
                kind: NLMSG_ERROR,
                flags: 0,
                body,
            };
            message.errno()
        };
        assert_eq!(told(&(-2_i32).to_ne_bytes()).unwrap(), 2);
        assert_eq!(told(&[0; 4]).unwrap(), 0);
        assert_eq!(told(&i32::MIN.to_ne_bytes()).unwrap(), i32::MAX);
        assert!(told(&[0; 3]).is_err());
    }

    #[test]
    fn attributes_are_found_behind_others() {
        let bytes = [attribute(1, b"a"), nested(2, &[attribute(3, b"four")])].concat();
        assert_eq!(find(&bytes, 1), Some(&b"a"[..]));
        let inner = find(&bytes, 2).unwrap();
        assert_eq!(find(inner, 3), Some(&b"four"[..]));
        assert_eq!(find(&bytes, 3), None);
        for len in 0..bytes.len() {
            assert_eq!(find(&bytes[..len], 2), None, "{len}");
        }
    }
}
