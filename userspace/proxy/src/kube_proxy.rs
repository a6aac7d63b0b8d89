//! What kube-proxy tells of itself, under its names, so that dashboards and alerts go on working.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The figures behind kube-proxy's metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct KubeProxy {
    /// Seconds that turns took.
    sync: Histogram,
    /// Seconds from what happened to a pod until this node served it so.
    network_programming: Histogram,
    /// When a turn was planned and done last.
    last_queued: Option<SystemTime>,
    last_synced: Option<SystemTime>,
    /// Since when something that was planned is not done.
    pending_since: Option<SystemTime>,
    endpoint_changes: u64,
    service_changes: u64,
    endpoint_changes_pending: u64,
    service_changes_pending: u64,
    sync_failures: u64,
    /// Service ports without an endpoint of this node where a traffic policy asks for one.
    no_local_endpoints: NoLocalEndpoints,
}

/// Service ports whose traffic policy leaves no endpoint, by policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    /// Of internalTrafficPolicy.
    pub internal: u64,
    /// Of externalTrafficPolicy.
    pub external: u64,
}

/// Nothing that was planned may wait for longer.
const PATIENCE: Duration = Duration::from_secs(60);

impl Default for KubeProxy {
    fn default() -> Self {
        let doubling = (0..15).map(|n| 0.001 * f64::from(1 << n));
        let quarters = [0.25, 0.5].into_iter();
        let seconds = (1..60).map(f64::from);
        let fives = (60..120).step_by(5).map(f64::from);
        let halves = (120..=300).step_by(30).map(f64::from);
        KubeProxy {
            sync: Histogram::new(doubling.collect()),
            network_programming: Histogram::new(
                quarters.chain(seconds).chain(fives).chain(halves).collect(),
            ),
            last_queued: None,
            last_synced: None,
            pending_since: None,
            endpoint_changes: 0,
            service_changes: 0,
            endpoint_changes_pending: 0,
            service_changes_pending: 0,
            sync_failures: 0,
            no_local_endpoints: NoLocalEndpoints::default(),
        }
    }
}

impl KubeProxy {
    /// Counts what watches said, before it is done.
    pub(crate) fn queued(&mut self, now: SystemTime, news: &view::News) {
        self.last_queued = Some(now);
        self.pending_since.get_or_insert(now);
        self.endpoint_changes += news.slices;
        self.service_changes += news.services;
        self.endpoint_changes_pending += news.slices;
        self.service_changes_pending += news.services;
    }

    /// Counts a turn that is done.
    pub(crate) fn synced(
        &mut self,
        now: SystemTime,
        took: Duration,
        no_local_endpoints: NoLocalEndpoints,
    ) {
        self.last_synced = Some(now);
        self.pending_since = None;
        self.endpoint_changes_pending = 0;
        self.service_changes_pending = 0;
        self.sync.observe(took.as_secs_f64());
        self.no_local_endpoints = no_local_endpoints;
    }

    /// Counts a turn that was done after something that happened `ago`.
    pub(crate) fn programmed(&mut self, ago: Duration) {
        self.network_programming.observe(ago.as_secs_f64());
    }

    /// Counts a turn that the kernel refused a step of.
    pub(crate) fn failed(&mut self) {
        self.sync_failures += 1;
    }

    /// Whether what watches say takes effect.
    pub(crate) fn is_healthy(&self, now: SystemTime) -> bool {
        let waited = |since| now.duration_since(since).unwrap_or_default();
        self.last_synced.is_some()
            && self
                .pending_since
                .is_none_or(|since| waited(since) < PATIENCE)
    }

    /// When a turn was done last.
    pub(crate) fn last_synced(&self) -> Option<SystemTime> {
        self.last_synced
    }

    /// As Prometheus reads it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let syncs = "Latency in seconds of one round of programming.";
        for name in [
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        ] {
            self.sync.write(&mut text, name, syncs);
        }
        self.network_programming.write(
            &mut text,
            "kubeproxy_network_programming_duration_seconds",
            "Seconds from a change of a Service or Pod until it is programmed.",
        );
        let seconds = |time: Option<SystemTime>| {
            let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            since.unwrap_or_default().as_secs_f64()
        };
        let rules = "kubeproxy_sync_proxy_rules";
        for (name, kind, help, value) in [
            (
                "last_timestamp_seconds",
                "gauge",
                "When the last round was done.",
                seconds(self.last_synced),
            ),
            (
                "last_queued_timestamp_seconds",
                "gauge",
                "When the last round was asked for.",
                seconds(self.last_queued),
            ),
            (
                "endpoint_changes_pending",
                "gauge",
                "Changes of endpoints that are not programmed yet.",
                self.endpoint_changes_pending as f64,
            ),
            (
                "endpoint_changes_total",
                "counter",
                "Changes of endpoints.",
                self.endpoint_changes as f64,
            ),
            (
                "service_changes_pending",
                "gauge",
                "Changes of Services that are not programmed yet.",
                self.service_changes_pending as f64,
            ),
            (
                "service_changes_total",
                "counter",
                "Changes of Services.",
                self.service_changes as f64,
            ),
            (
                "sync_failures_total",
                "counter",
                "Rounds that the kernel refused a part of.",
                self.sync_failures as f64,
            ),
        ] {
            let _ = writeln!(
                text,
                "# HELP {rules}_{name} {help}\n# TYPE {rules}_{name} {kind}\n{rules}_{name} {value}"
            );
        }
        let name = format!("{rules}_no_local_endpoints");
        let NoLocalEndpoints { internal, external } = self.no_local_endpoints;
        let _ = writeln!(
            text,
            "# HELP {name} Service ports with a Local traffic policy and no endpoint here.\n\
             # TYPE {name} gauge\n\
             {name}{{traffic_policy=\"internal\"}} {internal}\n\
             {name}{{traffic_policy=\"external\"}} {external}"
        );
        text
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Histogram {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    longer: u64,
    sum: f64,
}

impl Histogram {
    fn new(bounds: Vec<f64>) -> Self {
        Histogram {
            counts: vec![0; bounds.len()],
            bounds,
            longer: 0,
            sum: 0.0,
        }
    }

    fn observe(&mut self, value: f64) {
        self.sum += value;
        let at = self.bounds.iter().position(|bound| value <= *bound);
        match at.and_then(|at| self.counts.get_mut(at)) {
            Some(count) => *count += 1,
            None => self.longer += 1,
        }
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut count = 0;
        for (bound, n) in self.bounds.iter().zip(&self.counts) {
            count += n;
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        count += self.longer;
        let _ = writeln!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {}\n{name}_count {count}",
            self.sum
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_pending_until_it_is_done() {
        let mut figures = KubeProxy::default();
        let start = UNIX_EPOCH + Duration::from_secs(1_000);
        assert!(!figures.is_healthy(start), "nothing was ever programmed");
        let news = view::News {
            services: 1,
            slices: 2,
            triggers: Vec::new(),
        };
        figures.queued(start, &news);
        assert!(figures.text().contains("endpoint_changes_pending 2\n"));
        let none = NoLocalEndpoints::default();
        figures.synced(start, Duration::from_millis(3), none);
        assert!(figures.is_healthy(start + Duration::from_secs(3_600)));
        figures.queued(start, &news);
        assert!(figures.is_healthy(start + Duration::from_secs(59)));
        assert!(!figures.is_healthy(start + Duration::from_secs(60)));
        figures.programmed(Duration::from_millis(700));
        let text = figures.text();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.002\"} 0",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\"} 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 4",
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds 1000",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.5\"} 0",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"1\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"300\"} 1",
            "kubeproxy_sync_proxy_rules_no_local_endpoints{traffic_policy=\"external\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
