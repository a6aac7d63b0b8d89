//! Kubernetes' own: URLs, quantities, addresses, versions, named formats.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cost;
use crate::eval::{Evaluation, Failure};
use crate::formats;
use crate::net;
use crate::quantity::Quantity;
use crate::semver::Semver;
use crate::url::Url;
use crate::value::Value;

pub(super) fn call<'a>(
    evaluation: &mut Evaluation<'a>,
    name: &str,
    member: bool,
    values: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    let found = match values {
        [] => name
            .strip_prefix("format.")
            .and_then(formats::find)
            .map(Value::Format),
        [first, rest @ ..] => match first.as_text().filter(|_| !member) {
            Some(text) => {
                evaluation.spend(cost::hundredths(text.len() as u64, cost::TEXT))?;
                parse(name, text, rest)?
            }
            None => method(name, first, rest)?,
        },
    };
    if found.is_some() {
        evaluation.spend(1)?;
    }
    Ok(found)
}

fn parse<'a>(name: &str, text: &str, rest: &[Value<'a>]) -> Result<Option<Value<'a>>, Failure> {
    let normalise = match rest {
        [] => false,
        [Value::Bool(flag)] if matches!(name, "semver" | "isSemver") => *flag,
        _ => return Ok(None),
    };
    let bad = |what: &str| Failure::new(format!("{what}: {text}"));
    Ok(Some(match name {
        "isURL" => Value::Bool(Url::parse(text).is_some()),
        "url" => Value::Url(Arc::new(Url::parse(text).ok_or_else(|| bad("URL parse error during conversion from string"))?)),
        "isQuantity" => Value::Bool(Quantity::parse(text).is_some()),
        "quantity" => Value::Quantity(Quantity::parse(text).ok_or_else(|| Failure::new("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"))?),
        "isIP" => Value::Bool(net::ip(text).is_some()),
        "ip" => Value::Ip(net::ip(text).ok_or_else(|| bad("IP Address parse error during conversion from string"))?),
        "ip.isCanonical" => {
            let ip = net::ip(text).ok_or_else(|| bad("IP Address parse error during conversion from string"))?;
            Value::Bool(ip.to_string() == text)
        }
        "isCIDR" => Value::Bool(net::cidr(text).is_some()),
        "cidr" => {
            let (ip, bits) = net::cidr(text).ok_or_else(|| bad("network address parse error during conversion from string"))?;
            Value::Cidr(ip, bits)
        }
        "isSemver" => Value::Bool(Semver::parse(text, normalise).is_some()),
        "semver" => Value::Semver(Arc::new(Semver::parse(text, normalise).ok_or_else(|| Failure::new("Invalid Semantic Version"))?)),
        "format.named" => formats::find(text).map_or(Value::Optional(None), |format| Value::some(Value::Format(format))),
        _ => return Ok(None),
    }))
}

fn method<'a>(
    name: &str,
    target: &Value<'a>,
    rest: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    match target {
        Value::Url(url) => Ok(of_url(name, url)),
        Value::Quantity(quantity) => of_quantity(name, *quantity, rest),
        Value::Ip(ip) => Ok(of_ip(name, *ip)),
        Value::Cidr(ip, bits) => of_cidr(name, (*ip, *bits), rest),
        Value::Semver(version) => Ok(of_semver(name, version, rest)),
        Value::Format(format) => match (name, rest.first().and_then(Value::as_text)) {
            ("validate", Some(text)) => Ok(Some(match format.validate(text) {
                None => Value::Optional(None),
                Some(why) => Value::some(Value::list(vec![Value::text(why)])),
            })),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn of_url<'a>(name: &str, url: &Url) -> Option<Value<'a>> {
    Some(match name {
        "getScheme" => Value::text(&url.scheme),
        "getHost" => Value::text(&url.host),
        "getHostname" => Value::text(url.hostname()),
        "getPort" => Value::text(url.port()),
        "getEscapedPath" => Value::text(&url.path),
        "getQuery" => {
            let entries = url.query_values().into_iter().map(|(name, values)| {
                let values = values.iter().map(Value::text).collect();
                (Value::text(name), Value::list(values))
            });
            Value::Map(Arc::new(entries.collect()))
        }
        _ => return None,
    })
}

fn of_quantity<'a>(
    name: &str,
    quantity: Quantity,
    rest: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    let other = match rest {
        [Value::Quantity(other)] => Some(*other),
        [Value::Int(n)] => Some(Quantity::whole(*n)),
        _ => None,
    };
    Ok(Some(match (name, other) {
        ("isInteger", None) => Value::Bool(quantity.as_integer().is_some()),
        ("asInteger", None) => Value::Int(
            quantity
                .as_integer()
                .ok_or_else(|| Failure::new("cannot convert value to integer"))?,
        ),
        ("asApproximateFloat", None) => Value::Double(quantity.as_float()),
        ("sign", None) => Value::Int(quantity.sign()),
        ("add", Some(other)) => Value::Quantity(quantity.plus(other)),
        ("sub", Some(other)) => Value::Quantity(quantity.minus(other)),
        ("isGreaterThan", Some(other)) => Value::Bool(quantity > other),
        ("isLessThan", Some(other)) => Value::Bool(quantity < other),
        ("compareTo", Some(other)) => Value::Int(order(quantity.cmp(&other))),
        _ => return Ok(None),
    }))
}

fn order(order: Ordering) -> i64 {
    match order {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

fn of_ip<'a>(name: &str, ip: IpAddr) -> Option<Value<'a>> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    Some(match name {
        "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(ip.is_unspecified()),
        "isLoopback" => Value::Bool(ip.is_loopback()),
        "isLinkLocalUnicast" => Value::Bool(link_local),
        "isLinkLocalMulticast" => Value::Bool(link_local_multicast),
        "isGlobalUnicast" => {
            let other = ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || link_local
                || broadcast;
            Value::Bool(!other)
        }
        _ => return None,
    })
}

fn of_cidr<'a>(
    name: &str,
    prefix: (IpAddr, u8),
    rest: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    let bad = |text: &str| {
        Failure::new(format!(
            "network address parse error during conversion from string: {text}"
        ))
    };
    Ok(Some(match (name, rest) {
        ("ip", []) => Value::Ip(prefix.0),
        ("masked", []) => Value::Cidr(net::masked(prefix.0, prefix.1), prefix.1),
        ("prefixLength", []) => Value::Int(prefix.1.into()),
        ("containsIP", [other]) => {
            let ip = match other {
                Value::Ip(ip) => *ip,
                other => {
                    let text = other.as_text().unwrap_or_default();
                    net::ip(text).ok_or_else(|| bad(text))?
                }
            };
            Value::Bool(net::contains(prefix, ip))
        }
        ("containsCIDR", [other]) => {
            let (ip, bits) = match other {
                Value::Cidr(ip, bits) => (*ip, *bits),
                other => {
                    let text = other.as_text().unwrap_or_default();
                    net::cidr(text).ok_or_else(|| bad(text))?
                }
            };
            Value::Bool(bits >= prefix.1 && net::contains(prefix, ip))
        }
        _ => return Ok(None),
    }))
}

fn of_semver<'a>(name: &str, version: &Semver, rest: &[Value<'a>]) -> Option<Value<'a>> {
    let number = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let other = match rest {
        [Value::Semver(other)] => Some(version.compare(other)),
        _ => None,
    };
    Some(match (name, other) {
        ("major", None) => number(version.numbers[0]),
        ("minor", None) => number(version.numbers[1]),
        ("patch", None) => number(version.numbers[2]),
        ("isGreaterThan", Some(met)) => Value::Bool(met == Ordering::Greater),
        ("isLessThan", Some(met)) => Value::Bool(met == Ordering::Less),
        ("compareTo", Some(met)) => Value::Int(order(met)),
        _ => return None,
    })
}
