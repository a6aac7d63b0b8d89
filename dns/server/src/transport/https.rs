//! DNS over HTTPS (RFC 8484): GET with the query in `dns`, POST with it as the body, on HTTP/2 and HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::held::Held;
use super::{Arrived, Shared, Turn, scratch, seats};
use crate::instance::{Listen, label};
use crate::message::Transport;
use crate::metrics::Kind;

/// Where queries go.
const PATH: &str = "/dns-query";

/// What queries and answers are.
const MESSAGE: &str = "application/dns-message";

/// Requests of one connection at a time.
const STREAMS_MAX: u32 = 64;

/// Octets that a client may send unasked on one connection before it is read, and on each of its streams: any query.
const WINDOW: u32 = 64 * 1024;

/// Octets of a request's head, in which a query by GET stands, and of what is written at a time.
const HEAD_MAX: usize = 16 * 1024;

/// Takes connections until the address is closed.
pub(super) async fn run(shared: &Arc<Shared>, listener: Arc<TcpListener>) {
    seats::accept(shared, listener, |stream, [peer, local], seat| {
        let shared = Arc::clone(shared);
        async move {
            let limits = shared.instance().timeouts(&shared.listen);
            let secured = seats::secured(&shared, stream, &[b"h2", b"http/1.1"]);
            let Some(stream) = secured.await else {
                return;
            };
            let listener = Arc::clone(&shared);
            let asked = Arc::clone(&seat);
            let service = service_fn(move |request| {
                let (shared, asking) = (Arc::clone(&shared), asked.ask());
                async move {
                    let _asking = asking;
                    let response = answer(&shared, request, [peer, local], limits.read).await;
                    count(&shared, response.status());
                    Ok::<_, Infallible>(response)
                }
            });
            let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            server
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.read)
                .max_buf_size(HEAD_MAX);
            server
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_header_list_size(HEAD_MAX as u32)
                .max_send_buf_size(HEAD_MAX)
                .keep_alive_interval(Some(limits.idle));
            let connection = server.serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            // Who answers the pings of HTTP/2 and asks nothing is idle as well.
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                _ = listener.closed() => None,
                () = seat.quiet(limits.idle) => None,
            };
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    timeout(limits.idle, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
        }
        .boxed()
    })
    .await;
}

fn count(shared: &Shared, status: StatusCode) {
    let instance = shared.current.load();
    let family = instance.environment().metrics.family(
        "coredns_dns_https_responses_total",
        "Counter of DoH responses per server and http status code.",
        Kind::Counter,
        &["server", "status"],
    );
    let Listen { scheme, address } = &shared.listen;
    let server = label(*scheme, address.ip(), address.port());
    family.with(&[&server, status.as_str()]).increment();
}

async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    [peer, local]: [SocketAddr; 2],
    patience: Duration,
) -> Response<Full<Bytes>> {
    let octets = match timeout(patience, query(shared, request)).await {
        Ok(Ok(octets)) => octets,
        Ok(Err(status)) => return plain(status),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT),
    };
    let at = Arrived {
        peer,
        local,
        transport: Transport::Https,
        when: Instant::now(),
    };
    let table = shared.fast.load_full();
    let (turn, quick) = scratch::with(|room| {
        let turn = shared.quick(&octets, &at, &table, room);
        let answer = match turn {
            Turn::Answered(length) => room.get(..length).map(<[u8]>::to_vec),
            Turn::Slow | Turn::Silence => None,
        };
        (turn, answer)
    });
    let answer = match turn {
        Turn::Answered(_) | Turn::Silence => quick,
        Turn::Slow => {
            let Some(_place) = shared.place(octets.len()) else {
                return plain(StatusCode::SERVICE_UNAVAILABLE);
            };
            shared.slow(octets, &at).await.into_iter().next()
        }
    };
    let Some(answer) = answer else {
        return plain(StatusCode::BAD_REQUEST);
    };
    let age = format!("max-age={}", lifetime(&answer));
    let Some(answer) = shared.unread(answer) else {
        return plain(StatusCode::SERVICE_UNAVAILABLE);
    };
    let mut response = Response::new(Full::new(answer));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MESSAGE));
    if let Ok(age) = HeaderValue::from_str(&age) {
        headers.insert(CACHE_CONTROL, age);
    }
    response
}

/// The query's octets, or the status that says why there are none.
async fn query(shared: &Shared, request: Request<Incoming>) -> Result<Bytes, StatusCode> {
    let (head, body) = request.into_parts();
    // The body is read whatever is said to it: with HTTP/2 a client that is cut off while it sends may never see the
    // status.
    let body = whole(shared, body).await;
    if head.uri.path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match head.method {
        Method::GET => {
            let query = head.uri.query().unwrap_or_default();
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let dns = pairs
                .filter(|(key, _)| *key == "dns")
                .map(|(_, value)| value)
                .next();
            let dns = dns.ok_or(StatusCode::BAD_REQUEST)?;
            let octets = URL_SAFE_NO_PAD
                .decode(dns.trim_end_matches('='))
                .map_err(|_| StatusCode::BAD_REQUEST)?;
            Ok(octets.into())
        }
        Method::POST => {
            // Without parameters, in any case (RFC 9110 section 8.3.1).
            let kind = head.headers.get(CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.as_bytes().split(|octet| *octet == b';').next());
            let message = |kind: &[u8]| kind.trim_ascii().eq_ignore_ascii_case(MESSAGE.as_bytes());
            if !kind.is_some_and(message) {
                return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            body
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// A body, which is counted while it waits for the rest of it.
async fn whole(shared: &Shared, mut body: Incoming) -> Result<Bytes, StatusCode> {
    let mut held = Held::by_request(shared);
    let mut octets = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = octets.len() + data.len();
        if length > usize::from(u16::MAX) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if octets.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        if !held.hold(length) {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        octets.extend_from_slice(&data);
    }
    Ok(octets.freeze())
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, POST");
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// How long an HTTP cache may keep an answer: the shortest life of its records (RFC 8484 section 5.1).
fn lifetime(answer: &[u8]) -> u32 {
    let Ok(message) = hickory_proto::op::Message::from_vec(answer) else {
        return 0;
    };
    let records = message.answers.iter().chain(&message.authorities);
    records.map(|record| record.ttl).min().unwrap_or(0)
}
