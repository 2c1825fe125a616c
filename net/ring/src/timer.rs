//! The timers of one core: a pure queue of deadlines.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::clock::Instant;

/// The name of a timer that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey {
    deadline: Instant,
    /// Tells timers of one deadline apart, and fires them in the order in which they were set.
    sequence: u64,
}

/// Deadlines in order, each with the task to wake.
#[derive(Default)]
pub(crate) struct Timers {
    queue: BTreeMap<TimerKey, Waker>,
    sequence: u64,
}

impl Timers {
    /// Sets a timer.
    pub(crate) fn set(&mut self, deadline: Instant, waker: Waker) -> TimerKey {
        self.sequence += 1;
        let key = TimerKey {
            deadline,
            sequence: self.sequence,
        };
        self.queue.insert(key, waker);
        key
    }

    /// Changes whom a timer wakes; false if it has fired.
    pub(crate) fn update(&mut self, key: TimerKey, waker: &Waker) -> bool {
        match self.queue.get_mut(&key) {
            Some(old) => {
                old.clone_from(waker);
                true
            }
            None => false,
        }
    }

    /// Takes a timer back.
    pub(crate) fn clear(&mut self, key: TimerKey) {
        self.queue.remove(&key);
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|(key, _)| key.deadline)
    }

    /// Takes one timer whose deadline is not after `now`.
    pub(crate) fn fire(&mut self, now: Instant) -> Option<Waker> {
        let first = self.queue.first_entry()?;
        (first.key().deadline <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_fire_in_order_and_not_early() {
        let mut timers = Timers::default();
        let t = |ms| Instant::default() + Duration::from_millis(ms);
        let late = timers.set(t(20), Waker::noop().clone());
        timers.set(t(10), Waker::noop().clone());
        timers.set(t(10), Waker::noop().clone());
        assert_eq!(timers.next(), Some(t(10)));
        assert!(timers.fire(t(9)).is_none());
        assert!(timers.fire(t(10)).is_some());
        assert!(timers.fire(t(10)).is_some());
        assert!(timers.fire(t(10)).is_none());
        assert!(timers.update(late, Waker::noop()));
        timers.clear(late);
        assert_eq!(timers.next(), None);
        assert!(!timers.update(late, Waker::noop()));
    }
}
