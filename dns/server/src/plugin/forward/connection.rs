//! Sockets to upstreams: a fresh one for each datagram, and streams that are kept for the next question.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use hickory_proto::op::Message;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::io::Interest;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;

use super::tls;
use super::upstream::ExchangeError;
use super::upstream::Options;

/// Wrong answers to one datagram that are looked at before the question is given up: a forger has no more tries.
const STRANGERS_MAX: usize = 64;

/// An identifier that nobody can guess from those before.
pub(crate) fn random_id() -> u16 {
    let mut octets = [0; 2];
    match aws_lc_rs::rand::fill(&mut octets) {
        Ok(()) => u16::from_ne_bytes(octets),
        Err(_) => fastrand::u16(..),
    }
}

/// Bits that nobody can guess, at most as many as a name has octets.
pub(super) fn random_bits() -> impl Iterator<Item = bool> {
    let mut octets = [0u8; 32];
    if aws_lc_rs::rand::fill(&mut octets).is_err() {
        fastrand::fill(&mut octets);
    }
    octets
        .into_iter()
        .flat_map(|octet| (0..8).map(move |bit| octet >> bit & 1 == 1))
}

fn unspecified(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Asks by datagram. The socket is new, so its port is the kernel's random choice, and connected, so that only
/// datagrams from the upstream reach it.
pub(crate) async fn datagram(
    address: SocketAddr,
    source: Option<IpAddr>,
    octets: &[u8],
    size: usize,
    belongs: &(dyn Fn(&Message) -> bool + Send + Sync),
) -> Result<Message, ExchangeError> {
    let source = source.filter(|source| source.is_ipv4() == address.is_ipv4());
    let local = source.unwrap_or_else(|| unspecified(address));
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
    socket.connect(address).await?;
    socket.send(octets).await?;
    for _ in 0..STRANGERS_MAX {
        // Room is made when there is an answer: of the questions that wait, few get theirs now.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            // A port that nobody listens on, as an ICMP message tells.
            let told = socket.try_io(Interest::ERROR, || {
                Ok(rustix::net::sockopt::socket_error(&socket)?)
            });
            if let Ok(Err(error)) = told {
                return Err(std::io::Error::from(error).into());
            }
        }
        let mut buffer = vec![0; size];
        let length = match socket.try_recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        let Ok(answer) = Message::from_vec(buffer.get(..length).unwrap_or_default()) else {
            continue;
        };
        if belongs(&answer) {
            return Ok(answer);
        }
    }
    Err(ExchangeError::Stranger)
}

/// A stream in either direction.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to an upstream.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    opened: Instant,
    used: Instant,
}

pub(crate) async fn tcp(address: SocketAddr, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(super) async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    tls: Option<(&Arc<ClientConfig>, &ServerName<'static>)>,
) -> Result<Connection, ExchangeError> {
    let stream = tcp(address, source).await?;
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some((config, name)) => Box::new(tls::secure(config, name, stream).await?),
    };
    let now = Instant::now();
    Ok(Connection {
        stream,
        opened: now,
        used: now,
    })
}

/// Connections that wait for the next question, the one used last in front.
pub(super) struct Pool {
    idle: Mutex<VecDeque<Connection>>,
    expire: Duration,
    max_age: Option<Duration>,
    most: usize,
}

impl Pool {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            idle: Mutex::default(),
            expire: options.expire,
            max_age: options.max_age,
            most: options.idle_max,
        }
    }

    pub(super) fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| {
            let young = self
                .max_age
                .is_none_or(|most| now.saturating_duration_since(connection.opened) < most);
            young && now.saturating_duration_since(connection.used) < self.expire
        });
        idle.pop_front()
    }

    pub(super) fn clear(&self) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn give_back(&self, mut connection: Connection) {
        connection.used = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_front(connection);
        idle.truncate(self.most);
    }

    /// Asks on a connection and keeps it if all went well. One question at a time: after an error nothing of the
    /// stream is trusted.
    pub(super) async fn ask(
        &self,
        mut connection: Connection,
        fresh: bool,
        octets: &[u8],
        belongs: &(dyn Fn(&Message) -> bool + Send + Sync),
    ) -> Result<Message, ExchangeError> {
        let closed = |error: std::io::Error| match fresh {
            true => ExchangeError::Io(error),
            false => ExchangeError::Closed,
        };
        let stream = &mut connection.stream;
        let length = u16::try_from(octets.len())
            .map_err(|_| ExchangeError::Encode("longer than 65535 octets".to_owned()))?;
        // Length and message in one write, so that they leave in one segment (RFC 7766, 8).
        let mut framed = Vec::with_capacity(octets.len() + 2);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(octets);
        stream.write_all(&framed).await.map_err(closed)?;
        stream.flush().await.map_err(closed)?;
        let length = stream.read_u16().await.map_err(closed)?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await?;
        let answer =
            Message::from_vec(&buffer).map_err(|error| ExchangeError::Decode(error.to_string()))?;
        if !belongs(&answer) {
            return Err(ExchangeError::Stranger);
        }
        self.give_back(connection);
        Ok(answer)
    }
}
