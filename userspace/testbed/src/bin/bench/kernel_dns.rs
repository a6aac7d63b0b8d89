//! Names of Services answered by the programs beside the server, on one path: a pod asks the DNS Service's address. Every
//! round measures both, so that what else happens on the machine meets both.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use abi::Counter;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::platform::{Api, Platform, Role};
use testbed::{Node, Pod, wait_for};

use crate::figures::{Bound, Figure, Figures, median};

/// Services that have names.
const SERVICES: u32 = 1_000;
/// The DNS Service, as `fairlead up` makes it.
const SERVICE: &str = "10.96.0.10";
/// What has the programs answer.
const FLAGS: [&str; 2] = ["--kernel-answers", "--node-local-dns"];

/// What a run of dnsperf gave.
struct Run {
    answers_per_s: f64,
    /// CPU of the server's process for each answer, in microseconds.
    server_us: f64,
    /// Share of the answers that the programs did not make.
    by_server: f64,
}

pub(crate) fn measure(figures: &mut Figures, fairlead: &Path, quick: bool) -> Result<()> {
    let (rounds, seconds) = if quick { (3, 2) } else { (7, 4) };
    let node = Node::create()?;
    let pod = node.add_pod("client")?;
    let mut platform = Platform::start(&node, fairlead, Role::Up)?;
    let questions = node.folder().join("questions");
    fill(&node, &platform, &questions)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (flags, runs) in [(&[][..], &mut without), (&FLAGS[..], &mut with)] {
            platform.kill()?;
            platform.set_flags(flags);
            platform.restart()?;
            let kernel = !flags.is_empty();
            wait_for("the DNS", Duration::from_secs(20), || {
                answers(&node, &platform, &pod, kernel).ok()?.then_some(())
            })?;
            until_idle(&platform)?;
            runs.push(run(&node, &platform, &pod, &questions, seconds)?);
        }
    }
    let ratios = |of: fn(&Run) -> f64| -> Vec<f64> {
        let pairs = with.iter().zip(&without);
        pairs
            .map(|(with, without)| of(with) / of(without))
            .collect()
    };
    let values =
        |runs: &[Run], of: fn(&Run) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
    let per_s = ratios(|run| run.answers_per_s);
    for (case, runs) in [("server", &without), ("kernel", &with)] {
        for (metric, unit, of) in [
            (
                "answers_per_s",
                "1/s",
                (|run| run.answers_per_s) as fn(&Run) -> f64,
            ),
            ("server_cpu_per_answer", "us", |run| run.server_us),
            ("answered_by_server", "1", |run| run.by_server),
        ] {
            let figure = Figure {
                case: format!("pod-to-service/{case}"),
                metric,
                value: values(runs, of),
                unit,
                peer: (case == "kernel" && metric == "answers_per_s").then_some("server"),
                ratio: (case == "kernel" && metric == "answers_per_s").then(|| median(&per_s)),
                runs: runs.len(),
                ..Figure::default()
            };
            let none = case == "kernel" && metric == "answered_by_server";
            figures.add(figure, none.then_some(Bound::ValueBelow(0.001)));
        }
    }
    // What the programs take is nobody's process: the server's figure goes, and the programs' is measured by itself.
    let server_us = values(&without, |run| run.server_us);
    let kernel_us = values(&with, |run| run.server_us) + crate::programs::dns_answer_ns()? / 1e3;
    figures.add(
        Figure {
            case: "pod-to-service/kernel".to_owned(),
            metric: "cpu_per_answer",
            value: kernel_us,
            unit: "us",
            peer: Some("server"),
            ratio: Some(server_us / kernel_us),
            runs: with.len(),
            ..Figure::default()
        },
        Some(Bound::RatioMin(5.0)),
    );
    Ok(())
}

/// Makes the Services, and a question of each family for each.
fn fill(node: &Node, platform: &Platform, questions: &Path) -> Result<()> {
    let api = Api::connect(node, platform)?;
    let mut text = String::new();
    for n in 0..SERVICES {
        let service = json!({
            "metadata": {"name": format!("s-{n}"), "namespace": "default"},
            "spec": {"ports": [{"port": 80}]},
        });
        api.create("/api/v1/namespaces/default/services", service)?;
        for kind in ["A", "AAAA"] {
            writeln!(text, "s-{n}.default.svc.cluster.local {kind}")?;
        }
    }
    Ok(std::fs::write(questions, text)?)
}

/// Whether the pod is answered, by whom it should be.
fn answers(node: &Node, platform: &Platform, pod: &Pod, kernel: bool) -> Result<bool> {
    let mut dig = pod.place().command("dig".as_ref())?;
    dig.args(["+nocookie", "+short", "+time=1", "+tries=1"]);
    dig.arg(format!("@{SERVICE}"))
        .arg("s-7.default.svc.cluster.local");
    // Where nobody answers it says so, in the same place.
    let said = String::from_utf8(dig.output()?.stdout)?;
    let answered = said.trim().parse::<IpAddr>().is_ok();
    let root = platform.bpffs();
    let view = node.netns().run(|| Ok(bpf::Datapath::inspect(root)?))?;
    Ok(answered && (view.dns().answers_until_secs > bpf::now_secs()) == kernel)
}

/// Returns when what the start began is over: loading programs and filling tables goes on after the first answers, and
/// its CPU is no answer's.
fn until_idle(platform: &Platform) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(300);
    const IDLE_US: f64 = 10_000.0;
    let id = platform.id()?;
    let mut before = cpu_us(id)?;
    wait_for("an idle server", Duration::from_secs(20), || {
        std::thread::sleep(LOOK);
        let now = cpu_us(id).ok()?;
        let idle = now - before <= IDLE_US;
        before = now;
        idle.then_some(())
    })
}

/// Queries that the programs answered since the tables were made.
fn in_kernel(node: &Node, platform: &Platform) -> Result<u64> {
    let root = platform.bpffs();
    let counters = node
        .netns()
        .run(|| Ok(bpf::Datapath::inspect(root)?.counters()?))?;
    let answers = counters
        .iter()
        .filter(|(counter, _)| matches!(counter, Counter::TcDnsAnswer | Counter::XdpDnsAnswer));
    Ok(answers.map(|(_, value)| value.packets).sum())
}

fn run(node: &Node, platform: &Platform, pod: &Pod, questions: &Path, seconds: u32) -> Result<Run> {
    let (before, answered) = (cpu_us(platform.id()?)?, in_kernel(node, platform)?);
    let mut dnsperf = pod.place().command("dnsperf".as_ref())?;
    dnsperf.args([
        "-s",
        SERVICE,
        "-l",
        &seconds.to_string(),
        "-c",
        "8",
        "-q",
        "64",
        "-d",
    ]);
    let output = dnsperf.arg(questions).output().context("dnsperf")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |label: &str| -> Result<f64> {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(label));
        let word = line.and_then(|line| line.split_whitespace().next());
        Ok(word
            .with_context(|| format!("dnsperf said {text}"))?
            .parse()?)
    };
    let completed = number("Queries completed:")?;
    ensure!(completed > 0.0, "nothing was answered: {text}");
    Ok(Run {
        answers_per_s: number("Queries per second:")?,
        server_us: (cpu_us(platform.id()?)? - before) / completed,
        by_server: 1.0 - (in_kernel(node, platform)? - answered) as f64 / completed,
    })
}

/// Microseconds of CPU that a process has had (proc_pid_stat(5)).
fn cpu_us(pid: u32) -> Result<f64> {
    const TICK_US: f64 = 10_000.0;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: f64 = [11, 12]
        .iter()
        .filter_map(|at| fields.get(*at)?.parse::<f64>().ok())
        .sum();
    Ok(ticks * TICK_US)
}
