//! Exponential backoff with jitter: how long to wait before the next attempt.
//!
//! Pure: the caller brings the random number. The curve is Kafka's `ExponentialBackoff`:
//! `first × 2^attempt`, at most `max`, spread by ±20 % so that clients that failed together do not
//! come back together.

use std::time::Duration;

/// How far a wait may be from the curve, in percent.
const JITTER_PERCENT: u64 = 20;

/// Counts the failures in a row of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts at `first` and doubles up to `max`.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max: max.max(first),
            attempts: 0,
        }
    }

    /// Notes a failure and returns how long to wait before the next attempt.
    pub(crate) fn on_failure(&mut self, random: u64) -> Duration {
        let wait = delay(self.first, self.max, self.attempts, random);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// Notes a success: the next wait is the first again.
    pub(crate) fn on_success(&mut self) {
        self.attempts = 0;
    }
}

/// The wait after `attempts` earlier failures.
pub(crate) fn delay(first: Duration, max: Duration, attempts: u32, random: u64) -> Duration {
    let first = u64::try_from(first.as_nanos()).unwrap_or(u64::MAX);
    let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
    let curve = first
        .saturating_mul(1 << attempts.min(40))
        .min(max)
        .min(u64::MAX / 2);
    let spread = curve / 100 * JITTER_PERCENT;
    if spread == 0 {
        return Duration::from_nanos(curve);
    }
    Duration::from_nanos(curve - spread + random % (2 * spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_maximum_within_the_jitter() {
        for random in [0, 1, 12_345_678_901, u64::MAX] {
            let mut backoff = Backoff::new(FIRST, MAX);
            for expected in [100, 200, 400, 800, 1000, 1000] {
                let wait = backoff.on_failure(random).as_micros();
                assert!((expected * 800..=expected * 1200).contains(&wait), "{wait}");
            }
            backoff.on_success();
            assert!(backoff.on_failure(random) <= FIRST * 12 / 10);
        }
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let wait = delay(Duration::MAX, Duration::MAX, u32::MAX, u64::MAX);
        assert!(wait > Duration::from_secs(1));
        assert_eq!(delay(Duration::ZERO, Duration::ZERO, 3, 7), Duration::ZERO);
    }
}
