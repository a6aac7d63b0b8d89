//! Connections: TLS, then HTTP/1.1 or HTTP/2 as ALPN agreed, until the shutdown.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::auth::User;

/// A client that has not finished its handshake by then is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an HTTP/1.1 connection may wait for the next request.
const IDLE: Duration = Duration::from_secs(90);
/// How long requests may take to finish once the shutdown has begun.
const DRAIN: Duration = Duration::from_secs(8);
/// Pings on idle HTTP/2 connections, as Go's servers and clients do: a client that vanished frees its watches.
const PING_EVERY: Duration = Duration::from_secs(60);

/// Accepts until `shutdown` resolves, then lets requests finish. `closing` is told first, so that watches end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: axum::Router,
    closing: tokio::sync::watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(250)
        .max_header_list_size(64 << 10);
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let connection = Connection { acceptor: acceptor.clone(), builder: builder.clone(), peer };
                    tokio::spawn(connection.run(stream, router.clone(), graceful.watcher()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others will be closed in a moment.
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    closing.send_replace(true);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::info!(
            seconds = DRAIN.as_secs(),
            "connections still open at the end of the drain are cut"
        );
    }
}

struct Connection {
    acceptor: TlsAcceptor,
    builder: Arc<Builder<TokioExecutor>>,
    peer: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream, router: axum::Router, watcher: Watcher) {
        let peer = self.peer;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "can't set TCP_NODELAY");
        }
        let stream = match tokio::time::timeout(PATIENCE, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        };
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        let user = certificate.and_then(|der| User::from_certificate(der));
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            if let Some(user) = &user {
                request.extensions_mut().insert(user.clone());
            }
            router.clone().oneshot(request.map(Body::new))
        });
        let connection = self
            .builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%peer, error, "connection ended");
        }
    }
}
