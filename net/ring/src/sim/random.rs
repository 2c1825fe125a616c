//! Random numbers of a simulated world: one stream per purpose, all from one seed.
//!
//! Streams never influence one another: a disk that rolls once more does not change what the
//! network does, so that a fault can be added to a failing run without losing the failure.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream of random numbers is for. The number of the purpose, and a salt that tells
/// several users of one purpose apart, choose the stream of the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Which core runs next; which of two events of one instant comes first.
    Schedule = 1,
    /// Latencies and faults of one node's disk.
    Disk = 2,
    /// Delays and faults of the network.
    Network = 3,
    /// Clock offsets of one node.
    Clock = 4,
    /// What the simulated program itself asks for.
    Application = 5,
    /// What the test asks for, to choose its workload.
    Workload = 6,
    /// What happens to operations in flight when a process dies.
    Death = 7,
}

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random {
    stream: ChaCha8Rng,
}

impl Random {
    pub(super) fn new(seed: u64, purpose: Purpose, salt: u64) -> Self {
        let mut stream = ChaCha8Rng::seed_from_u64(seed);
        stream.set_stream((purpose as u64) << 56 ^ salt);
        Random { stream }
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        // Multiply and shift; the bias is below 2^-32 for all bounds in use here.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index below `bound`, which is not 0.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range {low}..={high}");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.next_u64(),
        }
    }

    /// True in one of two cases.
    pub fn coin(&mut self) -> bool {
        self.next_u64() & 1 == 1
    }

    /// True in `part` of `million` cases.
    pub fn per_million(&mut self, part: u32) -> bool {
        part != 0 && self.below(1_000_000) < u64::from(part)
    }

    /// One of several things.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }
}

/// Mixes a number so that close inputs give unrelated outputs (SplitMix64's finaliser).
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_repeatable_and_unrelated() {
        let draw = |seed, purpose, salt| {
            let mut random = Random::new(seed, purpose, salt);
            [random.next_u64(), random.next_u64()]
        };
        let first = draw(7, Purpose::Disk, 0);
        assert_eq!(first, draw(7, Purpose::Disk, 0));
        assert_ne!(first, draw(8, Purpose::Disk, 0));
        assert_ne!(first, draw(7, Purpose::Network, 0));
        assert_ne!(first, draw(7, Purpose::Disk, 1));
    }

    #[test]
    fn ranges_reach_both_ends_and_nothing_else() {
        let mut random = Random::new(1, Purpose::Workload, 0);
        let mut seen = [false; 4];
        for _ in 0..200 {
            seen[usize::try_from(random.between(3, 6) - 3).unwrap()] = true;
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(random.between(9, 9), 9);
        random.between(0, u64::MAX);
        assert!(!random.per_million(0) && random.per_million(1_000_000));
    }
}
