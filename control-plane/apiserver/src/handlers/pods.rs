//! What is done to a Pod through paths of its own: sending it to a node, and evicting it where a PodDisruptionBudget
//! allows.

use api::selector::LabelSelector;
use api::status::{Cause, Details, Status};
use api::table::Resource;
use api::value::{at, list, number, object_mut, set, text};
use api::write::Deletion;
use api::{meta, pod_parts};
use serde_json::{Value, json};
use storage::Range;
use time::OffsetDateTime;

use super::token::find;
use super::{Call, delete, storage_failure};
use crate::options::WriteOptions;
use crate::respond::{self, Answer};
use crate::write::{self, Wish};
use crate::{body, object};

/// Where nodes stand, which their Pods' labels say as well.
const PLACES: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// Gives a Binding the labels of its node that say where that is (KEP-4742, PodTopologyLabelsAdmission).
async fn name_place(call: &Call, binding: &mut Value) -> Result<(), Status> {
    let row = api::table::find("", "v1", "nodes").ok_or_else(Status::unknown_resource)?;
    let Some(node) = find(call, row, "", text(binding, &["target", "name"])).await? else {
        return Ok(());
    };
    let node = object::decode(row, &node);
    for place in PLACES {
        let label = at(&node, &["metadata", "labels", place]);
        if !label.is_null()
            && let Some(metadata) = object_mut(binding, "metadata")
            && let Some(labels) = object_mut(metadata, "labels")
        {
            set(labels, place, label.clone());
        }
    }
    Ok(())
}

/// POST of a Binding, to the Pod or to the collection of bindings.
pub(crate) async fn bind(call: &Call) -> Result<Answer, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut binding = body::of_kind(call, &["v1"], "Binding")?;
    let pods = pods()?;
    let sent = meta::name(&binding);
    let name = if call.name.is_empty() {
        sent.to_owned()
    } else {
        if sent != call.name {
            return Err(Status::bad_request(
                "name in URL does not match name in Binding object",
            ));
        }
        call.name.clone()
    };
    let mut target = call.with_name(&call.namespace, &name);
    target.row = pods;
    target.subresource = None;
    name_place(call, &mut binding).await?;
    write::modify(&target, options.dry_run, |pod| {
        pod_parts::bind(pod, &binding, OffsetDateTime::now_utc()).map(Wish::Put)
    })
    .await?;
    Ok(success(call))
}

fn pods() -> Result<&'static Resource, Status> {
    api::table::find("", "v1", "pods").ok_or_else(Status::unknown_resource)
}

fn success(call: &Call) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    respond::value(201, call.accepted.encoding, &status)
}

/// Evictions that the budget's controller has not yet seen done.
const DISRUPTED_MAX: usize = 2000;
/// How often an eviction is tried anew when others change the budget at the same time.
const TRIES: usize = 32;
/// Seconds that a client is asked to wait while a budget is new.
const NEW_BUDGET_SECS: u32 = 10;

/// POST of an Eviction.
pub(crate) async fn evict(call: &Call) -> Result<Answer, Status> {
    let eviction = body::of_kind(call, &["policy/v1", "policy/v1beta1"], "Eviction")?;
    let sent = meta::name(&eviction);
    if !sent.is_empty() && sent != call.name {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let (deletion, from_body) =
        crate::options::deletion(&call.query, Some(at(&eviction, &["deleteOptions"]).clone()))?;
    let dry_run = WriteOptions::parse(&call.query, "CreateOptions")?.dry_run || from_body;
    for _ in 0..TRIES {
        let entry = call.app.storage.get(&call.key()).await;
        let entry = entry.map_err(|error| storage_failure(&error))?;
        let pod = object::decode(call.row, &entry.ok_or_else(|| call.not_found())?);
        deletion.check(call.row, &pod)?;
        if !needs_no_leave(&pod) && !ask_budget(call, &pod, dry_run).await? {
            continue;
        }
        mark_and_delete(call, &pod, &deletion, dry_run).await?;
        return Ok(success(call));
    }
    Err(Status::modified(call.row, &call.name))
}

/// A Pod that does not run, or is on its way out, disturbs nobody by going.
fn needs_no_leave(pod: &Value) -> bool {
    meta::is_terminating(pod)
        || matches!(
            text(pod, &["status", "phase"]),
            "Succeeded" | "Failed" | "Pending"
        )
}

/// Takes one disruption from the budget that covers the Pod, if there is one. False: the budget changed meanwhile.
async fn ask_budget(call: &Call, pod: &Value, dry_run: bool) -> Result<bool, Status> {
    let Some(row) = api::table::find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(true);
    };
    let page = call
        .app
        .storage
        .list(Range {
            prefix: row.key_prefix(&call.namespace),
            ..Range::default()
        })
        .await
        .map_err(|error| storage_failure(&error))?;
    let mut covering = page
        .entries
        .iter()
        .map(|entry| object::decode(row, entry))
        .filter(|budget| covers(budget, pod));
    let Some(budget) = covering.next() else {
        return Ok(true);
    };
    if covering.next().is_some() {
        return Err(Status::new(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    if !is_ready(pod) && spares_unready(&budget) {
        return Ok(true);
    }
    let changed = take_disruption(row, &budget, meta::name(pod), OffsetDateTime::now_utc())?;
    let mut target = call.with_name(&call.namespace, meta::name(&budget));
    target.row = row;
    target.subresource = None;
    let seen = meta::resource_version(&budget);
    let mut raced = false;
    write::modify(&target, dry_run, |current| {
        raced = meta::resource_version(current) != seen;
        Ok(if raced {
            Wish::Keep
        } else {
            Wish::Put(changed.clone())
        })
    })
    .await?;
    Ok(!raced)
}

fn covers(budget: &Value, pod: &Value) -> bool {
    let selector = at(budget, &["spec", "selector"]);
    selector.is_object()
        && LabelSelector::from_object(selector).is_some_and(|selector| selector.matches_object(pod))
}

fn is_ready(pod: &Value) -> bool {
    list(pod, &["status", "conditions"])
        .iter()
        .any(|condition| {
            text(condition, &["type"]) == "Ready" && text(condition, &["status"]) == "True"
        })
}

/// Whether a Pod that is not ready may go without asking for a disruption (KEP-3017).
fn spares_unready(budget: &Value) -> bool {
    let healthy = number(budget, &["status", "currentHealthy"]);
    let desired = number(budget, &["status", "desiredHealthy"]);
    text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
        || (healthy >= desired && desired > 0)
}

/// The budget after one more disruption.
fn take_disruption(
    row: &Resource,
    budget: &Value,
    pod: &str,
    now: OffsetDateTime,
) -> Result<Value, Status> {
    let name = meta::name(budget);
    let status = at(budget, &["status"]);
    if number(status, &["observedGeneration"]) < number(budget, &["metadata", "generation"]) {
        return Err(too_many(
            &format!("The disruption budget {name} is still being processed by the server."),
            NEW_BUDGET_SECS,
        ));
    }
    let allowed = number(status, &["disruptionsAllowed"]);
    if allowed < 0 {
        return Err(Status::forbidden(
            row,
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    if api::value::entries(status, &["disruptedPods"]).count() > DISRUPTED_MAX {
        return Err(Status::forbidden(
            row,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let failed = list(status, &["conditions"]).iter().find(|condition| {
            text(condition, &["type"]) == "DisruptionAllowed"
                && text(condition, &["reason"]) == "SyncFailed"
        });
        let why = match failed {
            Some(failed) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
                text(failed, &["message"])
            ),
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number(status, &["desiredHealthy"]),
                number(status, &["currentHealthy"])
            ),
        };
        return Err(too_many(&why, 0));
    }
    let mut changed = budget.clone();
    if let Some(status) = api::value::object_mut(&mut changed, "status") {
        set(status, "disruptionsAllowed", allowed - 1);
        if let Some(pods) = api::value::object_mut(status, "disruptedPods") {
            set(pods, pod, meta::timestamp(now));
        }
    }
    if allowed == 1 {
        let generation = number(budget, &["metadata", "generation"]);
        let condition = json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "observedGeneration": generation,
        });
        pod_parts::set_condition(&mut changed, condition, now);
    }
    Ok(changed)
}

fn too_many(why: &str, retry_after_secs: u32) -> Status {
    let mut status = Status::new(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    status.details = Some(Box::new(Details {
        causes: vec![Cause {
            reason: "DisruptionBudget".into(),
            message: why.into(),
            ..Cause::default()
        }],
        retry_after_secs,
        ..Details::default()
    }));
    status
}

/// The Pod says why it goes, then goes.
async fn mark_and_delete(
    call: &Call,
    pod: &Value,
    deletion: &Deletion,
    dry_run: bool,
) -> Result<(), Status> {
    let uid = meta::uid(pod).to_owned();
    let mut target = call.with_name(&call.namespace, &call.name);
    target.subresource = None;
    if !dry_run {
        write::modify(&target, false, |pod| {
            deletion.check(call.row, pod)?;
            let mut marked = pod.clone();
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting", "lastProbeTime": null,
            });
            pod_parts::set_condition(&mut marked, condition, OffsetDateTime::now_utc());
            Ok(Wish::Put(marked))
        })
        .await?;
    }
    let mut deletion = deletion.clone();
    // Its revision was looked at before the condition was written.
    deletion.resource_version = None;
    deletion.uid = Some(uid);
    delete::remove(&target, &deletion, dry_run)
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({
            "metadata": {"name": "b", "generation": 2}, "spec": {"selector": {"matchLabels": {"a": "b"}}},
            "status": {
                "observedGeneration": 2, "disruptionsAllowed": allowed, "desiredHealthy": 3, "currentHealthy": 2,
            },
        })
    }

    fn row() -> &'static Resource {
        api::table::find("", "v1", "pods").unwrap()
    }

    #[test]
    fn a_budget_is_used_up() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let after = take_disruption(row(), &budget(1), "p", now).unwrap();
        assert_eq!(after["status"]["disruptionsAllowed"], 0);
        assert_eq!(
            after["status"]["disruptedPods"]["p"],
            "1970-01-01T00:00:00Z"
        );
        assert_eq!(
            after["status"]["conditions"][0]["reason"],
            "InsufficientPods"
        );
        let refused = take_disruption(row(), &budget(0), "p", now).unwrap_err();
        assert_eq!(
            (
                refused.code,
                refused.details.unwrap().causes[0].message.as_str()
            ),
            (
                429,
                "The disruption budget b needs 3 healthy pods and has 2 currently"
            )
        );
        let mut new = budget(1);
        new["metadata"]["generation"] = 3.into();
        let refused = take_disruption(row(), &new, "p", now).unwrap_err();
        assert_eq!(refused.details.unwrap().retry_after_secs, 10);
    }

    #[test]
    fn whom_a_budget_covers() {
        let pod = |labels: Value| json!({"metadata": {"labels": labels}});
        assert!(covers(&budget(1), &pod(json!({"a": "b"}))));
        assert!(!covers(&budget(1), &pod(json!({"a": "c"}))));
        let mut all = budget(1);
        all["spec"]["selector"] = json!({});
        assert!(covers(&all, &pod(json!({}))));
        all["spec"] = json!({});
        assert!(!covers(&all, &pod(json!({}))));
    }
}
