//! The lines of `cache`.

use std::time::Duration;

use hickory_proto::rr::Name;

use super::Limits;
use super::Meters;
use super::Prefetch;
use super::Settings;
use super::Stale;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Token;
use crate::metrics::Kind;
use crate::plugin::setup::Setup;
use crate::plugin::setup::zones;

/// Entries of a class where the Corefile does not say, as CoreDNS.
const CAPACITY: usize = 9984;
/// Entries of a class at most: each takes memory until it is evicted.
const CAPACITY_MAX: usize = 10_000_000;

const OPTIONS: &[&str] = &[
    "denial",
    "disable",
    "keepttl",
    "prefetch",
    "serve_stale",
    "serve_stale_policy",
    "servfail",
    "success",
];

pub(super) fn settings(setup: &Setup<'_>) -> Result<Settings, ConfigError> {
    let line = setup.once()?;
    let mut settings = Settings {
        zones: Vec::new(),
        success: Limits {
            capacity: CAPACITY,
            longest: 3600,
            least: 5,
            disabled: Vec::new(),
        },
        denial: Limits {
            capacity: CAPACITY,
            longest: 1800,
            least: 5,
            disabled: Vec::new(),
        },
        servfail: Duration::from_secs(5),
        prefetch: None,
        stale: None,
        prefer_positive: false,
        keep_ttl: false,
    };
    let mut words = line.args.as_slice();
    if let [first, rest @ ..] = words
        && first.text.bytes().all(|octet| octet.is_ascii_digit())
    {
        let ttl = first.number(1, u32::MAX)?;
        settings.success.longest = ttl;
        settings.denial.longest = ttl;
        words = rest;
    }
    settings.zones = setup.zones_of(words)?;
    for option in &line.block {
        read(setup, option, &mut settings)?;
    }
    Ok(settings)
}

fn read(setup: &Setup<'_>, option: &Directive, settings: &mut Settings) -> Result<(), ConfigError> {
    option.no_block()?;
    match option.name.text.as_str() {
        "success" => limits(option, &mut settings.success)?,
        "denial" => limits(option, &mut settings.denial)?,
        "servfail" => {
            let [word] = option.exactly()?;
            let time = word.duration()?;
            if time > Duration::from_secs(300) {
                return Err(word.error(
                    "cache: servfail is longer than 5m",
                    "write at most 5m, as RFC 2308 demands",
                ));
            }
            settings.servfail = time;
        }
        "prefetch" => settings.prefetch = Some(prefetch(option)?),
        "serve_stale" => settings.stale = Some(stale(option)?),
        "serve_stale_policy" => {
            let [word] = option.exactly()?;
            settings.prefer_positive = match word.text.as_str() {
                "prefer_positive" => true,
                other => {
                    return Err(word.error(
                        format!("cache: unknown serve_stale_policy {other}"),
                        "write prefer_positive",
                    ));
                }
            };
        }
        "keepttl" => {
            option.exactly::<0>()?;
            settings.keep_ttl = true;
        }
        "disable" => {
            let [class, names @ ..] = option.between(1, usize::MAX)? else {
                return Ok(());
            };
            let named = if names.is_empty() {
                setup.zones.to_vec()
            } else {
                zones(names)?
            };
            match class.text.as_str() {
                "success" => settings.success.disabled = named,
                "denial" => settings.denial.disabled = named,
                other => {
                    return Err(class.error(
                        format!("cache: unknown class {other}"),
                        "write success or denial",
                    ));
                }
            }
        }
        _ => return Err(option.unknown("cache", OPTIONS)),
    }
    Ok(())
}

fn limits(option: &Directive, limits: &mut Limits) -> Result<(), ConfigError> {
    let words = option.between(1, 3)?;
    if let Some(capacity) = words.first() {
        // None at all means the fewest.
        limits.capacity = capacity.number(0, CAPACITY_MAX)?.max(1);
    }
    if let Some(longest) = words.get(1) {
        limits.longest = longest.number(1, u32::MAX)?;
    }
    if let Some(least) = words.get(2) {
        limits.least = least.number(0, u32::MAX)?;
    }
    Ok(())
}

fn prefetch(option: &Directive) -> Result<Prefetch, ConfigError> {
    let words = option.between(1, 3)?;
    let mut prefetch = Prefetch {
        amount: 1,
        within: Duration::from_secs(60),
        percent: 10,
    };
    if let Some(amount) = words.first() {
        prefetch.amount = amount.number(0, u32::MAX)?;
    }
    if let Some(within) = words.get(1) {
        prefetch.within = within.duration()?;
    }
    if let Some(percent) = words.get(2) {
        let number = percent
            .text
            .strip_suffix('%')
            .and_then(|text| text.parse().ok());
        let number = number.filter(|number| (10..=90).contains(number));
        prefetch.percent = number.ok_or_else(|| {
            percent.error(
                format!(
                    "cache: {} is not a percentage from 10% to 90%",
                    percent.text
                ),
                "write as 20%",
            )
        })?;
    }
    Ok(prefetch)
}

/// `serve_stale [DURATION] [immediate|verify [TIMEOUT]] [RESPONSE_TTL] [FAILURE_RECHECK]`.
fn stale(option: &Directive) -> Result<Stale, ConfigError> {
    let mut stale = Stale {
        up_to: Duration::from_secs(3600),
        verify: None,
        ttl: 0,
        recheck: Duration::ZERO,
    };
    let words = option.between(0, 5)?;
    let mut times: Vec<&Token> = Vec::new();
    let mut mode = None;
    for word in words {
        match word.text.as_str() {
            "immediate" | "verify" => mode = Some((word.text.as_str(), times.len())),
            _ => times.push(word),
        }
    }
    let mut times = times.into_iter();
    if mode.is_none_or(|(_, before)| before > 0)
        && let Some(word) = times.next()
    {
        stale.up_to = word.duration()?;
    }
    if let Some(("verify", _)) = mode {
        stale.verify = Some(times.next().map_or(Ok(Duration::ZERO), Token::duration)?);
    }
    if let Some(word) = times.next() {
        stale.ttl = u32::try_from(word.duration()?.as_secs()).unwrap_or(u32::MAX);
    }
    if let Some(word) = times.next() {
        stale.recheck = word.duration()?;
    }
    Ok(stale)
}

pub(super) fn meters(setup: &Setup<'_>, zones: &[Name]) -> Meters {
    let registry = &setup.environment.metrics;
    let plain: &[&str] = &["server", "zones", "view"];
    let classed: &[&str] = &["server", "type", "zones", "view"];
    let counter = |name, help, labels| registry.family(name, help, Kind::Counter, labels);
    Meters {
        requests: counter(
            "coredns_cache_requests_total",
            "The count of cache requests.",
            plain,
        ),
        hits: counter(
            "coredns_cache_hits_total",
            "The count of cache hits.",
            classed,
        ),
        misses: counter(
            "coredns_cache_misses_total",
            "The count of cache misses. Deprecated, derive misses from cache hits/requests counters.",
            plain,
        ),
        entries: registry.family(
            "coredns_cache_entries",
            "The number of elements in the cache.",
            Kind::Gauge,
            classed,
        ),
        prefetches: counter(
            "coredns_cache_prefetch_total",
            "The number of times the cache has prefetched a cached item.",
            plain,
        ),
        drops: counter(
            "coredns_cache_drops_total",
            "The number responses that are not cached, because the reply is malformed.",
            plain,
        ),
        stale: counter(
            "coredns_cache_served_stale_total",
            "The number of requests served from stale cache entries.",
            plain,
        ),
        evictions: counter(
            "coredns_cache_evictions_total",
            "The count of cache evictions.",
            classed,
        ),
        zones: zones
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
    }
}
