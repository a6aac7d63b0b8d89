//! What the server counts about itself, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One line of `apiserver_request_total`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Labels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    code: u16,
}

/// Counters and gauges of one server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Labels, u64>>,
    watchers: AtomicI64,
}

/// Counts a watcher for as long as it lives.
pub(crate) struct Watching(std::sync::Arc<Metrics>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts an answer. `resource` is a row of the table, so that labels stay few whatever paths are asked for.
    pub(crate) fn answered(
        &self,
        verb: &'static str,
        resource: Option<&'static api::table::Resource>,
        code: u16,
    ) {
        let labels = Labels {
            verb,
            group: resource.map_or("", |row| row.group),
            version: resource.map_or("", |row| row.version),
            resource: resource.map_or("", |row| row.plural),
            code,
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(labels).or_default() += 1;
    }

    /// Counts one more watcher until the value returned is dropped.
    pub(crate) fn watching(self: &std::sync::Arc<Self>) -> Watching {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(self.clone())
    }

    /// The text of `/metrics`.
    pub(crate) fn render(&self, revision: u64) -> String {
        let mut text = String::from(
            "# HELP apiserver_request_total Requests answered, by verb, resource and HTTP code.\n\
             # TYPE apiserver_request_total counter\n",
        );
        for (labels, count) in self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let Labels {
                verb,
                group,
                version,
                resource,
                code,
            } = labels;
            // Writing to a String can't fail.
            let _ = writeln!(
                text,
                "apiserver_request_total{{verb=\"{verb}\",group=\"{group}\",version=\"{version}\",\
                 resource=\"{resource}\",code=\"{code}\"}} {count}"
            );
        }
        let watchers = self.watchers.load(Ordering::Relaxed);
        let _ = write!(
            text,
            "# HELP apiserver_longrunning_requests Watches being served.\n\
             # TYPE apiserver_longrunning_requests gauge\n\
             apiserver_longrunning_requests{{verb=\"watch\"}} {watchers}\n\
             # HELP fairlead_storage_revision Newest revision of the storage.\n\
             # TYPE fairlead_storage_revision gauge\n\
             fairlead_storage_revision {revision}\n"
        );
        text
    }
}
