//! Who has which frontend, when several services want it.

use std::collections::BTreeSet;

use abi::balancing::Mode;
use model::{Service, ServiceKey};

use super::{Planner, Turn};
use crate::entries::entries;
use crate::{FrontendKey, Reach};

/// A service in its rank: of two that claim one frontend, the lower one has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    created: u64,
    pub(super) key: ServiceKey,
}

impl Planner {
    /// Gives up the claims that are no longer wanted, and makes those that are new.
    pub(super) fn move_claims(
        &mut self,
        key: &ServiceKey,
        old: Option<&Service>,
        new: Option<&Service>,
        turn: &mut Turn,
    ) {
        let keys = |service: Option<&Service>| -> BTreeSet<FrontendKey> {
            // The keys depend on neither mode nor bounds.
            let entries = service.map_or(Vec::new(), |service| {
                entries(service, Mode::Snat, &Reach::default(), false)
            });
            entries
                .into_iter()
                .flatten()
                .map(|wanted| wanted.key)
                .collect()
        };
        let claimant = |service: &Service| Claimant {
            created: service.created,
            key: key.clone(),
        };
        let (old_keys, new_keys) = (keys(old), keys(new));
        let (old, new) = (old.map(claimant), new.map(claimant));
        let same_rank = old == new;
        if let Some(me) = &old {
            for frontend in &old_keys {
                let kept = new_keys.contains(frontend);
                if !kept || !same_rank {
                    self.unclaim(*frontend, me, turn);
                }
                if !kept {
                    turn.let_go.push(*frontend);
                }
            }
        }
        if let Some(me) = &new {
            for frontend in &new_keys {
                if !same_rank || !old_keys.contains(frontend) {
                    self.claim(*frontend, me, turn);
                }
            }
        }
    }

    fn claim(&mut self, frontend: FrontendKey, me: &Claimant, turn: &mut Turn) {
        let slot = self.frontends.entry(frontend).or_default();
        let Some(owner) = &mut slot.owner else {
            slot.owner = Some(me.clone());
            return;
        };
        if owner == me {
            return;
        }
        let claimants = self.contested.entry(frontend).or_default();
        claimants.insert(owner.clone());
        claimants.insert(me.clone());
        if me < owner {
            *owner = me.clone();
            turn.dirty.extend(claimants.iter().map(|c| c.key.clone()));
        }
    }

    fn unclaim(&mut self, frontend: FrontendKey, me: &Claimant, turn: &mut Turn) {
        let Some(slot) = self.frontends.get_mut(&frontend) else {
            return;
        };
        let owned = slot.owner.as_ref() == Some(me);
        let mut next = None;
        if let Some(claimants) = self.contested.get_mut(&frontend) {
            claimants.remove(me);
            if owned {
                next = claimants.first().cloned();
                turn.dirty.extend(claimants.iter().map(|c| c.key.clone()));
            }
            if claimants.len() < 2 {
                self.contested.remove(&frontend);
            }
        }
        if owned {
            slot.owner = next;
        }
    }
}
