//! The audit log: who asked for what, when, and how it was answered, as far as a policy says.
//!
//! Where no policy is given, requests carry nothing of this but an empty place.

mod event;
mod log;
mod policy;
mod webhook;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use authorization::User;
use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::Error;
use crate::body::content_type;
use crate::query;
use crate::request::Target;
use crate::respond::Answer;

use event::{Fields, Head, ObjectRef};
use log::Log;
pub use log::LogConfig;
use policy::{About, Decided, Level, Policy, Stage};
use webhook::Webhook;

/// The header that says under which name a request is recorded.
pub(crate) const ID: &str = "audit-id";
/// The most characters of a client's own name for its request that are sent back.
const ID_MAX: usize = 64;
/// The most bytes of an answer that is recorded.
const ANSWER_MAX: u64 = 10 << 20;

/// What is recorded, and where.
#[derive(Clone, Default, Debug)]
pub struct AuditConfig {
    /// A Policy of `audit.k8s.io/v1`. Nothing is recorded without one.
    pub policy_file: Option<PathBuf>,
    /// Where the events go. None are recorded without it and without a webhook.
    pub log: Option<LogConfig>,
    /// Where they are sent as well or instead: a kubeconfig that names the server.
    pub webhook_file: Option<PathBuf>,
}

/// See the module.
pub(crate) struct Audit {
    policy: Policy,
    log: Option<Log>,
    webhook: Option<Webhook>,
    /// How many events there were.
    events: AtomicU64,
}

/// The address at the other end of a request's connection, in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Audit {
    /// `None` where nothing is to be recorded.
    pub(crate) fn new(config: &AuditConfig) -> Result<Option<Arc<Self>>, Error> {
        let policy = config.policy_file.as_deref().map(Policy::read);
        let goes_nowhere = config.log.is_none() && config.webhook_file.is_none();
        let Some(policy) = policy.transpose()?.filter(|_| !goes_nowhere) else {
            if !goes_nowhere {
                tracing::warn!("an audit log without an audit policy: nothing will be recorded");
            }
            return Ok(None);
        };
        Ok(Some(Arc::new(Audit {
            policy,
            log: config.log.as_ref().map(Log::open).transpose()?,
            webhook: config
                .webhook_file
                .as_deref()
                .map(Webhook::new)
                .transpose()?,
            events: AtomicU64::new(0),
        })))
    }

    /// How many events there were, and by plugin how many were lost.
    pub(crate) fn counts(&self) -> (u64, [(&'static str, u64); 2]) {
        let lost = [
            ("log", self.log.as_ref().map_or(0, Log::lost)),
            ("webhook", self.webhook.as_ref().map_or(0, Webhook::lost)),
        ];
        (self.events.load(Ordering::Relaxed), lost)
    }

    /// Resolves once everything that was recorded is written, or after some seconds.
    pub(crate) async fn flush(&self) {
        if let Some(log) = &self.log {
            log.flush().await;
        }
        if let Some(webhook) = &self.webhook {
            webhook.flush().await;
        }
    }
}

/// The name of a request: the client's own, or a new one.
pub(crate) fn id(headers: &HeaderMap) -> String {
    let sent = headers.get(ID).and_then(|id| id.to_str().ok());
    match sent {
        Some(sent) if !sent.is_empty() => sent.to_owned(),
        // It has to be another one each time, not one that nobody can guess.
        _ => {
            let random = fastrand::u128(..).to_ne_bytes();
            uuid::Builder::from_random_bytes(random)
                .into_uuid()
                .to_string()
        }
    }
}

/// What a client is told of that name.
pub(crate) fn shown(id: &str) -> Option<HeaderValue> {
    // The header that it came in had visible characters only.
    HeaderValue::from_str(id.get(..ID_MAX).unwrap_or(id)).ok()
}

/// What those who look at a request have to say of it, by key.
pub(crate) type Notes = Arc<Mutex<BTreeMap<String, String>>>;

/// A request on its way, as far as it is recorded.
pub(crate) struct Record {
    audit: Arc<Audit>,
    id: String,
    received: OffsetDateTime,
    /// `None` until it is known who asks, and where the policy has no interest in the request.
    decided: Option<Decided>,
    fields: Fields,
    annotations: Notes,
    /// Whether its answer takes as long as the client likes.
    long_running: bool,
}

impl Record {
    pub(crate) fn new(audit: &Arc<Audit>, id: &str, long_running: bool) -> Self {
        Record {
            audit: audit.clone(),
            id: id.to_owned(),
            received: OffsetDateTime::now_utc(),
            decided: None,
            fields: Fields::default(),
            annotations: Notes::default(),
            long_running,
        }
    }

    /// It is known who asks for what: the policy decides.
    pub(crate) async fn received(
        &mut self,
        user: &User,
        parts: &Parts,
        target: &Target<'_>,
        verb: &'static str,
    ) {
        if self.begin(user, parts, target, verb) {
            self.tell(Stage::RequestReceived).await;
        }
    }

    /// Nobody knows who asks.
    pub(crate) async fn unknown(&mut self, parts: &Parts, target: &Target<'_>, verb: &'static str) {
        if !self.begin(&User::default(), parts, target, verb) {
            return;
        }
        let scheme = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|it| it.to_str().ok());
        let tried = match scheme.and_then(|it| it.split(' ').next()) {
            Some(scheme) if scheme.eq_ignore_ascii_case("basic") => "basic",
            Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => "bearer",
            _ => "",
        };
        let said = match tried {
            "" => "Authentication failed, no credentials provided".to_owned(),
            tried => format!("Authentication failed, attempted: {tried}"),
        };
        let status = json!({"metadata": {}, "message": said, "code": 401});
        self.fields.response_status = Some(status);
        self.tell(Stage::ResponseStarted).await;
        self.decided = None;
    }

    fn begin(
        &mut self,
        user: &User,
        parts: &Parts,
        target: &Target<'_>,
        verb: &'static str,
    ) -> bool {
        let part = |segment: Option<&str>| query::decode_segment(segment.unwrap_or_default());
        let object = match target {
            Target::Path(_) => None,
            Target::Resource(at) => Some(ObjectRef {
                resource: part(Some(at.resource)),
                namespace: part(at.namespace),
                name: part(at.name),
                api_group: at.group.to_owned(),
                api_version: at.version.to_owned(),
                subresource: part(at.subresource),
                ..ObjectRef::default()
            }),
        };
        let about = match &object {
            None => About::Path(parts.uri.path()),
            Some(object) => About::Resource {
                group: &object.api_group,
                resource: &object.resource,
                subresource: &object.subresource,
                namespace: &object.namespace,
                name: &object.name,
            },
        };
        self.decided = self.audit.policy.decide(user, verb, about);
        if self.decided.is_none() {
            return false;
        }
        let uri = parts.uri.path_and_query();
        let peer = parts.extensions.get::<Peer>();
        self.fields = Fields {
            uri: uri.map_or("/", |uri| uri.as_str()).to_owned(),
            verb,
            user: user.into(),
            source_ips: event::source_ips(&parts.headers, peer.map(|peer| peer.0.ip())),
            user_agent: event::user_agent(&parts.headers),
            object_ref: object,
            ..Fields::default()
        };
        true
    }

    /// It is asked for somebody else.
    pub(crate) fn impersonates(&mut self, user: &User) {
        if self.decided.is_some() {
            self.fields.impersonated_user = Some(user.into());
        }
    }

    /// Whether the user may, and why.
    pub(crate) fn judged(&mut self, allowed: bool, reason: &str) {
        if self.decided.is_some() {
            let decision = if allowed { "allow" } else { "forbid" };
            self.note("authorization.k8s.io/decision", decision);
            self.note("authorization.k8s.io/reason", reason);
        }
    }

    fn note(&self, key: &str, text: &str) {
        let mut notes = self
            .annotations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        notes.insert(key.to_owned(), text.to_owned());
    }

    /// Where others say something of the request; `None` where nobody wants to know.
    pub(crate) fn notes(&self) -> Option<Notes> {
        self.decided.map(|_| self.annotations.clone())
    }

    /// What was sent.
    pub(crate) fn sent(&mut self, headers: &HeaderMap, body: &Bytes) {
        let Some(decided) = self.decided else { return };
        let wanted = decided.level >= Level::Request;
        // Of a new object the path has no name; of a patch the path says all.
        let names = matches!(self.fields.verb, "create" | "update");
        if !wanted && !names {
            return;
        }
        let Some(mut object) = event::object(content_type(headers), body) else {
            return;
        };
        if let Some(at) = self.fields.object_ref.as_mut().filter(|_| names) {
            let text = |key| api::value::text(&object, &["metadata", key]).to_owned();
            if at.name.is_empty() {
                at.name = text("name");
            }
            at.uid = text("uid");
            at.resource_version = text("resourceVersion");
        }
        if wanted {
            if decided.without_managed_fields {
                event::without_managed_fields(&mut object);
            }
            self.fields.request_object = Some(object);
        }
    }

    /// The server failed to answer.
    pub(crate) async fn panicked(&mut self) {
        let status = json!({
            "metadata": {}, "status": "Failure", "message": "APIServer panic'd", "reason": "InternalError", "code": 500,
        });
        self.fields.response_status = Some(status);
        self.tell(Stage::Panic).await;
        self.decided = None;
    }

    /// Records the answer, and hands it on.
    pub(crate) async fn answered(mut self: Box<Self>, answer: Answer) -> Answer {
        let Some(decided) = self.decided else {
            return answer;
        };
        let code = answer.status().as_u16();
        let mut status = Map::from_iter([("metadata".to_owned(), json!({}))]);
        status.insert("code".to_owned(), code.into());
        self.fields.response_status = Some(Value::Object(status));
        if self.long_running && code < 400 {
            self.tell(Stage::ResponseStarted).await;
            let end = End(self);
            // It is over when the body is dropped.
            return answer.map(|body| {
                Body::new(body.map_err(move |error| {
                    let _recorded = &end;
                    error
                }))
            });
        }
        let recorded = decided.level >= Level::RequestResponse;
        let small = answer
            .body()
            .size_hint()
            .exact()
            .filter(|size| *size <= ANSWER_MAX);
        let tells = code >= 400 || self.fields.verb.starts_with("delete");
        let answer = match small {
            Some(_) if recorded || tells => {
                let (parts, body) = answer.into_parts();
                // Its size is known, so it fails as little as reading memory does.
                let body = body.collect().await.map(|body| body.to_bytes());
                let body = body.unwrap_or_default();
                self.look(&parts.headers, &body, recorded);
                Answer::from_parts(parts, Body::from(body))
            }
            None if recorded => {
                self.note("audit.k8s.io/truncated", "true");
                answer
            }
            _ => answer,
        };
        self.tell(Stage::ResponseComplete).await;
        answer
    }

    /// Takes what the answer says about itself, and all of it where that is `recorded`.
    fn look(&mut self, headers: &HeaderMap, body: &Bytes, recorded: bool) {
        let written_in = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let written_in = written_in.unwrap_or_default();
        let Some(mut object) = event::object(written_in, body) else {
            return;
        };
        if object["kind"] == "Status"
            && let Some(Value::Object(told)) = &mut self.fields.response_status
        {
            for key in ["status", "message", "reason", "details"] {
                if let Some(value) = object.get(key) {
                    told.insert(key.to_owned(), value.clone());
                }
            }
        }
        if recorded {
            if self
                .decided
                .is_some_and(|decided| decided.without_managed_fields)
            {
                event::without_managed_fields(&mut object);
            }
            self.fields.response_object = Some(object);
        }
    }

    fn line(&self, stage: Stage) -> Option<Vec<u8>> {
        let decided = self.decided.filter(|decided| !decided.omitted.has(stage))?;
        let head = Head {
            level: decided.level,
            id: &self.id,
            stage,
            received: self.received,
        };
        self.audit.events.fetch_add(1, Ordering::Relaxed);
        let notes = self
            .annotations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(event::line(&head, &self.fields, &notes))
    }

    async fn tell(&self, stage: Stage) {
        let Some(line) = self.line(stage) else { return };
        if let Some(webhook) = &self.audit.webhook {
            webhook.push(line.clone());
        }
        if let Some(log) = &self.audit.log {
            log.write(line).await;
        }
    }
}

/// Records the end of an answer when it is dropped.
struct End(Box<Record>);

impl Drop for End {
    fn drop(&mut self) {
        let Some(line) = self.0.line(Stage::ResponseComplete) else {
            return;
        };
        if let Some(webhook) = &self.0.audit.webhook {
            webhook.push(line.clone());
        }
        if let Some(log) = &self.0.audit.log {
            log.write_now(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_name() {
        let mut headers = HeaderMap::new();
        let own = id(&headers);
        assert_eq!(own.len(), 36);
        assert_ne!(own, id(&headers));
        headers.insert(ID, HeaderValue::from_static("mine"));
        assert_eq!(id(&headers), "mine");
        assert_eq!(shown(&"x".repeat(70)).unwrap().len(), 64);
    }
}
