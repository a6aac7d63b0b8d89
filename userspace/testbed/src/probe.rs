//! One request, and everything that the two ends see of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum How {
    /// A TCP connection with one HTTP request.
    Tcp,
    /// A datagram by `sendto`, its answer by `recvfrom`.
    UdpUnconnected,
    /// A datagram on a connected socket.
    UdpConnected,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Who answered.
    pub backend: Option<String>,
    /// The client, as the backend saw it.
    pub client: Option<SocketAddr>,
    /// How many requests the backend had seen by then, this one included (HTTP alone).
    pub served: Option<u64>,
    /// The client's own address, as `getsockname` gives it.
    pub local: Option<SocketAddr>,
    /// The other end, as `getpeername` (connected sockets) or `recvfrom` gives it.
    pub peer: Option<SocketAddr>,
    /// Kind of the error that ended it.
    pub error: Option<String>,
}

/// Asks once.
pub fn ask(how: How, target: SocketAddr, limit: Duration) -> Seen {
    let mut seen = Seen::default();
    let result = match how {
        How::Tcp => tcp(target, limit, &mut seen),
        How::UdpUnconnected => udp(target, limit, false, &mut seen),
        How::UdpConnected => udp(target, limit, true, &mut seen),
    };
    seen.error = result.err().map(|error| error.kind().to_string());
    seen
}

fn tcp(target: SocketAddr, limit: Duration, seen: &mut Seen) -> std::io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&target, limit)?;
    connection.set_read_timeout(Some(limit))?;
    seen.local = Some(connection.local_addr()?);
    seen.peer = Some(connection.peer_addr()?);
    connection.write_all(b"GET / HTTP/1.1\r\nhost: testbed\r\nconnection: close\r\n\r\n")?;
    let mut response = String::new();
    connection.read_to_string(&mut response)?;
    seen.read(response.rsplit("\r\n\r\n").next().unwrap_or_default());
    Ok(())
}

fn udp(
    target: SocketAddr,
    limit: Duration,
    connected: bool,
    seen: &mut Seen,
) -> std::io::Result<()> {
    let any: SocketAddr = if target.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(limit))?;
    let mut buffer = [0; 2048];
    let read = if connected {
        socket.connect(target)?;
        seen.peer = Some(socket.peer_addr()?);
        socket.send(b"who?")?;
        socket.recv(&mut buffer)?
    } else {
        socket.send_to(b"who?", target)?;
        let (read, from) = socket.recv_from(&mut buffer)?;
        seen.peer = Some(from);
        read
    };
    seen.local = Some(socket.local_addr()?);
    seen.read(&String::from_utf8_lossy(&buffer[..read]));
    Ok(())
}

impl Seen {
    /// The servers' answer: `NAME PEER\n`, or `NAME PEER COUNT\n`.
    fn read(&mut self, answer: &str) {
        let mut words = answer.split_whitespace();
        self.backend = words.next().map(str::to_owned);
        self.client = words.next().and_then(|word| word.parse().ok());
        self.served = words.next().and_then(|word| word.parse().ok());
    }
}
