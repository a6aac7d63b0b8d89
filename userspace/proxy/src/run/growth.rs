//! Full tables grow.

use std::error::Error as StdError;
use std::time::Duration;

use bpf::{Datapath, Fill};
use plan::{Capacities, Table};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Proxy;
use crate::Error;

/// Between a growth of tables that the kernel refused and the next attempt.
const GROWTH_PAUSE: Duration = Duration::from_secs(60);

impl Proxy {
    /// Sizes of the tables with more room where there is none for what is wanted; `None` where nothing is too small, or
    /// may be larger.
    pub(super) fn room_wanted(&self) -> Option<bpf::Capacities> {
        if self
            .no_growth_before
            .is_some_and(|when| Instant::now() < when)
        {
            return None;
        }
        let held = &self.capacities;
        let mut wanted = *self.datapath.capacities();
        let mut grows = false;
        let most = self.settings.tables_max;
        let mut more = |wanted: &mut u32, held: u32| {
            *wanted = held.saturating_mul(2).min(most).max(held);
            grows |= *wanted > held;
        };
        for table in self.balancer.planner().full_tables() {
            match table {
                Table::Frontends4 | Table::Frontends6 => {
                    more(&mut wanted.frontends, held.frontends4.min(held.frontends6));
                }
                Table::Rings => more(&mut wanted.rings, held.rings),
                Table::Backends => more(&mut wanted.backends, held.backends),
                Table::Sources => more(&mut wanted.sources, held.sources),
                Table::Spreads => more(&mut wanted.spreads, held.spreads),
            }
        }
        grows.then_some(wanted)
    }

    /// A larger table for clients with session affinity. Where there may be none, the least recently used give way.
    pub(super) fn make_room_for_clients(&mut self, crowd: &Fill) {
        let Some(affinity) = self.more_room(crowd) else {
            return;
        };
        let wanted = bpf::Capacities {
            affinity,
            ..*self.datapath.capacities()
        };
        info!(
            clients = crowd.used,
            affinity, "session affinity binds more clients"
        );
        self.grow(&wanted);
    }

    /// As [`Proxy::make_room_for_clients`], for flows.
    pub(super) fn make_room_for_flows(&mut self, crowd: &Fill) {
        let Some(flows) = self.more_room(crowd) else {
            self.tell_crowd(crowd);
            return;
        };
        let wanted = bpf::Capacities {
            flows,
            ..*self.datapath.capacities()
        };
        info!(entries = crowd.used, flows, "more flows live");
        self.grow(&wanted);
    }

    /// Of flows that may have to give way, now and then.
    fn tell_crowd(&mut self, crowd: &Fill) {
        let now = Instant::now();
        if self
            .crowd_told
            .is_none_or(|told| now - told >= GROWTH_PAUSE)
        {
            self.crowd_told = Some(now);
            warn!(
                table = crowd.table,
                entries = crowd.used,
                capacity = crowd.capacity,
                "new flows take the room of those that were silent longest, once the table is full: --flows-max and \
                 --tables-max give more"
            );
        }
    }

    /// The capacity that a crowded table grows to; `None` where it may not grow, or not now.
    fn more_room(&self, crowd: &Fill) -> Option<u32> {
        let more = crowd
            .capacity
            .saturating_mul(2)
            .min(self.settings.tables_max);
        let paused = self
            .no_growth_before
            .is_some_and(|when| Instant::now() < when);
        (more > crowd.capacity && !paused).then_some(more)
    }

    /// Swaps tables for larger ones; whether they are.
    pub(super) fn grow(&mut self, wanted: &bpf::Capacities) -> bool {
        let start = Instant::now();
        let grown = self.datapath.grow(wanted).map_err(Error::from);
        if let Err(error) = &grown {
            self.no_growth_before = Some(Instant::now() + GROWTH_PAUSE);
            let error = error as &dyn StdError;
            error!(error, again_in = ?GROWTH_PAUSE, "full tables cannot grow");
        }
        // However that ended, the tables are what the datapath says.
        match capacities(&self.datapath) {
            Ok(capacities) if capacities != self.capacities => {
                info!(?capacities, took = ?start.elapsed(), "full tables grew");
                self.capacities = capacities;
                true
            }
            Ok(_) => false,
            Err(error) => {
                error!(
                    error = &error as &dyn StdError,
                    "cannot read the tables' sizes"
                );
                false
            }
        }
    }
}

/// What the tables in the kernel hold, which may be more than was asked for.
pub(super) fn capacities(datapath: &Datapath) -> Result<Capacities, Error> {
    let mut capacities = Capacities::default();
    for fill in datapath.fill()? {
        let of = |table: Table| fill.table == table.name();
        if of(Table::Frontends4) {
            capacities.frontends4 = fill.capacity;
        } else if of(Table::Frontends6) {
            capacities.frontends6 = fill.capacity;
        } else if of(Table::Rings) {
            capacities.rings = fill.capacity;
        } else if of(Table::Backends) {
            capacities.backends = fill.capacity;
        } else if of(Table::Sources) {
            capacities.sources = fill.capacity;
        } else if of(Table::Spreads) {
            capacities.spreads = fill.capacity;
        }
    }
    Ok(capacities)
}
