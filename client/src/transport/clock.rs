//! A moment of the monotonic clock, as the state machines see it: pure arithmetic on nanoseconds.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment of this process's monotonic clock; the default is its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Instant {
    ns: u64,
}

impl Instant {
    /// From nanoseconds since the clock's start.
    pub(crate) const fn from_nanos(ns: u64) -> Self {
        Self { ns }
    }

    /// Nanoseconds since the clock's start.
    #[cfg(any(feature = "ring", test))]
    pub(crate) const fn as_nanos(self) -> u64 {
        self.ns
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time (584 years).
    fn add(self, duration: Duration) -> Self {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            ns: self.ns.saturating_add(ns),
        }
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Zero if `earlier` lies ahead.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_neither_overflow_nor_go_negative() {
        let start = Instant::default();
        let later = start + Duration::from_millis(3);
        assert_eq!(later - start, Duration::from_millis(3));
        assert_eq!(start - later, Duration::ZERO);
        assert_eq!((later + Duration::MAX).as_nanos(), u64::MAX);
    }
}
