//! Octets that connections hold while they wait: parts of messages that have not arrived in full, and answers that
//! nobody has read. All connections together hold a bounded number; one that would hold more is closed, and counted.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Shared;

/// Octets of a connection that are not counted: every query and nearly every answer is shorter.
const FREE: usize = 2048;

/// What one connection holds.
pub(super) struct Held<'a> {
    shared: &'a Shared,
    permit: Option<OwnedSemaphorePermit>,
}

impl<'a> Held<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            permit: None,
        }
    }

    /// Holds so many octets from now on; false where there is no room for them.
    pub(super) fn hold(&mut self, octets: usize) -> bool {
        if octets <= FREE {
            self.permit = None;
            return true;
        }
        let had = self
            .permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(octets.saturating_sub(had)).unwrap_or(u32::MAX);
        if more == 0 {
            return true;
        }
        let room = Arc::clone(&self.shared.current.load().environment().stream_octets);
        let Ok(permit) = room.try_acquire_many_owned(more) else {
            self.shared.shed("stream_octets");
            return false;
        };
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        true
    }
}
