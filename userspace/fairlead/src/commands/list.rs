//! `fairlead service list`, `backend list`, `flow list`: what the kernel holds, read from the pins.

use std::fmt::Display;

use bpf::{Datapath, Flow};
use proxy::listing::{self, BackendRow, ServiceRow};
use serde::Serialize;

use super::names;
use crate::cli::Listing;
use crate::output::{self, Row};

/// As many flows as are shown at most.
const FLOWS_MAX: usize = 100_000;

pub(crate) fn services(flags: &Listing) -> anyhow::Result<()> {
    let tables = Datapath::inspect(&flags.bpffs.bpffs_root)?.observe()?;
    let rows = listing::services(&tables);
    let names = names::of(&rows, flags.kubeconfig.as_deref());
    let named = rows.into_iter().map(|row| NamedService {
        name: names.get(&row.id).cloned(),
        row,
    });
    output::rows(&named.collect::<Vec<_>>(), flags.output.output)
}

pub(crate) fn backends(flags: &Listing) -> anyhow::Result<()> {
    let tables = Datapath::inspect(&flags.bpffs.bpffs_root)?.observe()?;
    let names = names::of(&listing::services(&tables), flags.kubeconfig.as_deref());
    let named = listing::backends(&tables)
        .into_iter()
        .map(|row| NamedBackend {
            name: names.get(&row.service).cloned(),
            row,
        });
    output::rows(&named.collect::<Vec<_>>(), flags.output.output)
}

pub(crate) fn flows(flags: &Listing) -> anyhow::Result<()> {
    let flows = Datapath::inspect(&flags.bpffs.bpffs_root)?.flows(FLOWS_MAX)?;
    let mut rows: Vec<FlowRow> = flows.iter().map(FlowRow::from).collect();
    rows.sort_by(|a, b| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)));
    output::rows(&rows, flags.output.output)
}

/// A frontend as the kernel holds it, and what the API calls it.
#[derive(Serialize)]
struct NamedService {
    name: Option<String>,
    #[serde(flatten)]
    row: ServiceRow,
}

impl Row for NamedService {
    const HEADER: &'static [&'static str] = &[
        "ID", "SERVICE", "FRONTEND", "PROTO", "TYPE", "AFFINITY", "BACKENDS",
    ];

    fn cells(&self) -> Vec<String> {
        let row = &self.row;
        let kind = if row.node_port {
            "NodePort"
        } else {
            "ClusterIP"
        };
        vec![
            row.id.to_string(),
            self.name.clone().unwrap_or_else(|| "-".to_owned()),
            row.frontend.to_string(),
            row.protocol.to_owned(),
            kind.to_owned(),
            match row.affinity_secs {
                0 => "-".to_owned(),
                secs => format!("{secs}s"),
            },
            joined(&row.backends, "<none: refused>"),
        ]
    }
}

/// A backend as the kernel holds it, and what the API calls its service.
#[derive(Serialize)]
struct NamedBackend {
    name: Option<String>,
    #[serde(flatten)]
    row: BackendRow,
}

impl Row for NamedBackend {
    const HEADER: &'static [&'static str] =
        &["ID", "ADDRESS", "SERVICE", "LOCAL", "ACTIVE", "FRONTENDS"];

    fn cells(&self) -> Vec<String> {
        let row = &self.row;
        vec![
            row.id.to_string(),
            row.address.to_string(),
            self.name.clone().unwrap_or_else(|| row.service.to_string()),
            row.local.to_string(),
            row.active.to_string(),
            joined(&row.frontends, "<none>"),
        ]
    }
}

fn joined<T: Display>(items: &[T], none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(",")
}

/// One direction of a flow.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FlowRow {
    direction: &'static str,
    protocol: u8,
    source: String,
    destination: String,
    becomes_source: String,
    becomes_destination: String,
    service: u32,
    backend: u32,
    /// Seconds since boot.
    last_seen_secs: u32,
}

impl Row for FlowRow {
    const HEADER: &'static [&'static str] = &[
        "DIRECTION",
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "BECOMES SOURCE",
        "BECOMES DESTINATION",
        "SERVICE",
        "BACKEND",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.direction.to_owned(),
            self.protocol.to_string(),
            self.source.clone(),
            self.destination.clone(),
            self.becomes_source.clone(),
            self.becomes_destination.clone(),
            self.service.to_string(),
            self.backend.to_string(),
        ]
    }
}

macro_rules! flow_row {
    ($flow:expr, $state:expr) => {{
        let end = |addr, port: u16| {
            std::net::SocketAddr::new(std::net::IpAddr::from(addr), port).to_string()
        };
        FlowRow {
            direction: if $state.flags & abi::flows::flags::REPLY == 0 {
                "forward"
            } else {
                "reply"
            },
            protocol: $flow.proto,
            source: end($flow.saddr, $flow.sport.get()),
            destination: end($flow.daddr, $flow.dport.get()),
            becomes_source: end($state.to.saddr, $state.to.sport.get()),
            becomes_destination: end($state.to.daddr, $state.to.dport.get()),
            service: $state.service,
            backend: $state.backend,
            last_seen_secs: $state.last_seen_secs,
        }
    }};
}

impl From<&Flow> for FlowRow {
    fn from(flow: &Flow) -> Self {
        match flow {
            Flow::V4(flow, state) => flow_row!(flow, state),
            Flow::V6(flow, state) => flow_row!(flow, state),
        }
    }
}
