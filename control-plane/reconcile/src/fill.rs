//! Endpoints into slices, moving as few of them as possible.
//!
//! The order of preference is upstream's (KEP-752): what is in a slice stays there; slices that change anyway are
//! filled up first, the fullest before the others; then the remainder goes into the unchanged slice that it fits
//! most closely; then into new slices.

use std::collections::{BTreeMap, BTreeSet};

use view::objects::{Endpoint, EndpointPort, EndpointSlice};

use crate::render::{LAST_CHANGE, slice_object};
use crate::snapshot::Name;
use crate::write::{Target, Write};

/// Endpoints that share ports.
pub(crate) struct Wanted {
    /// `IPv4` or `IPv6`.
    pub(crate) address_type: &'static str,
    pub(crate) ports: Vec<EndpointPort>,
    /// May be empty: one slice is wanted all the same.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Whose slices they are.
pub(crate) struct Owner<'a> {
    /// Also of the Service.
    pub(crate) name: Name,
    pub(crate) kind: &'static str,
    pub(crate) uid: &'a str,
    pub(crate) labels: BTreeMap<String, String>,
    /// Without the time of the last change.
    pub(crate) annotations: BTreeMap<String, String>,
    /// When what the slices follow last changed, RFC 3339.
    pub(crate) changed_at: Option<&'a str>,
    /// Whether new slices may be created.
    pub(crate) may_create: bool,
}

/// What a slice is to hold.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) address_type: String,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

type Existing<'a> = (Name, &'a EndpointSlice);

/// Changes of slices, before they become writes.
#[derive(Default)]
struct Changes<'a> {
    create: Vec<Content>,
    update: Vec<(&'a Existing<'a>, Content)>,
    delete: Vec<&'a Existing<'a>>,
}

/// Distributes endpoints over the `existing` slices and new ones, at most `max` in each.
pub(crate) fn fill(
    existing: &[Existing<'_>],
    wanted: Vec<Wanted>,
    owner: &Owner<'_>,
    max: usize,
) -> Vec<Write> {
    let mut changes = Changes::default();
    // Slices of an earlier object of the same name are not taken over.
    let is_own = |slice: &EndpointSlice| {
        let mut owners = slice.metadata.owner_references.iter();
        owners.any(|reference| reference.controller && reference.uid == owner.uid)
    };
    let (mut own, foreign): (Vec<_>, Vec<_>) = existing
        .iter()
        .filter(|(_, slice)| slice.metadata.deletion_timestamp.is_none())
        .partition(|(_, slice)| is_own(slice));
    for group in wanted {
        let key = port_key(&group.ports);
        let (same, others): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, slice)| {
            slice.address_type == group.address_type && port_key(&slice.ports) == key
        });
        own = others;
        fill_group(&same, group, owner, max, &mut changes);
    }
    changes.delete.extend(own);
    changes.recycle();
    changes.delete.extend(foreign);
    changes.into_writes(owner)
}

/// Distributes endpoints that share ports.
fn fill_group<'a>(
    slices: &[&'a Existing<'a>],
    group: Wanted,
    owner: &Owner<'_>,
    max: usize,
    changes: &mut Changes<'a>,
) {
    let placeholder = group.endpoints.is_empty();
    let mut homeless: BTreeMap<_, _> = group
        .endpoints
        .into_iter()
        .map(|endpoint| (endpoint_key(&endpoint), endpoint))
        .collect();
    let content = |endpoints| Content {
        address_type: group.address_type.to_owned(),
        ports: group.ports.clone(),
        endpoints,
    };

    let mut changed: Vec<(&Existing<'_>, Vec<Endpoint>)> = Vec::new();
    let mut unchanged: Vec<(&Existing<'_>, Vec<Endpoint>)> = Vec::new();
    for existing in slices {
        let before = &existing.1.endpoints;
        let kept: Vec<Endpoint> = before
            .iter()
            .filter_map(|endpoint| homeless.remove(&endpoint_key(endpoint)))
            .collect();
        let surplus = placeholder && !(changed.is_empty() && unchanged.is_empty());
        if surplus || (kept.is_empty() && !placeholder) {
            changes.delete.push(existing);
        } else if kept != *before || !is_labelled(existing.1, owner) {
            changed.push((existing, kept));
        } else {
            unchanged.push((existing, kept));
        }
    }

    changed.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut changed {
        top_up(endpoints, &mut homeless, max);
    }
    while !homeless.is_empty() {
        match closest(&unchanged, homeless.len(), max) {
            Some(index) => {
                let (existing, mut endpoints) = unchanged.swap_remove(index);
                top_up(&mut endpoints, &mut homeless, max);
                changed.push((existing, endpoints));
            }
            None => {
                let mut endpoints = Vec::new();
                top_up(&mut endpoints, &mut homeless, max);
                changes.create.push(content(endpoints));
            }
        }
    }
    if placeholder && changed.is_empty() && unchanged.is_empty() {
        changes.create.push(content(Vec::new()));
    }
    let updates = changed.into_iter();
    changes
        .update
        .extend(updates.map(|(existing, endpoints)| (existing, content(endpoints))));
}

/// Moves endpoints from `homeless` until there are `max`.
fn top_up<K: Ord>(endpoints: &mut Vec<Endpoint>, homeless: &mut BTreeMap<K, Endpoint>, max: usize) {
    while endpoints.len() < max
        && let Some((_, endpoint)) = homeless.pop_first()
    {
        endpoints.push(endpoint);
    }
}

/// The slice that has room for all that remain, and least room beyond.
fn closest(
    slices: &[(&Existing<'_>, Vec<Endpoint>)],
    remaining: usize,
    max: usize,
) -> Option<usize> {
    let room = |(_, endpoints): &(_, Vec<Endpoint>)| max.checked_sub(endpoints.len() + remaining);
    let fitting = slices
        .iter()
        .enumerate()
        .filter_map(|(index, slice)| Some((room(slice)?, index)));
    fitting.min().map(|(_, index)| index)
}

impl Changes<'_> {
    /// A slice that would go and one that would come, of one address type, become one update: watchers then never
    /// see the Service without endpoints in between.
    fn recycle(&mut self) {
        let mut index = 0;
        while index < self.delete.len() {
            let existing = self.delete[index];
            let taken = self
                .create
                .iter()
                .position(|content| content.address_type == existing.1.address_type);
            match taken {
                Some(position) => {
                    self.delete.remove(index);
                    self.update.push((existing, self.create.remove(position)));
                }
                None => index += 1,
            }
        }
    }

    /// What comes is written before what goes is removed.
    fn into_writes(self, owner: &Owner<'_>) -> Vec<Write> {
        let creates = self
            .create
            .into_iter()
            .filter(|_| owner.may_create)
            .map(|content| Write::Create {
                target: Target::EndpointSlice,
                namespace: owner.name.namespace.clone(),
                object: slice_object(None, &content, owner),
            });
        let updates = self
            .update
            .into_iter()
            .map(|(existing, content)| Write::Replace {
                target: Target::EndpointSlice,
                name: existing.0.clone(),
                object: slice_object(Some(&existing.1.metadata), &content, owner),
            });
        let deletes = self
            .delete
            .into_iter()
            .map(|(name, slice)| Write::delete_slice(name, slice));
        creates.chain(updates).chain(deletes).collect()
    }
}

impl Write {
    pub(crate) fn delete_slice(name: &Name, slice: &EndpointSlice) -> Write {
        Write::Delete {
            target: Target::EndpointSlice,
            name: name.clone(),
            uid: slice.metadata.uid.clone(),
            resource_version: slice.metadata.resource_version.clone(),
        }
    }
}

/// Whether labels and annotations are the owner's. The time of the last change is not compared: it goes along with
/// other changes.
fn is_labelled(slice: &EndpointSlice, owner: &Owner<'_>) -> bool {
    let annotations = slice
        .metadata
        .annotations
        .iter()
        .filter(|(key, _)| *key != LAST_CHANGE);
    slice.metadata.labels == owner.labels && annotations.eq(owner.annotations.iter())
}

/// Two endpoints with equal keys are one endpoint in two states.
fn endpoint_key(endpoint: &Endpoint) -> (BTreeSet<String>, String, String) {
    let target = endpoint.target_ref.clone().unwrap_or_default();
    let addresses = endpoint.addresses.iter().cloned().collect();
    (
        addresses,
        target.uid,
        format!("{}/{}", target.namespace, target.name),
    )
}

/// Ports in an order of their own.
fn port_key(ports: &[EndpointPort]) -> BTreeSet<(&str, &str, Option<i32>, Option<&str>)> {
    ports
        .iter()
        .map(|port| {
            let protocol = if port.protocol.is_empty() {
                "TCP"
            } else {
                &port.protocol
            };
            (
                port.name.as_str(),
                protocol,
                port.port,
                port.app_protocol.as_deref(),
            )
        })
        .collect()
}
