//! Times as Go reads and writes them: `metav1.Time` in whole seconds, `metav1.MicroTime` with six digits after the
//! point, both in UTC whatever was sent. Refusals have the words of Go's `time.Parse`.

use std::borrow::Cow;

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use crate::field::quoted;

/// The elements of the layout: what stands before each, and its name.
const ELEMENTS: &[(&str, &str)] = &[
    ("", "2006"),
    ("-", "01"),
    ("-", "02"),
    ("T", "15"),
    (":", "04"),
    (":", "05"),
    ("", ".000000"),
    ("", "Z07:00"),
];

/// The time in the one spelling in which it is stored.
///
/// # Errors
/// It is no time, in the words of Go's decoder.
pub(super) fn canonical(text: &str, micro: bool) -> Result<Cow<'_, str>, String> {
    if is_canonical(text, micro) {
        return Ok(text.into());
    }
    let layout = if micro {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    let reader = Reader {
        rest: text,
        micro,
        parts: [0; 8],
        offset_secs: 0,
    };
    let parts = reader.read().map_err(|fault| match fault {
        Fault::Element(rest, element) => format!(
            "parsing time {} as \"{layout}\": cannot parse {} as \"{element}\"",
            quoted(text),
            quoted(rest)
        ),
        Fault::Range(what) => format!("parsing time {}: {what} out of range", quoted(text)),
        Fault::Extra(rest) => format!(
            "parsing time {}: extra text: {}",
            quoted(text),
            quoted(rest)
        ),
    })?;
    let Some(time) = parts.moment() else {
        return Err(format!("parsing time {}: day out of range", quoted(text)));
    };
    Ok(shown(time, micro).into())
}

/// Whether the time has that spelling already, which those of stored objects have: every write of an object meets some.
fn is_canonical(text: &str, micro: bool) -> bool {
    let pattern = if micro {
        "0000-00-00T00:00:00.000000Z"
    } else {
        "0000-00-00T00:00:00Z"
    };
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    if text.len() != pattern.len() || !text.iter().zip(pattern).all(fits) {
        return false;
    }
    let number = |from: usize, to: usize| {
        let digits = text[from..to].iter();
        digits.fold(0_u16, |number, digit| number * 10 + u16::from(digit - b'0'))
    };
    let small = |from: usize| u8::try_from(number(from, from + 2)).unwrap_or(u8::MAX);
    let month = Month::try_from(small(5));
    month.is_ok_and(|month| Date::from_calendar_date(number(0, 4).into(), month, small(8)).is_ok())
        && Time::from_hms(small(11), small(14), small(17)).is_ok()
}

fn shown(time: OffsetDateTime, micro: bool) -> String {
    let head = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    if micro {
        format!("{head}.{:06}Z", time.microsecond())
    } else {
        format!("{head}Z")
    }
}

enum Fault<'a> {
    /// The rest of the text, and the element that it does not begin with.
    Element(&'a str, &'static str),
    /// What is too large or too small.
    Range(&'static str),
    /// What is left after the last element.
    Extra(&'a str),
}

struct Reader<'a> {
    rest: &'a str,
    micro: bool,
    /// In the order of the elements; the last is unused.
    parts: [u32; 8],
    offset_secs: i32,
}

impl<'a> Reader<'a> {
    fn read(mut self) -> Result<Self, Fault<'a>> {
        for (at, (before, element)) in ELEMENTS.iter().enumerate() {
            let hold = self.rest;
            let Some(rest) = self.rest.strip_prefix(before) else {
                return Err(Fault::Element(hold, before));
            };
            self.rest = rest;
            let hold = self.rest;
            let bad = Fault::Element(hold, element);
            match *element {
                "2006" => self.parts[at] = self.digits(4).ok_or(bad)?,
                // One digit is enough for the hour.
                "15" => {
                    let hour = self.digits(2).or_else(|| self.digits(1)).ok_or(bad)?;
                    self.parts[at] = hour;
                }
                ".000000" => self.fraction(at, bad)?,
                "Z07:00" => self.zone(bad)?,
                _ => self.parts[at] = self.digits(2).ok_or(bad)?,
            }
            let (range, what) = match *element {
                "01" => (1..=12, "month"),
                "15" => (0..=23, "hour"),
                "04" => (0..=59, "minute"),
                "05" => (0..=59, "second"),
                _ => continue,
            };
            if !range.contains(&self.parts[at]) {
                return Err(Fault::Range(what));
            }
        }
        if self.rest.is_empty() {
            Ok(self)
        } else {
            Err(Fault::Extra(self.rest))
        }
    }

    /// So many digits, taken off the rest.
    fn digits(&mut self, count: usize) -> Option<u32> {
        let head = self.rest.get(..count)?;
        if !head.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.rest = &self.rest[count..];
        head.parse().ok()
    }

    /// Six digits after a point where microseconds are kept; else any number of them, which counts for nothing.
    fn fraction(&mut self, at: usize, bad: Fault<'a>) -> Result<(), Fault<'a>> {
        let digits = self.rest.strip_prefix(['.', ',']);
        if self.micro {
            self.rest = digits.ok_or(Fault::Element(self.rest, ".000000"))?;
            self.parts[at] = self.digits(6).ok_or(bad)?;
        } else if let Some(digits) = digits.filter(|d| d.starts_with(|c: char| c.is_ascii_digit()))
        {
            self.rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        Ok(())
    }

    fn zone(&mut self, bad: Fault<'a>) -> Result<(), Fault<'a>> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(());
        }
        let sign = match self.rest.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(bad),
        };
        self.rest = &self.rest[1..];
        let Some(hours) = self.digits(2) else {
            return Err(bad);
        };
        let minutes = self.rest.strip_prefix(':').and_then(|rest| {
            self.rest = rest;
            self.digits(2)
        });
        let Some(minutes) = minutes else {
            return Err(bad);
        };
        if hours > 24 {
            return Err(Fault::Range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(Fault::Range("time zone offset minute"));
        }
        self.offset_secs = sign * i32::try_from(hours * 3600 + minutes * 60).unwrap_or(0);
        Ok(())
    }

    /// The moment in UTC; `None` where there is no such day, or it is beyond what can be said.
    fn moment(&self) -> Option<OffsetDateTime> {
        let [year, month, day, hour, minute, second, micros, _] = self.parts;
        let small = |n: u32| u8::try_from(n).ok();
        let month = Month::try_from(small(month)?).ok()?;
        let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, small(day)?).ok()?;
        let time =
            Time::from_hms_micro(small(hour)?, small(minute)?, small(second)?, micros).ok()?;
        PrimitiveDateTime::new(date, time)
            .assume_offset(UtcOffset::UTC)
            .checked_sub(time::Duration::seconds(self.offset_secs.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn times_have_one_spelling() {
        for (micro, sent, stored) in [
            (false, "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
            (false, "2020-02-29T23:59:59Z", "2020-02-29T23:59:59Z"),
            (false, "2020-01-01T02:00:00.5+02:00", "2020-01-01T00:00:00Z"),
            (false, "2020-03-01T00:30:00+01:00", "2020-02-29T23:30:00Z"),
            (false, "2020-01-01T5:04:05-05:30", "2020-01-01T10:34:05Z"),
            (
                true,
                "2020-01-01T02:00:00.123456+02:00",
                "2020-01-01T00:00:00.123456Z",
            ),
            (
                true,
                "2020-01-01T00:00:00.000000Z",
                "2020-01-01T00:00:00.000000Z",
            ),
        ] {
            assert_eq!(canonical(sent, micro).as_deref(), Ok(stored), "{sent}");
        }
    }

    #[test]
    fn what_is_no_time() {
        let seconds = "as \"2006-01-02T15:04:05Z07:00\": cannot parse";
        let micros = "as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse";
        for (micro, sent, why) in [
            (false, "", format!("{seconds} \"\" as \"2006\"")),
            (
                false,
                "yesterday",
                format!("{seconds} \"yesterday\" as \"2006\""),
            ),
            (false, "2020", format!("{seconds} \"\" as \"-\"")),
            (
                false,
                "2020-1-01T00:00:00Z",
                format!("{seconds} \"1-01T00:00:00Z\" as \"01\""),
            ),
            (
                false,
                "2020-01-01 00:00:00Z",
                format!("{seconds} \" 00:00:00Z\" as \"T\""),
            ),
            (
                false,
                "2020-01-01T00:00:00",
                format!("{seconds} \"\" as \"Z07:00\""),
            ),
            (
                true,
                "2020-01-01T00:00:00Z",
                format!("{micros} \"Z\" as \".000000\""),
            ),
            (
                true,
                "2020-01-01T00:00:00.123Z",
                format!("{micros} \".123Z\" as \".000000\""),
            ),
            (
                true,
                "2020-01-01T00:00:00.123456789Z",
                format!("{micros} \"789Z\" as \"Z07:00\""),
            ),
        ] {
            let wanted = format!("parsing time {sent:?} {why}");
            assert_eq!(canonical(sent, micro), Err(wanted));
        }
        for (sent, why) in [
            ("2020-13-01T00:00:00Z", "month out of range"),
            ("2021-02-29T00:00:00Z", "day out of range"),
            ("2020-01-01T24:00:00Z", "hour out of range"),
            ("2020-01-01T00:00:60Z", "second out of range"),
            ("2020-01-01T00:00:00Zz", "extra text: \"z\""),
            (
                "2020-01-01T00:00:00+25:00",
                "time zone offset hour out of range",
            ),
        ] {
            let wanted = format!("parsing time {sent:?}: {why}");
            assert_eq!(canonical(sent, false), Err(wanted));
        }
        assert!(canonical("9999-12-31T23:00:00-05:00", false).is_err());
        assert!(canonical("2020-01-01T00:00:00+é0:00", false).is_err());
    }
}
