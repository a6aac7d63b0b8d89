//! From a request to its answer: who asks, whether they may, what for, and how long it may take.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::printing::IncludeObject;
use api::status::Status;
use api::table::Resource;
use authorization::User;
use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Request;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::access;
use crate::aggregation::{self, Passing};
use crate::audit::{self, Record};
use crate::auth;
use crate::carried::Carried;
use crate::flows::Flow;
use crate::handlers::{self, Call};
use crate::metrics::Labels;
use crate::negotiate;
use crate::query::{self, Query};
use crate::request::{self, At, Target};
use crate::respond::{self, Answer};
use crate::{State, compress, describe, health};

/// The most bytes in a request's body, as with kube-apiserver.
const BODY_MAX: usize = 3 << 20;
/// The most bytes that are read beyond that and thrown away: a client that is cut off in the middle of sending does not
/// hear why.
const DISCARD_MAX: usize = 24 << 20;
/// How long a request other than a watch may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Everything that the server answers.
pub(crate) fn router(state: Arc<State>) -> axum::Router {
    axum::Router::new().fallback(move |request: Request<Body>| {
        let state = state.clone();
        async move { answer(state, request).await }
    })
}

/// The answer to a request, wherever it came from.
pub(crate) async fn answer(state: Arc<State>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    let target = Target::parse(parts.uri.path());
    let watch = query.flag("watch").unwrap_or(false);
    let verb = request::verb(&parts.method, &target, watch);
    let row = match &target {
        Target::Resource(at) => state.registry.find(at.group, at.version, at.resource),
        Target::Path(_) => None,
    };
    let metrics = state.metrics.clone();
    let labels = labels(&parts, &query, &target, verb, row);
    let (began, answering) = (Instant::now(), metrics.answering(&labels));
    let id = audit::id(&parts.headers);
    let record = |audit| Box::new(Record::new(audit, &id, labels.long_running()));
    let mut known = Known {
        flow: None,
        record: state.audit.as_ref().map(record),
    };
    // A fault of ours in one answer must not end the watches that share its connection.
    let guarded = respond_to(state, &parts, query, &target, verb, body, &mut known);
    let result = match AssertUnwindSafe(guarded).catch_unwind().await {
        Ok(result) => result,
        Err(_) => {
            if let Some(record) = &mut known.record {
                Box::pin(record.panicked()).await;
            }
            Err(Status::internal("the server failed to answer; see its log"))
        }
    };
    let mut response = result.unwrap_or_else(|status| {
        // Custom resources have no protobuf.
        let protobuf = row.is_none_or(|row| row.custom.is_none());
        let query = Query::parse(parts.uri.query());
        respond::refusal_in(
            &status,
            negotiate::of_refusal(&parts.headers, &query, protobuf),
        )
    });
    if let Some(record) = known.record {
        response = Box::pin(record.answered(response)).await;
    }
    if let Some(id) = audit::shown(&id) {
        response.headers_mut().insert(audit::ID, id);
    }
    if let Some(flow) = known.flow {
        flow.tell(response.headers_mut());
    }
    drop(answering);
    metrics.answered(labels, response.status().as_u16(), began.elapsed());
    compress::compress(&parts.method, &parts.headers, response).await
}

/// How a request is counted.
fn labels(
    parts: &Parts,
    query: &Query,
    target: &Target<'_>,
    verb: &str,
    row: Option<&'static Resource>,
) -> Labels {
    let content_type = parts.headers.get(CONTENT_TYPE);
    let applies =
        content_type.is_some_and(|t| t.as_bytes().starts_with(b"application/apply-patch"));
    let at = match target {
        Target::Resource(at) => Some(at),
        Target::Path(_) => None,
    };
    Labels {
        verb: match verb {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" if applies => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        },
        dry_run: if query.text("dryRun") == "All" {
            "All"
        } else {
            ""
        },
        group: row.map_or("", |row| row.group),
        version: row.map_or("", |row| row.version),
        resource: row.map_or("", |row| row.plural),
        subresource: at
            .and_then(|at| row?.subresource(at.subresource?))
            .map_or("", |subresource| subresource.name),
        scope: match (row, at) {
            (Some(_), Some(At { name: Some(_), .. })) => "resource",
            (
                Some(_),
                Some(At {
                    namespace: Some(_), ..
                }),
            ) => "namespace",
            (Some(_), Some(_)) => "cluster",
            _ => "",
        },
    }
}

/// What becomes known of a request while it is answered, beside the answer.
struct Known {
    flow: Option<Flow>,
    /// `None` where nothing is recorded.
    record: Option<Box<Record>>,
}

async fn respond_to(
    state: Arc<State>,
    parts: &Parts,
    query: Query,
    target: &Target<'_>,
    verb: &'static str,
    body: Body,
    known: &mut Known,
) -> Result<Answer, Status> {
    let user = match (auth::authenticate(&state, parts).await, &mut known.record) {
        (Ok(user), Some(record)) => {
            Box::pin(record.received(&user, parts, target, verb)).await;
            user
        }
        (Err(refusal), Some(record)) => {
            Box::pin(record.unknown(parts, target, verb)).await;
            return Err(refusal);
        }
        (user, None) => user?,
    };
    let asks_for = auth::impersonate::impersonate(&state, user.clone(), &parts.headers)?;
    known.flow = state.flows.of(&state.mirror, &asks_for, verb, target);
    let verdict = access::check(&state, &asks_for, verb, target, &query).await;
    if let Some(record) = &mut known.record {
        if !Arc::ptr_eq(&asks_for, &user) {
            record.impersonates(&asks_for);
        }
        record.judged(verdict.refusal.is_none(), &verdict.reason);
    }
    if let Some(refusal) = verdict.refusal {
        return Err(refusal);
    }
    let passing = |time| Passing {
        user: &asks_for,
        body_max: BODY_MAX,
        time,
    };
    if let Some(route) = state.aggregator.route(&state.mirror, parts.uri.path()) {
        let time = (!is_long(target, verb)).then_some(TIMEOUT);
        let passing = passing(time);
        // In a box: it is large, and every request is as large as the largest.
        return Box::pin(aggregation::forward(&state, &route, passing, parts, body)).await;
    }
    match target {
        Target::Path(path) => {
            let passing = passing(Some(TIMEOUT));
            match Box::pin(aggregation::schema(&state, passing, parts)).await {
                Some(answer) => answer,
                None => Ok(page(&state, path, parts, &query).await),
            }
        }
        Target::Resource(at) => {
            let record = known.record.as_deref_mut();
            resource(state, asks_for, at, parts, query, verb, body, record).await
        }
    }
}

/// Whether a request that is passed on may take as long as the client likes.
fn is_long(target: &Target<'_>, verb: &str) -> bool {
    let subresource = match target {
        Target::Resource(at) => at.subresource.unwrap_or_default(),
        Target::Path(_) => "",
    };
    let streams = ["proxy", "attach", "exec", "portforward", "log"];
    verb == "watch" || streams.contains(&subresource)
}

/// A path that names no resource.
async fn page(state: &State, path: &str, parts: &Parts, query: &Query) -> Answer {
    if !matches!(parts.method.as_str(), "GET" | "HEAD") {
        return respond::refusal(&Status::method_not_allowed());
    }
    let first = path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    match first {
        "healthz" | "livez" | "readyz" => health::answer(state, path, query).await,
        "metrics" => respond::bytes(
            200,
            "text/plain; version=0.0.4",
            state.metrics.render(state).await,
        ),
        _ => describe::answer(state, path, parts, query),
    }
}

#[expect(clippy::too_many_arguments, reason = "all of them are moved on")]
async fn resource(
    state: Arc<State>,
    user: Arc<User>,
    at: &At<'_>,
    parts: &Parts,
    query: Query,
    verb: &'static str,
    body: Body,
    record: Option<&mut Record>,
) -> Result<Answer, Status> {
    let Some(row) = state.registry.find(at.group, at.version, at.resource) else {
        let rows = state.registry.rows();
        let known = rows
            .iter()
            .any(|row| (row.group, row.version) == (at.group, at.version));
        return if known {
            Err(Status::unknown_resource())
        } else {
            Ok(respond::text(404, "404 page not found\n"))
        };
    };
    if at.deeper {
        return Ok(respond::text(404, "404 page not found\n"));
    }
    let mut query = query;
    let mut name = query::decode_segment(at.name.unwrap_or_default());
    let namespace = match at.namespace {
        Some(namespace) if row.namespaced => query::decode_segment(namespace),
        // The path of a Namespace names it twice over.
        Some(_) if !row.is("", "Namespace") => return Err(Status::unknown_resource()),
        _ if row.namespaced && !name.is_empty() => return Err(Status::unknown_resource()),
        _ => String::new(),
    };
    if name.contains('/') || namespace.contains('/') {
        // No name has a slash; one that was smuggled in by encoding it must not reach into another key.
        return Err(Status::unknown_resource());
    }
    if at.watch {
        if verb != "watch" || at.subresource.is_some() {
            return Err(Status::method_not_allowed());
        }
        // One object is watched as the collection that it alone is in.
        if !name.is_empty() {
            query.select_field("metadata.name", &std::mem::take(&mut name));
        }
    }
    let subresource = match at.subresource {
        None => None,
        Some(sub) => Some(row.subresource(sub).ok_or_else(Status::unknown_resource)?),
    };
    if let Some(subresource) = subresource.filter(|sub| handlers::connect::is_passed_on(sub)) {
        let ask = handlers::connect::Ask {
            state: &state,
            user: &user,
            row,
            subresource,
            namespace: &namespace,
            name: &name,
            tail: at.tail,
            query: &query,
        };
        // In a box: it is large, and every request is as large as the largest.
        return Box::pin(handlers::connect::connect(ask, parts, body)).await;
    }
    let writes = !matches!(verb, "get" | "list" | "watch");
    if writes && row.namespaced && namespace.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let include = IncludeObject::parse(query.text("includeObject")).ok_or_else(|| {
        let supported = ["Metadata", "None", "Object"];
        let error = api::field::FieldError::not_supported(
            "includeObject",
            query.text("includeObject"),
            &supported,
        );
        Status::invalid_options("TableOptions", &[error])
    })?;
    let accepted = negotiate::negotiate(&parts.headers, &query, row.custom.is_none())?;
    let headers = parts.headers.clone();
    let warnings = Arc::<Mutex<Vec<String>>>::default();
    let deprecated = Some(row.deprecation).filter(|words| !words.is_empty());
    let mut call = Call {
        app: state,
        user,
        warnings: warnings.clone(),
        notes: record.as_ref().and_then(|record| record.notes()),
        row,
        namespace,
        name,
        subresource,
        query,
        headers,
        accepted,
        include,
        body: Bytes::new(),
        own: parts.extensions.get::<handlers::Own>().is_some(),
        method: parts.method.clone(),
    };
    if verb == "watch" && call.subresource.is_none() {
        if !call.row.verbs.contains(&"watch") {
            return Err(Status::method_not_allowed());
        }
        let answer = handlers::watch::watch(&call).await;
        return match deprecated {
            Some(words) => answer.map(|answer| respond::warn(answer, &[words.to_owned()])),
            None => answer,
        };
    }
    let method = parts.method.clone();
    let served = call.row.custom.and_then(|_| {
        let row = call.row;
        call.app.registry.custom(row.group, row.version, row.plural)
    });
    let deprecated = served
        .as_ref()
        .and_then(|served| served.deprecation.clone())
        .or(deprecated.map(str::to_owned));
    if verb == "create" && served.as_ref().is_some_and(|served| served.terminating) {
        return Err(Status::new(
            405,
            "MethodNotAllowed",
            "create not allowed while custom resource definition is terminating",
        ));
    }
    let whole = async {
        if writes {
            call.body = read(body).await?;
            if let Some(record) = record {
                record.sent(&call.headers, &call.body);
            }
            // Once begun, a write is carried through even if the client goes away: nobody has to guess whether an
            // address that was chosen for it is in use.
            Carried::new(async move { handlers::answer(call, &method).await }).await
        } else {
            handlers::answer(call, &method).await
        }
    };
    let answer = match tokio::time::timeout(TIMEOUT, whole).await {
        Ok(answer) => match deprecated {
            Some(words) => answer.map(|answer| respond::warn(answer, &[words])),
            None => answer,
        },
        Err(_) => Err(Status::timeout(
            "request did not complete within the allotted timeout",
            0,
        )),
    };
    let told = warnings
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if told.is_empty() {
        return answer;
    }
    let answer = answer.unwrap_or_else(|status| respond::refusal(&status));
    Ok(respond::warn(answer, &told))
}

async fn read(mut body: Body) -> Result<Bytes, Status> {
    match Limited::new(&mut body, BODY_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(Status::too_large(format!(
                "Request entity too large: limit is {BODY_MAX}"
            )))
        }
        Err(error) => Err(Status::bad_request(format!(
            "the body of the request could not be read: {error}"
        ))),
    }
}

async fn discard(body: &mut Body) {
    let mut left = DISCARD_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what a function returns, in bytes.
    fn size_of_answer<F: Future>(_: impl Fn(Arc<State>, Request<Body>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_is_small_while_it_is_answered() {
        // It is moved several times on its way. What is seldom awaited and large belongs in a box.
        let size = size_of_answer(answer);
        assert!(size <= 6 << 10, "{size} bytes");
    }
}
