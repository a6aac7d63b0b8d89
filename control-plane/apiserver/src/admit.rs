//! Admission of requests: plugins are given what they look up, and quotas are charged in the write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use admission::{Attributes, Lookup, Operation, Plugin, Warnings, account_name, quota};
use api::meta;
use api::status::Status;
use api::value::{at, entries, text};
use serde_json::Value;
use storage::{Error as StorageError, Range, Revision, Write};
use tokio::sync::OwnedMutexGuard;

use crate::handlers::{Call, storage_failure};
use crate::mirror::Mirror;
use crate::{Error, State, hooks, object, write};

/// How long a Pod waits for the account that every namespace is given in its first moments.
const ACCOUNT_WAIT: Duration = Duration::from_secs(1);
/// How often all quotas are counted anew, whatever their status says.
const RECOUNT: Duration = Duration::from_secs(300);
/// How often a count is tried again when somebody writes the quota in between.
const TRIES: usize = 8;
const QUOTAS: &str = "resourcequotas";

/// Which plugins run, and who is charging a quota.
pub(crate) struct Admission {
    plugins: Vec<&'static Plugin>,
    quotas: bool,
    /// By namespace, of those with quotas: whoever charges one holds the lock until his write is done.
    charging: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Admission {
    pub(crate) fn new(disabled: &[String]) -> Result<Self, Error> {
        let plugins = admission::enabled(disabled)
            .map_err(|name| Error::Config(format!("there is no admission plugin {name:?}")))?;
        Ok(Admission {
            quotas: plugins.iter().any(|plugin| plugin.name == quota::NAME),
            plugins,
            charging: Mutex::default(),
        })
    }

    pub(crate) fn runs(&self, name: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.name == name)
    }

    async fn lock(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut all = self
                .charging
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            all.retain(|name, lock| name == namespace || Arc::strong_count(lock) > 1);
            all.entry(namespace.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

impl Lookup for Mirror {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        Mirror::get(self, resource, namespace, name)
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        Mirror::list(self, resource, namespace)
    }

    fn decide(&self, attributes: &authorization::Attributes<'_>) -> authorization::Decision {
        Mirror::decide(self, attributes)
    }
}

/// What is to be admitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    pub(crate) dry_run: bool,
}

/// The name of the object that a request is about; one that is yet to be generated is told by what it begins with.
pub(crate) fn shown_name(call: &Call, object: &Value) -> String {
    let name = match (call.name.as_str(), meta::name(object)) {
        ("", "") => match text(object, &["metadata", "generateName"]) {
            "" => "Unknown",
            generate => generate,
        },
        ("", name) | (name, _) => name,
    };
    name.to_owned()
}

/// What plugins see of the request.
pub(crate) fn attributes<'a>(
    call: &'a Call,
    operation: Operation,
    name: &'a str,
    suffix: &'a str,
) -> Attributes<'a> {
    Attributes {
        operation,
        user: &call.user,
        group: call.row.group,
        resource: call.row.plural,
        subresource: call.subresource.map_or("", |sub| sub.name),
        namespace: &call.namespace,
        name,
        suffix,
    }
}

/// Lets plugins and webhooks change what was sent, defaults included.
pub(crate) async fn mutate(
    call: &Call,
    asked: Asked,
    new: &mut Value,
    old: Option<&Value>,
    suffix: &str,
) -> Result<(), Status> {
    let name = shown_name(call, new);
    let plugins = |new: &mut Value| {
        let attributes = attributes(call, asked.operation, &name, suffix);
        let plugins = &call.app.admission.plugins;
        admission::mutate(plugins, &attributes, new, old, &call.app.mirror)
    };
    plugins(new)?;
    if hooks::mutate(call, asked, Some(new), old).await? {
        // What a webhook made of it has to meet the same rules.
        plugins(new)?;
    }
    Ok(())
}

/// Lets plugins, policies and webhooks look at what is to be stored.
pub(crate) async fn validate(
    call: &Call,
    asked: Asked,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    hooks::check(call, new, old)?;
    look(call, asked.operation, new, old)?;
    if let Some(old) = old {
        Box::pin(held_anew(call, new, old)).await?;
    }
    hooks::validate(call, asked, Some(new), old).await
}

/// Warns whoever holds the Pods of a namespace to a stricter level of those that would not be let in any more.
async fn held_anew(call: &Call, new: &Value, old: &Value) -> Result<(), Status> {
    let is_namespace = call.row.group.is_empty() && call.row.plural == "namespaces";
    if !is_namespace || !call.app.admission.runs("PodSecurity") {
        return Ok(());
    }
    let Some(tightened) = admission::pod_security::Tightened::of(new, old) else {
        return Ok(());
    };
    let pods = api::table::find("", "v1", "pods").ok_or_else(Status::unknown_resource)?;
    let range = Range {
        prefix: pods.key_prefix(meta::name(new)),
        ..Range::default()
    };
    let page = call.app.storage.list(range).await;
    let page = page.map_err(|error| storage_failure(&error))?;
    let pods = page.entries.iter().map(|entry| object::decode(pods, entry));
    call.warn(tightened.warnings(meta::name(new), page.entries.len(), pods));
    Ok(())
}

/// Lets plugins, policies and webhooks look at what is to be deleted.
pub(crate) async fn deletion(call: &Call, current: &Value, dry_run: bool) -> Result<(), Status> {
    let asked = Asked {
        operation: Operation::Delete,
        dry_run,
    };
    hooks::mutate(call, asked, None, Some(current)).await?;
    look(call, asked.operation, current, None)?;
    hooks::validate(call, asked, None, Some(current)).await
}

/// Lets policies and webhooks look at who speaks to a Pod, a Service or a node, and how.
pub(crate) async fn connection(call: &Call, options: &Value) -> Result<(), Status> {
    let asked = Asked {
        operation: Operation::Connect,
        dry_run: false,
    };
    hooks::mutate(call, asked, Some(&mut options.clone()), None).await?;
    hooks::validate(call, asked, Some(options), None).await
}

fn look(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    let name = shown_name(call, new);
    let attributes = attributes(call, operation, &name, "");
    let plugins = &call.app.admission.plugins;
    let (mirror, mut warnings) = (&call.app.mirror, Warnings::new());
    admission::validate(plugins, &attributes, new, old, mirror, &mut warnings)?;
    if !warnings.is_empty() {
        call.warn(warnings);
    }
    Ok(())
}

/// Waits until what plugins look up is there: a namespace that was made through another server a moment ago, and the
/// account that a new namespace is about to get.
pub(crate) async fn ready(call: &Call, object: &Value) -> Result<(), Status> {
    let (app, namespace) = (&call.app, call.namespace.as_str());
    if namespace.is_empty() {
        return Ok(());
    }
    see(app, "namespaces", "", namespace).await?;
    let is_pod = call.row.group.is_empty() && call.row.plural == "pods";
    if !is_pod || !app.admission.runs("ServiceAccount") {
        return Ok(());
    }
    let name = account_name(object);
    let found = || app.mirror.get("serviceaccounts", namespace, name).is_some();
    if found() || app.mirror.get("namespaces", "", namespace).is_none() {
        return Ok(());
    }
    see(app, "serviceaccounts", namespace, name).await?;
    if name == "default"
        && !found()
        && let Some(mut changes) = app.mirror.changes("serviceaccounts")
    {
        let appears = async { while !found() && changes.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(ACCOUNT_WAIT, appears).await;
    }
    Ok(())
}

/// Looks in the store for what the mirror does not show.
async fn see(app: &State, plural: &str, namespace: &str, name: &str) -> Result<(), Status> {
    if app.mirror.get(plural, namespace, name).is_some() || name.contains('/') {
        return Ok(());
    }
    let Some(row) = api::table::find("", "v1", plural) else {
        return Ok(());
    };
    let entry = app.storage.get(&row.key(namespace, name)).await;
    if let Some(entry) = entry.map_err(|error| storage_failure(&error))? {
        app.mirror.caught_up(row, entry.modified).await;
    }
    Ok(())
}

/// What a write takes from quotas and gives back to them. To be kept until the write is done.
#[derive(Default)]
pub(crate) struct Charge {
    writes: Vec<Write>,
    _charging: Option<OwnedMutexGuard<()>>,
}

impl Charge {
    /// To be carried out with the object's own.
    pub(crate) fn writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }
}

/// Charges the quotas of the namespace with the change from `old` to `new`.
pub(crate) async fn charge(
    call: &Call,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<Charge, Status> {
    let app = &call.app;
    if !app.admission.quotas || call.namespace.is_empty() {
        return Ok(Charge::default());
    }
    let quotas = app.mirror.list(QUOTAS, &call.namespace);
    let concerned: Vec<_> = quotas
        .iter()
        .filter(|quota| {
            entries(quota, &["spec", "hard"])
                .any(|(name, _)| quota::measures(name, call.row.group, call.row.plural))
        })
        .collect();
    let Some(object) = new.or(old).filter(|_| !concerned.is_empty()) else {
        return Ok(Charge::default());
    };
    let Some(row) = api::table::find("", "v1", QUOTAS) else {
        return Ok(Charge::default());
    };
    let own = call.row.key(&call.namespace, meta::name(object));
    let mut charge = Charge {
        writes: Vec::new(),
        _charging: Some(app.admission.lock(&call.namespace).await),
    };
    let operation = if old.is_none() {
        Operation::Create
    } else {
        Operation::Update
    };
    for quota in concerned {
        let key = row.key(&call.namespace, meta::name(quota));
        // A quota does not charge itself: it is being written.
        if key == own {
            continue;
        }
        let entry = app.storage.get(&key).await;
        let Some(entry) = entry.map_err(|error| storage_failure(&error))? else {
            continue;
        };
        let current = object::decode(row, &entry);
        let name = shown_name(call, object);
        let attributes = attributes(call, operation, &name, "");
        let charged = quota::charge(&attributes, &current, new, old)?;
        if let Some(charged) = charged {
            charge.writes.push(Write::Update {
                key,
                value: write::stored_form(row, &charged),
                expected: entry.modified,
            });
        }
    }
    Ok(charge)
}

/// After a write: waits until decisions see it, and counts what a new quota limits.
pub(crate) async fn written(call: &Call, revision: Revision) {
    let app = &call.app;
    app.mirror.caught_up(call.row, revision).await;
    let is_quota = call.row.group.is_empty() && call.row.plural == QUOTAS;
    if is_quota && call.subresource.is_none() {
        settle(app, &call.namespace).await;
    }
}

/// Counts anew for the quotas of a namespace whose status is not of what they say now.
async fn settle(app: &State, namespace: &str) {
    for quota in app.mirror.list(QUOTAS, namespace) {
        if at(&quota, &["spec", "hard"]) != at(&quota, &["status", "hard"])
            && let Err(error) = recount(app, namespace, meta::name(&quota)).await
        {
            tracing::warn!(%error, namespace, "a quota could not be counted; it is tried again later");
        }
    }
}

async fn recount(app: &State, namespace: &str, name: &str) -> Result<(), StorageError> {
    let Some(row) = api::table::find("", "v1", QUOTAS) else {
        return Ok(());
    };
    let _charging = app.admission.lock(namespace).await;
    let key = row.key(namespace, name);
    for _ in 0..TRIES {
        let Some(entry) = app.storage.get(&key).await? else {
            return Ok(());
        };
        let mut quota = object::decode(row, &entry);
        let mut objects = Vec::new();
        for row in api::table::RESOURCES.iter().filter(|row| row.namespaced) {
            let measured = entries(&quota, &["spec", "hard"])
                .any(|(name, _)| quota::measures(name, row.group, row.plural));
            if !measured || !row.verbs.contains(&"list") {
                continue;
            }
            let range = Range {
                prefix: row.key_prefix(namespace),
                faulty: true,
                ..Range::default()
            };
            let page = app.storage.list(range).await?;
            let known = page.entries.iter().filter(|entry| entry.fault().is_none());
            objects.extend(known.map(|entry| (row.group, row.plural, object::decode(row, entry))));
        }
        let counted = objects
            .iter()
            .map(|(group, resource, object)| (*group, *resource, object));
        let status = quota::recount(&quota, counted);
        if *at(&quota, &["status"]) == status {
            return Ok(());
        }
        api::value::set(&mut quota, "status", status);
        let update = Write::Update {
            key: key.clone(),
            value: write::stored_form(row, &quota),
            expected: entry.modified,
        };
        match app.storage.write(vec![update]).await {
            Ok(revision) => {
                app.mirror.caught_up(row, revision).await;
                return Ok(());
            }
            Err(StorageError::Conflict { .. } | StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Counts all quotas anew from time to time; until it is dropped. What was written past the charging, or by another
/// server in the same moment, is made good by this.
pub(crate) async fn keep_counts(app: Arc<State>) {
    loop {
        for quota in app.mirror.list(QUOTAS, "") {
            let (namespace, name) = (meta::namespace(&quota), meta::name(&quota));
            if let Err(error) = recount(&app, namespace, name).await {
                tracing::warn!(%error, namespace, name, "a quota could not be counted");
            }
        }
        tokio::time::sleep(RECOUNT).await;
    }
}
