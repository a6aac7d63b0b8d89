//! APIServices of custom resources: made when a version of a group comes with its definitions, made again when somebody
//! takes them away, removed when the version goes. One that somebody wrote himself is his.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::meta;
use api::value::{at, set, text};
use serde_json::Value;
use storage::{Error as StorageError, Write};
use time::OffsetDateTime;
use tokio::time::sleep;

use super::{API_SERVICES, GROUP};
use crate::{State, defaults, object, write};

/// What the label is for those that are made here.
const MANAGED: (&str, &str) = ("kube-aggregator.kubernetes.io/automanaged", "true");
/// After the store failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Keeps these APIServices; until it is dropped.
pub(crate) async fn register(state: Arc<State>) {
    let Some(mut services) = state.mirror.changes(API_SERVICES) else {
        return;
    };
    let mut definitions = state.registry.changes();
    state.registry.until_read().await;
    loop {
        services.mark_unchanged();
        definitions.mark_unchanged();
        let kept = keep(&state).await;
        if let Err(error) = &kept {
            tracing::warn!(%error, "APIServices of custom resources can't be kept");
        }
        tokio::select! {
            changed = services.changed() => if changed.is_err() { return },
            changed = definitions.changed() => if changed.is_err() { return },
            () = sleep(AGAIN), if kept.is_err() => {}
        }
    }
}

async fn keep(state: &State) -> Result<(), StorageError> {
    let Some(row) = api::table::find(GROUP, "v1", API_SERVICES) else {
        return Ok(());
    };
    let (mut all, mut custom) = (BTreeSet::new(), BTreeSet::new());
    for served in state.registry.rows() {
        all.insert((served.group, served.version));
        if served.custom.is_some() {
            custom.insert((served.group, served.version));
        }
    }
    let mut writes = Vec::new();
    for (group, version) in custom {
        let Some(wanted) = api::api_service::local(group, version) else {
            continue;
        };
        let name = meta::name(&wanted);
        match state.mirror.get(API_SERVICES, "", name) {
            None => writes.extend(made(row, &wanted)),
            Some(found) if is_managed(&found) && found["spec"] != wanted["spec"] => {
                writes.extend(mended(state, row, name, &wanted).await?);
            }
            Some(_) => {}
        }
    }
    for found in state.mirror.list(API_SERVICES, "") {
        let spec = at(&found, &["spec"]);
        let served = all.contains(&(text(spec, &["group"]), text(spec, &["version"])));
        if is_managed(&found) && !served {
            let key = row.key("", meta::name(&found));
            let entry = state.storage.get(&key).await?;
            writes.extend(entry.map(|entry| Write::Delete {
                key,
                expected: entry.modified,
            }));
        }
    }
    for write in writes {
        match state.storage.write(vec![write]).await {
            // Somebody else was quicker; his change comes as one of its own.
            Ok(_)
            | Err(
                StorageError::Exists { .. }
                | StorageError::Conflict { .. }
                | StorageError::NotFound { .. },
            ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_managed(service: &Value) -> bool {
    text(service, &["metadata", "labels", MANAGED.0]) == MANAGED.1
}

fn made(row: &'static api::table::Resource, wanted: &Value) -> Option<Write> {
    match defaults::new(row, wanted, OffsetDateTime::now_utc()) {
        Ok(object) => Some(Write::Create {
            key: row.key("", meta::name(&object)),
            value: write::stored_form(row, &object),
        }),
        Err(error) => {
            tracing::error!(%error, "the APIService of a custom resource is refused");
            None
        }
    }
}

/// The one that is there, with what it should say.
async fn mended(
    state: &State,
    row: &'static api::table::Resource,
    name: &str,
    wanted: &Value,
) -> Result<Option<Write>, StorageError> {
    let key = row.key("", name);
    let Some(entry) = state.storage.get(&key).await? else {
        return Ok(None);
    };
    let mut current = object::decode(row, &entry);
    set(&mut current, "spec", wanted["spec"].clone());
    Ok(Some(Write::Update {
        key,
        value: write::stored_form(row, &current),
        expected: entry.modified,
    }))
}
