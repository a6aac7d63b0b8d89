//! Repairs of claims while the server runs, and Events for what only the owner of a Service can mend.

use std::sync::Arc;
use std::time::Duration;

use api::meta;
use futures_util::StreamExt as _;
use http::Method;
use serde_json::json;
use storage::{Change, Error, Storage, WatchEvent};

use super::ADDRESSES;
use super::repair::{self, Conflict};
use crate::{State, bootstrap};

/// How often Services and claims are compared, as Kubernetes' repair controllers do.
const PERIOD: Duration = Duration::from_secs(180);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Repairs from time to time, and at once where the IPAddress of a Service is deleted; until it is dropped.
pub(crate) async fn keep(app: Arc<State>) {
    let mut conflicts = app.allocator.take_conflicts();
    loop {
        for conflict in &conflicts {
            tell(&app, conflict).await;
        }
        match tokio::time::timeout(PERIOD, address_lost(&*app.storage)).await {
            Err(_) | Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "watching the addresses of Services");
                tokio::time::sleep(RETRY).await;
            }
        }
        conflicts = match app.allocator.repair().await {
            Ok(conflicts) => conflicts,
            Err(error) => {
                tracing::warn!(%error, "the claims of Services could not be looked through");
                tokio::time::sleep(RETRY).await;
                Vec::new()
            }
        };
    }
}

/// Resolves when an IPAddress is deleted whose Service still has the address, or at the end of the watch.
async fn address_lost(storage: &dyn Storage) -> Result<(), Error> {
    let mut changes = storage.watch(ADDRESSES.to_owned(), None).await?;
    while let Some(event) = changes.next().await {
        if let WatchEvent::Change(Change::Delete { previous, .. }) = event?
            && repair::is_held(storage, &previous).await?
        {
            return Ok(());
        }
    }
    Ok(())
}

async fn tell(app: &Arc<State>, conflict: &Conflict) {
    let Conflict {
        service,
        reason,
        message,
    } = conflict;
    let (namespace, name) = (meta::namespace(service), meta::name(service));
    let now = meta::timestamp(time::OffsetDateTime::now_utc());
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        // One for each Service and reason: a repair that finds the same again writes over it.
        "metadata": {"name": format!("{name}.{}", reason.to_ascii_lowercase()), "namespace": namespace},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Service", "namespace": namespace, "name": name,
            "uid": meta::uid(service), "resourceVersion": meta::resource_version(service),
        },
        "type": "Warning", "reason": reason, "message": message,
        "source": {"component": "ipallocator-repair-controller"},
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    });
    let path = format!(
        "/api/v1/namespaces/{namespace}/events/{}",
        meta::name(&event)
    );
    if let Err(error) = bootstrap::send(app, Method::PUT, &path, &event).await {
        tracing::warn!(%error, namespace, name, message, "no Event could be written of this");
    }
}
