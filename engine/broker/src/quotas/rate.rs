//! The rate of something over the last seconds, and how long to pause once it is too high: Kafka's
//! `Rate` over `quota.window.num` = 11 samples of one second. Pure.

/// Samples kept.
const SAMPLES: usize = 11;
/// What one sample covers, in milliseconds.
const SAMPLE_MS: u64 = 1000;
/// The rate is measured over at least this (milliseconds): the full samples.
pub const WINDOW_MS: u64 = (SAMPLES as u64 - 1) * SAMPLE_MS;

/// Counts what happens.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    /// When each began, in milliseconds, and what it counted; a ring.
    samples: [(u64, f64); SAMPLES],
    current: usize,
}

impl Rate {
    /// Nothing has happened yet.
    pub fn new(now_ms: u64) -> Self {
        Rate {
            samples: [(now_ms, 0.0); SAMPLES],
            current: 0,
        }
    }

    /// Counts `amount` and returns for how long (milliseconds) whoever did it is to pause so that
    /// the rate goes down to `quota` a second; zero if it is not above.
    pub fn record(&mut self, now_ms: u64, amount: f64, quota: f64) -> u64 {
        self.advance(now_ms);
        self.samples[self.current].1 += amount;
        self.pause(now_ms, quota)
    }

    /// Takes back what was just counted.
    pub fn take_back(&mut self, amount: f64) {
        let counted = &mut self.samples[self.current].1;
        *counted = (*counted - amount).max(0.0);
    }

    /// Whether nothing that counts has happened in the window.
    pub fn is_quiet(&self, now_ms: u64) -> bool {
        self.measure(now_ms).0 == 0.0
    }

    /// Whether it has not been used lately.
    pub fn is_idle(&self, now_ms: u64) -> bool {
        self.samples[self.current].0 + SAMPLES as u64 * SAMPLE_MS < now_ms
    }

    fn advance(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.samples[self.current].0) >= SAMPLE_MS {
            self.current = (self.current + 1) % SAMPLES;
            self.samples[self.current] = (now_ms, 0.0);
        }
    }

    /// What has happened within the window, and how long that is.
    fn measure(&self, now_ms: u64) -> (f64, u64) {
        let age = |began: u64| now_ms.saturating_sub(began);
        let live = self.samples.iter();
        let live = live.filter(|(began, _)| age(*began) < SAMPLES as u64 * SAMPLE_MS);
        let total = live.clone().map(|(_, counted)| counted).sum();
        let oldest = live.map(|(began, _)| age(*began)).max().unwrap_or(0);
        (total, oldest.max(WINDOW_MS))
    }

    fn pause(&self, now_ms: u64, quota: f64) -> u64 {
        let (total, window_ms) = self.measure(now_ms);
        let rate = total * 1000.0 / window_ms as f64;
        if rate <= quota {
            return 0;
        }
        // until the same total is spread over long enough
        ((rate - quota) / quota * window_ms as f64).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the sizes are. (Twice the quota and not once, since a long pause empties the
        /// window, and a window's worth may go at once then: so it is in Kafka.)
        #[test]
        fn a_client_that_pauses_as_told_never_gets_twice_its_quota(
            quota in 1_000.0f64..1e6,
            sizes in prop::collection::vec(1.0f64..200_000.0, 200..300),
            start in 0u64..1 << 40,
        ) {
            let (mut now, mut sent) = (start, 0.0);
            let mut rate = Rate::new(now);
            for size in sizes {
                now += rate.record(now, size, quota) + 1;
                sent += size;
            }
            let seconds = (now - start) as f64 / 1000.0;
            let allowed = quota * (2.0 * seconds + WINDOW_MS as f64 / 1000.0) + 200_000.0;
            prop_assert!(sent <= allowed, "{sent} of {allowed} in {seconds} s");
        }
    }

    #[test]
    fn below_its_quota_nobody_pauses_and_what_is_taken_back_does_not_count() {
        let mut rate = Rate::new(0);
        for n in 0..100 {
            assert_eq!(rate.record(n * 100, 99.0, 1000.0), 0);
        }
        let pause = rate.record(10_000, 20_000.0, 1000.0);
        assert!(pause > 10_000, "{pause}");
        rate.take_back(20_000.0);
        assert_eq!(rate.record(10_001, 50.0, 1000.0), 0);
        assert!(!rate.is_idle(15_000) && rate.is_idle(25_000));
    }
}
