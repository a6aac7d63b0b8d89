//! From a write that was acknowledged to the answer that shows it, while a thousand a second are made.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use client::PatchKind;
use serde_json::{Value, json};
use testbed::Node;
use testbed::platform::Api;

use super::servers::{Server, question, until_answering};
use crate::figures::{Bound, Figure, Figures, quantile};

/// Changes a second.
const RATE: u32 = 1000;
/// Headless Services whose endpoint moves.
const MOVING: u32 = 500;
/// Of so many changes one is looked for.
const SAMPLED: u32 = 10;
/// How long a change may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn measure(
    figures: &mut Figures,
    node: &Node,
    api: &Api,
    server: &Server,
    quick: bool,
) -> Result<()> {
    let seconds = if quick { 5 } else { 15 };
    create(api)?;
    let port = server.port();
    node.netns()
        .run(|| until_answering(port, "moving-0", Duration::from_secs(10)))?;
    let (sampled, samples) = std::sync::mpsc::channel::<(u32, Ipv4Addr, Instant)>();
    // Looks in the servers' namespace for what the writers say was acknowledged.
    let looker = node.netns().run(move || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(std::thread::spawn(move || -> Result<Vec<f64>> {
            samples
                .into_iter()
                .map(|(index, address, acknowledged)| shown(&socket, index, address, acknowledged))
                .collect()
        }))
    })?;
    let begun = Instant::now();
    let made = api.talk(move |client| async move {
        let made = Arc::new(AtomicU32::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        for change in 0..RATE * seconds {
            ticks.tick().await;
            let (client, made) = (client.clone(), Arc::clone(&made));
            let sampled = (change % SAMPLED == 0).then(|| sampled.clone());
            tasks.spawn(async move {
                let index = change % MOVING;
                let address = Ipv4Addr::from(0x0b00_0000 + change);
                let slice = client::Path::raw(&format!("{SLICES}/moving-{index}"));
                let patch = json!({"endpoints": [{"addresses": [address]}]});
                client
                    .patch::<Value>(&slice, PatchKind::Merge, &patch)
                    .await?;
                made.fetch_add(1, Ordering::Relaxed);
                if let Some(sampled) = sampled {
                    // The looker ends only after this.
                    let _ = sampled.send((index, address, Instant::now()));
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(made.load(Ordering::Relaxed))
    })?;
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
    figures.add(figure("p99", p99, "ms"), Some(Bound::ValueBelow(10.0)));
    if rate < f64::from(RATE) * 0.95 {
        figures.miss(format!(
            "changes: only {rate:.0} of {RATE} a second were made"
        ));
    }
    Ok(())
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Asks until the answer is the address, or one that is newer: addresses of a Service only grow. Gives milliseconds.
fn shown(socket: &UdpSocket, index: u32, address: Ipv4Addr, acknowledged: Instant) -> Result<f64> {
    let question = question(&format!("moving-{index}.default.svc.cluster.local"));
    let mut answer = [0; 512];
    while acknowledged.elapsed() < PATIENCE {
        socket.send(&question)?;
        let length = socket.recv(&mut answer).context("no answer")?;
        // The only record is the last thing in the message.
        let told = answer[..length].last_chunk::<4>().copied();
        let told = told.map(Ipv4Addr::from).filter(|_| answer[7] == 1);
        if told.is_some_and(|told| told >= address) {
            break;
        }
    }
    Ok(acknowledged.elapsed().as_secs_f64() * 1e3)
}

fn create(api: &Api) -> Result<()> {
    api.talk(|client| async move {
        let services = client::Path::raw("/api/v1/namespaces/default/services");
        let slices = client::Path::raw(SLICES);
        for index in 0..MOVING {
            let name = format!("moving-{index}");
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
            });
            client.create::<Value>(&services, &service).await?;
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "http", "port": 80}],
                "endpoints": [{"addresses": [Ipv4Addr::from(0x0a80_0000 + index)]}],
            });
            client.create::<Value>(&slices, &slice).await?;
        }
        Ok(())
    })
}
