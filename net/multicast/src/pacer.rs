//! Pacing: a token bucket of bytes on the ring's clock.

use std::time::Duration;

use ringmill_ring::Instant;

/// How fast datagrams may leave. Bytes that were not used are saved up to the burst; a datagram
/// may leave when the bucket is not in debt, whatever its own size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    /// Bytes per second.
    rate: f64,
    /// Bytes that may leave at once after a pause.
    burst: f64,
    /// Negative: debt.
    saved: f64,
    at: Instant,
}

impl Pacer {
    pub(crate) fn new(now: Instant, rate: f64, burst: usize) -> Pacer {
        Pacer {
            rate: rate.max(1.0),
            burst: burst as f64,
            saved: burst as f64,
            at: now,
        }
    }

    /// Bytes per second.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    pub(crate) fn set_rate(&mut self, now: Instant, rate: f64) {
        self.advance(now);
        self.rate = rate.max(1.0);
    }

    fn advance(&mut self, now: Instant) {
        let passed = (now - self.at).as_secs_f64();
        self.saved = (self.saved + passed * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }

    /// Whether a datagram may leave now.
    pub(crate) fn is_open(&mut self, now: Instant) -> bool {
        self.advance(now);
        self.saved >= 0.0
    }

    /// A datagram of so many bytes leaves.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.saved -= bytes as f64;
    }

    /// When the next datagram may leave.
    pub(crate) fn opens_at(&self) -> Instant {
        if self.saved >= 0.0 {
            return self.at;
        }
        // Up, so that at that time it is open.
        let wait = (-self.saved / self.rate * 1.0e9).ceil() + 1.0;
        self.at + Duration::from_nanos(wait as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_a_pause_saves_no_more_than_the_burst() {
        let mut now = Instant::default();
        let mut pacer = Pacer::new(now, 1.0e6, 2_000);
        let (mut sent, start) = (0, now);
        while now - start < Duration::from_secs(1) {
            while pacer.is_open(now) {
                pacer.spend(1_000);
                sent += 1_000;
            }
            now = pacer.opens_at();
            assert!(pacer.is_open(now));
        }
        assert!((1_000_000..1_005_000).contains(&sent), "{sent}");
        now += Duration::from_secs(100);
        let mut burst = 0;
        while pacer.is_open(now) {
            pacer.spend(1_000);
            burst += 1;
        }
        assert_eq!(burst, 3);
    }
}
