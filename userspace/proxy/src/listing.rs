//! What the kernel holds, as rows for `fairlead service list` and `fairlead backend list`.
//!
//! The kernel knows no names. A row carries the service's identifier; who can ask the API server puts names
//! beside it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use abi::{Frontend, backends, frontends};
use plan::{FrontendKey, Tables, text};
use serde::Serialize;

/// A frontend and what answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// Identifier of the service port; its frontends share it.
    pub id: u32,
    /// Where clients connect.
    pub frontend: SocketAddr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// Whether the frontend is an address of this node.
    pub node_port: bool,
    /// Session affinity timeout in seconds; zero means no affinity.
    pub affinity_secs: u32,
    /// What answers, in order of the ring. Empty: connections are refused.
    pub backends: Vec<SocketAddr>,
}

/// A backend and where its connections come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRow {
    /// Its identifier.
    pub id: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// Identifier of the service port that it belongs to.
    pub service: u32,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether a frontend leads to it; otherwise it waits to be removed.
    pub active: bool,
    /// The frontends that lead to it, such as `10.96.0.1:80/TCP`.
    pub frontends: Vec<String>,
}

/// Every frontend, in order of address and port.
#[must_use]
pub fn services(tables: &Tables) -> Vec<ServiceRow> {
    let ports = tables
        .frontends
        .iter()
        .filter(|(key, _)| !key.is_whole_address());
    let row = |(key, frontend): (&FrontendKey, &Frontend)| ServiceRow {
        id: frontend.service,
        frontend: key.socket_addr(),
        protocol: text::protocol_name(key.proto()),
        node_port: frontend.flags & frontends::flags::NODE_PORT != 0,
        affinity_secs: frontend.affinity_secs,
        backends: ring(tables, frontend)
            .filter_map(|id| tables.backends.get(&id).map(text::backend_addr))
            .collect(),
    };
    let mut rows: Vec<ServiceRow> = ports.map(row).collect();
    rows.sort_by_key(|row| (row.frontend, row.protocol));
    rows
}

/// Every backend, in order of service, address and port.
#[must_use]
pub fn backends(tables: &Tables) -> Vec<BackendRow> {
    let mut leading: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (key, frontend) in &tables.frontends {
        for id in ring(tables, frontend) {
            leading.entry(id).or_default().push(key.to_string());
        }
    }
    let mut rows = Vec::with_capacity(tables.backends.len());
    for (id, backend) in &tables.backends {
        let frontends = leading.remove(id).unwrap_or_default();
        rows.push(BackendRow {
            id: *id,
            address: text::backend_addr(backend),
            service: backend.service,
            local: backend.flags & backends::flags::LOCAL != 0,
            active: !frontends.is_empty(),
            frontends,
        });
    }
    rows.sort_by_key(|row| (row.service, row.address));
    rows
}

fn ring<'a>(tables: &'a Tables, frontend: &Frontend) -> impl Iterator<Item = u32> + 'a {
    let end = frontend.ring_offset.saturating_add(frontend.ring_len);
    tables
        .rings
        .range(frontend.ring_offset..end)
        .map(|(_, id)| *id)
}
