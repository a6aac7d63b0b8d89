//! `fairlead dns` beside knot and nsd, which serve the same records from files. Every round measures every server
//! once, so that what else happens on the machine meets all of them.

mod changes;
mod servers;
mod usage;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::platform::{Api, Platform, Role};
use testbed::{Node, Place, Process};

use self::servers::{Served, Server, until_answering};
use crate::figures::{Bound, Figure, Figures, median, quantile};

/// Services that have names.
const SERVICES: u32 = 10_000;
/// Records of each: A, SRV of its port, PTR.
const RECORDS: u32 = 3;
/// Requests under way at one time while Services are created.
const AT_ONCE: usize = 64;
/// Sockets that dnsperf asks from: the kernel spreads them over a server's threads.
const CLIENTS: &str = "16";

/// How often and how long each server is measured.
struct Effort {
    rounds: usize,
    /// Rounds of latencies: the slowest hundredth is another one each time.
    latencies: usize,
    seconds: u32,
}

pub(crate) fn measure(figures: &mut Figures, fairlead: &Path, quick: bool) -> Result<()> {
    let effort = match quick {
        true => Effort {
            rounds: 3,
            latencies: 9,
            seconds: 2,
        },
        false => Effort {
            rounds: 9,
            latencies: 9,
            seconds: 4,
        },
    };
    let node = Node::create()?;
    let platform = Platform::start(&node, fairlead, Role::Server)?;
    let api = Api::connect(&node, &platform)?;
    fill(&api)?;
    let services = services(&api)?;
    let stage = Stage {
        place: node.place()?.without_cgroup(),
        folder: node.folder().to_path_buf(),
        questions: node.folder().join("questions"),
    };
    std::fs::write(&stage.questions, questions(&services))?;
    let served = Served {
        place: &stage.place,
        folder: &stage.folder,
        fairlead,
        kubeconfig: &platform.kubeconfig(),
        services: &services,
    };
    let (last, _) = services.last().context("no Service")?;
    let mut ours = started(figures, &node, &served, last)?;
    {
        let peers = [servers::knot(&served)?, servers::nsd(&served)?];
        for port in peers.each_ref().map(Server::port) {
            node.netns()
                .run(|| until_answering(port, last, Duration::from_secs(20)))?;
        }
        let all = [&ours, &peers[0], &peers[1]];
        let peaks = peaks(figures, &stage, &all, &effort)?;
        latencies(figures, &stage, &all, &peaks, &effort)?;
    }
    changes::measure(figures, &node, &api, &ours, quick)?;
    ours.stop()
}

/// Where everything runs.
struct Stage {
    place: Place,
    folder: PathBuf,
    questions: PathBuf,
}

/// From start to answer, and what the names cost in memory.
fn started(figures: &mut Figures, node: &Node, served: &Served<'_>, last: &str) -> Result<Server> {
    const STARTS: usize = 3;
    let mut millis = Vec::new();
    let mut cpu = Vec::new();
    let mut server = None;
    for _ in 0..STARTS {
        if let Some(before) = server.take() {
            let mut before: Server = before;
            before.stop()?;
        }
        let begun = Instant::now();
        let started = servers::fairlead(served)?;
        let port = started.port();
        node.netns()
            .run(|| until_answering(port, last, Duration::from_secs(20)))?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
        cpu.push(usage::cpu_micros(started.id())? / 1e3);
        server = Some(started);
    }
    let server = server.context("no start")?;
    let figure = |metric, value, unit, runs| Figure {
        case: format!("fairlead/{SERVICES}"),
        metric,
        value,
        unit,
        runs,
        ..Figure::default()
    };
    figures.add(
        figure("start_to_answer", median(&millis), "ms", STARTS),
        Some(Bound::ValueBelow(200.0)),
    );
    figures.add(figure("start_cpu", median(&cpu), "ms", STARTS), None);
    let bound = 30.0 + f64::from(SERVICES * RECORDS) * 0.5e-3;
    let memory = usage::resident_mb(server.id())?;
    figures.add(
        figure("memory", memory, "MB", 1),
        Some(Bound::ValueBelow(bound)),
    );
    Ok(server)
}

/// What a query costs at most load, and how many a second that is. Gives each server's peak.
fn peaks(
    figures: &mut Figures,
    stage: &Stage,
    all: &[&Server],
    effort: &Effort,
) -> Result<Vec<f64>> {
    let mut costs = vec![Vec::new(); all.len()];
    let mut rates = vec![Vec::new(); all.len()];
    for _ in 0..effort.rounds {
        for (at, server) in all.iter().enumerate() {
            let before = usage::cpu_micros(server.id())?;
            let run = dnsperf(stage, server, effort.seconds, None)?;
            let used = usage::cpu_micros(server.id())? - before;
            costs[at].push(used / run.completed);
            rates[at].push(run.per_second);
        }
    }
    for (at, server) in all.iter().enumerate() {
        let figure = |metric, value, unit, ratios: Option<Vec<f64>>| Figure {
            case: format!("{}/{SERVICES}", server.name()),
            metric,
            value,
            unit,
            peer: ratios.as_ref().map(|_| server.name()),
            ratio: ratios.as_deref().map(median),
            ratio_spread: ratios
                .as_deref()
                .map(|ratios| (quantile(ratios, 0.25), quantile(ratios, 0.75))),
            runs: effort.rounds,
            ..Figure::default()
        };
        figures.add(
            figure("cpu_per_query", median(&costs[at]), "us", None),
            None,
        );
        figures.add(figure("peak", median(&rates[at]), "1/s", None), None);
        if at > 0 {
            let ratios = costs[at]
                .iter()
                .zip(&costs[0])
                .map(|(p, o)| p / o)
                .collect();
            let mut compared = figure("cpu_per_query", median(&costs[0]), "us", Some(ratios));
            compared.case = format!("fairlead/{SERVICES}");
            figures.add(compared, Some(Bound::RatioMin(1.0)));
        }
    }
    Ok(rates.iter().map(|rates| median(rates)).collect())
}

/// How long the slowest hundredth waits while each peer has half of what it could do.
fn latencies(
    figures: &mut Figures,
    stage: &Stage,
    all: &[&Server],
    peaks: &[f64],
    effort: &Effort,
) -> Result<()> {
    let ours = all.first().context("no server of our own")?;
    for (peer, peak) in all.iter().zip(peaks).skip(1) {
        let rate = (peak / 2.0) as u64;
        let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
        for round in 0..effort.latencies {
            // Who comes first changes: the first finds a colder machine.
            let mut pair = [(&mut of_ours, ours), (&mut of_peer, peer)];
            if round % 2 == 1 {
                pair.reverse();
            }
            for (micros, server) in pair {
                let run = dnsperf(stage, server, effort.seconds, Some(rate))?;
                micros.push(quantile(&run.micros, 0.99));
            }
        }
        let ratios: Vec<f64> = of_peer.iter().zip(&of_ours).map(|(p, o)| p / o).collect();
        let figure = |name: &str, values: &[f64]| Figure {
            case: format!("{name}/{rate}qps"),
            metric: "p99",
            value: median(values),
            unit: "us",
            runs: values.len(),
            ..Figure::default()
        };
        figures.add(figure(peer.name(), &of_peer), None);
        let mut compared = figure("fairlead", &of_ours);
        compared.peer = Some(peer.name());
        compared.ratio = Some(median(&ratios));
        compared.ratio_spread = Some((quantile(&ratios, 0.25), quantile(&ratios, 0.75)));
        figures.add(compared, Some(Bound::RatioMin(1.0)));
    }
    Ok(())
}

/// What dnsperf measured.
struct Run {
    completed: f64,
    per_second: f64,
    /// Of each query, where a rate was given.
    micros: Vec<f64>,
}

fn dnsperf(stage: &Stage, server: &Server, seconds: u32, rate: Option<u64>) -> Result<Run> {
    let mut command: Command = stage.place.command(Path::new("dnsperf"))?;
    command
        .args(["-s", "127.0.0.1", "-p", &server.port().to_string()])
        .args(["-l", &seconds.to_string(), "-c", CLIENTS, "-d"])
        .arg(&stage.questions);
    if let Some(rate) = rate {
        // `-v` tells how long each query took.
        command.args(["-v", "-Q", &rate.to_string()]);
    }
    let text = Process::start(&mut command, "dnsperf")?.finish()?;
    let number = |label: &str| -> Result<f64> {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(label));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok())
            .with_context(|| format!("dnsperf said no {label:?}:\n{text}"))
    };
    let mut micros = Vec::new();
    if rate.is_some() {
        let told = text.lines().filter_map(|line| line.strip_prefix("> "));
        let seconds = told.filter_map(|line| line.split_whitespace().next_back()?.parse().ok());
        micros.extend(seconds.map(|seconds: f64| seconds * 1e6));
        ensure!(!micros.is_empty(), "dnsperf -v told no times");
    }
    let (sent, completed) = (number("Queries sent:")?, number("Queries completed:")?);
    // A busy machine loses some; a server that loses more than these is not one to compare with.
    let least = sent * 0.9;
    ensure!(
        completed >= least,
        "{} answered {completed} of {sent} queries",
        server.name()
    );
    Ok(Run {
        completed,
        per_second: number("Queries per second:")?,
        micros,
    })
}

/// Four of five names exist; one of ten has no address of the family, and one of ten does not exist.
fn questions(services: &[(String, String)]) -> String {
    let mut text = String::new();
    // A stride that is coprime with the count visits all of them, and no cache finds its neighbours.
    let count = services.len();
    for turn in 0..count {
        let (name, _) = &services[turn * 7919 % count];
        let _ = match turn % 10 {
            0 => writeln!(text, "{name}.default.svc.cluster.local AAAA"),
            1 => writeln!(text, "no-{name}.default.svc.cluster.local A"),
            _ => writeln!(text, "{name}.default.svc.cluster.local A"),
        };
    }
    text
}

fn fill(api: &Api) -> Result<()> {
    api.talk(|client| async move {
        let services = client::Path::raw("/api/v1/namespaces/default/services");
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..SERVICES {
            while tasks.len() >= AT_ONCE {
                ended(tasks.join_next().await)?;
            }
            let (client, services) = (client.clone(), services.clone());
            tasks.spawn(async move {
                let service = json!({
                    "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("svc-{index}")},
                    "spec": {"ports": [{"name": "http", "port": 80}]},
                });
                client.create::<Value>(&services, &service).await?;
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

/// Names and addresses of the Services, as the API tells them.
fn services(api: &Api) -> Result<Vec<(String, String)>> {
    let list = api.get("/api/v1/namespaces/default/services")?;
    let items = list["items"].as_array().context("a list without items")?;
    let of = |item: &Value| {
        let name = item["metadata"]["name"].as_str()?;
        let address = item["spec"]["clusterIP"].as_str()?;
        name.starts_with("svc-")
            .then(|| (name.to_owned(), address.to_owned()))
    };
    let found: Vec<(String, String)> = items.iter().filter_map(of).collect();
    ensure!(
        found.len() == SERVICES as usize,
        "{} Services of {SERVICES}",
        found.len()
    );
    Ok(found)
}
