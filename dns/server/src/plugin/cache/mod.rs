//! `cache`: answers of others are kept for as long as they allow. What a plugin behind it knows itself, a cluster's
//! names above all, is never kept: it costs no more to answer than to look up, and is never stale.

mod config;
mod store;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::MessageType;
use hickory_proto::op::OpCode;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::EdnsCode;

use self::store::Entry;
use self::store::Key;
use self::store::Store;
use super::Detached;
use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Response;
use crate::message::Served;
use crate::metrics::Family;
use crate::names;

/// Whose answers are not kept: they are computed from what is known here, at once.
const NEVER_KEPT: [&str; 11] = [
    "auto",
    "autopath",
    "chaos",
    "file",
    "hosts",
    "k8s_external",
    "kubernetes",
    "local",
    "secondary",
    "template",
    "whoami",
];

/// Limits of one class of answers.
#[derive(Clone, Debug)]
struct Limits {
    capacity: usize,
    /// Seconds that an answer is kept at most and at least.
    longest: u32,
    least: u32,
    /// Zones where this class is not kept.
    disabled: Vec<Name>,
}

/// `prefetch AMOUNT [DURATION [PERCENT%]]`: a name asked for often is fetched again before it expires.
#[derive(Clone, Copy, Debug)]
struct Prefetch {
    amount: u32,
    within: Duration,
    percent: u32,
}

/// `serve_stale`: for how long an expired answer may be given, and when.
#[derive(Clone, Copy, Debug)]
struct Stale {
    up_to: Duration,
    /// First try to get a fresh one, for at most this long; otherwise the stale one is given at once.
    verify: Option<Duration>,
    /// The TTL of stale records.
    ttl: u32,
    /// After a failure to get a fresh one, wait this long before the next try.
    recheck: Duration,
}

struct Settings {
    zones: Vec<Name>,
    success: Limits,
    denial: Limits,
    servfail: Duration,
    prefetch: Option<Prefetch>,
    stale: Option<Stale>,
    prefer_positive: bool,
    keep_ttl: bool,
}

/// Which answers are kept of those that are fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Everything,
    /// Those that may take the place of what is known.
    Good,
}

struct Meters {
    requests: Arc<Family>,
    hits: Arc<Family>,
    misses: Arc<Family>,
    entries: Arc<Family>,
    prefetches: Arc<Family>,
    drops: Arc<Family>,
    stale: Arc<Family>,
    evictions: Arc<Family>,
    /// All zones of the plugin, as one label.
    zones: String,
}

struct Cache {
    shared: Arc<Shared>,
}

/// What fetches in the background share with the plugin.
struct Shared {
    settings: Settings,
    success: Store,
    denial: Store,
    meters: Meters,
}

/// Reads `cache [TTL] [ZONE...] { OPTIONS }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let settings = config::settings(setup)?;
    let meters = config::meters(setup, &settings.zones);
    Ok(Some(Arc::new(Cache {
        shared: Arc::new(Shared {
            success: Store::new(settings.success.capacity),
            denial: Store::new(settings.denial.capacity),
            settings,
            meters,
        }),
    })))
}

impl Plugin for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }

    fn fast(&self) -> crate::fast::Fast {
        crate::fast::Fast::Passes
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let shared = &self.shared;
        let known_here = || next.rest().iter().any(|plugin| plugin.holds(request));
        let Some(key) = key(request).filter(|_| {
            matching(&shared.settings.zones, request.name()).is_some() && !known_here()
        }) else {
            return next.serve(request);
        };
        Box::pin(shared.serve(key, request, next))
    }
}

/// The key of a request, if its answer may be shared with other clients.
fn key(request: &Request) -> Option<Key> {
    let message = &request.message;
    let subnet = message
        .edns
        .as_ref()
        .is_some_and(|edns| edns.option(EdnsCode::Subnet).is_some());
    let kind = request.kind();
    let transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR | RecordType::ANY);
    if subnet || transfer || message.metadata.op_code != OpCode::Query {
        return None;
    }
    Some(Key {
        name: names::wire(request.name()).into_boxed_slice(),
        kind: kind.into(),
        class: request.class().into(),
        dnssec_ok: request.dnssec_ok(),
        checking_disabled: message.metadata.checking_disabled,
    })
}

impl Shared {
    async fn serve<'a>(
        self: &'a Arc<Self>,
        key: Key,
        request: &'a mut Request,
        next: Next<'a>,
    ) -> Served {
        let now = Instant::now();
        let server = Arc::clone(&request.server);
        let view = Arc::clone(&request.view);
        let labels = [&*server, &self.meters.zones, &*view];
        self.meters.requests.with(&labels).increment();
        let found = self.find(&key, now);
        let Some((entry, class)) = found else {
            self.meters.misses.with(&labels).increment();
            return self.fetch(key, request, next, Keep::Everything).await;
        };
        let hit = |entry: &Entry, ttl| {
            self.meters
                .hits
                .with(&[&*server, class, &self.meters.zones, &*view])
                .increment();
            self.answer(entry, ttl, now)
        };
        if entry.fresh(now) {
            let message = hit(&entry, None);
            self.maybe_prefetch(&key, &entry, request, next, now);
            return Ok(reply(request, message));
        }
        // Only entries that may be given stale are found after they expired.
        let Some(stale) = self.settings.stale else {
            return self.fetch(key, request, next, Keep::Everything).await;
        };
        let mut served = hit(&entry, Some(stale.ttl));
        served.metadata.authoritative = false;
        let waiting = entry.recheck_after(now, stale.recheck);
        if let Some(patience) = stale.verify.filter(|_| !waiting) {
            let fetched = {
                let fetch = self.fetch(key, request, next, Keep::Good);
                if patience.is_zero() {
                    Some(fetch.await)
                } else {
                    tokio::time::timeout(patience, fetch).await.ok()
                }
            };
            match fetched {
                Some(Ok(outcome)) if !failed(&outcome) => return Ok(outcome),
                _ => entry.failed(now),
            }
        } else if !waiting {
            self.refresh(&key, &entry, request, next);
        }
        self.meters.stale.with(&labels).increment();
        Ok(reply(request, served))
    }

    /// A fresh entry, else one that may be given although it expired. A failure never hides what is known.
    fn find(&self, key: &Key, now: Instant) -> Option<(Arc<Entry>, &'static str)> {
        let denial = self.denial.get(key).map(|entry| (entry, "denial"));
        let success = self.success.get(key).map(|entry| (entry, "success"));
        let (mut found, failures): (Vec<_>, Vec<_>) = [denial, success]
            .into_iter()
            .flatten()
            .partition(|(entry, _)| is_good(&entry.message));
        if let Some(index) = found.iter().position(|(entry, _)| entry.fresh(now)) {
            return Some(found.swap_remove(index));
        }
        found.retain(|(entry, _)| {
            let stale = self.settings.stale;
            stale.is_some_and(|stale| entry.expired_for(now) <= stale.up_to)
        });
        let known = if self.settings.prefer_positive {
            found.pop()
        } else {
            found.into_iter().next()
        };
        known.or_else(|| failures.into_iter().find(|(entry, _)| entry.fresh(now)))
    }

    async fn fetch<'a>(
        self: &'a Arc<Self>,
        key: Key,
        request: &'a mut Request,
        next: Next<'a>,
        keep: Keep,
    ) -> Served {
        let mut served = next.serve(request).await;
        if let Ok(Outcome::Answer(response)) = &mut served
            && (keep == Keep::Everything || is_good(&response.message))
        {
            self.keep(key, request, response);
            if !NEVER_KEPT.contains(&response.plugin) {
                self.shorten(&mut response.message);
                told_securely(request, &mut response.message);
            }
        }
        served
    }

    /// Keeps an answer if it may be kept.
    fn keep(&self, key: Key, request: &Request, response: &Response) {
        if NEVER_KEPT.contains(&response.plugin) {
            return;
        }
        let message = &response.message;
        let labels = [&*request.server, &self.meters.zones, &*request.view];
        if message.metadata.message_type != MessageType::Response || !answers(message, request) {
            self.meters.drops.with(&labels).increment();
            return;
        }
        let Some((class, seconds)) = self.lifetime(message) else {
            return;
        };
        let (store, limits) = match class {
            "success" => (&self.success, &self.settings.success),
            _ => (&self.denial, &self.settings.denial),
        };
        if seconds.is_zero() || matching(&limits.disabled, request.name()).is_some() {
            return;
        }
        if class == "success" {
            // What exists now did not become false by having been absent.
            self.denial.remove(&key);
        }
        let evicted = store.put(key, Entry::new(message.clone(), seconds));
        let classed = [&*request.server, class, &self.meters.zones, &*request.view];
        self.meters.evictions.with(&classed).add(evicted);
        #[expect(clippy::cast_precision_loss, reason = "the number of entries is small")]
        self.meters.entries.with(&classed).set(store.len() as f64);
    }

    /// Nobody keeps an answer for longer than this server does, whoever comes first.
    fn shorten(&self, message: &mut Message) {
        let Some((_, lifetime)) = self.lifetime(message).filter(|(_, kept)| !kept.is_zero()) else {
            return;
        };
        let most = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let sections = [
            &mut message.answers,
            &mut message.authorities,
            &mut message.additionals,
        ];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.min(most);
        }
    }

    /// The class of an answer and how long it is kept; nothing if it is not.
    fn lifetime(&self, message: &Message) -> Option<(&'static str, Duration)> {
        if message.metadata.truncation {
            return None;
        }
        let clamp = |seconds: u32, limits: &Limits| {
            let seconds = seconds.max(limits.least).min(limits.longest);
            Duration::from_secs(u64::from(seconds))
        };
        match message.metadata.response_code {
            ResponseCode::NoError if !message.answers.is_empty() => {
                let ttl = message.all_sections().map(|record| record.ttl).min()?;
                Some(("success", clamp(ttl, &self.settings.success)))
            }
            ResponseCode::NoError | ResponseCode::NXDomain => {
                let ttl = negative_ttl(message)?;
                Some(("denial", clamp(ttl, &self.settings.denial)))
            }
            ResponseCode::ServFail => Some(("denial", self.settings.servfail)),
            _ => None,
        }
    }

    /// The message of an entry with the time that has passed taken off its TTLs.
    fn answer(&self, entry: &Entry, ttl: Option<u32>, now: Instant) -> Message {
        let mut message = entry.message.clone();
        let age = u32::try_from(entry.age(now).as_secs()).unwrap_or(u32::MAX);
        let left = u32::try_from(entry.left(now).as_secs()).unwrap_or(u32::MAX);
        let lifetime = u32::try_from(entry.lifetime.as_secs()).unwrap_or(u32::MAX);
        let sections = [
            &mut message.answers,
            &mut message.authorities,
            &mut message.additionals,
        ];
        for record in sections.into_iter().flatten() {
            record.ttl = match ttl {
                Some(ttl) => ttl,
                None if self.settings.keep_ttl => record.ttl.min(lifetime),
                // Kept for less than the records allow: nobody behind us keeps them longer.
                None => record.ttl.saturating_sub(age).min(left.max(1)),
            };
        }
        message
    }

    fn maybe_prefetch(
        self: &Arc<Self>,
        key: &Key,
        entry: &Arc<Entry>,
        request: &Request,
        next: Next<'_>,
        now: Instant,
    ) {
        let Some(prefetch) = self.settings.prefetch else {
            return;
        };
        let hits = entry.hit(now, prefetch.within);
        // A percentage before the end, or a second where that is more.
        let share = entry.lifetime * prefetch.percent / 100;
        let due = entry.left(now) <= share.max(Duration::from_secs(1));
        if hits >= prefetch.amount && due {
            let labels = [&*request.server, &self.meters.zones, &*request.view];
            self.meters.prefetches.with(&labels).increment();
            self.refresh(key, entry, request, next);
        }
    }

    /// Fetches an entry again in the background, once at a time.
    fn refresh(self: &Arc<Self>, key: &Key, entry: &Arc<Entry>, request: &Request, next: Next<'_>) {
        if entry.refreshing.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(self);
        let (key, entry, mut request) = (key.clone(), Arc::clone(entry), request.clone());
        let rest: Detached = next.detach();
        tokio::spawn(async move {
            match rest.serve(&mut request).await {
                Ok(outcome) if !failed(&outcome) => {
                    if let Outcome::Answer(response) = &outcome {
                        shared.keep(key, &request, response);
                    }
                }
                _ => entry.failed(Instant::now()),
            }
            entry.refreshing.store(false, Ordering::Relaxed);
        });
    }
}

fn reply(request: &Request, mut message: Message) -> Outcome {
    message.metadata.id = request.message.metadata.id;
    message.metadata.recursion_desired = request.message.metadata.recursion_desired;
    message.metadata.checking_disabled = request.message.metadata.checking_disabled;
    message.queries.clone_from(&request.message.queries);
    told_securely(request, &mut message);
    Outcome::answer("cache", message)
}

/// That an answer was validated is told to those who say that they understand it (RFC 6840 sections 5.7 and 5.8).
fn told_securely(request: &Request, message: &mut Message) {
    if !request.dnssec_ok() && !request.message.metadata.authentic_data {
        message.metadata.authentic_data = false;
    }
}

fn failed(outcome: &Outcome) -> bool {
    !outcome.message().is_some_and(is_good)
}

/// Whether a message tells what is there and what is not: nothing else takes the place of what was known (RFC 8767
/// section 4).
fn is_good(message: &Message) -> bool {
    let code = message.metadata.response_code;
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// True if the answer repeats the question that was asked.
fn answers(message: &Message, request: &Request) -> bool {
    message.queries.first().is_none_or(|question| {
        question.name() == request.name()
            && question.query_type() == request.kind()
            && question.query_class() == request.class()
    })
}

/// The TTL of a negative answer: the lesser of the SOA's own and its minimum (RFC 2308, 5). Without an SOA it is
/// not kept.
fn negative_ttl(message: &Message) -> Option<u32> {
    message
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        })
}
