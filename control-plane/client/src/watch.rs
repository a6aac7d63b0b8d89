//! Following a resource for ever: list, then watch, then watch again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use api::Kind;
use futures_util::Stream;
use futures_util::stream;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;
use view::Event;

use crate::backoff::Backoff;
use crate::error::{Error, Status};
use crate::head::Head;
use crate::lines::Lines;
use crate::page::{Finding, Identified, ListParams, Page};
use crate::path::{Path, Query, Resource};
use crate::request::Client;
use crate::transport::ResponseBody;

/// What to follow.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// Empty for every namespace.
    pub namespace: String,
    /// For instance `app=web`; empty for all.
    pub label_selector: String,
    /// For instance `spec.nodeName=a`; empty for all.
    pub field_selector: String,
    /// Hears of objects that could not be decoded; they are skipped, and logged in any case.
    pub findings: Option<UnboundedSender<Finding>>,
}

/// Events of a resource, in order and without end. Nothing is sent before the first poll; nothing of the answer is
/// kept beyond two pages or a line.
pub struct Watch<T> {
    events: Pin<Box<dyn Stream<Item = Event<T>> + Send>>,
}

impl<T> Stream for Watch<T> {
    type Item = Event<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event<T>>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl Client {
    /// Follows a resource. Lost connections are resumed from the last resource version seen, without loss or
    /// repetition; where the server does not go on from there, for it no longer has that history (410) or has another one
    /// since, all begins again with [`Event::Restarted`]. Whatever fails is tried again for ever, with growing waits.
    pub fn watch<T: Kind>(&self, params: Params) -> Watch<T> {
        self.watch_resource(&Resource::of::<T>(), params)
    }

    /// As [`Client::watch`], of a resource that the type does not tell.
    pub fn watch_resource<T>(&self, resource: &Resource, params: Params) -> Watch<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let follower = Follower::<T> {
            path: resource.within(&params.namespace),
            client: self.clone(),
            params,
            phase: Phase::List {
                continue_token: String::new(),
            },
            ready: VecDeque::new(),
            ahead: JoinSet::new(),
            backoff: Backoff::new(RETRY_WAIT_MAX),
        };
        let events = stream::unfold(follower, |mut follower| async {
            let event = follower.next().await;
            Some((event, follower))
        });
        Watch {
            events: Box::pin(events),
        }
    }
}

const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);

/// A watch that ends sooner than this without news counts as a failure.
const WATCH_MIN: Duration = Duration::from_secs(5);

/// How long after its announced end a watch is given up on.
const GRACE: Duration = Duration::from_secs(30);

struct Follower<T> {
    client: Client,
    path: Path,
    params: Params,
    phase: Phase,
    /// Decoded and not yet taken.
    ready: VecDeque<Event<T>>,
    /// The next page, asked for and decoded beside whoever takes the events of this one.
    ahead: JoinSet<Result<Page<T>, Error>>,
    backoff: Backoff,
}

enum Phase {
    /// The next page to read; the first when the token is empty.
    List { continue_token: String },
    /// Listed, and seen up to here.
    Listed { resource_version: String },
    /// The server sends changes.
    Watching(Watching),
}

struct Watching {
    resource_version: String,
    body: ResponseBody,
    lines: Lines,
    opened: Instant,
    /// When even a server that keeps its word has ended the watch.
    until: Instant,
    /// Whether it brought anything.
    news: bool,
}

/// What a line of a watch, or the lack of one, means for the rest.
enum Turn {
    Stay,
    /// Watch again from the last resource version.
    Resume(Why),
    /// The history is gone, or the server cannot tell it: what comes next is not known from there. Why.
    Relist(String),
}

/// Why a watch ended.
enum Why {
    Ended,
    Broken(String),
}

impl<T: DeserializeOwned + Send + 'static> Follower<T> {
    async fn next(&mut self) -> Event<T> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            match &mut self.phase {
                Phase::List { continue_token } => {
                    let continue_token = std::mem::take(continue_token);
                    self.list(continue_token).await;
                }
                Phase::Listed { resource_version } => {
                    let resource_version = resource_version.clone();
                    self.open(resource_version).await;
                }
                Phase::Watching(_) => self.read().await,
            }
        }
    }

    /// Asks for one page.
    fn page(&self, continue_token: &str) -> impl Future<Output = Result<Page<T>, Error>> + use<T> {
        let params = ListParams {
            label_selector: self.params.label_selector.clone(),
            field_selector: self.params.field_selector.clone(),
            continue_token: continue_token.to_owned(),
            skip_unreadable: true,
            ..ListParams::default()
        };
        let (client, path) = (self.client.clone(), self.path.clone());
        async move { client.page::<T>(&path, &params).await }
    }

    /// Reads one page.
    async fn list(&mut self, continue_token: String) {
        let first = continue_token.is_empty();
        let page = match self.ahead.join_next().await {
            Some(Ok(page)) => page,
            // None was asked for yet, or who asked is gone.
            Some(Err(_)) | None => self.page(&continue_token).await,
        };
        match page {
            Ok(page) => {
                if !page.continue_token.is_empty() {
                    self.ahead.spawn(self.page(&page.continue_token));
                }
                page.findings
                    .into_iter()
                    .for_each(|finding| self.report(finding));
                if first {
                    self.ready.push_back(Event::Restarted);
                }
                self.ready
                    .extend(page.items.into_iter().map(Event::Applied));
                self.phase = if page.continue_token.is_empty() {
                    self.ready.push_back(Event::Synced);
                    Phase::Listed {
                        resource_version: page.resource_version,
                    }
                } else {
                    Phase::List {
                        continue_token: page.continue_token,
                    }
                };
            }
            Err(error) => {
                let continue_token = if error.is_gone() {
                    String::new()
                } else {
                    continue_token
                };
                self.phase = Phase::List { continue_token };
                self.wait("list", &error).await;
            }
        }
    }

    /// Opens a watch from a resource version on.
    async fn open(&mut self, resource_version: String) {
        // As informers do, so that the watches of one server do not end together.
        let seconds = fastrand::u64(300..600);
        let query = Query::default()
            .with("labelSelector", &self.params.label_selector)
            .with("fieldSelector", &self.params.field_selector)
            .with("watch", "true")
            .with("allowWatchBookmarks", "true")
            .with("skipUnreadable", "true")
            .with("resourceVersion", &resource_version)
            .with("timeoutSeconds", &seconds.to_string());
        match self.client.open(&self.path, &query).await {
            Ok(response) => {
                let opened = Instant::now();
                self.phase = Phase::Watching(Watching {
                    resource_version,
                    body: response.into_body(),
                    lines: Lines::default(),
                    opened,
                    until: opened + Duration::from_secs(seconds) + GRACE,
                    news: false,
                });
            }
            Err(error) if error.is_refused() => self.relist(&chain(&error)).await,
            Err(error) => {
                self.phase = Phase::Listed { resource_version };
                self.wait("watch", &error).await;
            }
        }
    }

    /// Reads what the server sent next.
    async fn read(&mut self) {
        let Phase::Watching(watching) = &mut self.phase else {
            return;
        };
        let mut turn = watching.receive().await;
        while let Turn::Stay = turn {
            let Phase::Watching(watching) = &mut self.phase else {
                return;
            };
            let Some(line) = watching.lines.next() else {
                return;
            };
            if !line.iter().all(u8::is_ascii_whitespace) {
                turn = self.take(&line);
            }
        }
        match turn {
            Turn::Stay => {}
            Turn::Relist(why) => self.relist(&why).await,
            Turn::Resume(why) => self.resume(&why).await,
        }
    }

    /// Acts on one line.
    fn take(&mut self, line: &[u8]) -> Turn {
        let Phase::Watching(watching) = &mut self.phase else {
            return Turn::Stay;
        };
        // Nearly every line is an object as it is now, and is read as that in one go. Where that fails, it is taken apart.
        if let Some(head) = Head::read(line)
            && matches!(head.kind, "ADDED" | "MODIFIED")
            && let Ok(whole) = serde_json::from_slice::<Whole<T>>(line)
        {
            watching.resource_version = head.resource_version.to_owned();
            watching.news = true;
            self.ready.push_back(Event::Applied(whole.object));
            return Turn::Stay;
        }
        let line = match serde_json::from_slice::<Line<'_>>(line) {
            Ok(line) => line,
            Err(error) => return Turn::Resume(Why::Broken(format!("not a watch event: {error}"))),
        };
        if line.kind == "ERROR" {
            let status = serde_json::from_str::<Status>(line.object.get()).unwrap_or_default();
            return Turn::Relist(status.to_string());
        }
        let identity = match serde_json::from_str::<Identified>(line.object.get()) {
            Ok(identified) => identified.metadata,
            Err(error) => return Turn::Resume(Why::Broken(format!("not an object: {error}"))),
        };
        if !identity.resource_version.is_empty() {
            watching.resource_version = identity.resource_version;
            watching.news = true;
        }
        match line.kind.as_ref() {
            "ADDED" | "MODIFIED" => match serde_json::from_str(line.object.get()) {
                Ok(object) => self.ready.push_back(Event::Applied(object)),
                Err(error) => self.report(Finding::new(line.object, &error)),
            },
            "DELETED" => self.ready.push_back(Event::Deleted {
                namespace: identity.namespace,
                name: identity.name,
            }),
            _ => {} // BOOKMARK, and what later versions may add
        }
        Turn::Stay
    }

    async fn resume(&mut self, why: &Why) {
        let phase = std::mem::replace(
            &mut self.phase,
            Phase::List {
                continue_token: String::new(),
            },
        );
        let Phase::Watching(watching) = phase else {
            return;
        };
        self.settle(&watching);
        self.phase = Phase::Listed {
            resource_version: watching.resource_version,
        };
        match why {
            Why::Ended => tracing::debug!(path = %self.path, "watch ended"),
            Why::Broken(problem) => tracing::warn!(path = %self.path, problem, "watch broke off"),
        }
        tokio::time::sleep(self.backoff.next_delay()).await;
    }

    /// The next wait is the first again after a watch that was good for something.
    fn settle(&mut self, watching: &Watching) {
        if watching.news || watching.opened.elapsed() >= WATCH_MIN {
            self.backoff.reset();
        }
    }

    async fn relist(&mut self, why: &str) {
        tracing::info!(
            path = %self.path,
            why,
            "the server does not go on from our place in its history; listing again",
        );
        let list = Phase::List {
            continue_token: String::new(),
        };
        if let Phase::Watching(watching) = std::mem::replace(&mut self.phase, list) {
            self.settle(&watching);
        }
        tokio::time::sleep(self.backoff.next_delay()).await;
    }

    async fn wait(&mut self, attempt: &str, error: &Error) {
        let delay = self.backoff.next_delay();
        tracing::warn!(
            path = %self.path,
            failures = self.backoff.failures(),
            retry_ms = delay.as_millis(),
            error = chain(error),
            "cannot {attempt}",
        );
        tokio::time::sleep(delay).await;
    }

    fn report(&self, finding: Finding) {
        tracing::warn!(
            path = %self.path,
            namespace = finding.namespace,
            name = finding.name,
            problem = finding.problem,
            "object cannot be read and is skipped",
        );
        if let Some(findings) = &self.params.findings {
            // Nobody listens any more: the log has it.
            let _ = findings.send(finding);
        }
    }
}

impl Watching {
    /// Waits for the next chunk.
    async fn receive(&mut self) -> Turn {
        let frame = match tokio::time::timeout_at(self.until, self.body.frame()).await {
            Ok(frame) => frame,
            Err(_) => return Turn::Resume(Why::Broken("nothing heard any more".into())),
        };
        match frame {
            None => Turn::Resume(Why::Ended),
            Some(Err(error)) => Turn::Resume(Why::Broken(chain(error.as_ref()))),
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    self.lines.push(chunk);
                }
                Turn::Stay
            }
        }
    }
}

/// A line of which only the object is wanted.
#[derive(Deserialize)]
struct Whole<T> {
    object: T,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
