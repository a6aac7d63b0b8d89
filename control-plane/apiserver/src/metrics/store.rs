//! What the store is asked, how long it takes, and how much is in it. The names say etcd whatever the engine: that is
//! what dashboards ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::stream::BoxStream;
use storage::{Answer, Entry, Error, Page, Range, Revision, Storage, WatchEvent, Write};

use super::histogram::Histogram;
use super::text::Text;
use super::{Metrics, lock};
use crate::State;

/// The most resources that are told apart for each operation; those of custom resources come and go.
const RESOURCES_MAX: usize = 2000;

/// Requests to the store.
#[derive(Default)]
pub(crate) struct Requests(Mutex<BTreeMap<&'static str, BTreeMap<Box<str>, Done>>>);

#[derive(Default)]
struct Done {
    took: Histogram,
    count: u64,
    failed: u64,
}

impl Requests {
    fn count(&self, operation: &'static str, resource: &str, began: Instant, failed: bool) {
        let took = began.elapsed();
        let mut requests = lock(&self.0);
        let requests = requests.entry(operation).or_default();
        if !requests.contains_key(resource) {
            if requests.len() >= RESOURCES_MAX {
                return;
            }
            requests.insert(resource.into(), Done::default());
        }
        let Some(done) = requests.get_mut(resource) else {
            return;
        };
        done.took.observe(took);
        done.count += 1;
        done.failed += u64::from(failed);
    }

    pub(super) fn render(&self, text: &mut Text) {
        let requests = lock(&self.0);
        let each = || {
            requests.iter().flat_map(|(operation, resources)| {
                let named = resources.iter();
                named.map(move |(resource, done)| ((*operation, resource), done))
            })
        };
        let pairs = |operation: &'static str, resource: &str| {
            [
                ("operation", operation.to_owned()),
                ("resource", resource.to_owned()),
            ]
        };
        let name = "etcd_request_duration_seconds";
        text.head(name, "histogram", "Time that requests to the store took.");
        for ((operation, resource), done) in each() {
            let pairs = pairs(operation, resource);
            let pairs = pairs
                .each_ref()
                .map(|(label, text)| (*label, text.as_str()));
            done.took.render(name, &pairs, text);
        }
        for (name, help, value) in [
            (
                "etcd_requests_total",
                "Requests to the store.",
                (|done| done.count) as fn(&Done) -> u64,
            ),
            (
                "etcd_request_errors_total",
                "Requests that the store failed to answer.",
                |done| done.failed,
            ),
        ] {
            text.head(name, "counter", help);
            for ((operation, resource), done) in each() {
                let pairs = pairs(operation, resource);
                let pairs = pairs
                    .each_ref()
                    .map(|(label, text)| (*label, text.as_str()));
                text.value(name, &pairs, value(done));
            }
        }
    }
}

/// How many objects there are of each resource that is served.
pub(super) async fn objects(state: &State, text: &mut Text) {
    let name = "apiserver_storage_objects";
    text.head(name, "gauge", "Objects in the store, by resource.");
    // As this server sees it: nobody else is asked.
    let at = Some(state.storage.revision());
    let mut seen = std::collections::BTreeSet::new();
    for row in state.registry.rows() {
        let resource = match row.group {
            "" => row.plural.to_owned(),
            group => format!("{}.{group}", row.plural),
        };
        // Several versions are one resource.
        if row.storage_prefix.is_empty() || !seen.insert(resource.clone()) {
            continue;
        }
        let range = Range {
            prefix: row.key_prefix(""),
            limit: 1,
            at,
            faulty: true,
            ..Range::default()
        };
        if let Ok(page) = state.storage.list(range).await {
            let count = page.entries.len() as u64 + page.remaining;
            text.value(name, &[("resource", &resource)], count);
        }
    }
}

/// A store whose requests are counted.
pub(crate) struct Measured {
    pub(crate) store: Arc<dyn Storage>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Measured {
    fn count<T>(
        &self,
        operation: &'static str,
        key: &str,
        began: Instant,
        answer: Result<T, Error>,
    ) -> Result<T, Error> {
        let failed = matches!(answer, Err(Error::Unavailable { .. }));
        let requests = &self.metrics.store;
        requests.count(operation, resource(key), began, failed);
        answer
    }
}

/// What stands behind `/registry/` in a key: the resource, for most of them.
fn resource(key: &str) -> &str {
    let rest = key.strip_prefix("/registry/").unwrap_or(key);
    let mut segments = rest.split('/');
    match (segments.next(), segments.next()) {
        (Some("services"), Some("specs")) => "services",
        (Some("services"), Some("endpoints")) => "endpoints",
        (Some("minions"), _) => "nodes",
        // A group, then the resource.
        (Some(group), Some(plural)) if group.contains('.') && !plural.is_empty() => {
            &rest[..group.len() + 1 + plural.len()]
        }
        (Some(first), _) => first,
        (None, _) => "",
    }
}

impl Storage for Measured {
    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn newest(&self) -> Answer<'_, Revision> {
        self.store.newest()
    }

    fn refuses_writes(&self) -> Option<Error> {
        self.store.refuses_writes()
    }

    fn keeps_house(&self) -> bool {
        self.store.keeps_house()
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move {
            let began = Instant::now();
            let answer = self.store.get(key).await;
            self.count("get", key, began, answer)
        })
    }

    fn list(&self, range: Range) -> Answer<'_, Page> {
        Box::pin(async move {
            let (began, prefix) = (Instant::now(), range.prefix.clone());
            let answer = self.store.list(range).await;
            self.count("list", &prefix, began, answer)
        })
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision> {
        Box::pin(async move {
            let began = Instant::now();
            let (operation, key) = match writes.first() {
                Some(Write::Create { key, .. }) => ("create", key.clone()),
                Some(Write::Update { key, .. }) => ("update", key.clone()),
                Some(Write::Delete { key, .. }) => ("delete", key.clone()),
                None => ("update", String::new()),
            };
            let answer = self.store.write(writes).await;
            self.count(operation, &key, began, answer)
        })
    }

    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>> {
        self.store.watch(prefix, from)
    }

    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        self.store.compact(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::resource;

    #[test]
    fn keys_tell_their_resource() {
        for (key, of) in [
            ("/registry/pods/default/a", "pods"),
            ("/registry/services/specs/default/a", "services"),
            ("/registry/services/endpoints/default/a", "endpoints"),
            ("/registry/minions/a", "nodes"),
            (
                "/registry/example.com/widgets/default/a",
                "example.com/widgets",
            ),
            ("/registry/apiextensions.k8s.io/", "apiextensions.k8s.io"),
            ("/registry/health", "health"),
            ("", ""),
        ] {
            assert_eq!(resource(key), of, "{key}");
        }
    }
}
