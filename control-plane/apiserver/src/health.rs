//! `/healthz`, `/livez` and `/readyz`: whether the server works, in the words that probes and people know. The checks
//! have the names of kube-apiserver's where they ask the same.

use std::fmt::Write as _;
use std::time::Duration;

use crate::State;
use crate::query::Query;
use crate::respond::{self, Answer};

/// How long the store may take to answer a check, as with kube-apiserver's `--etcd-healthcheck-timeout`.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Check {
    /// Nothing: who answers has done it before he could answer at all.
    Done,
    /// The store reads, and takes writes.
    Store,
    /// What decisions are made from is followed.
    Informers,
    /// The resources of CustomResourceDefinitions are served.
    Definitions,
    /// Nobody asked the server to end.
    Shutdown,
}

const ROLES: &str = "poststarthook/rbac/bootstrap-roles";
const PRIORITIES: &str = "poststarthook/scheduling/bootstrap-system-priority-classes";
const NAMESPACES: &str = "poststarthook/start-system-namespaces-controller";

/// In the order in which they are told.
const LIVE: &[(&str, Check)] = &[
    ("ping", Check::Done),
    ("log", Check::Done),
    ("etcd", Check::Store),
    (NAMESPACES, Check::Done),
    (ROLES, Check::Done),
    (PRIORITIES, Check::Done),
];
const READY: &[(&str, Check)] = &[
    ("ping", Check::Done),
    ("log", Check::Done),
    ("etcd", Check::Store),
    ("etcd-readiness", Check::Store),
    ("informer-sync", Check::Informers),
    ("poststarthook/crd-informer-synced", Check::Definitions),
    (NAMESPACES, Check::Done),
    (ROLES, Check::Done),
    (PRIORITIES, Check::Done),
    ("shutdown", Check::Shutdown),
];

/// Answers `ok`, or names what fails. `path` is one of the three, or one check of it such as `/readyz/etcd`.
pub(crate) async fn answer(state: &State, path: &str, query: &Query) -> Answer {
    let mut segments = path.trim_matches('/').splitn(2, '/');
    let (page, checks) = match segments.next().unwrap_or_default() {
        "readyz" => ("readyz", READY),
        "livez" => ("livez", LIVE),
        _ => ("healthz", LIVE),
    };
    if let Some(wanted) = segments.next() {
        let Some((name, check)) = checks.iter().find(|(check, _)| *check == wanted) else {
            return respond::text(404, "404 page not found\n");
        };
        let result = Seen::default().look(state, *check).await;
        state.metrics.checked(page, name, result.is_ok());
        return match result {
            Ok(()) => respond::text(200, "ok"),
            Err(why) => respond::text(500, format!("internal server error: {why}\n")),
        };
    }
    let mut excluded: Vec<&str> = query.values("exclude").collect();
    let (mut told, mut failed) = (String::new(), false);
    let mut seen = Seen::default();
    for (name, check) in checks {
        // Writing to a String can't fail, here and below.
        if excluded.contains(name) {
            excluded.retain(|excluded| excluded != name);
            let _ = writeln!(told, "[+]{name} excluded: ok");
            continue;
        }
        let result = seen.look(state, *check).await;
        state.metrics.checked(page, name, result.is_ok());
        let _ = match result {
            Ok(()) => writeln!(told, "[+]{name} ok"),
            // Causes may tell of paths and peers: they go to the log, and to who may ask for the check by its name.
            Err(why) => {
                failed = true;
                tracing::warn!(check = name, why, "a health check fails");
                writeln!(told, "[-]{name} failed: reason withheld")
            }
        };
    }
    if !excluded.is_empty() {
        let quoted: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let _ = writeln!(
            told,
            "warn: some health checks cannot be excluded: no matches for {}",
            quoted.join(", ")
        );
    }
    if failed {
        let _ = writeln!(told, "{page} check failed");
        return respond::text(500, told);
    }
    if query.values("verbose").next().is_none() {
        return respond::text(200, "ok");
    }
    let _ = writeln!(told, "{page} check passed");
    respond::text(200, told)
}

/// What was found out for one answer: a store that does not answer is not waited for twice.
#[derive(Default)]
struct Seen {
    store: Option<Result<(), String>>,
}

impl Seen {
    async fn look(&mut self, state: &State, check: Check) -> Result<(), String> {
        match check {
            Check::Done => Ok(()),
            Check::Store => self.store(state).await,
            Check::Informers => state.mirror.complete(),
            Check::Definitions => match state.registry.generation() {
                0 => Err("CustomResourceDefinitions are still being read".to_owned()),
                _ => Ok(()),
            },
            Check::Shutdown if *state.stopping.borrow() || *state.closing.borrow() => {
                Err("process is shutting down".to_owned())
            }
            Check::Shutdown => Ok(()),
        }
    }

    async fn store(&mut self, state: &State) -> Result<(), String> {
        if let Some(known) = &self.store {
            return known.clone();
        }
        let asked = tokio::time::timeout(PATIENCE, state.storage.get("/registry/health")).await;
        let found = match asked {
            Ok(Ok(_)) => match state.storage.refuses_writes() {
                Some(error) => Err(error.to_string()),
                None => Ok(()),
            },
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        self.store = Some(found.clone());
        found
    }
}
