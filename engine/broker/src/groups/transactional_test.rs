//! Offsets in transactions against a log in memory: what counts, what waits, and what a restart or
//! a snapshot makes of both.

use bytes::Bytes;
use proptest::prelude::*;
use ringmill_wire::StrBytes;

use super::Claim;
use super::admin::Commit;
use super::coordinator::{Capacity, Coordinator};
use super::records::OffsetRecord;
use super::write::Write;
use crate::clock::Now;
use crate::config::broker::GroupConfig;
use crate::transactions::Producer;

/// What the log has.
#[derive(Debug, Clone)]
enum Entry {
    Record(Option<Producer>, Bytes, Option<Bytes>),
    Marker(i64, bool),
}

struct Node {
    coordinator: Coordinator,
    log: Vec<Entry>,
    flushed: usize,
    unsettled: Vec<u64>,
}

fn coordinator(log: &[Entry]) -> Coordinator {
    let capacity = Capacity {
        groups: 100,
        offsets: 1000,
        metadata_bytes: 10_000,
    };
    let mut coordinator = Coordinator::new(GroupConfig::default(), capacity);
    let now = Now::default();
    coordinator.begin_load(0);
    for entry in log.iter().cloned() {
        match entry {
            Entry::Record(producer, key, value) => {
                coordinator.load(now, 0, producer, key, value).unwrap();
            }
            Entry::Marker(producer, committed) => {
                coordinator.load_end(now, 0, producer, committed);
            }
        }
    }
    coordinator.finish_load(now, 0);
    coordinator
}

fn commits(partition: i32, offset: i64) -> Vec<Commit> {
    vec![Commit {
        topic: "t".to_owned(),
        partition,
        record: OffsetRecord {
            offset,
            ..OffsetRecord::default()
        },
    }]
}

fn nobody() -> Claim {
    Claim {
        generation: -1,
        ..Claim::default()
    }
}

impl Node {
    fn new() -> Self {
        Self {
            coordinator: coordinator(&[]),
            log: Vec::new(),
            flushed: 0,
            unsettled: Vec::new(),
        }
    }

    fn append(&mut self, mut write: Write) {
        let life = self.coordinator.appended(0, write.take_changes());
        let producer = write.producer;
        let records = write.records.into_iter();
        self.log
            .extend(records.map(|(key, value)| Entry::Record(producer, key, value)));
        self.unsettled.push(life);
    }

    fn commit(&mut self, partition: i32, offset: i64) {
        let commits = commits(partition, offset);
        let now = Now::default();
        let committed = self
            .coordinator
            .commit(now, "g", 0, &nobody(), true, commits);
        self.append(committed.unwrap().1.expect("a write"));
    }

    fn commit_in_transaction(&mut self, id: i64, partition: i32, offset: i64) {
        let commits = commits(partition, offset);
        let producer = Producer { id, epoch: 0 };
        let committed = self.coordinator.commit_in_transaction(
            Now::default(),
            "g",
            0,
            &nobody(),
            producer,
            commits,
        );
        self.append(committed.unwrap().1.expect("a write"));
    }

    fn end(&mut self, id: i64, committed: bool) {
        let life = self.coordinator.transaction_ending(0, id, committed);
        self.log.push(Entry::Marker(id, committed));
        self.unsettled.push(life);
    }

    fn settle(&mut self, is_durable: bool) {
        if !is_durable {
            self.log.truncate(self.flushed);
        }
        self.flushed = self.log.len();
        for life in std::mem::take(&mut self.unsettled) {
            self.coordinator
                .settled(Now::default(), (0, life), is_durable);
        }
    }

    fn crash(&mut self) {
        self.log.truncate(self.flushed);
        self.unsettled.clear();
        self.coordinator = coordinator(&self.log);
    }

    /// Everything is appended anew, and what was before goes.
    fn compact(&mut self) {
        let sections = self.coordinator.snapshot(Now::default(), 0);
        self.settle(true);
        self.log.clear();
        for section in sections {
            let records = section.records.into_iter();
            let producer = section.producer;
            self.log
                .extend(records.map(|(key, value)| Entry::Record(producer, key, value)));
        }
        self.flushed = self.log.len();
    }

    /// Each partition's offset, and whether a transaction may change it.
    fn offsets(&self) -> Vec<(Option<i64>, bool)> {
        let wanted = [(StrBytes::from_static_str("t"), vec![0, 1])];
        let found = self
            .coordinator
            .fetch_stable("g", 0, (None, -1), Some(&wanted));
        let found = found.unwrap().remove(0);
        let parts = found.partitions.iter();
        parts
            .map(|(number, record)| {
                let offset = record.as_ref().map(|record| record.offset);
                (offset, found.unstable.contains(number))
            })
            .collect()
    }
}

#[test]
fn an_offset_of_a_transaction_counts_when_its_marker_is_durable() {
    let mut node = Node::new();
    node.commit_in_transaction(1, 0, 5);
    assert_eq!(node.offsets()[0], (None, true), "not even flushed");
    node.settle(true);
    assert_eq!(node.offsets()[0], (None, true));
    node.end(1, true);
    assert_eq!(node.offsets()[0], (None, true));
    node.settle(true);
    assert_eq!(node.offsets(), [(Some(5), false), (None, false)]);
    node.commit_in_transaction(1, 0, 6);
    node.settle(true);
    assert_eq!(node.offsets()[0], (Some(5), true));
    node.end(1, false);
    node.settle(true);
    assert_eq!(node.offsets()[0], (Some(5), false));
}

#[test]
fn a_deleted_offset_does_not_come_back_with_a_marker() {
    let mut node = Node::new();
    node.commit(0, 1);
    node.commit_in_transaction(1, 0, 5);
    node.settle(true);
    let topics = std::collections::BTreeSet::from(["t".to_owned()]);
    for write in node.coordinator.forget_topics(&topics) {
        node.append(write);
    }
    node.end(1, true);
    node.settle(true);
    assert_eq!(node.offsets()[0], (None, false));
}

#[test]
fn a_group_whose_only_offsets_are_pending_is_not_forgotten() {
    let mut node = Node::new();
    node.commit_in_transaction(1, 0, 5);
    node.settle(true);
    let now = Now {
        wall_ms: i64::MAX / 2,
        ..Now::default()
    };
    assert!(node.coordinator.expire(now).is_empty());
    assert_eq!(node.coordinator.len(), 1);
    node.end(1, false);
    node.settle(true);
    assert!(node.coordinator.is_empty());
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Commit(i32),
    CommitInTransaction(i64, i32),
    End(i64, bool),
    Flush,
    TakeBack,
    Crash,
    Compact,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..2).prop_map(Op::Commit),
        5 => (1..4_i64, 0..2).prop_map(|(id, part)| Op::CommitInTransaction(id, part)),
        3 => (1..4_i64, any::<bool>()).prop_map(|(id, committed)| Op::End(id, committed)),
        3 => Just(Op::Flush),
        1 => Just(Op::TakeBack),
        1 => Just(Op::Crash),
        1 => Just(Op::Compact),
    ]
}

/// What a log without compaction comes to, said in the plainest way.
fn expected(log: &[Entry]) -> Vec<Option<i64>> {
    let mut offsets: [(usize, Option<i64>); 2] = [(0, None); 2];
    let mut open: Vec<(i64, usize, usize, i64)> = Vec::new();
    for (at, entry) in log.iter().enumerate() {
        match entry {
            Entry::Record(producer, key, value) => {
                let partition = usize::from(key[key.len() - 1]);
                let value = value.clone().expect("no tombstones here");
                let offset = super::records::decode_offset(value).unwrap().offset;
                match producer {
                    Some(producer) => open.push((producer.id, at, partition, offset)),
                    None => offsets[partition] = (at, Some(offset)),
                }
            }
            Entry::Marker(producer, committed) => {
                for (_, at, partition, offset) in open.extract_if(.., |(id, ..)| id == producer) {
                    if *committed && offsets[partition].0 <= at {
                        offsets[partition] = (at, Some(offset));
                    }
                }
            }
        }
    }
    offsets.map(|(_, offset)| offset).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn restarts_and_compaction_change_nothing(ops in prop::collection::vec(op(), 1..80)) {
        let mut node = Node::new();
        // Never compacted, to compare with.
        let (mut whole, mut flushed) = (Vec::new(), 0);
        for (offset, op) in ops.into_iter().enumerate() {
            let before = node.log.len();
            match op {
                Op::Commit(part) => node.commit(part, offset as i64),
                Op::CommitInTransaction(id, part) => {
                    node.commit_in_transaction(id, part, offset as i64);
                }
                Op::End(id, committed) => node.end(id, committed),
                Op::Flush => node.settle(true),
                Op::TakeBack => {
                    whole.truncate(flushed);
                    node.settle(false);
                }
                Op::Crash => {
                    whole.truncate(flushed);
                    node.crash();
                }
                Op::Compact => node.compact(),
            }
            if !matches!(op, Op::Compact) {
                whole.extend_from_slice(node.log.get(before..).unwrap_or(&[]));
            }
            if matches!(op, Op::Flush | Op::TakeBack | Op::Crash | Op::Compact) {
                flushed = whole.len();
                let found: Vec<_> = node.offsets().into_iter().map(|(o, _)| o).collect();
                prop_assert_eq!(found, expected(&whole));
            }
        }
    }
}
