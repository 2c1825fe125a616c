//! The clocks of simulated nodes: each starts somewhere else, drifts, and can be set wrongly.
//!
//! The world has one true time, in nanoseconds since its beginning. A node's monotonic clock
//! runs a little faster or slower than that and starts anew with each boot; its wall clock is
//! off by an amount that a test may change at any moment (`clock_gettime(2)`: only the
//! monotonic clock never jumps).

use std::time::Duration;

use super::random::Random;

const MILLION: u64 = 1_000_000;

/// The world begins at 2025-01-01 00:00:00 UTC, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_735_689_600_000;

/// Crystal clocks are good to about this many parts per million.
const DRIFT_PPM_MAX: u64 = 100;

/// Wall clocks that are kept by NTP are off by at most about this many milliseconds.
const WALL_OFFSET_MS_MAX: u64 = 50;

/// One node's clocks.
#[derive(Clone, Debug)]
pub(super) struct NodeClock {
    booted_at: u64,
    monotonic_base: u64,
    drift_ppm: i64,
    wall_offset_ms: i64,
}

/// A number from `-limit` to `limit`.
fn either_side(random: &mut Random, limit: u64) -> i64 {
    random.below(2 * limit + 1) as i64 - limit as i64
}

impl NodeClock {
    pub(super) fn new(random: &mut Random) -> Self {
        NodeClock {
            booted_at: 0,
            monotonic_base: 0,
            drift_ppm: either_side(random, DRIFT_PPM_MAX),
            wall_offset_ms: either_side(random, WALL_OFFSET_MS_MAX),
        }
    }

    /// The monotonic clock starts anew, anywhere in the first day of a machine's life.
    pub(super) fn boot(&mut self, now: u64, random: &mut Random) {
        self.booted_at = now;
        self.monotonic_base = random.below(Duration::from_secs(86_400).as_nanos() as u64);
    }

    /// Moves the wall clock.
    pub(super) fn jump(&mut self, by_ms: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(by_ms);
    }

    /// The monotonic clock at a true time.
    pub(super) fn monotonic_ns(&self, now: u64) -> u64 {
        // whole millions apart from the rest, so that 64 bits are enough: a turn asks for it
        let elapsed = now - self.booted_at;
        let (millions, rest) = (elapsed / MILLION, elapsed % MILLION);
        let drift =
            millions as i64 * self.drift_ppm + rest as i64 * self.drift_ppm / MILLION as i64;
        let undrifted = self.monotonic_base.saturating_add(elapsed);
        undrifted.saturating_add_signed(drift)
    }

    /// The first true time at which the monotonic clock shows at least `monotonic_ns`.
    pub(super) fn true_time(&self, monotonic_ns: u64) -> u64 {
        let Some(drifted) = monotonic_ns.checked_sub(self.monotonic_base) else {
            return self.booted_at;
        };
        let rate = MILLION.wrapping_add_signed(self.drift_ppm);
        let elapsed = (drifted / rate)
            .saturating_mul(MILLION)
            .saturating_add(drifted % rate * MILLION / rate);
        let guess = elapsed.saturating_add(self.booted_at);
        // Both divisions round, so the true time is within a few steps of the guess.
        let mut time = guess.saturating_sub(2).max(self.booted_at);
        while time < u64::MAX && self.monotonic_ns(time) < monotonic_ns {
            time += 1;
        }
        time
    }

    /// The wall clock at a true time, in milliseconds since the Unix epoch.
    pub(super) fn wall_ms(&self, now: u64) -> i64 {
        (EPOCH_MS + (now / 1_000_000) as i64).saturating_add(self.wall_offset_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::random::Purpose;
    use super::*;

    proptest! {
        /// A timer that fires before its time would make a program spin; one that fires late
        /// by more than the rounding would hide a race.
        #[test]
        fn timers_fire_at_the_first_moment_that_is_not_early(
            seed: u64, boot in 0u64..1 << 50, wait in 0u64..1 << 45,
        ) {
            let mut random = Random::new(seed, Purpose::Clock, 0);
            let mut clock = NodeClock::new(&mut random);
            clock.boot(boot, &mut random);
            let due = clock.monotonic_ns(boot) + wait;
            let time = clock.true_time(due);
            prop_assert!(clock.monotonic_ns(time) >= due);
            prop_assert!(time == boot || clock.monotonic_ns(time - 1) < due);
        }
    }

    #[test]
    fn a_jump_moves_the_wall_clock_alone() {
        let mut clock = NodeClock::new(&mut Random::new(3, Purpose::Clock, 0));
        let (wall, monotonic) = (clock.wall_ms(5_000_000), clock.monotonic_ns(5_000_000));
        clock.jump(-3_600_000);
        assert_eq!(clock.wall_ms(5_000_000), wall - 3_600_000);
        assert_eq!(clock.monotonic_ns(5_000_000), monotonic);
    }
}
