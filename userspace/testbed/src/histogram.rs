//! Latencies, kept with a bounded relative error in bounded memory.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Values between two powers of two fall into this many buckets: at most 1.6 % off.
const STEPS: u64 = 64;

/// Counts durations; percentiles are read back within 1.6 %.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let index = bucket(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
        self.total += 1;
    }

    /// Counts all that another one counted.
    pub fn add(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// How many were counted.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The duration that this share (0 to 1) of all stays at or below; zero when nothing was counted.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return Duration::from_nanos(middle(index));
            }
        }
        Duration::ZERO
    }
}

/// Linear below [`STEPS`], then [`STEPS`] buckets for every doubling.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = u64::from(63 - nanos.leading_zeros()) - 6;
    (shift * STEPS + (nanos >> shift)) as usize
}

/// A value in the middle of the bucket.
fn middle(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let low = (index - shift * STEPS) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_two_percent() {
        let mut histogram = Histogram::default();
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, micros) in [
            (0.5, 5_000.0),
            (0.99, 9_900.0),
            (1.0, 10_000.0),
            (0.0001, 1.0),
        ] {
            let read = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((read - micros).abs() / micros < 0.02, "{share}: {read}");
        }
    }

    #[test]
    fn every_value_lies_near_its_buckets_middle() {
        let mut nanos = 1;
        while nanos < u64::MAX / 10 {
            let read = middle(bucket(nanos));
            assert!(
                read.abs_diff(nanos) as f64 <= nanos as f64 * 0.016 + 1.0,
                "{nanos} {read}"
            );
            nanos = nanos * 5 / 4 + 1;
        }
    }

    #[test]
    fn two_histograms_add_up() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(Duration::from_micros(1));
        other.record(Duration::from_millis(1));
        one.add(&other);
        assert_eq!(one.len(), 2);
        assert!(one.quantile(1.0) > Duration::from_micros(980));
        assert!(Histogram::default().quantile(0.5).is_zero());
    }
}
