//! Zones as lists of their records, for `transfer`.

use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::NS;

use super::External;
use super::Found;
use super::Outside;
use super::Port;
use super::Reached;
use crate::names;
use crate::plugin::transfer;

impl transfer::Source for External {
    fn records(&self, zone: &Name) -> Option<Vec<Record>> {
        let cluster = self.of_zone(zone)?;
        let server = self.server(zone);
        let mut records = vec![
            self.soa(cluster, zone),
            self.record(zone, RData::NS(NS(server.clone()))),
        ];
        records.extend(self.hosts(&server, &crate::interface::all()));
        for (namespace, service) in cluster.services() {
            let reached = cluster.service(&namespace, &service);
            let name = names::parse(&format!("{service}.{namespace}"))
                .and_then(|name| name.append_domain(zone).map_err(|error| error.to_string()));
            if let (Some(reached), Ok(name)) = (reached, name) {
                self.list(&name, &reached, &mut records);
            }
        }
        Some(records)
    }

    fn serial(&self, zone: &Name) -> Option<u32> {
        self.of_zone(zone).map(Outside::serial)
    }

    fn changing(&self) -> Option<transfer::Changing> {
        Some(transfer::Changing {
            zones: self.zones.clone(),
            changes: self.cluster.get()?.changes(),
        })
    }
}

impl External {
    /// The cluster, if the zone is one of ours that names Services.
    fn of_zone(&self, zone: &Name) -> Option<&dyn Outside> {
        let ours = self.zones.contains(zone) && zone.parse_arpa_name().is_err();
        let cluster = self.cluster.get().filter(|_| ours)?;
        cluster.synced().then_some(&**cluster)
    }

    /// Adds what questions about a Service are answered with.
    fn list(&self, name: &Name, reached: &Reached, records: &mut Vec<Record>) {
        let mut add = |found: Found| {
            if let Found::Records(answers, _) = found {
                records.extend(answers);
            }
        };
        match reached.names.is_empty() || !reached.addresses.is_empty() {
            true => {
                add(self.service(name, RecordType::A, reached, None));
                add(self.service(name, RecordType::AAAA, reached, None));
            }
            false => add(self.service(name, RecordType::CNAME, reached, None)),
        }
        let mut ports: Vec<(&str, &str)> = match self.behind(reached) {
            Some(endpoints) => endpoints
                .iter()
                .flat_map(|one| &one.ports)
                .map(named)
                .collect(),
            None => reached.ports.iter().map(named).collect(),
        };
        ports.retain(|(port, _)| !port.is_empty());
        ports.sort_unstable();
        ports.dedup();
        for (port, protocol) in ports {
            let below = |name: &Name, label: &str| name.prepend_label(format!("_{label}").as_str());
            let owner = below(name, protocol).and_then(|name| below(&name, port));
            if let Ok(owner) = owner {
                add(self.service(&owner, RecordType::SRV, reached, Some((port, protocol))));
            }
        }
        for endpoint in reached.endpoints.iter().filter(|_| self.headless) {
            if let Ok(owner) = name.prepend_label(endpoint.label.as_str()) {
                add(self.addresses(&owner, RecordType::A, &[endpoint.address]));
                add(self.addresses(&owner, RecordType::AAAA, &[endpoint.address]));
            }
        }
    }
}

/// Name and protocol of a port.
fn named((name, protocol, _): &Port) -> (&str, &str) {
    (name, protocol)
}
