//! Answers about the cluster without going down a chain, where the chain would only have passed them through.
//!
//! A block is fast when each of its plugins says what it would do to such an answer ([`Fast`]). One that would
//! look at it or change it makes the block slow, and every query goes down the chain.

use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use zone::query::types;
use zone::reply::rcodes;
use zone::{Config, Frame, NAME_MAX, Outcome, Query, Reply, Snapshot};

use crate::cluster::Cluster;
use crate::instance::{Block, Instance, Listen};
use crate::message::Transport;
use crate::metrics::Series;
use crate::plugin::prometheus::{Families, code_label, kind_label};

/// What a plugin does to an answer about the cluster.
#[derive(Clone, Default)]
pub enum Fast {
    /// It may change or keep it: no query of its block is fast.
    #[default]
    Blocks,
    /// Nothing.
    Passes,
    /// It makes the answer.
    Answers(Arc<Source>),
    /// It counts it.
    Counts,
    /// It chooses which of several addresses comes first.
    Shuffles,
    /// It bounds the size of datagrams.
    Bounds(u16),
}

/// Where answers come from.
pub struct Source {
    /// How they are answered.
    pub config: Config,
    /// From what.
    pub cluster: Arc<Cluster>,
}

/// The fast blocks of a listener.
#[derive(Default)]
pub struct Table {
    /// By zone, the longest first; those that are not fast as well, for they take queries from the others.
    blocks: Vec<(Vec<u8>, Option<FastBlock>)>,
}

struct FastBlock {
    source: Arc<Source>,
    shuffles: bool,
    size_max: usize,
    counts: Option<Counts>,
}

/// Series of a block, looked up once.
struct Counts {
    datagrams: Carried,
    streams: Carried,
    /// By type.
    seconds: [Arc<Series>; KINDS.len()],
    responses: [Arc<Series>; 2],
    dnssec: Arc<Series>,
}

/// Series of what came by UDP, or by TCP.
struct Carried {
    /// By family and type.
    requests: [[Arc<Series>; KINDS.len()]; 2],
    request_octets: Arc<Series>,
    response_octets: Arc<Series>,
}

/// Types that are counted by name; the last stands for the others.
const KINDS: [RecordType; 6] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::HTTPS,
    RecordType::Unknown(0),
];

/// Octets of a datagram that we send unless `bufsize` says otherwise: what fits a batch's slot.
const SIZE_MAX: usize = net::SEND_MAX;

/// Octets of a datagram that we take, as told to those who speak EDNS.
pub const UDP_SIZE: u16 = 1232;

/// How a query came, beside its octets.
pub struct Arrival<'a> {
    /// What carried it.
    pub transport: Transport,
    /// Whether over IPv6.
    pub v6: bool,
    /// When.
    pub at: Instant,
    /// Octets of the whole request.
    pub octets: usize,
    /// The COOKIE option for the answer.
    pub cookie: Option<&'a [u8]>,
    /// Any number, for the order of addresses.
    pub turn: usize,
}

impl Table {
    /// The table of a listener. Empty, so that every query goes down a chain, where a view decides.
    #[must_use]
    pub fn new(instance: &Instance, listen: &Listen) -> Self {
        let mut blocks = Vec::new();
        for (zone, of_zone) in instance.blocks(listen) {
            let [block] = of_zone else {
                return Table::default();
            };
            if block.has_filter() {
                return Table::default();
            }
            blocks.push((zone.to_vec(), FastBlock::new(instance, block, zone)));
        }
        blocks.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.len()));
        Table { blocks }
    }

    /// Answers into `buffer`; gives the answer's length, or nothing when the query must go down the chain.
    pub fn answer(
        &self,
        query: &Query<'_>,
        arrival: &Arrival<'_>,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let question = &query.question;
        let in_zone = |(zone, _): &&(Vec<u8>, _)| question.labels_above(zone).is_some();
        let block = self.blocks.iter().find(in_zone)?.1.as_ref()?;
        if question.qtype == types::ANY || query.edns.is_some_and(|edns| edns.nsid) {
            return None;
        }
        let asked = query.edns.map_or(zone::reply::UDP_MIN, |edns| {
            usize::from(edns.udp_size).max(zone::reply::UDP_MIN)
        });
        let size = match arrival.transport {
            Transport::Udp => asked.min(block.size_max),
            Transport::Tcp | Transport::Tls | Transport::Https => usize::from(u16::MAX),
        };
        let snapshot = block.source.cluster.snapshot();
        let turn = if block.shuffles { arrival.turn } else { 0 };
        let mut reply = Reply::new(buffer, query, size)?;
        let rcode = match snapshot.answer(&block.source.config, question, turn, &mut reply) {
            Outcome::Answer | Outcome::NoData => rcodes::NOERROR,
            // `fallthrough` may have others answer, and a name with an alias needs them; what is not synced
            // yet waits in the chain.
            Outcome::NxDomain(_) if !self.falls_through(&block.source, question) => {
                rcodes::NXDOMAIN
            }
            Outcome::Empty if !self.falls_through(&block.source, question) => rcodes::NOERROR,
            Outcome::NxDomain(_)
            | Outcome::Empty
            | Outcome::Alias(_)
            | Outcome::NotOurs
            | Outcome::Unsynced
            | Outcome::Transfer => return None,
        };
        let pad_to = match arrival.transport {
            Transport::Tls | Transport::Https => PAD_TO,
            Transport::Udp | Transport::Tcp => 0,
        };
        let frame = Frame {
            authoritative: true,
            udp_size: UDP_SIZE,
            cookie: arrival.cookie,
            pad_to,
            ..Frame::default()
        };
        let length = reply.finish(query, rcode, &frame);
        if let Some(counts) = &block.counts {
            counts.count(query, arrival, rcode, length);
        }
        Some(length)
    }

    fn falls_through(&self, source: &Source, question: &zone::Question) -> bool {
        let mut zones = source.config.fallthrough.iter();
        zones.any(|zone| question.labels_above(zone.wire()).is_some())
    }
}

/// RFC 8467: answers are padded to multiples of this many octets.
pub const PAD_TO: u16 = 468;

impl FastBlock {
    fn new(instance: &Instance, block: &Block, zone: &[u8]) -> Option<Self> {
        let mut source = None;
        let mut fast = FastBlockParts {
            shuffles: false,
            size_max: SIZE_MAX,
            counts: false,
        };
        for plugin in block.chain.iter() {
            match plugin.fast() {
                Fast::Blocks => return None,
                Fast::Passes => {}
                Fast::Answers(from) if source.is_none() => source = Some(from),
                Fast::Answers(_) => return None,
                Fast::Counts => fast.counts = true,
                Fast::Shuffles => fast.shuffles = true,
                Fast::Bounds(size) => fast.size_max = fast.size_max.min(usize::from(size)),
            }
        }
        let source = source?;
        let counts = fast.counts.then(|| {
            let families = Families::new(&instance.environment().metrics);
            Counts::new(&families, block, zone)
        });
        Some(FastBlock {
            source,
            shuffles: fast.shuffles,
            size_max: fast.size_max,
            counts,
        })
    }
}

struct FastBlockParts {
    shuffles: bool,
    size_max: usize,
    counts: bool,
}

impl Counts {
    fn new(families: &Families, block: &Block, zone: &[u8]) -> Self {
        let zone = zone::Name::from_wire(zone).map_or_else(|| ".".to_owned(), |z| z.to_string());
        let (server, view) = (&*block.server, &*block.view);
        let labels = [server, &zone, view];
        let carried = |proto| {
            let of_family = |family: &str| {
                KINDS.map(|kind| {
                    let kind = kind_label(kind);
                    let values = [server, &zone, view, proto, family, kind];
                    families.requests.with(&values)
                })
            };
            let sized = [server, &zone, view, proto];
            Carried {
                requests: [of_family("1"), of_family("2")],
                request_octets: families.request_octets.with(&sized),
                response_octets: families.response_octets.with(&sized),
            }
        };
        let of_code = |code| {
            let values = [server, &zone, view, code_label(code), "kubernetes"];
            families.responses.with(&values)
        };
        Counts {
            datagrams: carried("udp"),
            streams: carried("tcp"),
            seconds: KINDS.map(|kind| {
                let values = [server, &zone, view, kind_label(kind)];
                families.seconds.with(&values)
            }),
            responses: [
                of_code(ResponseCode::NoError),
                of_code(ResponseCode::NXDomain),
            ],
            dnssec: families.dnssec.with(&labels),
        }
    }

    fn count(&self, query: &Query<'_>, arrival: &Arrival<'_>, rcode: u8, length: usize) {
        let kind = RecordType::from(query.question.qtype);
        let kind = KINDS
            .iter()
            .position(|k| *k == kind)
            .unwrap_or(KINDS.len() - 1);
        let carried = match arrival.transport {
            Transport::Udp => &self.datagrams,
            Transport::Tcp | Transport::Tls | Transport::Https => &self.streams,
        };
        if let Some(series) = carried.requests[usize::from(arrival.v6)].get(kind) {
            series.increment();
        }
        self.responses[usize::from(rcode == rcodes::NXDOMAIN)].increment();
        if let Some(seconds) = self.seconds.get(kind) {
            seconds.observe(arrival.at.elapsed().as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "sizes of messages are small")]
        {
            carried.request_octets.observe(arrival.octets as f64);
            carried.response_octets.observe(length as f64);
        }
        if query.edns.is_some_and(|edns| edns.dnssec_ok) {
            self.dnssec.increment();
        }
    }
}

/// The longest name fits a buffer for an answer: what cannot hold the question is no buffer.
const _: () = assert!(SIZE_MAX > NAME_MAX + 64);

/// A snapshot's answer as a message, for the chain: octets are read back as records.
pub fn whole(
    snapshot: &Snapshot,
    config: &Config,
    query: &Query<'_>,
) -> Option<(Outcome, Vec<u8>)> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut reply = Reply::new(&mut buffer, query, usize::from(u16::MAX))?;
    let outcome = snapshot.answer(config, &query.question, 0, &mut reply);
    let rcode = match outcome {
        Outcome::NxDomain(_) => rcodes::NXDOMAIN,
        Outcome::Answer
        | Outcome::NoData
        | Outcome::Empty
        | Outcome::Alias(_)
        | Outcome::NotOurs
        | Outcome::Unsynced
        | Outcome::Transfer => rcodes::NOERROR,
    };
    let frame = Frame {
        authoritative: true,
        ..Frame::default()
    };
    let length = reply.finish(query, rcode, &frame);
    buffer.truncate(length);
    Some((outcome, buffer))
}
