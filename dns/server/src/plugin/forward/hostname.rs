//! Upstreams that are named: their addresses are looked up when the Corefile is read, not when they are asked.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};

/// How long a server may take; each is asked once for either family.
const PATIENCE: Duration = Duration::from_secs(2);

/// The host's name in `NAME[:PORT]`, where it is none of its addresses.
pub(super) fn of(text: &str) -> Option<&str> {
    let (name, _) = split(text)?;
    let is_address = name.parse::<Ipv4Addr>().is_ok();
    (!is_address).then_some(name)
}

/// Addresses of the host `NAME[:PORT]`: as this machine knows it, or by asking `resolvers`, the first that answers.
///
/// # Errors
///
/// When nobody knows the name.
pub(super) fn addresses(
    text: &str,
    port: u16,
    resolvers: &[SocketAddr],
) -> io::Result<Vec<SocketAddr>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "no name of a host");
    let (name, own) = split(text).ok_or_else(invalid)?;
    let port = own.unwrap_or(port);
    if resolvers.is_empty() {
        return Ok((name, port).to_socket_addrs()?.collect());
    }
    let name = Name::from_utf8(name).map_err(|_| invalid())?;
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for resolver in resolvers {
        let mut found = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            match ask(*resolver, &name, kind) {
                Ok(answer) => found.extend(of_answer(&answer, port)),
                Err(error) => failed = error,
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(failed)
}

/// Name and port; nothing for what can be no name of a host.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_');
    (!name.is_empty() && name.bytes().all(fits)).then_some((name, port))
}

fn ask(resolver: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let any = match resolver {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let mut absolute = name.clone();
    absolute.set_fqdn(true);
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(absolute, kind));
    let octets = message.to_vec().map_err(io::Error::other)?;
    let socket = UdpSocket::bind(any)?;
    socket.connect(resolver)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&octets)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    let answer =
        Message::from_vec(buffer.get(..length).unwrap_or_default()).map_err(io::Error::other)?;
    let belongs = answer.metadata.id == message.metadata.id && answer.queries == message.queries;
    belongs
        .then_some(answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is another query's"))
}

fn of_answer(answer: &Message, port: u16) -> impl Iterator<Item = SocketAddr> + '_ {
    answer
        .answers
        .iter()
        .filter_map(move |record| match &record.data {
            RData::A(a) => Some(SocketAddr::from((a.0, port))),
            RData::AAAA(aaaa) => Some(SocketAddr::from((aaaa.0, port))),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        for (text, name) in [
            ("dns.example", Some("dns.example")),
            ("dns.example:5353", Some("dns.example")),
            ("192.0.2.1", None),
            ("192.0.2.1:53", None),
            ("[2001:db8::1]:53", None),
            ("2001:db8::1", None),
            ("dns.example:port", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(of(text), name, "{text}");
        }
        assert!(
            addresses("localhost:53", 1, &[])
                .expect("this machine knows")
                .iter()
                .all(|a| a.port() == 53)
        );
        assert!(addresses("no host", 53, &[]).is_err());
    }
}
