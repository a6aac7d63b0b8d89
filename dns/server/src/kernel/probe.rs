//! Whether this process answers where pods would ask it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(700);

/// Asks for `version.bind` in class CH, which concerns no zone: any answer is one.
pub(super) async fn answers(server: SocketAddr) -> bool {
    let here: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let asked = async {
        let socket = UdpSocket::bind((here, 0)).await?;
        socket.connect(server).await?;
        let [high, low] = fastrand::u16(..).to_be_bytes();
        let mut query = vec![high, low, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x07version\x04bind\x00\x00\x10\x00\x03");
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
