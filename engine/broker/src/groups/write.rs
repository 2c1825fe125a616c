//! What groups ask to be stored: records for `__consumer_offsets`, and what changes once they are
//! durable.

use bytes::Bytes;

use super::Reply;
use super::records::{self, GroupRecord, Key, OffsetRecord};
use crate::transactions::Producer;

/// What a record of the log changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Key,
    /// For an offset, its new value; a group's own record changes nothing while it lives.
    pub(super) offset: Option<OffsetRecord>,
    /// In whose transaction it was written, if in any.
    pub(super) producer: Option<Producer>,
    /// For a group's record, whether it is the tombstone.
    pub(super) ends_group: bool,
}

impl Change {
    /// The topic and partition, if it is an offset of the group.
    pub(super) fn of_group(&self, id: &str) -> Option<(&str, i32)> {
        match &self.key {
            Key::Offset {
                group,
                topic,
                partition,
            } if group == id => Some((topic, *partition)),
            _ => None,
        }
    }
}

/// What was appended to a partition's log in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The changes of a write.
    Changes(Vec<Change>),
    /// A marker: the end of a producer's transaction.
    End { producer_id: i64, committed: bool },
}

impl Step {
    /// Its changes; none for a marker, whose changes came before it.
    pub(super) fn changes(&self) -> &[Change] {
        match self {
            Self::Changes(changes) => changes,
            Self::End { .. } => &[],
        }
    }
}

/// Records to append to one partition of `__consumer_offsets`, all in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The partition.
    pub partition: i32,
    /// The group that they are about.
    pub group: String,
    /// Keys and values; no value is a tombstone.
    pub records: Vec<(Bytes, Option<Bytes>)>,
    /// In whose transaction they are, if in any.
    pub producer: Option<Producer>,
    /// Replies to send once the records are flushed.
    pub after: Vec<Reply>,
    /// Whether the group waits to hear what became of it.
    pub is_beat: bool,
    /// Of a classic group's record, its generation.
    pub generation: Option<i32>,
    pub(super) changes: Vec<Change>,
}

impl Write {
    pub(super) fn new(partition: i32, group: &str) -> Self {
        Self {
            partition,
            group: group.to_owned(),
            records: Vec::new(),
            producer: None,
            after: Vec::new(),
            is_beat: false,
            generation: None,
            changes: Vec::new(),
        }
    }

    pub(super) fn offset(&mut self, key: Key, value: Option<OffsetRecord>) {
        let bytes = value.as_ref().map(records::encode_offset);
        self.records.push((records::encode_key(&key), bytes));
        self.changes.push(Change {
            key,
            offset: value,
            producer: None,
            ends_group: false,
        });
    }

    pub(super) fn group(&mut self, value: Option<&GroupRecord>) {
        let key = Key::Group(self.group.clone());
        let bytes = value.map(records::encode_group);
        self.records.push((records::encode_key(&key), bytes));
        self.changes.push(Change {
            key,
            offset: None,
            producer: None,
            ends_group: value.is_none(),
        });
    }

    /// Ends a group; `records` end all that the log has of its members.
    pub(super) fn end(&mut self, records: Vec<(Bytes, Option<Bytes>)>) {
        self.records.extend(records);
        self.changes.push(Change {
            key: Key::Group(self.group.clone()),
            offset: None,
            producer: None,
            ends_group: true,
        });
    }

    /// The keys of its records.
    pub fn keys(&self) -> Vec<Bytes> {
        self.records.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Makes it a part of a producer's transaction.
    pub(super) fn put_in_transaction(&mut self, producer: Producer) {
        self.producer = Some(producer);
        for change in &mut self.changes {
            change.producer = Some(producer);
        }
    }

    /// Takes the changes out, for `Coordinator::appended`.
    pub fn take_changes(&mut self) -> Changes {
        Changes(std::mem::take(&mut self.changes))
    }
}

/// The changes of a [`Write`].
#[derive(Debug, Default)]
pub struct Changes(Vec<Change>);

impl Changes {
    pub(super) fn into_inner(self) -> Vec<Change> {
        self.0
    }
}

/// What an event asks of the shell: replies to send now, a record to store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Send these at once.
    pub replies: Vec<Reply>,
    /// Append this.
    pub write: Option<Write>,
}

/// The key of a group's offset.
pub(super) fn offset_key(group: &str, topic: &str, partition: i32) -> Key {
    Key::Offset {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
    }
}
