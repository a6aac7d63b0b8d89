//! Requests to nodes, Pods and webhooks: one connection for each, over TLS where the other side has it. How connections
//! to other API servers are opened, too.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long connecting and the handshake may take together.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whom a request goes to.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Address or host name.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// Whether it is the agent of a node, to whom this server shows who it is.
    pub(crate) agent: bool,
}

impl Peer {
    /// As in a URL: an IPv6 address stands in brackets.
    pub(crate) fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

/// Why there is no answer, in the words that clients know.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(crate) fn new(why: &str) -> Self {
        Failure(why.to_owned())
    }

    fn dial(peer: &Peer, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            _ => error.to_string(),
        };
        Failure(format!("dial tcp {}: {why}", peer.authority()))
    }
}

/// Sends the request over a connection of its own, which lives as long as the answer or what it is upgraded to.
pub(crate) async fn send(
    peer: &Peer,
    tls: Arc<rustls::ClientConfig>,
    request: Request<Body>,
) -> Result<Response<Incoming>, Failure> {
    send_as(peer, &peer.host, tls, request).await
}

/// As [`send`]; the other side has to show a certificate of this name.
pub(crate) async fn send_as(
    peer: &Peer,
    name: &str,
    tls: Arc<rustls::ClientConfig>,
    request: Request<Body>,
) -> Result<Response<Incoming>, Failure> {
    let mut sender = if peer.tls {
        handshake(TokioIo::new(secure(peer, name, tls).await?)).await?
    } else {
        handshake(TokioIo::new(in_time(peer, open(peer)).await?)).await?
    };
    sender
        .send_request(request)
        .await
        .map_err(|error| Failure(error.to_string()))
}

/// A connection over TLS to one who shows a certificate of this name.
pub(crate) async fn secure(
    peer: &Peer,
    name: &str,
    tls: Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let connecting = async {
        let stream = open(peer).await?;
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| Failure(format!("{name}: {error}")))?;
        TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .map_err(|error| Failure(format!("tls: {error}")))
    };
    in_time(peer, connecting).await
}

async fn in_time<T>(
    peer: &Peer,
    connecting: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let connected = timeout(PATIENCE, connecting).await;
    connected.unwrap_or_else(|_| Err(Failure::dial(peer, &io::ErrorKind::TimedOut.into())))
}

async fn open(peer: &Peer) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect((peer.host.as_str(), peer.port))
        .await
        .map_err(|error| Failure::dial(peer, &error))?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer = peer.authority(), %error, "can't set TCP_NODELAY");
    }
    Ok(stream)
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, Failure>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|error| Failure(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a node or Pod ended");
        }
    });
    Ok(sender)
}
