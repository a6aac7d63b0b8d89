//! A namespace that is to go: everything in it is deleted, and its status tells what that waits for.

use std::collections::BTreeMap;

use client::{Client, ListParams, PatchKind, Resource};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use view::objects::Namespace;

use crate::perform::Error;

/// What stands in the way, as it is found.
#[derive(Default, Debug)]
struct Findings {
    /// Why the kinds that there are could not be learnt, or not all of them.
    undiscovered: Option<String>,
    /// Kinds whose objects could not be deleted, and why.
    failed: Vec<String>,
    /// How many objects there still are, by `plural.group`.
    remaining: BTreeMap<String, usize>,
    /// How many of them have which finalizer.
    finalizers: BTreeMap<String, usize>,
}

/// A condition of a namespace: its type, reason and message where all is well, reason where it is not.
const CONDITIONS: [(&str, &str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
        "DiscoveryFailed",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
        "GroupVersionParsingFailed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
        "ContentDeletionFailed",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
        "SomeResourcesRemain",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
        "SomeFinalizersRemain",
    ),
];

impl Findings {
    /// What a condition says that does not hold as it should; in the order of [`CONDITIONS`].
    fn messages(&self) -> [Option<String>; 5] {
        let listed = |of: &BTreeMap<String, usize>, words: &str| {
            let each: Vec<String> = of
                .iter()
                .map(|(name, count)| format!("{name} {words} {count} resource instances"))
                .collect();
            each.join(", ")
        };
        [
            self.undiscovered.clone(),
            None,
            (!self.failed.is_empty()).then(|| {
                let count = self.failed.len();
                let why = self.failed.join(", ");
                format!("Failed to delete all resource types, {count} remaining: {why}")
            }),
            (!self.remaining.is_empty()).then(|| {
                let kinds = listed(&self.remaining, "has");
                format!("Some resources are remaining: {kinds}")
            }),
            (!self.finalizers.is_empty()).then(|| {
                let names = listed(&self.finalizers, "in");
                format!("Some content in the namespace has finalizers remaining: {names}")
            }),
        ]
    }

    /// The conditions of the namespace after this look at it; `None`: they are what they were.
    fn conditions(&self, before: &[Value], now: &str) -> Option<Vec<Value>> {
        let mut after = before.to_vec();
        for ((of, reason, well, ill), message) in CONDITIONS.into_iter().zip(self.messages()) {
            let known = after.iter().position(|condition| condition["type"] == of);
            let (status, reason, message) = match message {
                Some(message) => ("True", ill, message),
                None => ("False", reason, well.to_owned()),
            };
            let mut condition =
                json!({"type": of, "status": status, "reason": reason, "message": message});
            let same = known.is_some_and(|at| {
                ["status", "reason", "message"]
                    .iter()
                    .all(|key| after[at][key] == condition[key])
            });
            if same {
                continue;
            }
            let since = known.map(|at| &after[at]).filter(|c| c["status"] == status);
            condition["lastTransitionTime"] =
                since.map_or_else(|| now.into(), |c| c["lastTransitionTime"].clone());
            match known {
                Some(at) => after[at] = condition,
                None => after.push(condition),
            }
        }
        (after != before).then_some(after)
    }
}

/// Deletes everything in a namespace, of every kind that the server tells of. Pods go first, so that nothing they
/// were given is taken from them while they run (KEP-5080).
pub(crate) async fn empty(client: &Client, namespace: &str) -> Result<(), Error> {
    let mut findings = Findings::default();
    let emptied = delete_everything(client, namespace, &mut findings).await;
    let told = tell(client, namespace, &findings).await;
    emptied.and(told)
}

async fn delete_everything(
    client: &Client,
    namespace: &str,
    findings: &mut Findings,
) -> Result<(), Error> {
    let (mut resources, missing) = match client.resources(&["list", "delete"]).await {
        Ok(all) => (all.found, all.missing),
        Err(error) => {
            findings.undiscovered = Some(error.to_string());
            return Err(error.into());
        }
    };
    let mut waits = None;
    if !missing.is_empty() {
        findings.undiscovered = Some(stale(&missing));
        waits = Some(Error::Undiscovered {
            namespace: namespace.to_owned(),
            missing,
        });
    }
    resources.retain(|resource| resource.namespaced);
    let is_pods = |resource: &Resource| resource.group.is_empty() && resource.plural == "pods";
    resources.sort_by_key(|resource| !is_pods(resource));
    for resource in resources {
        let held = match delete_all(client, &resource, namespace).await {
            Ok(held) => held,
            Err(error) => {
                findings.failed.push(error.to_string());
                waits = Some(error);
                continue;
            }
        };
        if held.is_empty() {
            continue;
        }
        let name = format!("{}.{}", resource.plural, resource.group);
        findings.remaining.insert(name, held.len());
        for finalizer in held.iter().flat_map(|held| &held.finalizers) {
            *findings.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        let count = held.len();
        let last = is_pods(&resource);
        waits.get_or_insert(Error::Remaining {
            namespace: namespace.to_owned(),
            resource: resource.plural,
            count,
        });
        if last {
            break;
        }
    }
    waits.map_or(Ok(()), Err)
}

/// Says of which versions of groups it is not known what there is.
fn stale(missing: &[String]) -> String {
    let each: Vec<String> = missing
        .iter()
        .map(|version| format!("{version}: stale GroupVersion discovery: {version}"))
        .collect();
    format!(
        "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
        missing.len(),
        each.join(", ")
    )
}

/// What is asked of the objects in a namespace.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    finalizers: Vec<String>,
}

/// Deletes all objects of one kind; returns those that are still there.
async fn delete_all(
    client: &Client,
    resource: &Resource,
    namespace: &str,
) -> Result<Vec<Metadata>, Error> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Metadata,
    }
    let collection = resource.within(namespace);
    let all = async || -> Result<Vec<Metadata>, Error> {
        let params = ListParams::default();
        let list = client.list::<Named>(&collection, &params).await?;
        Ok(list.items.into_iter().map(|item| item.metadata).collect())
    };
    let before = all().await?;
    let staying: Vec<&Metadata> = before
        .iter()
        .filter(|meta| meta.deletion_timestamp.is_none())
        .collect();
    if staying.is_empty() {
        return Ok(before);
    }
    for meta in staying {
        let path = resource.object(namespace, &meta.name);
        match client.delete(&path, &Value::Null).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    all().await
}

/// Writes to the namespace's status what was found. Where all went well at once there is nothing to tell.
async fn tell(client: &Client, namespace: &str, findings: &Findings) -> Result<(), Error> {
    let path = Resource::of::<Namespace>().object("", namespace);
    let object: Value = match client.get(&path).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let before = object["status"]["conditions"].as_array();
    let quiet = findings.messages().iter().all(Option::is_none);
    if quiet && before.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let now = OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let now = now.format(&Rfc3339).unwrap_or_default();
    let before = before.map_or(&[][..], Vec::as_slice);
    let Some(conditions) = findings.conditions(before, &now) else {
        return Ok(());
    };
    let patch = json!({
        "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
        "status": {"conditions": conditions},
    });
    let status = path.subresource("status");
    let done = client
        .patch::<Value>(&status, PatchKind::Merge, &patch)
        .await;
    match done {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes `kubernetes` out of the finalizers. The object is read afresh: a view does not hold all of it.
pub(crate) async fn finalize(client: &Client, namespace: &str) -> Result<(), Error> {
    let path = Resource::of::<Namespace>().object("", namespace);
    let done = async {
        let mut object: Value = client.get(&path).await?;
        if let Some(finalizers) = object["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != "kubernetes");
        }
        client
            .replace::<Value>(&path.clone().subresource("finalize"), &object)
            .await
    };
    match done.await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_remains() {
        let mut findings = Findings::default();
        findings.remaining.insert("pods.".into(), 2);
        findings.remaining.insert("deployments.apps".into(), 1);
        findings.finalizers.insert("example.com/hold".into(), 2);
        let first = findings.conditions(&[], "T1").unwrap();
        let said = |conditions: &[Value], at: usize| {
            let text = |key: &str| conditions[at][key].as_str().unwrap_or("").to_owned();
            format!(
                "{} {} {} {}",
                text("type"),
                text("status"),
                text("reason"),
                text("message")
            )
        };
        assert_eq!(first.len(), 5);
        assert_eq!(
            said(&first, 3),
            "NamespaceContentRemaining True SomeResourcesRemain Some resources are remaining: \
             deployments.apps has 1 resource instances, pods. has 2 resource instances"
        );
        assert_eq!(
            said(&first, 4),
            "NamespaceFinalizersRemaining True SomeFinalizersRemain Some content in the namespace has finalizers \
             remaining: example.com/hold in 2 resource instances"
        );
        assert_eq!(
            said(&first, 2),
            "NamespaceDeletionContentFailure False ContentDeleted All content successfully deleted, may be waiting on finalization"
        );
        assert_eq!(findings.conditions(&first, "T2"), None);
        // Other words at the same status are no transition.
        findings.remaining.insert("pods.".into(), 1);
        findings.finalizers.clear();
        let second = findings.conditions(&first, "T2").unwrap();
        assert_eq!(second[3]["lastTransitionTime"], "T1");
        assert_eq!(
            (&second[4]["status"], &second[4]["lastTransitionTime"]),
            (&json!("False"), &json!("T2"))
        );
    }
}
