//! A backend dies under load, then Fairlead does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use testbed::probe::How;
use testbed::process::RunningLoad;
use testbed::{Load, Mode, Place, Report, wait_for};

use crate::cluster::Cluster;

/// A path under load: its name, where the client is, what it connects to.
type Target = (&'static str, Place, SocketAddr);

/// Pods that are not killed.
const HEALTHY: [&str; 2] = ["web-0", "web-1"];
const ALL: [&str; 3] = ["web-0", "web-1", "web-2"];

/// Prints what happened; whether no request to a healthy backend failed.
pub(crate) fn show(cluster: &mut Cluster) -> Result<bool> {
    let targets = targets(cluster)?;
    say!("");
    Ok(backend_dies(cluster, &targets)? & fairlead_dies(cluster, &targets)?)
}

fn targets(cluster: &Cluster) -> Result<[Target; 3]> {
    let web = cluster.service("web")?;
    let hooked = cluster.client.place();
    let plain = hooked.without_cgroup();
    Ok([
        ("socket", hooked, web.cluster_ip(false, 80)?),
        ("TC", plain, web.cluster_ip(false, 80)?),
        ("XDP", cluster.node.outside().place(), web.node_port(false)?),
    ])
}

/// web-2's server is killed; its pod is reported as not ready at once, as a kubelet would. What was on its
/// way there fails; whatever reached a healthy backend was answered, as the backends' own counts show.
fn backend_dies(cluster: &mut Cluster, targets: &[Target]) -> Result<bool> {
    let mut ledger = Ledger::open(cluster)?;
    let loads = start(targets, Mode::Close)?;
    ledger.wait_for_more(cluster, 300)?;
    let killed_at = unix_now();
    let started = Instant::now();
    cluster.backends[2].kill()?;
    cluster.api.report_pod(&cluster.backends[2].pod, false)?;
    for (_, place, target) in targets {
        wait_for(
            "the dead backend to get no more requests",
            Duration::from_secs(10),
            || {
                let report = place.load(&Load::requests(*target, 30)).ok()?;
                let done = report.failed == 0 && !report.backends.contains_key("web-2");
                ledger.book(&report);
                done.then_some(())
            },
        )?;
    }
    let moved = started.elapsed();
    ledger.wait_for_more(cluster, 300)?;
    let mut total = Report::default();
    for (name, load) in loads {
        let report = load
            .stop()
            .with_context(|| format!("the load on the {name} path"))?;
        ledger.book(&report);
        total.add(report);
    }
    let last = total
        .failures_between
        .map_or(0.0, |(_, last)| (last - killed_at) * 1e3);
    let early = total
        .failures_between
        .is_some_and(|(first, _)| first < killed_at);
    say!(
        "killed backend web-2 under load: {} requests on three paths, {} failed, all within {last:.0} ms of the kill {:?}",
        total.ok + total.failed,
        total.failed,
        total.errors
    );
    say!(
        "  every path avoided it after {:.0} ms, as seen by starting clients anew",
        moved.as_secs_f64() * 1e3
    );
    let lost = ledger.close(cluster)?;
    for (name, (asked, answered)) in &lost {
        say!(
            "  healthy {name}: {asked} requests reached it, {answered} answers came back (the demo asks it too)"
        );
    }
    let healthy = lost.values().all(|(asked, answered)| asked == answered);
    cluster.backends[2].restart()?;
    cluster.api.report_pod(&cluster.backends[2].pod, true)?;
    for (_, place, target) in targets {
        cluster.wait_for_backends(place, *target, &ALL)?;
    }
    say!("  web-2 is back and gets its share");
    Ok(healthy && !early && last < 5_000.0)
}

/// Fairlead is killed; new connections are balanced and kept ones go on; it comes back and follows the API.
fn fairlead_dies(cluster: &mut Cluster, targets: &[Target]) -> Result<bool> {
    let mut ledger = Ledger::open(cluster)?;
    let mut loads = start(targets, Mode::Close)?;
    loads.extend(start(targets, Mode::Keep)?);
    ledger.wait_for_more(cluster, 300)?;
    let away = Instant::now();
    cluster.platform.kill()?;
    ledger.wait_for_more(cluster, 2_000)?;
    cluster.platform.restart()?;
    let away = away.elapsed();
    let started = Instant::now();
    cluster.api.report_pod(&cluster.backends[2].pod, false)?;
    for (_, place, target) in targets {
        cluster.wait_for_backends(place, *target, &HEALTHY)?;
    }
    let followed = started.elapsed();
    let (mut new, mut kept) = (Report::default(), Report::default());
    for (index, (name, load)) in loads.into_iter().enumerate() {
        let report = load
            .stop()
            .with_context(|| format!("the load on the {name} path"))?
            .of(name);
        if index < targets.len() {
            &mut new
        } else {
            &mut kept
        }
        .add(report);
    }
    say!(
        "killed fairlead (kill -9) under load and started it again {:.2} s later:\n  \
         {} requests on new connections, {} failed {:?}\n  \
         {} requests on connections kept open throughout, {} failed {:?}\n  \
         the next change of a pod took effect on every path within {:.0} ms",
        away.as_secs_f64(),
        new.ok + new.failed,
        new.failed,
        new.errors,
        kept.ok + kept.failed,
        kept.failed,
        kept.errors,
        followed.as_secs_f64() * 1e3
    );
    cluster.api.report_pod(&cluster.backends[2].pod, true)?;
    Ok(new.failed == 0 && kept.failed == 0 && new.ok > 0 && kept.ok > 0)
}

fn start(targets: &[Target], mode: Mode) -> Result<Vec<(&'static str, RunningLoad)>> {
    targets
        .iter()
        .map(|(name, place, target)| {
            let load = Load {
                pause_micros: 2_000,
                ..Load::lasting(*target, mode, 2, Duration::from_secs(60))
            };
            Ok((*name, place.start_load(&load)?))
        })
        .collect()
}

/// Requests that the healthy backends saw, beside the answers that clients got.
struct Ledger {
    before: BTreeMap<&'static str, u64>,
    answered: BTreeMap<String, u64>,
}

impl Ledger {
    fn open(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            before: seen(cluster)?,
            answered: BTreeMap::new(),
        })
    }

    fn book(&mut self, report: &Report) {
        for (name, count) in &report.backends {
            *self.answered.entry(name.clone()).or_default() += count;
        }
    }

    /// Waits until the healthy backends have seen this many more requests. Asking them is a request too.
    fn wait_for_more(&mut self, cluster: &Cluster, more: u64) -> Result<()> {
        let mut first = None;
        wait_for("the load to go on", Duration::from_secs(20), || {
            let now: u64 = seen(cluster).ok()?.values().sum();
            for name in HEALTHY {
                *self.answered.entry(name.to_owned()).or_default() += 1;
            }
            (now >= *first.get_or_insert(now) + more).then_some(())
        })
    }

    /// For each healthy backend: (requests that reached it, answers that came back).
    fn close(self, cluster: &Cluster) -> Result<BTreeMap<&'static str, (u64, u64)>> {
        let after = seen(cluster)?;
        let answered = |name: &str| self.answered.get(name).copied().unwrap_or(0);
        // Less the question itself.
        Ok(HEALTHY
            .into_iter()
            .map(|name| (name, (after[name] - self.before[name] - 1, answered(name))))
            .collect())
    }
}

/// Requests that each healthy backend has seen since it started, this question included.
fn seen(cluster: &Cluster) -> Result<BTreeMap<&'static str, u64>> {
    let place = cluster.node.outside().place();
    let healthy = HEALTHY.iter().zip(&cluster.backends);
    healthy
        .map(|(name, backend)| {
            let target = SocketAddr::new(backend.pod.address(false), crate::cluster::HTTP);
            let seen = place.probe(How::Tcp, target)?;
            Ok((
                *name,
                seen.served
                    .with_context(|| format!("{name} answered {seen:?}"))?,
            ))
        })
        .collect()
}

fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
