//! The cleaner's map from a key to the last offset that it was written at, over a stretch of log.
//!
//! It holds 24 bytes for each key, whatever the keys' sizes: a hash of 128 bits and the offset, in
//! one flat table (as Kafka's `SkimpyOffsetMap`). Two keys with one hash would be one key here, and
//! the earlier one's record would be lost: SipHash-2-4 with a secret key for each run, so that
//! nobody can look for such pairs, and by chance none is to be expected among 2^60 keys. Its memory
//! is bounded; when it is full, the log is cleaned as far as it went ([`OffsetMap::end`]). Pure.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

/// Bytes of a slot: hash, and the offset plus one.
const SLOT_BYTES: usize = 24;
/// The least that a map takes; a table of a few slots would hold next to nothing.
const SLOTS_MIN: usize = 64;
/// Of so many slots nine tenths are used at most (Kafka's `log.cleaner.io.buffer.load.factor`).
const LOAD: (usize, usize) = (9, 10);

/// See the module.
#[derive(Debug)]
pub struct OffsetMap {
    key: [u8; 16],
    /// Hash in two halves, and the offset plus one: zero is a free slot.
    slots: Vec<[u64; 3]>,
    used: usize,
    end: i64,
}

impl OffsetMap {
    /// An empty map of at most `memory` bytes, for at most `entries` keys, about the log from
    /// `start` on. `key` is secret.
    pub fn new(memory: usize, entries: u64, start: i64, key: [u8; 16]) -> Self {
        let wanted = entries
            .saturating_mul(LOAD.1 as u64)
            .div_ceil(LOAD.0 as u64);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let slots = wanted.min(memory / SLOT_BYTES).max(SLOTS_MIN);
        OffsetMap {
            key,
            slots: vec![[0; 3]; slots],
            used: 0,
            end: start,
        }
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }

    /// How many keys it knows.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// It speaks of the log before this offset, and of no record behind it.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Everything before `end` was put.
    pub fn reach(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    fn capacity(&self) -> usize {
        self.slots.len() / LOAD.1 * LOAD.0
    }

    /// The slot of a key: its own, or the free one that it would get. There always is a free one.
    fn slot(&self, key: &[u8]) -> (usize, [u64; 2]) {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(key);
        let hash = hasher.finish128();
        let hash = [hash.h1, hash.h2];
        let mut at = (hash[0] % self.slots.len() as u64) as usize;
        loop {
            let [first, second, stored] = self.slots[at];
            if stored == 0 || [first, second] == hash {
                return (at, hash);
            }
            at = (at + 1) % self.slots.len();
        }
    }

    /// A key was written at an offset, later than any other that was put. Returns whether there was
    /// room.
    #[must_use]
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let (at, hash) = self.slot(key);
        if self.slots[at][2] == 0 {
            if self.used >= self.capacity() {
                return false;
            }
            self.used += 1;
        }
        self.slots[at] = [hash[0], hash[1], offset as u64 + 1];
        true
    }

    /// The last offset at which a key was put.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let (at, _) = self.slot(key);
        self.slots[at][2].checked_sub(1).map(|offset| offset as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn it_knows_the_last_offset_of_every_key(
            puts in prop::collection::vec(prop::collection::vec(0u8..4, 0..4), 0..300),
            memory in 0usize..5_000,
            key: [u8; 16],
        ) {
            let mut map = OffsetMap::new(memory, 1_000, 0, key);
            prop_assert!(map.memory() <= memory.max(SLOTS_MIN * SLOT_BYTES));
            let mut model: HashMap<Vec<u8>, i64> = HashMap::new();
            for (offset, key) in (0..).zip(&puts) {
                if !map.put(key, offset) {
                    prop_assert!(!model.contains_key(key));
                    prop_assert!(map.len() >= SLOTS_MIN / 10 * 9);
                    break;
                }
                model.insert(key.clone(), offset);
            }
            prop_assert_eq!(map.len(), model.len());
            for key in &puts {
                prop_assert_eq!(map.get(key), model.get(key).copied());
            }
        }
    }

    #[test]
    fn its_memory_is_what_it_may_take_and_no_more_than_it_needs() {
        let map = OffsetMap::new(24_000, u64::MAX, 7, [1; 16]);
        assert_eq!((map.memory(), map.capacity(), map.end()), (24_000, 900, 7));
        assert!(OffsetMap::new(1 << 30, 1_000, 0, [1; 16]).memory() < 30_000);
    }
}
