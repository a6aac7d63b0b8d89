//! Who has an address, kept up to date with each Service that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Store;
use crate::host::Slice;
use crate::service::{Entry, External, Key, Kind};
use crate::snapshot::Owner;

impl Store {
    /// Brings the owners of addresses up to date; slices that did not change are not looked at.
    pub(super) fn reverse(&mut self, key: &Key, before: Option<&Entry>, after: Option<&Entry>) {
        let same_rules = match (before, after) {
            (Some(before), Some(after)) => Arc::ptr_eq(&before.declared, &after.declared),
            _ => false,
        };
        let kept = |slice: &Arc<Slice>, in_: Option<&Entry>| {
            same_rules && in_.is_some_and(|e| e.slices.iter().any(|s| Arc::ptr_eq(s, slice)))
        };
        let mut touched: BTreeSet<IpAddr> = BTreeSet::new();
        for (entry, other) in [(before, after), (after, before)] {
            let Some(entry) = entry else { continue };
            if !same_rules && let Kind::ClusterIp(ips) = &entry.declared.kind {
                touched.extend(ips);
            }
            let changed = entry.slices.iter().filter(|slice| !kept(slice, other));
            touched.extend(changed.flat_map(|slice| slice.hosts.iter().map(|h| h.addr)));
        }
        if touched.is_empty() {
            return;
        }
        let mut wanted: BTreeMap<IpAddr, Vec<Owner>> = BTreeMap::new();
        if let Some(entry) = after {
            if let Kind::ClusterIp(ips) = &entry.declared.kind {
                for ip in ips.iter().filter(|ip| touched.contains(ip)) {
                    wanted
                        .entry(*ip)
                        .or_default()
                        .push(Owner::Service(key.clone()));
                }
            }
            for (_, host) in entry.named_hosts() {
                if touched.contains(&host.addr) {
                    let owner = Owner::Host(key.clone(), host.hostname.clone());
                    wanted.entry(host.addr).or_default().push(owner);
                }
            }
        }
        for addr in touched {
            let mut owners = wanted.remove(&addr).unwrap_or_default();
            let known = self.next.owners.get(&addr);
            let others = known.iter().flat_map(|owners| owners.iter());
            owners.extend(others.filter(|owner| owner.key() != key).cloned());
            owners.sort();
            owners.dedup();
            if known.is_some_and(|known| **known == *owners) {
                continue;
            }
            if owners.is_empty() {
                self.next.owners.remove(&addr);
            } else {
                self.next.owners.insert(addr, owners.into());
            }
        }
    }

    /// Brings the owners of addresses outside the cluster up to date.
    pub(super) fn outside(&mut self, key: &Key, before: Option<&Entry>, after: Option<&Entry>) {
        let of = |entry: Option<&Entry>| -> BTreeSet<IpAddr> {
            let external = entry.into_iter().flat_map(|e| e.declared.external.iter());
            external
                .filter_map(|place| match place {
                    External::Address(addr) => Some(*addr),
                    External::Name(_) => None,
                })
                .collect()
        };
        let (before, after) = (of(before), of(after));
        for addr in before.symmetric_difference(&after) {
            let known = self.next.outside.get(addr);
            let others = known.iter().flat_map(|keys| keys.iter());
            let mut keys: Vec<Key> = others.filter(|k| *k != key).cloned().collect();
            if after.contains(addr) {
                keys.push(key.clone());
            }
            keys.sort_unstable();
            match keys.is_empty() {
                true => self.next.outside.remove(addr),
                false => self.next.outside.insert(*addr, keys.into()),
            };
        }
    }
}

impl Owner {
    fn key(&self) -> &Key {
        match self {
            Owner::Service(key) | Owner::Host(key, _) => key,
        }
    }
}
