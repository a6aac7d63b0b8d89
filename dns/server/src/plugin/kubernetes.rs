//! `kubernetes`: names of a cluster's Services, endpoints and pods, answered from what watches say.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, Restrict};
use zone::{Config, Outcome as Found, Pods};

use super::autopath::SearchPath;
use super::setup::{Made, Setup};
use super::{Next, Plugin};
use crate::cluster::{Cluster, Wanted};
use crate::fast::{Fast, Source, whole};
use crate::message::{Failure, Outcome, Request, Response, Served};
use crate::names;

/// The plugin's word.
const NAME: &str = "kubernetes";

/// What may stand in its block.
const OPTIONS: &[&str] = &[
    "apiserver_burst",
    "apiserver_max_inflight",
    "apiserver_qps",
    "endpoint",
    "endpoint_pod_names",
    "fallthrough",
    "ignore",
    "kubeconfig",
    "labels",
    "multicluster",
    "namespace_labels",
    "namespaces",
    "noendpoints",
    "pods",
    "startup_timeout",
    "tls",
    "ttl",
    "upstream",
    "zonal",
];

/// The plugin, for others that ask about the cluster (`k8s_external`, `autopath`).
pub struct Kubernetes {
    source: Arc<Source>,
}

/// Reads `kubernetes [ZONES...] { ... }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let mut config = Config::new(wire_names(&setup.zones_of(&line.args)?));
    let mut wanted = Wanted::default();
    for option in &line.block {
        match option.name.text.as_str() {
            "pods" => {
                let [mode] = option.exactly()?;
                config.pods = match mode.text.as_str() {
                    "disabled" => Pods::Disabled,
                    "insecure" => Pods::Insecure,
                    "verified" => Pods::Verified,
                    other => {
                        return Err(mode.error(
                            format!("{other:?} is no way to treat pods"),
                            "write disabled, insecure or verified",
                        ));
                    }
                };
            }
            "ttl" => config.ttl = option.exactly::<1>()?[0].number(0, 3600)?,
            "namespaces" => {
                let names = option.between(1, usize::MAX)?.iter();
                config.namespaces = names.map(|name| name.text.as_str().into()).collect();
            }
            "namespace_labels" => wanted.namespace_labels = words(option.between(1, usize::MAX)?),
            "labels" => wanted.labels = words(option.between(1, usize::MAX)?),
            "endpoint_pod_names" => {
                option.exactly::<0>()?;
                wanted.endpoint_pod_names = true;
            }
            "noendpoints" => {
                option.exactly::<0>()?;
                wanted.no_endpoints = true;
            }
            "zonal" => {
                option.exactly::<0>()?;
                config.zonal = true;
            }
            "fallthrough" => {
                config.fallthrough = match option.args.as_slice() {
                    [] => vec![zone::Name::root()],
                    zones => wire_names(&super::setup::zones(zones)?),
                };
            }
            "ignore" => {
                let [what] = option.exactly()?;
                if what.text != "empty_service" {
                    return Err(what.error(
                        format!("{:?} cannot be ignored", what.text),
                        "write `ignore empty_service`",
                    ));
                }
                config.ignore_empty_service = true;
            }
            "multicluster" => {
                config.multicluster = wire_names(&super::setup::zones(&option.args)?);
                wanted.imports = true;
            }
            "kubeconfig" => {
                let file = &option.between(1, 2)?[0];
                wanted.kubeconfig = Some(setup.path(&file.text));
            }
            "endpoint" | "tls" => {
                return Err(option.error(
                    format!("{NAME}: `{}` is not supported", option.name.text),
                    "name the API server in a kubeconfig and write `kubeconfig FILE`",
                ));
            }
            // The client paces itself, and a query before the first list is told SERVFAIL at once.
            "apiserver_qps"
            | "apiserver_burst"
            | "apiserver_max_inflight"
            | "startup_timeout"
            | "upstream" => {}
            _ => return Err(option.unknown(NAME, OPTIONS)),
        }
    }
    for zone in &config.multicluster {
        if !config.zones.contains(zone) {
            config.zones.push(zone.clone());
        }
    }
    if config.primary().is_none() {
        return Err(line.error(
            format!("{NAME}: none of the zones holds names of Services"),
            "name one that is not reverse, such as cluster.local",
        ));
    }
    wanted.pods = config.pods == Pods::Verified;
    config.nameservers = crate::interface::all();
    let cluster = setup.environment.clusters.follow(wanted).map_err(|error| {
        let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
        let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        line.error(
            text,
            "see `kubectl config view` for what a kubeconfig holds",
        )
    })?;
    let plugin = Arc::new(Kubernetes {
        source: Arc::new(Source { config, cluster }),
    });
    let list = |list: &std::sync::Mutex<Vec<_>>, entry| {
        list.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(entry);
    };
    list(
        &setup.draft.transfers,
        Arc::clone(&plugin) as Arc<dyn super::transfer::Source>,
    );
    let paths = &setup.draft.search_paths;
    paths
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push((NAME, Arc::clone(&plugin) as Arc<dyn SearchPath>));
    Ok(Some(plugin))
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
        let falls = |zone: &zone::Name| query.question.labels_above(zone.wire()).is_some();
        match &found {
            Found::NotOurs => return next.serve(request).await,
            Found::NxDomain(_) if config.fallthrough.iter().any(falls) => {
                return next.serve(request).await;
            }
            Found::Unsynced => {
                return Err(Failure::new(NAME, "the cluster's names are not known yet"));
            }
            Found::Transfer => {
                let cause = "zones are transferred by the plugin `transfer`";
                return Err(Failure::code(NAME, ResponseCode::Refused, cause));
            }
            Found::Answer | Found::Alias(_) | Found::NoData | Found::NxDomain(_) => {}
        }
        let parsed = Message::from_vec(&octets)
            .map_err(|error| Failure::new(NAME, format!("an answer of our own: {error}")))?;
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
            _ => origin(&query, config),
        };
        Ok(Outcome::Answer(Box::new(Response {
            message,
            plugin: NAME,
            origin,
        })))
    }

    /// Appends what the target of an alias leads to. A target that cannot be resolved leaves the alias alone.
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
            message.answers.extend(found.message.answers);
        }
    }
}

impl Plugin for Kubernetes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            if request.class() != DNSClass::IN {
                return next.serve(request).await;
            }
            self.answer(request, next).await
        })
    }

    fn ready(&self) -> bool {
        self.source.cluster.snapshot().synced()
    }

    fn start(&self) {
        self.source.cluster.start();
    }

    fn fast(&self) -> Fast {
        Fast::Answers(Arc::clone(&self.source))
    }
}

impl super::transfer::Source for Kubernetes {
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
        suffixes
            .iter()
            .map(|text| names::parse(text).ok())
            .collect()
    }
}

/// A record of a zone as the library has it.
fn to_record(record: &zone::Record) -> Option<Record> {
    let owner = Name::read(&mut BinDecoder::new(&record.owner)).ok()?;
    let rtype = RecordType::from(record.rtype);
    let mut decoder = BinDecoder::new(&record.data);
    let length = u16::try_from(record.data.len()).ok()?;
    let data = RData::read(&mut decoder, rtype, Restrict::new(length)).ok()?;
    Some(Record::from_rdata(owner, record.ttl, data))
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

/// The object behind an answer, in words: `Service default/web`.
fn origin(query: &zone::Query<'_>, config: &Config) -> Option<String> {
    let zones = config.zones.iter();
    let above = zones
        .filter_map(|zone| query.question.labels_above(zone.wire()))
        .min()?;
    let label = |n: usize| String::from_utf8_lossy(query.question.label(n)).into_owned();
    let kind = query.question.label(above.checked_sub(1)?);
    match (kind, above) {
        (b"svc", 3..) => Some(format!("Service {}/{}", label(above - 2), label(above - 3))),
        (b"svc" | b"pod", 2) => Some(format!("Namespace {}", label(0))),
        (b"pod", 3) => Some(format!("a pod of namespace {}", label(1))),
        _ => None,
    }
}

fn wire_names(names: &[Name]) -> Vec<zone::Name> {
    let wires = names.iter().map(names::wire);
    wires
        .filter_map(|wire| zone::Name::from_wire(&wire))
        .collect()
}

/// A selector may be written in several words.
fn words(tokens: &[crate::corefile::Token]) -> String {
    let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    words.join(" ")
}
