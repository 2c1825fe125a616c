//! Offsets that were committed in transactions whose end is not known yet, of all groups of one core
//! (KIP-98, KIP-447). They count when the transaction's marker says that it is committed.
//!
//! Of two commits of the same partition's offset, the later in the log wins, wherever its
//! transaction ends: what a later commit outdoes is dropped here, since it would never count.

use std::collections::BTreeMap;

use super::records::OffsetRecord;
use crate::transactions::Producer;

/// A group, a topic and a partition.
pub(super) type OffsetKey = (String, String, i32);

/// One producer's open transaction.
#[derive(Debug, Clone)]
struct Open {
    epoch: i16,
    offsets: BTreeMap<OffsetKey, Pending>,
}

/// An offset of an open transaction.
#[derive(Debug, Clone)]
struct Pending {
    /// Its place in the order of the log.
    at: u64,
    record: OffsetRecord,
}

/// The open transactions that committed offsets, by partition of `__consumer_offsets` and producer.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenTransactions {
    open: BTreeMap<(i32, i64), Open>,
    next: u64,
    len: usize,
}

impl OpenTransactions {
    /// How many offsets are pending.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A producer commits an offset in its transaction.
    pub(super) fn put(
        &mut self,
        home: i32,
        producer: Producer,
        key: OffsetKey,
        record: OffsetRecord,
    ) {
        let (at, epoch) = (self.next, producer.epoch);
        self.next += 1;
        let open = self.open.entry((home, producer.id)).or_insert(Open {
            epoch,
            offsets: BTreeMap::new(),
        });
        open.epoch = epoch;
        let replaced = open.offsets.insert(key, Pending { at, record });
        self.len += usize::from(replaced.is_none());
    }

    /// A transaction has ended. Gives the offsets that count from now on.
    pub(super) fn end(
        &mut self,
        home: i32,
        producer_id: i64,
        committed: bool,
    ) -> Vec<(OffsetKey, OffsetRecord)> {
        let Some(open) = self.open.remove(&(home, producer_id)) else {
            return Vec::new();
        };
        self.len -= open.offsets.len();
        if !committed {
            return Vec::new();
        }
        for (key, pending) in &open.offsets {
            self.outdo(home, key, pending.at);
        }
        let offsets = open.offsets.into_iter();
        offsets
            .map(|(key, pending)| (key, pending.record))
            .collect()
    }

    /// An offset was set, or removed, outside of any transaction.
    pub(super) fn on_plain(&mut self, home: i32, key: &OffsetKey) {
        if self.len > 0 {
            self.outdo(home, key, u64::MAX);
        }
    }

    /// What was committed before a place in the log counts no more.
    fn outdo(&mut self, home: i32, key: &OffsetKey, before: u64) {
        for (_, open) in self.open.range_mut((home, i64::MIN)..=(home, i64::MAX)) {
            if open.offsets.get(key).is_some_and(|p| p.at < before) {
                open.offsets.remove(key);
                self.len -= 1;
            }
        }
    }

    /// The pending offsets of a partition of `__consumer_offsets`.
    pub(super) fn of_home(&self, home: i32) -> impl Iterator<Item = &OffsetKey> {
        let open = self.open.range((home, i64::MIN)..=(home, i64::MAX));
        open.flat_map(|(_, open)| open.offsets.keys())
    }

    /// The pending offsets of a group.
    pub(super) fn of_group<'a>(
        &'a self,
        home: i32,
        group: &'a str,
    ) -> impl Iterator<Item = (&'a str, i32)> {
        let keys = self.of_home(home).filter(move |(g, _, _)| g == group);
        keys.map(|(_, topic, partition)| (topic.as_str(), *partition))
    }

    /// All pending offsets: partition of `__consumer_offsets`, group, topic, partition.
    pub(super) fn all(&self) -> impl Iterator<Item = (i32, &str, &str, i32)> {
        self.open.iter().flat_map(|((home, _), open)| {
            let keys = open.offsets.keys();
            keys.map(|(group, topic, number)| (*home, group.as_str(), topic.as_str(), *number))
        })
    }

    /// All that is pending in a partition of `__consumer_offsets`, in the order of the log.
    #[cfg(test)]
    pub(super) fn in_order(&self, home: i32) -> Vec<(Producer, &OffsetKey, &OffsetRecord)> {
        let open = self.open.range((home, i64::MIN)..=(home, i64::MAX));
        let mut all: Vec<_> = open
            .flat_map(|((_, id), open)| {
                let producer = Producer {
                    id: *id,
                    epoch: open.epoch,
                };
                let offsets = open.offsets.iter();
                offsets.map(move |(key, pending)| (pending.at, producer, key, &pending.record))
            })
            .collect();
        all.sort_unstable_by_key(|(at, ..)| *at);
        let all = all.into_iter();
        all.map(|(_, producer, key, record)| (producer, key, record))
            .collect()
    }

    /// The partition's log is given up, or read anew.
    pub(super) fn forget_home(&mut self, home: i32) {
        let gone = self
            .open
            .extract_if((home, i64::MIN)..=(home, i64::MAX), |_, _| true);
        let gone: usize = gone.map(|(_, open)| open.offsets.len()).sum();
        self.len -= gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(id: i64) -> Producer {
        Producer { id, epoch: 0 }
    }

    fn key(topic: &str) -> OffsetKey {
        ("g".to_owned(), topic.to_owned(), 0)
    }

    fn record(offset: i64) -> OffsetRecord {
        OffsetRecord {
            offset,
            ..OffsetRecord::default()
        }
    }

    fn offsets(ended: Vec<(OffsetKey, OffsetRecord)>) -> Vec<i64> {
        ended.into_iter().map(|(_, record)| record.offset).collect()
    }

    #[test]
    fn an_end_gives_what_was_committed_or_nothing() {
        let mut open = OpenTransactions::default();
        for id in [1, 2] {
            open.put(0, producer(id), key("a"), record(id));
            open.put(0, producer(id), key("b"), record(10 * id));
        }
        open.put(7, producer(1), key("a"), record(70));
        assert_eq!(open.len(), 5);
        assert!(open.end(0, 2, false).is_empty());
        assert_eq!(offsets(open.end(0, 1, true)), [1, 10]);
        assert!(open.end(0, 1, true).is_empty(), "a marker that comes twice");
        assert_eq!(offsets(open.end(7, 1, true)), [70]);
        assert_eq!(open.len(), 0);
    }

    #[test]
    fn the_later_commit_in_the_log_wins_wherever_its_transaction_ends() {
        let mut open = OpenTransactions::default();
        open.put(0, producer(1), key("a"), record(1));
        open.put(0, producer(2), key("a"), record(2));
        assert_eq!(offsets(open.end(0, 2, true)), [2]);
        assert!(open.end(0, 1, true).is_empty(), "it was outdone");
        open.put(0, producer(1), key("a"), record(3));
        open.put(0, producer(2), key("a"), record(4));
        assert_eq!(offsets(open.end(0, 1, true)), [3]);
        assert_eq!(offsets(open.end(0, 2, true)), [4]);
        open.put(0, producer(1), key("a"), record(5));
        open.on_plain(0, &key("a"));
        assert!(open.end(0, 1, true).is_empty());
    }

    #[test]
    fn what_is_pending_is_told_in_the_order_of_the_log() {
        let mut open = OpenTransactions::default();
        open.put(0, producer(2), key("a"), record(1));
        open.put(0, producer(1), key("a"), record(2));
        open.put(0, producer(2), key("b"), record(3));
        open.put(0, producer(2), key("a"), record(4));
        let told = open.in_order(0);
        let told: Vec<i64> = told.iter().map(|(_, _, record)| record.offset).collect();
        assert_eq!(told, [2, 3, 4]);
        open.forget_home(0);
        assert_eq!((open.len(), open.of_home(0).count()), (0, 0));
    }
}
