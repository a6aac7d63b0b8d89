//! APIServices that name a Service: groups that another API server would answer for. Requests are not passed on to one;
//! what clients are told is what Kubernetes tells where that server cannot be reached.

use std::sync::Arc;
use std::time::Duration;

use api::meta;
use api::value::{at, items_mut, list, set, text};
use serde_json::{Value, json};
use storage::{Error as StorageError, Write};
use time::OffsetDateTime;

use crate::respond::{self, Answer};
use crate::{State, object, write};

const GROUP: &str = "apiregistration.k8s.io";
const API_SERVICES: &str = "apiservices";
/// How often it is looked whether the Services are there.
const EVERY: Duration = Duration::from_secs(5);

/// The answer to a request for a group and version that a Service would have to answer for.
pub(crate) fn unavailable(state: &State, group: &str, version: &str) -> Option<Answer> {
    let name = format!("{version}.{group}");
    let found = state.mirror.get(API_SERVICES, "", &name)?;
    let elsewhere = at(&found, &["spec", "service"]).is_object();
    elsewhere.then(|| respond::text(503, "service unavailable\n"))
}

/// Keeps the condition `Available` of these APIServices; until it is dropped.
pub(crate) async fn follow(state: Arc<State>) {
    let Some(mut changes) = state.mirror.changes(API_SERVICES) else {
        return;
    };
    loop {
        changes.mark_unchanged();
        let mut any = false;
        for service in state.mirror.list(API_SERVICES, "") {
            let wanted = at(&service, &["spec", "service"]);
            if !wanted.is_object() || meta::is_terminating(&service) {
                continue;
            }
            any = true;
            if let Err(error) = look(&state, &service, wanted).await {
                tracing::warn!(%error, name = meta::name(&service), "can't say whether an APIService is available");
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(EVERY), if any => {}
        }
    }
}

async fn look(state: &State, service: &Value, wanted: &Value) -> Result<(), StorageError> {
    let rows = (
        api::table::find("", "v1", "services"),
        api::table::find(GROUP, "v1", API_SERVICES),
    );
    let (Some(services), Some(row)) = rows else {
        return Ok(());
    };
    let (namespace, name) = (text(wanted, &["namespace"]), text(wanted, &["name"]));
    let found = state.storage.get(&services.key(namespace, name)).await?;
    let condition = condition(namespace, name, found.is_some());
    if stands(service, &condition) {
        return Ok(());
    }
    let key = row.key("", meta::name(service));
    let Some(entry) = state.storage.get(&key).await? else {
        return Ok(());
    };
    let mut current = object::decode(row, &entry);
    if meta::uid(&current) != meta::uid(service) || stands(&current, &condition) {
        return Ok(());
    }
    put(&mut current, condition, OffsetDateTime::now_utc());
    let change = Write::Update {
        key,
        value: write::stored_form(row, &current),
        expected: entry.modified,
    };
    match state.storage.write(vec![change]).await {
        // Somebody else was quicker; his change comes as one of its own.
        Ok(_) | Err(StorageError::Conflict { .. } | StorageError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn condition(namespace: &str, name: &str, there: bool) -> Value {
    let (reason, message) = if there {
        let why = "this server passes no requests on to other API servers";
        ("FailedDiscoveryCheck", why.to_owned())
    } else {
        let namespace = api::field::quoted(namespace);
        (
            "ServiceNotFound",
            format!("service/{name} in {namespace} is not present"),
        )
    };
    json!({"type": "Available", "status": "False", "reason": reason, "message": message})
}

/// Whether the object says so already.
fn stands(service: &Value, condition: &Value) -> bool {
    let conditions = list(service, &["status", "conditions"]);
    conditions.iter().any(|found| {
        ["type", "status", "reason", "message"]
            .iter()
            .all(|key| found[*key] == condition[*key])
    })
}

fn put(service: &mut Value, mut condition: Value, now: OffsetDateTime) {
    let before = list(service, &["status", "conditions"])
        .iter()
        .find(|found| found["type"] == condition["type"]);
    let since = match before {
        Some(before) if before["status"] == condition["status"] => {
            before["lastTransitionTime"].clone()
        }
        _ => meta::timestamp(now).into(),
    };
    set(&mut condition, "lastTransitionTime", since);
    let Some(status) = api::value::object_mut(service, "status") else {
        return;
    };
    let kind = condition["type"].clone();
    if let Some(found) = items_mut(status, "conditions").find(|found| found["type"] == kind) {
        *found = condition;
        return;
    }
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        Some(conditions) => conditions.push(condition),
        None => set(status, "conditions", json!([condition])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_change_when_the_service_does() {
        let mut service = json!({"metadata": {"name": "v1.x"}, "status": {}});
        let (first, later) = (
            OffsetDateTime::UNIX_EPOCH,
            OffsetDateTime::UNIX_EPOCH + EVERY,
        );
        let missing = condition("a", "b", false);
        assert!(!stands(&service, &missing));
        put(&mut service, missing.clone(), first);
        assert!(stands(&service, &missing));
        put(&mut service, condition("a", "b", true), later);
        let expected = json!([{
            "type": "Available", "status": "False", "reason": "FailedDiscoveryCheck",
            "message": "this server passes no requests on to other API servers",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }]);
        assert_eq!(service["status"]["conditions"], expected);
    }
}
