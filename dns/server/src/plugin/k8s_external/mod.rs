//! `k8s_external`: names of Services as they are reached from outside the cluster: addresses of load balancers,
//! external addresses, and with `headless` the addresses of endpoints.

mod endpoints;
mod listing;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::rdata::NS;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::rdata::SRV;
use tokio::sync::watch;

use super::Next;
use super::Plugin;
use super::setup::Fallthrough;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use super::transfer;
use crate::message::Failure;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::names;

/// The plugin's word.
const NAME: &str = "k8s_external";

/// What the plugin asks `kubernetes` of the same block.
pub trait Outside: Send + Sync {
    /// False until everything that exists was heard of once.
    fn synced(&self) -> bool;

    /// Grows with every change.
    fn serial(&self) -> u32;

    /// Counts what may change them.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether a namespace exists.
    fn namespace(&self, name: &str) -> bool;

    /// A Service of a namespace.
    fn service(&self, namespace: &str, name: &str) -> Option<Reached>;

    /// Namespaces and names of all Services.
    fn services(&self) -> Vec<(String, String)>;

    /// Namespaces and names of the Services that have the address outside.
    fn owners(&self, address: IpAddr) -> Vec<(String, String)>;
}

/// How a Service is reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Addresses of load balancers, and those that users gave.
    pub addresses: Vec<IpAddr>,
    /// Names of load balancers.
    pub names: Vec<Name>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// True if it has no address of its own.
    pub headless: bool,
    /// What is behind it.
    pub endpoints: Vec<Endpoint>,
}

/// Name, protocol in lower case, and number of a port.
pub type Port = (String, String, u16);

/// An endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name below the Service's.
    pub label: String,
    /// Where it is.
    pub address: IpAddr,
    /// Its own ports, which are not the Service's.
    pub ports: Vec<Port>,
}

/// Where `kubernetes`, which is set up later, leaves itself.
pub type Place = Arc<OnceLock<Arc<dyn Outside>>>;

struct External {
    zones: Vec<Name>,
    /// The label below a zone where its own servers are named.
    apex: String,
    ttl: u32,
    headless: bool,
    fallthrough: Fallthrough,
    cluster: Place,
}

/// What the cluster says to a question.
enum Found {
    Records(Vec<Record>, Vec<Record>),
    NoData,
    Nothing,
}

/// Reads `k8s_external [ZONE...] { apex LABEL; ttl N; headless; fallthrough [ZONE...] }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let mut external = External {
        zones: setup.zones_of(&line.args)?,
        apex: "dns".to_owned(),
        ttl: 5,
        headless: false,
        fallthrough: Fallthrough::Never,
        cluster: Arc::clone(&setup.draft.outside),
    };
    for option in &line.block {
        match option.name.text.as_str() {
            "apex" => {
                let [label] = option.exactly()?;
                let valid = names::parse(&label.text).is_ok_and(|name| names::labels(&name) == 1);
                if !valid {
                    return Err(label.error(
                        format!("{NAME}: {:?} is not one label", label.text),
                        "write a label such as dns",
                    ));
                }
                external.apex = label.text.to_ascii_lowercase();
            }
            "ttl" => external.ttl = option.exactly::<1>()?[0].number(0, 3600)?,
            "headless" => external.headless = option.exactly::<0>().map(|_| true)?,
            "fallthrough" => external.fallthrough = Fallthrough::read(option)?,
            _ => return Err(option.unknown(NAME, &["apex", "fallthrough", "headless", "ttl"])),
        }
    }
    let external = Arc::new(external);
    setup
        .draft
        .source(Arc::clone(&external) as Arc<dyn transfer::Source>);
    Ok(Some(external))
}

impl Plugin for External {
    fn name(&self) -> &'static str {
        NAME
    }

    fn holds(&self, request: &Request) -> bool {
        matching(&self.zones, request.name()).is_some() && !self.fallthrough.covers(request.name())
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let zone =
            matching(&self.zones, request.name()).filter(|_| request.class() == DNSClass::IN);
        let (Some(zone), Some(cluster)) = (zone, self.cluster.get()) else {
            return next.serve(request);
        };
        if !cluster.synced() {
            return Box::pin(async {
                Err(Failure::new(NAME, "the cluster's names are not known yet"))
            });
        }
        let found = self.find(&**cluster, zone, request);
        if matches!(found, Found::Nothing) && self.fallthrough.covers(request.name()) {
            return next.serve(request);
        }
        Box::pin(async move {
            let mut message = request.reply(ResponseCode::NoError);
            message.metadata.authoritative = true;
            match found {
                Found::Records(answers, additionals) => {
                    message.answers = answers;
                    message.additionals = additionals;
                }
                Found::NoData => {
                    message.add_authority(self.soa(&**cluster, zone));
                }
                Found::Nothing => {
                    message.metadata.response_code = ResponseCode::NXDomain;
                    message.add_authority(self.soa(&**cluster, zone));
                }
            }
            if let Some(target) = alias(request, &message) {
                super::file::follow(request, target, &mut message).await;
            }
            let outcome = Outcome::answer(NAME, message);
            Ok(match service_of(zone, request.name()) {
                Some(service) => outcome.of(request, || service),
                None => outcome,
            })
        })
    }
}

/// Namespace and name of the Service that a name is about.
fn service_of(zone: &Name, name: &Name) -> Option<String> {
    let below = names::labels(name).checked_sub(names::labels(zone))?;
    let service = name.iter().nth(below.checked_sub(2)?)?;
    let namespace = name.iter().nth(below.checked_sub(1)?)?;
    let text = |label| String::from_utf8_lossy(label).to_lowercase();
    Some(format!("Service {}/{}", text(namespace), text(service)))
}

/// What the answer's only record is another name for, where that was not asked for itself.
fn alias(request: &Request, message: &Message) -> Option<Name> {
    match message.answers.as_slice() {
        [
            Record {
                data: RData::CNAME(target),
                ..
            },
        ] if request.kind() != RecordType::CNAME => Some(target.0.clone()),
        _ => None,
    }
}

impl External {
    fn find(&self, cluster: &dyn Outside, zone: &Name, request: &Request) -> Found {
        let (name, kind) = (request.name(), request.kind());
        let labels: Vec<String> = name
            .iter()
            .take(names::labels(name).saturating_sub(names::labels(zone)))
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        if let Some(address) = names::address_of_reverse(name) {
            return self.reverse(cluster, name, kind, address);
        }
        match labels.as_slice() {
            [] => match kind {
                RecordType::SOA => Found::Records(vec![self.soa(cluster, zone)], Vec::new()),
                RecordType::NS => {
                    let server = self.server(zone);
                    let record = self.record(name, RData::NS(NS(server.clone())));
                    Found::Records(vec![record], self.servers(&server, request))
                }
                _ => Found::NoData,
            },
            [apex] if *apex == self.apex => Found::NoData,
            ["ns1", apex] if *apex == self.apex => {
                self.addresses(name, kind, &[request.local.ip().to_canonical()])
            }
            [.., apex] if *apex == self.apex => Found::Nothing,
            [namespace] if cluster.namespace(namespace) => Found::NoData,
            [service, namespace] => match cluster.service(namespace, service) {
                Some(reached) => self.service(name, kind, &reached, None),
                None => Found::Nothing,
            },
            [endpoint, service, namespace] => match cluster.service(namespace, service) {
                Some(reached) => self.endpoint(name, kind, &reached, endpoint),
                None => Found::Nothing,
            },
            [port, protocol, service, namespace] => match cluster.service(namespace, service) {
                Some(reached) => {
                    let part = |label: &str| label.strip_prefix('_').unwrap_or(label).to_owned();
                    let (port, protocol) = (part(port), part(protocol));
                    let is = |(name, of, _): &Port| *name == port && *of == protocol;
                    let known = match self.behind(&reached) {
                        Some(endpoints) => endpoints.iter().flat_map(|one| &one.ports).any(is),
                        None => reached.ports.iter().any(is),
                    };
                    match known {
                        true => self.service(name, kind, &reached, Some((&port, &protocol))),
                        false => Found::Nothing,
                    }
                }
                None => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    fn service(
        &self,
        name: &Name,
        kind: RecordType,
        reached: &Reached,
        port: Option<(&str, &str)>,
    ) -> Found {
        let endpoints = self.behind(reached);
        let addresses: Vec<IpAddr> = match endpoints {
            Some(endpoints) => endpoints.iter().map(|one| one.address).collect(),
            None => reached.addresses.clone(),
        };
        if addresses.is_empty() && reached.names.is_empty() {
            // Not reached from outside: it has no name there.
            return Found::Nothing;
        }
        if kind == RecordType::SRV {
            return match endpoints {
                Some(endpoints) => self.endpoint_ports(name, endpoints, port),
                None => self.ports(name, reached, &addresses, port),
            };
        }
        let wanted = self.addresses(name, kind, &addresses);
        match (&wanted, reached.names.first()) {
            // A name beside addresses cannot be an alias: aliases stand alone (RFC 1034, 3.6.2).
            (Found::NoData, Some(target))
                if addresses.is_empty()
                    && matches!(kind, RecordType::A | RecordType::AAAA | RecordType::CNAME) =>
            {
                let alias = RData::CNAME(CNAME(target.clone()));
                Found::Records(vec![self.record(name, alias)], Vec::new())
            }
            _ => wanted,
        }
    }

    fn ports(
        &self,
        name: &Name,
        reached: &Reached,
        addresses: &[IpAddr],
        port: Option<(&str, &str)>,
    ) -> Found {
        let labels = if port.is_some() { 2 } else { 0 };
        let host = name.trim_to(names::labels(name).saturating_sub(labels));
        let targets: Vec<Name> = if addresses.is_empty() {
            reached.names.clone()
        } else {
            vec![host.clone()]
        };
        let mut answers = Vec::new();
        for (_, _, number) in reached.ports.iter().filter(|(port_name, protocol, _)| {
            port.is_none_or(|(wanted, of)| wanted == port_name && of == protocol)
        }) {
            for target in &targets {
                let data = RData::SRV(SRV::new(0, 100, *number, target.clone()));
                answers.push(self.record(name, data));
            }
        }
        if answers.is_empty() {
            return Found::NoData;
        }
        Found::Records(answers, self.hosts(&host, addresses))
    }

    fn reverse(
        &self,
        cluster: &dyn Outside,
        name: &Name,
        kind: RecordType,
        address: IpAddr,
    ) -> Found {
        let owners = cluster.owners(address);
        let forward = self
            .zones
            .iter()
            .find(|zone| zone.parse_arpa_name().is_err());
        let Some(zone) = forward.filter(|_| !owners.is_empty()) else {
            return Found::Nothing;
        };
        if kind != RecordType::PTR {
            return Found::NoData;
        }
        let names = owners.iter().filter_map(|(namespace, service)| {
            let name = names::parse(&format!("{service}.{namespace}")).ok()?;
            name.append_domain(zone).ok()
        });
        Found::Records(
            names
                .map(|target| self.record(name, RData::PTR(PTR(target))))
                .collect(),
            Vec::new(),
        )
    }

    /// The records of the addresses of the type's family.
    fn addresses(&self, name: &Name, kind: RecordType, addresses: &[IpAddr]) -> Found {
        let mut records = self.hosts(name, addresses);
        records.retain(|record| record.record_type() == kind);
        match records.is_empty() {
            true => Found::NoData,
            false => Found::Records(records, Vec::new()),
        }
    }

    fn hosts(&self, name: &Name, addresses: &[IpAddr]) -> Vec<Record> {
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        let data = addresses.into_iter().map(|address| match address {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        });
        data.map(|data| self.record(name, data)).collect()
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.ttl, data)
    }

    fn server(&self, zone: &Name) -> Name {
        self.below(zone, "ns1")
    }

    /// This server's address, as the client knows it.
    fn servers(&self, server: &Name, request: &Request) -> Vec<Record> {
        self.hosts(server, &[request.local.ip().to_canonical()])
    }

    fn below(&self, zone: &Name, label: &str) -> Name {
        let apex = zone.prepend_label(self.apex.as_str());
        let name = apex.and_then(|apex| apex.prepend_label(label));
        name.unwrap_or_else(|_| zone.clone())
    }

    fn soa(&self, cluster: &dyn Outside, zone: &Name) -> Record {
        let soa = SOA::new(
            self.server(zone),
            self.below(zone, "hostmaster"),
            cluster.serial(),
            7200,
            1800,
            86_400,
            self.ttl,
        );
        self.record(zone, RData::SOA(soa))
    }
}

#[cfg(test)]
mod tests;
