//! Durations as Kubernetes' flags write them: `5m0s`, `1h30m`, `250ms`; a number alone is of seconds.

use std::time::Duration;

/// Nanoseconds in each unit.
const UNITS: [(&str, f64); 7] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];
/// The longest, in seconds: a hundred years.
const LONGEST: f64 = 100.0 * 365.0 * 86400.0;

/// Reads a duration.
///
/// # Errors
/// What to write instead.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write for instance 5m0s, 90s or 1h30m");
    if text.is_empty() || !text.is_ascii() && !text.contains('µ') {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let letters = behind
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(behind.len());
        let (unit, next) = behind.split_at(letters);
        // A number alone is all there is.
        let nanos = match (unit, rest.len() == text.len()) {
            ("", true) => 1e9,
            _ => {
                UNITS
                    .iter()
                    .find(|(known, _)| *known == unit)
                    .ok_or_else(wrong)?
                    .1
            }
        };
        seconds += number * nanos / 1e9;
        rest = next;
    }
    if seconds > LONGEST {
        return Err(format!("{text:?} is too long"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("5m0s", 300_000),
            ("300", 300_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("1m0.5s", 60_500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "", "-1s", "5", "5x", "s", "5 s", "1m5", "1.2.3s", "9999999h", "é",
        ] {
            assert_eq!(parse(text).is_ok(), text == "5", "{text}");
        }
    }
}
