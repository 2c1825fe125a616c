//! What stays of a batch when its log is compacted: the last record of every key, tombstones for a
//! while, the markers of transactions as long as they are needed.
//!
//! Kafka's rules (`Cleaner.shouldRetainRecord`, `MemoryRecords.filterTo`): of the records that the
//! map speaks of, each must have its key's last offset. A tombstone stays for another
//! `delete.retention.ms` from the run on that first left it as its key's last word: that run writes
//! the time when it may go, the delete horizon, into its batch (KIP-534). A batch that holds the
//! last sequence number of an active producer stays, if without records. Pure.

use bytes::Bytes;
use ringmill_wire::batch::BatchView;
use ringmill_wire::record::{Record, RecordError, Records, decoded};
use ringmill_wire::retained::{RetainedBatch, empty_batch};

use crate::clean_txns::{CleanedTxns, Control};
use crate::offset_map::OffsetMap;

/// A batch may decompress to so many bytes.
pub(crate) const DECODED_BYTES_MAX: usize = 128 << 20;

/// What becomes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// All of it, as it is.
    Whole,
    /// Another batch in its place.
    Changed(Bytes),
}

/// How many records there were, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were looked at.
    pub records: u64,
    /// Those that stay.
    pub retained: u64,
    /// Those that go because they have no key.
    pub keyless: u64,
}

/// When tombstones go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The wall clock, in milliseconds.
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// A run of the filter over a log, from its first batch on.
#[derive(Debug)]
pub struct Filter<'a> {
    map: &'a OffsetMap,
    txns: CleanedTxns<'a>,
    horizon: Horizon,
    counts: Counts,
}

/// Puts the keys of a batch into the map, from `start` on. Returns whether they all had room.
pub fn map_batch(
    map: &mut OffsetMap,
    txns: &mut CleanedTxns<'_>,
    view: &BatchView<'_>,
    start: i64,
) -> Result<bool, RecordError> {
    let header = view.header();
    let bytes = decoded(view, DECODED_BYTES_MAX)?;
    if header.is_control() {
        txns.on_control(header, Control::parse(header, &bytes));
    } else if !txns.on_batch(header) {
        for record in Records::new(header, &bytes) {
            let record = record?;
            if record.offset < start {
                continue;
            }
            if let Some(key) = record.key
                && !map.put(key, record.offset)
            {
                return Ok(false);
            }
            map.reach(record.offset.saturating_add(1));
        }
    }
    map.reach(header.next_offset());
    Ok(true)
}

impl<'a> Filter<'a> {
    /// `txns` are those of the log before its first batch.
    pub fn new(map: &'a OffsetMap, txns: CleanedTxns<'a>, horizon: Horizon) -> Self {
        Filter {
            map,
            txns,
            horizon,
            counts: Counts::default(),
        }
    }

    /// What was looked at so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next batch. `is_last` tells whether it holds what its producer, still active, wrote last.
    pub fn keep(&mut self, view: &BatchView<'_>, is_last: bool) -> Result<Kept, RecordError> {
        let header = view.header();
        let bytes = decoded(view, DECODED_BYTES_MAX)?;
        let is_over = if header.is_control() {
            self.txns.on_control(header, Control::parse(header, &bytes))
        } else {
            self.txns.on_batch(header)
        };
        let horizon = header.has_delete_horizon().then_some(header.base_timestamp);
        let has_expired = horizon.is_some_and(|horizon| horizon <= self.horizon.now_ms);
        let discard = is_over && (!header.is_control() || has_expired);
        // a marker without its record tells nobody anything
        let is_last = is_last && !header.is_control();
        let (mut retained, mut tombstones) = (Vec::new(), false);
        for record in Records::new(header, &bytes) {
            let record = record?;
            self.counts.records += 1;
            let stays = !discard && (header.is_control() || self.stays(&record, has_expired));
            if stays {
                tombstones |= record.value.is_none() && !header.is_control();
                retained.push(record);
            }
        }
        self.counts.retained += retained.len() as u64;
        if retained.is_empty() {
            return Ok(match is_last {
                true if header.records_count == 0 => Kept::Whole,
                true => Kept::Changed(empty_batch(header)),
                false => Kept::Nothing,
            });
        }
        let is_due = tombstones || header.is_control() && is_over;
        let new_horizon = (is_due && horizon.is_none()).then(|| {
            let Horizon {
                now_ms,
                delete_retention_ms,
            } = self.horizon;
            now_ms.saturating_add(delete_retention_ms)
        });
        if new_horizon.is_none() && retained.len() == header.records_count as usize {
            return Ok(Kept::Whole);
        }
        let mut batch = RetainedBatch::new(header, header.compression()?, new_horizon);
        retained.iter().for_each(|record| batch.append(record));
        Ok(Kept::Changed(batch.seal()))
    }

    fn stays(&mut self, record: &Record<'_>, has_expired: bool) -> bool {
        if record.offset >= self.map.end() {
            return true;
        }
        let Some(key) = record.key else {
            self.counts.keyless += 1;
            return false;
        };
        let is_last = self.map.get(key).is_none_or(|last| record.offset >= last);
        is_last && (record.value.is_some() || !has_expired)
    }
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod tests;
