//! What is had of zones: it lasts from one configuration to the next, as a zone is good until it expires, whether its
//! primary servers answer or not (RFC 1035, 3.3.13).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use hickory_proto::rr::Name;

use crate::plugin::file::Slot;

/// A zone as it was transferred, and when its primary last said that it is still so.
pub(super) struct Had {
    pub(super) slot: Slot,
    confirmed: Mutex<Instant>,
}

impl Had {
    fn new() -> Self {
        Self {
            slot: Slot::default(),
            confirmed: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn confirm(&self) {
        *self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn unconfirmed_for(&self) -> Duration {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

/// A zone, and whom it is transferred from.
type Origin = (Name, Vec<SocketAddr>);

/// What configurations have, as long as one of them is in service.
#[derive(Default)]
pub(crate) struct Kept(Mutex<HashMap<Origin, Weak<Had>>>);

impl Kept {
    fn all(&self) -> MutexGuard<'_, HashMap<Origin, Weak<Had>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing, from now on.
    pub(super) fn anew(&self, zone: &Name, servers: &[SocketAddr]) -> Arc<Had> {
        let mut all = self.all();
        all.retain(|_, had| had.strong_count() > 0);
        let had = Arc::new(Had::new());
        let origin = (zone.to_lowercase(), servers.to_vec());
        all.insert(origin, Arc::downgrade(&had));
        had
    }

    /// What is had of a zone from these servers, which may be nothing yet.
    pub(super) fn of(&self, zone: &Name, servers: &[SocketAddr]) -> Arc<Had> {
        let origin = (zone.to_lowercase(), servers.to_vec());
        let known = self.all().get(&origin).and_then(Weak::upgrade);
        known.unwrap_or_else(|| self.anew(zone, servers))
    }
}
