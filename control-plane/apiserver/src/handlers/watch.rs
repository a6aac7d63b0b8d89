//! GET of a collection with `watch`: the changes as they happen, one JSON object a line.

use std::pin::Pin;
use std::sync::Arc;
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
use tokio::time::{Instant, Sleep, sleep_until};

use super::list::Filter;
use super::{Call, current, oldest, storage_failure};
use crate::State;
use crate::events::Frame;
use crate::hooks::conversion;
use crate::json;
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
/// While events come faster than they are sent, a watcher is written to no more often than this, times the number of
/// watchers of its resource: a write costs more than an event in it. A single event is never kept waiting.
const PACE: Duration = Duration::from_micros(15);
/// The longest that events wait for more.
const PACE_MAX: Duration = Duration::from_millis(15);

/// Answers with a stream that ends at its timeout, at the server's shutdown, or when the client reads too slowly.
pub(crate) async fn watch(call: &Call) -> Result<Answer, Status> {
    let options = ListOptions::parse(&call.query)?;
    let filter = Filter::parse(call, &options)?;
    let app = &call.app;
    let asked = options.resource_version.unwrap_or(0);
    let newest = current(app, Some(asked).filter(|asked| *asked > 0)).await?;
    if asked > newest.0 {
        return Err(Status::future_version(asked, newest.0));
    }
    // Not of Kubernetes: everything that is retained, from the oldest state on, and then the end.
    let history = call.query.flag("history").unwrap_or(false);
    let begin = match history {
        true => Some(oldest(app).await?),
        false => None,
    };

    // Without a revision a watch begins with the state as it is, unless the client says that it has it.
    let wants_state = history || options.initial_events.unwrap_or(asked == 0);
    let (state, from) = if wants_state {
        let range = Range {
            prefix: filter.prefix.clone(),
            at: begin,
            faulty: filter.passes_over,
            ..Range::default()
        };
        let page = app
            .storage
            .list(range)
            .await
            .map_err(|e| storage_failure(&e))?;
        let entries = filter.known(page.entries);
        let entries = conversion::entries(app, call.row, entries).await?;
        (entries, page.revision)
    } else if asked == 0 {
        (Vec::new(), newest)
    } else {
        (Vec::new(), Revision(asked))
    };
    // Ends with the server, and the watch of a custom resource with its definition.
    let gone = app.registry.gone(call.row);
    let mut closing = gone.unwrap_or_else(|| app.closing.subscribe());
    let done = *closing.borrow_and_update();
    let mut watcher = Watcher {
        app: app.clone(),
        row: call.row,
        form: call.accepted.form,
        protobuf: call.accepted.encoding == Encoding::Protobuf,
        include: call.include,
        bookmarks: options.bookmarks,
        history,
        ends_state: options.initial_events == Some(true) && options.bookmarks,
        state: state.into_iter(),
        filter,
        changes: stream::pending().boxed(),
        out: Vec::new(),
        waiting: 0,
        columns_sent: false,
        last: from,
        deadline: Instant::now() + lifetime(&options),
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        alarm: Box::pin(sleep_until(Instant::now())),
        rests_until: None,
        done,
        closing,
        counted: app.metrics.watching(call.row, !call.namespace.is_empty()),
    };
    match app
        .storage
        .watch(watcher.filter.prefix.clone(), Some(from))
        .await
    {
        Ok(changes) if conversion::converts(call.row) => {
            let (app, row) = (app.clone(), call.row);
            watcher.changes = changes
                .then(move |event| conversion::event(app.clone(), row, event))
                .boxed();
        }
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
    app: Arc<State>,
    row: &'static Resource,
    form: Form,
    /// Whether events are written as protobuf rather than as lines of JSON.
    protobuf: bool,
    include: IncludeObject,
    filter: Filter,
    /// Whether the client knows what a bookmark is.
    bookmarks: bool,
    /// Whether it ends once it has told what has happened so far.
    history: bool,
    /// Whether the end of the state is to be marked.
    ends_state: bool,
    /// What is still to be sent of the state at the beginning.
    state: std::vec::IntoIter<Entry>,
    changes: BoxStream<'static, Result<WatchEvent, Error>>,
    /// Encoded, not yet sent. Events are shared with the watchers that send them in the same form.
    out: Vec<Bytes>,
    /// Bytes in `out`.
    waiting: usize,
    columns_sent: bool,
    /// Everything up to it was sent or does not concern this watcher.
    last: Revision,
    deadline: Instant,
    next_bookmark: Instant,
    /// Goes off at the deadline, at the next bookmark, or at the end of a rest.
    alarm: Pin<Box<Sleep>>,
    /// Events came faster than they were sent: the next are collected until then.
    rests_until: Option<Instant>,
    done: bool,
    closing: tokio::sync::watch::Receiver<bool>,
    counted: Watching,
}

impl Watcher {
    /// What to send next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        self.send_state();
        if let Some(until) = self.rests_until.take() {
            self.rest(until).await;
        }
        while self.out.is_empty() && !self.done {
            let wake = if self.bookmarks {
                self.next_bookmark.min(self.deadline)
            } else {
                self.deadline
            };
            if self.alarm.deadline() != wake {
                self.alarm.as_mut().reset(wake);
            }
            tokio::select! {
                biased;
                _ = self.closing.changed() => self.done = true,
                event = self.changes.next() => self.take(event),
                () = self.alarm.as_mut() => {
                    self.done = Instant::now() >= self.deadline;
                    if self.bookmarks {
                        self.bookmark(false);
                        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    }
                }
            }
            // What came in the meantime goes along.
            while self.waiting < CHUNK && !self.done && !self.out.is_empty() {
                match self.changes.next().now_or_never() {
                    Some(event) => self.take(event),
                    None => break,
                }
            }
            let pace = (PACE * self.counted.watchers()).min(PACE_MAX);
            let full = self.waiting >= CHUNK;
            if self.out.len() > 1 && !full && pace >= Duration::from_millis(1) {
                self.rests_until = Some(Instant::now() + pace);
            }
        }
        let size = std::mem::take(&mut self.waiting);
        match self.out.as_slice() {
            [] => None,
            [_] => self.out.pop(),
            many => {
                let mut chunk = Vec::with_capacity(size);
                many.iter().for_each(|frame| chunk.extend_from_slice(frame));
                self.out.clear();
                Some(chunk.into())
            }
        }
    }

    /// Lets events collect.
    async fn rest(&mut self, until: Instant) {
        self.alarm.as_mut().reset(until.min(self.deadline));
        tokio::select! {
            biased;
            _ = self.closing.changed() => self.done = true,
            () = self.alarm.as_mut() => {}
        }
    }

    fn send_state(&mut self) {
        while self.waiting < CHUNK {
            let Some(entry) = self.state.next() else {
                if std::mem::take(&mut self.ends_state) {
                    self.bookmark(true);
                }
                return;
            };
            if self.filter.takes(&entry) {
                let frame = self.frame("ADDED");
                let bytes = encode(frame, &entry.value, entry.modified);
                self.push(bytes.into());
            }
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.counted.event();
        self.waiting += bytes.len();
        self.out.push(bytes);
    }

    /// How this watcher wants its next event.
    fn frame(&mut self, kind: &'static str) -> Frame {
        let table = matches!(self.form, Form::Table(_));
        Frame {
            row: self.row,
            kind,
            form: self.form,
            protobuf: self.protobuf,
            include: self.include,
            without_columns: table && std::mem::replace(&mut self.columns_sent, true),
        }
    }

    fn take(&mut self, event: Option<Result<WatchEvent, Error>>) {
        match event {
            Some(Ok(WatchEvent::Change(change))) => {
                self.last = self.last.max(change.revision());
                match self.filter.told(change) {
                    Some(Ok(change)) => self.change(&change),
                    Some(Err(error)) => self.fail(&error),
                    None => {}
                }
            }
            Some(Ok(WatchEvent::Progress(revision))) => {
                self.last = self.last.max(revision);
                self.done |= self.history;
            }
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
        let event = self.app.events.of(change);
        let revision = change.revision();
        let (filter, row) = (&self.filter, self.row);
        let (kind, stored) = match change {
            Change::Put { entry, previous } => {
                let before = previous.as_ref().filter(|previous| {
                    filter.takes_all() || filter.takes_object(event.before(row, previous))
                });
                let after = filter.takes_all() || filter.takes_object(event.after(row, entry));
                match (before, after) {
                    (None, true) => ("ADDED", &entry.value),
                    (Some(_), true) => ("MODIFIED", &entry.value),
                    (Some(before), false) => ("DELETED", &before.value),
                    (None, false) => return,
                }
            }
            Change::Delete { previous, .. } => {
                if !filter.takes_all() && !filter.takes_object(event.before(row, previous)) {
                    return;
                }
                ("DELETED", &previous.value)
            }
        };
        let frame = self.frame(kind);
        let bytes = event.frame(frame, || encode(frame, stored, revision));
        self.push(bytes);
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
                let without_columns = std::mem::replace(&mut self.columns_sent, true);
                let mut table = table(
                    self.row,
                    version,
                    self.include,
                    &[],
                    self.last,
                    without_columns,
                );
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

    fn value(&mut self, kind: &str, object: &Value) {
        self.push(written(self.protobuf, kind, object).into());
    }
}

/// An event in the form that the frame asks for.
fn encode(frame: Frame, stored: &[u8], revision: Revision) -> Vec<u8> {
    match frame.form {
        Form::Object if frame.protobuf => {
            let item = object::decode_at(frame.row, stored, revision);
            written(true, frame.kind, &item)
        }
        Form::Object => {
            let mut out = opened(frame.kind, stored.len());
            object::append(&mut out, frame.row, stored, revision, Head::Typed);
            out.extend_from_slice(b"}\n");
            out
        }
        Form::Table(version) => {
            let item = object::decode_at(frame.row, stored, revision);
            let (include, without) = (frame.include, frame.without_columns);
            let table = table(frame.row, version, include, &[item], revision, without);
            written(frame.protobuf, frame.kind, &table)
        }
        Form::Metadata(version) => {
            let item = object::decode_at(frame.row, stored, revision);
            written(
                frame.protobuf,
                frame.kind,
                &printing::partial(&item, version),
            )
        }
    }
}

fn table(
    row: &Resource,
    version: &'static str,
    include: IncludeObject,
    items: &[Value],
    revision: Revision,
    without_columns: bool,
) -> Value {
    let options = TableOptions {
        version,
        include,
        list_metadata: json!({"resourceVersion": revision.0.to_string()}),
        now: OffsetDateTime::now_utc(),
        without_columns,
    };
    printing::table(row, items, &options)
}

fn opened(kind: &str, size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 80);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out
}

fn written(as_protobuf: bool, kind: &str, object: &Value) -> Vec<u8> {
    if as_protobuf {
        let body = protobuf::encode(object).unwrap_or_default();
        return protobuf::watch_frame(kind, &body);
    }
    let mut out = opened(kind, 400);
    json::append(&mut out, object);
    out.extend_from_slice(b"}\n");
    out
}
