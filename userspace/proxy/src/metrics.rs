//! `/healthz`, `/readyz`, `/status`, `/proxyMode`, `/configz` and `/metrics` (Prometheus text format 0.0.4).

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bpf::{Datapath, Fill};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{error, info};
use view::NodePortAddresses;

use crate::rest_client::RestClient;
use crate::status::{Latency, Status};
use crate::{Error, Settings, healthz};

/// What the pages are made of.
#[derive(Clone)]
struct Sources {
    bpffs_root: PathBuf,
    status: watch::Receiver<Status>,
    requests: Arc<RestClient>,
    config: Arc<Value>,
}

/// Serves in the background, as long as the process lives.
pub(crate) async fn serve(
    address: SocketAddr,
    settings: &Settings,
    requests: Arc<RestClient>,
) -> Result<(), Error> {
    let failed = |source| Error::Metrics { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    info!(address = %bound, "serves metrics");
    let sources = Sources {
        bpffs_root: settings.datapath.bpffs_root.clone(),
        status: settings.status.subscribe(),
        requests,
        config: Arc::new(config(settings)),
    };
    let pages = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/proxyMode", get(|| async { MODE }))
        .route("/configz", get(configz))
        .with_state(sources);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).await {
            error!(
                error = &error as &dyn std::error::Error,
                "metrics are no longer served"
            );
        }
    });
    Ok(())
}

/// What `/proxyMode` says, where kube-proxy says `nftables`.
const MODE: &str = "fairlead";

async fn configz(State(sources): State<Sources>) -> Response {
    let kind = "application/json";
    let config = json!({"kubeproxy.config.k8s.io": *sources.config});
    ([(header::CONTENT_TYPE, kind)], config.to_string()).into_response()
}

/// The settings that kube-proxy's configuration has, in its words.
fn config(settings: &Settings) -> Value {
    let shown = |address: Option<SocketAddr>| address.map_or(String::new(), |it| it.to_string());
    let node_ports = match &settings.node_port_addresses {
        NodePortAddresses::All => Vec::new(),
        NodePortAddresses::Primary => vec!["primary".to_owned()],
        NodePortAddresses::Within(ranges) => ranges.iter().map(ToString::to_string).collect(),
    };
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "hostnameOverride": settings.node_name,
        "healthzBindAddress": shown(settings.healthz_bind_address),
        "metricsBindAddress": shown(settings.metrics_bind_address),
        "nodePortAddresses": node_ports,
        "mode": MODE,
    })
}

async fn ready(State(sources): State<Sources>) -> (StatusCode, &'static str) {
    if sources.status.borrow().ready {
        (StatusCode::OK, "ok")
    } else {
        let reason = "not everything was listed and programmed yet";
        (StatusCode::SERVICE_UNAVAILABLE, reason)
    }
}

async fn status(State(sources): State<Sources>) -> Response {
    let json = serde_json::to_vec(&*sources.status.borrow());
    match json {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let root = sources.bpffs_root.clone();
    let kernel = spawn_blocking(move || {
        let view = Datapath::inspect(&root)?;
        Ok::<_, bpf::Error>((view.counters()?, view.fill()?))
    });
    match kernel.await {
        Ok(Ok((counters, fills))) => {
            let mut text = sources.status.borrow().kube_proxy.text();
            text += &healthz::metrics();
            text += &sources.requests.text();
            text += &net::process_metrics();
            text += &own(&sources.status.borrow());
            text += &of_kernel(&counters, &fills);
            let kind = "text/plain; version=0.0.4";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Starts a family of samples.
fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn own(status: &Status) -> String {
    let mut text = String::new();
    let single = [
        (
            "fairlead_proxy_ready",
            "gauge",
            "Everything was listed and programmed.",
            u64::from(status.ready),
        ),
        (
            "fairlead_proxy_turns_total",
            "counter",
            "Changes programmed.",
            status.turns,
        ),
        (
            "fairlead_proxy_steps_total",
            "counter",
            "Steps carried out.",
            status.steps,
        ),
        (
            "fairlead_proxy_services_changed_total",
            "counter",
            "Services that changed.",
            status.changes,
        ),
        (
            "fairlead_proxy_failures_total",
            "counter",
            "Changes that the kernel refused.",
            status.failures,
        ),
        (
            "fairlead_proxy_services_in_trouble",
            "gauge",
            "Services not served in full.",
            status.troubles.len() as u64,
        ),
        (
            "fairlead_proxy_attached_devices",
            "gauge",
            "Devices and pod links attached to.",
            status.devices.len() as u64,
        ),
    ];
    for (name, kind, help, value) in single {
        family(&mut text, name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    }
    let name = "fairlead_proxy_program_duration_seconds";
    family(
        &mut text,
        name,
        "histogram",
        "From the first event of a change to its last step.",
    );
    let mut count = 0;
    for (bound, n) in Latency::BOUNDS_SECS.iter().zip(status.latency.counts) {
        count += n;
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    count += status.latency.longer;
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(
        text,
        "{name}_sum {}\n{name}_count {count}",
        status.latency.sum_secs
    );
    text
}

fn of_kernel(counters: &[(abi::Counter, abi::CounterValue)], fills: &[Fill]) -> String {
    let mut text = String::new();
    let (packets, bytes) = (
        "fairlead_datapath_packets_total",
        "fairlead_datapath_bytes_total",
    );
    family(
        &mut text,
        packets,
        "counter",
        "Packets or connects, by what became of them.",
    );
    for (counter, value) in counters {
        let _ = writeln!(
            text,
            "{packets}{{what=\"{}\"}} {}",
            counter.label(),
            value.packets
        );
    }
    family(
        &mut text,
        bytes,
        "counter",
        "Bytes, by what became of them.",
    );
    for (counter, value) in counters {
        let _ = writeln!(
            text,
            "{bytes}{{what=\"{}\"}} {}",
            counter.label(),
            value.bytes
        );
    }
    let (used, capacity) = ("fairlead_table_entries", "fairlead_table_capacity");
    family(&mut text, used, "gauge", "Entries in use.");
    for fill in fills {
        let _ = writeln!(text, "{used}{{table=\"{}\"}} {}", fill.table, fill.used);
    }
    family(&mut text, capacity, "gauge", "Entries that fit.");
    for fill in fills {
        let _ = writeln!(
            text,
            "{capacity}{{table=\"{}\"}} {}",
            fill.table, fill.capacity
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_kube_proxy_could_have() {
        let settings = Settings {
            node_port_addresses: "192.0.2.0/24,fd00::/8".parse().unwrap(),
            metrics_bind_address: Some("127.0.0.1:10249".parse().unwrap()),
            ..Settings::new("node-a")
        };
        let expected = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "hostnameOverride": "node-a",
            "healthzBindAddress": "",
            "metricsBindAddress": "127.0.0.1:10249",
            "nodePortAddresses": ["192.0.2.0/24", "fd00::/8"],
            "mode": "fairlead",
        });
        assert_eq!(config(&settings), expected);
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut status = Status::default();
        for secs in [0.000_3, 0.000_3, 0.02, 60.0] {
            status.latency.observe(secs);
        }
        let text = own(&status);
        for line in [
            "fairlead_proxy_program_duration_seconds_bucket{le=\"0.00025\"} 0",
            "fairlead_proxy_program_duration_seconds_bucket{le=\"0.0005\"} 2",
            "fairlead_proxy_program_duration_seconds_bucket{le=\"0.01\"} 2",
            "fairlead_proxy_program_duration_seconds_bucket{le=\"2.5\"} 3",
            "fairlead_proxy_program_duration_seconds_bucket{le=\"+Inf\"} 4",
            "fairlead_proxy_program_duration_seconds_count 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_counter_and_table_has_a_sample() {
        let counters: Vec<_> = abi::Counter::ALL
            .iter()
            .map(|counter| {
                (
                    *counter,
                    abi::CounterValue {
                        packets: 7,
                        bytes: 9,
                    },
                )
            })
            .collect();
        let fill = Fill {
            table: "RINGS",
            used: 5,
            capacity: 8,
            flag: "",
        };
        let text = of_kernel(&counters, &[fill]);
        for counter in abi::Counter::ALL {
            let sample = format!(
                "fairlead_datapath_packets_total{{what=\"{}\"}} 7",
                counter.label()
            );
            assert!(text.contains(&sample), "{sample}");
        }
        assert!(text.contains("fairlead_table_entries{table=\"RINGS\"} 5\n"));
        assert!(text.contains("fairlead_table_capacity{table=\"RINGS\"} 8\n"));
    }
}
