//! GET of a collection: one consistent page.

use std::sync::Arc;

use api::selector::{FieldSelector, LabelSelector};
use api::status::Status;
use api::table::Resource;
use storage::{Change, Entry, Error, Range, Revision};

use super::{Call, current, storage_failure};
use crate::State;
use crate::cursor::Cursor;
use crate::hooks::conversion;
use crate::negotiate::Encoding;
use crate::object;
use crate::options::{ListOptions, Match};
use crate::respond::{self, Answer, ListHead};

/// How many keys are read at once while a selector picks from them, and about how many objects are looked at, or
/// written, on a thread that other requests wait for.
const CHUNK: usize = 500;

/// Which objects of a resource are meant.
pub(crate) struct Filter {
    row: &'static Resource,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Every key begins with it. Exactly one key where the fields name one object.
    pub(crate) prefix: String,
    /// Whether objects that can't be read are passed over, instead of being the end of it.
    pub(crate) passes_over: bool,
}

impl Filter {
    pub(crate) fn parse(call: &Call, options: &ListOptions) -> Result<Self, Status> {
        let labels = LabelSelector::parse(&options.label_selector)?;
        let fields = FieldSelector::parse(call.row, &options.field_selector)?;
        let namespace = match fields.exact("metadata.namespace") {
            Some(namespace) if call.namespace.is_empty() => namespace,
            _ => &call.namespace,
        };
        let mut prefix = call.row.key_prefix(namespace);
        if let Some(name) = fields.exact("metadata.name")
            && !(call.row.namespaced && namespace.is_empty())
        {
            prefix = call.row.key(namespace, name);
        }
        Ok(Filter {
            row: call.row,
            labels,
            fields,
            prefix,
            // Not of Kubernetes, which tells of nothing where it can't read one.
            passes_over: call.query.flag("skipUnreadable").unwrap_or(false),
        })
    }

    /// Whether everything below the prefix is meant.
    pub(crate) fn takes_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an entry is meant; parses it only where a selector asks.
    pub(crate) fn takes(&self, entry: &Entry) -> bool {
        self.takes_all() || self.takes_object(&object::decode(self.row, entry))
    }

    /// The entries of those read that can be.
    pub(crate) fn known(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
        if self.passes_over {
            entries.retain(|entry| entry.fault().is_none());
        }
        entries
    }

    /// A change as it is told, if it is.
    pub(crate) fn told(&self, change: Change) -> Option<Result<Change, Error>> {
        if self.passes_over {
            change.passed_over().map(Ok)
        } else {
            Some(change.readable())
        }
    }

    /// Whether an object is meant.
    pub(crate) fn takes_object(&self, object: &serde_json::Value) -> bool {
        self.labels.matches_object(object) && self.fields.matches(self.row, object)
    }
}

/// Answers with a list.
pub(crate) async fn list(call: &Call) -> Result<Answer, Status> {
    let options = ListOptions::parse(&call.query)?;
    match page(call, &options).await? {
        Page::Items(head, items) => {
            let (row, accepted, include) = (call.row, call.accepted, call.include);
            let many = items.len() > CHUNK;
            let write = move || respond::list(row, accepted, include, &head, items);
            if many {
                let written = tokio::task::spawn_blocking(write).await;
                written.map_err(Status::internal)
            } else {
                Ok(write())
            }
        }
        Page::Expired(answer) => Ok(answer),
    }
}

/// What a list comes to.
pub(crate) enum Page {
    Items(ListHead, Vec<Entry>),
    /// The revision is no longer retained. Somebody in the middle of a list is given a token to go on with, at the
    /// price of consistency.
    Expired(Answer),
}

/// The page that the options ask for.
pub(crate) async fn page(call: &Call, options: &ListOptions) -> Result<Page, Status> {
    let filter = Filter::parse(call, options)?;
    let (at, start) = position(&call.app, options, &filter).await?;
    let (revision, items, next, remaining) =
        match read(&call.app, &filter, at, start, options.limit).await {
            Ok(read) => read,
            Err(Failed::Store(Error::Compacted { .. })) => {
                return Ok(Page::Expired(expired(options)));
            }
            Err(Failed::Store(error)) => return Err(storage_failure(&error)),
            Err(Failed::Told(status)) => return Err(status),
        };
    let continue_token = next.map_or_else(String::new, |start| {
        let start = start
            .strip_prefix(&filter.prefix)
            .unwrap_or(&start)
            .to_owned();
        Cursor {
            revision: Some(revision),
            start,
        }
        .encode()
    });
    let remaining = (!continue_token.is_empty() && filter.takes_all()).then_some(remaining);
    Ok(Page::Items(
        ListHead {
            revision,
            continue_token,
            remaining,
        },
        items,
    ))
}

/// At which revision and from which key to read.
async fn position(
    app: &State,
    options: &ListOptions,
    filter: &Filter,
) -> Result<(Option<Revision>, Option<String>), Status> {
    if !options.continue_token.is_empty() {
        if options.resource_version.is_some_and(|version| version > 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let cursor = Cursor::decode(&options.continue_token)?;
        if let Some(revision) = cursor.revision {
            let newest = current(app, Some(revision.0)).await?.0;
            if revision.0 > newest {
                return Err(Status::future_version(revision.0, newest));
            }
        }
        return Ok((
            cursor.revision,
            Some(format!("{}{}", filter.prefix, cursor.start)),
        ));
    }
    let asked = options.resource_version.unwrap_or(0);
    let known = current(app, Some(asked)).await?;
    if asked > known.0 {
        return Err(Status::future_version(asked, known.0));
    }
    let exact = match options.version_match {
        Match::Exact => true,
        Match::NotOlderThan => false,
        Match::Unset => options.limit > 0 && asked > 0,
    };
    if options.resource_version.is_some() && !exact {
        // Anything that is new enough will do; nobody else has to be heard.
        return Ok((Some(known), None));
    }
    Ok((exact.then_some(Revision(asked)), None))
}

type Read = (Revision, Vec<Entry>, Option<String>, u64);

/// Why nothing was read.
enum Failed {
    Store(Error),
    Told(Status),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Store(error)
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Failed::Told(status)
    }
}

/// Up to `limit` entries that the filter takes, the key after them if there are more, and how many remain.
async fn read(
    app: &Arc<State>,
    filter: &Filter,
    at: Option<Revision>,
    start: Option<String>,
    limit: usize,
) -> Result<Read, Failed> {
    let prefix = filter.prefix.clone();
    if filter.takes_all() || limit == 0 {
        let page = app
            .storage
            .list(Range {
                prefix,
                start,
                limit,
                at,
                faulty: filter.passes_over,
            })
            .await?;
        let next = if page.remaining > 0 {
            page.entries.last().map(|entry| after(&entry.key))
        } else {
            None
        };
        let entries = filter.known(page.entries);
        let entries = conversion::entries(app, filter.row, entries).await?;
        let entries = taken(filter, entries).await;
        return Ok((page.revision, entries, next, page.remaining));
    }
    let mut taken = Vec::new();
    let mut range = Range {
        prefix,
        start,
        limit: CHUNK,
        at,
        faulty: filter.passes_over,
    };
    loop {
        let page = app.storage.list(range.clone()).await?;
        let more = page.remaining > 0;
        let last = page.entries.last().map(|entry| after(&entry.key));
        let entries = filter.known(page.entries);
        for entry in conversion::entries(app, filter.row, entries).await? {
            if !filter.takes(&entry) {
                continue;
            }
            if taken.len() == limit {
                // The first that no longer fits is where the next page begins.
                return Ok((page.revision, taken, Some(entry.key.to_string()), 0));
            }
            taken.push(entry);
        }
        match last.filter(|_| more) {
            Some(start) => range.start = Some(start),
            None => return Ok((page.revision, taken, None, 0)),
        }
        range.at = Some(page.revision);
    }
}

/// The entries that a filter takes. Where it has to look into many, others have their turn in between.
async fn taken(filter: &Filter, entries: Vec<Entry>) -> Vec<Entry> {
    if filter.takes_all() {
        return entries;
    }
    let mut taken = Vec::new();
    for (count, entry) in (1..).zip(entries) {
        if filter.takes(&entry) {
            taken.push(entry);
        }
        if usize::is_multiple_of(count, CHUNK) {
            tokio::task::yield_now().await;
        }
    }
    taken
}

/// The smallest key that is greater.
fn after(key: &str) -> String {
    format!("{key}\0")
}

fn expired(options: &ListOptions) -> Answer {
    let Ok(cursor) = Cursor::decode(&options.continue_token) else {
        return respond::refusal(&Status::expired(
            "The resourceVersion for the provided list is too old.",
        ));
    };
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    )
    .to_value();
    status["metadata"]["continue"] = Cursor {
        revision: None,
        start: cursor.start,
    }
    .encode()
    .into();
    respond::value(410, Encoding::Json, &status)
}
