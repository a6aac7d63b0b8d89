//! ServiceCIDRs: further ranges that Services get their addresses from. One that goes waits until no address is in
//! use that it alone covers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::meta;
use api::value::{at, list, text};
use ipnet::IpNet;
use serde_json::{Value, json};
use storage::{Error, Range, Write};
use time::OffsetDateTime;

use super::{ADDRESSES, Allocator, Claim, lock};
use crate::{State, object, write};

const PLURAL: &str = "servicecidrs";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How often a range that goes is looked at: the last of its addresses may have been given back.
const PERIOD: Duration = Duration::from_secs(1);

/// Takes ServiceCIDRs into use and out of it; until it is dropped.
pub(crate) async fn follow(app: Arc<State>) {
    let Some(mut changes) = app.mirror.changes(PLURAL) else {
        return;
    };
    loop {
        changes.mark_unchanged();
        let waits = match settle(&app).await {
            Ok(waits) => waits,
            Err(error) => {
                tracing::warn!(%error, "the ranges of Service addresses could not be settled");
                true
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PERIOD), if waits => {}
        }
    }
}

/// One look at all of them. Whether one is on its way out.
async fn settle(app: &State) -> Result<bool, Error> {
    let ranges = app.mirror.list(PLURAL, "");
    let (going, staying): (Vec<_>, Vec<_>) = ranges
        .into_iter()
        .partition(|range| meta::is_terminating(range));
    let usable: Vec<IpNet> = staying.iter().flat_map(|range| networks(range)).collect();
    let leaving: Vec<IpNet> = going.iter().flat_map(|range| networks(range)).collect();
    app.allocator.use_ranges(&usable, &leaving).await?;
    for range in &staying {
        let ready = condition("True", "", "Kubernetes Service CIDR is ready");
        put(app, range, true, &ready).await?;
    }
    if going.is_empty() {
        return Ok(false);
    }
    let prefix = ADDRESSES.to_owned();
    let used = app
        .storage
        .list(Range {
            prefix,
            ..Range::default()
        })
        .await?;
    let used: Vec<IpAddr> = used
        .entries
        .iter()
        .filter_map(|entry| match Claim::from_key(&entry.key) {
            Some(Claim::Address(address)) => Some(address),
            _ => None,
        })
        .collect();
    for range in &going {
        let own = networks(range);
        let orphan = |address: &&IpAddr| {
            let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(*address));
            within(&own) && !within(&usable)
        };
        let waiting = condition(
            "False",
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
        );
        put(
            app,
            range,
            used.iter().any(|address| orphan(&address)),
            &waiting,
        )
        .await?;
    }
    Ok(true)
}

fn networks(range: &Value) -> Vec<IpNet> {
    list(range, &["spec", "cidrs"])
        .iter()
        .filter_map(|cidr| cidr.as_str()?.parse().ok())
        .collect()
}

fn condition(status: &str, reason: &str, message: &str) -> Value {
    json!({"type": "Ready", "status": status, "reason": reason, "message": message})
}

/// Writes what has to be said of a range: whether it is held, and its condition. One that is on its way out and not
/// held any more is removed.
async fn put(app: &State, range: &Value, held: bool, condition: &Value) -> Result<(), Error> {
    let Some(row) = api::table::find("networking.k8s.io", "v1", PLURAL) else {
        return Ok(());
    };
    let key = row.key("", meta::name(range));
    let Some(entry) = app.storage.get(&key).await? else {
        return Ok(());
    };
    let mut new = object::decode(row, &entry);
    let mut finalizers = meta::finalizers(&new).to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if held {
        finalizers.push(FINALIZER.into());
    }
    let change = if meta::is_terminating(&new) && finalizers.is_empty() {
        Write::Delete {
            key,
            expected: entry.modified,
        }
    } else {
        let current = list(&new, &["status", "conditions"])
            .iter()
            .find(|current| text(current, &["type"]) == "Ready");
        let same = ["status", "reason", "message"].iter().all(|key| {
            current.is_some_and(|current| text(current, &[key]) == text(condition, &[key]))
        });
        if same && at(&new, &["metadata", "finalizers"]) == &Value::from(finalizers.clone()) {
            return Ok(());
        }
        if !same {
            let mut condition = condition.clone();
            let now = meta::timestamp(OffsetDateTime::now_utc());
            condition["lastTransitionTime"] = now.into();
            new["status"] = json!({"conditions": [condition]});
        }
        new["metadata"]["finalizers"] = finalizers.into();
        Write::Update {
            key,
            value: write::stored_form(row, &new),
            expected: entry.modified,
        }
    };
    match app.storage.write(vec![change]).await {
        Ok(revision) => {
            app.mirror.caught_up(row, revision).await;
            Ok(())
        }
        // Its change comes as one of its own.
        Err(Error::Conflict { .. } | Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes into use what the store says, before the first request is answered.
pub(crate) async fn begin(app: &State) -> Result<(), Error> {
    settle(app).await.map(drop)
}

impl Allocator {
    /// Gives addresses of these ranges out. Where no ServiceCIDR is left, of those that the server was started with,
    /// unless they are leaving.
    async fn use_ranges(&self, usable: &[IpNet], leaving: &[IpNet]) -> Result<(), Error> {
        let mut wanted = Vec::new();
        for range in usable {
            if !wanted.contains(range) {
                wanted.push(*range);
            }
        }
        wanted.sort_by_key(|range| !self.configured.contains(range));
        if wanted.is_empty() {
            let configured = self.configured.iter();
            wanted.extend(configured.filter(|range| !leaving.contains(range)));
        }
        if lock(&self.pool).set_ranges(&wanted) {
            self.reload().await?;
        }
        Ok(())
    }
}
