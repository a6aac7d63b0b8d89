//! GET of a collection with `watch`: the changes as they happen, one JSON object a line.

use std::time::Duration;

use api::printing::{self, IncludeObject, TableOptions};
use api::protobuf;
use api::status::Status;
use api::table::Resource;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use storage::{Change, Entry, Error, Range, Revision, WatchEvent};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};

use super::list::Filter;
use super::{Call, storage_failure};
use crate::metrics::Watching;
use crate::negotiate::{Encoding, Form};
use crate::object::{self, Head};
use crate::options::ListOptions;
use crate::respond::{self, Answer};

/// Between two bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` lives this long, up to twice, so that clients spread.
const LIFETIME_SECS: u64 = 1800;
/// No watch lives longer, whatever its client asks for.
const LIFETIME_MAX_SECS: u64 = 24 * 3600;
/// Events that wait are sent together until this many bytes.
const CHUNK: usize = 64 << 10;

/// Answers with a stream that ends at its timeout, at the server's shutdown, or when the client reads too slowly.
pub(crate) async fn watch(call: &Call) -> Result<Answer, Status> {
    let options = ListOptions::parse(&call.query)?;
    let filter = Filter::parse(call, &options)?;
    let app = &call.app;
    let current = app.storage.revision();
    let asked = options.resource_version.unwrap_or(0);
    if asked > current.0 {
        return Err(Status::future_version(asked, current.0));
    }

    // Without a revision a watch begins with the state as it is, unless the client says that it has it.
    let wants_state = options.initial_events.unwrap_or(asked == 0);
    let (state, from) = if wants_state {
        let range = Range {
            prefix: filter.prefix.clone(),
            ..Range::default()
        };
        let page = app
            .storage
            .list(range)
            .await
            .map_err(|e| storage_failure(&e))?;
        (page.entries, page.revision)
    } else if asked == 0 {
        (Vec::new(), current)
    } else {
        (Vec::new(), Revision(asked))
    };
    // Ends with the server, and the watch of a custom resource with its definition.
    let gone = app.registry.gone(call.row);
    let mut closing = gone.unwrap_or_else(|| app.closing.subscribe());
    let done = *closing.borrow_and_update();
    let mut watcher = Watcher {
        row: call.row,
        form: call.accepted.form,
        protobuf: call.accepted.encoding == Encoding::Protobuf,
        include: call.include,
        bookmarks: options.bookmarks,
        ends_state: options.initial_events == Some(true) && options.bookmarks,
        state: state.into_iter(),
        filter,
        changes: stream::pending().boxed(),
        out: Vec::new(),
        columns_sent: false,
        last: from,
        deadline: Instant::now() + lifetime(&options),
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        done,
        closing,
        _counted: app.metrics.watching(),
    };
    match app
        .storage
        .watch(watcher.filter.prefix.clone(), Some(from))
        .await
    {
        Ok(changes) => watcher.changes = changes,
        Err(error @ Error::Compacted { .. }) => watcher.fail(&error),
        Err(error) => return Err(storage_failure(&error)),
    }
    let frames = stream::unfold(watcher, |mut watcher| async move {
        let frame = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), watcher))
    });
    let content_type = if call.accepted.encoding == Encoding::Protobuf {
        "application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        "application/json"
    };
    let mut response = respond::bytes(200, content_type, Bytes::new());
    *response.body_mut() = Body::from_stream(frames);
    Ok(response)
}

fn lifetime(options: &ListOptions) -> Duration {
    Duration::from_secs(
        options
            .timeout
            .unwrap_or_else(|| fastrand::u64(LIFETIME_SECS..LIFETIME_SECS * 2))
            .min(LIFETIME_MAX_SECS),
    )
}

struct Watcher {
    row: &'static Resource,
    form: Form,
    /// Whether events are written as protobuf rather than as lines of JSON.
    protobuf: bool,
    include: IncludeObject,
    filter: Filter,
    /// Whether the client knows what a bookmark is.
    bookmarks: bool,
    /// Whether the end of the state is to be marked.
    ends_state: bool,
    /// What is still to be sent of the state at the beginning.
    state: std::vec::IntoIter<Entry>,
    changes: BoxStream<'static, Result<WatchEvent, Error>>,
    /// Written, not yet sent.
    out: Vec<u8>,
    columns_sent: bool,
    /// Everything up to it was sent or does not concern this watcher.
    last: Revision,
    deadline: Instant,
    next_bookmark: Instant,
    done: bool,
    closing: tokio::sync::watch::Receiver<bool>,
    _counted: Watching,
}

impl Watcher {
    /// What to send next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        self.send_state();
        while self.out.is_empty() && !self.done {
            let wake = if self.bookmarks {
                self.next_bookmark.min(self.deadline)
            } else {
                self.deadline
            };
            tokio::select! {
                biased;
                _ = self.closing.changed() => self.done = true,
                event = self.changes.next() => self.take(event),
                () = sleep_until(wake) => {
                    self.done = Instant::now() >= self.deadline;
                    if self.bookmarks {
                        self.bookmark(false);
                        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    }
                }
            }
            // What came in the meantime goes along.
            while self.out.len() < CHUNK && !self.done && !self.out.is_empty() {
                match self.changes.next().now_or_never() {
                    Some(event) => self.take(event),
                    None => break,
                }
            }
        }
        (!self.out.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.out)))
    }

    fn send_state(&mut self) {
        while self.out.len() < CHUNK {
            let Some(entry) = self.state.next() else {
                if std::mem::take(&mut self.ends_state) {
                    self.bookmark(true);
                }
                return;
            };
            if self.filter.takes(&entry) {
                self.event("ADDED", &entry.value, entry.modified);
            }
        }
    }

    fn take(&mut self, event: Option<Result<WatchEvent, Error>>) {
        match event {
            Some(Ok(WatchEvent::Change(change))) => self.change(&change),
            Some(Ok(WatchEvent::Progress(revision))) => self.last = self.last.max(revision),
            Some(Err(Error::Slow)) => {
                tracing::debug!(
                    resource = self.row.plural,
                    "a watcher read too slowly and was cut off"
                );
                self.done = true;
            }
            Some(Err(error)) => self.fail(&error),
            None => self.done = true,
        }
    }

    /// A change, as one who sees only what the filter takes: an object that begins or ceases to match comes or goes.
    fn change(&mut self, change: &Change) {
        match change {
            Change::Put { entry, previous } => {
                self.last = self.last.max(entry.modified);
                let before = previous
                    .as_ref()
                    .is_some_and(|previous| self.filter.takes(previous));
                match (before, self.filter.takes(entry)) {
                    (false, true) => self.event("ADDED", &entry.value, entry.modified),
                    (true, true) => self.event("MODIFIED", &entry.value, entry.modified),
                    (true, false) => {
                        let gone = previous
                            .as_ref()
                            .map_or_else(Bytes::new, |previous| previous.value.clone());
                        self.event("DELETED", &gone, entry.modified);
                    }
                    (false, false) => {}
                }
            }
            Change::Delete { revision, previous } => {
                self.last = self.last.max(*revision);
                if self.filter.takes(previous) {
                    self.event("DELETED", &previous.value, *revision);
                }
            }
        }
    }

    fn event(&mut self, kind: &str, stored: &[u8], revision: Revision) {
        match self.form {
            Form::Object if self.protobuf => {
                let item = object::decode_at(self.row, stored, revision);
                self.value(kind, &item);
            }
            Form::Object => {
                self.open(kind);
                object::append(&mut self.out, self.row, stored, revision, Head::Typed);
                self.out.extend_from_slice(b"}\n");
            }
            Form::Table(version) => {
                let item = object::decode_at(self.row, stored, revision);
                let table = self.table(version, &[item], revision);
                self.value(kind, &table);
            }
            Form::Metadata(version) => {
                let item = object::decode_at(self.row, stored, revision);
                self.value(kind, &printing::partial(&item, version));
            }
        }
    }

    fn bookmark(&mut self, ends_state: bool) {
        let mut metadata =
            json!({"resourceVersion": self.last.0.to_string(), "creationTimestamp": null});
        if ends_state {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Object => {
                json!({"kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": metadata})
            }
            Form::Table(version) => {
                let mark = json!({"kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": metadata});
                let mut table = self.table(version, &[], self.last);
                table["rows"] = json!([{"cells": [], "object": printing::partial(&mark, version)}]);
                table
            }
            Form::Metadata(version) => printing::partial(&json!({"metadata": metadata}), version),
        };
        self.value("BOOKMARK", &object);
    }

    /// Tells the client why this is the end.
    fn fail(&mut self, error: &Error) {
        self.value("ERROR", &storage_failure(error).to_value());
        self.done = true;
    }

    fn table(&mut self, version: &'static str, items: &[Value], revision: Revision) -> Value {
        let options = TableOptions {
            version,
            include: self.include,
            list_metadata: json!({"resourceVersion": revision.0.to_string()}),
            now: OffsetDateTime::now_utc(),
            without_columns: std::mem::replace(&mut self.columns_sent, true),
        };
        printing::table(self.row, items, &options)
    }

    fn open(&mut self, kind: &str) {
        self.out.extend_from_slice(b"{\"type\":\"");
        self.out.extend_from_slice(kind.as_bytes());
        self.out.extend_from_slice(b"\",\"object\":");
    }

    fn value(&mut self, kind: &str, object: &Value) {
        if self.protobuf {
            let body = protobuf::encode(object).unwrap_or_default();
            self.out.extend(protobuf::watch_frame(kind, &body));
            return;
        }
        self.open(kind);
        // Writing to a Vec can't fail, and JSON values have text keys only.
        let _ = serde_json::to_writer(&mut self.out, object);
        self.out.extend_from_slice(b"}\n");
    }
}
