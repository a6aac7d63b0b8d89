//! From the API to the kernel: one Service at a time through `fairlead up`, and very many at once through
//! `fairlead proxy`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testbed::platform::{Api, Platform, Role};
use testbed::process::Process;
use testbed::{Node, wait_for};

use crate::figures::{Bound, Figure, Figures, quantile};
use crate::{changes, sockets};

/// Endpoints of each Service that is programmed cold.
const ENDPOINTS: u32 = 5;
/// Requests under way at one time while Services are created.
const AT_ONCE: usize = 64;
/// Where the proxy serves its own state, in the node's namespace.
const STATUS: &str = "127.0.0.1:9099";

pub(crate) fn measure(figures: &mut Figures, fairlead: &Path, quick: bool) -> Result<()> {
    one_at_a_time(figures, fairlead)?;
    changes::measure(figures, fairlead, quick)?;
    sockets::measure(figures, fairlead, quick)?;
    let scales: &[u32] = match quick {
        true => &[1_000, 10_000],
        false => &[1_000, 10_000, 30_000, 50_000],
    };
    cold(figures, fairlead, scales)?;
    maglev(figures, fairlead)
}

fn one_at_a_time(figures: &mut Figures, fairlead: &Path) -> Result<()> {
    const SAMPLES: u8 = 100;
    let node = Node::create()?;
    let (pod, client) = (node.add_pod("web-0")?, node.add_pod("client")?);
    let _server = pod.place().serve_http("web-0", "[::]:8080".parse()?)?;
    let started = Instant::now();
    let mut platform = Platform::begin(&node, fairlead, Role::Up)?;
    let api = wait_for("/readyz", Duration::from_secs(20), || {
        let api = Api::connect(&node, &platform).ok()?;
        api.is_ready().then_some(api)
    })?;
    let ready_ms = started.elapsed().as_secs_f64() * 1e3;
    platform.finish_start()?;
    let balancing_ms = started.elapsed().as_secs_f64() * 1e3;
    let figure = |case: &str, metric, value, unit, runs| Figure {
        case: case.to_owned(),
        metric,
        value,
        unit,
        runs,
        ..Figure::default()
    };
    figures.add(
        figure("up/empty", "readyz", ready_ms, "ms", 1),
        Some(Bound::ValueBelow(500.0)),
    );
    figures.add(figure("up/empty", "balancing", balancing_ms, "ms", 1), None);
    api.create("/api/v1/namespaces/default/pods", pod_object())?;
    api.report_pod(&pod, true)?;
    let mut millis = Vec::new();
    for index in 1..=SAMPLES {
        let address = Ipv4Addr::new(10, 97, 0, index);
        let connecting = client
            .place()
            .first_connect(SocketAddr::new(IpAddr::from(address), 80))?;
        let created_at = unix_now();
        api.create(
            "/api/v1/namespaces/default/services",
            service_object(&format!("s-{index}"), address),
        )?;
        let connected_at: f64 = connecting.finish()?.trim().parse().context("a time")?;
        millis.push((connected_at - created_at) * 1e3);
    }
    let samples = usize::from(SAMPLES);
    figures.add(
        figure(
            "create-to-connect",
            "p50",
            quantile(&millis, 0.5),
            "ms",
            samples,
        ),
        None,
    );
    figures.add(
        figure(
            "create-to-connect",
            "p99",
            quantile(&millis, 0.99),
            "ms",
            samples,
        ),
        Some(Bound::ValueBelow(10.0)),
    );
    let idle = idle_percent(platform.id()?, Duration::from_secs(3))?;
    figures.add(
        figure("up/idle", "cpu", idle, "%", 1),
        Some(Bound::ValueBelow(0.5)),
    );
    Ok(())
}

/// A proxy that starts beside an API server which already holds everything.
fn cold(figures: &mut Figures, fairlead: &Path, scales: &[u32]) -> Result<()> {
    let node = Node::create()?;
    let platform = Platform::start(&node, fairlead, Role::Server)?;
    let api = Api::connect(&node, &platform)?;
    let mut held = 0;
    for scale in scales {
        let started = Instant::now();
        fill(&api, held, *scale, PLAIN)?;
        let rate = f64::from(*scale - held) * 2.0 / started.elapsed().as_secs_f64();
        held = *scale;
        let figure = |metric, value, unit| Figure {
            case: format!("cold/{scale}x{ENDPOINTS}"),
            metric,
            value,
            unit,
            runs: 1,
            ..Figure::default()
        };
        figures.add(figure("api_creates", rate, "1/s"), None);
        let started = Instant::now();
        let (mut proxy, status) = programmed(&node, &platform)?;
        let turn = status["lastTurnSecs"]
            .as_f64()
            .context("the proxy's status has no lastTurnSecs")?;
        let bound = (*scale == 50_000).then_some(Bound::ValueBelow(0.5));
        figures.add(figure("last_listed_to_programmed", turn, "s"), bound);
        figures.add(
            figure("start_to_programmed", started.elapsed().as_secs_f64(), "s"),
            None,
        );
        let bound = match *scale {
            1_000 => Some(Bound::ValueBelow(50.0)),
            10_000 => Some(Bound::ValueBelow(100.0)),
            30_000 => Some(Bound::ValueBelow(300.0)),
            _ => None,
        };
        figures.add(figure("memory", resident_mb(proxy.id())?, "MB"), bound);
        proxy.terminate(Duration::from_secs(10))?;
        bpf::Datapath::uninstall(platform.bpffs())?;
    }
    Ok(())
}

/// What Services that choose by Maglev's tables add to plain ones.
fn maglev(figures: &mut Figures, fairlead: &Path) -> Result<()> {
    const SERVICES: u32 = 1_000;
    const MAGLEV: Filling = Filling {
        name: "maglev",
        endpoints: 10,
        balancing: Some("maglev"),
    };
    const ALIKE: Filling = Filling {
        name: "alike",
        balancing: None,
        ..MAGLEV
    };
    let mut resident = [0.0; 2];
    let mut words = 0;
    for (filling, resident) in [ALIKE, MAGLEV].iter().zip(&mut resident) {
        let node = Node::create()?;
        let platform = Platform::start(&node, fairlead, Role::Server)?;
        fill(&Api::connect(&node, &platform)?, 0, SERVICES, *filling)?;
        let (mut proxy, _) = programmed(&node, &platform)?;
        *resident = resident_mb(proxy.id())?;
        let fill = bpf::Datapath::inspect(platform.bpffs())?.fill()?;
        let spreads = fill.iter().find(|fill| fill.table == abi::spreads::NAME);
        words = spreads.context("no table of spreads")?.used;
        proxy.terminate(Duration::from_secs(10))?;
        bpf::Datapath::uninstall(platform.bpffs())?;
    }
    let figure = |metric, bytes| Figure {
        case: format!("maglev/{SERVICES}x{}", MAGLEV.endpoints),
        metric,
        value: bytes / f64::from(SERVICES),
        unit: "B",
        runs: 1,
        ..Figure::default()
    };
    let bound = Some(Bound::ValueBelow(2_000.0));
    let table = f64::from(words) * size_of::<abi::SpreadWord>() as f64;
    figures.add(figure("table_per_service", table), bound);
    let agent = (resident[1] - resident[0]) * 1e6;
    figures.add(figure("agent_per_service", agent), None);
    Ok(())
}

/// Starts a proxy; it, and what it says of itself once it has programmed everything.
fn programmed(node: &Node, platform: &Platform) -> Result<(Process, Value)> {
    let mut command = platform.proxy()?;
    command.args(["--metrics-bind-address", STATUS]);
    let proxy = Process::start(&mut command, "fairlead proxy")?;
    let status = wait_for(
        "the proxy to have programmed everything",
        Duration::from_secs(60),
        || {
            let asked = || proxy_status().map_err(anyhow::Error::from);
            let status = node.netns().run(asked).ok()?;
            (status["ready"] == true).then_some(status)
        },
    );
    Ok((proxy, status.with_context(|| platform.last_words())?))
}

/// What Services are made of.
#[derive(Clone, Copy)]
struct Filling {
    /// What their names begin with.
    name: &'static str,
    /// Of each Service.
    endpoints: u32,
    /// See `fairlead.io/balancing`.
    balancing: Option<&'static str>,
}

const PLAIN: Filling = Filling {
    name: "cold",
    endpoints: ENDPOINTS,
    balancing: None,
};

/// Creates Services from number `from` to number `to`, each with a slice of endpoints.
fn fill(api: &Api, from: u32, to: u32, filling: Filling) -> Result<()> {
    api.talk(|client| async move {
        let services = client::Path::raw("/api/v1/namespaces/default/services");
        let slices =
            client::Path::raw("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices");
        let mut tasks = tokio::task::JoinSet::new();
        for index in from..to {
            while tasks.len() >= AT_ONCE {
                ended(tasks.join_next().await)?;
            }
            let (client, services, slices) = (client.clone(), services.clone(), slices.clone());
            tasks.spawn(async move {
                let name = format!("{}-{index}", filling.name);
                client
                    .create::<Value>(&services, &filled_service(&name, filling))
                    .await?;
                client
                    .create::<Value>(&slices, &filled_slice(&name, index, filling))
                    .await?;
                Ok(())
            });
        }
        while let Some(task) = tasks.join_next().await {
            ended(Some(task))?;
        }
        Ok(())
    })
}

fn ended(task: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    task.map_or(Ok(()), |task| task?)
}

fn pod_object() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "labels": {"app": "web"}},
        "spec": {
            "nodeName": testbed::platform::NODE_NAME,
            "containers": [{"name": "web", "image": "registry.example/web:1", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
    })
}

fn service_object(name: &str, address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"clusterIP": address, "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

/// Without a selector: its slice is ours.
fn filled_service(name: &str, filling: Filling) -> Value {
    let annotations = filling
        .balancing
        .map(|choice| json!({"fairlead.io/balancing": choice}));
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn filled_slice(name: &str, index: u32, filling: Filling) -> Value {
    let first = u32::from(Ipv4Addr::new(11, 0, 0, 0)) + index * filling.endpoints;
    let endpoints: Vec<Value> = (first..first + filling.endpoints)
        .map(|address| json!({"addresses": [Ipv4Addr::from(address)], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// What the proxy says of itself; to be asked in the node's namespace.
fn proxy_status() -> std::io::Result<Value> {
    use std::io::{Read as _, Write as _};
    let mut connection = std::net::TcpStream::connect(STATUS)?;
    connection.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
    let mut response = String::new();
    connection.read_to_string(&mut response)?;
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}

/// Processor time of a process over some time, in percent of one processor (proc_pid_stat(5); a tick is
/// 10 ms).
fn idle_percent(pid: u32, time: Duration) -> Result<f64> {
    let ticks = || -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    let before = ticks()?;
    std::thread::sleep(time);
    Ok((ticks()? - before) as f64 / time.as_secs_f64())
}

/// Resident memory of a process in megabytes (10^6 bytes).
fn resident_mb(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
