//! What has a time to live. A lease of etcd costs it something, so one is shared by what is written within a minute, as
//! kube-apiserver does; it lives that much longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use storage::{Error, Revision};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::Shared;

/// How long a lease is used for further keys, where their time to live is longer than that.
const SHARED_FOR: Duration = Duration::from_secs(60);
/// By how many keys.
const SHARED_BY: u32 = 1000;

/// The leases in use, by time to live.
pub(crate) struct Leases {
    shared: Arc<Shared>,
    open: Mutex<HashMap<Duration, Lease>>,
}

struct Lease {
    id: i64,
    granted: Instant,
    keys: u32,
}

impl Leases {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            open: Mutex::default(),
        }
    }

    /// The lease that a key is written under; zero for none.
    pub(crate) async fn of(&self, key: &str) -> Result<i64, Error> {
        let rules = &self.shared.options.leases;
        let Some((_, ttl)) = rules.iter().find(|(prefix, _)| key.starts_with(prefix)) else {
            return Ok(0);
        };
        // A short life is not made longer by sharing.
        let window = if *ttl > SHARED_FOR * 4 {
            SHARED_FOR
        } else {
            Duration::ZERO
        };
        let mut open = self.open.lock().await;
        if let Some(lease) = open.get_mut(ttl)
            && lease.keys < SHARED_BY
            && lease.granted.elapsed() < window
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let seconds = (*ttl + window).as_secs().max(1);
        let granted = Instant::now();
        let rpc = &self.shared.rpc;
        let doing = "getting a lease from";
        let answer = rpc.grant(i64::try_from(seconds).unwrap_or(i64::MAX)).await;
        let answer = answer.map_err(|status| rpc.error(doing, Revision(0), &status))?;
        if !answer.error.is_empty() {
            return Err(Error::Unavailable {
                doing: format!("{doing} etcd at {}", rpc.endpoint()),
                cause: answer.error.into(),
            });
        }
        open.insert(
            *ttl,
            Lease {
                id: answer.id,
                granted,
                keys: 1,
            },
        );
        Ok(answer.id)
    }
}
