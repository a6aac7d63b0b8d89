//! How many clients their session affinity still binds. The table forgets nobody by itself, so that it fills with clients
//! that are long gone; only those that are bound need room.

use std::collections::BTreeMap;

use abi::{Frontend, ServiceId};

use crate::{Error, Fill, View, spec};

impl View {
    /// Clients that are bound to a backend at `now_secs`, and room for them. Costs a walk through frontends and clients.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn bound_clients(&self, now_secs: u32) -> Result<Fill, Error> {
        let mut timeouts: BTreeMap<ServiceId, u32> = BTreeMap::new();
        let mut note = |frontends: &[Frontend]| {
            let sticky = frontends.iter().filter(|it| it.affinity_secs > 0);
            timeouts.extend(sticky.map(|it| (it.service, it.affinity_secs)));
            true
        };
        self.frontends4.walk(|_, frontends| note(frontends))?;
        self.frontends6.walk(|_, frontends| note(frontends))?;
        let mut used = 0;
        if !timeouts.is_empty() {
            self.affinity.walk(|keys, values| {
                let all = keys.iter().zip(values);
                let bound = all.filter(|(key, value)| {
                    let secs = timeouts.get(&key.service);
                    secs.is_some_and(|secs| holds(value.last_used_secs, *secs, now_secs))
                });
                used += bound.count() as u32;
                true
            })?;
        }
        Ok(Fill {
            table: spec::AFFINITY.name,
            used,
            capacity: self.affinity.capacity(),
            flag: spec::AFFINITY.flag,
        })
    }
}

/// As the programs see it: the time counts from the last connection.
fn holds(last_used_secs: u32, affinity_secs: u32, now_secs: u32) -> bool {
    now_secs.saturating_sub(last_used_secs) < affinity_secs
}
