//! `kubernetes`: names of a cluster's Services, endpoints and pods, answered from what watches say.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, BinEncodable as _};
use zone::Outcome as Found;

use super::{Next, Plugin};
use crate::cluster::Cluster;
use crate::fast::{Fast, Source, whole};
use crate::message::{Failure, Outcome, Request, Response, Served, append};

mod config;
mod metadata;
mod neighbours;
mod strays;

pub(super) use config::make;

/// The plugin's word.
const NAME: &str = "kubernetes";

/// The plugin, for others that ask about the cluster (`k8s_external`, `autopath`).
pub struct Kubernetes {
    source: Arc<Source>,
    /// What a node's own resolver appends to names, which is what pods append after the cluster's suffixes; the
    /// last is empty.
    node_search: Vec<Name>,
    strays: strays::Strays,
}

impl Kubernetes {
    /// What it answers from, and how.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The cluster that it follows.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.source.cluster
    }

    async fn answer(&self, request: &mut Request, next: Next<'_>) -> Served {
        let head = question_octets(request);
        let Ok(query) = zone::Query::parse(&head) else {
            return next.serve(request).await;
        };
        let snapshot = Arc::clone(&self.source.cluster.snapshot());
        let config = &self.source.config;
        let Some((found, octets)) = whole(&snapshot, config, &query) else {
            return next.serve(request).await;
        };
        match &found {
            Found::NotOurs if let Some(denied) = self.stray(&query.question) => {
                self.strays.count();
                let mut message = request.reply(ResponseCode::NXDomain);
                let soa = neighbours::to_record(&snapshot.soa(config, denied));
                message.authorities.extend(soa);
                return Ok(Outcome::Answer(Box::new(Response {
                    message,
                    plugin: NAME,
                    origin: Some(
                        "a name of the cluster with a suffix of the node's search list".to_owned(),
                    ),
                })));
            }
            // What was made for an answer is not kept while others look for one.
            Found::NotOurs => {
                drop((octets, snapshot));
                return next.serve(request).await;
            }
            Found::NxDomain(_) | Found::Empty if falls_through(config, &query.question) => {
                drop((octets, snapshot));
                return next.serve(request).await;
            }
            Found::Unsynced => {
                return Err(Failure::new(NAME, "the cluster's names are not known yet"));
            }
            Found::Transfer => {
                let cause = "zones are transferred by the plugin `transfer`";
                return Err(Failure::code(NAME, ResponseCode::Refused, cause));
            }
            Found::Answer | Found::Alias(_) | Found::NoData | Found::Empty | Found::NxDomain(_) => {
            }
        }
        if !serves(request.class()) {
            let cause = "the cluster's names are of class IN";
            return Err(Failure::code(NAME, ResponseCode::Refused, cause));
        }
        let parsed = Message::from_vec(&octets)
            .map_err(|error| Failure::new(NAME, format!("an answer of our own: {error}")))?;
        drop((octets, snapshot));
        let mut message = request.reply(parsed.metadata.response_code);
        message.metadata.authoritative = true;
        message.answers = parsed.answers;
        message.authorities = parsed.authorities;
        message.additionals = parsed.additionals;
        if let Found::Alias(target) = &found {
            self.chase(request, target, &mut message).await;
        }
        let origin = match &found {
            Found::NxDomain(why) => Some(why.words().to_owned()),
            _ => self.origin(&message, &query.question),
        };
        Ok(Outcome::Answer(Box::new(Response {
            message,
            plugin: NAME,
            origin,
        })))
    }

    /// Whose denial a stray name gets; nothing where it is none.
    fn stray(&self, question: &zone::Question) -> Option<&zone::Name> {
        let found = self.strays.of(question)?;
        (!falls_through(&self.source.config, question)).then_some(found)
    }

    /// The object behind an answer, in words; an address' is that of the name that it has.
    fn origin(&self, answer: &Message, question: &zone::Question) -> Option<String> {
        let named = answer.answers.iter().find_map(|record| match &record.data {
            RData::PTR(PTR(name)) => {
                let octets = name.to_bytes().ok()?;
                zone::Question::new(&octets, zone::query::types::A)
            }
            _ => None,
        });
        let snapshot = self.source.cluster.snapshot();
        metadata::origin(
            named.as_ref().unwrap_or(question),
            &self.source.config,
            &snapshot,
        )
    }

    /// Appends what the target of an alias leads to. A target that cannot be resolved leaves the alias alone, and
    /// one that does not exist says so by the SOA record alone: as in CoreDNS the code is that of the Service's name,
    /// which exists (RFC 6604 would have it the target's).
    async fn chase(&self, request: &Request, target: &zone::Name, message: &mut Message) {
        let Some(instance) = request.instance.clone() else {
            return;
        };
        let mut decoder = BinDecoder::new(target.wire());
        let Ok(name) = Name::read(&mut decoder) else {
            return;
        };
        let Ok(mut asked) = request.ask(name, request.kind()) else {
            return;
        };
        if let Outcome::Answer(found) = instance.ask(&mut asked).await {
            let code = found.message.metadata.response_code;
            if code == ResponseCode::ServFail {
                message.metadata.response_code = code;
            }
            append(message, found.message);
        }
    }
}

impl Plugin for Kubernetes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move { self.answer(request, next).await })
    }

    fn ready(&self) -> bool {
        self.source.cluster.snapshot().synced()
    }

    fn until_ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // It is followed from now on, in service or not yet.
            self.source.cluster.start();
            self.source.cluster.until_synced().await;
        })
    }

    /// A name that is left to others while it does not exist here is ours as soon as it does: what others said
    /// of it is not to be kept.
    fn holds(&self, request: &Request) -> bool {
        let config = &self.source.config;
        let head = question_octets(request);
        let Ok(query) = zone::Query::parse(&head) else {
            return false;
        };
        let mut buffer = [0; SCRATCH];
        let size = buffer.len();
        let Some(mut reply) = zone::Reply::new(&mut buffer, &query, size) else {
            return false;
        };
        let snapshot = self.source.cluster.snapshot();
        match snapshot.answer(config, &query.question, 0, &mut reply) {
            Found::NotOurs => self.stray(&query.question).is_some(),
            Found::NxDomain(_) | Found::Empty => !falls_through(config, &query.question),
            Found::Answer | Found::Alias(_) | Found::NoData | Found::Unsynced | Found::Transfer => {
                true
            }
        }
    }

    fn describe(&self, request: &mut Request) {
        let head = question_octets(request);
        if let Ok(query) = zone::Query::parse(&head) {
            let snapshot = self.source.cluster.snapshot();
            let config = &self.source.config;
            let found = metadata::of(&query.question, request.client.ip(), config, &snapshot);
            request.metadata.extend(found);
        }
    }

    fn start(&self) {
        self.source.cluster.start();
    }

    fn fast(&self) -> Fast {
        Fast::Answers(Arc::clone(&self.source))
    }
}

/// Octets for an answer of which only the outcome matters.
const SCRATCH: usize = 1024;

/// Whether the cluster's names are of a class: all are of IN, which is among those that ANY asks for (RFC 1035 section
/// 3.2.5).
fn serves(class: DNSClass) -> bool {
    matches!(class, DNSClass::IN | DNSClass::ANY)
}

/// Whether names that do not exist are left to the plugins that follow.
fn falls_through(config: &zone::Config, question: &zone::Question) -> bool {
    let mut zones = config.fallthrough.iter();
    zones.any(|zone| question.labels_above(zone.wire()).is_some())
}

/// The question as the octets of a request of its own: plugins before may have changed it.
fn question_octets(request: &Request) -> Vec<u8> {
    let mut octets = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in request.name().iter() {
        octets.push(u8::try_from(label.len()).unwrap_or(0));
        octets.extend_from_slice(label);
    }
    octets.push(0);
    octets.extend_from_slice(&u16::from(request.kind()).to_be_bytes());
    octets.extend_from_slice(&[0, 1]);
    octets
}
