//! What decisions about requests look up: some resources, parsed, kept up to date by watching the store.
//!
//! Whoever writes one of these waits until his write is seen here ([`Mirror::caught_up`]), so that his next request is
//! decided by it. Other servers over the same store see it as soon as their watches do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use api::table::Resource;
use authorization::{Attributes, Decision, Rbac};
use futures_util::StreamExt as _;
use serde_json::Value;
use storage::{Change, Entry, Error, Range, Revision, Storage, WatchEvent};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::object;

/// The resources kept. Few objects of each, often looked up.
const KEPT: &[(&str, &str)] = &[
    ("", "limitranges"),
    ("", "namespaces"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("apiregistration.k8s.io", "apiservices"),
    (HOOKS, "mutatingadmissionpolicies"),
    (HOOKS, "mutatingadmissionpolicybindings"),
    (HOOKS, "mutatingwebhookconfigurations"),
    (HOOKS, "validatingadmissionpolicies"),
    (HOOKS, "validatingadmissionpolicybindings"),
    (HOOKS, "validatingwebhookconfigurations"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    (
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
    ),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "servicecidrs"),
    ("node.k8s.io", "runtimeclasses"),
    (RBAC, "clusterrolebindings"),
    (RBAC, "clusterroles"),
    (RBAC, "rolebindings"),
    (RBAC, "roles"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "storageclasses"),
];
const RBAC: &str = "rbac.authorization.k8s.io";
const HOOKS: &str = admission::hook::GROUP;
/// After a watch failed.
const RETRY: Duration = Duration::from_millis(200);
/// A writer does not wait longer for his own write to be seen.
const PATIENCE: Duration = Duration::from_secs(5);

type Objects = BTreeMap<Arc<str>, Arc<Value>>;

/// See the module.
pub(crate) struct Mirror {
    feeds: Vec<Arc<Feed>>,
    rbac: Arc<RwLock<Rbac>>,
    /// Ends with the mirror.
    _following: JoinSet<()>,
}

struct Feed {
    row: &'static Resource,
    /// By storage key.
    objects: RwLock<Objects>,
    /// The newest revision that is in `objects`.
    seen: watch::Sender<u64>,
    rbac: Arc<RwLock<Rbac>>,
    /// How often `objects` was changed.
    changed: AtomicU64,
    /// Read, and its watch goes on.
    followed: AtomicBool,
    /// Keys of what can't be read. What was read there before stays in `objects`.
    faulty: Mutex<BTreeSet<Arc<str>>>,
}

impl Mirror {
    /// Reads everything once, and follows it from there.
    pub(crate) async fn start(storage: &Arc<dyn Storage>) -> Result<Self, Error> {
        let rbac = Arc::new(RwLock::new(Rbac::default()));
        let mut feeds = Vec::new();
        let mut following = JoinSet::new();
        for (group, plural) in KEPT {
            let Some(row) = api::table::find(group, "v1", plural) else {
                continue;
            };
            let feed = Arc::new(Feed {
                row,
                objects: RwLock::default(),
                seen: watch::Sender::new(0),
                rbac: rbac.clone(),
                changed: AtomicU64::new(0),
                followed: AtomicBool::new(true),
                faulty: Mutex::default(),
            });
            let from = feed.load(&**storage).await?;
            following.spawn(follow(feed.clone(), storage.clone(), from));
            feeds.push(feed);
        }
        Ok(Mirror {
            feeds,
            rbac,
            _following: following,
        })
    }

    fn feed(&self, plural: &str) -> Option<&Arc<Feed>> {
        self.feeds.iter().find(|feed| feed.row.plural == plural)
    }

    /// An object of a kept resource.
    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let feed = self.feed(plural)?;
        let key = feed.row.key(namespace, name);
        feed.objects().get(key.as_str()).cloned()
    }

    /// All objects of a kept resource, of one namespace where one is given, in order of name.
    pub(crate) fn list(&self, plural: &str, namespace: &str) -> Vec<Arc<Value>> {
        let Some(feed) = self.feed(plural) else {
            return Vec::new();
        };
        let objects = feed.objects();
        if objects.is_empty() {
            return Vec::new();
        }
        let prefix = feed.row.key_prefix(namespace);
        objects
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Whether the user may.
    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        self.rbac().decide(attributes)
    }

    /// The roles and bindings. Not to be held over an await.
    pub(crate) fn rbac(&self) -> RwLockReadGuard<'_, Rbac> {
        self.rbac
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Resolves once a write of that resource at `revision` is seen here; at once where it is not kept.
    pub(crate) async fn caught_up(&self, row: &Resource, revision: Revision) {
        let feed = self.feeds.iter().find(|feed| feed.row == row);
        let Some(feed) = feed else { return };
        let mut seen = feed.seen.subscribe();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| *seen >= revision.0));
        if waited.await.is_err() {
            tracing::warn!(
                resource = row.plural,
                revision = revision.0,
                "a write is not seen by the watch that decisions are made from"
            );
        }
    }

    /// Whether every resource is followed.
    ///
    /// # Errors
    /// Names those that are not.
    pub(crate) fn complete(&self) -> Result<(), String> {
        let behind = self
            .feeds
            .iter()
            .filter(|feed| !feed.followed.load(Ordering::Relaxed));
        let behind: Vec<&str> = behind.map(|feed| feed.row.plural).collect();
        if !behind.is_empty() {
            return Err(format!("not followed: {}", behind.join(", ")));
        }
        let faulty = self.feeds.iter().flat_map(|feed| feed.faulty().clone());
        let faulty: Vec<Arc<str>> = faulty.collect();
        if !faulty.is_empty() {
            return Err(format!("not readable: {}", faulty.join(", ")));
        }
        Ok(())
    }

    /// How often a kept resource has changed: as long as it is the same, so are the objects.
    pub(crate) fn changed(&self, plural: &str) -> u64 {
        self.feed(plural)
            .map_or(0, |feed| feed.changed.load(Ordering::Acquire))
    }

    /// Told of each change of a kept resource.
    pub(crate) fn changes(&self, plural: &str) -> Option<watch::Receiver<u64>> {
        Some(self.feed(plural)?.seen.subscribe())
    }
}

impl Feed {
    fn objects(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn faulty(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.faulty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this what the store holds now.
    async fn load(&self, storage: &dyn Storage) -> Result<Revision, Error> {
        let range = Range {
            prefix: self.row.key_prefix(""),
            faulty: true,
            ..Range::default()
        };
        let page = storage.list(range).await?;
        let gone: Vec<Arc<str>> = self
            .objects()
            .keys()
            .chain(&*self.faulty())
            .filter(|key| !page.entries.iter().any(|entry| entry.key == **key))
            .cloned()
            .collect();
        for key in gone {
            self.remove(&key);
        }
        for entry in &page.entries {
            self.put(entry);
        }
        self.seen.send_replace(page.revision.0);
        Ok(page.revision)
    }

    fn put(&self, entry: &Entry) {
        if entry.fault().is_some() {
            self.faulty().insert(entry.key.clone());
            return;
        }
        self.faulty().remove(&entry.key);
        let object = object::decode(self.row, entry);
        self.teach(|rbac, binding| {
            if binding {
                rbac.put_binding(&object);
            } else {
                rbac.put_role(&object);
            }
        });
        self.objects
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .insert(entry.key.clone(), Arc::new(object));
        self.changed.fetch_add(1, Ordering::Release);
    }

    fn remove(&self, key: &Arc<str>) {
        self.faulty().remove(key);
        let Some(object) = self.objects().get(key).cloned() else {
            return;
        };
        let (namespace, name) = (api::meta::namespace(&object), api::meta::name(&object));
        self.teach(|rbac, binding| {
            if binding {
                rbac.remove_binding(namespace, name);
            } else {
                rbac.remove_role(namespace, name);
            }
        });
        self.objects
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .remove(key);
        self.changed.fetch_add(1, Ordering::Release);
    }

    /// Changes the index of roles and bindings where this feed is of one of them.
    fn teach(&self, change: impl FnOnce(&mut Rbac, bool)) {
        if self.row.group == RBAC {
            let mut rbac = self
                .rbac
                .write()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            change(&mut rbac, self.row.kind.ends_with("Binding"));
        }
    }

    fn take(&self, event: WatchEvent) {
        let revision = match event {
            WatchEvent::Change(Change::Put { entry, .. }) => {
                self.put(&entry);
                entry.modified
            }
            WatchEvent::Change(Change::Delete { revision, previous }) => {
                self.remove(&previous.key);
                revision
            }
            WatchEvent::Progress(revision) => revision,
        };
        self.seen.send_if_modified(|seen| {
            let newer = revision.0 > *seen;
            *seen = revision.0.max(*seen);
            newer
        });
    }
}

/// Until it is dropped.
async fn follow(feed: Arc<Feed>, storage: Arc<dyn Storage>, mut from: Revision) {
    loop {
        let watched = storage.watch(feed.row.key_prefix(""), Some(from)).await;
        match watched {
            Ok(mut events) => {
                feed.followed.store(true, Ordering::Relaxed);
                while let Some(event) = events.next().await {
                    match event {
                        Ok(event) => feed.take(event),
                        Err(error) => {
                            tracing::debug!(%error, resource = feed.row.plural, "a watch ended");
                            break;
                        }
                    }
                }
            }
            Err(error) => tracing::debug!(%error, resource = feed.row.plural, "can't watch"),
        }
        feed.followed.store(false, Ordering::Relaxed);
        tokio::time::sleep(RETRY).await;
        match feed.load(&*storage).await {
            Ok(revision) => from = revision,
            Err(error) => {
                tracing::warn!(%error, resource = feed.row.plural, "decisions are made from what was read before");
            }
        }
    }
}
