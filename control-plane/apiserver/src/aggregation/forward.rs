//! Passes a request on to the API server that answers for its group, and the answer back.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::status::Status;
use authorization::User;
use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LENGTH, LOCATION,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{READER, Route};
use crate::State;
use crate::audit;
use crate::auth::front;
use crate::dial::Peer;
use crate::handlers::connect::{is_upgrade, passed_headers, targets, tunnel};
use crate::respond::{self, Answer};

/// For whom, and within which bounds.
pub(crate) struct Passing<'a> {
    pub(crate) user: &'a User,
    /// The most bytes of the request's body.
    pub(crate) body_max: usize,
    /// How long the whole answer may take; `None`: as long as the client likes.
    pub(crate) time: Option<Duration>,
}

/// Passes the request on.
///
/// # Errors
/// What this server refuses; what the other one refuses, or that it cannot be reached, is an answer.
pub(crate) async fn forward(
    state: &Arc<State>,
    route: &Route,
    passing: Passing<'_>,
    parts: &Parts,
    body: Body,
) -> Result<Answer, Status> {
    if !route.available {
        return Ok(unavailable());
    }
    if let Some(why) = route.backend.unusable() {
        return Ok(respond::text(500, format!("{why}\n")));
    }
    let port = route.port.to_string();
    let found = targets::endpoint(state, &route.namespace, &route.service, &port).await;
    let (host, port) = match found {
        Ok(found) => found,
        Err(status) => {
            tracing::debug!(%status, name = route.name, "nobody to pass a request on to");
            return Ok(unavailable());
        }
    };
    let peer = Peer {
        host,
        port,
        tls: true,
        agent: false,
    };
    let (body, exceeded) = limited(body, passing.body_max);
    let upgrade = is_upgrade(&parts.headers);
    let request = request(&peer, &passing, parts, body, upgrade)?;
    let sent = async {
        match upgrade {
            true => {
                let sent = route.backend.upgrade(&peer, request).await;
                sent.map_err(|failure| failure.to_string())
            }
            false => route.backend.send(request).await,
        }
    };
    let deadline = passing
        .time
        .filter(|_| !upgrade)
        .map(|time| Instant::now() + time);
    let sent = match deadline {
        Some(deadline) => timeout_at(deadline, sent).await.map_err(|_| {
            Status::timeout("request did not complete within the allotted timeout", 0)
        })?,
        None => sent.await,
    };
    if exceeded.load(Ordering::Relaxed) {
        let max = passing.body_max;
        let why = format!("Request entity too large: limit is {max}");
        return Err(Status::too_large(why));
    }
    let mut response = match sent {
        Ok(response) => response,
        Err(why) => {
            let why = format!("error trying to reach service: {why}\n");
            return Ok(respond::text(503, why));
        }
    };
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switching {
        let Some(client) = parts.extensions.get::<OnUpgrade>().cloned() else {
            return Err(Status::bad_request(
                "Upgrade request required: this connection cannot be upgraded",
            ));
        };
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(tunnel(client, server, state.closing.subscribe()));
    }
    let (head, body) = response.into_parts();
    if head.status.is_redirection() && head.headers.contains_key(LOCATION) {
        let why = "the backend attempted to redirect this request, which is not permitted";
        return Ok(respond::text(502, why));
    }
    let body = match switching {
        true => Body::empty(),
        false => bounded(Body::new(body), deadline, state.closing.subscribe()),
    };
    Ok(answer(&head, body, switching))
}

/// The schema of a group version that somebody else answers for, by its path; `None`: it is not one of those.
pub(crate) async fn schema(
    state: &Arc<State>,
    passing: Passing<'_>,
    parts: &Parts,
) -> Option<Result<Answer, Status>> {
    let root = parts.uri.path().strip_prefix("/openapi/v3")?;
    let route = state.aggregator.route(&state.mirror, root)?;
    let user = User::new(READER, &[]);
    let passing = Passing {
        user: &user,
        ..passing
    };
    Some(forward(state, &route, passing, parts, Body::empty()).await)
}

/// What clients are told whose request nobody can take.
fn unavailable() -> Answer {
    respond::text(503, "service unavailable\n")
}

fn request(
    peer: &Peer,
    passing: &Passing<'_>,
    parts: &Parts,
    body: Body,
    upgrade: bool,
) -> Result<Request<Body>, Status> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = match upgrade {
        true => path.to_owned(),
        false => format!("{}{path}", peer.url()),
    };
    let mut request = Request::builder()
        .method(parts.method.clone())
        .uri(uri)
        .body(body)
        .map_err(|error| Status::bad_request(format!("the path cannot be passed on: {error}")))?;
    let mut headers = passed_headers(&parts.headers, upgrade);
    front::name(&mut headers, passing.user)
        .map_err(|error| Status::internal(format!("the user cannot be named: {error}")))?;
    let client = parts.extensions.get::<audit::Peer>();
    forwarded(
        &mut headers,
        client.map(|peer| peer.0.ip()),
        parts.uri.path(),
        &peer.authority(),
    );
    *request.headers_mut() = headers;
    Ok(request)
}

/// Says on whose behalf, and what was asked for.
fn forwarded(headers: &mut HeaderMap, client: Option<IpAddr>, path: &str, authority: &str) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    if let Some(client) = client {
        let client = client.to_canonical().to_string();
        let mut hops: Vec<&str> = headers
            .get_all(&FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        hops.push(&client);
        if let Ok(hops) = HeaderValue::try_from(hops.join(", ")) {
            headers.insert(FOR, hops);
        }
    }
    for (name, text) in [
        ("x-forwarded-uri", path),
        ("x-forwarded-host", authority),
        ("x-forwarded-proto", "https"),
        ("host", authority),
    ] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

/// The body, which fails where it is longer; and whether it did.
fn limited(body: Body, max: usize) -> (Body, Arc<AtomicBool>) {
    let exceeded = Arc::<AtomicBool>::default();
    let told = exceeded.clone();
    let body = Limited::new(body, max).map_err(move |error| {
        told.fetch_or(error.is::<LengthLimitError>(), Ordering::Relaxed);
        error
    });
    (Body::new(body), exceeded)
}

/// The body, cut off at the deadline, or ended with the server where there is none.
fn bounded(body: Body, deadline: Option<Instant>, closing: watch::Receiver<bool>) -> Body {
    let chunks = stream::unfold(
        Some((body.into_data_stream(), closing)),
        move |reading| async move {
            let (mut chunks, mut closing) = reading?;
            let over = async {
                match deadline {
                    Some(deadline) => {
                        sleep_until(deadline).await;
                        Some(Err(io::Error::from(io::ErrorKind::TimedOut)))
                    }
                    None => {
                        // It fails where the sender is gone, which means the same.
                        let _ = closing.wait_for(|closing| *closing).await;
                        None
                    }
                }
            };
            let next = tokio::select! {
                biased;
                chunk = next(&mut chunks) => chunk,
                over = over => over,
            };
            match next? {
                Ok(chunk) => Some((Ok(chunk), Some((chunks, closing)))),
                Err(error) => Some((Err(error), None)),
            }
        },
    );
    Body::from_stream(chunks)
}

async fn next(chunks: &mut BodyDataStream) -> Option<Result<Bytes, io::Error>> {
    let chunk = chunks.next().await?;
    Some(chunk.map_err(io::Error::other))
}

fn answer(head: &response::Parts, body: Body, switching: bool) -> Answer {
    let mut answer = Answer::new(body);
    *answer.status_mut() = head.status;
    let mut headers = passed_headers(&head.headers, switching);
    for name in [
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN,
    ] {
        headers.remove(name);
    }
    if head.status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    *answer.headers_mut() = headers;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_behind_whom() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static("192.0.2.2"));
        let client = "::ffff:192.0.2.3".parse().ok();
        forwarded(&mut headers, client, "/apis/a.x/v1/b%20c/", "[fd00::1]:443");
        let said: Vec<&[u8]> = headers
            .get_all("x-forwarded-for")
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        assert_eq!(said, [b"192.0.2.1, 192.0.2.2, 192.0.2.3"]);
        assert_eq!(headers["x-forwarded-uri"], "/apis/a.x/v1/b%20c/");
        assert_eq!(headers["host"], "[fd00::1]:443");
    }
}
