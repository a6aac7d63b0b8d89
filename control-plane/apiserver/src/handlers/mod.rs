//! The verbs of a resource.

pub(crate) mod apply;
pub(crate) mod components;
pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod pods;
pub(crate) mod review;
mod review_selectors;
pub(crate) mod scale;
pub(crate) mod token;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::{Arc, Mutex};

use api::printing::IncludeObject;
use api::status::Status;
use api::table::{Resource, Subresource};
use authorization::User;
use bytes::Bytes;
use http::{HeaderMap, Method};
use storage::{Range, Revision};

use crate::State;
use crate::audit::Notes;
use crate::negotiate::Accepted;
use crate::query::Query;
use crate::respond::Answer;

/// One request to a resource, after it was found, authenticated and allowed.
pub(crate) struct Call {
    pub(crate) app: Arc<State>,
    /// Who asks.
    pub(crate) user: Arc<User>,
    /// What the client should hear besides the answer.
    pub(crate) warnings: Arc<Mutex<Vec<String>>>,
    /// What the audit log is to say of the request; `None` where it is not recorded.
    pub(crate) notes: Option<Notes>,
    pub(crate) row: &'static Resource,
    /// Empty: all namespaces, or the resource has none.
    pub(crate) namespace: String,
    /// Empty: the collection.
    pub(crate) name: String,
    pub(crate) subresource: Option<&'static Subresource>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) accepted: Accepted,
    /// Of a Table.
    pub(crate) include: IncludeObject,
    pub(crate) body: Bytes,
    /// Whether the server asks itself: nobody else has a say in what every cluster begins with.
    pub(crate) own: bool,
    pub(crate) method: Method,
}

/// Marks a request of the server to itself. No client can set it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own;

impl Call {
    /// The storage key of the object that the path names.
    pub(crate) fn key(&self) -> String {
        self.row.key(&self.namespace, &self.name)
    }

    /// The same request, to one object.
    pub(crate) fn with_name(&self, namespace: &str, name: &str) -> Call {
        Call {
            app: self.app.clone(),
            user: self.user.clone(),
            warnings: self.warnings.clone(),
            notes: self.notes.clone(),
            row: self.row,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: self.subresource,
            query: self.query.clone(),
            headers: self.headers.clone(),
            accepted: self.accepted,
            include: self.include,
            body: self.body.clone(),
            own: self.own,
            method: self.method.clone(),
        }
    }

    /// Tells the client once of each, however often the write was tried.
    pub(crate) fn warn(&self, warnings: Vec<String>) {
        let mut told = self
            .warnings
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        for warning in warnings {
            if !told.contains(&warning) {
                told.push(warning);
            }
        }
    }

    /// Has the audit log say this of the request. What is there under the key already stays, as in Kubernetes.
    pub(crate) fn note(&self, key: String, said: String) {
        if let Some(notes) = &self.notes {
            let mut notes = notes
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            notes.entry(key).or_insert(said);
        }
    }

    /// Whether the request patches.
    pub(crate) fn is_patch(&self) -> bool {
        self.method == Method::PATCH
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(self.row, &self.name)
    }
}

/// Carries out a request other than a watch.
pub(crate) async fn answer(call: Call, method: &Method) -> Result<Answer, Status> {
    let verb = match (method.as_str(), call.name.is_empty()) {
        ("GET" | "HEAD", false) => "get",
        ("GET" | "HEAD", true) => "list",
        ("POST", true) => "create",
        ("POST", false) if call.subresource.is_some() => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", false) => "delete",
        ("DELETE", true) => "deletecollection",
        _ => return Err(Status::method_not_allowed()),
    };
    let verbs = call.subresource.map_or(call.row.verbs, |sub| sub.verbs);
    if !verbs.contains(&verb) {
        return Err(Status::method_not_allowed());
    }
    if call.subresource.is_some_and(|sub| sub.name == "token") {
        return token::create(&call).await;
    }
    let subresource = call.subresource.map_or("", |sub| sub.name);
    match (call.row.group, call.row.kind, subresource) {
        ("", "Pod", "binding") | ("", "Binding", "") => return Box::pin(pods::bind(&call)).await,
        ("", "Pod", "eviction") => return Box::pin(pods::evict(&call)).await,
        ("", "ComponentStatus", _) if verb == "get" => return components::get(&call).await,
        ("", "ComponentStatus", _) => return components::list(&call).await,
        _ => {}
    }
    if let Some(answer) = review::answer(&call).await {
        return answer;
    }
    if let (Some("scale"), Some(replicas)) = (call.subresource.map(|sub| sub.name), call.row.scale)
    {
        return Box::pin(scale::answer(&call, replicas, method)).await;
    }
    match verb {
        "get" => get::get(&call).await,
        "list" => list::list(&call).await,
        "create" => create::create(&call).await,
        "update" => update::update(&call).await,
        "patch" => patch::patch(&call).await,
        "delete" => delete::delete(&call).await,
        _ => Box::pin(delete::delete_collection(&call)).await,
    }
}

/// The newest revision. Where it is asked for, or where a client knows of a later one than this server does, others who
/// write to the same store are heard first.
pub(crate) async fn current(app: &State, asked: Option<u64>) -> Result<Revision, Status> {
    let known = app.storage.revision();
    if asked.is_some_and(|asked| asked <= known.0) {
        return Ok(known);
    }
    app.storage.newest().await.map_err(|e| storage_failure(&e))
}

/// The oldest revision that can still be read.
pub(crate) async fn oldest(app: &State) -> Result<Revision, Status> {
    let range = Range {
        prefix: "/registry/namespaces/".into(),
        limit: 1,
        at: Some(Revision(1).min(app.storage.revision())),
        faulty: true,
        ..Range::default()
    };
    match app.storage.list(range).await {
        Ok(page) => Ok(page.revision),
        Err(storage::Error::Compacted { oldest, .. }) => Ok(oldest),
        Err(error) => Err(storage_failure(&error)),
    }
}

/// The refusal that a failure of the store becomes. What concerns one key (exists, conflict, not found) has been
/// looked at by the caller already.
pub(crate) fn storage_failure(error: &storage::Error) -> Status {
    match error {
        storage::Error::Compacted { asked, oldest } => Status::too_old_version(asked.0, oldest.0),
        storage::Error::Future { asked, newest } => Status::future_version(asked.0, newest.0),
        storage::Error::Exists { .. }
        | storage::Error::NotFound { .. }
        | storage::Error::Conflict { .. }
        | storage::Error::Slow
        | storage::Error::Unreadable { .. } => Status::internal(error),
        storage::Error::Refused { reason } => {
            Status::too_large(format!("Request entity too large: {reason}"))
        }
        storage::Error::Unavailable { .. } => {
            tracing::error!(%error, "the storage does not answer as it should");
            Status::internal(error)
        }
    }
}
