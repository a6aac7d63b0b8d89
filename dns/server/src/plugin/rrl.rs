//! `rrl`: bounds equal answers to one network, so that nobody is flooded through this server by forged queries.
//! Only datagrams count: who completes a handshake is who he says. Options are those of the plugin of this name for
//! CoreDNS.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::RecordType;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::corefile::ConfigError;
use crate::corefile::Token;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Family;
use crate::metrics::Kind;
use crate::names;

const OPTIONS: &[&str] = &[
    "errors-per-second",
    "ipv4-prefix-length",
    "ipv6-prefix-length",
    "max-table-size",
    "nodata-per-second",
    "nxdomains-per-second",
    "referrals-per-second",
    "report-only",
    "requests-per-second",
    "responses-per-second",
    "slip-ratio",
    "window",
];

/// What an answer counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    Response,
    NoData,
    NxDomain,
    Referral,
    Error,
    Request,
}

const CLASSES: usize = 6;

struct Rrl {
    zones: Vec<Name>,
    /// Answers a second for each class; nothing means without limit.
    rates: [Option<f64>; CLASSES],
    window: Duration,
    v4: u8,
    v6: u8,
    /// Every so many dropped answers one is sent empty and truncated, so that a true client asks again by TCP.
    slip: u32,
    report_only: bool,
    table: Mutex<Table>,
    table_max: usize,
    hasher: RandomState,
    dropped: Arc<Family>,
    shed: Arc<Family>,
}

/// Accounts by a hash of network, class and name: a collision costs a stranger a slipped answer at worst.
#[derive(Default)]
struct Table {
    accounts: HashMap<u64, Account>,
}

struct Account {
    /// Answers that may still be sent; negative after too many.
    balance: f64,
    /// When the balance was brought up to date.
    at: Instant,
    slipped: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Send,
    Slip,
    Drop,
}

/// Reads `rrl [ZONE...] { OPTIONS }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let registry = &setup.environment.metrics;
    let mut rrl = Rrl {
        zones: setup.zones_of(&line.args)?,
        rates: [None; CLASSES],
        window: Duration::from_secs(15),
        v4: 24,
        v6: 56,
        slip: 2,
        report_only: false,
        table: Mutex::default(),
        table_max: 100_000,
        hasher: RandomState::new(),
        dropped: registry.family(
            "coredns_rrl_responses_exceeded_total",
            "Counter of responses exceeding QPS limit.",
            Kind::Counter,
            &["client_ip"],
        ),
        shed: registry.family(
            crate::instance::SHED,
            crate::instance::SHED_HELP,
            Kind::Counter,
            &["reason"],
        ),
    };
    let mut responses = None;
    for option in &line.block {
        let word = match option.name.text.as_str() {
            "report-only" => {
                rrl.report_only = option.exactly::<0>().map(|_| true)?;
                continue;
            }
            name if OPTIONS.contains(&name) => option.exactly::<1>()?[0],
            _ => return Err(option.unknown("rrl", OPTIONS)),
        };
        let class = match option.name.text.as_str() {
            "responses-per-second" => {
                responses = Some(rate(word)?);
                Class::Response
            }
            "nodata-per-second" => Class::NoData,
            "nxdomains-per-second" => Class::NxDomain,
            "referrals-per-second" => Class::Referral,
            "errors-per-second" => Class::Error,
            "requests-per-second" => Class::Request,
            other => {
                match other {
                    "window" => {
                        rrl.window = word
                            .duration()?
                            .clamp(Duration::from_secs(1), Duration::from_secs(3600));
                    }
                    "ipv4-prefix-length" => rrl.v4 = word.number(1, 32)?,
                    "ipv6-prefix-length" => rrl.v6 = word.number(1, 128)?,
                    "slip-ratio" => rrl.slip = word.number(0, 10)?,
                    _ => rrl.table_max = word.number(100, 10_000_000)?,
                }
                continue;
            }
        };
        if let Some(place) = rrl.rates.get_mut(class as usize) {
            *place = rate(word)?;
        }
    }
    // Classes that are not named have the rate of answers in general.
    if let Some(responses) = responses {
        let named = |name: &str| line.block.iter().any(|option| option.name.text == name);
        for (class, name) in [
            (Class::NoData, "nodata-per-second"),
            (Class::NxDomain, "nxdomains-per-second"),
            (Class::Referral, "referrals-per-second"),
            (Class::Error, "errors-per-second"),
        ] {
            if let Some(place) = rrl.rates.get_mut(class as usize).filter(|_| !named(name)) {
                *place = responses;
            }
        }
    }
    Ok(Some(Arc::new(rrl)))
}

/// A rate; zero means without limit.
fn rate(word: &Token) -> Result<Option<f64>, ConfigError> {
    match word.text.parse::<f64>() {
        Ok(rate) if rate == 0.0 => Ok(None),
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Some(rate)),
        Ok(_) | Err(_) => Err(word.error(
            format!("rrl: {:?} is not a rate", word.text),
            "write answers a second, or 0 for no limit",
        )),
    }
}

impl Plugin for Rrl {
    fn name(&self) -> &'static str {
        "rrl"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let Some(zone) =
            matching(&self.zones, request.name()).filter(|_| !request.transport.is_stream())
        else {
            return next.serve(request);
        };
        let client = request.client.ip().to_canonical();
        let now = Instant::now();
        if self.debit(client, Class::Request, &[], now) != Verdict::Send {
            self.count(client);
            if !self.report_only {
                return Box::pin(async { Ok(Outcome::Silence("rrl")) });
            }
        }
        Box::pin(async move {
            let served = next.serve(request).await;
            let (class, token) = match &served {
                Ok(Outcome::Answer(response)) => account(&response.message, request, zone),
                Ok(Outcome::Stream(_) | Outcome::Silence(_)) => return served,
                Err(_) => (Class::Error, Vec::new()),
            };
            match self.debit(client, class, &token, now) {
                Verdict::Send => served,
                _ if self.report_only => {
                    self.count(client);
                    served
                }
                Verdict::Slip => {
                    self.count(client);
                    let mut message = request.reply(ResponseCode::NoError);
                    message.metadata.truncation = true;
                    Ok(Outcome::answer("rrl", message))
                }
                Verdict::Drop => {
                    self.count(client);
                    self.shed.with(&["rrl"]).increment();
                    Ok(Outcome::Silence("rrl"))
                }
            }
        })
    }
}

/// What an answer counts as, and under which name: denials under the zone that denies, so that random names below
/// it are one account.
fn account(message: &Message, request: &Request, zone: &Name) -> (Class, Vec<u8>) {
    let with_kind = |name: &Name| {
        let mut token = names::wire(name);
        token.extend(u16::from(request.kind()).to_be_bytes());
        token
    };
    let denier = message
        .authorities
        .iter()
        .find(|record| matches!(record.data, RData::SOA(_)));
    let denier = denier.map_or(zone, |record| &record.name);
    match message.metadata.response_code {
        ResponseCode::NoError if !message.answers.is_empty() => {
            (Class::Response, with_kind(request.name()))
        }
        ResponseCode::NoError => {
            let referral = message
                .authorities
                .iter()
                .find(|record| record.record_type() == RecordType::NS);
            match referral.filter(|_| !message.metadata.authoritative) {
                Some(cut) => (Class::Referral, names::wire(&cut.name)),
                None => (Class::NoData, with_kind(request.name())),
            }
        }
        ResponseCode::NXDomain => (Class::NxDomain, names::wire(denier)),
        _ => (Class::Error, Vec::new()),
    }
}

impl Rrl {
    fn count(&self, _client: IpAddr) {
        // Addresses as labels would be as many as a forger likes.
        self.dropped.with(&["all"]).increment();
    }

    /// Takes one answer from an account.
    fn debit(&self, client: IpAddr, class: Class, token: &[u8], now: Instant) -> Verdict {
        let Some(rate) = self.rates.get(class as usize).copied().flatten() else {
            return Verdict::Send;
        };
        let account = self.hasher.hash_one((self.network(client), class, token));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.accounts.len() >= self.table_max && !table.accounts.contains_key(&account) {
            table.clean(now, self.window, self.table_max);
        }
        let floor = -rate * self.window.as_secs_f64();
        let found = table.accounts.entry(account).or_insert(Account {
            balance: rate.max(1.0),
            at: now,
            slipped: 0,
        });
        let earned = now.saturating_duration_since(found.at).as_secs_f64() * rate;
        found.at = now;
        found.balance = (found.balance + earned).min(rate.max(1.0)) - 1.0;
        found.balance = found.balance.max(floor);
        if found.balance >= 0.0 {
            return Verdict::Send;
        }
        found.slipped += 1;
        if self.slip > 0 && found.slipped >= self.slip && class != Class::Request {
            found.slipped = 0;
            return Verdict::Slip;
        }
        Verdict::Drop
    }

    fn network(&self, client: IpAddr) -> u128 {
        match client {
            IpAddr::V4(address) => u128::from(u32::from(address) >> (32 - self.v4)),
            IpAddr::V6(address) => u128::from(address) >> (128 - u32::from(self.v6)) | 1 << 127,
        }
    }
}

impl Table {
    /// Forgets accounts that have been still for a window; if that is not enough, half of them in no order.
    fn clean(&mut self, now: Instant, window: Duration, most: usize) {
        self.accounts
            .retain(|_, account| now.saturating_duration_since(account.at) < window);
        if self.accounts.len() >= most {
            let mut keep = false;
            self.accounts.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    fn limiter(slip: u32, most: usize) -> Rrl {
        let registry = Registry::default();
        let mut rates = [None; CLASSES];
        rates[Class::NxDomain as usize] = Some(10.0);
        Rrl {
            zones: vec![Name::root()],
            rates,
            window: Duration::from_secs(15),
            v4: 24,
            v6: 56,
            slip,
            report_only: false,
            table: Mutex::default(),
            table_max: most,
            hasher: RandomState::new(),
            dropped: registry.family("a", "A.", Kind::Counter, &["client_ip"]),
            shed: registry.family("b", "B.", Kind::Counter, &["reason"]),
        }
    }

    #[test]
    fn a_network_gets_its_rate() {
        let limiter = limiter(2, 1000);
        let now = Instant::now();
        let ask = |host: u8, at: Duration| {
            let client = IpAddr::from([192, 0, 2, host]);
            limiter.debit(client, Class::NxDomain, b"zone", now + at)
        };
        for host in 0..10 {
            assert_eq!(ask(host, Duration::ZERO), Verdict::Send);
        }
        assert_eq!(ask(1, Duration::ZERO), Verdict::Drop);
        assert_eq!(ask(2, Duration::ZERO), Verdict::Slip);
        let elsewhere = IpAddr::from([198, 51, 100, 1]);
        assert_eq!(
            limiter.debit(elsewhere, Class::NxDomain, b"zone", now),
            Verdict::Send
        );
        assert_eq!(
            limiter.debit(elsewhere, Class::Response, b"zone", now),
            Verdict::Send
        );
        // The debt of two is paid in a fifth of a second; the next answer needs another tenth.
        assert_eq!(ask(3, Duration::from_millis(400)), Verdict::Send);
    }

    #[test]
    fn the_table_is_bounded() {
        let limiter = limiter(0, 1000);
        let now = Instant::now();
        for number in 0u32..100_000 {
            let client = IpAddr::from((number << 8).to_be_bytes());
            limiter.debit(client, Class::NxDomain, b"zone", now);
        }
        assert!(limiter.table.lock().unwrap().accounts.len() <= 1000);
    }
}
