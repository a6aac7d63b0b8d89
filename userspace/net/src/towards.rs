//! Where the host's routes lead, asked for one address at a time.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};

/// Where a packet to an address would go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Towards {
    /// To this host itself.
    Here,
    /// Out of the link with this index.
    Link(u32),
}

/// Octets of an answer at most: one route.
const ANSWER_MAX: usize = 8192;

/// Where this thread's network namespace would send a packet to `addr`; `None` where it has no route. Takes a few
/// microseconds.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub fn towards(addr: IpAddr) -> io::Result<Option<Towards>> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is zero
    )?;
    rustix::net::send(&socket, &request(addr), SendFlags::empty())?;
    let mut answer = [0; ANSWER_MAX];
    let (_, len) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    read(answer.get(..len).unwrap_or_default())
}

fn request(addr: IpAddr) -> Vec<u8> {
    let (address_family, prefix_len, destination) = match addr {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family,
        destination_prefix_length: prefix_len,
        ..RouteHeader::default()
    };
    route
        .attributes
        .push(RouteAttribute::Destination(destination));
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(route));
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    octets
}

fn read(answer: &[u8]) -> io::Result<Option<Towards>> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => Ok(of(&route)),
        NetlinkPayload::Error(error) => match error.to_io() {
            error if is_no_route(&error) => Ok(None),
            error => Err(error),
        },
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// What `ip route get` says of an address that no route leads to, or only one that refuses.
fn is_no_route(error: &io::Error) -> bool {
    let codes = [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::EINVAL,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

fn of(route: &RouteMessage) -> Option<Towards> {
    if route.header.kind == RouteType::Local {
        return Some(Towards::Here);
    }
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(ifindex) => Some(Towards::Link(*ifindex)),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_here_and_nothing_is_beyond_an_empty_namespace() {
        let here = towards([127, 0, 0, 1].into()).expect("rtnetlink answers");
        assert_eq!(here, Some(Towards::Here));
        let netns = crate::Netns::create().expect("a namespace: run as root");
        let beyond = netns.run(|| towards([192, 0, 2, 1].into()));
        assert_eq!(beyond.expect("a namespace").expect("an answer"), None);
    }

    #[test]
    fn octets_that_are_no_answer_are_an_error() {
        for len in 0..64 {
            assert!(read(&vec![0xff; len]).is_err(), "{len}");
        }
    }
}
