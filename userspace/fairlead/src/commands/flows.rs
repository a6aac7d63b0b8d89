//! `fairlead flow list`: the flow tables as the kernel holds them, with names, while they are read.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use abi::{BackendId, ServiceId, flows::flags};
use bpf::{Datapath, Flow};
use plan::text;
use serde::Serialize;

use super::cluster::{Cluster, Names};
use super::filter::{Filter, Seen};
use crate::cli::FlowListing;
use crate::output::{Pages, Row};

pub(crate) fn run(flags: &FlowListing) -> anyhow::Result<()> {
    let listing = &flags.listing;
    let view = Datapath::inspect(&listing.bpffs.bpffs_root)?;
    let tables = view.observe()?;
    let known = Known {
        names: Cluster::read_if_told(listing.kubeconfig.as_deref()).names(&tables),
        owners: tables
            .backends
            .into_iter()
            .map(|(id, backend)| (id, backend.service))
            .collect(),
        now_secs: bpf::now_secs(),
    };
    let filter = Filter::new(&flags.filter, &known.names)?;
    let mut pages = Pages::new(listing.output.output);
    let mut written = Ok(true);
    view.walk_flows(|flows| {
        for flow in flows {
            let row = known.row(&Entry::from(flow));
            if filter.shows(row.seen()) {
                written = pages.push(row);
            }
            if !matches!(written, Ok(true)) {
                return false;
            }
        }
        true
    })?;
    written?;
    pages.finish()
}

/// An entry of either family's table.
struct Entry {
    protocol: u8,
    from: [SocketAddr; 2],
    to: [SocketAddr; 2],
    service: ServiceId,
    backend: BackendId,
    last_seen_secs: u32,
    flags: u32,
}

impl From<Flow> for Entry {
    fn from(flow: Flow) -> Self {
        macro_rules! entry {
            ($flow:expr, $state:expr) => {{
                let end = |addr, port: u16| SocketAddr::new(IpAddr::from(addr), port);
                Entry {
                    protocol: $flow.proto,
                    from: [
                        end($flow.saddr, $flow.sport.get()),
                        end($flow.daddr, $flow.dport.get()),
                    ],
                    to: [
                        end($state.to.saddr, $state.to.sport.get()),
                        end($state.to.daddr, $state.to.dport.get()),
                    ],
                    service: $state.service,
                    backend: $state.backend,
                    last_seen_secs: $state.last_seen_secs,
                    flags: $state.flags,
                }
            }};
        }
        match flow {
            Flow::V4(flow, state) => entry!(flow, state),
            Flow::V6(flow, state) => entry!(flow, state),
        }
    }
}

/// What makes rows of entries.
struct Known {
    names: Names,
    /// Which service each backend belongs to.
    owners: BTreeMap<BackendId, ServiceId>,
    now_secs: u32,
}

impl Known {
    fn row(&self, entry: &Entry) -> FlowRow {
        let is_reply = entry.flags & flags::REPLY != 0;
        let ([source, destination], [new_source, new_destination]) = (entry.from, entry.to);
        let (client, backend) = if is_reply {
            (new_destination, source)
        } else {
            (source, new_destination)
        };
        let name = |end: SocketAddr| self.names.address(end.ip()).map(str::to_owned);
        FlowRow {
            direction: if is_reply { "reply" } else { "forward" },
            protocol: protocol(entry.protocol),
            source,
            destination,
            becomes_source: new_source,
            becomes_destination: new_destination,
            service: entry.service,
            service_name: self.names.service(entry.service).map(str::to_owned),
            client: name(client),
            backend: entry.backend,
            backend_address: backend,
            backend_name: name(backend),
            source_translated: entry.flags & flags::SNAT != 0,
            tunnelled: entry.flags & flags::TUNNELLED != 0,
            state: self.state(entry),
            idle_secs: self.now_secs.saturating_sub(entry.last_seen_secs),
            protocol_number: entry.protocol,
        }
    }

    fn state(&self, entry: &Entry) -> &'static str {
        if entry.flags & flags::CLOSING != 0 {
            "closing"
        } else if entry.service == 0 && entry.flags & flags::SNAT != 0 {
            // A pod's with somebody outside of the cluster.
            "masqueraded"
        } else if entry.service == 0 {
            // Kept only so that its answers are not taken for those of a service's flow.
            "direct"
        } else if entry.backend != 0 && self.owners.get(&entry.backend) != Some(&entry.service) {
            "orphaned"
        } else {
            "open"
        }
    }
}

fn protocol(number: u8) -> String {
    match (number, text::protocol_name(number)) {
        (1, _) => "ICMP".to_owned(),
        (58, _) => "ICMPv6".to_owned(),
        (_, "?") => number.to_string(),
        (_, name) => name.to_owned(),
    }
}

/// One direction of a flow.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct FlowRow {
    source: SocketAddr,
    destination: SocketAddr,
    /// `forward`: what the client sends. `reply`: what the backend does.
    direction: &'static str,
    protocol: String,
    becomes_source: SocketAddr,
    becomes_destination: SocketAddr,
    /// Zero for a conversation with a backend itself.
    service: ServiceId,
    service_name: Option<String>,
    /// Who the client is, where its address has a name.
    client: Option<String>,
    backend: BackendId,
    backend_address: SocketAddr,
    backend_name: Option<String>,
    /// Whether the backend sees this node's address.
    source_translated: bool,
    /// It goes to the backend's node as it came; the answers go another way.
    tunnelled: bool,
    /// `open`; `closing` once a FIN or RST passed; `orphaned` where the backend is no longer the service's; `direct`;
    /// `masqueraded`.
    state: &'static str,
    /// Seconds since a packet passed in this direction.
    idle_secs: u32,
    #[serde(skip)]
    protocol_number: u8,
}

impl FlowRow {
    fn seen(&self) -> Seen {
        Seen {
            service: self.service,
            protocol: self.protocol_number,
            ends: [
                self.source,
                self.destination,
                self.becomes_source,
                self.becomes_destination,
            ],
        }
    }
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
        "CLIENT",
        "BACKEND",
        "STATE",
        "IDLE",
    ];

    fn cells(&self) -> Vec<String> {
        let or = |name: &Option<String>, other: String| name.clone().unwrap_or(other);
        let service = match self.service {
            0 => "-".to_owned(),
            id => or(&self.service_name, id.to_string()),
        };
        vec![
            self.direction.to_owned(),
            self.protocol.clone(),
            self.source.to_string(),
            self.destination.to_string(),
            self.becomes_source.to_string(),
            self.becomes_destination.to_string(),
            service,
            or(&self.client, "-".to_owned()),
            or(&self.backend_name, self.backend_address.to_string()),
            self.state.to_owned(),
            duration(self.idle_secs),
        ]
    }
}

/// Seconds as people say them: `59s`, `3m20s`, `2h5m`, `3d4h`.
fn duration(secs: u32) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (hours, rest) = (rest / 3_600, rest % 3_600);
    let (minutes, secs) = (rest / 60, rest % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, _) => format!("{minutes}m{secs}s"),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(flags: u32, service: u32, backend: u32) -> Entry {
        let end = |text: &str| text.parse().unwrap();
        Entry {
            protocol: 6,
            from: [end("10.244.0.9:4000"), end("10.96.0.1:80")],
            to: [end("10.244.0.9:4000"), end("10.244.0.1:8080")],
            service,
            backend,
            last_seen_secs: 90,
            flags,
        }
    }

    #[test]
    fn an_entry_says_what_state_its_flow_is_in() {
        let known = Known {
            names: Names::default(),
            owners: BTreeMap::from([(7, 1), (8, 2)]),
            now_secs: 100,
        };
        for (flags, service, backend, state) in [
            (0, 1, 7, "open"),
            (flags::CLOSING, 1, 7, "closing"),
            (flags::SNAT, 1, 8, "orphaned"),
            (0, 1, 9, "orphaned"),
            (0, 0, 0, "direct"),
            (flags::SNAT, 0, 0, "masqueraded"),
            // A query that goes to this node's own DNS.
            (0, 1, 0, "open"),
        ] {
            let row = known.row(&entry(flags, service, backend));
            assert_eq!((row.state, row.idle_secs), (state, 10));
        }
        let row = known.row(&entry(0, 1, 7));
        assert_eq!(row.backend_address, "10.244.0.1:8080".parse().unwrap());
        let reply = Entry {
            from: [row.backend_address, row.source],
            to: [row.destination, row.source],
            flags: flags::REPLY,
            ..entry(0, 1, 7)
        };
        let reply = known.row(&reply);
        assert_eq!(
            (reply.direction, reply.backend_address),
            ("reply", row.backend_address)
        );
    }

    #[test]
    fn durations_are_short() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (200, "3m20s"),
            (7_500, "2h5m"),
            (273_600, "3d4h"),
        ] {
            assert_eq!(duration(secs), text);
        }
    }

    #[test]
    fn a_client_of_an_unnamed_address_is_a_dash() {
        let known = Known {
            names: Names::default(),
            owners: BTreeMap::new(),
            now_secs: 0,
        };
        let cells = known.row(&entry(0, 3, 7)).cells();
        assert_eq!(cells.len(), FlowRow::HEADER.len());
        assert_eq!(cells[6..9], ["3", "-", "10.244.0.1:8080"]);
    }
}
