//! Which names the programs may answer for: those whose query would reach `kubernetes` as it came, and whose answer
//! would go out as `kubernetes` made it.

use std::net::SocketAddr;
use std::sync::Arc;

use abi::dns::{NAME_MAX, flags};
use abi::{DnsAnswer, DnsName};
use zone::query::{HEADER, types};
use zone::reply::{Section, UDP_MIN, rcodes};
use zone::{Frame, Name, Outcome, Query, Reply, Snapshot};

use crate::cluster::Cluster;
use crate::corefile::Scheme;
use crate::fast::{Fast, Source};
use crate::instance::{Block, Instance, Listen};

/// What the programs may answer for.
pub struct Plan {
    /// By zone, the longest first; those that are not answered as well, for they take queries from the others.
    blocks: Vec<(Vec<u8>, Option<Arc<Source>>)>,
    /// Zones of names that are answered, each with the position of its block.
    zones: Vec<(usize, Name)>,
    cluster: Arc<Cluster>,
}

/// A name's zone, as a position in a plan, and what is answered for the name.
pub type Wanted = (u16, DnsAnswer);

/// Any cluster that a configuration follows.
#[must_use]
pub fn any_cluster(instance: &Instance) -> Option<Arc<Cluster>> {
    let plugins = instance.chains().iter().flat_map(|chain| chain.iter());
    let mut sources = plugins.filter_map(|plugin| match plugin.fast() {
        Fast::Answers(source) => Some(Arc::clone(&source.cluster)),
        _ => None,
    });
    sources.next()
}

impl Plan {
    /// Of the listener for plain DNS.
    ///
    /// # Errors
    ///
    /// Why there is nothing that the programs may answer for, in words.
    pub fn of(instance: &Instance, listening: &[(Listen, SocketAddr)]) -> Result<Self, String> {
        let mut plain = listening.iter().filter(|(l, _)| l.scheme == Scheme::Dns);
        let (listen, _) = plain
            .next()
            .ok_or("no block of the Corefile is for plain DNS")?;
        if plain.next().is_some() {
            return Err(
                "the Corefile listens for plain DNS on several addresses, which may answer differently"
                    .to_owned(),
            );
        }
        let mut blocks = Vec::new();
        let mut why = "no block of the Corefile has `kubernetes`".to_owned();
        for (zone, of_zone) in instance.blocks(listen) {
            let [block] = of_zone else {
                return Err("a `view` decides who is answered what".to_owned());
            };
            if block.has_filter() {
                return Err("a `view` decides who is answered what".to_owned());
            }
            let source = source(block).unwrap_or_else(|plugin| {
                why = format!("`{plugin}` stands before `kubernetes` and may change answers");
                None
            });
            blocks.push((zone.to_vec(), source));
        }
        blocks.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.len()));
        let mut zones: Vec<(usize, Name)> = Vec::new();
        let mut cluster: Option<&Arc<Cluster>> = None;
        for (at, (_, source)) in blocks.iter().enumerate() {
            let Some(source) = source else { continue };
            if cluster.is_some_and(|cluster| !Arc::ptr_eq(cluster, &source.cluster)) {
                return Err("blocks of the Corefile follow several clusters".to_owned());
            }
            cluster = Some(&source.cluster);
            let config = &source.config;
            let plain = config.zones.iter().filter(|zone| {
                zone.reverse_family().is_none() && !config.multicluster.contains(zone)
            });
            zones.extend(plain.map(|zone| (at, zone.clone())));
        }
        let cluster = Arc::clone(cluster.ok_or(why)?);
        if zones.len() > usize::from(u16::MAX) {
            return Err("the Corefile has too many zones".to_owned());
        }
        Ok(Plan {
            blocks,
            zones,
            cluster,
        })
    }

    /// The cluster whose names are answered.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The name of a Service in one of the zones; `None` where it is too long for the table.
    #[must_use]
    pub fn name(&self, zone: u16, service: &[u8]) -> Option<DnsName> {
        DnsName::new(&self.wire(usize::from(zone), service)?)
    }

    fn wire(&self, zone: usize, service: &[u8]) -> Option<Vec<u8>> {
        let (_, zone) = self.zones.get(zone)?;
        let wire = [service, b"\x03svc", zone.wire()].concat();
        (wire.len() <= NAME_MAX).then_some(wire)
    }

    /// What is answered for a Service's names: as the server itself answers them.
    #[must_use]
    pub fn wanted(&self, snapshot: &Snapshot, service: &[u8]) -> Box<[Wanted]> {
        let answer = |(zone, (block, of)): (usize, &(usize, Name))| {
            let wire = self.wire(zone, service)?;
            let here = |(zone, _): &(Vec<u8>, _)| within(&wire, zone);
            if self.blocks.iter().position(here)? != *block {
                return None;
            }
            let source = self.blocks.get(*block)?.1.as_ref()?;
            let zone_at = u8::try_from(wire.len().checked_sub(of.wire().len())?).ok()?;
            let answer = asked(source, snapshot, &wire, zone_at)?;
            Some((u16::try_from(zone).ok()?, answer))
        };
        self.zones.iter().enumerate().filter_map(answer).collect()
    }
}

/// What answers a block's queries without anything before it that could matter; the name of what could, otherwise.
fn source(block: &Block) -> Result<Option<Arc<Source>>, &'static str> {
    let mut before = None;
    for plugin in block.chain.iter() {
        match plugin.fast() {
            // What comes behind sees only what `kubernetes` does not answer.
            Fast::Answers(source) => return before.map_or(Ok(Some(source)), Err),
            Fast::Passes | Fast::Counts | Fast::Shuffles => {}
            Fast::Bounds(size) if usize::from(size) >= UDP_MIN => {}
            Fast::Bounds(_) | Fast::Blocks => before = before.or(Some(plugin.name())),
        }
    }
    Ok(None)
}

/// Whether a name in wire form is `zone` or lies below it.
fn within(wire: &[u8], zone: &[u8]) -> bool {
    let mut rest = wire;
    while rest.len() >= zone.len() {
        if rest == zone {
            return true;
        }
        let length = rest.first().map_or(0, |length| usize::from(*length));
        match rest.get(1 + length..) {
            Some(after) if length > 0 => rest = after,
            _ => return false,
        }
    }
    false
}

/// Asks the zone for both families; `None` where either answer is not one that the programs give.
fn asked(source: &Source, snapshot: &Snapshot, name: &[u8], zone_at: u8) -> Option<DnsAnswer> {
    let mut answer = DnsAnswer {
        ttl: source.config.ttl.into(),
        zone_at,
        ..DnsAnswer::default()
    };
    if let Some(addr) = record(source, snapshot, name, types::A)? {
        answer.addr4 = addr.as_slice().try_into().ok()?;
        answer.flags |= flags::A;
    }
    if let Some(addr) = record(source, snapshot, name, types::AAAA)? {
        answer.addr6 = addr.as_slice().try_into().ok()?;
        answer.flags |= flags::AAAA;
    }
    (answer.flags != 0).then_some(answer)
}

/// The one record of a type that a name has, or that it has none.
fn record(source: &Source, snapshot: &Snapshot, name: &[u8], kind: u16) -> Option<Option<Vec<u8>>> {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    let query = Query::parse(&message).ok()?;
    let mut buffer = [0; UDP_MIN];
    let mut reply = Reply::new(&mut buffer, &query, UDP_MIN)?;
    let outcome = snapshot.answer(&source.config, &query.question, 0, &mut reply);
    match outcome {
        Outcome::NoData | Outcome::Empty => return Some(None),
        Outcome::Answer if reply.count(Section::Answer) == 1 && !reply.truncated() => {}
        Outcome::Answer
        | Outcome::NotOurs
        | Outcome::Alias(_)
        | Outcome::NxDomain(_)
        | Outcome::Unsynced
        | Outcome::Transfer => return None,
    }
    let length = reply.finish(&query, rcodes::NOERROR, &Frame::default());
    // Owner, type, class, time to live and length stand before the data.
    let record = buffer.get(message.len()..length)?;
    let kind = kind.to_be_bytes();
    let head = [0xc0, HEADER as u8, kind[0], kind[1], 0, 1];
    let data = record.get(12..)?;
    (record.get(..6)? == head).then(|| Some(data.to_vec()))
}
