//! From a write that was acknowledged to the packets that follow it, while a thousand changes a second are made.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use client::PatchKind;
use serde_json::{Value, json};
use testbed::Node;
use testbed::platform::{Api, Platform, Role};

use crate::figures::{Bound, Figure, Figures, quantile};

/// Changes a second.
const RATE: u32 = 1000;
/// Services whose endpoint moves among addresses that nobody has.
const MOVING: u32 = 500;
/// Of so many changes one moves the Service that is looked at between two pods.
const SAMPLED: u32 = 20;
/// How long a change may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the Service that is looked at answers.
const SEEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 97, 1, 1)), 9000);

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

pub(crate) fn measure(figures: &mut Figures, fairlead: &Path, quick: bool) -> Result<()> {
    let seconds = if quick { 5 } else { 15 };
    let node = Node::create()?;
    let pods = [node.add_pod("udp-0")?, node.add_pod("udp-1")?];
    let client = node.add_pod("client")?;
    let mut servers = Vec::new();
    for pod in &pods {
        servers.push(pod.place().serve_udp(pod.name(), "[::]:9000".parse()?)?);
    }
    let platform = Platform::start(&node, fairlead, Role::Up)?;
    let api = Api::connect(&node, &platform)?;
    let addresses = [0, 1].map(|index: usize| pods[index].address(false));
    create(&api, addresses[0])?;
    let (sampled, samples) = std::sync::mpsc::channel::<(usize, Instant)>();
    // Sees the packets of a pod that no socket hook sees.
    let looker = client.netns().run(|| {
        shown("udp-0", Instant::now())?;
        Ok(std::thread::spawn(move || -> Result<Vec<f64>> {
            samples
                .into_iter()
                .map(|(pod, acknowledged)| shown(&format!("udp-{pod}"), acknowledged))
                .collect()
        }))
    })?;
    let begun = Instant::now();
    let made = change(&api, seconds, addresses, sampled)?;
    let rate = f64::from(made) / begun.elapsed().as_secs_f64();
    let millis = looker
        .join()
        .ok()
        .context("the thread that looks for changes ended early")??;
    let figure = |metric, value, unit| Figure {
        case: format!("changes/{RATE}"),
        metric,
        value,
        unit,
        runs: millis.len(),
        ..Figure::default()
    };
    figures.add(figure("made", rate, "1/s"), None);
    figures.add(figure("p50", quantile(&millis, 0.5), "ms"), None);
    let p99 = quantile(&millis, 0.99);
    figures.add(figure("p99", p99, "ms"), Some(Bound::ValueBelow(5.0)));
    if rate < f64::from(RATE) * 0.95 {
        figures.miss(format!(
            "changes: only {rate:.0} of {RATE} a second were made"
        ));
    }
    Ok(())
}

/// Makes the changes; how many that were.
fn change(
    api: &Api,
    seconds: u32,
    addresses: [IpAddr; 2],
    sampled: std::sync::mpsc::Sender<(usize, Instant)>,
) -> Result<u32> {
    api.talk(move |client| async move {
        let made = Arc::new(AtomicU32::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        for change in 0..RATE * seconds {
            ticks.tick().await;
            let (client, made) = (client.clone(), Arc::clone(&made));
            let is_sampled = change % SAMPLED == 0;
            let pod = (change / SAMPLED + 1) as usize % 2;
            let (name, address) = if is_sampled {
                ("seen".to_owned(), addresses[pod])
            } else {
                let address = Ipv4Addr::from(0x0b00_0000 + change);
                (format!("moving-{}", change % MOVING), address.into())
            };
            let write = async move {
                let slice = client::Path::raw(&format!("{SLICES}/{name}"));
                let patch = json!({"endpoints": [{"addresses": [address]}]});
                client
                    .patch::<Value>(&slice, PatchKind::Merge, &patch)
                    .await?;
                made.fetch_add(1, Ordering::Relaxed);
                anyhow::Ok(())
            };
            if is_sampled {
                // In order: the next one takes the Service back.
                write.await?;
                sampled.send((pod, Instant::now()))?;
            } else {
                tasks.spawn(write);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(made.load(Ordering::Relaxed))
    })
}

/// Asks, from a new socket each time, until the pod of this name answers. Gives milliseconds.
fn shown(pod: &str, acknowledged: Instant) -> Result<f64> {
    let mut answer = [0; 256];
    while acknowledged.elapsed() < PATIENCE {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SEEN)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.send(b"?")?;
        // Until the Service is there, nobody answers.
        let told = socket.recv(&mut answer).unwrap_or_default();
        if answer[..told].starts_with(format!("{pod} ").as_bytes()) {
            break;
        }
    }
    Ok(acknowledged.elapsed().as_secs_f64() * 1e3)
}

fn create(api: &Api, first: IpAddr) -> Result<()> {
    api.talk(move |client| async move {
        let (services, slices) = (client::Path::raw(SERVICES), client::Path::raw(SLICES));
        let moving = (0..MOVING).map(|index| {
            let address = IpAddr::from(Ipv4Addr::from(0x0a80_0000 + index));
            (format!("moving-{index}"), None, address)
        });
        for (name, cluster_ip, address) in
            moving.chain([("seen".to_owned(), Some(SEEN.ip()), first)])
        {
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"clusterIP": cluster_ip, "ports": [{"name": "udp", "port": 9000, "protocol": "UDP"}]},
            });
            client.create::<Value>(&services, &service).await?;
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "udp", "port": 9000, "protocol": "UDP"}],
                "endpoints": [{"addresses": [address]}],
            });
            client.create::<Value>(&slices, &slice).await?;
        }
        Ok(())
    })
}
