//! The API server over TLS with everything on, beside an etcd that is given as many puts, on the same disk, in the same
//! run: what a request costs, how many there are in a second, how soon a thousand watchers know, and how a server
//! starts that holds much.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use storage_etcd::testing::{Server as Etcd, put};
use testbed::process::Process;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::figures::{Bound, Figure, Figures, median, quantile};
use crate::wire::{Connection, Target};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CLIENTS: usize = 64;
const WATCHERS: usize = 1000;
/// Objects in the list that is measured.
const LISTED: usize = 10_000;
/// Objects that a server starts with.
const HELD: usize = 50_000;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure(figures: &mut Figures, fairlead: &Path, quick: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        writes(figures, fairlead, quick).await?;
        much(figures, fairlead).await
    })
}

fn figure(case: &str, metric: &'static str, value: f64, unit: &'static str, runs: usize) -> Figure {
    Figure {
        case: case.to_owned(),
        metric,
        value,
        unit,
        runs,
        ..Figure::default()
    }
}

/// A server and its directory, which goes away with it.
struct Server {
    process: Process,
    target: Target,
    ready: Duration,
}

impl Server {
    fn start(fairlead: &Path, directory: &Path) -> Result<Self> {
        let mut command = Command::new(fairlead);
        command
            .args(["server", "--secure-port", "0", "--data-dir"])
            .arg(directory);
        command.env("RUST_LOG", "warn");
        let began = Instant::now();
        let mut process = Process::start(&mut command, "fairlead server")?;
        let line = process.line(PATIENCE, |line| line.starts_with("ready "))?;
        let ready = began.elapsed();
        let address = line.trim_start_matches("ready https://");
        let read = |file: &str| {
            std::fs::read_to_string(directory.join(file)).with_context(|| format!("read {file}"))
        };
        let tokens = read("tokens.csv")?;
        let token = tokens.lines().find(|line| line.contains("system:masters"));
        let token = token.and_then(|line| line.split(',').next());
        let token = token.context("a token of the administrator")?;
        let target = Target::new(address, token, read("pki/ca.crt")?.as_bytes())?;
        Ok(Self {
            process,
            target,
            ready,
        })
    }

    /// User and system time of all its threads, in seconds; /proc counts them in nanoseconds.
    fn cpu(&self) -> Result<f64> {
        let mut nanos = 0_u64;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let spent = text.split(' ').next().context("a time")?;
            nanos += spent.parse::<u64>()?;
        }
        Ok(nanos as f64 / 1e9)
    }

    /// Resident memory in megabytes (10^6 bytes).
    fn resident(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line
            .context("VmRSS")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}

/// About 1.4 kB as the server stores it.
fn map(name: &str) -> Vec<u8> {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "bench", "part": name}},
        "data": {"value": "v".repeat(1024)},
    });
    object.to_string().into_bytes()
}

/// What many clients did in one go.
struct Go {
    per_second: f64,
    p99_ms: f64,
    cpu_us: f64,
}

/// Each of many clients works off its share, one request after the other.
async fn go<F>(server: &Server, clients: usize, count: usize, work: F) -> Result<Go>
where
    F: AsyncWork,
{
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(server.target.connect().await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let (cpu, began) = (server.cpu()?, Instant::now());
    let mut running = JoinSet::new();
    for mut connection in connections {
        let (next, work) = (next.clone(), work.clone());
        running.spawn(async move {
            let mut millis = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return anyhow::Ok(millis);
                }
                let began = Instant::now();
                work.run(&mut connection, i).await?;
                millis.push(began.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    let mut millis = Vec::new();
    while let Some(done) = running.join_next().await {
        millis.extend(done??);
    }
    let took = began.elapsed().as_secs_f64();
    Ok(Go {
        per_second: count as f64 / took,
        p99_ms: quantile(&millis, 0.99),
        cpu_us: (server.cpu()? - cpu) * 1e6 / count as f64,
    })
}

/// One kind of request.
trait AsyncWork: Clone + Send + 'static {
    fn run(&self, connection: &mut Connection, i: usize)
    -> impl Future<Output = Result<()>> + Send;
}

#[derive(Clone)]
enum Work {
    Create(&'static str),
    Patch(&'static str),
    Get(&'static str),
}

impl AsyncWork for Work {
    async fn run(&self, connection: &mut Connection, i: usize) -> Result<()> {
        let json = "application/json";
        match self {
            Work::Create(prefix) => {
                let body = map(&format!("{prefix}-{i}"));
                connection.ask("POST", MAPS, json, &body).await?;
            }
            Work::Patch(prefix) => {
                let body = format!("{{\"data\":{{\"patched\":\"{i}\"}}}}");
                let path = format!("{MAPS}/{prefix}-{i}");
                let kind = "application/merge-patch+json";
                connection
                    .ask("PATCH", &path, kind, body.as_bytes())
                    .await?;
            }
            Work::Get(prefix) => {
                let path = format!("{MAPS}/{prefix}-{i}");
                connection.ask("GET", &path, json, b"").await?;
            }
        }
        Ok(())
    }
}

async fn writes(figures: &mut Figures, fairlead: &Path, quick: bool) -> Result<()> {
    let runs = if quick { 3 } else { 7 };
    let count = if quick { 5_000 } else { 20_000 };
    let directory = scratch()?;
    let server = Server::start(fairlead, directory.path())?;
    let ready = server.ready.as_secs_f64() * 1e3;
    figures.add(
        figure("start/empty", "ready", ready, "ms", 1),
        Some(Bound::ValueBelow(300.0)),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = server.resident()?;
    figures.add(
        figure("start/empty", "memory", idle, "MB", 1),
        Some(Bound::ValueBelow(40.0)),
    );
    let etcd = Etcd::start();

    // What a request costs, from few clients, so that none waits for another.
    for (work, case, most) in [
        (Work::Create("cost"), "create", 100.0),
        (Work::Patch("cost"), "patch", 150.0),
        (Work::Get("cost"), "get", 40.0),
    ] {
        let done = go(&server, 8, count, work).await?;
        let value = figure(case, "cpu", done.cpu_us, "us", count);
        figures.add(value, Some(Bound::ValueBelow(most)));
        figures.add(figure(case, "rate", done.per_second, "1/s", count), None);
    }

    let (mut rates, mut ratios, mut tails, mut tail_ratios) = (vec![], vec![], vec![], vec![]);
    const NAMES: [&str; 7] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6"];
    for name in NAMES.into_iter().take(runs) {
        let ours = go(&server, CLIENTS, count, Work::Create(name)).await?;
        let theirs = put(&etcd.url, CLIENTS, count, 1400).await;
        rates.push(ours.per_second);
        ratios.push(ours.per_second / (count as f64 / theirs.took.as_secs_f64()));
        let millis: Vec<f64> = theirs
            .each
            .iter()
            .map(|took| took.as_secs_f64() * 1e3)
            .collect();
        tails.push(ours.p99_ms);
        tail_ratios.push(quantile(&millis, 0.99) / ours.p99_ms);
    }
    let peer = |figure: Figure, ratios: &[f64], peer| Figure {
        peer: Some(peer),
        ratio: Some(median(ratios)),
        ratio_spread: Some((quantile(ratios, 0.25), quantile(ratios, 0.75))),
        ..figure
    };
    let rate = figure("create/64", "rate", median(&rates), "1/s", runs);
    figures.add(
        peer(rate, &ratios, "etcd's puts"),
        Some(Bound::RatioMin(1.0)),
    );
    let tail = figure("create/64", "p99", median(&tails), "ms", runs);
    figures.add(
        peer(tail, &tail_ratios, "etcd's p99 / it"),
        Some(Bound::RatioMin(1.0)),
    );
    Ok(())
}

async fn much(figures: &mut Figures, fairlead: &Path) -> Result<()> {
    let directory = scratch()?;
    let mut server = Server::start(fairlead, directory.path())?;
    go(&server, CLIENTS, LISTED, Work::Create("held")).await?;
    list(figures, &server).await?;
    watch(figures, &server).await?;
    go(&server, CLIENTS, HELD - LISTED, Work::Create("more")).await?;
    server.process.terminate(PATIENCE)?;
    let server = Server::start(fairlead, directory.path())?;
    let ready = server.ready.as_secs_f64() * 1e3;
    let case = format!("start/{HELD}");
    figures.add(
        figure(&case, "ready", ready, "ms", 1),
        Some(Bound::ValueBelow(1000.0)),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let resident = server.resident()?;
    let mut connection = server.target.connect().await?;
    let all = connection.ask("GET", MAPS, "application/json", b"").await?;
    let most = 3.0 * all.len() as f64 / 1e6 + 40.0;
    figures.add(figure(&case, "json", all.len() as f64 / 1e6, "MB", 1), None);
    figures.add(
        figure(&case, "memory", resident, "MB", 1),
        Some(Bound::ValueBelow(most)),
    );
    Ok(())
}

async fn list(figures: &mut Figures, server: &Server) -> Result<()> {
    const RUNS: usize = 15;
    let mut connection = server.target.connect().await?;
    let (mut millis, mut bytes) = (Vec::new(), 0);
    let before = server.resident()?;
    let cpu = server.cpu()?;
    for _ in 0..RUNS {
        let began = Instant::now();
        bytes = connection
            .ask("GET", MAPS, "application/json", b"")
            .await?
            .len();
        millis.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let case = format!("list/{LISTED}");
    let took = figure(&case, "time", median(&millis), "ms", RUNS);
    figures.add(took, Some(Bound::ValueBelow(25.0)));
    let cpu = (server.cpu()? - cpu) * 1e3 / RUNS as f64;
    figures.add(figure(&case, "cpu", cpu, "ms", RUNS), None);
    let grown = server.resident()? - before;
    let most = 2.0 * bytes as f64 / 1e6;
    figures.add(
        figure(&case, "memory_grown", grown.max(0.0), "MB", RUNS),
        Some(Bound::ValueBelow(most)),
    );
    Ok(())
}

/// What all watchers have seen.
struct Seen {
    events: AtomicUsize,
    /// Microseconds after `began`.
    latest: AtomicU64,
    began: Instant,
    changed: Notify,
}

impl Seen {
    async fn until(&self, events: usize) -> Result<()> {
        let reached = async {
            while self.events.load(Ordering::Acquire) < events {
                // Told of each change; a look now and then is for those that fall between.
                let _ =
                    tokio::time::timeout(Duration::from_millis(5), self.changed.notified()).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .context("the watchers see everything")
    }
}

async fn watch(figures: &mut Figures, server: &Server) -> Result<()> {
    const ROUNDS: usize = 100;
    const BURST: usize = 500;
    let mut asking = server.target.connect().await?;
    let path = format!("{MAPS}?limit=1");
    let list = asking.ask("GET", &path, "application/json", b"").await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .context("a version")?;
    let path: Arc<str> = format!("{MAPS}?watch=true&resourceVersion={version}").into();
    let seen = Arc::new(Seen {
        events: AtomicUsize::new(0),
        latest: AtomicU64::new(0),
        began: Instant::now(),
        changed: Notify::new(),
    });
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut connection = server.target.connect().await?;
        connection.watch(&path).await?;
        let seen = seen.clone();
        watchers.spawn(async move {
            while let Ok(events) = connection.events().await {
                let now = u64::try_from(seen.began.elapsed().as_micros()).unwrap_or(u64::MAX);
                seen.latest.fetch_max(now, Ordering::Relaxed);
                let before = seen.events.fetch_add(events, Ordering::Release);
                if (before + events) / WATCHERS > before / WATCHERS {
                    seen.changed.notify_one();
                }
            }
        });
    }
    let mut millis = Vec::new();
    for round in 0..ROUNDS {
        let body = map(&format!("watched-{round}"));
        asking.ask("POST", MAPS, "application/json", &body).await?;
        let acknowledged = seen.began.elapsed();
        seen.until((round + 1) * WATCHERS).await?;
        let latest = Duration::from_micros(seen.latest.load(Ordering::Relaxed));
        millis.push(latest.saturating_sub(acknowledged).as_secs_f64() * 1e3);
    }
    let case = format!("watch/{WATCHERS}");
    figures.add(
        figure(&case, "last_p50", quantile(&millis, 0.5), "ms", ROUNDS),
        None,
    );
    let tail = figure(&case, "last_p99", quantile(&millis, 0.99), "ms", ROUNDS);
    figures.add(tail, Some(Bound::ValueBelow(20.0)));
    let (cpu, began) = (server.cpu()?, Instant::now());
    // Clients of their own, which do not stand in the queue of those that watch. Their runtime ends where it may block.
    tokio::task::block_in_place(|| -> Result<()> {
        let writers = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        writers.block_on(go(server, 8, BURST, Work::Create("burst")))?;
        Ok(())
    })?;
    seen.until((ROUNDS + BURST) * WATCHERS).await?;
    let took = began.elapsed().as_secs_f64();
    let deliveries = (BURST * WATCHERS) as f64;
    // This process reads on the same processors; what the server alone spends tells more.
    let spent = (server.cpu()? - cpu) * 1e6 / deliveries;
    figures.add(figure(&case, "cpu_per_delivery", spent, "us", BURST), None);
    let rate = figure(&case, "deliveries", deliveries / took, "1/s", BURST);
    let least = Figure {
        peer: Some("500,000"),
        ratio: Some(deliveries / took / 500_000.0),
        ..rate
    };
    figures.add(least, Some(Bound::RatioMin(1.0)));
    watchers.abort_all();
    Ok(())
}

/// On the file system of the temporary directory, as etcd's.
fn scratch() -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir()?)
}
