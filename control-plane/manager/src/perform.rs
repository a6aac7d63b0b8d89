//! Writes as requests.

use client::{Client, Event, ListParams, PatchKind, Path, Resource};
use reconcile::{Claim, Key, Name, Origin, Snapshot, Target, Write};
use serde_json::{Value, json};
use view::ServiceAccount;
use view::objects::{EndpointSlice, Endpoints, OwnerReference, Pod};

use crate::leaving;

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
    /// A namespace cannot go while it is not known what is in it.
    #[error("namespace {namespace} waits for who answers for {}", missing.join(", "))]
    Undiscovered {
        namespace: String,
        missing: Vec<String>,
    },
    /// A claim cannot go yet.
    #[error("pod {pod} uses the claim")]
    Used { pod: String },
}

impl Error {
    /// Whether it is how concurrent writers find out about each other.
    pub(crate) fn is_expected(&self) -> bool {
        match self {
            Error::Remaining { .. } | Error::Undiscovered { .. } | Error::Used { .. } => true,
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
        Write::Remove {
            origin,
            name,
            uid,
            resource_version,
            unless_owned_by,
            at_once,
        } => {
            for owner in unless_owned_by {
                if exists(client, &name.namespace, owner).await? {
                    return Ok(None);
                }
            }
            let preconditions = json!({"uid": uid, "resourceVersion": resource_version});
            let mut options = json!({
                "kind": "DeleteOptions", "apiVersion": "v1",
                "preconditions": preconditions, "propagationPolicy": "Background",
            });
            if *at_once {
                options["gracePeriodSeconds"] = json!(0);
            }
            let done = client
                .delete(&path(origin, name), &options)
                .await
                .map(|_| ());
            unless_gone(done)
        }
        Write::SetOwners {
            origin,
            name,
            uid,
            resource_version,
            owners,
        } => {
            let owners = list_or_null(owners.iter().map(owner_reference).collect());
            let meta =
                json!({"uid": uid, "resourceVersion": resource_version, "ownerReferences": owners});
            patch_meta(client, &path(origin, name), meta).await
        }
        Write::SetFinalizers {
            origin,
            name,
            uid,
            resource_version,
            finalizers,
            unless_used,
        } => {
            if let Some(claim) = unless_used {
                unused(client, claim).await?;
            }
            let finalizers = list_or_null(finalizers.iter().map(|text| json!(text)).collect());
            let meta =
                json!({"uid": uid, "resourceVersion": resource_version, "finalizers": finalizers});
            patch_meta(client, &path(origin, name), meta).await
        }
        Write::Empty { namespace } => leaving::empty(client, namespace).await.map(|()| None),
        Write::Finalize { namespace } => leaving::finalize(client, namespace).await.map(|()| None),
    }
}

fn path(origin: &Origin, name: &Name) -> Path {
    resource_at(origin).object(&name.namespace, &name.name)
}

/// The resource of objects whose kind is known by its place alone.
pub(crate) fn resource_at(origin: &Origin) -> Resource {
    Resource {
        group: origin.group.to_string(),
        version: origin.version.to_string(),
        plural: origin.plural.to_string(),
        namespaced: origin.namespaced,
    }
}

/// What is gone needs no change any more.
fn unless_gone(done: Result<(), client::Error>) -> Result<Option<Answer>, Error> {
    match done {
        Ok(()) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// In a merge patch null takes a field away, where an empty list would leave an empty list.
fn list_or_null(items: Vec<Value>) -> Value {
    match items.as_slice() {
        [] => Value::Null,
        _ => Value::Array(items),
    }
}

async fn patch_meta(client: &Client, path: &Path, meta: Value) -> Result<Option<Answer>, Error> {
    let patch = json!({"metadata": meta});
    let done = client
        .patch::<Value>(path, PatchKind::Merge, &patch)
        .await
        .map(|_| ());
    unless_gone(done)
}

/// Whether an owner of an object in `namespace` is there. One of a kind that the server does not know counts as
/// there, so that nothing is deleted for want of a definition.
async fn exists(client: &Client, namespace: &str, owner: &OwnerReference) -> Result<bool, Error> {
    let document = json!({
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "metadata": {"namespace": namespace, "name": owner.name},
    });
    let place = match client.locate(&document).await {
        Ok(place) => place,
        Err(client::Error::UnknownKind { .. } | client::Error::Incomplete { .. }) => {
            return Ok(true);
        }
        Err(error) => return Err(error.into()),
    };
    match client.get::<Value>(&place.object).await {
        Ok(found) => Ok(found["metadata"]["uid"] == owner.uid.as_str()),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// That no pod uses the claim is asked for once more before it goes: one may be so new that its watch has not told of
/// it. The watch will, and then the claim is decided about again; until then it is asked about now and then.
async fn unused(client: &Client, claim: &Claim) -> Result<(), Error> {
    let pods = Resource::of::<Pod>().within(&claim.name.namespace);
    let mut params = ListParams::default();
    loop {
        let page = client.page::<Pod>(&pods, &params).await?;
        if let Some(pod) = page.items.into_iter().find(|pod| claim.is_used_by(pod)) {
            let pod = pod.metadata.name;
            return Err(Error::Used { pod });
        }
        if page.continue_token.is_empty() {
            return Ok(());
        }
        params.continue_token = page.continue_token;
    }
}

fn owner_reference(owner: &OwnerReference) -> Value {
    json!({
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": owner.controller,
        "blockOwnerDeletion": owner.block_owner_deletion,
    })
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
