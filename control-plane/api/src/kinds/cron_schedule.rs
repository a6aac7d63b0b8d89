//! Schedules as cron(8) writes them: whether one can be understood, in the words that users of Kubernetes know.

/// A field: the least and the greatest value, and names for values.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Minute, hour, day of the month, month, day of the week.
const FIELDS: [Bounds; 5] = [
    Bounds {
        min: 0,
        max: 59,
        names: &[],
    },
    Bounds {
        min: 0,
        max: 23,
        names: &[],
    },
    Bounds {
        min: 1,
        max: 31,
        names: &[],
    },
    Bounds {
        min: 1,
        max: 12,
        names: MONTHS,
    },
    Bounds {
        min: 0,
        max: 6,
        names: DAYS,
    },
];

/// Why a schedule can't be understood.
pub(super) fn fault(schedule: &str) -> Option<String> {
    if schedule.is_empty() {
        return Some("empty spec string".to_owned());
    }
    if let Some(rest) = schedule.strip_prefix('@') {
        return descriptor(schedule, rest);
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Some(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    fields
        .iter()
        .zip(&FIELDS)
        .flat_map(|(field, bounds)| field.split(',').map(move |part| (part, bounds)))
        .filter(|(part, _)| !part.is_empty())
        .find_map(|(part, bounds)| range(part, bounds).err())
}

fn descriptor(schedule: &str, name: &str) -> Option<String> {
    match name {
        "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly" => None,
        _ => match name.strip_prefix("every ") {
            Some(duration) if crate::duration::is_go_duration(duration) => None,
            Some(duration) => Some(format!(
                "failed to parse duration {schedule}: time: invalid duration {duration:?}"
            )),
            None => Some(format!("unrecognized descriptor: {schedule}")),
        },
    }
}

fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let (span, step) = match text.split('/').collect::<Vec<_>>().as_slice() {
        [span] => (*span, None),
        [span, step] => (*span, Some(*step)),
        _ => return Err(format!("too many slashes: {text}")),
    };
    let ends: Vec<&str> = span.split('-').collect();
    let (start, end) = match ends.as_slice() {
        ["*" | "?"] => (bounds.min, bounds.max),
        [one] => {
            let start = number(one, bounds.names)?;
            // With a step: from there on.
            (start, if step.is_some() { bounds.max } else { start })
        }
        [start, end] => (number(start, bounds.names)?, number(end, bounds.names)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = step.map_or(Ok(1), |step| number(step, &[]))?;
    let (min, max) = (bounds.min, bounds.max);
    if start < min {
        Err(format!(
            "beginning of range ({start}) below minimum ({min}): {text}"
        ))
    } else if end > max {
        Err(format!(
            "end of range ({end}) above maximum ({max}): {text}"
        ))
    } else if start > end {
        Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ))
    } else if step == 0 {
        Err(format!("step of range should be a positive number: {text}"))
    } else {
        Ok(())
    }
}

fn number(text: &str, names: &[&str]) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = names.iter().position(|name| *name == lower) {
        let first = u32::from(names.len() == MONTHS.len());
        return Ok(at as u32 + first);
    }
    if let Some(digits) = text.strip_prefix('-').filter(|d| d.parse::<u32>().is_ok()) {
        return Err(format!("negative number (-{digits}) not allowed: {text}"));
    }
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6,12 1 jan-mar SUN",
            "@daily",
            "@every 1h30m",
            "0 0 ? * 1/2",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, why) in [
            ("nope", "expected exactly 5 fields, found 1: [nope]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-3 * * * *",
                "beginning of range (5) beyond end of range (3): 5-3",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("@foo", "unrecognized descriptor: @foo"),
            ("", "empty spec string"),
        ] {
            assert_eq!(fault(bad).as_deref(), Some(why));
        }
    }
}
