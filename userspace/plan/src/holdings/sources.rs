//! The ranges of clients that services admit. A range goes at once where others still restrict the service, so that
//! nobody is admitted for longer than he should; with the restriction itself it goes after the frontends that ask
//! for it.

use std::collections::VecDeque;
use std::net::IpAddr;

use abi::{ServiceId, SourceKey};
use model::Range;

use super::{Group, Holdings, Retired};
use crate::planner::Epoch;
use crate::{Step, Tables};

impl Holdings {
    pub(super) fn restore_sources(&mut self, tables: &Tables) {
        self.sources_len = tables.sources.len();
        for key in &tables.sources {
            let group = self.group(key.service);
            group.sources.insert(*key, None);
            group.restricted = true;
        }
    }

    /// Whether the table holds what a service would admit.
    pub(crate) fn has_room_for_sources(&self, id: Option<ServiceId>, ranges: &[Range]) -> bool {
        let group = id.and_then(|id| Some((id, self.groups.get(&id)?)));
        let held = |range: &&Range| {
            group.is_some_and(|(id, group)| group.sources.contains_key(&key(id, **range)))
        };
        let held = ranges.iter().filter(held).count();
        self.sources_len + ranges.len() - held <= self.sources_max
    }

    /// Makes the ranges those that a service admits; none admit everybody.
    pub(crate) fn admit(
        &mut self,
        service: ServiceId,
        ranges: &[Range],
        new: &mut Vec<Step>,
        old: &mut Vec<Step>,
    ) {
        let group = self.groups.entry(service).or_default();
        group.restricted = !ranges.is_empty();
        if !group.restricted {
            return;
        }
        let wanted: Vec<SourceKey> = ranges.iter().map(|range| key(service, *range)).collect();
        for key in &wanted {
            if group.sources.insert(*key, None).is_none() {
                self.sources_len += 1;
                new.push(Step::PutSource(*key));
            }
        }
        let before = group.sources.len();
        group.sources.retain(|key, _| {
            let kept = wanted.contains(key);
            if !kept {
                old.push(Step::RemoveSource(*key));
            }
            kept
        });
        self.sources_len -= before - group.sources.len();
        self.room_grew |= before > group.sources.len();
    }

    /// Forgets a range that was retired in the epoch `of`, unless it is asked for again or gone since.
    pub(super) fn forget_source(&mut self, key: &SourceKey, of: Epoch) -> Option<Step> {
        let group = self.groups.get_mut(&key.service)?;
        if group.sources.get(key) != Some(&Some(of)) {
            return None;
        }
        group.sources.remove(key);
        self.sources_len -= 1;
        self.forget_if_empty(key.service);
        Some(Step::RemoveSource(*key))
    }
}

impl Group {
    /// Retires the ranges that no frontend asks for.
    pub(super) fn retire_sources(
        &mut self,
        epoch: Epoch,
        retired: &mut VecDeque<(Epoch, Retired)>,
    ) {
        if self.restricted && self.frontends > 0 {
            return;
        }
        for (key, since) in &mut self.sources {
            if since.is_none() {
                *since = Some(epoch);
                retired.push_back((epoch, Retired::Source(*key)));
            }
        }
    }
}

fn key(service: ServiceId, range: Range) -> SourceKey {
    let bits = range.prefix_len().into();
    match range.addr() {
        IpAddr::V4(addr) => SourceKey::v4(service, addr.octets(), bits),
        IpAddr::V6(addr) => SourceKey::v6(service, addr.octets(), bits),
    }
}
