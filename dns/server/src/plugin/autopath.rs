//! `autopath`: follows a client's search path on its behalf. A client with `ndots:5` asks for
//! `www.example.org.default.svc.cluster.local` first; instead of denying that and the next two, the name that the
//! path ends in is answered at once, behind an alias.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::CNAME;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Family;
use crate::metrics::Kind;
use crate::names;

/// As Kubernetes allows a pod's resolv.conf.
const PATH_MAX: usize = 32;

/// Who knows the search path of a client.
pub trait SearchPath: Send + Sync {
    /// The suffixes that the client's resolver appends, first to last; nothing for a client not known.
    fn search_path(&self, client: IpAddr) -> Option<Vec<Name>>;
}

type Known = Arc<Mutex<Vec<(&'static str, Arc<dyn SearchPath>)>>>;

enum Path {
    /// Of a file, for every client.
    Fixed(Vec<Name>),
    /// What the plugin of this name knows, which is set up after this one.
    Asked(String, Known),
}

struct Autopath {
    zones: Vec<Name>,
    path: Path,
    succeeded: Arc<Family>,
}

/// Reads `autopath [ZONE...] RESOLV-CONF|@PLUGIN`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.no_block()?;
    let Some((source, words)) = line.args.split_last() else {
        return Err(line.error(
            "autopath lacks arguments",
            "write autopath [ZONE...] @kubernetes or a resolv.conf",
        ));
    };
    let path = match source.text.strip_prefix('@') {
        Some("kubernetes") => {
            let known = Arc::clone(&setup.draft.search_paths);
            Path::Asked("kubernetes".to_owned(), known)
        }
        Some(other) => {
            return Err(source.error(
                format!("autopath: {other} knows no search paths"),
                "write @kubernetes or a resolv.conf",
            ));
        }
        None => {
            let file = setup.path(&source.text);
            let text = std::fs::read_to_string(&file).map_err(|error| {
                source.error(
                    format!("autopath: {}: {error}", file.display()),
                    "name a readable resolv.conf",
                )
            })?;
            Path::Fixed(search_of(&text))
        }
    };
    let succeeded = setup.environment.metrics.family(
        "coredns_autopath_success_total",
        "Counter of requests that did autopath.",
        Kind::Counter,
        &["server"],
    );
    Ok(Some(Arc::new(Autopath {
        zones: setup.zones_of(words)?,
        path,
        succeeded,
    })))
}

/// The last `search` line of a resolv.conf(5), and the empty suffix.
pub(super) fn search_of(text: &str) -> Vec<Name> {
    let mut path = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("search") {
            path = words.filter_map(|word| names::parse(word).ok()).collect();
        }
    }
    path.push(Name::root());
    path
}

impl Plugin for Autopath {
    fn name(&self) -> &'static str {
        "autopath"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let wanted = matches!(request.kind(), RecordType::A | RecordType::AAAA);
        if !wanted || matching(&self.zones, request.name()).is_none() {
            return next.serve(request);
        }
        let Some((base, path)) = self.split(request) else {
            return next.serve(request);
        };
        Box::pin(async move {
            let original = request.message.clone();
            let mut first = None;
            for suffix in path.into_iter().take(PATH_MAX) {
                let Ok(mut name) = base.clone().append_domain(&suffix) else {
                    continue;
                };
                name.set_fqdn(true);
                if let Some(question) = request.message.queries.first_mut() {
                    question.name = name.clone();
                }
                let served = next.serve(request).await;
                request.message.clone_from(&original);
                match &served {
                    // A name that exists ends the search, whether or not it has such records; so does one of which nobody
                    // can say whether it does, for a denial of the client's name would say that it does not.
                    Ok(outcome) if !is_denied(outcome) => {
                        self.succeeded.with(&[&request.server]).increment();
                        return served.map(|outcome| behind_alias(request, &name, outcome));
                    }
                    Err(failure) if failure.code != ResponseCode::Refused => return served,
                    // What the client asked is what is denied to it, if everything is.
                    Ok(_) | Err(_) => {
                        first.get_or_insert(served);
                    }
                }
            }
            match first {
                Some(served) => served,
                None => next.serve(request).await,
            }
        })
    }
}

impl Autopath {
    /// The name without the first suffix of the client's path, and the path, if the name ends in it.
    fn split(&self, request: &Request) -> Option<(Name, Vec<Name>)> {
        let path = match &self.path {
            Path::Fixed(path) => path.clone(),
            Path::Asked(plugin, known) => {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, source) = known.iter().find(|(name, _)| name == plugin)?;
                let source = Arc::clone(source);
                drop(known);
                source.search_path(request.client.ip().to_canonical())?
            }
        };
        let first = path.first().filter(|first| !first.is_root())?;
        let name = request.name();
        if !first.zone_of(name) || first == name {
            return None;
        }
        let kept = names::labels(name).saturating_sub(names::labels(first));
        let labels: Vec<&[u8]> = name.iter().take(kept).collect();
        Some((
            Name::from_labels(labels).ok().map(|mut base| {
                base.set_fqdn(false);
                base
            })?,
            path,
        ))
    }
}

fn is_denied(outcome: &Outcome) -> bool {
    outcome
        .message()
        .is_none_or(|message| message.metadata.response_code == ResponseCode::NXDomain)
}

/// The answer under the name that was asked for, with an alias to the one that was found.
fn behind_alias(request: &Request, found: &Name, mut outcome: Outcome) -> Outcome {
    let Some(message) = outcome.message_mut() else {
        return outcome;
    };
    message.queries.clone_from(&request.message.queries);
    if found != request.name() {
        let records = message.answers.iter().chain(&message.authorities);
        let ttl = records.map(|record| record.ttl).min().unwrap_or(0);
        let alias = RData::CNAME(CNAME(found.clone()));
        message
            .answers
            .insert(0, Record::from_rdata(request.name().clone(), ttl, alias));
    }
    if let Outcome::Answer(response) = &mut outcome {
        response.plugin = "autopath";
    }
    outcome
}
