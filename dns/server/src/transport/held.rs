//! Octets that connections hold while they wait: parts of messages that have not arrived in full, and answers that
//! nobody has read. All connections together hold a bounded number; one that would hold more is closed, and counted.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;

/// Octets of a connection that are not counted: every query and nearly every answer is shorter.
const FREE: usize = 2048;

/// What one connection holds.
pub(super) struct Held<'a> {
    shared: &'a Shared,
    /// So many are not counted.
    free: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl<'a> Held<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            free: FREE,
            permit: None,
        }
    }

    /// What one of many requests of a connection holds: all of it is counted.
    pub(super) fn by_request(shared: &'a Shared) -> Self {
        Self {
            free: 0,
            ..Self::new(shared)
        }
    }

    /// Holds so many octets from now on; false where there is no room for them.
    pub(super) fn hold(&mut self, octets: usize) -> bool {
        if octets <= self.free {
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
        let Some(permit) = self.shared.room(more) else {
            return false;
        };
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        true
    }
}

/// An answer that a client has not read.
struct Unread {
    octets: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl Shared {
    /// Room for so many octets among those that all connections hold; that there is none is counted.
    fn room(&self, octets: u32) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.current.load().environment().stream_octets);
        let permit = room.try_acquire_many_owned(octets).ok();
        if permit.is_none() {
            self.shed("stream_octets");
        }
        permit
    }

    /// An answer of one of many requests of a connection, held until it is written. `None` where there is no room for it.
    pub(super) fn unread(&self, octets: Vec<u8>) -> Option<Bytes> {
        let permit = self.room(u32::try_from(octets.len()).ok()?)?;
        Some(Bytes::from_owner(Unread {
            octets,
            _permit: permit,
        }))
    }
}
