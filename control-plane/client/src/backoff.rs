//! How long to wait before trying again.

use std::time::Duration;

/// The first retry is immediate, then waits double from 100 ms up to a limit, each shortened at random by up to
/// a half so that a thousand clients of one restarted server do not return in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    limit: Duration,
}

const FIRST: Duration = Duration::from_millis(100);

impl Backoff {
    /// Waits never exceed `limit`.
    pub const fn new(limit: Duration) -> Backoff {
        Backoff { failures: 0, limit }
    }

    /// Notes one more failure and says how long to wait.
    pub fn next_delay(&mut self) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        if failures == 0 {
            return Duration::ZERO;
        }
        let full = FIRST
            .saturating_mul(1 << (failures - 1).min(16))
            .min(self.limit);
        full.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// Notes a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How often it failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_limit_and_begins_anew() {
        let limit = Duration::from_secs(10);
        let mut backoff = Backoff::new(limit);
        for round in 0..2 {
            assert_eq!(backoff.next_delay(), Duration::ZERO, "round {round}");
            let mut full = FIRST;
            for _ in 0..100 {
                let delay = backoff.next_delay();
                assert!(delay <= full && delay >= full / 2, "{delay:?} of {full:?}");
                full = (full * 2).min(limit);
            }
            backoff.reset();
        }
    }
}
