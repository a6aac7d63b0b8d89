//! Changes to links, addresses, routes and neighbours, one question and its answer at a time.
//!
//! For whoever has no runtime and is gone in a few milliseconds, such as a CNI plugin; [`Links`](crate::Links) is
//! for those who follow what others change.

mod link;
mod route;

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Error;

pub use link::{Device, Vxlan};
pub use route::Route;

/// How long the kernel may take for an answer; it takes microseconds, and waits only while others change links.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A conversation with the kernel about the network namespace of the thread that opened it, from whichever thread
/// it goes on.
#[derive(Debug)]
pub struct Rtnl {
    socket: OwnedFd,
    sequence: Cell<u32>,
}

impl Rtnl {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] if the kernel refuses.
    pub fn open() -> Result<Rtnl, Error> {
        let open = || -> io::Result<OwnedFd> {
            let socket = rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                None, // NETLINK_ROUTE is zero
            )?;
            set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
            Ok(socket)
        };
        Ok(Rtnl {
            socket: open().map_err(Error::Socket)?,
            sequence: Cell::new(0),
        })
    }

    /// Asks for a change and waits until it is done.
    fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.ask(message, flags, |_| {})
    }

    /// Asks for one thing or for a list.
    fn list(
        &self,
        message: RouteNetlinkMessage,
        one: bool,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let flags = if one {
            NLM_F_REQUEST | NLM_F_ACK
        } else {
            NLM_F_REQUEST | NLM_F_DUMP
        };
        self.ask(message, flags, each)
    }

    fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = sequence;
        let mut question = NetlinkMessage::new(header, NetlinkPayload::from(message));
        question.finalize();
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        // A message of a dump fits in 32 kB (NLMSG_GOODSIZE, and what netlink_dump() rounds it up to).
        let mut answer = vec![0; 1 << 16];
        loop {
            let (_, len) =
                rustix::net::recv(&self.socket, answer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &answer[..len.min(answer.len())];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|error| {
                        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
                    })?;
                let len = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(len.max(16)..).unwrap_or_default();
                if message.header.sequence_number != sequence {
                    continue; // of a question that was given up
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(message) => each(message),
                    _ => {}
                }
            }
        }
    }
}

/// An error about a change that was tried.
fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    move |source| Error::Change { action, source }
}
