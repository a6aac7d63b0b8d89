//! Writes as requests.

use client::{Client, Event, ListParams, Resource};
use reconcile::{Key, Name, Snapshot, Target, Write};
use serde::Deserialize;
use serde_json::{Value, json};
use view::ServiceAccount;
use view::objects::{EndpointSlice, Endpoints, Namespace};

/// What the server answered to a write: the newest there is to know.
pub(crate) enum Answer {
    Slice(Event<EndpointSlice>),
    Endpoints(Event<Endpoints>),
    Account(Event<ServiceAccount>),
}

impl Answer {
    /// Folds it like what a watch says.
    pub(crate) fn fold(self, snapshot: &mut Snapshot) -> Vec<Key> {
        match self {
            Answer::Slice(event) => snapshot.fold_slices(event),
            Answer::Endpoints(event) => snapshot.fold_endpoints(event),
            Answer::Account(event) => snapshot.fold_accounts(event),
        }
    }
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The server did not do it.
    #[error("{}", with_causes(.0))]
    Request(#[from] client::Error),
    /// A namespace cannot go yet.
    #[error(
        "{count} {resource} of namespace {namespace} wait for their finalizers or their grace period"
    )]
    Remaining {
        namespace: String,
        resource: String,
        count: usize,
    },
}

impl Error {
    /// Whether it is how concurrent writers find out about each other.
    pub(crate) fn is_expected(&self) -> bool {
        match self {
            Error::Remaining { .. } => true,
            Error::Request(error) => {
                error.is_conflict() || error.is_not_found() || error.is_already_exists()
            }
        }
    }
}

fn with_causes(error: &client::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    });
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Sends a write. What was to be deleted and is not there counts as deleted.
pub(crate) async fn perform(client: &Client, write: &Write) -> Result<Option<Answer>, Error> {
    match write {
        Write::Create {
            target,
            namespace,
            object,
        } => {
            let path = resource(*target).within(namespace);
            Ok(Some(match target {
                Target::EndpointSlice => {
                    Answer::Slice(Event::Applied(client.create(&path, object).await?))
                }
                Target::Endpoints => {
                    Answer::Endpoints(Event::Applied(client.create(&path, object).await?))
                }
                Target::ServiceAccount => {
                    Answer::Account(Event::Applied(client.create(&path, object).await?))
                }
            }))
        }
        Write::Replace {
            target,
            name,
            object,
        } => {
            let path = resource(*target).object(&name.namespace, &name.name);
            Ok(Some(match target {
                Target::EndpointSlice => {
                    Answer::Slice(Event::Applied(client.replace(&path, object).await?))
                }
                Target::Endpoints => {
                    Answer::Endpoints(Event::Applied(client.replace(&path, object).await?))
                }
                Target::ServiceAccount => {
                    Answer::Account(Event::Applied(client.replace(&path, object).await?))
                }
            }))
        }
        Write::Delete {
            target,
            name,
            uid,
            resource_version,
        } => {
            let path = resource(*target).object(&name.namespace, &name.name);
            let preconditions = json!({"uid": uid, "resourceVersion": resource_version});
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
            match client.delete(&path, &options).await {
                // Finalizers may keep the object: then the watch tells when it goes.
                Ok(answer) if answer["metadata"]["deletionTimestamp"].is_string() => Ok(None),
                Ok(_) => Ok(Some(deleted(*target, name))),
                Err(error) if error.is_not_found() => Ok(Some(deleted(*target, name))),
                Err(error) => Err(error.into()),
            }
        }
        Write::Empty { namespace } => empty(client, namespace).await.map(|()| None),
        Write::Finalize { namespace } => finalize(client, namespace).await.map(|()| None),
    }
}

fn resource(target: Target) -> Resource {
    match target {
        Target::EndpointSlice => Resource::of::<EndpointSlice>(),
        Target::Endpoints => Resource::of::<Endpoints>(),
        Target::ServiceAccount => Resource::of::<ServiceAccount>(),
    }
}

fn deleted(target: Target, name: &Name) -> Answer {
    let (namespace, name) = (name.namespace.to_string(), name.name.to_string());
    match target {
        Target::EndpointSlice => Answer::Slice(Event::Deleted { namespace, name }),
        Target::Endpoints => Answer::Endpoints(Event::Deleted { namespace, name }),
        Target::ServiceAccount => Answer::Account(Event::Deleted { namespace, name }),
    }
}

/// Deletes everything in a namespace, of every kind that the server tells of. Pods go first, so that nothing they
/// were given is taken from them while they run (KEP-5080).
async fn empty(client: &Client, namespace: &str) -> Result<(), Error> {
    let mut resources = client.namespaced_resources().await?;
    resources.sort_by_key(|resource| !(resource.group.is_empty() && resource.plural == "pods"));
    let mut remaining = None;
    for resource in resources {
        let count = delete_all(client, &resource, namespace).await?;
        if count == 0 {
            continue;
        }
        let error = Error::Remaining {
            namespace: namespace.to_owned(),
            resource: resource.plural.clone(),
            count,
        };
        if resource.plural == "pods" {
            return Err(error);
        }
        remaining = Some(error);
    }
    remaining.map_or(Ok(()), Err)
}

/// Deletes all objects of one kind; returns how many are still there.
async fn delete_all(client: &Client, resource: &Resource, namespace: &str) -> Result<usize, Error> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: String,
        deletion_timestamp: Option<String>,
    }
    let collection = resource.within(namespace);
    let before = client
        .list::<Named>(&collection, &ListParams::default())
        .await?;
    let leaving = |meta: &Metadata| meta.deletion_timestamp.is_some();
    if before.items.iter().all(|item| leaving(&item.metadata)) {
        return Ok(before.items.len());
    }
    for item in before.items.iter().filter(|item| !leaving(&item.metadata)) {
        let path = resource.object(namespace, &item.metadata.name);
        match client.delete(&path, &Value::Null).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let after = client
        .list::<Named>(&collection, &ListParams::default())
        .await?;
    Ok(after.items.len())
}

/// Takes `kubernetes` out of the finalizers. The object is read afresh: a view does not hold all of it.
async fn finalize(client: &Client, namespace: &str) -> Result<(), Error> {
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
