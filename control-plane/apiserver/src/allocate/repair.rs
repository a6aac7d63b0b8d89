//! Claims are made to agree with the Services that are stored.
//!
//! A Service and its claims are one atomic write, so they agree unless somebody deleted an IPAddress by hand, a backup
//! was put together from parts, or the store was written before claims of addresses were IPAddress objects: they were
//! keys below [`FORMER_ADDRESSES`] then.

use std::collections::BTreeMap;

use api::value::{at, text};
use api::{meta, table::Resource};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use storage::{Entry, Error, Page, Range, Revision, Storage, Write};

use super::{ADDRESSES, Claim, MANAGED_BY, MANAGER, PORTS, claims, value_of};
use crate::object;

/// Where claims of addresses stood before they were IPAddress objects. The slash keeps it off the key
/// `/registry/ranges/serviceips`, in which kube-apiserver keeps a bitmap.
const FORMER_ADDRESSES: &str = "/registry/ranges/serviceips/";
/// How many writes are under way at a time, so that the store makes one durable batch of them.
const AT_ONCE: usize = 64;

/// Two Services that hold the same, or one that holds what nobody can be given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Conflict {
    /// The Service that has to be made anew.
    pub(crate) service: Value,
    /// As the repair controllers of Kubernetes name it.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What was wrong.
#[derive(Default, Debug)]
pub(crate) struct Repair {
    pub(crate) conflicts: Vec<Conflict>,
    /// Claims that were made, given to another owner, or taken away.
    pub(crate) changed: usize,
}

/// A claim as it stands in the store.
struct Standing {
    /// Namespace and name of a Service. `None`: of something else, which is left alone.
    owner: Option<String>,
    revision: Revision,
}

/// Makes the claims that Services lack, gives back those that no Service holds, and removes those of the former form.
pub(crate) async fn repair(storage: &dyn Storage) -> Result<Repair, Error> {
    let Some(row) = api::table::find("", "v1", "services") else {
        return Ok(Repair::default());
    };
    // All at one revision: a Service never stands there without its claims because of a write in between.
    let services = list(storage, &row.key_prefix(""), None).await?;
    let mut standing = BTreeMap::new();
    for prefix in [ADDRESSES, PORTS] {
        let page = list(storage, prefix, Some(services.revision)).await?;
        standing.extend(page.entries.iter().filter_map(stands));
    }
    let (writes, conflicts) = plan(row, &services.entries, &standing);
    let changed = writes.len();
    carry_out(storage, writes).await?;
    // Only now: a crash before this finds the former claims again.
    let former = list(storage, FORMER_ADDRESSES, None).await?;
    let removals = former.entries.iter().map(|entry| Write::Delete {
        key: entry.key.to_string(),
        expected: entry.modified,
    });
    carry_out(storage, removals.collect()).await?;
    Ok(Repair { conflicts, changed })
}

/// Whether the Service that this IPAddress names holds it: then its deletion has to be undone.
pub(super) async fn is_held(storage: &dyn Storage, address: &Entry) -> Result<bool, Error> {
    let (Some((claim, standing)), Some(row)) =
        (stands(address), api::table::find("", "v1", "services"))
    else {
        return Ok(false);
    };
    let Some((namespace, name)) = standing
        .owner
        .as_deref()
        .and_then(|owner| owner.split_once('/'))
    else {
        return Ok(false);
    };
    let service = storage.get(&row.key(namespace, name)).await?;
    Ok(service.is_some_and(|service| claims(&object::decode(row, &service)).contains(&claim)))
}

async fn list(storage: &dyn Storage, prefix: &str, at: Option<Revision>) -> Result<Page, Error> {
    let range = Range {
        prefix: prefix.into(),
        at,
        ..Range::default()
    };
    storage.list(range).await
}

fn stands(entry: &Entry) -> Option<(Claim, Standing)> {
    let claim = Claim::from_key(&entry.key)?;
    let value: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let owner = match claim {
        Claim::Port(_) => Some(text(&value, &["service"]).to_owned()),
        Claim::Address(_) => {
            let parent = at(&value, &["spec", "parentRef"]);
            let ours = text(&value, &["metadata", "labels", MANAGED_BY]) == MANAGER
                && text(parent, &["group"]).is_empty()
                && text(parent, &["resource"]) == "services";
            ours.then(|| {
                format!(
                    "{}/{}",
                    text(parent, &["namespace"]),
                    text(parent, &["name"])
                )
            })
        }
    };
    let revision = entry.modified;
    Some((claim, Standing { owner, revision }))
}

/// What has to be written, and which Services can't be helped.
fn plan(
    row: &Resource,
    services: &[Entry],
    standing: &BTreeMap<Claim, Standing>,
) -> (Vec<Write>, Vec<Conflict>) {
    let mut services: Vec<(Revision, String, Value)> = services
        .iter()
        .map(|entry| {
            let service = object::decode(row, entry);
            let owner = format!("{}/{}", meta::namespace(&service), meta::name(&service));
            (entry.created, owner, service)
        })
        .collect();
    // Of two that hold the same, and no claim to decide between them, the older keeps it.
    services.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut holders: BTreeMap<Claim, &str> = BTreeMap::new();
    for (_, owner, service) in &services {
        for claim in claims(service) {
            let recorded = standing
                .get(&claim)
                .and_then(|standing| standing.owner.as_ref());
            if recorded == Some(owner) {
                holders.insert(claim, owner);
            }
        }
    }
    let (mut writes, mut conflicts) = (Vec::new(), Vec::new());
    for (_, owner, service) in &services {
        for claim in claims(service) {
            let other = holders.entry(claim).or_insert(owner);
            let foreign = standing
                .get(&claim)
                .is_some_and(|standing| standing.owner.is_none());
            if *other != owner || foreign {
                conflicts.push(conflict(service, claim, (!foreign).then_some(*other)));
                continue;
            }
            let (key, value) = (claim.key(), value_of(claim, owner));
            match standing.get(&claim) {
                None => writes.push(Write::Create { key, value }),
                Some(found) if found.owner.as_ref() != Some(owner) => writes.push(Write::Update {
                    key,
                    value,
                    expected: found.revision,
                }),
                Some(_) => {}
            }
        }
    }
    for (claim, found) in standing {
        if found.owner.is_some() && !holders.contains_key(claim) {
            writes.push(Write::Delete {
                key: claim.key(),
                expected: found.revision,
            });
        }
    }
    (writes, conflicts)
}

fn conflict(service: &Value, claim: Claim, other: Option<&str>) -> Conflict {
    let other = other.map_or_else(
        || "something that is no Service".to_owned(),
        |other| format!("Service {other}"),
    );
    let (reason, what) = match claim {
        Claim::Address(address) => ("ClusterIPAlreadyAllocated", format!("Cluster IP {address}")),
        Claim::Port(port) => ("PortAlreadyAllocated", format!("Node port {port}")),
    };
    Conflict {
        service: service.clone(),
        reason,
        message: format!("{what} is held by {other} too; delete this Service and make it anew"),
    }
}

async fn carry_out(storage: &dyn Storage, writes: Vec<Write>) -> Result<(), Error> {
    let mut under_way = stream::iter(writes.into_iter().map(|write| storage.write(vec![write])))
        .buffer_unordered(AT_ONCE);
    while let Some(done) = under_way.next().await {
        match done {
            // Another server repairs the same, or the Service changed in the meantime: the next repair looks again.
            Ok(_) | Err(Error::Exists { .. } | Error::Conflict { .. } | Error::NotFound { .. }) => {
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
