//! What is to happen when, in a simulated world.
//!
//! A heap by time. Events of one instant come in an order that the seed chooses: a program
//! that works only if two independent things end in the order in which they began, fails here.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::random::Random;

#[derive(Debug)]
struct Due<E> {
    at: u64,
    tie: u64,
    event: E,
}

impl<E> Due<E> {
    fn key(&self) -> (u64, u64) {
        (self.at, self.tie)
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    /// The earliest is the greatest: a heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// Events by the time at which they are due.
#[derive(Debug)]
pub(super) struct Events<E> {
    heap: BinaryHeap<Due<E>>,
    scheduled: u64,
    random: Random,
}

impl<E> Events<E> {
    pub(super) fn new(random: Random) -> Self {
        Events {
            heap: BinaryHeap::new(),
            scheduled: 0,
            random,
        }
    }

    /// `event` is due at time `at`.
    pub(super) fn push(&mut self, at: u64, event: E) {
        // The low bits count, so that no two ties are equal and the order is total.
        self.scheduled += 1;
        let tie = self.random.next_u64() & !0xffff_ffff | self.scheduled & 0xffff_ffff;
        self.heap.push(Due { at, tie, event });
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|due| due.at)
    }

    /// The next event, if it is due by `now`.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<E> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|due| due.event)
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Purpose;
    use super::*;

    fn order(seed: u64) -> Vec<u32> {
        let mut events = Events::new(Random::new(seed, Purpose::Schedule, 0));
        for event in 0..20 {
            events.push(u64::from(event / 10), event);
        }
        assert_eq!(events.next_at(), Some(0));
        let mut seen = Vec::new();
        while let Some(event) = events.pop_due(0) {
            seen.push(event);
        }
        assert_eq!(seen.len(), 10, "events of a later time came early");
        while let Some(event) = events.pop_due(1) {
            seen.push(event);
        }
        seen
    }

    #[test]
    fn one_instant_is_shuffled_by_the_seed_alone() {
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(3);
        assert!(sorted[..10].iter().all(|event| *event < 10));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
}
