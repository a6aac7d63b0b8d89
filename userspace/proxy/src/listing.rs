//! What the kernel holds, as rows for `fairlead service list` and `fairlead backend list`.
//!
//! The kernel knows no names. A row carries the service's identifier; who can ask the API server puts names
//! beside it.

mod policies;
mod translated;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use abi::{Frontend, ServiceId, backends, frontends};
use plan::{FrontendKey, Tables, text};
use serde::Serialize;

pub use policies::{PolicyRow, policies};
pub use translated::translated;

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
    /// What kind of address it is, as far as the tables tell: `ClusterIP`, `NodePort`, or `External` (a load
    /// balancer's, one of externalIPs, a host port).
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether the frontend is an address of this node.
    pub node_port: bool,
    /// Who finds it: `all`, `outside` (clients outside of the cluster) or `host` (the host's own sockets).
    pub clients: &'static str,
    /// The clients that it admits (`loadBalancerSourceRanges`); `None` where it admits all.
    pub source_ranges: Option<Vec<String>>,
    /// Session affinity timeout in seconds; zero means no affinity.
    pub affinity_secs: u32,
    /// How a backend is chosen: `random`, `weighted`, `maglev` or `least-connection`.
    pub balancing: &'static str,
    /// What answers, in order of the ring.
    pub backends: Vec<SocketAddr>,
    /// What becomes of clients while nothing answers: `refused`, or `dropped` where a traffic policy keeps them from
    /// endpoints that there are.
    pub without_backends: &'static str,
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
    /// Sockets of this node that are connected to it, where its service is balanced by that.
    pub connections: u64,
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
    let whole = tables.frontends.keys().filter(|key| key.is_whole_address());
    let cluster_ips: BTreeSet<IpAddr> = whole.map(|key| key.socket_addr().ip()).collect();
    let row = |(key, frontend): (&FrontendKey, &Frontend)| {
        let frontend_addr = key.socket_addr();
        let has = |flag: u32| frontend.flags & flag != 0;
        ServiceRow {
            id: frontend.service,
            frontend: frontend_addr,
            protocol: text::protocol_name(key.proto()),
            kind: if has(frontends::flags::NODE_PORT | frontends::flags::HOST_ONLY) {
                "NodePort"
            } else if cluster_ips.contains(&frontend_addr.ip()) {
                "ClusterIP"
            } else {
                "External"
            },
            node_port: has(frontends::flags::NODE_PORT),
            clients: if has(frontends::flags::HOST_ONLY) {
                "host"
            } else if key.is_for_outside() {
                "outside"
            } else {
                "all"
            },
            source_ranges: has(frontends::flags::CHECK_SOURCE)
                .then(|| source_ranges(tables, frontend.service)),
            affinity_secs: frontend.affinity_secs,
            balancing: balancing(frontend.flags),
            backends: ring(tables, frontend)
                .filter_map(|id| tables.backends.get(&id).map(text::backend_addr))
                .collect(),
            without_backends: if has(frontends::flags::DROP) {
                "dropped"
            } else {
                "refused"
            },
        }
    };
    let mut rows: Vec<ServiceRow> = ports.map(row).collect();
    rows.sort_by_key(|row| (row.frontend, row.protocol, row.clients));
    rows
}

fn source_ranges(tables: &Tables, service: ServiceId) -> Vec<String> {
    let of_service = tables.sources.iter().filter(|key| key.service == service);
    of_service.map(text::source_range).collect()
}

fn balancing(flags: u32) -> &'static str {
    use frontends::flags::{HASHED, LEAST, SPREAD};
    match (flags & HASHED != 0, flags & LEAST != 0, flags & SPREAD != 0) {
        (true, ..) => "maglev",
        (false, true, _) => "least-connection",
        (false, false, true) => "weighted",
        (false, false, false) => "random",
    }
}

/// Every backend, in order of service, address and port; `connections` tells how many each has.
#[must_use]
pub fn backends(tables: &Tables, connections: impl Fn(u32) -> u64) -> Vec<BackendRow> {
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
            connections: connections(*id),
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

#[cfg(test)]
mod tests {
    use abi::{FrontendKey4, Scope, SourceKey};

    use super::*;

    #[test]
    fn a_row_says_what_kind_of_address_it_is_and_for_whom() {
        use frontends::flags::{CHECK_SOURCE, DROP, HOST_ONLY, NODE_PORT};
        let key = |last: u8, proto: u8, scope: Scope| {
            FrontendKey::V4(FrontendKey4 {
                addr: [10, 0, 0, last],
                port: if proto == frontends::WHOLE_ADDRESS {
                    0
                } else {
                    80
                }
                .into(),
                proto,
                scope: scope as u8,
            })
        };
        let cases = [
            (1, Scope::Any, 0, ("ClusterIP", "all", "refused")),
            (2, Scope::Any, NODE_PORT, ("NodePort", "all", "refused")),
            (
                2,
                Scope::External,
                NODE_PORT | DROP,
                ("NodePort", "outside", "dropped"),
            ),
            (3, Scope::Any, HOST_ONLY, ("NodePort", "host", "refused")),
            (4, Scope::Any, CHECK_SOURCE, ("External", "all", "refused")),
        ];
        let mut tables = Tables::default();
        let whole = key(1, frontends::WHOLE_ADDRESS, Scope::Any);
        tables.frontends.insert(whole, Frontend::default());
        tables.sources.insert(SourceKey::v4(4, [192, 0, 2, 0], 24));
        for (last, scope, flags, _) in cases {
            let frontend = Frontend {
                service: last.into(),
                flags,
                ..Frontend::default()
            };
            tables.frontends.insert(key(last, 6, scope), frontend);
        }
        let rows = services(&tables);
        let said: Vec<_> = rows
            .iter()
            .map(|row| (row.kind, row.clients, row.without_backends))
            .collect();
        assert_eq!(said, cases.map(|(_, _, _, said)| said));
        let ranges: Vec<_> = rows.into_iter().map(|row| row.source_ranges).collect();
        let restricted = Some(vec!["192.0.2.0/24".to_owned()]);
        assert_eq!(ranges, [None, None, None, None, restricted]);
    }
}
