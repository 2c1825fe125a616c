//! What compaction would leave of a partition's log, for tests that go on from there.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::coordinator::Coordinator;
use super::kind::Kind;
use super::pending::OpenTransactions;
use super::records::{self, Key};
use super::write::{Change, Step, offset_key};
use crate::clock::Now;
use crate::transactions::Producer;

/// What of a partition's log still counts, as records of one kind: outside of transactions, or in
/// one producer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Whose transaction it is, if any.
    pub producer: Option<Producer>,
    /// Keys and values.
    pub records: Vec<(Bytes, Option<Bytes>)>,
}

impl Coordinator {
    /// All that the partition's log has to say, in as few records as compaction would leave.
    pub fn snapshot(&self, now: Now, partition: i32) -> Vec<Section> {
        let (mut live, consumers) = self.live_records(now, partition);
        let mut pending = self.pending.clone();
        for step in self.steps(partition) {
            match step {
                Step::Changes(changes) => {
                    let changes = changes.iter();
                    changes.for_each(|change| replay(&mut live, &mut pending, partition, change));
                }
                Step::End {
                    producer_id,
                    committed,
                } => {
                    for ((group, topic, number), record) in
                        pending.end(partition, *producer_id, *committed)
                    {
                        let key = offset_key(&group, &topic, number);
                        live.insert(key, records::encode_offset(&record));
                    }
                }
            }
        }
        let live = live.into_iter();
        let mut sections = vec![Section {
            producer: None,
            records: live
                .map(|(key, value)| (records::encode_key(&key), Some(value)))
                .chain(consumers)
                .collect(),
        }];
        for (producer, (group, topic, number), record) in pending.in_order(partition) {
            let key = records::encode_key(&offset_key(group, topic, *number));
            let record = (key, Some(records::encode_offset(record)));
            match sections.last_mut() {
                Some(last) if last.producer == Some(producer) => last.records.push(record),
                _ => sections.push(Section {
                    producer: Some(producer),
                    records: vec![record],
                }),
            }
        }
        sections
    }

    /// What counts of a partition's log, outside of transactions, as far as it is durable: offsets
    /// and groups by their keys, and the records of groups of the consumer protocol.
    #[allow(clippy::type_complexity, reason = "two kinds of records")]
    fn live_records(
        &self,
        now: Now,
        partition: i32,
    ) -> (BTreeMap<Key, Bytes>, Vec<(Bytes, Option<Bytes>)>) {
        let mut live: BTreeMap<Key, Bytes> = BTreeMap::new();
        let mut consumers = Vec::new();
        for (id, group) in self.groups.iter().filter(|(_, g)| g.partition == partition) {
            for (topic, number, record) in group.offsets.iter() {
                live.insert(
                    offset_key(id, topic, number),
                    records::encode_offset(record),
                );
            }
            match &group.kind {
                Kind::Classic(classic) if group.stored => {
                    let record = records::encode_group(&classic.record());
                    live.insert(Key::Group(id.clone()), record);
                }
                Kind::Consumer(group_of_it) if group.stored && !group.is_ending => {
                    consumers.extend(group_of_it.entries(now.wall_ms).into_records());
                }
                _ => {}
            }
        }
        (live, consumers)
    }
}

/// A change that was appended and is not yet durable, as if it were.
fn replay(
    live: &mut BTreeMap<Key, Bytes>,
    pending: &mut OpenTransactions,
    home: i32,
    change: &Change,
) {
    let Key::Offset {
        group,
        topic,
        partition,
    } = &change.key
    else {
        if change.ends_group {
            live.remove(&change.key);
        }
        return;
    };
    let key = (group.clone(), topic.clone(), *partition);
    match (&change.offset, change.producer) {
        (Some(record), Some(producer)) => pending.put(home, producer, key, record.clone()),
        (Some(record), None) => {
            pending.on_plain(home, &key);
            live.insert(change.key.clone(), records::encode_offset(record));
        }
        (None, _) => {
            pending.on_plain(home, &key);
            live.remove(&change.key);
        }
    }
}
