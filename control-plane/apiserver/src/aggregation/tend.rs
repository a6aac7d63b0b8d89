//! Looks whether other API servers can be reached, and asks them what they have: when their Services or endpoints
//! change, and from time to time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::meta;
use api::table::Resource;
use api::value::{at, text};
use authorization::{MASTERS, User};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use serde_json::{Value, json};
use storage::{Change, Error as StorageError, Range, WatchEvent};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::condition::{self, Fault};
use super::told::{self, Asked};
use super::{API_SERVICES, OURSELVES, Route};
use crate::dial::Peer;
use crate::handlers::connect::targets;
use crate::{State, object};

/// How often an API server is asked that answered last time, and one that did not.
const EVERY: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(5);
/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(100);
/// How long an API server may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many of a Service's endpoints are asked at once: one that answers is enough.
const ASKED_MAX: usize = 5;

/// Keeps the condition `Available` of all APIServices, and what is known of those who answer for them; until it is
/// dropped.
pub(crate) async fn follow(state: Arc<State>) {
    let Some(mut changes) = state.mirror.changes(API_SERVICES) else {
        return;
    };
    // They end with this function.
    let mut tended = JoinSet::new();
    let mut known: BTreeMap<String, AbortHandle> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let mut failed = false;
        for service in state.mirror.list(API_SERVICES, "") {
            if at(&service, &["spec", "service"]).is_null() {
                let kept = condition::keep(&state, &service, local()).await;
                failed |= kept.is_err();
            }
        }
        let names: Vec<String> = {
            let routes = state.aggregator.routes(&state.mirror);
            routes.remote().map(|route| route.name.clone()).collect()
        };
        known.retain(|name, tending| {
            let stays = names.contains(name) && !tending.is_finished();
            if !stays {
                tending.abort();
                state.aggregator.learn(name, None);
            }
            stays
        });
        for name in names {
            if !known.contains_key(&name) {
                let tending = tended.spawn(tend(state.clone(), name.clone()));
                known.insert(name, tending);
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(AGAIN), if failed => {}
            Some(_) = tended.join_next() => {}
        }
    }
}

fn local() -> Value {
    json!({
        "type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available",
    })
}

/// As [`follow`], for one APIService.
async fn tend(state: Arc<State>, name: String) {
    let Some(mut changes) = state.mirror.changes(API_SERVICES) else {
        return;
    };
    loop {
        changes.mark_unchanged();
        let found = state.mirror.get(API_SERVICES, "", &name);
        let (Some(service), Some(route)) = (found, route_of(&state, &name)) else {
            return;
        };
        let mut events = events(&state, &route).await;
        let fault = match look(&state, &route).await {
            Ok(fault) => fault,
            Err(error) => {
                tracing::warn!(%error, name, "can't say whether an APIService is available");
                sleep(AGAIN).await;
                continue;
            }
        };
        let condition = condition::condition(fault.as_ref());
        if let Err(error) = condition::keep(&state, &service, condition).await {
            tracing::warn!(%error, name, "the condition of an APIService can't be written");
        }
        let due = if fault.is_some() { AGAIN } else { EVERY };
        let spec = at(&service, &["spec"]);
        let other_spec = async {
            // Its conditions change by what is done here.
            loop {
                if changes.changed().await.is_err() {
                    return;
                }
                let now = state.mirror.get(API_SERVICES, "", &name);
                if now.is_none_or(|now| at(&now, &["spec"]) != spec) {
                    return;
                }
            }
        };
        tokio::select! {
            () = other_spec => {}
            _ = events.next() => sleep(SETTLE).await,
            () = sleep(due) => {}
        }
    }
}

fn route_of(state: &State, name: &str) -> Option<Arc<Route>> {
    let routes = state.aggregator.routes(&state.mirror);
    routes.remote().find(|route| route.name == name).cloned()
}

/// Why the API server cannot be reached; if it can, what it has is learnt.
async fn look(state: &Arc<State>, route: &Route) -> Result<Option<Fault>, StorageError> {
    let (service, slices) = objects(state, route).await?;
    let fault = condition::behind(route, service.as_ref(), &slices);
    if fault.is_some() {
        return Ok(fault);
    }
    let failed = |message| {
        let reason = "FailedDiscoveryCheck";
        Ok(Some(Fault { reason, message }))
    };
    let port = route.port.to_string();
    let found = targets::endpoints(state, &route.namespace, &route.service, &port).await;
    let mut found = match found {
        Ok(found) => found,
        Err(status) => return failed(status.message),
    };
    fastrand::shuffle(&mut found);
    let asked = found.into_iter().take(ASKED_MAX).map(|(host, port)| {
        let (tls, agent) = (true, false);
        #[rustfmt::skip]
        let peer = Peer { host, port, tls, agent };
        ask(route, peer)
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut why = String::new();
    while let Some(answer) = asked.next().await {
        match answer {
            Ok((peer, resources)) => {
                let before = state.aggregator.told(&route.name);
                let told = told::learn(route, &peer, &resources, before.as_deref()).await;
                state.aggregator.learn(&route.name, Some(told));
                return Ok(None);
            }
            Err(message) => why = message,
        }
    }
    failed(why)
}

/// What the API server at this address has, by the document that each of them must have.
async fn ask(route: &Route, peer: Peer) -> Result<(Peer, Value), String> {
    let user = User::new(OURSELVES, &[MASTERS]);
    let url = format!("{}/{}", peer.url(), route.root());
    let asked = Asked::new(&url, "application/json");
    let answer = timeout(PATIENCE, told::get(route, &user, &asked)).await;
    let missing = |why: String| {
        format!(
            "failing or missing response from {url}: Get {}: {why}",
            api::field::quoted(&url)
        )
    };
    let (head, body) = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => return Err(missing(why)),
        Err(_) => {
            let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            return Err(missing(why.to_owned()));
        }
    };
    if !head.status.is_success() {
        let code = head.status.as_u16();
        return Err(format!(
            "failing or missing response from {url}: bad status from {url}: {code}"
        ));
    }
    // What it says may be anything; it is there.
    Ok((peer, serde_json::from_slice(&body).unwrap_or_default()))
}

fn rows() -> Option<(&'static Resource, &'static Resource)> {
    let services = api::table::find("", "v1", "services")?;
    let slices = api::table::find("discovery.k8s.io", "v1", "endpointslices")?;
    Some((services, slices))
}

fn is_of(slice: &Value, service: &str) -> bool {
    text(slice, &["metadata", "labels", "kubernetes.io/service-name"]) == service
}

/// The Service and its slices.
async fn objects(
    state: &State,
    route: &Route,
) -> Result<(Option<Value>, Vec<Value>), StorageError> {
    let Some((services, slices)) = rows() else {
        return Ok((None, Vec::new()));
    };
    let key = services.key(&route.namespace, &route.service);
    let Some(service) = state.storage.get(&key).await? else {
        return Ok((None, Vec::new()));
    };
    let range = Range {
        prefix: slices.key_prefix(&route.namespace),
        ..Range::default()
    };
    let page = state.storage.list(range).await?;
    let mut own: Vec<Value> = page
        .entries
        .iter()
        .map(|entry| object::decode(slices, entry))
        .collect();
    own.retain(|slice| is_of(slice, &route.service) && !meta::is_terminating(slice));
    Ok((Some(object::decode(services, &service)), own))
}

/// Something for each change of the Service or its slices from now on. Where changes cannot be followed there are none.
async fn events(state: &State, route: &Route) -> BoxStream<'static, ()> {
    let Some((services, slices)) = rows() else {
        return stream::pending().boxed();
    };
    let key = services.key(&route.namespace, &route.service);
    let service = state.storage.watch(key.clone(), None).await;
    let slices_of = state
        .storage
        .watch(slices.key_prefix(&route.namespace), None);
    let (Ok(of_service), Ok(of_slices)) = (service, slices_of.await) else {
        return stream::pending().boxed();
    };
    let name = route.service.clone();
    let concerns = move |event: &Result<WatchEvent, StorageError>| {
        let Ok(WatchEvent::Change(
            Change::Put { entry, .. }
            | Change::Delete {
                previous: entry, ..
            },
        )) = event
        else {
            return false;
        };
        *entry.key == *key || is_of(&object::decode(slices, entry), &name)
    };
    let both = stream::select(of_service, of_slices);
    // Where a watch ends, the clock is left.
    both.filter(move |event| std::future::ready(concerns(event)))
        .map(|_| ())
        .chain(stream::pending())
        .boxed()
}
