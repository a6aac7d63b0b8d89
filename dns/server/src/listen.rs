//! TCP sockets that listen, for queries and for the small HTTP servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

/// Connections that the kernel keeps until they are taken.
const BACKLOG: u32 = 1024;

/// How long connections that are being made may take when a socket is about to be closed.
const LEAVE: Duration = Duration::from_millis(200);

/// A socket that will listen: nobody can connect to it yet, so that it can be closed again without anybody noticing. The
/// unspecified IPv6 address means every address of both families, also on hosts without IPv6.
///
/// An address that another process listens on is refused, and so is one that this process has, unless it `shares`
/// the port: so that a new configuration's sockets are open before those that they replace are closed, as where
/// 127.0.0.1 becomes every address.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) fn bind(address: SocketAddr, shares: bool) -> io::Result<TcpSocket> {
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
        socket => socket,
    }
}

/// Listens. Call it inside the runtime.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Where connections come in until it is closed; those that are being made then come in too.
pub(crate) struct Door {
    listener: Arc<TcpListener>,
    /// Since it is being closed: until when those that are on their way are waited for.
    until: Option<Instant>,
}

impl Door {
    /// Open.
    pub(crate) fn new(listener: Arc<TcpListener>) -> Self {
        Self {
            listener,
            until: None,
        }
    }

    /// The next connection, or nothing when no more come. It is closed when `closed` ends; where that says that
    /// somebody else has the socket now, at once.
    ///
    /// # Errors
    /// When a connection cannot be taken.
    pub(crate) async fn next(
        &mut self,
        closed: impl Future<Output = Closed>,
    ) -> Option<io::Result<TcpStream>> {
        if self.until.is_none() {
            tokio::select! {
                // Who waits in the kernel's queue is answered before the socket is closed.
                biased;
                accepted = self.listener.accept() => return Some(accepted.map(|(stream, _)| stream)),
                closed = closed => match closed {
                    Closed::GivenAway => return None,
                    Closed::Ended => {}
                },
            }
            if let Err(error) = net::begin_no_more(&*self.listener) {
                tracing::debug!(%error, "connections that are being made to a socket that closes may be reset");
                return None;
            }
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + LEAVE);
        let accepted = tokio::time::timeout_at(until, self.listener.accept()).await;
        accepted
            .ok()
            .map(|accepted| accepted.map(|(stream, _)| stream))
    }
}

/// What became of a socket.
pub(crate) enum Closed {
    /// Nobody listens on it any more.
    Ended,
    /// Somebody else takes its connections.
    GivenAway,
}

fn of_family(address: SocketAddr, shares: bool) -> io::Result<TcpSocket> {
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
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_shared_by_those_alone_who_say_so() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = listen(bind(local, false).expect("any port")).expect("nobody listens");
        let port = first.local_addr().expect("an address").port();
        let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        for address in [SocketAddr::new(local.ip(), port), all] {
            let refused = bind(address, false).expect_err("in use");
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
            listen(bind(address, true).expect("shared")).expect("shared");
        }
    }
}
