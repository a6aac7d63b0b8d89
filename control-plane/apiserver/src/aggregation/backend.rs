//! Connections to another API server: over TLS, HTTP/2 or HTTP/1.1 as it likes, used again while they are open.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::dial::{self, Failure, Peer};
use crate::hooks;
use crate::pki::Pki;

/// How long a connection that nobody uses stays open.
const IDLE: Duration = Duration::from_secs(90);
/// Pings on HTTP/2 connections: one whose other side has vanished ends after twice that time.
const PING_EVERY: Duration = Duration::from_secs(30);
/// The most bytes in the headers of an answer.
const HEADERS_MAX: u32 = 64 << 10;

/// Whom to believe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trust {
    /// The name in the certificate.
    pub(super) name: String,
    /// `caBundle`, as it is written.
    pub(super) bundle: String,
    /// Whether any certificate will do.
    pub(super) anybody: bool,
}

/// An API server behind a Service.
pub(super) struct Backend {
    pub(super) trust: Trust,
    made: Result<Made, String>,
}

struct Made {
    client: Client<Connector, Body>,
    /// For connections that are upgraded, which HTTP/2 cannot be.
    old: Arc<ClientConfig>,
}

impl Backend {
    pub(super) fn new(trust: Trust, pki: &Pki) -> Self {
        let made = make(&trust, pki);
        Backend { trust, made }
    }

    /// Why nobody can be asked, if so.
    pub(super) fn unusable(&self) -> Option<&str> {
        self.made.as_ref().err().map(String::as_str)
    }

    /// Sends a request; its URI is absolute.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let made = self.made.as_ref().map_err(String::clone)?;
        made.client.request(request).await.map_err(|error| {
            // The innermost cause is what an operator can act on.
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string()
        })
    }

    /// Sends a request that asks for an upgrade, over a connection of its own.
    pub(super) async fn upgrade(
        &self,
        peer: &Peer,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Failure> {
        let made = self.made.as_ref().map_err(|why| Failure::new(why))?;
        dial::send_as(peer, &self.trust.name, made.old.clone(), request).await
    }
}

fn make(trust: &Trust, pki: &Pki) -> Result<Made, String> {
    let believed = match trust.anybody {
        true => None,
        false => Some(hooks::believed(&trust.bundle)?),
    };
    let mut tls = pki.front_tls(believed).map_err(|error| error.to_string())?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let old = Arc::new(tls.clone());
    tls.alpn_protocols.insert(0, b"h2".to_vec());
    let connector = Connector {
        name: trust.name.as_str().into(),
        tls: Arc::new(tls),
    };
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http1_max_buf_size(HEADERS_MAX as usize)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_EVERY)
        .http2_max_header_list_size(HEADERS_MAX)
        .build(connector);
    Ok(Made { client, old })
}

#[derive(Clone)]
struct Connector {
    /// In the certificate, wherever the connection goes.
    name: Arc<str>,
    tls: Arc<ClientConfig>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Self::Response, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Connector { name, tls } = self.clone();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let peer = Peer {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(443),
            tls: true,
            agent: false,
        };
        let connecting = async move {
            let stream = dial::secure(&peer, &name, tls).await?;
            Ok(TokioIo::new(Stream(stream)))
        };
        connecting.boxed()
    }
}

/// A connection that says whether it is one of HTTP/2.
struct Stream(TlsStream<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.0.get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
