//! Endpoints of Services, and what leads to them directly.

use std::net::IpAddr;

use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::SRV;

use super::Endpoint;
use super::External;
use super::Found;
use super::Port;
use super::Reached;
use crate::names;

impl External {
    /// What a Service is reached by that is headless and that nothing outside leads to.
    pub(super) fn behind<'r>(&self, reached: &'r Reached) -> Option<&'r [Endpoint]> {
        let direct = self.headless && reached.headless;
        let outside = !reached.addresses.is_empty() || !reached.names.is_empty();
        (direct && !outside).then_some(&reached.endpoints)
    }

    /// The ports of endpoints: no Service translates them, so each endpoint is a target with its own.
    pub(super) fn endpoint_ports(
        &self,
        name: &Name,
        endpoints: &[Endpoint],
        port: Option<(&str, &str)>,
    ) -> Found {
        let labels = if port.is_some() { 2 } else { 0 };
        let service = name.trim_to(names::labels(name).saturating_sub(labels));
        let wanted = |(name, of, _): &&Port| {
            port.is_none_or(|(wanted, protocol)| wanted == name && protocol == of)
        };
        let (mut targets, mut additionals) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            let Ok(target) = service.prepend_label(endpoint.label.as_str()) else {
                continue;
            };
            let ports = endpoint.ports.iter().filter(wanted);
            let before = targets.len();
            targets.extend(ports.map(|(_, _, number)| (target.clone(), *number)));
            if targets.len() > before {
                additionals.extend(self.hosts(&target, &[endpoint.address]));
            }
        }
        // One with an address of each family is one target.
        targets.sort();
        targets.dedup();
        let weight = 100 / u16::try_from(targets.len().max(1)).unwrap_or(u16::MAX);
        let answers: Vec<Record> = targets
            .into_iter()
            .map(|(target, number)| {
                let data = RData::SRV(SRV::new(0, weight.max(1), number, target));
                self.record(name, data)
            })
            .collect();
        match answers.is_empty() {
            true => Found::NoData,
            false => Found::Records(answers, additionals),
        }
    }

    pub(super) fn endpoint(
        &self,
        name: &Name,
        kind: RecordType,
        reached: &Reached,
        label: &str,
    ) -> Found {
        let endpoints = reached.endpoints.iter().filter(|_| self.headless);
        let addresses: Vec<IpAddr> = endpoints
            .filter(|endpoint| endpoint.label == label)
            .map(|endpoint| endpoint.address)
            .collect();
        match addresses.as_slice() {
            [] => Found::Nothing,
            addresses => self.addresses(name, kind, addresses),
        }
    }
}
