//! What groups ask to be stored: records for `__consumer_offsets`, and what changes once they are
//! durable.

use bytes::Bytes;

use super::Reply;
use super::records::{self, GroupRecord, Key, OffsetRecord};

/// What a record of the log changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Key,
    /// For an offset, its new value; a group's own record changes nothing while it lives.
    pub(super) offset: Option<OffsetRecord>,
    /// For a group's record, whether it is the tombstone.
    pub(super) ends_group: bool,
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
    /// Replies to send once the records are flushed.
    pub after: Vec<Reply>,
    /// Whether the group waits to hear what became of it.
    pub is_beat: bool,
    pub(super) changes: Vec<Change>,
}

impl Write {
    pub(super) fn new(partition: i32, group: &str) -> Self {
        Self {
            partition,
            group: group.to_owned(),
            records: Vec::new(),
            after: Vec::new(),
            is_beat: false,
            changes: Vec::new(),
        }
    }

    pub(super) fn offset(&mut self, key: Key, value: Option<OffsetRecord>) {
        let bytes = value.as_ref().map(records::encode_offset);
        self.records.push((records::encode_key(&key), bytes));
        self.changes.push(Change {
            key,
            offset: value,
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
            ends_group: value.is_none(),
        });
    }

    /// Ends a group; `records` end all that the log has of its members.
    pub(super) fn end(&mut self, records: Vec<(Bytes, Option<Bytes>)>) {
        self.records.extend(records);
        self.changes.push(Change {
            key: Key::Group(self.group.clone()),
            offset: None,
            ends_group: true,
        });
    }

    /// The keys of its records.
    pub fn keys(&self) -> Vec<Bytes> {
        self.records.iter().map(|(key, _)| key.clone()).collect()
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
