//! What other plugins of the block ask `kubernetes`: zones to transfer, search paths of clients, and how Services
//! are reached from outside.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, Restrict};
use tokio::sync::watch;
use zone::External;

use super::Kubernetes;
use crate::names;
use crate::plugin::autopath::SearchPath;
use crate::plugin::k8s_external::{Endpoint, Outside, Reached};
use crate::plugin::transfer;

impl transfer::Source for Kubernetes {
    fn records(&self, zone: &Name) -> Option<Vec<Record>> {
        let zone = zone::Name::from_wire(&names::wire(zone))?;
        let config = &self.source.config;
        if !config.zones.contains(&zone) {
            return None;
        }
        let snapshot = self.source.cluster.snapshot();
        if !snapshot.synced() {
            return None;
        }
        let soa = std::iter::once(snapshot.soa(config, &zone));
        let all = soa.chain(snapshot.records(config, &zone));
        all.map(|record| to_record(&record)).collect()
    }

    fn serial(&self, zone: &Name) -> Option<u32> {
        let zone = zone::Name::from_wire(&names::wire(zone))?;
        let snapshot = self.source.cluster.snapshot();
        let has_zone = self.source.config.zones.contains(&zone) && snapshot.synced();
        has_zone.then(|| snapshot.serial())
    }

    fn changing(&self) -> Option<transfer::Changing> {
        let zones = self.source.config.zones.iter();
        let read = |zone: &zone::Name| Name::read(&mut BinDecoder::new(zone.wire())).ok();
        Some(transfer::Changing {
            zones: zones.filter_map(read).collect(),
            changes: self.source.cluster.changes(),
        })
    }
}

impl SearchPath for Kubernetes {
    fn search_path(&self, client: std::net::IpAddr) -> Option<Vec<Name>> {
        let snapshot = self.source.cluster.snapshot();
        let [pod, ..] = snapshot.pods(client) else {
            return None;
        };
        let zone = self.source.config.primary()?;
        let suffixes = [
            format!("{}.svc.{zone}", pod.namespace),
            format!("svc.{zone}"),
            zone.to_string(),
        ];
        let cluster = suffixes.iter().map(|text| names::parse(text).ok());
        let node = self.node_search.iter().cloned().map(Some);
        cluster.chain(node).collect()
    }
}

/// A record of a zone as the library has it.
pub(super) fn to_record(record: &zone::Record) -> Option<Record> {
    let owner = Name::read(&mut BinDecoder::new(&record.owner)).ok()?;
    let rtype = RecordType::from(record.rtype);
    let mut decoder = BinDecoder::new(&record.data);
    let length = u16::try_from(record.data.len()).ok()?;
    let data = RData::read(&mut decoder, rtype, Restrict::new(length)).ok()?;
    Some(Record::from_rdata(owner, record.ttl, data))
}

impl Outside for Kubernetes {
    fn synced(&self) -> bool {
        self.source.cluster.snapshot().synced()
    }

    fn serial(&self) -> u32 {
        self.source.cluster.snapshot().serial()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.source.cluster.changes()
    }

    fn namespace(&self, name: &str) -> bool {
        self.exposes(name) && self.source.cluster.snapshot().namespace(name)
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Reached> {
        if !self.exposes(namespace) {
            return None;
        }
        let service = self.source.cluster.snapshot().service(namespace, name)?;
        let mut reached = Reached::default();
        for place in service.external() {
            match place {
                External::Address(address) => reached.addresses.push(*address),
                External::Name(name) => {
                    let name = Name::read(&mut BinDecoder::new(name.wire()));
                    reached.names.extend(name);
                }
            }
        }
        let owned = |(name, protocol, number): (&str, &str, u16)| {
            (name.to_owned(), protocol.to_owned(), number)
        };
        reached.ports = service.ports().map(owned).collect();
        reached.headless = service.headless();
        let hosts = service.hosts().map(|(label, address, ports)| Endpoint {
            label,
            address,
            ports: ports.map(owned).collect(),
        });
        reached.endpoints = hosts.collect();
        Some(reached)
    }

    fn services(&self) -> Vec<(String, String)> {
        let snapshot = self.source.cluster.snapshot();
        let exposed = |(namespace, _): &(String, String)| self.exposes(namespace);
        snapshot.service_names().filter(exposed).collect()
    }

    fn owners(&self, address: IpAddr) -> Vec<(String, String)> {
        let snapshot = self.source.cluster.snapshot();
        let mut owners = snapshot.external_owners(address);
        owners.retain(|(namespace, _)| self.exposes(namespace));
        owners
    }
}

impl Kubernetes {
    fn exposes(&self, namespace: &str) -> bool {
        let label = namespace.to_ascii_lowercase();
        let snapshot = self.source.cluster.snapshot();
        snapshot.exposes(&self.source.config, label.as_bytes())
    }
}
