//! Requests of nodes' agents that no role allows: the Pods on the node decide. They are looked for in the store at each
//! such request, in the namespace of the object; agents read seldom, and keep what they read.

use std::sync::Arc;

use api::status::Status;
use api::value::{list, text};
use authorization::node::{self, Need, Ruling};
use authorization::{Attributes, ResourceTarget, RoleRef, Target, User, refusal};
use serde_json::Value;
use storage::Range;

use crate::handlers::storage_failure;
use crate::{State, object};

const ROLE: &str = "system:node";

/// Lets an agent do what the Node authorizer allows.
///
/// # Errors
/// The refusal, with the reason.
pub(crate) async fn check(
    state: &Arc<State>,
    user: &User,
    agent_of: &str,
    verb: &str,
    at: ResourceTarget<'_>,
    fields: &str,
) -> Result<(), Status> {
    let attributes = Attributes {
        user,
        verb,
        target: Target::Resource(at),
    };
    let allowed = match node::ruling(agent_of, verb, &at, fields) {
        Ruling::Yes => true,
        Ruling::No(why) => return Err(refusal(&attributes, why)),
        Ruling::Role => {
            let role = RoleRef {
                namespace: String::new(),
                name: ROLE.to_owned(),
            };
            let rules = state.mirror.rbac().role(&role).cloned();
            if rules.is_some_and(|rules| node::by_role(&rules, &attributes)) {
                return Ok(());
            }
            return Err(refusal(&attributes, ""));
        }
        Ruling::OwnPod => {
            let pod = stored(state, "", "pods", at.namespace, at.name).await?;
            pod.is_some_and(|pod| text(&pod, &["spec", "nodeName"]) == agent_of)
        }
        Ruling::OwnAttachment => {
            let found = stored(state, "storage.k8s.io", "volumeattachments", "", at.name).await?;
            found.is_some_and(|found| text(&found, &["spec", "nodeName"]) == agent_of)
        }
        Ruling::Needed(need) => needed(state, agent_of, need, &at).await?,
    };
    if allowed {
        return Ok(());
    }
    let why = format!("no relationship found between node '{agent_of}' and this object");
    Err(refusal(&attributes, &why))
}

async fn stored(
    state: &State,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Status> {
    let Some(row) = api::table::find(group, "v1", plural) else {
        return Ok(None);
    };
    let entry = state.storage.get(&row.key(namespace, name)).await;
    let entry = entry.map_err(|error| storage_failure(&error))?;
    Ok(entry.map(|entry| object::decode(row, &entry)))
}

/// Whether a Pod on the node needs the object.
async fn needed(
    state: &State,
    agent_of: &str,
    need: Need,
    at: &ResourceTarget<'_>,
) -> Result<bool, Status> {
    if need != Need::Volume {
        let pods = pods_on(state, agent_of, at.namespace).await?;
        return Ok(pods.iter().any(|pod| node::refers(pod, need, at.name)));
    }
    let Some(volume) = stored(state, "", "persistentvolumes", "", at.name).await? else {
        return Ok(false);
    };
    let claim = |key: &str| text(&volume, &["spec", "claimRef", key]).to_owned();
    let (namespace, name) = (claim("namespace"), claim("name"));
    if name.is_empty() {
        return Ok(false);
    }
    let pods = pods_on(state, agent_of, &namespace).await?;
    Ok(pods.iter().any(|pod| node::refers(pod, Need::Claim, &name)))
}

async fn pods_on(state: &State, agent_of: &str, namespace: &str) -> Result<Vec<Value>, Status> {
    let Some(row) = api::table::find("", "v1", "pods") else {
        return Ok(Vec::new());
    };
    let range = Range {
        prefix: row.key_prefix(namespace),
        ..Range::default()
    };
    let page = state.storage.list(range).await;
    let page = page.map_err(|error| storage_failure(&error))?;
    let pods = page.entries.iter().map(|entry| object::decode(row, entry));
    Ok(pods
        .filter(|pod| {
            text(pod, &["spec", "nodeName"]) == agent_of
                && !list(pod, &["spec", "containers"]).is_empty()
        })
        .collect())
}
