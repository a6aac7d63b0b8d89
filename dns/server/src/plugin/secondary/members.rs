//! The zones of a `secondary`: those that the Corefile names, and those that catalogs add and take away.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use hickory_proto::rr::Name;
use tokio::task::JoinHandle;

use super::Had;
use super::Primary;
use super::catalog;
use super::catalog::Listed;
use super::keep;
use crate::plugin::file::Slot;
use crate::plugin::file::Zones;
use crate::plugin::file::zone::Zone;

/// A zone that a catalog names.
struct Member {
    catalog: Name,
    listed: Listed,
    primary: Arc<Primary>,
    task: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All zones; what is answered from them is [`Zones`].
pub(super) struct Members {
    pub(super) zones: Arc<Zones>,
    pub(super) fixed: Vec<(Name, Arc<Primary>)>,
    table: Mutex<BTreeMap<Name, Member>>,
}

impl Members {
    pub(super) fn new(fixed: Vec<(Name, Arc<Primary>)>) -> Self {
        let members = Self {
            zones: Arc::default(),
            fixed,
            table: Mutex::default(),
        };
        members.show(&members.table());
        members
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Name, Member>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The zone's primary servers, if it is one of ours.
    pub(super) fn primary(&self, zone: &Name) -> Option<Arc<Primary>> {
        let fixed = self.fixed.iter().find(|(name, _)| name == zone);
        match fixed {
            Some((_, primary)) => Some(Arc::clone(primary)),
            None => {
                let table = self.table();
                let member = table.get(&zone.to_lowercase())?;
                Some(Arc::clone(&member.primary))
            }
        }
    }

    /// Does what a catalog that was transferred says: new members are fetched, and those that are gone are no longer
    /// answered. A name that is another's stays another's, unless that catalog gives it away.
    pub(super) fn follow(&self, catalog: &Name, zone: &Zone, primary: &Primary) {
        let listed = match catalog::members(catalog, &zone.records()) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::error!(%catalog, %error, "secondary: the catalog is broken; its zones stay as they are");
                return;
            }
        };
        let mut table = self.table();
        table.retain(|name, member| member.catalog != *catalog || listed.contains_key(name));
        for (name, listed) in listed {
            let fixed = self.fixed.iter().any(|(fixed, _)| *fixed == name);
            let known = table.get_mut(&name);
            let given = known.as_ref().is_none_or(|member| {
                member.catalog == *catalog || member.listed.heir.as_ref() == Some(catalog)
            });
            if fixed || !given {
                tracing::warn!(%catalog, zone = %name, "secondary: a member is a zone of somebody else's, and stays so");
                continue;
            }
            match known {
                // The data are kept where the label is the same.
                Some(member) if member.listed.label == listed.label => {
                    member.catalog = catalog.clone();
                    member.listed = listed;
                }
                known => {
                    let had = if known.is_some() {
                        primary.kept.anew(&name, &primary.servers)
                    } else {
                        primary.kept.of(&name, &primary.servers)
                    };
                    let primary = Arc::new(primary.of_member(had));
                    let task = tokio::spawn(keep(name.clone(), Arc::clone(&primary), None));
                    let member = Member {
                        catalog: catalog.clone(),
                        listed,
                        primary,
                        task,
                    };
                    table.insert(name, member);
                }
            }
        }
        self.show(&table);
    }

    fn show(&self, table: &BTreeMap<Name, Member>) {
        let slot = |(name, primary): (&Name, &Arc<Primary>)| -> (Name, Slot) {
            (name.clone(), Arc::clone(&primary.had.slot))
        };
        let fixed = self.fixed.iter().map(|(name, primary)| (name, primary));
        let members = table.iter().map(|(name, member)| (name, &member.primary));
        self.zones.set(fixed.chain(members).map(slot).collect());
    }
}

impl Primary {
    /// True if the address is one of the servers'.
    pub(super) fn is(&self, address: IpAddr) -> bool {
        self.servers.iter().any(|server| server.ip() == address)
    }

    fn of_member(&self, had: Arc<Had>) -> Self {
        Self {
            servers: self.servers.clone(),
            bell: tokio::sync::Notify::new(),
            had,
            kept: Arc::clone(&self.kept),
            notify: self.notify.clone(),
            catalog: false,
        }
    }
}
