//! What every cluster begins with beside its namespaces and roles: APIServices of the groups that this server answers,
//! flow schemas and priority levels, the priority classes of the system, the range of Service addresses.

use api::meta::{self, Stamps};
use api::table::Resource;
use serde::Deserialize;
use serde_json::{Value, json};
use storage::{Error as StorageError, Write};
use time::OffsetDateTime;

use crate::{Error, State, write};

const FLOW: &str = "flowcontrol.apiserver.k8s.io";

/// Kept in our own file, which a test reads.
#[derive(Deserialize)]
struct Flow {
    kind: String,
    name: String,
    spec: Value,
}

/// Makes what is missing, in one write. What somebody changed stays.
pub(crate) async fn make(state: &State) -> Result<(), Error> {
    let now = OffsetDateTime::now_utc();
    let failed = |source| Error::Storage {
        doing: "writing what the cluster begins with",
        source,
    };
    let mut writes = Vec::new();
    let mut made = Vec::new();
    for (row, object) in objects(state, now) {
        let key = row.key("", meta::name(&object));
        if let Some(entry) = state.storage.get(&key).await.map_err(failed)? {
            if row.is("networking.k8s.io", "ServiceCIDR") {
                compare_ranges(&crate::object::decode(row, &entry), &object);
            }
            continue;
        }
        let value = write::stored_form(row, &new(row, &object, now)?);
        writes.push(Write::Create { key, value });
        made.push(row);
    }
    if writes.is_empty() {
        return Ok(());
    }
    match state.storage.write(writes).await {
        Ok(revision) => {
            made.dedup();
            for row in made {
                state.mirror.caught_up(row, revision).await;
            }
            Ok(())
        }
        // Another server over the same store makes the same.
        Err(StorageError::Exists { .. }) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Warns where the range that Services began with is another than the one given now.
fn compare_ranges(stored: &Value, given: &Value) {
    let ranges = |object: &Value| api::value::at(object, &["spec", "cidrs"]).to_string();
    if ranges(stored) != ranges(given) {
        tracing::warn!(
            stored = ranges(stored),
            given = ranges(given),
            "ServiceCIDR \"kubernetes\" differs from --service-cluster-ip-range, and Services get addresses of the \
             ServiceCIDR: give the flag as it was, and add the new range as a ServiceCIDR of its own"
        );
    }
}

/// The object as a create would store it; the status is the one given.
pub(crate) fn new(row: &Resource, object: &Value, now: OffsetDateTime) -> Result<Value, Error> {
    let mut new = object.clone();
    let stamps = Stamps {
        now,
        uid: uuid::Uuid::new_v4().to_string(),
        suffix: String::new(),
    };
    api::write::create(row, &mut new, "", &stamps).map_err(|status| Error::Bootstrap {
        what: format!("{} {:?}", row.kind, meta::name(object)),
        why: status.message,
    })?;
    if let Some(status) = object.get("status") {
        api::value::set(&mut new, "status", status.clone());
    }
    Ok(new)
}

fn objects(state: &State, now: OffsetDateTime) -> Vec<(&'static Resource, Value)> {
    let all = api_services()
        .chain(flow_control(now))
        .chain(priority_classes())
        .chain([service_range(state, now)]);
    all.filter_map(|object| {
        let (group, version) = api::value::text(&object, &["apiVersion"]).rsplit_once('/')?;
        let row = api::table::find_kind(group, version, api::value::text(&object, &["kind"]))?;
        Some((row, object))
    })
    .collect()
}

fn api_services() -> impl Iterator<Item = Value> {
    let served: std::collections::BTreeSet<(&str, &str)> = api::table::RESOURCES
        .iter()
        .map(|row| (row.group, row.version))
        .collect();
    served
        .into_iter()
        .filter_map(|(group, version)| api::api_service::local(group, version))
}

fn flow_control(now: OffsetDateTime) -> impl Iterator<Item = Value> {
    let flows: Vec<Flow> =
        serde_json::from_str(include_str!("flow_control.json")).unwrap_or_default();
    flows.into_iter().map(move |flow| {
        let level = api::value::text(&flow.spec, &["priorityLevelConfiguration", "name"]).to_owned();
        let mut object = json!({
            "apiVersion": format!("{FLOW}/v1"), "kind": flow.kind,
            "metadata": {
                "name": flow.name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"},
            },
            "spec": flow.spec,
        });
        if flow.kind == "FlowSchema" {
            let message = format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {} and it exists",
                api::field::quoted(&level)
            );
            object["status"] = json!({"conditions": [{
                "type": "Dangling", "status": "False", "reason": "Found", "message": message,
                "lastTransitionTime": meta::timestamp(now),
            }]});
        }
        object
    })
}

fn priority_classes() -> impl Iterator<Item = Value> {
    [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ]
    .into_iter()
    .map(|(name, value, description)| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description,
        })
    })
}

fn service_range(state: &State, now: OffsetDateTime) -> Value {
    let ranges: Vec<String> = state
        .config
        .service_cidrs
        .iter()
        .map(|cidr| cidr.trunc().to_string())
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
        "spec": {"cidrs": ranges},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
            "lastTransitionTime": meta::timestamp(now),
        }]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_begins_with_is_valid() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut count = 0;
        for object in api_services()
            .chain(flow_control(now))
            .chain(priority_classes())
        {
            let (group, version) = object["apiVersion"]
                .as_str()
                .unwrap()
                .rsplit_once('/')
                .unwrap();
            let row =
                api::table::find_kind(group, version, object["kind"].as_str().unwrap()).unwrap();
            let made = new(row, &object, now).unwrap_or_else(|error| panic!("{object}: {error}"));
            assert_eq!(made["metadata"]["name"], object["metadata"]["name"]);
            count += 1;
        }
        assert!(count > 30, "{count}");
    }
}
