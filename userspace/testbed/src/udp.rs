//! A UDP server that says who it is and whom it sees.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};

/// Serves for ever: each datagram is answered with `NAME PEER\n`.
///
/// # Errors
///
/// When the address cannot be bound. A datagram that cannot be answered is lost, as datagrams are.
pub fn serve(name: &str, address: SocketAddr, ready: impl FnOnce()) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    ready();
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error for an earlier answer comes back here; it is not about this socket.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}\n", canonical(peer)).as_bytes(), peer);
        }
    }
}

/// An IPv4 peer of a dual-stack socket, written as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
