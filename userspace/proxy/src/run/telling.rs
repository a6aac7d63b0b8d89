//! What is told of a turn: in the log, as Events, in the status and in kube-proxy's figures.

use std::time::{Duration, SystemTime};

use model::ServiceKey;
use plan::Step;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{info, warn};
use view::Trigger;

use super::Proxy;
use crate::balancer::Turn;
use crate::{Error, Trouble, apply};

impl Proxy {
    /// Says of each step that the kernel refused whom it concerns; everybody else is served. What the tables hold
    /// instead is looked at after a while.
    pub(super) fn report(&mut self, refused: Vec<(&Step, bpf::ApplyError)>) -> Result<(), Error> {
        let mut last = None;
        for (step, error) in refused {
            let told = self.balancer.refused(step, &apply::words(&error));
            if let Some((key, troubles)) = told {
                self.events.tell(&key, &troubles);
                let status = &self.settings.status;
                status.send_modify(|status| status.set_troubles(&key, &troubles));
            }
            last = Some(error);
        }
        last.map_or(Ok(()), |error| self.refused(error))
    }

    /// Says whether load balancers should send something new to this node, which changes without a Service.
    pub(super) fn tell_eligibility(&self) {
        let leaving = self.balancer.services().this_node().leaving;
        self.settings.status.send_if_modified(|status| {
            let before = std::mem::replace(&mut status.node_leaving, leaving);
            before != leaving
        });
    }

    /// Keeps kube-proxy's figures.
    pub(super) fn tell_kube_proxy(&self, triggers: &[Trigger], took: Duration, full: bool) {
        let now = SystemTime::now();
        let no_local_endpoints = self.balancer.no_local_endpoints();
        self.settings.status.send_modify(|status| {
            let figures = &mut status.kube_proxy;
            figures.synced(now, took, full, no_local_endpoints);
            for Trigger { ipv4, at } in triggers {
                let when = OffsetDateTime::parse(at, &Rfc3339).map(SystemTime::from);
                if let Ok(ago) = when.map(|when| now.duration_since(when).unwrap_or_default()) {
                    figures.programmed(*ipv4, ago);
                }
            }
        });
    }

    /// Says of Services that new flows of theirs found no room.
    pub(super) fn tell_refusals(&self, refused: Vec<(ServiceKey, u32, String)>) {
        for (key, packets, message) in refused {
            let service = key.to_string();
            warn!(service, packets, message, "is at its bound");
            let reason = "FlowQuota";
            self.events.happened(&key, Trouble { reason, message });
        }
    }

    /// Says whether load balancers can ask about a Service.
    pub(super) fn tell_health_check(&mut self, key: &ServiceKey) {
        let unserved = self.health_checks.troubles(key);
        let service = key.to_string();
        for Trouble { reason, message } in &unserved {
            warn!(service, reason, trouble = message, "is not served in full");
        }
        let troubles = self.balancer.set_health_check(key, unserved);
        self.events.tell(key, &troubles);
        let status = &self.settings.status;
        status.send_modify(|status| status.set_troubles(key, &troubles));
    }

    /// Says what a turn did, in the log and in the status.
    pub(super) fn tell(&self, turn: &Turn, took: Duration) {
        for (key, troubles) in &turn.troubles {
            let service = key.to_string();
            for Trouble { reason, message } in troubles {
                warn!(service, reason, trouble = message, "is not served in full");
            }
            self.events.tell(key, troubles);
            if troubles.is_empty() {
                info!(service, "is served in full");
            }
        }
        let secs = took.as_secs_f64();
        self.settings.status.send_modify(|status| {
            status.ready = true;
            status.turns += 1;
            status.steps += turn.steps.len() as u64;
            status.changes += turn.services as u64;
            status.last_turn_secs = secs;
            status.latency.observe(secs);
            for (key, troubles) in &turn.troubles {
                status.set_troubles(key, troubles);
            }
        });
    }

    pub(super) fn tell_devices(&self) {
        self.settings.status.send_if_modified(|status| {
            let changed = status.devices != *self.attachments.reports();
            if changed {
                status.devices.clone_from(self.attachments.reports());
            }
            changed
        });
    }
}
