//! Answers about hosts and ports of a Service.

use std::net::IpAddr;

use crate::answer::{Asked, Outcome, Which, address, fits, of_family, select};
use crate::host::{Dashed, Host, Port, Slice};
use crate::query::types;
use crate::reply::{Owner, Reply, Section};
use crate::service::{Entry, Kind};

impl Asked<'_> {
    /// A and AAAA records of hosts; SRV records as CoreDNS gives them, of every port.
    pub(crate) fn hosts(
        &self,
        entry: &Entry,
        which: Which<'_>,
        above: usize,
        reply: &mut Reply<'_>,
    ) -> Outcome {
        let ttl = self.config.ttl;
        if self.question.qtype == types::SRV {
            let hosts = select(entry, which);
            let all = hosts.flat_map(|(slice, host)| pairs(slice, host, None));
            return self.services(all.collect(), above, reply);
        }
        let mut addresses: Vec<IpAddr> = select(entry, which)
            .map(|(_, host)| host.addr)
            .filter(
                |addr| matches!(self.question.qtype, q if q == of_family(*addr) || q == types::ANY),
            )
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        if !addresses.is_empty() {
            let first = self.turn % addresses.len();
            addresses.rotate_left(first);
        }
        for addr in addresses {
            address(Section::Answer, Owner::Question(0), addr, ttl, reply);
        }
        self.written(reply)
    }

    /// SRV records of a Service's ports: the named one, or all of them.
    pub(crate) fn ports(
        &self,
        entry: &Entry,
        port: Option<&[u8]>,
        protocol: Option<&[u8]>,
        above: usize,
        reply: &mut Reply<'_>,
    ) -> Outcome {
        let wanted = port.zip(protocol);
        if let Kind::Headless = entry.declared.kind {
            let hosts = entry.hosts();
            let all = hosts.flat_map(|(slice, host)| pairs(slice, host, wanted));
            return self.services(all.collect(), above, reply);
        }
        let target = &self.question.name()[self.question.offset(above)..];
        let ports = entry.declared.ports.iter();
        let ports = ports.filter(|p| wanted.is_none_or(|(name, proto)| fits(p, name, proto)));
        let weight = weight(ports.clone().count());
        for port in ports {
            let data: &[&[u8]] = &[&fixed(weight, port.number), target];
            let ttl = self.config.ttl;
            reply.record(Section::Answer, Owner::Question(0), types::SRV, ttl, data);
        }
        if let Kind::ClusterIp(ips) = &entry.declared.kind
            && reply.count(Section::Answer) > 0
        {
            let owner = Owner::Question(self.question.offset(above));
            for ip in ips {
                address(Section::Additional, owner, *ip, self.config.ttl, reply);
            }
        }
        self.written(reply)
    }

    /// SRV records of hosts, and their addresses beside them.
    fn services(
        &self,
        mut found: Vec<(&Slice, &Host, u16)>,
        above: usize,
        reply: &mut Reply<'_>,
    ) -> Outcome {
        let at = self.question.offset(above);
        let service = &self.question.name()[at..];
        let ttl = self.config.ttl;
        let by_name = |(slice, host, port): &(&Slice, &Host, u16)| {
            (owned(host), slice.cluster.clone(), *port)
        };
        found.sort_by_cached_key(by_name);
        // A host with an address of each family is one target.
        let mut targets = found.clone();
        targets.dedup_by(|a, b| by_name(a) == by_name(b));
        let weight = weight(targets.len());
        let first = self.turn % targets.len().max(1);
        targets.rotate_left(first);
        for (slice, host, port) in &targets {
            let mut made = Dashed::default();
            let label = host.label(&mut made);
            let target = below(label, &slice.cluster, service);
            let data: &[&[u8]] = &[&fixed(weight, *port), &target];
            reply.record(Section::Answer, Owner::Question(0), types::SRV, ttl, data);
        }
        let key = |(slice, host, _): &(&Slice, &Host, u16)| {
            (owned(host), slice.cluster.clone(), host.addr)
        };
        found.sort_by_cached_key(key);
        found.dedup_by(|a, b| key(a) == key(b));
        for (slice, host, _) in &found {
            let mut made = Dashed::default();
            let label = host.label(&mut made);
            if slice.cluster.is_empty() {
                let owner = Owner::Below(label, at);
                address(Section::Additional, owner, host.addr, ttl, reply);
            } else {
                let name = below(label, &slice.cluster, service);
                address(
                    Section::Additional,
                    Owner::Name(&name),
                    host.addr,
                    ttl,
                    reply,
                );
            }
        }
        self.written(reply)
    }
}

/// A host with each port that is asked for.
fn pairs<'e>(
    slice: &'e Slice,
    host: &'e Host,
    wanted: Option<(&[u8], &[u8])>,
) -> Vec<(&'e Slice, &'e Host, u16)> {
    let wanted = |port: &&Port| wanted.is_none_or(|(name, proto)| fits(port, name, proto));
    let ports = slice.ports.iter().filter(wanted);
    ports.map(|port| (slice, host, port.number)).collect()
}

/// `<host>[.<cluster>].<service>` in wire form.
pub(crate) fn below(label: &[u8], cluster: &str, service: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(label.len() + cluster.len() + service.len() + 2);
    for part in [label, cluster.as_bytes()] {
        if let Ok(length @ 1..) = u8::try_from(part.len()) {
            name.push(length);
            name.extend_from_slice(part);
        }
    }
    name.extend_from_slice(service);
    name
}

fn owned(host: &Host) -> Vec<u8> {
    let mut made = Dashed::default();
    host.label(&mut made).to_vec()
}

/// Priority 0, a weight, a port (RFC 2782).
pub(crate) fn fixed(weight: u16, port: u16) -> [u8; 6] {
    let ([w0, w1], [p0, p1]) = (weight.to_be_bytes(), port.to_be_bytes());
    [0, 0, w0, w1, p0, p1]
}

/// A hundred shared by all targets, as CoreDNS has it; at least one each.
pub(crate) fn weight(targets: usize) -> u16 {
    u16::try_from(100 / targets.max(1)).unwrap_or(100).max(1)
}
