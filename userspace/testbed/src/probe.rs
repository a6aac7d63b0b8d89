//! One request, and everything that the two ends see of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
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
    ask_from(0, how, target, limit)
}

/// Asks once, from a port of one's choice; zero for any.
pub fn ask_from(port: u16, how: How, target: SocketAddr, limit: Duration) -> Seen {
    let mut seen = Seen::default();
    let result = match how {
        How::Tcp => tcp(port, target, limit, &mut seen),
        How::UdpUnconnected => udp(port, target, limit, false, &mut seen),
        How::UdpConnected => udp(port, target, limit, true, &mut seen),
    };
    seen.error = result.err().map(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "timed out".to_owned(),
        kind => kind.to_string(),
    });
    seen
}

/// Connects again and again until it works; the Unix time in seconds when it did.
///
/// # Errors
///
/// The last refusal, once `limit` is over.
pub fn first_connect(target: SocketAddr, limit: Duration) -> std::io::Result<f64> {
    // A SYN that went nowhere must not be waited for: the next one may be balanced. A socket's own time-out is
    // rounded up to a tick of the kernel's clock, which may be longer than what is measured; the runtime's is not.
    const PATIENCE: Duration = Duration::from_millis(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let started = Instant::now();
        loop {
            let connecting = tokio::net::TcpStream::connect(target);
            match tokio::time::timeout(PATIENCE, connecting).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) if started.elapsed() > limit => return Err(error),
                Err(_) if started.elapsed() > limit => return Err(ErrorKind::TimedOut.into()),
                Ok(Err(_)) | Err(_) => tokio::task::yield_now().await,
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(now.unwrap_or_default().as_secs_f64())
    })
}

fn tcp(port: u16, target: SocketAddr, limit: Duration, seen: &mut Seen) -> std::io::Result<()> {
    let mut connection = connect_from(port, target, limit)?;
    seen.local = Some(connection.local_addr()?);
    seen.peer = Some(connection.peer_addr()?);
    connection.write_all(b"GET / HTTP/1.1\r\nhost: testbed\r\nconnection: close\r\n\r\n")?;
    let mut response = String::new();
    connection.read_to_string(&mut response)?;
    seen.read(response.rsplit("\r\n\r\n").next().unwrap_or_default());
    Ok(())
}

/// A connection from a port of one's choice (zero for any) whose every step is bounded in time, connecting
/// included.
///
/// # Errors
///
/// Of socket(2), bind(2) and connect(2).
pub fn connect_from(port: u16, target: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    let family = if target.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(limit))?;
    if port != 0 {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &any(target, port))?;
    }
    rustix::net::connect(&socket, &target).map_err(|error| match error {
        // What connect(2) says when the time for sending is over.
        rustix::io::Errno::INPROGRESS => ErrorKind::TimedOut.into(),
        error => std::io::Error::from(error),
    })?;
    let connection = TcpStream::from(socket);
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// The unspecified address of the target's family.
fn any(target: SocketAddr, port: u16) -> SocketAddr {
    if target.is_ipv4() {
        ([0; 4], port).into()
    } else {
        ([0u16; 8], port).into()
    }
}

fn udp(
    port: u16,
    target: SocketAddr,
    limit: Duration,
    connected: bool,
    seen: &mut Seen,
) -> std::io::Result<()> {
    let socket = UdpSocket::bind(any(target, port))?;
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
