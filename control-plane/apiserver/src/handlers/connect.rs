//! `exec`, `attach`, `portforward`, `log` and `proxy`: requests that are passed on to the node that runs a Pod, to the
//! Pod itself, or to one that answers for a Service. Upgraded connections become two streams of bytes that the server
//! copies without looking into them.

mod pods;
pub(crate) mod targets;

use api::printing::IncludeObject;
use api::status::Status;
use api::table::{Resource, Subresource};
use authorization::{Attributes, Decision, ResourceTarget, Target, User};
use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, LOCATION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::Call;
use crate::State;
use crate::admit;
use crate::dial::{self, Failure, Peer};
use crate::negotiate::{Accepted, Encoding, Form};
use crate::query::Query;
use crate::respond::{self, Answer};
use std::sync::Arc;

/// Whether the subresource is answered elsewhere.
pub(crate) fn is_passed_on(subresource: &Subresource) -> bool {
    matches!(
        subresource.name,
        "attach" | "exec" | "log" | "portforward" | "proxy"
    )
}

/// What is asked for, before it is known who answers.
pub(crate) struct Ask<'a> {
    pub(crate) state: &'a Arc<State>,
    pub(crate) user: &'a Arc<User>,
    pub(crate) row: &'static Resource,
    pub(crate) subresource: &'static Subresource,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// What follows `/proxy`, as it was sent: empty, or beginning with a slash.
    pub(crate) tail: &'a str,
    pub(crate) query: &'a Query,
}

/// Who answers, and what he is asked.
struct Route {
    peer: Peer,
    path_and_query: String,
    /// Whether a failure to connect is told as that of a service behind a proxy.
    proxied: bool,
}

/// Passes the request on, and its answer back.
pub(crate) async fn connect(ask: Ask<'_>, parts: &Parts, body: Body) -> Result<Answer, Status> {
    let verb = match parts.method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ if ask.subresource.name == "proxy" => "get",
        _ => return Err(Status::method_not_allowed()),
    };
    if !ask.subresource.verbs.contains(&verb) {
        return Err(Status::method_not_allowed());
    }
    let lacks_slash = ask.subresource.name == "proxy" && ask.tail.is_empty() && verb == "get";
    if lacks_slash {
        return Ok(with_slash(parts));
    }
    let streams = matches!(ask.subresource.name, "attach" | "exec" | "portforward");
    if streams && verb == "get" && is_websocket(&parts.headers) {
        may_create(&ask)?;
    }
    // A log is read; to all else one connects.
    if ask.subresource.name != "log" {
        admit::connection(&call(&ask, parts), &options(&ask)).await?;
    }
    let route = if ask.subresource.name == "proxy" {
        targets::proxy(&ask, parts.uri.query()).await?
    } else {
        match pods::route(&ask).await? {
            Some(route) => route,
            // A Pod that runs nowhere has said nothing yet.
            None => return Ok(respond::text(200, "")),
        }
    };
    if streams && !is_upgrade(&parts.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    forward(ask.state, route, parts, body).await
}

/// A WebSocket begins with a GET, whatever it is for: who opens one to a Pod needs the right to create as well as whoever
/// opens a stream by POST (Kubernetes 1.35, `AuthorizePodWebsocketUpgradeCreatePermission`).
fn may_create(ask: &Ask<'_>) -> Result<(), Status> {
    let attributes = Attributes {
        user: ask.user,
        verb: "create",
        target: Target::Resource(ResourceTarget {
            group: ask.row.group,
            version: ask.row.version,
            resource: ask.row.plural,
            subresource: ask.subresource.name,
            namespace: ask.namespace,
            name: ask.name,
        }),
    };
    match ask.state.mirror.decide(&attributes) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) => Err(authorization::refusal(&attributes, &reason)),
    }
}

/// The request as admission sees it.
fn call(ask: &Ask<'_>, parts: &Parts) -> Call {
    Call {
        app: ask.state.clone(),
        user: ask.user.clone(),
        warnings: Arc::default(),
        notes: None,
        row: ask.row,
        namespace: ask.namespace.to_owned(),
        name: ask.name.to_owned(),
        subresource: Some(ask.subresource),
        query: ask.query.clone(),
        headers: parts.headers.clone(),
        accepted: Accepted {
            encoding: Encoding::Json,
            form: Form::Object,
        },
        include: IncludeObject::Metadata,
        body: Bytes::new(),
        own: false,
        method: parts.method.clone(),
    }
}

/// What the query says, as an object such as `PodExecOptions`.
fn options(ask: &Ask<'_>) -> Value {
    let mut options = json!({"kind": ask.subresource.kind, "apiVersion": "v1"});
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if ask.query.flag(flag) == Some(true) {
            options[flag] = true.into();
        }
    }
    let container = ask.query.text("container");
    if !container.is_empty() {
        options["container"] = container.into();
    }
    let command: Vec<&str> = ask.query.values("command").collect();
    if !command.is_empty() {
        options["command"] = command.into();
    }
    let ports: Vec<i64> = ask
        .query
        .values("ports")
        .filter_map(|port| port.parse().ok())
        .collect();
    if !ports.is_empty() {
        options["ports"] = ports.into();
    }
    if ask.subresource.name == "proxy" && !ask.tail.is_empty() {
        options["path"] = ask.tail.into();
    }
    options
}

/// A page at the root of what is proxied would resolve its links one level too high.
fn with_slash(parts: &Parts) -> Answer {
    let query = parts
        .uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let location = format!("{}/{query}", parts.uri.path());
    let mut answer = respond::text(301, "");
    if let Ok(location) = location.parse() {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let asked = headers
        .get(UPGRADE)
        .and_then(|protocol| protocol.to_str().ok());
    is_upgrade(headers) && asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

async fn forward(
    state: &Arc<State>,
    route: Route,
    parts: &Parts,
    body: Body,
) -> Result<Answer, Status> {
    let upgrade = is_upgrade(&parts.headers);
    let mut request = Request::builder()
        .method(parts.method.clone())
        .uri(&route.path_and_query)
        .body(body)
        .map_err(|error| Status::bad_request(format!("the path cannot be passed on: {error}")))?;
    *request.headers_mut() = passed_headers(&parts.headers, upgrade);
    if let Ok(host) = route.peer.authority().parse() {
        request.headers_mut().insert(HOST, host);
    }
    let client = parts.extensions.get::<OnUpgrade>().cloned();
    let tls = state
        .pki
        .client_tls(route.peer.agent)
        .map_err(Status::internal)?;
    let mut response = match dial::send(&route.peer, tls, request).await {
        Ok(response) => response,
        Err(failure) => return Err(refusal(&route, &failure, upgrade)),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(Status::bad_request(
                "Upgrade request required: this connection cannot be upgraded",
            ));
        };
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(tunnel(client, server, state.closing.subscribe()));
    }
    let (head, body) = response.into_parts();
    let mut answer = http::Response::new(Body::new(body));
    *answer.status_mut() = head.status;
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = passed_headers(&head.headers, switching);
    Ok(answer)
}

/// All headers but those that are for this server or this connection alone (RFC 9110, section 7.6.1).
pub(crate) fn passed_headers(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut passed = headers.clone();
    for own in [
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
    ] {
        passed.remove(own);
    }
    passed.remove(AUTHORIZATION);
    let impersonation: Vec<_> = passed
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in impersonation {
        passed.remove(name);
    }
    if !upgrade {
        passed.remove(CONNECTION);
        passed.remove(UPGRADE);
    }
    passed
}

fn refusal(route: &Route, failure: &Failure, upgrade: bool) -> Status {
    if upgrade {
        Status::new(500, "", format!("error dialing backend: {failure}"))
    } else if route.proxied {
        Status::new(
            503,
            "ServiceUnavailable",
            format!("error trying to reach service: {failure}"),
        )
    } else {
        let url = format!("{}{}", route.peer.url(), route.path_and_query);
        Status::new(500, "", format!("Get \"{url}\": {failure}"))
    }
}

/// Copies bytes both ways until one side ends or the server does.
pub(crate) async fn tunnel(
    client: OnUpgrade,
    server: OnUpgrade,
    mut closing: tokio::sync::watch::Receiver<bool>,
) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "an upgrade did not come about"),
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut server) => {
            if let Err(error) = copied {
                tracing::debug!(%error, "a tunnel ended");
            }
        }
        _ = closing.wait_for(|closing| *closing) => {}
    }
}
