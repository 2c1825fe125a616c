//! How fast the cleaner may go: `log.cleaner.io.max.bytes.per.second`, shared by all that it reads
//! and writes. Pure.

use std::time::Duration;

use ringmill_ring::Instant;

/// What may be saved up while nothing is done, as time: so that a short run is not spread thin.
const BURST: Duration = Duration::from_millis(100);

/// A rate that is kept on average.
#[derive(Debug, Clone, Copy)]
pub struct Throttle {
    bytes_per_second: f64,
    /// When all that was done so far is paid for.
    paid_at: Option<Instant>,
}

impl Throttle {
    /// So many bytes per second; infinite for no limit.
    pub fn new(bytes_per_second: f64) -> Self {
        Throttle {
            bytes_per_second,
            paid_at: None,
        }
    }

    /// So many bytes were read or written; none may be until the time that comes back.
    pub fn on_bytes(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        let seconds = bytes as f64 / self.bytes_per_second.max(1.0);
        let cost = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let paid_at = self.paid_at.unwrap_or(now).max(now);
        let paid_at = paid_at + cost.min(Duration::from_secs(3_600));
        self.paid_at = Some(paid_at);
        let ahead = paid_at.saturating_duration_since(now);
        (ahead > BURST).then_some(paid_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_idle_time_is_not_saved_up() {
        let mut throttle = Throttle::new(1_000.0);
        let start = Instant::from_nanos(5_000_000_000);
        assert_eq!(throttle.on_bytes(50, start), None);
        let until = throttle.on_bytes(1_950, start).unwrap();
        assert_eq!(until - start, Duration::from_secs(2));
        let later = start + Duration::from_secs(60);
        let until = throttle.on_bytes(1_000, later).unwrap();
        assert_eq!(until - later, Duration::from_secs(1));
        let mut free = Throttle::new(f64::INFINITY);
        assert_eq!(free.on_bytes(u64::MAX, start), None);
    }
}
