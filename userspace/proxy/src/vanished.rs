//! Backends that left their Service, until nothing names them any longer (`--reset-dead-backends`). A backend that is
//! going, or not ready, goes on with the connections that it has; one that no EndpointSlice names is dead, and who waits
//! for it would wait for long.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use plan::Left;
use tokio::time::Instant;
use view::Services;

/// Between two looks at those that may still be named.
const PAUSE: Duration = Duration::from_secs(1);
/// How many are remembered at most; of what comes beyond, clients find out by themselves.
const MAX: usize = 65_536;

/// Backends that may be dead soon.
#[derive(Debug, Default)]
pub(crate) struct Vanishing {
    left: BTreeSet<Left>,
    due: Option<Instant>,
}

impl Vanishing {
    /// Notes what new connections no longer reach.
    pub(crate) fn note(&mut self, left: &[Left]) {
        let with_connections = left
            .iter()
            .filter(|left| matches!(left.protocol, abi::protocol::TCP | abi::protocol::SCTP));
        let room = MAX.saturating_sub(self.left.len());
        self.left.extend(with_connections.copied().take(room));
        if self.due.is_none() && !self.left.is_empty() {
            self.due = Some(Instant::now());
        }
    }

    /// When to look again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Those that nothing names any more; they are forgotten here.
    pub(crate) fn dead(&mut self, services: &Services) -> Vec<Left> {
        let addrs: BTreeSet<IpAddr> = self.left.iter().map(|left| left.addr.ip()).collect();
        let named = services.named(&addrs);
        let (stay, dead): (BTreeSet<Left>, BTreeSet<Left>) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|left| named.contains(&left.addr.ip()));
        self.left = stay;
        self.due = (!self.left.is_empty()).then(|| Instant::now() + PAUSE);
        dead.into_iter().collect()
    }
}
