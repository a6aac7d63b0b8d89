//! Connected UDP sockets of many pods, and how soon they are with another backend once theirs has left its Service.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::platform::{Api, Platform, Role};
use testbed::{Node, Pod, cgroup};

use crate::figures::{Bound, Figure, Figures, quantile};

const NAMESPACES: usize = 50;
const SOCKETS: usize = 1_000;
/// Between two questions of a socket.
const PAUSE: Duration = Duration::from_millis(5);
/// After which a socket that has not moved counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the Service answers.
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 97, 2, 1)), 9000);

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

pub(crate) fn measure(figures: &mut Figures, fairlead: &Path, quick: bool) -> Result<()> {
    let moves = if quick { 5 } else { 25 };
    let node = Node::create()?;
    let pods = [node.add_pod("udp-0")?, node.add_pod("udp-1")?];
    let mut servers = Vec::new();
    for pod in &pods {
        servers.push(pod.place().serve_udp(pod.name(), "[::]:9000".parse()?)?);
    }
    let clients = (0..NAMESPACES)
        .map(|index| node.add_pod(&format!("client-{index}")))
        .collect::<Result<Vec<_>>>()?;
    let platform = Platform::start(&node, fairlead, Role::Up)?;
    let api = Api::connect(&node, &platform)?;
    create(&api, &pods[0])?;
    let sockets = connected(&node, &clients)?;
    let mut millis = settle(&sockets, &pods[0])?;
    millis.clear();
    for turn in 1..=moves {
        let pod = &pods[turn % 2];
        let endpoints = json!({"endpoints": [{"addresses": [pod.address(false)]}]});
        api.merge(&format!("{SLICES}/many"), endpoints)?;
        millis.extend(settle(&sockets, pod)?);
    }
    let figure = |metric, value| Figure {
        case: format!("udp-sockets/{SOCKETS}"),
        metric,
        value,
        unit: "ms",
        runs: millis.len(),
        ..Figure::default()
    };
    figures.add(figure("moved_p50", quantile(&millis, 0.5)), None);
    let p99 = quantile(&millis, 0.99);
    figures.add(figure("moved_p99", p99), Some(Bound::ValueBelow(100.0)));
    Ok(())
}

/// Asks by every socket until the pod answers it; how many milliseconds that took for each of them. A socket that was
/// closed under its owner is connected again, as its owner would do.
fn settle(sockets: &[UdpSocket], pod: &Pod) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let wanted = format!("{} ", pod.name());
    let mut waiting: Vec<&UdpSocket> = sockets.iter().collect();
    let mut millis = Vec::with_capacity(sockets.len());
    let mut answer = [0; 256];
    while !waiting.is_empty() {
        ensure!(
            begun.elapsed() < PATIENCE,
            "{} of {} sockets had no answer of {} within {PATIENCE:?}",
            waiting.len(),
            sockets.len(),
            pod.name(),
        );
        let mut at = 0;
        while let Some(socket) = waiting.get(at) {
            match socket.recv(&mut answer) {
                Ok(told) if answer[..told].starts_with(wanted.as_bytes()) => {
                    millis.push(begun.elapsed().as_secs_f64() * 1e3);
                    waiting.swap_remove(at);
                    continue;
                }
                // An answer of the other pod, to an earlier question: there may be more of them.
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => socket.connect(SERVICE)?,
            }
            if socket.send(b"?").is_err() {
                socket.connect(SERVICE)?;
            }
            at += 1;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(millis)
}

/// Sockets that are connected to the Service, in the pods' namespaces and in the node's cgroup: what hooks see a socket
/// is settled when it is made.
fn connected(node: &Node, clients: &[Pod]) -> Result<Vec<UdpSocket>> {
    let home = home()?;
    cgroup::join(node.cgroup())?;
    let sockets = clients.iter().map(|client| {
        client.netns().run(|| {
            let each = (0..SOCKETS / NAMESPACES).map(|_| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(SERVICE)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            each.collect::<Result<Vec<_>>>()
        })
    });
    let sockets = sockets.collect::<Result<Vec<_>>>();
    cgroup::join(&home)?;
    Ok(sockets?.into_iter().flatten().collect())
}

/// The cgroup of this process (cgroups(7)).
fn home() -> Result<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(cgroup::mount()?.join(path.context("no cgroup2 in /proc/self/cgroup")?))
}

fn create(api: &Api, pod: &Pod) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "many"},
        "spec": {"clusterIP": SERVICE.ip(), "ports": [{"name": "udp", "port": 9000, "protocol": "UDP"}]},
    });
    api.create("/api/v1/namespaces/default/services", service)?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "many", "labels": {"kubernetes.io/service-name": "many"}},
        "ports": [{"name": "udp", "port": 9000, "protocol": "UDP"}],
        "endpoints": [{"addresses": [pod.address(false)]}],
    });
    api.create(SLICES, slice)?;
    Ok(())
}
