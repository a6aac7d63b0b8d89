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
use tokio::sync::watch;
use tokio::task::JoinSet;

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

/// How long changes of a zone that is made from a cluster are gathered before servers are told of them.
const GATHERING: Duration = Duration::from_secs(1);

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

    /// The zones that change as a cluster does. Of the others [`Notify`] is told where they change.
    fn changing(&self) -> Option<Changing> {
        None
    }
}

/// Zones that may be others each time that the number is another one.
pub struct Changing {
    /// The zones.
    pub zones: Vec<Name>,
    /// Counts what may change them.
    pub changes: watch::Receiver<u64>,
}

/// Tells the servers that `transfer` names of a zone's change. Cheap to clone; does nothing without `transfer`.
#[derive(Clone, Default)]
pub struct Notify(Arc<Mutex<Vec<(Vec<Name>, Vec<SocketAddr>)>>>);

impl Notify {
    /// The zone has changed.
    pub fn changed(&self, zone: &Name) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for server in self.servers(zone) {
            runtime.spawn(tell(server, zone.clone()));
        }
    }

    /// The servers that are told of a zone's changes.
    fn servers(&self, zone: &Name) -> Vec<SocketAddr> {
        let rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = rules.iter();
        rules
            .filter(|(zones, _)| matching(zones, zone).is_some())
            .flat_map(|(_, servers)| servers.clone())
            .collect()
    }
}

/// Tells servers of the zones of a source, each time that their serials are others than before. Those that do not answer
/// are waited for: they are told of a later change together with the one before.
async fn follow(source: Arc<dyn Source>, mut changing: Changing, notify: Notify) {
    let zones = changing.zones;
    let serials = || -> Vec<_> { zones.iter().map(|zone| source.serial(zone)).collect() };
    let mut told = serials();
    while changing.changes.changed().await.is_ok() {
        tokio::time::sleep(GATHERING).await;
        changing.changes.mark_unchanged();
        let now = serials();
        let known = zones.iter().zip(told.iter().zip(&now));
        let changed = known.filter(|(_, (told, now))| now.is_some() && told != now);
        let all = changed.flat_map(|(zone, _)| {
            let servers = notify.servers(zone);
            servers.into_iter().map(|server| tell(server, zone.clone()))
        });
        futures_util::future::join_all(all).await;
        told = now;
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
            Err(error) if attempt == NOTIFIES_MAX => {
                tracing::warn!(%server, %zone, attempt, %error, "transfer: a server was not told of a change");
            }
            Err(_) => {}
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
    notify: Notify,
    /// Tell servers of changes; they end with the plugin.
    tasks: Mutex<JoinSet<()>>,
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
        notify: setup.draft.notify.clone(),
        tasks: Mutex::default(),
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
        let mut sources = self.sources().into_iter();
        let Some(source) = sources.find(|source| source.serial(request.name()).is_some()) else {
            return next.serve(request);
        };
        Box::pin(async move { Ok(transfer(&*source, request)) })
    }

    fn start(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for source in self.sources() {
            let Some(mut changing) = source.changing() else {
                continue;
            };
            let told = |zone: &Name| !self.notify.servers(zone).is_empty();
            changing.zones.retain(told);
            if !changing.zones.is_empty() {
                tasks.spawn(follow(source, changing, self.notify.clone()));
            }
        }
    }
}

impl Transfer {
    fn sources(&self) -> Vec<Arc<dyn Source>> {
        let sources = self.sources.lock();
        sources.unwrap_or_else(PoisonError::into_inner).clone()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A zone of a serial, and none while that is zero.
    struct Cluster(AtomicU32);

    impl Source for Cluster {
        fn records(&self, _: &Name) -> Option<Vec<Record>> {
            None
        }

        fn serial(&self, _: &Name) -> Option<u32> {
            Some(self.0.load(Ordering::Relaxed)).filter(|serial| *serial > 0)
        }
    }

    #[tokio::test]
    async fn servers_are_told_of_a_cluster_once_for_changes_that_come_together() {
        let zone = crate::names::parse("cluster.local").unwrap();
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let notify = Notify::default();
        let rule = (vec![Name::root()], vec![server.local_addr().unwrap()]);
        notify.0.lock().unwrap().push(rule);
        let cluster = Arc::new(Cluster(AtomicU32::new(0)));
        let changes = watch::Sender::new(0);
        let changing = Changing {
            zones: vec![zone.clone()],
            changes: changes.subscribe(),
        };
        let source = Arc::clone(&cluster) as Arc<dyn Source>;
        let following = tokio::spawn(follow(source, changing, notify));
        // What changes the cluster's serial, one after the other, and whether that is told.
        for (serials, told) in [
            (&[0][..], false),
            (&[7, 8], true),
            (&[8], false),
            (&[9], true),
        ] {
            for serial in serials {
                cluster.0.store(*serial, Ordering::Relaxed);
                changes.send_modify(|count| *count += 1);
                tokio::task::yield_now().await;
            }
            let mut octets = [0; 512];
            let wait = GATHERING + Duration::from_millis(500);
            let heard = tokio::time::timeout(wait, server.recv_from(&mut octets)).await;
            assert_eq!(heard.is_ok(), told, "{serials:?}");
            let Ok(heard) = heard else { continue };
            let (length, client) = heard.unwrap();
            let mut message = Message::from_vec(&octets[..length]).unwrap();
            assert_eq!(message.metadata.op_code, OpCode::Notify);
            assert_eq!(message.queries[0].name(), &zone);
            message.metadata.message_type = hickory_proto::op::MessageType::Response;
            let answer = message.to_vec().unwrap();
            server.send_to(&answer, client).await.unwrap();
        }
        following.abort();
    }
}
