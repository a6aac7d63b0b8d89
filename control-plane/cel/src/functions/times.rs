//! Parts of moments and of spans.

use time::{OffsetDateTime, UtcOffset};

use crate::eval::{Evaluation, Failure};
use crate::value::Value;

pub(super) fn call<'a>(
    evaluation: &mut Evaluation<'a>,
    name: &str,
    values: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    let number = match values {
        [Value::Timestamp(at)] => part(name, *at),
        [Value::Timestamp(at), zone] => {
            let zone = offset(zone.as_text().unwrap_or_default())?;
            part(name, at.to_offset(zone))
        }
        [Value::Duration(nanos)] => span(name, *nanos),
        _ => None,
    };
    if number.is_some() {
        evaluation.spend(1)?;
    }
    Ok(number.map(Value::Int))
}

fn part(name: &str, at: OffsetDateTime) -> Option<i64> {
    Some(match name {
        "getFullYear" => at.year().into(),
        "getMonth" => i64::from(u8::from(at.month())) - 1,
        "getDate" => at.day().into(),
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDayOfWeek" => at.weekday().number_days_from_sunday().into(),
        "getDayOfYear" => i64::from(at.ordinal()) - 1,
        "getHours" => at.hour().into(),
        "getMinutes" => at.minute().into(),
        "getSeconds" => at.second().into(),
        "getMilliseconds" => at.millisecond().into(),
        _ => return None,
    })
}

fn span(name: &str, nanos: i64) -> Option<i64> {
    Some(match name {
        "getHours" => nanos / 3_600_000_000_000,
        "getMinutes" => nanos / 60_000_000_000,
        "getSeconds" => nanos / 1_000_000_000,
        "getMilliseconds" => nanos / 1_000_000 % 1000,
        _ => return None,
    })
}

/// `UTC`, `Z` or `+01:00`. Names of places need a database that is not here.
fn offset(zone: &str) -> Result<UtcOffset, Failure> {
    if matches!(zone, "" | "UTC" | "Z") {
        return Ok(UtcOffset::UTC);
    }
    let unknown = || Failure::new(format!("unknown time zone {zone}"));
    let (sign, rest) = match zone.as_bytes().first() {
        Some(b'-') => (-1, &zone[1..]),
        Some(b'+') => (1, &zone[1..]),
        _ => (1, zone),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(unknown)?;
    let parse = |text: &str| text.parse::<i8>().map_err(|_| unknown());
    UtcOffset::from_hms(sign * parse(hours)?, sign * parse(minutes)?, 0).map_err(|_| unknown())
}
