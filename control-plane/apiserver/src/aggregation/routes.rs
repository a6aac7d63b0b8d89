//! Which groups and versions somebody else answers for, and which come first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::meta;
use api::value::{at, flag, list, number, text};
use arc_swap::{ArcSwap, Guard};
use serde_json::Value;

use super::API_SERVICES;
use super::backend::{Backend, Trust};
use super::told::Told;
use crate::mirror::Mirror;
use crate::pki::Pki;

/// A version of a group that a Service answers for.
pub(crate) struct Route {
    /// The APIService's.
    pub(super) name: String,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: String,
    /// Of the Service.
    pub(super) service: String,
    pub(super) port: u16,
    /// Whether the condition of that name holds.
    pub(super) available: bool,
    pub(super) backend: Arc<Backend>,
}

impl Route {
    fn new(service: &Value, backend: impl FnOnce(Trust) -> Arc<Backend>) -> Option<Self> {
        let spec = at(service, &["spec"]);
        let wanted = at(spec, &["service"]);
        // The core group is ours whatever anybody writes.
        if !wanted.is_object() || text(spec, &["group"]).is_empty() {
            return None;
        }
        let (namespace, name) = (text(wanted, &["namespace"]), text(wanted, &["name"]));
        let available = list(service, &["status", "conditions"])
            .iter()
            .find(|condition| text(condition, &["type"]) == "Available");
        Some(Route {
            name: meta::name(service).to_owned(),
            group: text(spec, &["group"]).to_owned(),
            version: text(spec, &["version"]).to_owned(),
            namespace: namespace.to_owned(),
            service: name.to_owned(),
            port: u16::try_from(number(wanted, &["port"])).unwrap_or(443),
            available: available.is_some_and(|condition| text(condition, &["status"]) == "True"),
            backend: backend(Trust {
                name: format!("{name}.{namespace}.svc"),
                bundle: text(spec, &["caBundle"]).to_owned(),
                anybody: flag(spec, &["insecureSkipTLSVerify"]),
            }),
        })
    }

    /// `apis/metrics.k8s.io/v1beta1`.
    pub(super) fn root(&self) -> String {
        format!("apis/{}/{}", self.group, self.version)
    }
}

/// Of the group and of the version; the higher comes first.
pub(super) type Priority = (i64, i64);

/// What all APIServices say at one moment.
#[derive(Default)]
pub(crate) struct Routes {
    /// Of the mirror.
    generation: Option<u64>,
    remote: BTreeMap<(String, String), Arc<Route>>,
    priorities: BTreeMap<(String, String), Priority>,
}

impl Routes {
    /// Who answers for a version of a group, if not this server.
    pub(super) fn find(&self, group: &str, version: &str) -> Option<&Arc<Route>> {
        if self.remote.is_empty() {
            return None;
        }
        self.remote.get(&(group.to_owned(), version.to_owned()))
    }

    pub(super) fn remote(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.remote.values()
    }

    /// What the APIService says; `None`: there is none.
    pub(super) fn priority(&self, group: &str, version: &str) -> Option<Priority> {
        let key = (group.to_owned(), version.to_owned());
        self.priorities.get(&key).copied()
    }
}

/// What is known of other API servers.
pub(crate) struct Aggregator {
    routes: ArcSwap<Routes>,
    /// With whose certificate requests are passed on.
    pki: ArcSwap<Pki>,
    /// By name of the APIService.
    told: Mutex<BTreeMap<String, Arc<Told>>>,
    /// How often `told` has changed.
    generation: AtomicU64,
}

impl Aggregator {
    pub(crate) fn new(pki: &Pki) -> Self {
        Aggregator {
            routes: ArcSwap::default(),
            pki: ArcSwap::from_pointee(pki.clone()),
            told: Mutex::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// Shows this certificate from now on.
    pub(crate) fn shows(&self, pki: &Pki) {
        if self.pki.load().front.cert != pki.front.cert {
            self.pki.store(Arc::new(pki.clone()));
            self.routes.store(Arc::default());
        }
    }

    /// What the APIServices say that were written until now.
    pub(super) fn routes(&self, mirror: &Mirror) -> Guard<Arc<Routes>> {
        let generation = mirror.changed(API_SERVICES);
        let known = self.routes.load();
        if known.generation == Some(generation) {
            return known;
        }
        let routes = Arc::new(self.read(generation, mirror, &known));
        self.routes.store(routes.clone());
        Guard::from_inner(routes)
    }

    fn read(&self, generation: u64, mirror: &Mirror, before: &Routes) -> Routes {
        let mut routes = Routes {
            generation: Some(generation),
            ..Routes::default()
        };
        for service in mirror.list(API_SERVICES, "") {
            let spec = at(&service, &["spec"]);
            let key = (
                text(spec, &["group"]).to_owned(),
                text(spec, &["version"]).to_owned(),
            );
            let priority = (
                number(spec, &["groupPriorityMinimum"]),
                number(spec, &["versionPriority"]),
            );
            routes.priorities.insert(key.clone(), priority);
            // Connections that are open stay.
            let backend = |trust: Trust| match before.remote.get(&key) {
                Some(route) if route.backend.trust == trust => route.backend.clone(),
                _ => Arc::new(Backend::new(trust, &self.pki.load())),
            };
            if let Some(route) = Route::new(&service, backend) {
                routes.remote.insert(key, Arc::new(route));
            }
        }
        routes
    }

    /// Who answers a request for this path, if not this server.
    pub(crate) fn route(&self, mirror: &Mirror, path: &str) -> Option<Arc<Route>> {
        let routes = self.routes(mirror);
        if routes.remote.is_empty() {
            return None;
        }
        let mut segments = path.strip_prefix("/apis/")?.split('/');
        routes.find(segments.next()?, segments.next()?).cloned()
    }

    /// What the API server behind an APIService said last.
    pub(super) fn told(&self, name: &str) -> Option<Arc<Told>> {
        self.all_told().get(name).cloned()
    }

    /// Keeps what was said; `None`: nothing any more.
    pub(super) fn learn(&self, name: &str, told: Option<Told>) {
        let mut all = self.all_told();
        let changed = all.get(name).map(|known| &**known) != told.as_ref();
        match told {
            Some(told) => all.insert(name.to_owned(), Arc::new(told)),
            None => all.remove(name),
        };
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Changes when somebody said something else than before.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn all_told(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Told>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
