//! Connections: TLS, then HTTP/1.1 or HTTP/2 as ALPN agreed, until the client has been silent for long or the server
//! shuts down.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::auth::{self, Connected};
use crate::rotate::Tls;

/// A client that has not finished its handshake by then is let go, as is one that stays after it was asked to leave.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be without a request, be it the first or the next; as long as with kube-apiserver.
const IDLE: Duration = Duration::from_secs(90);
/// How long requests may take to finish once the shutdown has begun.
const DRAIN: Duration = Duration::from_secs(8);
/// Pings on idle HTTP/2 connections, as Go's servers and clients do: a client that vanished frees its watches.
const PING_EVERY: Duration = Duration::from_secs(60);

/// The most bytes in the headers of a request: names of groups and tokens take some room.
const HEADERS_MAX: u32 = 64 << 10;

/// Accepts until `shutdown` resolves, then lets requests finish. `closing` is told first, so that watches end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Tls>,
    router: axum::Router,
    closing: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HEADERS_MAX as usize)
        .header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(250)
        // Streams that a client opens and resets at once (CVE-2023-44487): beyond this the connection ends.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(200)
        .max_header_list_size(HEADERS_MAX);
    let builder = Arc::new(builder);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let connection = Connection { acceptor: TlsAcceptor::from(tls.borrow().clone()), builder: builder.clone(), peer };
                    connections.spawn(connection.run(stream, router.clone(), closing.subscribe()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others will be closed in a moment.
                    tracing::warn!(%error, "can't accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    closing.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN, drained).await.is_err() {
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
    async fn run(
        self,
        stream: TcpStream,
        router: axum::Router,
        mut closing: watch::Receiver<bool>,
    ) {
        let peer = self.peer;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "can't set TCP_NODELAY");
        }
        let stream = match timeout(PATIENCE, self.handshake(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        };
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        let user = certificate.and_then(|der| auth::certificate::user(der));
        let user = user.map(|user| Connected(Arc::new(auth::authenticated(user))));
        let (requests, open) = watch::channel(0);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            if let Some(user) = &user {
                request.extensions_mut().insert(user.clone());
            }
            let open = Open::new(&requests);
            let answer = router.clone().oneshot(request.map(Body::new));
            async move {
                Ok::<_, std::convert::Infallible>(answer.await?.map(|body| open.through(body)))
            }
        });
        let mut connection = pin!(
            self.builder
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
        );
        let closed = async move {
            // It fails where the sender is gone, which means the same.
            let _ = closing.wait_for(|closing| *closing).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => Ok(ended),
            () = closed => {
                connection.as_mut().graceful_shutdown();
                Ok(connection.await)
            }
            () = idle(open) => {
                connection.as_mut().graceful_shutdown();
                timeout(PATIENCE, connection).await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%peer, error, "connection ended"),
            Err(_) => tracing::debug!(%peer, "a silent connection was cut"),
        }
    }

    async fn handshake(
        &self,
        mut stream: TcpStream,
    ) -> std::io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
        // A TLS record of type handshake begins with 22 (RFC 8446, section 5.1), a method with a letter.
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            // What was sent is read, or closing the connection would throw the answer away with it.
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await?;
            let answer =
                "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            return Err(std::io::Error::other("an HTTP request without TLS"));
        }
        self.acceptor.accept(stream).await
    }
}

/// Counts a request from its arrival until its answer is sent or given up.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(requests: &watch::Sender<usize>) -> Self {
        requests.send_modify(|open| *open += 1);
        Open(requests.clone())
    }

    /// The body, counted until it is dropped.
    fn through(self, body: Body) -> Body {
        Body::new(body.map_err(move |error| {
            let _counted = &self;
            error
        }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Resolves once no request has been open for [`IDLE`].
async fn idle(mut open: watch::Receiver<usize>) {
    loop {
        if open.wait_for(|open| *open == 0).await.is_err() {
            // Nobody is left to ask anything: the connection itself is about to end.
            return std::future::pending().await;
        }
        tokio::select! {
            Ok(()) = open.changed() => {}
            () = sleep(IDLE) => return,
        }
    }
}
