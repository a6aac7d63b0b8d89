//! What kube-proxy tells of itself, under its names, so that dashboards and alerts go on working. Both families are
//! programmed in one turn: what kube-proxy has for each is the same of both here, but for what is counted apart.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::histogram::Histogram;

/// The figures behind kube-proxy's metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct KubeProxy {
    /// Seconds that turns took: all of them, those that planned everything, and those that planned what changed.
    sync: Histogram,
    sync_full: Histogram,
    sync_partial: Histogram,
    /// Seconds from what happened to a pod until this node served it so.
    network_programming: ByFamily<Histogram>,
    /// Seconds that it took to end what was with backends that left.
    reconciled: Histogram,
    /// Flows and sockets that were ended so.
    ended: ByFamily<u64>,
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
    cleanup_failures: u64,
    /// Service ports without an endpoint of this node where a traffic policy asks for one.
    no_local_endpoints: NoLocalEndpoints,
}

/// Something of each address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByFamily<T> {
    /// Of IPv4.
    pub ipv4: T,
    /// Of IPv6.
    pub ipv6: T,
}

impl<T> ByFamily<T> {
    /// That of one family.
    pub(crate) fn of(&mut self, ipv4: bool) -> &mut T {
        if ipv4 { &mut self.ipv4 } else { &mut self.ipv6 }
    }

    fn each(&self) -> [(&'static str, &T); 2] {
        [("IPv4", &self.ipv4), ("IPv6", &self.ipv6)]
    }
}

impl std::ops::AddAssign for ByFamily<u64> {
    fn add_assign(&mut self, other: Self) {
        self.ipv4 += other.ipv4;
        self.ipv6 += other.ipv6;
    }
}

/// Service ports whose traffic policy leaves no endpoint, by policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    /// Of internalTrafficPolicy.
    pub internal: ByFamily<u64>,
    /// Of externalTrafficPolicy.
    pub external: ByFamily<u64>,
}

/// Nothing that was planned may wait for longer.
const PATIENCE: Duration = Duration::from_secs(60);

impl Default for KubeProxy {
    fn default() -> Self {
        let doubling = || Histogram::new((0..15).map(|n| 0.001 * f64::from(1 << n)).collect());
        let quarters = [0.25, 0.5].into_iter();
        let seconds = (1..60).map(f64::from);
        let fives = (60..120).step_by(5).map(f64::from);
        let halves = (120..=300).step_by(30).map(f64::from);
        let programming =
            Histogram::new(quarters.chain(seconds).chain(fives).chain(halves).collect());
        KubeProxy {
            sync: doubling(),
            sync_full: doubling(),
            sync_partial: doubling(),
            network_programming: ByFamily {
                ipv4: programming.clone(),
                ipv6: programming,
            },
            reconciled: doubling(),
            ended: ByFamily::default(),
            last_queued: None,
            last_synced: None,
            pending_since: None,
            endpoint_changes: 0,
            service_changes: 0,
            endpoint_changes_pending: 0,
            service_changes_pending: 0,
            sync_failures: 0,
            cleanup_failures: 0,
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

    /// Counts a turn that is done, and says whether it planned everything.
    pub(crate) fn synced(
        &mut self,
        now: SystemTime,
        took: Duration,
        full: bool,
        no_local_endpoints: NoLocalEndpoints,
    ) {
        self.last_synced = Some(now);
        self.pending_since = None;
        self.endpoint_changes_pending = 0;
        self.service_changes_pending = 0;
        let secs = took.as_secs_f64();
        self.sync.observe(secs);
        let of_kind = if full {
            &mut self.sync_full
        } else {
            &mut self.sync_partial
        };
        of_kind.observe(secs);
        self.no_local_endpoints = no_local_endpoints;
    }

    /// Counts a turn that was done after something that happened `ago` to endpoints of a family.
    pub(crate) fn programmed(&mut self, ipv4: bool, ago: Duration) {
        self.network_programming.of(ipv4).observe(ago.as_secs_f64());
    }

    /// Counts flows and sockets that were ended as their backends had left.
    pub(crate) fn reconciled(&mut self, took: Duration, ended: ByFamily<u64>) {
        self.reconciled.observe(took.as_secs_f64());
        self.ended += ended;
    }

    /// Counts a turn that the kernel refused a step of.
    pub(crate) fn failed(&mut self) {
        self.sync_failures += 1;
    }

    /// Counts a removal of what nobody leads to any more that the kernel refused.
    pub(crate) fn failed_to_clean_up(&mut self) {
        self.cleanup_failures += 1;
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
        let histograms = [
            (
                "sync_proxy_rules_duration_seconds",
                "Seconds of a round of programming.",
                [&self.sync; 2],
            ),
            (
                "sync_full_proxy_rules_duration_seconds",
                "Seconds of a round that planned everything.",
                [&self.sync_full; 2],
            ),
            (
                "sync_partial_proxy_rules_duration_seconds",
                "Seconds of a round that planned what changed.",
                [&self.sync_partial; 2],
            ),
            (
                "network_programming_duration_seconds",
                "Seconds from a change of a Service or Pod until it is programmed.",
                self.network_programming.each().map(|(_, seconds)| seconds),
            ),
            (
                "conntrack_reconciler_sync_duration_seconds",
                "Seconds that it took to end what was with backends that left.",
                [&self.reconciled; 2],
            ),
        ];
        for (name, help, [ipv4, ipv6]) in histograms {
            let name = family(&mut text, name, "histogram", help);
            ipv4.write(&mut text, &name, "ip_family=\"IPv4\",");
            ipv6.write(&mut text, &name, "ip_family=\"IPv6\",");
        }
        self.by_family(&mut text);
        for (name, kind, help, value) in [
            (
                "endpoint_changes_pending",
                "gauge",
                "Changes of endpoints that are not programmed yet.",
                self.endpoint_changes_pending,
            ),
            (
                "endpoint_changes_total",
                "counter",
                "Changes of endpoints.",
                self.endpoint_changes,
            ),
            (
                "service_changes_pending",
                "gauge",
                "Changes of Services that are not programmed yet.",
                self.service_changes_pending,
            ),
            (
                "service_changes_total",
                "counter",
                "Changes of Services.",
                self.service_changes,
            ),
        ] {
            let name = family(&mut text, &format!("sync_proxy_rules_{name}"), kind, help);
            let _ = writeln!(text, "{name} {value}");
        }
        let help = "Service ports with a Local traffic policy and no endpoint here.";
        let name = "sync_proxy_rules_no_local_endpoints_total";
        let name = family(&mut text, name, "gauge", help);
        let NoLocalEndpoints { internal, external } = &self.no_local_endpoints;
        for (policy, ports) in [("internal", internal), ("external", external)] {
            for (of, count) in ports.each() {
                let _ = writeln!(
                    text,
                    "{name}{{ip_family=\"{of}\",traffic_policy=\"{policy}\"}} {count}"
                );
            }
        }
        text
    }

    fn by_family(&self, text: &mut String) {
        let seconds = |time: Option<SystemTime>| {
            let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            since.unwrap_or_default().as_secs_f64()
        };
        let both = |value| [value, value];
        for (name, kind, help, values) in [
            (
                "sync_proxy_rules_last_timestamp_seconds",
                "gauge",
                "When the last round was done.",
                both(seconds(self.last_synced)),
            ),
            (
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "gauge",
                "When the last round was asked for.",
                both(seconds(self.last_queued)),
            ),
            (
                "sync_proxy_rules_nftables_sync_failures_total",
                "counter",
                "Rounds that the kernel refused a part of.",
                both(self.sync_failures as f64),
            ),
            (
                "sync_proxy_rules_nftables_cleanup_failures_total",
                "counter",
                "Removals of what nothing leads to any more that the kernel refused.",
                both(self.cleanup_failures as f64),
            ),
            (
                "conntrack_reconciler_deleted_entries_total",
                "counter",
                "Flows and sockets that were ended as their backends had left.",
                self.ended.each().map(|(_, count)| *count as f64),
            ),
        ] {
            let name = family(text, name, kind, help);
            for (of, value) in ["IPv4", "IPv6"].iter().zip(values) {
                let _ = writeln!(text, "{name}{{ip_family=\"{of}\"}} {value}");
            }
        }
    }
}

/// Starts a family of samples; gives its whole name.
fn family(text: &mut String, name: &str, kind: &str, help: &str) -> String {
    let name = format!("kubeproxy_{name}");
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    name
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
        figures.synced(start, Duration::from_millis(3), true, none);
        assert!(figures.is_healthy(start + Duration::from_secs(3_600)));
        figures.queued(start, &news);
        assert!(figures.is_healthy(start + Duration::from_secs(59)));
        assert!(!figures.is_healthy(start + Duration::from_secs(60)));
        let mut none_here = NoLocalEndpoints::default();
        *none_here.external.of(false) += 2;
        figures.synced(start, Duration::from_millis(3), false, none_here);
        figures.queued(start, &news);
        figures.programmed(true, Duration::from_millis(700));
        let ended = ByFamily { ipv4: 3, ipv6: 0 };
        figures.reconciled(Duration::from_millis(5), ended);
        figures.failed();
        let text = figures.text();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.002\"} 0",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv6\",le=\"0.004\"} 2",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 6",
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"} 1000",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.5\"} 0",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"1\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"300\"} 1",
            "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv6\"} 0",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 3",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv4\"} 0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"external\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
