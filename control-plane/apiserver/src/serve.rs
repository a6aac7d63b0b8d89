//! Connections: TLS, then HTTP/1.1 or HTTP/2 as ALPN agreed, until the client has been silent for long or the server
//! shuts down.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use crate::audit;
use crate::auth;
use crate::rotate::Tls;
use crate::{State, router};

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
    state: Arc<State>,
    shutdown: impl Future<Output = ()>,
) {
    let closing = state.closing.clone();
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
                    let connection = Connection { tls: tls.borrow().clone(), builder: builder.clone(), peer };
                    connections.spawn(connection.run(stream, state.clone(), closing.subscribe()));
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
    tls: Tls,
    builder: Arc<Builder<TokioExecutor>>,
    peer: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream, state: Arc<State>, mut closing: watch::Receiver<bool>) {
        let peer = self.peer;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "can't set TCP_NODELAY");
        }
        let stream = match timeout(PATIENCE, self.handshake(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let connected = certificates.and_then(|chain| auth::connected(chain, &*self.tls.fronts));
        let activity = Arc::new(Activity::new());
        let requests = activity.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            if let Some(connected) = &connected {
                request.extensions_mut().insert(connected.clone());
            }
            request.extensions_mut().insert(audit::Peer(peer));
            let open = Open::new(&requests);
            let state = state.clone();
            // It is moved around while it waits, and is large.
            Box::pin(async move {
                let answer = router::answer(state, request.map(Body::new)).await;
                Ok::<_, std::convert::Infallible>(answer.map(|body| open.through(body)))
            })
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
            () = activity.idle() => {
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
        TlsAcceptor::from(self.tls.config.clone())
            .accept(stream)
            .await
    }
}

/// How many requests of a connection are open, and when the last one ended. Nobody is woken when that changes: a
/// connection looks at it when it may have been idle for long enough.
struct Activity {
    began: Instant,
    open: AtomicUsize,
    /// Milliseconds after `began`.
    ended: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Activity {
            began: Instant::now(),
            open: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// Resolves once no request has been open for [`IDLE`].
    async fn idle(&self) {
        loop {
            let open = self.open.load(Ordering::Acquire) > 0;
            let ended = Duration::from_millis(self.ended.load(Ordering::Acquire));
            let now = Instant::now();
            let over = if open { now } else { self.began + ended } + IDLE;
            if over <= now {
                return;
            }
            sleep_until(over).await;
        }
    }
}

/// Counts a request from its arrival until its answer is sent or given up.
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::AcqRel);
        Open(activity.clone())
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
        let now = self.0.began.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.ended.store(now, Ordering::Release);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}
