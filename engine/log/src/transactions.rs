//! The transactions of one partition: which are open, and up to where all are decided (KIP-98).
//!
//! The *last stable offset* is the first offset of the oldest transaction that is open, or whose
//! end is not visible yet; with none of them, the visible end. Readers of committed records read
//! no further.
//!
//! A transaction begins with a batch of which the coordinator knows; who has asked it holds a
//! [`VerificationGuard`] (KIP-890). A marker that comes in between makes the guard void, so that
//! no late batch begins a transaction that nobody will end. Pure.

use std::collections::BTreeMap;

/// Open transactions, at most; past it, none begins.
pub(crate) const OPEN_MAX: usize = 32_768;
/// Producers whose first batch in a transaction is on its way, at most; the eldest loses its guard.
const VERIFICATIONS_MAX: usize = 65_536;

/// A transaction whose end is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedTxn {
    /// Whose it was.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// Its marker.
    pub last_offset: i64,
    /// Up to here all others were decided when the marker was appended.
    pub last_stable_offset: i64,
    /// Its records never happened.
    pub aborted: bool,
}

/// The open transactions, and those whose markers are not visible yet; by first offset.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct OpenTxns {
    /// With the producer.
    open: BTreeMap<i64, i64>,
    /// With the marker's offset.
    ended: BTreeMap<i64, i64>,
}

impl OpenTxns {
    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= OPEN_MAX
    }

    pub(crate) fn begin(&mut self, first_offset: i64, producer_id: i64) {
        self.open.insert(first_offset, producer_id);
    }

    pub(crate) fn cancel_begin(&mut self, first_offset: i64) {
        self.open.remove(&first_offset);
    }

    /// A marker at `last_offset` ends a transaction. Returns up to where all others are decided.
    pub(crate) fn end(&mut self, first_offset: i64, last_offset: i64) -> i64 {
        self.open.remove(&first_offset);
        self.ended.insert(first_offset, last_offset);
        let open = self.open.keys().next().copied();
        open.unwrap_or(last_offset + 1)
    }

    pub(crate) fn cancel_end(&mut self, first_offset: i64, producer_id: i64) {
        self.ended.remove(&first_offset);
        self.open.insert(first_offset, producer_id);
    }

    /// The log is visible up to `end`.
    pub(crate) fn on_visible(&mut self, end: i64) {
        if !self.ended.is_empty() {
            self.ended.retain(|_, last_offset| *last_offset >= end);
        }
    }

    /// As [`OpenTxns::end`], for a transaction that is known by its first offset alone.
    pub(crate) fn hold(&mut self, first_offset: i64, last_offset: i64) {
        self.ended.entry(first_offset).or_insert(last_offset);
    }

    /// The first offset of those whose markers are not visible yet.
    pub(crate) fn first_ended(&self) -> Option<i64> {
        self.ended.keys().next().copied()
    }

    /// The first offset that is not decided.
    pub(crate) fn first_unstable(&self) -> Option<i64> {
        let (open, ended) = (self.open.keys().next(), self.ended.keys().next());
        open.into_iter().chain(ended).min().copied()
    }
}

/// The right to begin a producer's transaction in one partition, void once a marker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationGuard {
    producer_id: i64,
    producer_epoch: i16,
    number: u64,
    from_zero: bool,
}

impl VerificationGuard {
    /// The same right for a producer that bumps its epoch with every transaction (transaction
    /// version 2): of one that is not known here, the first batch must have sequence number 0, or
    /// one before it was lost.
    pub fn from_zero(self) -> Self {
        Self {
            from_zero: true,
            ..self
        }
    }

    pub(crate) fn wants_zero(&self) -> bool {
        self.from_zero
    }

    /// The producer's id and epoch.
    pub(crate) fn producer(&self) -> (i64, i16) {
        (self.producer_id, self.producer_epoch)
    }
}

/// The guards that are valid, by producer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Verifications {
    guards: BTreeMap<i64, VerificationGuard>,
    last: u64,
}

impl Verifications {
    /// One guard for all batches of the producer that are on their way.
    pub(crate) fn begin(&mut self, producer_id: i64, producer_epoch: i16) -> VerificationGuard {
        let known = self.guards.get(&producer_id);
        if let Some(guard) = known.filter(|guard| guard.producer_epoch == producer_epoch) {
            return *guard;
        }
        if self.guards.len() >= VERIFICATIONS_MAX {
            let eldest = self.guards.values().min_by_key(|guard| guard.number);
            let eldest = eldest.map(|guard| guard.producer_id);
            eldest.and_then(|eldest| self.guards.remove(&eldest));
        }
        self.last += 1;
        let guard = VerificationGuard {
            producer_id,
            producer_epoch,
            number: self.last,
            from_zero: false,
        };
        self.guards.insert(producer_id, guard);
        guard
    }

    pub(crate) fn allows(
        &self,
        guard: &VerificationGuard,
        (producer_id, producer_epoch): (i64, i16),
    ) -> bool {
        let of_producer =
            guard.producer_id == producer_id && guard.producer_epoch == producer_epoch;
        let known = self.guards.get(&producer_id);
        of_producer && known.is_some_and(|known| known.number == guard.number)
    }

    /// A transaction of the producer has begun, or ended.
    pub(crate) fn end(&mut self, producer_id: i64) {
        self.guards.remove(&producer_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_undecided_one_holds_the_stable_end() {
        let mut txns = OpenTxns::default();
        assert_eq!(txns.first_unstable(), None);
        txns.begin(10, 1);
        txns.begin(20, 2);
        assert_eq!(txns.end(10, 30), 20, "the other one is open");
        assert_eq!(txns.first_unstable(), Some(10), "its end is not visible");
        txns.on_visible(30);
        assert_eq!(txns.first_unstable(), Some(10));
        txns.on_visible(31);
        assert_eq!(txns.first_unstable(), Some(20));
        assert_eq!(txns.end(20, 31), 32);
        txns.cancel_end(20, 2);
        txns.cancel_begin(20);
        assert_eq!(txns.first_unstable(), None);
    }

    #[test]
    fn a_guard_is_for_one_producer_until_a_marker_comes() {
        let mut verifications = Verifications::default();
        let guard = verifications.begin(1, 0);
        assert_eq!(verifications.begin(1, 0), guard);
        assert!(verifications.allows(&guard, (1, 0)));
        assert!(!verifications.allows(&guard, (2, 0)));
        assert!(!verifications.allows(&guard, (1, 1)));
        let newer = verifications.begin(1, 1);
        assert!(!verifications.allows(&guard, (1, 0)));
        verifications.end(1);
        assert!(!verifications.allows(&newer, (1, 1)));
        assert_ne!(verifications.begin(1, 1), newer);
    }
}
