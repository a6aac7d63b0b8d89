//! Question to answer, by the Kubernetes DNS specification 1.1.0 and, where that is silent, as CoreDNS answers.
//!
//! Where CoreDNS denies a name below which there are names (`_tcp.<service>`, `dns.<zone>`, parts of a reverse
//! name), the answer here is NODATA, as RFC 8020 demands: a resolver that learned NXDOMAIN would deny the names
//! below as well.

use crate::config::{Config, Pods};
use crate::host::Port;
use crate::name::Name;
use crate::query::{Question, types};
use crate::reply::{Owner, Reply, Section};
use crate::service::{A_STRIDE, AAAA_STRIDE, Entry, Kind};
use crate::snapshot::Snapshot;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The name lies in none of the zones; nothing was written.
    NotOurs,
    /// Records were written.
    Answer,
    /// The name is another name for this one, whose records are still to be found.
    Alias(Name),
    /// The name exists and has no such records; the zone's SOA was written.
    NoData,
    /// The name, of a reverse zone, has nothing itself and exists for those below it alone; the zone's SOA was written.
    /// Another server may have more to say of it: a network's zone begins at such a name.
    Empty,
    /// There is no such name; the zone's SOA was written.
    NxDomain(Absence),
    /// Nothing was found, and not everything that exists has been heard of yet: SERVFAIL.
    Unsynced,
    /// A zone transfer, which is no matter of a question and an answer.
    Transfer,
}

/// Why a name does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The zone has names below `svc` and `pod` only.
    Shape,
    /// The namespace does not exist, or is not exposed.
    Namespace,
    /// The namespace has no such Service.
    Service,
    /// The Service has no endpoint that is ready.
    NoEndpoints,
    /// The Service has no such port.
    Port,
    /// The Service has no endpoint of this name that is ready.
    Endpoint,
    /// An external name has no ports and no endpoints.
    External,
    /// Pods have no names here.
    PodsDisabled,
    /// The label spells no address, or no pod of the namespace has it.
    Pod,
    /// Nobody has this address.
    Address,
}

impl Absence {
    /// The reason in words, for explanations and extended errors.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Absence::Shape => "not a name that a cluster's zone can have",
            Absence::Namespace => "the namespace does not exist or is not exposed",
            Absence::Service => "the namespace has no such Service",
            Absence::NoEndpoints => "the Service has no ready endpoint",
            Absence::Port => "the Service has no such named port",
            Absence::Endpoint => "the Service has no ready endpoint of this name",
            Absence::External => "an ExternalName Service has neither ports nor endpoints",
            Absence::PodsDisabled => "pods have no names here (pods disabled)",
            Absence::Pod => "no pod of the namespace has this address",
            Absence::Address => "no Service and no endpoint has this address",
        }
    }
}

/// What a name leads to.
enum Found<'s> {
    /// Nothing.
    Nothing(Absence),
    /// A name that only has names below it.
    Empty,
    /// Records ready to send.
    Ready(&'s [u8], &'s [u8]),
    /// A Service's own name, or one of its ports', `above` labels before it.
    Service {
        entry: &'s Entry,
        port: Option<&'s [u8]>,
        protocol: Option<&'s [u8]>,
        above: usize,
    },
    /// Hosts of a Service.
    Hosts {
        entry: &'s Entry,
        which: Which<'s>,
        above: usize,
    },
    Alias(&'s Name),
}

/// Which hosts of a Service.
#[derive(Clone, Copy)]
pub(crate) enum Which<'s> {
    Named(&'s [u8]),
    /// A host of a cluster in the set.
    OfCluster(&'s [u8], &'s [u8]),
    /// Those of a topology zone, its labels still in wire form; where `prefer` and there are none, all.
    Zone {
        labels: &'s [u8],
        prefer: bool,
    },
}

impl Snapshot {
    /// Answers a question into a reply that holds nothing yet. `turn` chooses which of several addresses comes
    /// first.
    pub fn answer(
        &self,
        config: &Config,
        question: &Question,
        turn: usize,
        reply: &mut Reply<'_>,
    ) -> Outcome {
        let Some((zone, above)) = config.zone_of(question) else {
            return Outcome::NotOurs;
        };
        if matches!(question.qtype, types::AXFR | types::IXFR) {
            return Outcome::Transfer;
        }
        let at = Asked {
            snapshot: self,
            config,
            question,
            zone,
            zone_at: question.offset(above),
            above,
            turn,
        };
        at.answer(reply)
    }
}

/// A question with what is needed to answer it.
pub(crate) struct Asked<'s> {
    pub(crate) snapshot: &'s Snapshot,
    pub(crate) config: &'s Config,
    pub(crate) question: &'s Question,
    pub(crate) zone: &'s Name,
    /// Where the zone begins in the question's name.
    pub(crate) zone_at: usize,
    /// Labels before the zone.
    above: usize,
    pub(crate) turn: usize,
}

impl<'s> Asked<'s> {
    fn answer(&self, reply: &mut Reply<'_>) -> Outcome {
        let reverse = self.zone.reverse_family();
        if self.above == 0 {
            return self.apex(reply);
        }
        if let Some(outcome) = self.fixed(reply) {
            return outcome;
        }
        if let Some(family) = reverse {
            return self.reverse(family, reply);
        }
        let found = if self.config.multicluster.contains(self.zone) {
            self.find(true)
        } else {
            self.find(false)
        };
        match found {
            Found::Nothing(why) => self.nothing(why, reply),
            Found::Empty => self.no_data(reply),
            Found::Alias(target) => {
                let data: &[&[u8]] = &[target.wire()];
                let ttl = self.config.ttl;
                reply.record(Section::Answer, Owner::Question(0), types::CNAME, ttl, data);
                match self.question.qtype {
                    types::CNAME | types::ANY => Outcome::Answer,
                    _ => Outcome::Alias(target.clone()),
                }
            }
            Found::Ready(a, aaaa) => self.addresses(a, aaaa, reply),
            Found::Service {
                entry,
                port,
                protocol,
                above,
            } => match self.question.qtype {
                types::SRV => self.ports(entry, port, protocol, above, reply),
                _ => self.service_addresses(entry, port, protocol, reply),
            },
            Found::Hosts {
                entry,
                which,
                above,
            } => self.hosts(entry, which, above, reply),
        }
    }

    /// What the zone's own name has: SOA and NS.
    fn apex(&self, reply: &mut Reply<'_>) -> Outcome {
        let ttl = self.config.ttl;
        match self.question.qtype {
            types::SOA | types::ANY => {
                self.soa(Section::Answer, reply);
                Outcome::Answer
            }
            types::NS => {
                let mut server = b"\x02ns\x03dns".to_vec();
                server.extend_from_slice(self.zone.wire());
                let data: &[&[u8]] = &[&server];
                reply.record(Section::Answer, Owner::Question(0), types::NS, ttl, data);
                for addr in self.nameservers() {
                    let owner = Owner::Name(&server);
                    address(Section::Additional, owner, addr, ttl, reply);
                }
                Outcome::Answer
            }
            _ => self.no_data(reply),
        }
    }

    /// Names that exist whatever the cluster holds.
    fn fixed(&self, reply: &mut Reply<'_>) -> Option<Outcome> {
        let question = self.question;
        match (self.above, question.label(0), question.label(1)) {
            (1, b"dns-version", _) if self.zone.reverse_family().is_none() => {
                if !matches!(question.qtype, types::TXT | types::ANY) {
                    return Some(self.no_data(reply));
                }
                let data: &[&[u8]] = &[b"\x051.1.0"];
                let owner = Owner::Question(0);
                reply.record(Section::Answer, owner, types::TXT, VERSION_TTL_SECS, data);
                Some(Outcome::Answer)
            }
            (2, b"ns", b"dns") => {
                let ttl = self.config.ttl;
                let wanted = question.qtype;
                for addr in self.nameservers() {
                    if wanted == of_family(addr) || wanted == types::ANY {
                        address(Section::Answer, Owner::Question(0), addr, ttl, reply);
                    }
                }
                Some(self.written(reply))
            }
            (1, b"dns", _) => Some(self.no_data(reply)),
            // Both exist as soon as the zone does; what is below them may not be known yet.
            (1, b"svc" | b"pod", _) if self.zone.reverse_family().is_none() => {
                Some(self.no_data(reply))
            }
            _ => None,
        }
    }

    /// Addresses that the zone's nameserver has: those of the cluster's DNS Service, else those given.
    fn nameservers(&self) -> Vec<std::net::IpAddr> {
        let entry = self.snapshot.services.get(DNS_SERVICE);
        match entry.map(|entry| &entry.declared.kind) {
            Some(Kind::ClusterIp(ips)) if !ips.is_empty() => ips.to_vec(),
            _ => self.config.nameservers.clone(),
        }
    }

    /// What a name below the zone leads to.
    fn find(&self, imports: bool) -> Found<'s> {
        let question = self.question;
        // From the right: kind, namespace, service; what is left says which part of the service.
        let below = |n: usize| self.above.checked_sub(n);
        let Some(kind) = below(1) else {
            return Found::Empty;
        };
        let Some(namespace) = below(2) else {
            return Found::Nothing(Absence::Shape);
        };
        let namespace_label = question.label(namespace);
        match question.label(kind) {
            b"svc" => {}
            b"pod" if !imports => return self.pod(namespace),
            _ => return Found::Nothing(Absence::Shape),
        }
        if !self.snapshot.exposes(self.config, namespace_label) {
            return Found::Nothing(Absence::Namespace);
        }
        let Some(service) = below(3) else {
            return match self.snapshot.has_namespace(namespace_label) {
                true => Found::Empty,
                false => Found::Nothing(Absence::Namespace),
            };
        };
        let key = &question.name()[question.offset(service)..question.offset(kind)];
        let services = match imports {
            true => &self.snapshot.imports,
            false => &self.snapshot.services,
        };
        match services.get(key) {
            Some(entry) => self.part(entry, service, imports),
            None if self.snapshot.has_namespace(namespace_label) => {
                Found::Nothing(Absence::Service)
            }
            None => Found::Nothing(Absence::Namespace),
        }
    }

    /// Which part of a service the labels before its name mean.
    fn part(&self, entry: &'s Entry, above: usize, imports: bool) -> Found<'s> {
        let question = self.question;
        match &entry.declared.kind {
            Kind::External(_) | Kind::Nothing if above > 0 => {
                return Found::Nothing(Absence::External);
            }
            Kind::External(target) => return Found::Alias(target),
            Kind::Nothing => return Found::Nothing(Absence::External),
            Kind::ClusterIp(_) => {
                if self.config.ignore_empty_service && !entry.has_hosts() {
                    return Found::Nothing(Absence::NoEndpoints);
                }
            }
            Kind::Headless => {
                if above == 0 && !entry.has_hosts() {
                    return Found::Nothing(Absence::NoEndpoints);
                }
            }
        }
        let headless = matches!(entry.declared.kind, Kind::Headless);
        let (first, second) = (question.label(0), question.label(1));
        match above {
            0 => Found::Service {
                entry,
                port: None,
                protocol: None,
                above,
            },
            1 if self.config.zonal && headless && first == b"_zone" => Found::Empty,
            1 => {
                let which = Which::Named(first);
                let named = Found::Hosts {
                    entry,
                    which,
                    above,
                };
                if select(entry, which).next().is_some() {
                    named
                } else if has_names_below(entry, first, imports) {
                    Found::Empty
                } else {
                    Found::Nothing(Absence::Endpoint)
                }
            }
            2 if imports && !first.starts_with(b"_") && !second.starts_with(b"_") => {
                let which = Which::OfCluster(first, second);
                match select(entry, which).next() {
                    Some(_) => Found::Hosts {
                        entry,
                        which,
                        above,
                    },
                    None => Found::Nothing(Absence::Endpoint),
                }
            }
            2 if self.config.zonal
                && headless
                && matches!(first, b"pin" | b"prefer")
                && second == b"_zone" =>
            {
                Found::Empty
            }
            2 => {
                let (port, protocol) = (plain(first), plain(second));
                let has = |ports: &[Port]| ports.iter().any(|p| fits(p, port, protocol));
                let found = match headless {
                    true => entry.hosts().any(|(slice, _)| has(&slice.ports)),
                    false => has(&entry.declared.ports),
                };
                if !found {
                    return Found::Nothing(Absence::Port);
                }
                Found::Service {
                    entry,
                    port: Some(port),
                    protocol: Some(protocol),
                    above,
                }
            }
            _ => self.zonal(entry, above),
        }
    }

    /// `<topology zone>.pin._zone` or `<topology zone>.prefer._zone` before a headless Service.
    fn zonal(&self, entry: &'s Entry, above: usize) -> Found<'s> {
        let question = self.question;
        let headless = matches!(entry.declared.kind, Kind::Headless);
        let prefer = match question.label(above - 2) {
            b"pin" => false,
            b"prefer" => true,
            _ => return Found::Nothing(Absence::Shape),
        };
        if !self.config.zonal || !headless || question.label(above - 1) != b"_zone" {
            return Found::Nothing(Absence::Shape);
        }
        let labels = &question.name()[..question.offset(above - 2)];
        let which = Which::Zone { labels, prefer };
        match select(entry, which).next() {
            Some(_) => Found::Hosts {
                entry,
                which,
                above,
            },
            None => Found::Nothing(Absence::NoEndpoints),
        }
    }

    /// `a-b-c-d.<namespace>.pod`.
    fn pod(&self, namespace: usize) -> Found<'s> {
        let question = self.question;
        let label = question.label(namespace);
        let exists = self.config.lists(label) && self.snapshot.has_namespace(label);
        match self.config.pods {
            Pods::Disabled => return Found::Nothing(Absence::PodsDisabled),
            Pods::Insecure | Pods::Verified if !exists => {
                return Found::Nothing(Absence::Namespace);
            }
            Pods::Insecure | Pods::Verified => {}
        }
        match namespace {
            0 => return Found::Empty,
            1 => {}
            _ => return Found::Nothing(Absence::Shape),
        }
        let Some(addr) = spelled(question.label(0)) else {
            return Found::Nothing(Absence::Pod);
        };
        let verified = || {
            let pods = self.snapshot.pods(addr).iter();
            pods.map(|pod| pod.namespace.as_bytes())
                .any(|ns| ns.eq_ignore_ascii_case(label))
        };
        if self.config.pods == Pods::Verified && !verified() {
            return Found::Nothing(Absence::Pod);
        }
        Found::Ready(&[], &[])
    }

    fn addresses(&self, a: &[u8], aaaa: &[u8], reply: &mut Reply<'_>) -> Outcome {
        if a.is_empty() && aaaa.is_empty() {
            // A pod's name: the address stands in the question.
            if let Some(addr) = spelled(self.question.label(0))
                && matches!(self.question.qtype, q if q == of_family(addr) || q == types::ANY)
            {
                let ttl = self.config.ttl;
                address(Section::Answer, Owner::Question(0), addr, ttl, reply);
            }
            return self.written(reply);
        }
        let ttl = self.config.ttl;
        match self.question.qtype {
            types::A => reply.ready(a, A_STRIDE, self.turn, ttl),
            types::AAAA => reply.ready(aaaa, AAAA_STRIDE, self.turn, ttl),
            // RFC 8482 section 4.1: any one of the sets is enough.
            types::ANY if !a.is_empty() => reply.ready(a, A_STRIDE, self.turn, ttl),
            types::ANY => reply.ready(aaaa, AAAA_STRIDE, self.turn, ttl),
            _ => {}
        }
        self.written(reply)
    }

    fn service_addresses(
        &self,
        entry: &Entry,
        port: Option<&[u8]>,
        protocol: Option<&[u8]>,
        reply: &mut Reply<'_>,
    ) -> Outcome {
        let headless = matches!(entry.declared.kind, Kind::Headless);
        if let (true, Some(port), Some(protocol)) = (headless, port, protocol) {
            // Only hosts with this port: an odd question, put together when asked.
            let with_port = entry
                .hosts()
                .filter(|(slice, _)| slice.ports.iter().any(|p| fits(p, port, protocol)));
            let mut addresses: Vec<_> = with_port.map(|(_, host)| host.addr).collect();
            addresses.sort_unstable();
            addresses.dedup();
            let (a, aaaa) = crate::service::render(&addresses);
            return self.addresses(&a, &aaaa, reply);
        }
        if entry.a.is_empty() && entry.aaaa.is_empty() {
            return self.no_data(reply);
        }
        self.addresses(&entry.a, &entry.aaaa, reply)
    }

    /// Records, or NODATA when none were written.
    pub(crate) fn written(&self, reply: &mut Reply<'_>) -> Outcome {
        if reply.count(Section::Answer) > 0 || reply.truncated() {
            Outcome::Answer
        } else {
            self.no_data(reply)
        }
    }

    pub(crate) fn no_data(&self, reply: &mut Reply<'_>) -> Outcome {
        self.soa(Section::Authority, reply);
        Outcome::NoData
    }

    pub(crate) fn nothing(&self, why: Absence, reply: &mut Reply<'_>) -> Outcome {
        if !self.snapshot.synced {
            return Outcome::Unsynced;
        }
        self.soa(Section::Authority, reply);
        Outcome::NxDomain(why)
    }

    /// RFC 1035 section 3.3.13; the last number is how long denials may be kept (RFC 2308 section 4).
    fn soa(&self, section: Section, reply: &mut Reply<'_>) {
        let pointer = (0xc000 | (crate::query::HEADER + self.zone_at) & 0x3fff) as u16;
        let pointer = pointer.to_be_bytes();
        let ttl = self.config.ttl;
        let numbers = [self.snapshot.serial, 7200, 1800, 86400, ttl].map(u32::to_be_bytes);
        let data: &[&[u8]] = &[
            b"\x02ns\x03dns",
            &pointer,
            b"\x0ahostmaster",
            &pointer,
            numbers.as_flattened(),
        ];
        reply.record(
            section,
            Owner::Question(self.zone_at),
            types::SOA,
            ttl,
            data,
        );
    }
}

/// What the specification shows for `dns-version`.
pub(crate) const VERSION_TTL_SECS: u32 = 28_800;

/// The Service that kubeadm gives to the cluster's DNS.
pub(crate) const DNS_SERVICE: &[u8] = b"\x08kube-dns\x0bkube-system";

/// The hosts that are meant.
pub(crate) fn select<'e>(
    entry: &'e Entry,
    which: Which<'e>,
) -> impl Iterator<Item = (&'e crate::host::Slice, &'e crate::host::Host)> {
    let in_zone = |host: &crate::host::Host, labels: &[u8]| {
        !host.zone.is_empty() && {
            let mut wanted = host.zone.split('.').map(str::as_bytes);
            crate::name::labels(labels).all(|label| wanted.next() == Some(label))
                && wanted.next().is_none()
        }
    };
    let everywhere = match which {
        Which::Zone { labels, prefer } => {
            prefer && !entry.hosts().any(|(_, host)| in_zone(host, labels))
        }
        Which::Named(_) | Which::OfCluster(..) => false,
    };
    entry.hosts().filter(move |(slice, host)| match which {
        Which::Named(label) => host.is_named(label),
        Which::OfCluster(label, cluster) => {
            slice.cluster.as_bytes() == cluster && host.is_named(label)
        }
        Which::Zone { labels, .. } => everywhere || in_zone(host, labels),
    })
}

/// Whether names stand below `label.<service>`: `_tcp` has the ports of its protocol, a cluster of a set its
/// hosts.
fn has_names_below(entry: &Entry, label: &[u8], imports: bool) -> bool {
    if let Some(protocol) = label.strip_prefix(b"_") {
        let named = |ports: &[Port]| {
            let mut ports = ports.iter();
            ports.any(|p| !p.name.is_empty() && p.protocol.label().as_bytes() == protocol)
        };
        return match entry.declared.kind {
            Kind::Headless => entry.hosts().any(|(slice, _)| named(&slice.ports)),
            Kind::ClusterIp(_) | Kind::External(_) | Kind::Nothing => named(&entry.declared.ports),
        };
    }
    imports
        && entry
            .hosts()
            .any(|(slice, _)| slice.cluster.as_bytes() == label)
}

/// Whether a port is the one asked for; the name of an unnamed port cannot be asked for.
pub(crate) fn fits(port: &Port, name: &[u8], protocol: &[u8]) -> bool {
    !port.name.is_empty()
        && port.name.as_bytes() == name
        && port.protocol.label().as_bytes() == protocol
}

/// A label without the underscore that RFC 2782 puts first.
fn plain(label: &[u8]) -> &[u8] {
    label.strip_prefix(b"_").unwrap_or(label)
}

/// The type of records that hold such an address.
pub(crate) fn of_family(addr: std::net::IpAddr) -> u16 {
    if addr.is_ipv4() {
        types::A
    } else {
        types::AAAA
    }
}

pub(crate) fn address(
    section: Section,
    owner: Owner<'_>,
    addr: std::net::IpAddr,
    ttl: u32,
    reply: &mut Reply<'_>,
) {
    match addr {
        std::net::IpAddr::V4(v4) => reply.record(section, owner, types::A, ttl, &[&v4.octets()]),
        std::net::IpAddr::V6(v6) => reply.record(section, owner, types::AAAA, ttl, &[&v6.octets()]),
    }
}

/// The address that a pod's label spells: dashes for dots when there are three and no two meet, else for colons.
pub(crate) fn spelled(label: &[u8]) -> Option<std::net::IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let v4 = text.bytes().filter(|b| *b == b'-').count() == 3 && !text.contains("--");
    let mut octets = [0; crate::name::LABEL_MAX];
    let spelled = &mut octets[..label.len()];
    for (to, from) in spelled.iter_mut().zip(label) {
        *to = match (*from, v4) {
            (b'-', true) => b'.',
            (b'-', false) => b':',
            (other, _) => other,
        };
    }
    std::str::from_utf8(spelled).ok()?.parse().ok()
}
