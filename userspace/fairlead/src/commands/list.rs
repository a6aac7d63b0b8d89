//! `fairlead service list`, `backend list`: what the kernel holds, read from the pins.

use std::fmt::Display;

use bpf::Datapath;
use proxy::listing::{self, BackendRow, ServiceRow};
use serde::Serialize;

use super::cluster::Cluster;
use crate::cli::Listing;
use crate::output::{self, Row};

pub(crate) fn services(flags: &Listing) -> anyhow::Result<()> {
    let tables = Datapath::inspect(&flags.bpffs.bpffs_root)?.observe()?;
    let rows = listing::services(&tables);
    let names = Cluster::read_if_told(flags.kubeconfig.as_deref()).names_of(&rows);
    let named = rows.into_iter().map(|row| NamedService {
        name: names.service(row.id).map(str::to_owned),
        row,
    });
    output::rows(&named.collect::<Vec<_>>(), flags.output.output)
}

pub(crate) fn backends(flags: &Listing) -> anyhow::Result<()> {
    let view = Datapath::inspect(&flags.bpffs.bpffs_root)?;
    let tables = view.observe()?;
    let names = Cluster::read_if_told(flags.kubeconfig.as_deref()).names(&tables);
    let named = listing::backends(&tables, |id| view.connections(id))
        .into_iter()
        .map(|row| NamedBackend {
            name: names.service(row.service).map(str::to_owned),
            pod: names.address(row.address.ip()).map(str::to_owned),
            row,
        });
    output::rows(&named.collect::<Vec<_>>(), flags.output.output)
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
        "ID",
        "SERVICE",
        "FRONTEND",
        "PROTO",
        "TYPE",
        "BALANCING",
        "AFFINITY",
        "BACKENDS",
        "CLIENTS",
    ];

    fn cells(&self) -> Vec<String> {
        let row = &self.row;
        let none = format!("<none: {}>", row.without_backends);
        vec![
            row.id.to_string(),
            self.name.clone().unwrap_or_else(|| "-".to_owned()),
            row.frontend.to_string(),
            row.protocol.to_owned(),
            row.kind.to_owned(),
            row.balancing.to_owned(),
            match row.affinity_secs {
                0 => "-".to_owned(),
                secs => format!("{secs}s"),
            },
            joined(&row.backends, &none),
            match &row.source_ranges {
                None => row.clients.to_owned(),
                Some(ranges) => joined(ranges, "none"),
            },
        ]
    }
}

/// A backend as the kernel holds it, and what the API calls its service and whoever has its address.
#[derive(Serialize)]
struct NamedBackend {
    name: Option<String>,
    pod: Option<String>,
    #[serde(flatten)]
    row: BackendRow,
}

impl Row for NamedBackend {
    const HEADER: &'static [&'static str] = &[
        "ID",
        "ADDRESS",
        "SERVICE",
        "LOCAL",
        "ACTIVE",
        "POD",
        "CONNECTIONS",
        "FRONTENDS",
    ];

    fn cells(&self) -> Vec<String> {
        let row = &self.row;
        vec![
            row.id.to_string(),
            row.address.to_string(),
            self.name.clone().unwrap_or_else(|| row.service.to_string()),
            row.local.to_string(),
            row.active.to_string(),
            self.pod.clone().unwrap_or_else(|| "-".to_owned()),
            row.connections.to_string(),
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
