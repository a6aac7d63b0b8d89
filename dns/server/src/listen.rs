//! TCP sockets that listen, for queries and for the small HTTP servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel keeps until they are taken.
const BACKLOG: u32 = 1024;

/// A socket that listens. The unspecified IPv6 address means every address of both families, also on hosts without
/// IPv6. Call it inside the runtime.
///
/// An address that another process listens on is refused, and so is one that this process has, unless it `shares`
/// the port: so that a new configuration's sockets are open before those that they replace are closed, as where
/// 127.0.0.1 becomes every address.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) fn tcp(address: SocketAddr, shares: bool) -> io::Result<TcpListener> {
    match of_family(address, shares) {
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let no_v6 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
            let none = rustix::io::Errno::ADDRNOTAVAIL.raw_os_error();
            match error.raw_os_error() {
                Some(code) if code == no_v6 || code == none => {
                    let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
                    of_family(v4, shares)
                }
                _ => Err(error),
            }
        }
        listener => listener,
    }
}

fn of_family(address: SocketAddr, shares: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        let only = !address.ip().is_unspecified();
        rustix::net::sockopt::set_ipv6_v6only(&socket, only)?;
    }
    socket.set_reuseport(shares)?;
    socket.bind(address)?;
    // The kernel shares a port only where every socket allows it. A socket that is bound allows it to those that
    // come later; whether a later one may is that one's own `shares`.
    socket.set_reuseport(true)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_shared_by_those_alone_who_say_so() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = tcp(local, false).expect("any port");
        let port = first.local_addr().expect("an address").port();
        let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        for address in [SocketAddr::new(local.ip(), port), all] {
            let refused = tcp(address, false).expect_err("in use");
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
            tcp(address, true).expect("shared");
        }
    }
}
