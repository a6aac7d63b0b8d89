//! The condition `Available` of APIServices: what it says, and how it is kept.

use api::meta;
use api::value::{at, flag, items_mut, list, number, set, text};
use serde_json::{Value, json};
use storage::{Error as StorageError, Write};
use time::OffsetDateTime;

use super::{API_SERVICES, GROUP, Route};
use crate::{State, object, write};

/// Why an API server cannot be reached, as the condition says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Whether the Service has somebody who answers, as far as objects say. Where it has an address of the cluster, one of
/// its ports has to be the one that is asked for, and one of its endpoints has to have it.
pub(super) fn behind(route: &Route, service: Option<&Value>, slices: &[Value]) -> Option<Fault> {
    let quoted = api::field::quoted;
    let named = format!("service/{} in {}", route.service, quoted(&route.namespace));
    let fault = |reason, message| Some(Fault { reason, message });
    let Some(service) = service else {
        return fault("ServiceNotFound", format!("{named} is not present"));
    };
    if text(service, &["spec", "type"]) != "ClusterIP" {
        return None;
    }
    let port = list(service, &["spec", "ports"])
        .iter()
        .find(|port| number(port, &["port"]) == i64::from(route.port));
    let Some(port) = port else {
        let message = format!("{named} is not listening on port {}", route.port);
        return fault("ServicePortError", message);
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for {named}");
        return fault("EndpointsNotFound", message);
    }
    let port = text(port, &["name"]);
    let answers = |slice: &Value| {
        let has_port = list(slice, &["ports"])
            .iter()
            .any(|candidate| text(candidate, &["name"]) == port);
        has_port && list(slice, &["endpoints"]).iter().any(is_ready)
    };
    if slices.iter().any(answers) {
        return None;
    }
    let port = quoted(port);
    let message = format!("endpoints for {named} have no addresses with port name {port}");
    fault("MissingEndpoints", message)
}

fn is_ready(endpoint: &Value) -> bool {
    let ready = at(endpoint, &["conditions", "ready"]);
    ready.is_null() || flag(endpoint, &["conditions", "ready"])
}

/// The condition; `None`: all is well.
pub(super) fn condition(fault: Option<&Fault>) -> Value {
    let (status, reason, message) = match fault {
        Some(fault) => ("False", fault.reason, fault.message.as_str()),
        None => ("True", "Passed", "all checks passed"),
    };
    json!({"type": "Available", "status": status, "reason": reason, "message": message})
}

/// Writes the condition to the APIService, if it is the one of this uid and does not say so already.
pub(super) async fn keep(
    state: &State,
    service: &Value,
    condition: Value,
) -> Result<(), StorageError> {
    let Some(row) = api::table::find(GROUP, "v1", API_SERVICES) else {
        return Ok(());
    };
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::backend::{Backend, Trust};
    use super::*;

    fn missing() -> Fault {
        Fault {
            reason: "MissingEndpoints",
            message: "nobody".into(),
        }
    }

    #[test]
    fn conditions_change_when_the_service_does() {
        let mut service = json!({"metadata": {"name": "v1.x"}, "status": {}});
        let first = OffsetDateTime::UNIX_EPOCH;
        let later = first + Duration::from_secs(5);
        let absent = condition(Some(&missing()));
        assert!(!stands(&service, &absent));
        put(&mut service, absent.clone(), first);
        assert!(stands(&service, &absent));
        let other = Fault {
            reason: "FailedDiscoveryCheck",
            ..missing()
        };
        put(&mut service, condition(Some(&other)), later);
        let told = |service: &Value| {
            let condition = &service["status"]["conditions"][0];
            ["status", "reason", "lastTransitionTime"]
                .map(|key| condition[key].as_str().unwrap_or_default().to_owned())
        };
        let expected = ["False", "FailedDiscoveryCheck", "1970-01-01T00:00:00Z"];
        assert_eq!(told(&service), expected);
        put(&mut service, condition(None), later);
        assert_eq!(told(&service), ["True", "Passed", "1970-01-01T00:00:05Z"]);
    }

    #[test]
    fn what_objects_say_of_who_answers() {
        let dir = tempfile::tempdir().unwrap();
        let pki = crate::pki::Pki::load_or_make(dir.path(), &Default::default()).unwrap();
        let trust = Trust {
            name: "b.a.svc".into(),
            bundle: String::new(),
            anybody: true,
        };
        let route = Route {
            name: "v1.x".into(),
            group: "x".into(),
            version: "v1".into(),
            namespace: "a".into(),
            service: "b".into(),
            port: 443,
            available: false,
            backend: Arc::new(Backend::new(trust, &pki)),
        };
        let service = |kind: &str, port: u16| json!({"spec": {"type": kind, "ports": [{"name": "https", "port": port}]}});
        let slice = |port: &str, ready: Value| {
            json!({
                "ports": [{"name": port, "port": 8443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
            })
        };
        let unready = slice("https", false.into());
        let none = "MissingEndpoints: endpoints for service/b in \"a\" have no addresses with port name \"https\"";
        #[rustfmt::skip]
        let cases = [
            (None, vec![], "ServiceNotFound: service/b in \"a\" is not present"),
            (Some(service("ClusterIP", 80)), vec![], "ServicePortError: service/b in \"a\" is not listening on port 443"),
            (Some(service("ClusterIP", 443)), vec![], "EndpointsNotFound: cannot find endpointslices for service/b in \"a\""),
            (Some(service("ClusterIP", 443)), vec![unready.clone()], none),
            (Some(service("ClusterIP", 443)), vec![slice("http", true.into())], none),
            (Some(service("ClusterIP", 443)), vec![unready, slice("https", true.into())], ""),
            (Some(service("ClusterIP", 443)), vec![slice("https", Value::Null)], ""),
            (Some(service("ExternalName", 1)), vec![], ""),
        ];
        for (service, slices, expected) in cases {
            let found = behind(&route, service.as_ref(), &slices);
            let found = found.map_or_else(String::new, |f| format!("{}: {}", f.reason, f.message));
            assert_eq!(found, expected);
        }
    }
}
