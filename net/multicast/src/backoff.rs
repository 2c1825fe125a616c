//! The random back-off of feedback, by which one of many speaks and the rest hear it (RFC 5401
//! §3.2.3), and the seeded chance that it is drawn from.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A participant's chance: the same seed gives the same run.
#[derive(Clone, Debug)]
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From 0 to 1, without 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Evenly from 0 to `max`.
    pub(crate) fn uniform(&mut self, max: Duration) -> Duration {
        max.mul_f64(self.fraction())
    }

    /// From 0 to `max`, most often near `max`: of a group of that size, few draw early.
    pub(crate) fn exponential(&mut self, max: Duration, group_size: f64) -> Duration {
        let max = max.as_secs_f64();
        if max <= 0.0 {
            return Duration::ZERO;
        }
        let lambda = group_size.max(1.0).ln() + 1.0;
        let scale = lambda.exp() - 1.0;
        let x = self.fraction() * lambda / max + lambda / (max * scale);
        let drawn = max / lambda * (x * scale * (max / lambda)).ln();
        Duration::from_secs_f64(drawn.clamp(0.0, max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_speak_early() {
        let mut chance = Chance::new(7);
        let max = Duration::from_millis(400);
        let mut early = |size| {
            let drawn = (0..10_000).map(|_| chance.exponential(max, size));
            drawn.filter(|d| *d < max / 4).count()
        };
        let (few, many) = (early(10.0), early(10_000.0));
        assert!(few > 4 * many, "{few} of few, {many} of many");
        assert!(many < 200, "{many}");
        assert_eq!(chance.exponential(Duration::ZERO, 10.0), Duration::ZERO);
        assert!((0..1000).all(|_| chance.exponential(max, 10.0) <= max));
    }
}
