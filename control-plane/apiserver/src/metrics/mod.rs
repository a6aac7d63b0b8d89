//! What the server counts about itself, in Prometheus' text format, under the names and labels of kube-apiserver.

mod histogram;
mod process;
mod store;
mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::table::Resource;

use crate::State;
use histogram::Histogram;
pub(crate) use store::Measured;
use text::Text;

/// A request, in the words of kube-apiserver's labels. All of them are known beforehand, so that they stay few whatever
/// is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Labels {
    /// `GET`, `LIST`, `WATCH`, `APPLY` and so on.
    pub(crate) verb: &'static str,
    /// `All`, or empty.
    pub(crate) dry_run: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// The plural; empty where a path names no resource.
    pub(crate) resource: &'static str,
    pub(crate) subresource: &'static str,
    /// `resource`, `namespace`, `cluster`, or empty.
    pub(crate) scope: &'static str,
}

impl Labels {
    fn pairs(&self) -> [(&'static str, &'static str); 8] {
        [
            ("verb", self.verb),
            ("dry_run", self.dry_run),
            ("group", self.group),
            ("version", self.version),
            ("resource", self.resource),
            ("subresource", self.subresource),
            ("scope", self.scope),
            ("component", "apiserver"),
        ]
    }

    /// Whether it is answered for as long as the client likes.
    pub(crate) fn long_running(&self) -> bool {
        self.verb == "WATCH"
            || matches!(
                self.subresource,
                "proxy" | "attach" | "exec" | "portforward" | "log"
            )
    }

    fn mutating(&self) -> bool {
        !matches!(self.verb, "GET" | "LIST" | "WATCH")
    }
}

/// Counters and gauges of one server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(Labels, u16), u64>>,
    durations: Mutex<BTreeMap<Labels, Histogram>>,
    /// Being answered: those that read and those that write.
    inflight: [AtomicI64; 2],
    long_running: Mutex<BTreeMap<Labels, Arc<AtomicI64>>>,
    watch_events:
        Mutex<BTreeMap<(&'static str, &'static str, &'static str, &'static str), Arc<AtomicU64>>>,
    pub(crate) store: store::Requests,
    /// By check: whether it held when it was looked at last.
    checks: Mutex<BTreeMap<(&'static str, &'static str), bool>>,
}

/// Counts a request for as long as it is being answered.
pub(crate) struct Answering {
    metrics: Arc<Metrics>,
    kind: usize,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.metrics.inflight[self.kind].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a watcher for as long as it lives, and the events that it is sent.
pub(crate) struct Watching {
    watchers: Arc<AtomicI64>,
    events: Arc<AtomicU64>,
}

impl Watching {
    /// How many watchers of the resource there are.
    pub(crate) fn watchers(&self) -> u32 {
        u32::try_from(self.watchers.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// One more event.
    pub(crate) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request as being answered, unless it is one that takes as long as the client likes.
    pub(crate) fn answering(self: &Arc<Self>, labels: &Labels) -> Option<Answering> {
        if labels.long_running() {
            return None;
        }
        let kind = usize::from(labels.mutating());
        self.inflight[kind].fetch_add(1, Ordering::Relaxed);
        Some(Answering {
            metrics: self.clone(),
            kind,
        })
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, labels: Labels, code: u16, took: Duration) {
        *lock(&self.requests).entry((labels, code)).or_default() += 1;
        if !labels.long_running() {
            lock(&self.durations)
                .entry(labels)
                .or_default()
                .observe(took);
        }
    }

    /// Counts one more watcher of the resource until the value returned is dropped.
    pub(crate) fn watching(&self, row: &'static Resource, namespaced: bool) -> Watching {
        let labels = Labels {
            verb: "WATCH",
            dry_run: "",
            group: row.group,
            version: row.version,
            resource: row.plural,
            subresource: "",
            scope: if namespaced { "namespace" } else { "cluster" },
        };
        let watchers = lock(&self.long_running).entry(labels).or_default().clone();
        watchers.fetch_add(1, Ordering::Relaxed);
        let key = (row.group, row.version, row.kind, row.plural);
        let events = lock(&self.watch_events).entry(key).or_default().clone();
        Watching { watchers, events }
    }

    /// Remembers how a check of `healthz`, `livez` or `readyz` came out.
    pub(crate) fn checked(&self, page: &'static str, check: &'static str, holds: bool) {
        lock(&self.checks).insert((page, check), holds);
    }

    /// The text of `/metrics`.
    pub(crate) async fn render(&self, state: &State) -> String {
        let mut text = Text::default();
        self.render_requests(&mut text);
        self.store.render(&mut text);
        store::objects(state, &mut text).await;
        if let Some(audit) = &state.audit {
            let (events, lost) = audit.counts();
            let name = "apiserver_audit_event_total";
            text.head(name, "counter", "Events recorded in the audit log.");
            text.value(name, &[], events);
            let name = "apiserver_audit_error_total";
            text.head(name, "counter", "Audit events that were lost, by plugin.");
            for (plugin, lost) in lost {
                text.value(name, &[("plugin", plugin)], lost);
            }
        }
        let name = "fairlead_storage_revision";
        text.head(name, "gauge", "Newest revision of the storage.");
        text.value(name, &[], state.storage.revision().0);
        let name = "kubernetes_healthcheck";
        text.head(
            name,
            "gauge",
            "Result of each health check when it was last made.",
        );
        for ((page, check), holds) in &*lock(&self.checks) {
            text.value(name, &[("name", check), ("type", page)], u8::from(*holds));
        }
        let name = "kubernetes_build_info";
        text.head(name, "gauge", "The version, as labels of a constant 1.");
        let version = crate::kubernetes_version();
        let pairs = [
            ("git_version", version.as_str()),
            ("platform", std::env::consts::OS),
        ];
        text.value(name, &pairs, 1);
        process::render(&mut text);
        text.0
    }

    fn render_requests(&self, text: &mut Text) {
        let name = "apiserver_request_total";
        let help = "Requests answered, by verb, resource and HTTP code.";
        text.head(name, "counter", help);
        for ((labels, code), count) in &*lock(&self.requests) {
            let code = code.to_string();
            let mut pairs = labels.pairs().to_vec();
            pairs.push(("code", &code));
            text.value(name, &pairs, count);
        }
        let name = "apiserver_request_duration_seconds";
        let help = "Time from the arrival of a request to its answer, watches aside.";
        text.head(name, "histogram", help);
        for (labels, histogram) in &*lock(&self.durations) {
            histogram.render(name, &labels.pairs(), text);
        }
        let name = "apiserver_current_inflight_requests";
        text.head(name, "gauge", "Requests being answered, watches aside.");
        for (kind, word) in ["readOnly", "mutating"].into_iter().enumerate() {
            let count = self.inflight[kind].load(Ordering::Relaxed);
            text.value(name, &[("request_kind", word)], count);
        }
        let name = "apiserver_longrunning_requests";
        text.head(name, "gauge", "Watches being served.");
        for (labels, count) in &*lock(&self.long_running) {
            let pairs: Vec<_> = labels
                .pairs()
                .into_iter()
                .filter(|(label, _)| *label != "dry_run")
                .collect();
            text.value(name, &pairs, count.load(Ordering::Relaxed));
        }
        let name = "apiserver_watch_events_total";
        text.head(name, "counter", "Events sent to watchers.");
        for ((group, version, kind, resource), count) in &*lock(&self.watch_events) {
            let pairs = [
                ("group", *group),
                ("version", *version),
                ("kind", *kind),
                ("resource", *resource),
            ];
            text.value(name, &pairs, count.load(Ordering::Relaxed));
        }
    }
}

/// A panic of another holder leaves what these locks guard whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
