//! What a node of the quorum has stored: its vote, its log and the latest snapshot, and the records
//! of the journal that lead to it. Pure.
//!
//! ```text
//! change  one or more records, all of which count or none
//! record  kind u8, then
//!         1 vote      a vote
//!         2 entry     an entry
//!         3 truncate  index u64: entries from here on go
//!         4 purge     a log id: entries up to it go
//!         5 snapshot  its meta, length u32, bytes
//! meta    last log id or none, the membership's log id or none, the membership
//! ```

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::types::{
    Entry, LogId, SnapshotMeta, Vote, get_bytes, get_entry, get_log_id, get_snapshot_meta,
    get_vote, index_of, put_bytes, put_entry, put_log_id, put_snapshot_meta, put_vote,
};

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Vote(Vote),
    Entry(Entry),
    /// Entries from this index on go.
    Truncate(u64),
    /// Entries up to this one go.
    Purge(LogId),
    Snapshot(Snapshot),
}

/// The machine's state after an entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) data: Bytes,
}

/// A record that does not follow from those before it: the journal is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotStored {
    /// An entry does not stand behind the last one.
    #[error("entry {found} follows, where {expected} should")]
    Gap {
        /// The next index.
        expected: u64,
        /// The entry's.
        found: u64,
    },
    /// What was committed is to be taken back.
    #[error("the log is cut at {at}, before its beginning {first}")]
    Cut {
        /// Where.
        at: u64,
        /// The first index that is there.
        first: u64,
    },
    /// Bytes that are no record.
    #[error("a record is of an unknown kind: a newer version wrote it")]
    Unknown,
}

/// Vote, log and snapshot.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) vote: Option<Vote>,
    /// The last entry that has gone.
    pub(crate) purged: Option<LogId>,
    pub(crate) snapshot: Option<Snapshot>,
    /// Those behind `purged`, without gaps.
    entries: VecDeque<Entry>,
}

impl Stored {
    /// The first index that is there or comes next.
    fn first(&self) -> u64 {
        self.purged.map_or(0, |id| id.index() + 1)
    }

    /// The index of the next entry.
    pub(crate) fn next(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }

    /// The last entry, if only as one that has gone.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries
            .back()
            .map(|entry| entry.log_id)
            .or(self.purged)
    }

    /// Entries of the indexes that are there.
    pub(crate) fn entries(&self, range: RangeInclusive<u64>) -> Vec<Entry> {
        let first = self.first();
        let from = range.start().saturating_sub(first) as usize;
        let end = range.end().saturating_add(1).saturating_sub(first) as usize;
        let end = end.min(self.entries.len());
        match from < end {
            true => self.entries.range(from..end).cloned().collect(),
            false => Vec::new(),
        }
    }

    /// Takes the next step.
    pub(crate) fn apply(&mut self, record: Record) -> Result<(), NotStored> {
        match record {
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Entry(entry) => {
                let (expected, found) = (self.next(), index_of(&entry));
                if found != expected {
                    return Err(NotStored::Gap { expected, found });
                }
                self.entries.push_back(entry);
            }
            Record::Truncate(at) => {
                let first = self.first();
                let keep = at.checked_sub(first).ok_or(NotStored::Cut { at, first })?;
                self.entries.truncate(keep as usize);
            }
            Record::Purge(id) => self.purge(id),
            Record::Snapshot(snapshot) => self.snapshot = Some(snapshot),
        }
        Ok(())
    }

    fn purge(&mut self, id: LogId) {
        if id.index() < self.first() {
            return;
        }
        let gone = (id.index() + 1 - self.first()).min(self.entries.len() as u64);
        self.entries.drain(..gone as usize);
        self.purged = Some(id);
    }

    /// The records that lead from nothing to here.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        let snapshot = self.snapshot.clone().map(Record::Snapshot);
        let purge = self.purged.map(Record::Purge);
        let vote = self.vote.map(Record::Vote);
        let before = [snapshot, purge, vote].into_iter().flatten();
        before.chain(self.entries.iter().cloned().map(Record::Entry))
    }
}

/// Appends a record's bytes.
pub(crate) fn encode(record: &Record, out: &mut BytesMut) {
    match record {
        Record::Vote(vote) => {
            out.put_u8(1);
            put_vote(out, vote);
        }
        Record::Entry(entry) => {
            out.put_u8(2);
            put_entry(out, entry);
        }
        Record::Truncate(index) => {
            out.put_u8(3);
            out.put_u64(*index);
        }
        Record::Purge(id) => {
            out.put_u8(4);
            put_log_id(out, id);
        }
        Record::Snapshot(snapshot) => {
            out.put_u8(5);
            put_snapshot_meta(out, &snapshot.meta);
            put_bytes(out, &snapshot.data);
        }
    }
}

/// Takes the steps of a change.
///
/// # Errors
/// It holds anything else than records, or they do not follow from what is stored.
pub(crate) fn replay(stored: &mut Stored, mut change: Bytes) -> Result<(), NotStored> {
    while !change.is_empty() {
        let record = decode(&mut change).ok_or(NotStored::Unknown)?;
        stored.apply(record)?;
    }
    Ok(())
}

fn decode(bytes: &mut Bytes) -> Option<Record> {
    Some(match bytes.try_get_u8().ok()? {
        1 => Record::Vote(get_vote(bytes)?),
        2 => Record::Entry(get_entry(bytes)?),
        3 => Record::Truncate(bytes.try_get_u64().ok()?),
        4 => Record::Purge(get_log_id(bytes)?),
        5 => Record::Snapshot(Snapshot {
            meta: get_snapshot_meta(bytes)?,
            data: get_bytes(bytes)?,
        }),
        _ => return None,
    })
}
