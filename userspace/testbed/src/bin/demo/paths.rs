//! A few hundred requests on each path, beside the same requests sent directly.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use abi::Counter;
use anyhow::{Result, bail};
use bpf::View;
use testbed::probe::How;
use testbed::{Load, Mode, Place, Report};

use crate::cluster::Cluster;

/// Requests on each path.
const REQUESTS: u64 = 300;

/// Where a connection was balanced, as the kernel's counters tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hook {
    None,
    Socket,
    Tc,
    Xdp,
}

impl Hook {
    fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Socket => "cgroup socket",
            Self::Tc => "TC, pod link",
            Self::Xdp => "XDP, device",
        }
    }
}

struct Row {
    path: String,
    place: Place,
    mode: Mode,
    target: SocketAddr,
    expected: Hook,
    /// What the latency is shown beside: the direct row of the same client and family.
    direct: bool,
}

/// Prints the table; whether every path took its hook, lost nothing and reached every backend.
pub(crate) fn show(cluster: &Cluster) -> Result<bool> {
    let view = View::open(cluster.platform.bpffs())?;
    say!(
        "\n{:<37} {:<14} {:>8} {:<28} {:>6} {:>9} {:>9} {:>19}",
        "PATH",
        "HOOK",
        "REQUESTS",
        "SPREAD",
        "FAILED",
        "MEDIAN",
        "P99",
        "DIRECT MEDIAN, P99"
    );
    let mut good = true;
    let mut direct: Option<String> = None;
    for row in rows(cluster)? {
        let before = counts(&view)?;
        let report = row.place.load(&Load {
            mode: row.mode,
            ..Load::requests(row.target, REQUESTS)
        })?;
        let hook = took(&before, &counts(&view)?)?;
        let (median, p99) = (report.latency.quantile(0.5), report.latency.quantile(0.99));
        let beside = match (&direct, row.mode) {
            (Some(direct), Mode::Close) if !row.direct => direct.clone(),
            _ => String::new(),
        };
        if row.direct {
            direct = Some(format!("{}, {}", micros(median), micros(p99)));
        }
        say!(
            "{:<37} {:<14} {:>8} {:<28} {:>6} {:>9} {:>9} {beside:>19}",
            row.path,
            hook.label(),
            report.ok + report.failed,
            spread(&report),
            report.failed,
            micros(median),
            micros(p99),
        );
        good &= judge(&row, hook, &report)?;
    }
    Ok(good & show_affinity(cluster)? & show_refusal(cluster)?)
}

fn judge(row: &Row, hook: Hook, report: &Report) -> Result<bool> {
    let mut complaints = Vec::new();
    let mut complain = |what: String| complaints.push(what);
    if report.failed > 0 {
        complain(format!(
            "{} requests failed: {:?}",
            report.failed, report.errors
        ));
    }
    if hook != row.expected {
        complain(format!(
            "balanced by {}, not by {}",
            hook.label(),
            row.expected.label()
        ));
    }
    let backends = if row.direct { 1 } else { 3 };
    if report.backends.len() != backends {
        complain(format!(
            "{} backends answered, not {backends}",
            report.backends.len()
        ));
    }
    for what in &complaints {
        say!("  ! {}: {what}", row.path);
    }
    Ok(complaints.is_empty())
}

fn rows(cluster: &Cluster) -> Result<Vec<Row>> {
    let (web, echo) = (cluster.service("web")?, cluster.service("echo")?);
    let hooked = cluster.client.place();
    let plain = hooked.without_cgroup();
    let outside = cluster.node.outside().place();
    let mut rows = Vec::new();
    for v6 in [false, true] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let mut row = |path: &str, place: &Place, mode, target, expected| {
            let direct = expected == Hook::None;
            rows.push(Row {
                path: format!("{path}, {family}"),
                place: place.clone(),
                mode,
                target,
                expected,
                direct,
            });
        };
        row(
            "pod -> pod directly",
            &hooked,
            Mode::Close,
            cluster.direct(v6),
            Hook::None,
        );
        row(
            "pod -> ClusterIP",
            &hooked,
            Mode::Close,
            web.cluster_ip(v6, 80)?,
            Hook::Socket,
        );
        row(
            "unhooked pod -> ClusterIP",
            &plain,
            Mode::Close,
            web.cluster_ip(v6, 80)?,
            Hook::Tc,
        );
        row(
            "pod -> ClusterIP, UDP",
            &hooked,
            Mode::Udp,
            echo.cluster_ip(v6, 53)?,
            Hook::Socket,
        );
        row(
            "unhooked pod -> ClusterIP, UDP",
            &plain,
            Mode::Udp,
            echo.cluster_ip(v6, 53)?,
            Hook::Tc,
        );
        row(
            "outside -> pod directly",
            &outside,
            Mode::Close,
            cluster.direct(v6),
            Hook::None,
        );
        row(
            "outside -> NodePort",
            &outside,
            Mode::Close,
            web.node_port(v6)?,
            Hook::Xdp,
        );
        row(
            "outside -> routed ClusterIP",
            &outside,
            Mode::Close,
            web.cluster_ip(v6, 80)?,
            Hook::Xdp,
        );
        row(
            "outside -> NodePort, UDP",
            &outside,
            Mode::Udp,
            echo.node_port(v6)?,
            Hook::Xdp,
        );
    }
    Ok(rows)
}

fn show_affinity(cluster: &Cluster) -> Result<bool> {
    let target = cluster.service("sticky")?.cluster_ip(false, 80)?;
    let report = cluster.client.place().load(&Load::requests(target, 100))?;
    say!(
        "\nsessionAffinity ClientIP: 100 requests of one client, answered by {}",
        spread(&report)
    );
    Ok(report.failed == 0 && report.backends.len() == 1)
}

fn show_refusal(cluster: &Cluster) -> Result<bool> {
    let target = cluster.service("nobody")?.cluster_ip(false, 80)?;
    let mut good = true;
    let hooked = cluster.client.place();
    let places = [
        ("pod", hooked.clone()),
        ("unhooked pod", hooked.without_cgroup()),
        ("outside", cluster.node.outside().place()),
    ];
    for (name, place) in places {
        let started = Instant::now();
        let seen = place.probe(How::Tcp, target)?;
        let error = seen.error.unwrap_or_else(|| "it answered".to_owned());
        say!(
            "a Service without endpoints, from {name}: {error} ({:.0} ms with starting the client)",
            started.elapsed().as_secs_f32() * 1e3
        );
        good &= error == "connection refused";
    }
    Ok(good)
}

/// New connections so far: at the socket, in TC, in XDP.
fn counts(view: &View) -> Result<[u64; 3]> {
    let mut counts = [0; 3];
    for (counter, value) in view.counters()? {
        let at = match counter {
            Counter::SocketConnect | Counter::SocketSend => 0,
            Counter::TcNewFlow => 1,
            Counter::XdpNewFlow => 2,
            _ => continue,
        };
        counts[at] += value.packets;
    }
    Ok(counts)
}

/// The hook whose counter moved.
fn took(before: &[u64; 3], after: &[u64; 3]) -> Result<Hook> {
    let moved: Vec<usize> = (0..3).filter(|at| after[*at] > before[*at]).collect();
    Ok(match moved.as_slice() {
        [] => Hook::None,
        [0] => Hook::Socket,
        [1] => Hook::Tc,
        [2] => Hook::Xdp,
        several => bail!("connections of one path were balanced by several hooks: {several:?}"),
    })
}

/// `web-0 98  web-1 101  web-2 101`
pub(crate) fn spread(report: &Report) -> String {
    let parts: Vec<String> = report
        .backends
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    parts.join("  ")
}

fn micros(duration: Duration) -> String {
    format!("{:.0} us", duration.as_secs_f64() * 1e6)
}
