//! DNS on streams: TCP (RFC 7766) and TLS (RFC 7858). Queries of one connection are answered as they are ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Arrived, Shared, Turn};
use crate::message::Transport;

/// Connections to one address at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 2048;

/// Queries of one connection that are on their way down a chain; further ones wait to be read.
const PIPELINE_MAX: usize = 64;

/// Connections that the kernel keeps for us.
const BACKLOG: u32 = 1024;

/// Octets that are read at a time.
const CHUNK: usize = 8 * 1024;

/// Listens; with certificates, for TLS.
pub(super) fn open(
    shared: &Arc<Shared>,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> std::io::Result<JoinHandle<()>> {
    let listener = listen(address)?;
    let shared = Arc::clone(shared);
    let transport = if tls.is_some() {
        Transport::Tls
    } else {
        Transport::Tcp
    };
    Ok(tokio::spawn(async move {
        accept(&listener, |stream, peer, local| {
            let shared = Arc::clone(&shared);
            // Certificates may have changed with the configuration.
            let tls = shared.current.load().tls(&shared.listen).or(tls.clone());
            async move {
                let at = Arrived {
                    peer,
                    local,
                    transport,
                    when: Instant::now(),
                };
                let limits = shared.current.load().timeouts(&shared.listen);
                match tls.filter(|_| transport == Transport::Tls) {
                    None => serve(&shared, stream, at).await,
                    Some(tls) => {
                        let accepting = TlsAcceptor::from(tls).accept(stream);
                        if let Ok(Ok(stream)) = timeout(limits.read, accepting).await {
                            serve(&shared, stream, at).await;
                        }
                    }
                }
            }
            .boxed()
        })
        .await;
    }))
}

/// A socket that listens. The unspecified IPv6 address means every address of both families.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let bind = |address: SocketAddr| {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        if address.is_ipv6() {
            let only = !address.ip().is_unspecified();
            rustix::net::sockopt::set_ipv6_v6only(&socket, only)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    match bind(address) {
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let no_v6 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
            let none = rustix::io::Errno::ADDRNOTAVAIL.raw_os_error();
            match error.raw_os_error() {
                Some(code) if code == no_v6 || code == none => bind(SocketAddr::new(
                    Ipv4Addr::UNSPECIFIED.into(),
                    address.port(),
                )),
                _ => Err(error),
            }
        }
        bound => bound,
    }
}

/// Takes connections for ever, a bounded number at a time. They end with the task that this runs in.
pub(super) async fn accept(
    listener: &TcpListener,
    serve: impl Fn(TcpStream, SocketAddr, SocketAddr) -> BoxFuture<'static, ()>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Semaphore::acquire_owned(Arc::clone(&slots)).await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let connection = serve(stream, plain(peer), plain(local));
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
}

/// Answers the queries of one connection until it ends, goes quiet or breaks the rules.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    mut stream: S,
    at: Arrived,
) {
    let limits = shared.current.load().timeouts(&shared.listen);
    let mut read = BytesMut::with_capacity(CHUNK);
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut out: Vec<u8> = Vec::new();
    let mut slow: FuturesUnordered<BoxFuture<'_, Vec<Vec<u8>>>> = FuturesUnordered::new();
    let most = limits.queries.unwrap_or(usize::MAX);
    let mut taken = 0;
    loop {
        while slow.len() < PIPELINE_MAX
            && taken < most
            && let Some(octets) = message(&mut read)
        {
            taken += 1;
            let at = Arrived {
                when: Instant::now(),
                ..at
            };
            let table = shared.fast.load_full();
            match shared.quick(&octets, &at, &table, &mut buffer) {
                Turn::Answered(length) => append(&mut out, &buffer[..length]),
                Turn::Silence => {}
                Turn::Slow => match Arc::clone(&shared.slow).try_acquire_owned() {
                    Ok(permit) => slow.push(
                        async move {
                            let answers = shared.slow(octets, &at).await;
                            drop(permit);
                            answers
                        }
                        .boxed(),
                    ),
                    Err(_) => shared.shed("too_many"),
                },
            }
        }
        if !out.is_empty() {
            match timeout(limits.write, stream.write_all(&out)).await {
                Ok(Ok(())) => out.clear(),
                Ok(Err(_)) | Err(_) => return,
            }
            if timeout(limits.write, stream.flush()).await.is_err() {
                return;
            }
        }
        if taken >= most {
            finish(&mut stream, slow, limits.write).await;
            return;
        }
        // A query that has begun to arrive must end soon.
        let patience = if read.is_empty() {
            limits.idle
        } else {
            limits.read
        };
        let may_read = slow.len() < PIPELINE_MAX;
        let waiting = !slow.is_empty();
        tokio::select! {
            Some(answers) = slow.next(), if waiting => {
                answers.iter().for_each(|answer| append(&mut out, answer));
            }
            got = timeout(patience, stream.read_buf(&mut read)), if may_read => match got {
                Ok(Ok(0) | Err(_)) => {
                    finish(&mut stream, slow, limits.write).await;
                    return;
                }
                Ok(Ok(_)) => {}
                // Quiet, but answers are still on their way.
                Err(_) if waiting && read.is_empty() => {}
                Err(_) => return,
            },
        }
    }
}

/// A client may close its side once it has asked; it still hears the answers.
async fn finish<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut slow: FuturesUnordered<BoxFuture<'_, Vec<Vec<u8>>>>,
    patience: Duration,
) {
    while let Some(answers) = slow.next().await {
        let mut out = Vec::new();
        answers.iter().for_each(|answer| append(&mut out, answer));
        if !matches!(timeout(patience, stream.write_all(&out)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(patience, stream.shutdown()).await;
}

/// Takes the next whole message off what was read.
fn message(read: &mut BytesMut) -> Option<Bytes> {
    let head: [u8; 2] = read.get(..2)?.try_into().ok()?;
    let length = usize::from(u16::from_be_bytes(head));
    if read.len() < 2 + length {
        read.reserve(2 + length - read.len());
        return None;
    }
    read.advance(2);
    Some(read.split_to(length).freeze())
}

fn append(out: &mut Vec<u8>, answer: &[u8]) {
    let Ok(length) = u16::try_from(answer.len()) else {
        return;
    };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(answer);
}
