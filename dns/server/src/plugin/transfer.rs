//! `transfer`: whole zones to those who may have them (RFC 5936; RFC 1995 answered with whole zones), and word of
//! changes to their servers (RFC 1996).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::OpCode;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::serialize::binary::BinEncodable as _;
use ipnet::IpNet;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;

/// Octets of records in one message of a transfer: leaves room for header and question below 65535.
const OCTETS_MAX: usize = 48_000;

/// How often a server is told of a change before it is given up.
const NOTIFIES_MAX: u32 = 3;

/// A plugin with zones that can be transferred.
pub trait Source: Send + Sync {
    /// All records of the zone, the SOA first and not repeated at the end; nothing if it does not have the zone.
    fn records(&self, zone: &Name) -> Option<Vec<Record>>;

    /// The serial of the zone's SOA.
    fn serial(&self, zone: &Name) -> Option<u32> {
        let records = self.records(zone)?;
        match &records.first()?.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        }
    }
}

/// Tells the servers that `transfer` names of a zone's change. Cheap to clone; does nothing without `transfer`.
#[derive(Clone, Default)]
pub struct Notify(Arc<Mutex<Vec<(Vec<Name>, Vec<SocketAddr>)>>>);

impl Notify {
    /// The zone has changed.
    pub fn changed(&self, zone: &Name) {
        let rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let servers: Vec<SocketAddr> = rules
            .iter()
            .filter(|(zones, _)| matching(zones, zone).is_some())
            .flat_map(|(_, servers)| servers.clone())
            .collect();
        drop(rules);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for server in servers {
            runtime.spawn(tell(server, zone.clone()));
        }
    }
}

async fn tell(server: SocketAddr, zone: Name) {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Notify;
    message.metadata.authoritative = true;
    message.add_query(Query::query(zone.clone(), RecordType::SOA));
    for attempt in 1..=NOTIFIES_MAX {
        match crate::client::datagram(server, &message, Duration::from_secs(2)).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%server, %zone, attempt, %error, "transfer: a server was not told of a change");
            }
        }
    }
}

struct Rule {
    zones: Vec<Name>,
    everybody: bool,
    to: Vec<IpNet>,
}

struct Transfer {
    rules: Vec<Rule>,
    sources: Arc<Mutex<Vec<Arc<dyn Source>>>>,
}

/// Reads `transfer [ZONE...] { to ADDRESS[:PORT]|PREFIX|*... }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut rules = Vec::new();
    for line in setup.lines {
        let mut rule = Rule {
            zones: setup.zones_of(&line.args)?,
            everybody: false,
            to: Vec::new(),
        };
        let mut servers = Vec::new();
        for option in &line.block {
            if option.name.text != "to" {
                return Err(option.unknown("transfer", &["to"]));
            }
            for word in option.between(1, usize::MAX)? {
                if word.text == "*" {
                    rule.everybody = true;
                    continue;
                }
                // A network may have the zone; only servers are told of changes.
                if word.text.contains('/') {
                    rule.to.push(word.prefix()?);
                    continue;
                }
                let server = word.listen(53)?;
                rule.to.push(server.ip().into());
                servers.push(server);
            }
        }
        if rule.to.is_empty() && !rule.everybody {
            return Err(line.error(
                "transfer: nobody may have the zone",
                "add a line `to ADDRESS` or `to *`",
            ));
        }
        let mut notify = setup
            .draft
            .notify
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        notify.push((rule.zones.clone(), servers));
        rules.push(rule);
    }
    Ok(Some(Arc::new(Transfer {
        rules,
        sources: Arc::clone(&setup.draft.transfers),
    })))
}

impl Plugin for Transfer {
    fn name(&self) -> &'static str {
        "transfer"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let kind = request.kind();
        if !matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return next.serve(request);
        }
        let rule = self
            .rules
            .iter()
            .filter(|rule| matching(&rule.zones, request.name()).is_some());
        let Some(rule) =
            rule.max_by_key(|rule| matching(&rule.zones, request.name()).map(crate::names::labels))
        else {
            return next.serve(request);
        };
        let client = request.client.ip().to_canonical();
        if !rule.everybody && !rule.to.iter().any(|net| net.contains(&client)) {
            return Box::pin(async {
                Ok(Outcome::answer(
                    "transfer",
                    request.reply(ResponseCode::Refused),
                ))
            });
        }
        let sources = self
            .sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(source) = sources
            .iter()
            .find(|source| source.serial(request.name()).is_some())
            .cloned()
        else {
            return next.serve(request);
        };
        Box::pin(async move { Ok(transfer(&*source, request)) })
    }
}

fn transfer(source: &dyn Source, request: &Request) -> Outcome {
    let refused = |code| Outcome::answer("transfer", request.reply(code));
    let incremental = request.kind() == RecordType::IXFR;
    if !request.transport.is_stream() && !incremental {
        // A whole zone does not go by datagram (RFC 5936, 4.2).
        return refused(ResponseCode::Refused);
    }
    let Some(records) = source.records(request.name()) else {
        return refused(ResponseCode::NotAuth);
    };
    let Some(soa) = records.first().cloned() else {
        return refused(ResponseCode::ServFail);
    };
    let current = match &soa.data {
        RData::SOA(soa) => soa.serial,
        _ => 0,
    };
    let known = request
        .message
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        });
    // Serial arithmetic (RFC 1982): not newer means that there is nothing to send.
    let newer = known.is_none_or(|known| current.wrapping_sub(known).cast_signed() > 0);
    if incremental && (!newer || !request.transport.is_stream()) {
        let mut message = request.reply(ResponseCode::NoError);
        message.metadata.authoritative = true;
        message.add_answer(soa);
        return Outcome::Stream(vec![message]);
    }
    let mut messages = Vec::new();
    let mut message = request.reply(ResponseCode::NoError);
    message.metadata.authoritative = true;
    let mut octets = 0;
    for record in records.into_iter().chain([soa]) {
        let size = record.to_bytes().map_or(0, |octets| octets.len());
        if octets + size > OCTETS_MAX && !message.answers.is_empty() {
            let mut following = request.reply(ResponseCode::NoError);
            following.metadata.authoritative = true;
            following.queries.clear();
            messages.push(std::mem::replace(&mut message, following));
            octets = 0;
        }
        octets += size;
        message.add_answer(record);
    }
    messages.push(message);
    Outcome::Stream(messages)
}
