//! Semantic versions (semver.org 2.0.0).

use std::cmp::Ordering;

/// A version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Semver {
    /// As it was written, normalised where asked.
    pub text: String,
    /// Major, minor, patch.
    pub numbers: [u64; 3],
    pre: Vec<String>,
}

impl Semver {
    /// `normalise` takes a leading `v`, missing numbers and leading zeros.
    pub fn parse(text: &str, normalise: bool) -> Option<Self> {
        let rest = if normalise {
            text.strip_prefix('v').unwrap_or(text)
        } else {
            text
        };
        let (rest, build) = rest
            .split_once('+')
            .map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (core, pre) = rest
            .split_once('-')
            .map_or((rest, None), |(core, pre)| (core, Some(pre)));
        let parts: Vec<&str> = core.split('.').collect();
        let enough = if normalise {
            (1..=3).contains(&parts.len())
        } else {
            parts.len() == 3
        };
        if !enough {
            return None;
        }
        let mut numbers = [0; 3];
        for (slot, part) in numbers.iter_mut().zip(&parts) {
            let zeros = part.len() > 1 && part.starts_with('0');
            if !part.bytes().all(|b| b.is_ascii_digit()) || (zeros && !normalise) {
                return None;
            }
            *slot = part.parse().ok()?;
        }
        let identifiers = |text: &str| {
            text.split('.').all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            })
        };
        let strict = |text: &str| {
            text.split('.').all(|part| {
                !(part.len() > 1
                    && part.starts_with('0')
                    && part.bytes().all(|b| b.is_ascii_digit()))
            })
        };
        if build.is_some_and(|build| !identifiers(build))
            || pre.is_some_and(|pre| !identifiers(pre) || !strict(pre))
        {
            return None;
        }
        let [major, minor, patch] = numbers;
        let mut shown = format!("{major}.{minor}.{patch}");
        for (mark, part) in [('-', pre), ('+', build)] {
            if let Some(part) = part {
                shown.push(mark);
                shown.push_str(part);
            }
        }
        Some(Semver {
            text: shown,
            numbers,
            pre: pre.map_or_else(Vec::new, |pre| pre.split('.').map(str::to_owned).collect()),
        })
    }

    /// Precedence; what stands behind a plus does not count.
    pub fn compare(&self, other: &Self) -> Ordering {
        let pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                for (a, b) in self.pre.iter().zip(&other.pre) {
                    let order = match (a.parse::<u64>(), b.parse::<u64>()) {
                        (Ok(a), Ok(b)) => a.cmp(&b),
                        (Ok(_), Err(_)) => Ordering::Less,
                        (Err(_), Ok(_)) => Ordering::Greater,
                        (Err(_), Err(_)) => a.cmp(b),
                    };
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                self.pre.len().cmp(&other.pre.len())
            }
        };
        self.numbers.cmp(&other.numbers).then_with(pre)
    }
}
