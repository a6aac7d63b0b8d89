//! Discovery of all groups, whoever answers for them, in the order that their APIServices ask for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::discovery::version_rank;
use api::value::text;
use serde_json::{Value, json};

use super::routes::{Priority, Routes};
use super::told::Told;
use super::{GROUP, Route};
use crate::State;
use crate::documents::Others;

/// What stands first, before its APIServices can say where it stands.
const OWN: Priority = (i64::MAX, i64::MAX);
/// Of custom resources whose APIService is about to be made.
const CUSTOM: Priority = (1000, 100);

/// One version of a group in the form of a document.
pub(crate) struct GroupVersion {
    group: String,
    pub(crate) version: String,
    pub(crate) body: Value,
}

impl GroupVersion {
    pub(crate) fn new(group: &str, version: &str, body: Value) -> Self {
        GroupVersion {
            group: group.to_owned(),
            version: version.to_owned(),
            body,
        }
    }
}

/// Groups with their versions, those first that are wanted first. `own` are those that this server answers for; `of`
/// makes what stands in the document for one of somebody else's.
pub(crate) fn merged(
    state: &State,
    own: Vec<GroupVersion>,
    of: impl Fn(&Remote) -> Value,
) -> Vec<(String, Vec<GroupVersion>)> {
    let routes = state.aggregator.routes(&state.mirror);
    let mut groups: BTreeMap<String, Vec<(Priority, GroupVersion)>> = BTreeMap::new();
    let mut add = |priority, one: GroupVersion| {
        groups
            .entry(one.group.clone())
            .or_default()
            .push((priority, one));
    };
    for one in own {
        if let Some(priority) = priority(&routes, &one.group, &one.version) {
            add(priority, one);
        }
    }
    for route in routes.remote() {
        let told = state.aggregator.told(&route.name);
        let remote = Remote {
            route: route.clone(),
            told: told.filter(|_| route.available),
        };
        let one = GroupVersion::new(&route.group, &route.version, of(&remote));
        let priority = routes.priority(&route.group, &route.version);
        add(priority.unwrap_or(CUSTOM), one);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    for (_, versions) in &mut groups {
        versions.sort_by_key(|((_, priority), one)| {
            Reverse((
                *priority,
                version_rank(&one.version),
                Reverse(one.version.clone()),
            ))
        });
    }
    // Those of equal priority stay in the order of their names.
    groups.sort_by_key(|(_, versions)| {
        Reverse(versions.iter().map(|((priority, _), _)| *priority).max())
    });
    let bodies = groups
        .into_iter()
        .map(|(group, versions)| (group, versions.into_iter().map(|(_, one)| one).collect()));
    bodies.collect()
}

/// Where a version of ours stands; `None`: it is not told of. Somebody took its APIService away, or it is somebody
/// else's.
fn priority(routes: &Routes, group: &str, version: &str) -> Option<Priority> {
    if routes.find(group, version).is_some() {
        return None;
    }
    if group == GROUP {
        return Some(OWN);
    }
    let built_in = api::table::RESOURCES
        .iter()
        .any(|row| (row.group, row.version) == (group, version));
    let told = routes.priority(group, version);
    told.or((!built_in).then_some(CUSTOM))
}

/// A version of a group that somebody else answers for.
pub(crate) struct Remote {
    route: Arc<Route>,
    /// `None`: nobody can be asked.
    told: Option<Arc<Told>>,
}

impl Remote {
    /// As in the list of a group's versions.
    pub(crate) fn legacy(&self) -> Value {
        let Route { group, version, .. } = &*self.route;
        json!({"groupVersion": format!("{group}/{version}"), "version": version})
    }

    /// As in aggregated discovery; stale where nobody can be asked.
    pub(crate) fn aggregated(&self) -> Value {
        let version = &self.route.version;
        match &self.told {
            Some(told) => {
                json!({"version": version, "resources": told.resources, "freshness": "Current"})
            }
            None => json!({"version": version, "freshness": "Stale"}),
        }
    }
}

/// The versions of all groups of an aggregated (`metadata.name`) or an old (`name`) document.
pub(crate) fn group_versions(groups: &[Value], name: &[&str]) -> Vec<GroupVersion> {
    let mut found = Vec::new();
    for group in groups {
        for version in api::value::list(group, &["versions"]) {
            let of = text(version, &["version"]);
            found.push(GroupVersion::new(text(group, name), of, version.clone()));
        }
    }
    found
}

/// Paths of the groups that somebody else answers for.
pub(crate) fn root_paths(state: &State) -> Vec<String> {
    let routes = state.aggregator.routes(&state.mirror);
    let paths = routes.remote().flat_map(|route| {
        let group = format!("/apis/{}", route.group);
        [group, format!("/{}", route.root())]
    });
    paths.collect()
}

/// Makes an index of schemas one of all that can be had: what others answer for has the addresses that they give.
pub(crate) fn index(state: &State, mut own: Value) -> Value {
    let routes = state.aggregator.routes(&state.mirror);
    let Some(paths) = own.get_mut("paths").and_then(Value::as_object_mut) else {
        return own;
    };
    for route in routes.remote() {
        paths.remove(&route.root());
        let told = state.aggregator.told(&route.name);
        if let Some(query) = told.as_ref().and_then(|told| told.schema.as_ref()) {
            let address = format!("/openapi/v3/{}?{query}", route.root());
            paths.insert(
                route.root(),
                json!({"serverRelativeURL": address.trim_end_matches('?')}),
            );
        }
    }
    own
}

/// The schemas of others in OpenAPI v2.
pub(crate) fn swaggers(state: &State) -> Others {
    // First, so that what comes in between is not taken for what was there.
    let generation = state.aggregator.generation();
    let routes = state.aggregator.routes(&state.mirror);
    let documents = routes.remote().filter_map(|route| {
        let told = state.aggregator.told(&route.name)?;
        let (_, document) = told.swagger.as_ref()?;
        Some((format!("/{}", route.root()), document.clone()))
    });
    Others {
        generation,
        documents: documents.collect(),
    }
}
