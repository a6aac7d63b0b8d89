//! `acl`: who may ask what. The first rule that fits decides; a query that none fits is allowed.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::Edns;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::rdata::opt::EdnsOption;
use ipnet::IpNet;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Family;
use crate::metrics::Kind;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Block,
    Filter,
    Drop,
}

struct Policy {
    /// The line that says so.
    place: String,
    action: Action,
    /// No types means all.
    kinds: Vec<RecordType>,
    /// No prefixes means everybody.
    nets: Vec<IpNet>,
}

struct Rule {
    zones: Vec<Name>,
    policies: Vec<Policy>,
}

struct Acl {
    rules: Vec<Rule>,
    blocked: Arc<Family>,
    filtered: Arc<Family>,
    allowed: Arc<Family>,
    dropped: Arc<Family>,
}

/// Reads `acl [ZONE...] { ACTION [type TYPE...] [net PREFIX...] }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut rules = Vec::new();
    for line in setup.lines {
        let mut policies = Vec::new();
        for option in &line.block {
            policies.push(policy(option)?);
        }
        rules.push(Rule {
            zones: setup.zones_of(&line.args)?,
            policies,
        });
    }
    let registry = &setup.environment.metrics;
    let family = |name, help, labels| registry.family(name, help, Kind::Counter, labels);
    Ok(Some(Arc::new(Acl {
        rules,
        blocked: family(
            "coredns_acl_blocked_requests_total",
            "Counter of DNS requests being blocked.",
            &["server", "zone", "view"],
        ),
        filtered: family(
            "coredns_acl_filtered_requests_total",
            "Counter of DNS requests being filtered.",
            &["server", "zone", "view"],
        ),
        allowed: family(
            "coredns_acl_allowed_requests_total",
            "Counter of DNS requests being allowed.",
            &["server", "view"],
        ),
        dropped: family(
            "coredns_acl_dropped_requests_total",
            "Counter of DNS requests being dropped.",
            &["server", "zone", "view"],
        ),
    })))
}

fn policy(option: &Directive) -> Result<Policy, ConfigError> {
    let action = match option.name.text.as_str() {
        "allow" => Action::Allow,
        "block" => Action::Block,
        "filter" => Action::Filter,
        "drop" => Action::Drop,
        _ => return Err(option.unknown("acl", &["allow", "block", "filter", "drop"])),
    };
    let mut policy = Policy {
        action,
        kinds: Vec::new(),
        nets: Vec::new(),
        place: option.name.place(),
    };
    let mut in_types = None;
    for word in &option.args {
        match (word.text.as_str(), in_types) {
            ("type", _) => in_types = Some(true),
            ("net", _) => in_types = Some(false),
            ("*", Some(_)) => {}
            (kind, Some(true)) => policy.kinds.push(super::asked_kind(kind).ok_or_else(|| {
                word.error(
                    format!("acl: {kind} is not a type of records"),
                    "write A, AAAA, TXT and such",
                )
            })?),
            (_, Some(false)) => policy.nets.push(word.prefix()?),
            (other, None) => {
                return Err(word.error(
                    format!("acl: unexpected {other}"),
                    "write type TYPE... or net PREFIX...",
                ));
            }
        }
    }
    Ok(policy)
}

impl Plugin for Acl {
    fn name(&self) -> &'static str {
        "acl"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let (action, zone, place) = self.decide(request);
        let zone = zone.to_string();
        let labels: [&str; 3] = [&request.server, &zone, &request.view];
        match action {
            Action::Allow => {
                self.allowed
                    .with(&[&request.server, &request.view])
                    .increment();
                next.serve(request)
            }
            Action::Drop => {
                self.dropped.with(&labels).increment();
                Box::pin(async { Ok(Outcome::Silence("acl")) })
            }
            Action::Block => {
                self.blocked.with(&labels).increment();
                // Extended DNS error 15, blocked (RFC 8914).
                Box::pin(async { Ok(refusal(request, ResponseCode::Refused, 15, place)) })
            }
            Action::Filter => {
                self.filtered.with(&labels).increment();
                // Extended DNS error 17, filtered.
                Box::pin(async { Ok(refusal(request, ResponseCode::NoError, 17, place)) })
            }
        }
    }
}

impl Acl {
    /// What is done, the zone for metrics, and the line that says so.
    fn decide(&self, request: &Request) -> (Action, Name, &str) {
        let client = request.client.ip().to_canonical();
        for rule in &self.rules {
            let Some(zone) = matching(&rule.zones, request.name()) else {
                continue;
            };
            let fits = |policy: &&Policy| {
                let kind = policy.kinds.is_empty()
                    || policy.kinds.contains(&request.kind())
                    || policy.kinds.contains(&RecordType::ANY);
                let net =
                    policy.nets.is_empty() || policy.nets.iter().any(|net| net.contains(&client));
                kind && net
            };
            if let Some(policy) = rule.policies.iter().find(fits) {
                return (policy.action, zone.clone(), &policy.place);
            }
        }
        (Action::Allow, Name::root(), "")
    }
}

fn refusal(request: &Request, code: ResponseCode, extended: u16, place: &str) -> Outcome {
    let mut message = request.reply(code);
    if request.message.edns.is_some() {
        let mut edns = Edns::new();
        edns.options_mut().insert(EdnsOption::Unknown(
            u16::from(EdnsCode::Unknown(15)),
            extended.to_be_bytes().to_vec(),
        ));
        message.edns = Some(edns);
    }
    Outcome::answer("acl", message).of(request, || place.to_owned())
}
