//! Whether this process answers where pods would ask it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(700);

/// Asks for the server's status (RFC 1035 opcode 2), which goes down no chain and to no upstream: any answer is one.
pub(super) async fn answers(server: SocketAddr) -> bool {
    let here: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let asked = async {
        let socket = UdpSocket::bind((here, 0)).await?;
        socket.connect(server).await?;
        let [high, low] = fastrand::u16(..).to_be_bytes();
        let query = [high, low, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        socket.send(&query).await?;
        let mut answer = [0; 512];
        loop {
            let length = socket.recv(&mut answer).await?;
            if length >= 12 && answer[..2] == [high, low] {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(())))
}
