//! The coordinator's state as the log has it: reading a partition of `__consumer_offsets`, and what
//! its writes change once they are durable.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::classic::ClassicGroup;
use super::consumer::{self, ConsumerGroup, Settings, Stored};
use super::coordinator::{Coordinator, Group};
use super::kind::Kind;
use super::records::{self, GroupRecord, Key, OffsetRecord, RecordError};
use super::write::{Change, Changes, Step};
use crate::clock::Now;
use crate::transactions::Producer;

/// Where a partition of `__consumer_offsets` stands.
#[derive(Debug)]
pub(super) enum Load {
    /// Being read; what the log has said of each group so far.
    Loading(Found),
    Ready,
    /// It could not be read or written.
    Failed,
}

/// The groups of a partition that is being read.
#[derive(Debug, Default)]
pub(super) struct Found {
    classic: BTreeMap<String, GroupRecord>,
    consumer: BTreeMap<String, Stored>,
}

/// Of a partition that is not served.
const NO_LIFE: u64 = 0;

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) load: Load,
    /// Which reading of the partition this is, counted over all: what was appended before it is
    /// settled behind it.
    life: u64,
    /// What was appended and awaits its flush, in the order of the log.
    pub(super) queue: VecDeque<Step>,
}

impl Coordinator {
    /// A partition of `__consumer_offsets` is about to be read.
    /// Whatever was known of its groups counts no more.
    pub fn begin_load(&mut self, partition: i32) {
        self.resign(partition);
        self.put(partition, Load::Loading(Found::default()));
    }

    fn put(&mut self, partition: i32, load: Load) {
        self.lives += 1;
        let state = Partition {
            load,
            life: self.lives,
            queue: VecDeque::new(),
        };
        self.partitions.insert(partition, state);
    }

    /// One record of a partition that is being read, and whose transaction it is part of; records
    /// come in the order of the log.
    ///
    /// An error names a record that cannot be understood; it changes nothing, and the caller goes
    /// on with the next.
    pub fn load(
        &mut self,
        now: Now,
        partition: i32,
        producer: Option<Producer>,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<(), RecordError> {
        let Some(key) = records::decode_key(key)? else {
            return Ok(());
        };
        match &key {
            Key::Offset { group, .. } => {
                let offset = value.map(records::decode_offset).transpose()?;
                self.ensure_group(now, group, partition);
                let ends_group = false;
                let change = Change {
                    key,
                    offset,
                    producer,
                    ends_group,
                };
                self.apply(now, partition, change);
            }
            Key::Group(group) => {
                let record = value.map(records::decode_group).transpose()?;
                let Some(found) = self.found(partition) else {
                    return Ok(());
                };
                match record {
                    Some(record) => drop(found.classic.insert(group.clone(), record)),
                    None => drop(found.classic.remove(group)),
                }
            }
            Key::Consumer(group, subject) => {
                let value = value.as_ref();
                let value = value.map(|value| consumer::records::decode_value(subject, value));
                let value = value.transpose()?;
                if let Some(found) = self.found(partition) {
                    let stored = found.consumer.entry(group.clone()).or_default();
                    stored.apply(subject.clone(), value);
                }
            }
        }
        Ok(())
    }

    fn found(&mut self, partition: i32) -> Option<&mut Found> {
        match &mut self.partitions.get_mut(&partition)?.load {
            Load::Loading(found) => Some(found),
            Load::Ready | Load::Failed => None,
        }
    }

    /// The partition is read to its end: its groups serve from now on.
    pub fn finish_load(&mut self, now: Now, partition: i32) {
        let Some(state) = self.partitions.get_mut(&partition) else {
            return;
        };
        let Load::Loading(found) = std::mem::replace(&mut state.load, Load::Ready) else {
            return;
        };
        let classic = found.classic.into_iter();
        let classic = classic.map(|(id, record)| {
            let group = ClassicGroup::restore(now, record);
            (id, Kind::Classic(group))
        });
        let mut kinds: BTreeMap<String, Kind> = classic.collect();
        for (id, stored) in found.consumer.into_iter().filter(|(_, s)| s.is_group()) {
            let settings = Settings {
                config: &self.config,
                limits: self.limits_of(&id),
            };
            let group = ConsumerGroup::restore(now, settings, &id, stored);
            kinds.insert(id, Kind::Consumer(group));
        }
        for (id, kind) in kinds {
            self.ensure_group(now, &id, partition);
            let group = self.groups.get_mut(&id).expect("just ensured");
            (group.kind, group.stored) = (kind, true);
            self.reschedule(&id);
            self.recount(&id);
        }
        let is_nothing = |(id, group): &(&String, &Group)| {
            group.partition == partition
                && !group.stored
                && group.offsets.is_empty()
                && self.pending.of_group(partition, id).next().is_none()
        };
        let nothing = self.groups.iter().filter(is_nothing);
        let nothing: Vec<String> = nothing.map(|(id, _)| id.clone()).collect();
        for id in nothing {
            self.remove_group(&id);
        }
    }

    /// The partition could not be read, or its log is lost: its groups are refused from now on.
    pub fn fail(&mut self, partition: i32) {
        self.resign(partition);
        self.put(partition, Load::Failed);
    }

    /// Another node leads the partition: its groups are that one's.
    pub fn resign(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        self.pending.forget_home(partition);
        let gone: Vec<String> = self
            .groups
            .iter()
            .filter(|(_, group)| group.partition == partition)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove_group(&id);
        }
    }

    /// The records of a [`Write`](super::write::Write) were appended to the log, after those of all writes before it.
    /// Gives the partition's life, which [`Self::settled`] is to be told.
    pub fn appended(&mut self, partition: i32, changes: Changes) -> u64 {
        self.append_step(partition, Step::Changes(changes.into_inner()))
    }

    pub(super) fn append_step(&mut self, partition: i32, step: Step) -> u64 {
        let Some(state) = self.partitions.get_mut(&partition) else {
            return NO_LIFE;
        };
        state.queue.push_back(step);
        state.life
    }

    /// The records of a [`Write`](super::write::Write) could not even be appended.
    pub fn not_appended(&mut self, changes: Changes) {
        for change in changes.into_inner() {
            self.take_back(&change);
        }
    }

    fn take_back(&mut self, change: &Change) {
        if change.ends_group
            && let Some(group) = self.groups.get_mut(change.key.group())
        {
            group.is_ending = false;
        }
    }

    /// The oldest write, or marker, that was appended in a life of the partition and not yet settled is
    /// durable, or was taken back. Of an earlier life, the log has told already.
    pub fn settled(&mut self, now: Now, (partition, life): (i32, u64), is_durable: bool) {
        let state = self.partitions.get_mut(&partition);
        let state = state.filter(|state| state.life == life);
        match state.and_then(|state| state.queue.pop_front()) {
            Some(Step::Changes(changes)) => {
                for change in changes {
                    if is_durable {
                        self.apply(now, partition, change);
                    } else {
                        self.take_back(&change);
                    }
                }
            }
            Some(Step::End {
                producer_id,
                committed,
            }) if is_durable => self.end_transaction(now, partition, producer_id, committed),
            Some(Step::End { .. }) | None => {}
        }
    }

    fn apply(&mut self, now: Now, partition: i32, change: Change) {
        if change.ends_group {
            return self.remove_group(change.key.group());
        }
        let Key::Offset {
            group: id,
            topic,
            partition: number,
        } = change.key
        else {
            return;
        };
        match (change.producer, change.offset) {
            (Some(producer), Some(record)) => {
                self.ensure_group(now, &id, partition);
                self.pending
                    .put(partition, producer, (id, topic, number), record);
            }
            (_, record) => {
                let key = (id, topic, number);
                self.pending.on_plain(partition, &key);
                let (id, topic, number) = key;
                self.set_offset(now, partition, &id, &topic, number, record);
            }
        }
    }

    /// An offset counts from now on, or counts no more.
    pub(super) fn set_offset(
        &mut self,
        now: Now,
        partition: i32,
        id: &str,
        topic: &str,
        number: i32,
        record: Option<OffsetRecord>,
    ) {
        if record.is_some() {
            self.ensure_group(now, id, partition);
        }
        if let Some(group) = self.groups.get_mut(id) {
            let before = group.offsets.len();
            group.offsets.apply(topic, number, record);
            self.offsets = self.offsets + group.offsets.len() - before;
            self.drop_if_done(id);
        }
    }

    /// What is appended to a partition's log and not yet flushed, newest last.
    pub(super) fn steps(&self, partition: i32) -> impl Iterator<Item = &Step> {
        let state = self.partitions.get(&partition).into_iter();
        state.flat_map(|state| &state.queue)
    }

    /// What is appended for a group and not yet flushed, newest last.
    pub(super) fn queued<'a>(
        &'a self,
        partition: i32,
        id: &'a str,
    ) -> impl Iterator<Item = (&'a str, i32, Option<&'a OffsetRecord>)> {
        let changes = self.steps(partition).flat_map(Step::changes);
        changes.filter_map(move |change| {
            let (topic, number) = change.of_group(id)?;
            Some((topic, number, change.offset.as_ref()))
        })
    }

    /// The same, of transactions alone.
    pub(super) fn queued_in_transactions<'a>(
        &'a self,
        partition: i32,
        id: &'a str,
    ) -> impl Iterator<Item = (&'a str, i32)> {
        let changes = self.steps(partition).flat_map(Step::changes);
        let of_transactions = changes.filter(|change| change.producer.is_some());
        of_transactions.filter_map(move |change| change.of_group(id))
    }

    /// All groups with queued offsets, and those offsets.
    pub(super) fn all_queued(&self) -> impl Iterator<Item = (i32, &str, &str, i32)> {
        self.partitions.iter().flat_map(|(home, state)| {
            let changes = state.queue.iter().flat_map(Step::changes);
            changes.filter_map(|change| match &change.key {
                Key::Offset {
                    group,
                    topic,
                    partition,
                } => Some((*home, group.as_str(), topic.as_str(), *partition)),
                Key::Group(_) | Key::Consumer(..) => None,
            })
        })
    }
}
