//! Quantities of resources as decimal numbers: `1.5Gi`, `100m`, `2e3`.

use std::cmp::Ordering;
use std::fmt;

/// A number of billionths. Kubernetes rounds up what is smaller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Quantity(i128);

const UNIT: i128 = 1_000_000_000;
/// What fits into the sum of any two still fits.
const MAX: i128 = i128::MAX / 4;

impl Quantity {
    /// `None` where the text is none, or larger than any resource.
    pub fn parse(text: &str) -> Option<Self> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (negative, digits) = match number.as_bytes().first()? {
            b'-' => (true, &number[1..]),
            b'+' => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty())
            || !plain(whole)
            || !plain(fraction)
            || digits.len() > 40
        {
            return None;
        }
        let (base, power): (i128, i32) = match suffix {
            "" => (10, 0),
            "n" => (10, -9),
            "u" => (10, -6),
            "m" => (10, -3),
            "k" => (10, 3),
            "M" => (10, 6),
            "G" => (10, 9),
            "T" => (10, 12),
            "P" => (10, 15),
            "E" => (10, 18),
            "Ki" => (2, 10),
            "Mi" => (2, 20),
            "Gi" => (2, 30),
            "Ti" => (2, 40),
            "Pi" => (2, 50),
            "Ei" => (2, 60),
            other => {
                let exponent = other.strip_prefix(['e', 'E'])?;
                (
                    10,
                    exponent
                        .parse()
                        .ok()
                        .filter(|power: &i32| power.abs() <= 30)?,
                )
            }
        };
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = i32::try_from(fraction.len()).ok()?;
        let mut value = digits;
        let mut tens = 9 - places;
        if base == 2 {
            value = value.checked_mul(1 << power)?;
        } else {
            tens += power;
        }
        value = if tens >= 0 {
            value.checked_mul(10_i128.checked_pow(tens.unsigned_abs())?)?
        } else {
            let by = 10_i128.checked_pow(tens.unsigned_abs())?;
            value / by + i128::from(value % by != 0)
        };
        if value > MAX {
            return None;
        }
        Some(Quantity(if negative { -value } else { value }))
    }

    /// A whole number.
    pub fn whole(number: i64) -> Self {
        Quantity(i128::from(number) * UNIT)
    }

    /// The sum, as far as it fits.
    pub fn plus(self, other: Self) -> Self {
        Quantity((self.0 + other.0).clamp(-MAX, MAX))
    }

    /// The difference, as far as it fits.
    pub fn minus(self, other: Self) -> Self {
        Quantity((self.0 - other.0).clamp(-MAX, MAX))
    }

    /// The number, if it is a whole one that fits.
    pub fn as_integer(self) -> Option<i64> {
        (self.0 % UNIT == 0)
            .then(|| i64::try_from(self.0 / UNIT).ok())
            .flatten()
    }

    /// As near as a floating number comes.
    #[expect(clippy::cast_precision_loss, reason = "approximate by name")]
    pub fn as_float(self) -> f64 {
        self.0 as f64 / UNIT as f64
    }

    /// -1, 0 or 1.
    pub fn sign(self) -> i64 {
        match self.0.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_integer() {
            Some(whole) => write!(f, "{whole}"),
            None if self.0 % 1_000_000 == 0 => write!(f, "{}m", self.0 / 1_000_000),
            None if self.0 % 1_000 == 0 => write!(f, "{}u", self.0 / 1_000),
            None => write!(f, "{}n", self.0),
        }
    }
}
