//! Calls to another node that wait for their answers, by correlation id. Pure.

use std::collections::BTreeMap;

use ringmill_ring::Instant;

/// The most calls that wait on one connection.
const CALLS_MAX: usize = 1024;
/// The most bytes of requests that wait on one connection; one larger request is still taken.
const BYTES_MAX: usize = 64 << 20;

/// What waits, each with its waiter.
pub(super) struct Pending<T> {
    next_id: i32,
    bytes: usize,
    calls: BTreeMap<i32, Call<T>>,
}

struct Call<T> {
    bytes: usize,
    deadline: Instant,
    waiter: T,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self {
            next_id: 0,
            bytes: 0,
            calls: BTreeMap::new(),
        }
    }
}

impl<T> Pending<T> {
    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.calls.len() < CALLS_MAX && self.bytes < BYTES_MAX
    }

    /// The id that the next call has.
    pub(super) fn next_id(&self) -> i32 {
        self.next_id
    }

    /// A call begins, with the id that [`Pending::next_id`] has told. An answer that does not come
    /// before `deadline` does not come.
    pub(super) fn begin(&mut self, bytes: usize, deadline: Instant, waiter: T) {
        let call = Call {
            bytes,
            deadline,
            waiter,
        };
        self.calls.insert(self.next_id, call);
        self.bytes += bytes;
        // It goes round: one connection does not have two billion calls in work.
        self.next_id = self.next_id.wrapping_add(1) & i32::MAX;
    }

    /// A call ends; gives whoever waits for it.
    pub(super) fn end(&mut self, id: i32) -> Option<T> {
        let call = self.calls.remove(&id)?;
        self.bytes -= call.bytes;
        Some(call.waiter)
    }

    /// Whoever waits for a call.
    pub(super) fn waiter(&self, id: i32) -> Option<&T> {
        self.calls.get(&id).map(|call| &call.waiter)
    }

    /// All calls end.
    pub(super) fn end_all(&mut self) -> impl Iterator<Item = T> {
        self.bytes = 0;
        let calls = std::mem::take(&mut self.calls);
        calls.into_values().map(|call| call.waiter)
    }

    /// When the first answer is overdue.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.calls.values().map(|call| call.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Instant {
        Instant::from_nanos(ns)
    }

    #[test]
    fn calls_end_in_any_order_and_once() {
        let mut pending = Pending::default();
        for (waiter, deadline) in [("a", 9), ("b", 5), ("c", 7)] {
            pending.begin(10, at(deadline), waiter);
        }
        assert_eq!(pending.first_deadline(), Some(at(5)));
        assert_eq!(pending.end(1), Some("b"));
        assert_eq!((pending.end(1), pending.end(7)), (None, None));
        assert_eq!(pending.first_deadline(), Some(at(7)));
        assert_eq!(pending.end_all().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!((pending.first_deadline(), pending.bytes), (None, 0));
    }

    #[test]
    fn there_is_room_for_so_many_calls_and_bytes() {
        let mut pending = Pending::default();
        for _ in 0..CALLS_MAX {
            assert!(pending.has_room());
            pending.begin(1, at(1), ());
        }
        assert!(!pending.has_room());
        pending.end(3);
        assert!(pending.has_room());
        pending.begin(BYTES_MAX, at(1), ());
        pending.end(4);
        assert!(!pending.has_room());
    }

    #[test]
    fn ids_go_round_without_a_sign() {
        let mut pending = Pending {
            next_id: i32::MAX,
            ..Pending::default()
        };
        pending.begin(1, at(1), "last");
        pending.begin(1, at(1), "first");
        assert_eq!(
            (pending.end(i32::MAX), pending.end(0)),
            (Some("last"), Some("first"))
        );
    }
}
