//! A zone as the list of its records, for transfers (RFC 5936).

use std::net::IpAddr;

use crate::answer::{DNS_SERVICE, VERSION_TTL_SECS};
use crate::config::Config;
use crate::host::Dashed;
use crate::name::Name;
use crate::query::types;
use crate::service::{Entry, Kind};
use crate::snapshot::{Owner, Snapshot};
use crate::srv::{below, fixed, weight};

/// A record with nothing compressed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Whose, in wire form.
    pub owner: Vec<u8>,
    /// Type (IANA).
    pub rtype: u16,
    /// Seconds.
    pub ttl: u32,
    /// Data in wire form.
    pub data: Vec<u8>,
}

impl Snapshot {
    /// The SOA record of a zone, which a transfer begins and ends with.
    #[must_use]
    pub fn soa(&self, config: &Config, zone: &Name) -> Record {
        let numbers = [self.serial, 7200, 1800, 86400, config.ttl].map(u32::to_be_bytes);
        let data = [
            b"\x02ns\x03dns",
            zone.wire(),
            b"\x0ahostmaster",
            zone.wire(),
            numbers.as_flattened(),
        ];
        Record {
            owner: zone.wire().to_vec(),
            rtype: types::SOA,
            ttl: config.ttl,
            data: data.concat(),
        }
    }

    /// Every record of a zone but its SOA, in order. Names that are spelled in questions (`a-b-c-d.<ns>.pod`)
    /// have no records to list.
    #[must_use]
    pub fn records(&self, config: &Config, zone: &Name) -> Vec<Record> {
        let mut out = Vec::new();
        let mut push = |owner: Vec<u8>, rtype: u16, data: Vec<u8>| {
            out.push(Record {
                owner,
                rtype,
                ttl: config.ttl,
                data,
            });
        };
        let server = below(b"ns", "dns", zone.wire());
        push(zone.wire().to_vec(), types::NS, server.clone());
        let of_service = match self.services.get(DNS_SERVICE).map(|e| &e.declared.kind) {
            Some(Kind::ClusterIp(ips)) if !ips.is_empty() => Some(&**ips),
            _ => None,
        };
        for addr in of_service.unwrap_or(&config.nameservers) {
            push_address(&server, *addr, &mut push);
        }
        if zone.reverse_family().is_some() {
            self.reverse_records(config, zone, &mut push);
        } else {
            let imports = config.multicluster.contains(zone);
            let services = if imports {
                &self.imports
            } else {
                &self.services
            };
            for (key, entry) in services {
                let namespace = crate::name::labels(key).nth(1).unwrap_or_default();
                if self.exposes(config, namespace) {
                    let name = [&**key, b"\x03svc", zone.wire()].concat();
                    entry_records(config, entry, &name, &mut push);
                }
            }
        }
        if zone.reverse_family().is_none() {
            out.push(Record {
                owner: below(b"dns-version", "", zone.wire()),
                rtype: types::TXT,
                ttl: VERSION_TTL_SECS,
                data: b"\x051.1.0".to_vec(),
            });
        }
        out.sort();
        out.dedup();
        out
    }

    fn reverse_records(
        &self,
        config: &Config,
        zone: &Name,
        push: &mut dyn FnMut(Vec<u8>, u16, Vec<u8>),
    ) {
        let Some(primary) = config.primary() else {
            return;
        };
        for (addr, owners) in &self.owners {
            let Some(name) = reverse_name(*addr).filter(|name| name.within(zone)) else {
                continue;
            };
            for owner in owners.iter() {
                let mut made = Dashed::default();
                let (key, label) = match owner {
                    Owner::Service(key) => (key, &[][..]),
                    Owner::Host(key, Some(hostname)) => (key, hostname.as_bytes()),
                    Owner::Host(key, None) => (key, made.write(*addr)),
                };
                let namespace = crate::name::labels(key).nth(1).unwrap_or_default();
                if !self.exposes(config, namespace) {
                    continue;
                }
                let tail = [&**key, b"\x03svc", primary.wire()].concat();
                push(name.wire().to_vec(), types::PTR, below(label, "", &tail));
                if matches!(owner, Owner::Service(_)) {
                    break;
                }
            }
        }
    }
}

/// The name that an address is looked up by.
#[must_use]
pub(crate) fn reverse_name(addr: IpAddr) -> Option<Name> {
    let text = match addr {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            let nibbles = octets
                .iter()
                .rev()
                .map(|o| format!("{:x}.{:x}.", o & 15, o >> 4));
            nibbles.collect::<String>() + "ip6.arpa"
        }
    };
    Name::parse(&text).ok()
}

fn entry_records(
    config: &Config,
    entry: &Entry,
    name: &[u8],
    push: &mut dyn FnMut(Vec<u8>, u16, Vec<u8>),
) {
    match &entry.declared.kind {
        Kind::Nothing => {}
        Kind::External(target) => push(name.to_vec(), types::CNAME, target.wire().to_vec()),
        Kind::ClusterIp(ips) => {
            if config.ignore_empty_service && !entry.has_hosts() {
                return;
            }
            for addr in ips {
                push_address(name, *addr, push);
            }
            for port in entry.declared.ports.iter().filter(|p| !p.name.is_empty()) {
                let owner = port_name(&port.name, port.protocol.label(), name);
                let data = [&fixed(weight(1), port.number), name].concat();
                push(owner, types::SRV, data);
            }
        }
        Kind::Headless => {
            let mut targets = Vec::new();
            for (slice, host) in entry.hosts() {
                let mut made = Dashed::default();
                let target = below(host.label(&mut made), &slice.cluster, name);
                push_address(name, host.addr, push);
                push_address(&target, host.addr, push);
                for port in slice.ports.iter().filter(|p| !p.name.is_empty()) {
                    let owner = port_name(&port.name, port.protocol.label(), name);
                    targets.push((owner, port.number, target.clone()));
                }
            }
            targets.sort();
            targets.dedup();
            let same = |owner: &[u8]| targets.iter().filter(|(o, _, _)| o == owner).count();
            let mut weights: Vec<u16> = Vec::with_capacity(targets.len());
            for (at, (owner, _, _)) in targets.iter().enumerate() {
                let again = at.checked_sub(1).filter(|b| targets[*b].0 == *owner);
                weights.push(match again {
                    Some(before) => weights[before],
                    None => weight(same(owner)),
                });
            }
            for ((owner, port, target), weight) in targets.into_iter().zip(weights) {
                push(
                    owner,
                    types::SRV,
                    [&fixed(weight, port)[..], &target].concat(),
                );
            }
        }
    }
}

fn port_name(port: &str, protocol: &str, service: &[u8]) -> Vec<u8> {
    below(
        format!("_{port}").as_bytes(),
        &format!("_{protocol}"),
        service,
    )
}

fn push_address(owner: &[u8], addr: IpAddr, push: &mut dyn FnMut(Vec<u8>, u16, Vec<u8>)) {
    match addr {
        IpAddr::V4(v4) => push(owner.to_vec(), types::A, v4.octets().to_vec()),
        IpAddr::V6(v6) => push(owner.to_vec(), types::AAAA, v6.octets().to_vec()),
    }
}
