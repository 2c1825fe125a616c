//! Which partition a record goes to: by the hash of its key, as Java's client does, or to one
//! partition after the other for records without a key.
//!
//! Pure. Records with a key go to `murmur2(key) mod partitions`, so that producers in other
//! languages agree (librdkafka: `partitioner=murmur2_random`). Records without one stick to a
//! partition for a batch's worth of bytes, then to another at random, so that batches fill and
//! partitions get the same share (KIP-480, KIP-794).

use std::sync::Arc;

/// MurmurHash2, 32 bits, with the seed that Kafka's `Utils.murmur2` has.
///
/// # Examples
/// ```
/// // as Java's client hashes it
/// assert_eq!(ringmill_client::murmur2(b"21") as i32, -973932308);
/// ```
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut h = SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * at);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of a key among `partitions`.
///
/// # Panics
/// If there are no partitions.
///
/// # Examples
/// ```
/// use ringmill_client::partition_of_key;
///
/// // where every producer puts this key, in whichever language
/// let partition = partition_of_key(b"LH-400", 12);
/// assert!(partition < 12);
/// ```
pub fn partition_of_key(key: &[u8], partitions: usize) -> usize {
    // Kafka's Utils.toPositive: the sign bit is dropped
    (murmur2(key) & 0x7fff_ffff) as usize % partitions
}

/// How a producer chooses partitions for records that name none.
///
/// # Examples
/// ```
/// use ringmill_client::{Partitioning, ProducerConfig};
///
/// let config = ProducerConfig { partitioning: Partitioning::RoundRobin, ..Default::default() };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Partitioning {
    /// By the key's hash; without a key, sticky (Java's default, librdkafka's `murmur2_random`).
    #[default]
    KeyHash,
    /// Sticky, whatever the key (`partitioner.ignore.keys`).
    Sticky,
    /// One after the other, whatever the key (Java's `RoundRobinPartitioner`).
    RoundRobin,
    /// As the application says.
    Custom(CustomPartitioner),
}

/// An application's [`Partitioner`]; clones share it.
///
/// # Examples
/// ```
/// use ringmill_client::{Choice, CustomPartitioner, Partitioner, Partitioning, ProducerConfig};
///
/// struct Last;
///
/// impl Partitioner for Last {
///     fn partition(&self, choice: &Choice<'_>) -> i32 {
///         choice.partitions as i32 - 1
///     }
/// }
///
/// let partitioning = Partitioning::Custom(CustomPartitioner::new(Last));
/// let config = ProducerConfig { partitioning, ..Default::default() };
/// # let _ = config;
/// ```
#[derive(Clone)]
pub struct CustomPartitioner(Arc<dyn Partitioner>);

impl CustomPartitioner {
    /// Wraps it.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{Choice, CustomPartitioner, Partitioner};
    ///
    /// struct First;
    ///
    /// impl Partitioner for First {
    ///     fn partition(&self, _: &Choice<'_>) -> i32 {
    ///         0
    ///     }
    /// }
    ///
    /// let shared = CustomPartitioner::new(First);
    /// assert_eq!(shared, shared.clone());
    /// ```
    pub fn new(partitioner: impl Partitioner) -> Self {
        Self(Arc::new(partitioner))
    }

    pub(crate) fn choose(&self, choice: &Choice<'_>) -> i32 {
        self.0.partition(choice)
    }
}

impl std::fmt::Debug for CustomPartitioner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CustomPartitioner")
    }
}

impl PartialEq for CustomPartitioner {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for CustomPartitioner {}

/// Chooses the partition of each record that names none.
///
/// ```
/// use ringmill_client::{Choice, Partitioner};
///
/// /// The first byte of the key says where to.
/// struct ByFirstByte;
///
/// impl Partitioner for ByFirstByte {
///     fn partition(&self, choice: &Choice<'_>) -> i32 {
///         let first = choice.key.and_then(|key| key.first()).copied().unwrap_or(0);
///         (usize::from(first) % choice.partitions) as i32
///     }
/// }
/// ```
pub trait Partitioner: Send + Sync + 'static {
    /// The partition for a record, 0 to `choice.partitions` − 1. Called on the client's I/O thread:
    /// it must not wait.
    fn partition(&self, choice: &Choice<'_>) -> i32;
}

/// What a [`Partitioner`] chooses by.
///
/// # Examples
/// ```
/// use ringmill_client::{Choice, Partitioner};
///
/// /// Alarms have the first partition to themselves.
/// struct Alarms;
///
/// impl Partitioner for Alarms {
///     fn partition(&self, choice: &Choice<'_>) -> i32 {
///         match choice.key {
///             Some(b"alarm") => 0,
///             key if choice.partitions > 1 => {
///                 let others = choice.partitions - 1;
///                 1 + ringmill_client::partition_of_key(key.unwrap_or_default(), others) as i32
///             }
///             _ => 0,
///         }
///     }
/// }
///
/// let choice = Choice { topic: "t", key: Some(b"x"), value: None, partitions: 3, available: &[] };
/// assert!(Alarms.partition(&choice) > 0);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The record's topic.
    pub topic: &'a str,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value, if it is no tombstone.
    pub value: Option<&'a [u8]>,
    /// How many partitions there are, at least one.
    pub partitions: usize,
    /// Those that have a leader at the moment; all, if none has.
    pub available: &'a [usize],
}

/// The choice for records without a key, of one topic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sticky {
    /// The present choice, and bytes given to it so far.
    chosen: Option<usize>,
    bytes: usize,
}

impl Sticky {
    /// The partition for a record of `bytes`, out of `available` (those that have a leader). Moves
    /// on once `batch_bytes` went to the present one; `random` is called only then.
    #[inline]
    pub(crate) fn choose(
        &mut self,
        bytes: usize,
        batch_bytes: usize,
        available: &[usize],
        random: impl FnOnce() -> u64,
    ) -> Option<usize> {
        if self.bytes >= batch_bytes || self.chosen.is_none() {
            self.chosen = move_on(self.chosen, available, random());
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.chosen
    }

    /// The set of available partitions has changed: choose anew.
    pub(crate) fn forget(&mut self) {
        self.chosen = None;
    }
}

/// Any of `available`, but another than `present` if there is another.
fn move_on(present: Option<usize>, available: &[usize], random: u64) -> Option<usize> {
    let others = available.iter().filter(|&&p| Some(p) != present).count();
    if others == 0 {
        return available.first().copied();
    }
    let nth = (random % others as u64) as usize;
    available
        .iter()
        .copied()
        .filter(|&p| Some(p) != present)
        .nth(nth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_java_client() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_still_names_a_partition() {
        assert_eq!(
            partition_of_key(b"21", 7),
            (-973_932_308_i32 & i32::MAX) as usize % 7
        );
        assert_eq!(partition_of_key(b"", 1), 0);
    }

    #[test]
    fn records_without_a_key_fill_a_batch_before_they_move_on() {
        let mut sticky = Sticky::default();
        let mut random = 0;
        let mut chosen = Vec::new();
        for _ in 0..40 {
            random += 7;
            chosen.push(sticky.choose(100, 1000, &[2, 5, 9], || random).unwrap());
        }
        for run in chosen.chunks(10) {
            assert!(run.iter().all(|p| *p == run[0]), "{chosen:?}");
        }
        assert!(
            chosen
                .chunks(10)
                .collect::<Vec<_>>()
                .windows(2)
                .all(|w| w[0] != w[1])
        );
    }

    #[test]
    fn one_partition_alone_is_kept_and_none_is_no_choice() {
        let mut sticky = Sticky::default();
        for _ in 0..5 {
            assert_eq!(sticky.choose(10, 10, &[3], || 1), Some(3));
        }
        assert_eq!(Sticky::default().choose(10, 10, &[], || 1), None);
    }

    #[test]
    fn every_partition_gets_its_share() {
        let available: Vec<usize> = (0..8).collect();
        let mut sticky = Sticky::default();
        let mut counts = [0_u32; 8];
        let mut state = 1_u64;
        for _ in 0..80_000 {
            let random = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state >> 33
            };
            counts[sticky.choose(10, 20, &available, random).unwrap()] += 1;
        }
        assert!(
            counts.iter().all(|n| (9_000..11_000).contains(n)),
            "{counts:?}"
        );
    }
}
