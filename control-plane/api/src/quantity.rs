//! Quantities: `100m`, `1.5Gi`, `2e3`. Exact decimal arithmetic in nano-units, canonical spelling as Kubernetes has it.

use std::cmp::Ordering;
use std::fmt;

/// An amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// In 10^-9 of the unit; finer amounts are rounded up, larger ones than fit are cut off.
    nanos: i128,
    format: Format,
}

/// How it was written, and is written again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// Ki, Mi, Gi ...
    Binary,
    /// m, k, M, G ...
    DecimalSi,
    /// e3, E6 ...
    Exponent,
}

/// The text is no quantity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct NotAQuantity;

const NANO: i128 = 1_000_000_000;
const MILLI: i128 = NANO / 1000;
/// The largest amount in units, as Kubernetes caps it: 2^63 - 1.
const MAX: i128 = i64::MAX as i128 * NANO;

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::DecimalSi,
    };

    /// So many whole units.
    pub fn units(units: i64) -> Self {
        Quantity {
            nanos: i128::from(units) * NANO,
            ..Quantity::ZERO
        }
    }

    /// The amount in 10^-9 of the unit.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// The sum, at most what Kubernetes caps amounts at. It is spelt as the first that is not zero.
    #[must_use]
    pub fn plus(&self, other: &Quantity) -> Quantity {
        Quantity {
            nanos: self.nanos.saturating_add(other.nanos).clamp(-MAX, MAX),
            format: if self.is_zero() {
                other.format
            } else {
                self.format
            },
        }
    }

    /// The difference, spelt as [`Quantity::plus`] does.
    #[must_use]
    pub fn minus(&self, other: &Quantity) -> Quantity {
        self.plus(&Quantity {
            nanos: -other.nanos,
            format: other.format,
        })
    }

    /// Whether it counts whole thousandths of the unit.
    pub fn is_of_thousandths(&self) -> bool {
        self.nanos % MILLI == 0
    }

    /// In whole thousandths of the unit, away from zero.
    #[must_use]
    pub fn in_thousandths(&self) -> Quantity {
        let rest = self.nanos % MILLI;
        let more = if rest == 0 {
            0
        } else {
            MILLI * self.nanos.signum()
        };
        Quantity {
            nanos: self.nanos - rest + more,
            format: self.format,
        }
    }

    /// Reads a quantity.
    ///
    /// # Errors
    /// The text is no quantity.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(NotAQuantity);
        }
        let (format, scale) = Scale::parse(suffix)?;
        let mut nanos = scale.nanos(whole, fraction);
        if negative {
            nanos = -nanos;
        }
        Ok(Quantity {
            nanos: nanos.clamp(-MAX, MAX),
            format,
        })
    }

    /// Whether there is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it counts whole units, and may be the amount of what can't be divided.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }
}

enum Scale {
    Ten(i32),
    Two(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Result<(Format, Scale), NotAQuantity> {
        if let Some(power) = BINARY.iter().position(|s| *s == suffix).filter(|p| *p > 0) {
            return Ok((Format::Binary, Scale::Two(10 * power as u32)));
        }
        if let Some((_, power)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
            return Ok((Format::DecimalSi, Scale::Ten(*power)));
        }
        let exponent = suffix.strip_prefix(['e', 'E']).ok_or(NotAQuantity)?;
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotAQuantity);
        }
        let power: i32 = exponent.parse().map_err(|_| NotAQuantity)?;
        Ok((Format::Exponent, Scale::Ten(power)))
    }

    /// `whole.fraction` scaled, in nano-units, rounded up, cut off at [`MAX`].
    fn nanos(&self, whole: &str, fraction: &str) -> i128 {
        match self {
            Scale::Ten(power) => {
                // The decimal point moves; digits right of it after that are finer than a nano-unit.
                let shift = i64::from(*power) + 9;
                let digits: String = format!("{whole}{fraction}");
                let point = whole.len() as i64 + shift;
                let mut value: i128 = 0;
                let mut finer = false;
                for (i, digit) in digits.bytes().enumerate() {
                    if (i as i64) < point {
                        value = value
                            .saturating_mul(10)
                            .saturating_add(i128::from(digit - b'0'));
                    } else {
                        finer |= digit != b'0';
                    }
                }
                let missing = (point - digits.len() as i64).max(0);
                for _ in 0..missing.min(40) {
                    value = value.saturating_mul(10);
                }
                value.saturating_add(i128::from(finer)).min(MAX)
            }
            Scale::Two(bits) => {
                let parse = |text: &str| {
                    text.bytes().fold(0_i128, |v, d| {
                        v.saturating_mul(10).saturating_add(i128::from(d - b'0'))
                    })
                };
                let factor = 1_i128 << bits;
                let whole = parse(whole).saturating_mul(factor).saturating_mul(NANO);
                // Eighteen digits of a fraction are more than any unit resolves.
                let fraction = &fraction[..fraction.len().min(18)];
                let unit = 10_i128.pow(fraction.len() as u32);
                let product = parse(fraction).saturating_mul(factor);
                let part = (product / unit)
                    .saturating_mul(NANO)
                    .saturating_add(ceil_div((product % unit).saturating_mul(NANO), unit));
                whole.saturating_add(part).min(MAX)
            }
        }
    }
}

fn ceil_div(a: i128, b: i128) -> i128 {
    a / b + i128::from(a % b != 0)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// Canonical: no fraction, the largest suffix that allows that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let mut format = self.format;
        if format == Format::Binary && (self.nanos.abs() < 1024 * NANO || !self.is_whole()) {
            format = Format::DecimalSi;
        }
        if format == Format::Binary {
            let mut amount = self.nanos / NANO;
            let mut power = 0;
            while amount % 1024 == 0 && power + 1 < BINARY.len() {
                amount /= 1024;
                power += 1;
            }
            return write!(f, "{amount}{}", BINARY[power]);
        }
        let (mut amount, mut power) = (self.nanos, -9);
        while amount % 1000 == 0 && power < 18 {
            amount /= 1000;
            power += 3;
        }
        match format {
            Format::Exponent if power != 0 => write!(f, "{amount}e{power}"),
            Format::Exponent => write!(f, "{amount}"),
            Format::Binary | Format::DecimalSi => {
                let suffix = DECIMAL
                    .iter()
                    .find(|(_, p)| *p == power)
                    .map_or("", |(s, _)| s);
                write!(f, "{amount}{suffix}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_spelling() {
        for (text, canonical) in [
            ("0", "0"),
            ("1", "1"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("2E", "2E"),
            ("12e6", "12e6"),
            ("-5", "-5"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("1n", "1n"),
            ("0.5n", "1n"),
            ("1000k", "1M"),
            ("100Mi", "100Mi"),
            ("1000Mi", "1000Mi"),
            ("9999999999E", "9223372036854775807"),
        ] {
            assert_eq!(
                Quantity::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn no_quantities() {
        for text in [
            "", "a", "1x", "1.2.3", "1 ", "--1", "1e", "1ki", "e3", ".", "1KiB", "1e+",
        ] {
            assert_eq!(Quantity::parse(text), Err(NotAQuantity), "{text}");
        }
    }

    #[test]
    fn order_is_of_amounts() {
        let parse = |t| Quantity::parse(t).unwrap();
        assert_eq!(parse("1"), parse("1000m"));
        assert!(parse("1Gi") > parse("1G"));
        assert!(parse("2") > parse("1500m"));
        assert!(!parse("1m").is_whole());
    }
}
