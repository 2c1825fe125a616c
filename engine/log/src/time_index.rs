//! The time index of one segment: Kafka's `.timeindex`, a sparse list of (largest timestamp so
//! far, offset relative to the segment's base).
//!
//! An entry (T, o) says: every record with a timestamp above T stands after offset o. Entries
//! are made every [`INTERVAL`] bytes of log, if the largest timestamp has grown since; both
//! columns grow from entry to entry. Twelve bytes each, big-endian, so that Kafka's dump tool
//! reads the file. Derived from the log and checked when used. Pure.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 12;
/// Bytes of log from one entry to the next, at least. Kafka's `index.interval.bytes` defaults to
/// 4 KiB; a wider one costs a lookup some more bytes of one sequential read and makes the whole
/// time index of a 1 GiB segment one read of at most 192 KiB.
pub const INTERVAL: u64 = 64 << 10;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeEntry {
    /// No record up to `offset` has a larger timestamp (milliseconds).
    pub timestamp: i64,
    /// Last offset of the batch that brought this timestamp.
    pub offset: i64,
}

/// The largest timestamp of a stretch of log, and the last offset of the first batch that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxTimestamp {
    /// Milliseconds; −1 if no batch came yet.
    pub timestamp: i64,
    /// −1 if no batch came yet.
    pub offset: i64,
}

impl MaxTimestamp {
    /// Before the first batch.
    pub const NONE: Self = MaxTimestamp {
        timestamp: -1,
        offset: -1,
    };

    /// After one more batch.
    pub fn with(self, timestamp: i64, last_offset: i64) -> Self {
        if timestamp > self.timestamp {
            MaxTimestamp {
                timestamp,
                offset: last_offset,
            }
        } else {
            self
        }
    }
}

/// Makes the entries of a segment as its batches are written.
#[derive(Debug)]
pub struct TimeIndexBuilder {
    base_offset: i64,
    max: MaxTimestamp,
    /// Bytes of log since the last entry.
    since: u64,
    last: i64,
    /// Entries that are in the file.
    written: u32,
    pending: Vec<TimeEntry>,
}

impl TimeIndexBuilder {
    /// For a segment whose first `written` entries are in the file, the last of them with
    /// timestamp `last` (−1 if there are none), and whose batches so far have `max`.
    pub fn new(base_offset: i64, written: u32, last: i64, max: MaxTimestamp) -> Self {
        TimeIndexBuilder {
            base_offset,
            max,
            since: 0,
            last,
            written,
            pending: Vec::new(),
        }
    }

    /// A batch of `bytes` was written.
    pub fn on_batch(&mut self, last_offset: i64, max_timestamp: i64, bytes: u64) {
        self.since += bytes;
        self.max = self.max.with(max_timestamp, last_offset);
        if self.since >= INTERVAL {
            self.close();
        }
    }

    /// Makes an entry now if there is something to say: also done when the segment is sealed.
    pub fn close(&mut self) {
        self.since = 0;
        if self.max.timestamp > self.last {
            self.last = self.max.timestamp;
            self.pending.push(TimeEntry {
                timestamp: self.max.timestamp,
                offset: self.max.offset,
            });
        }
    }

    /// Takes back the entries from `end_offset` on, of those that are not in the file.
    pub fn truncate(&mut self, end_offset: i64) {
        self.pending.retain(|entry| entry.offset < end_offset);
    }

    /// The largest timestamp so far.
    pub fn max(&self) -> MaxTimestamp {
        self.max
    }

    /// Entries so far.
    pub fn entries(&self) -> u32 {
        self.written + self.pending.len() as u32
    }

    /// The entries that are not in the file.
    pub fn pending(&self) -> &[TimeEntry] {
        &self.pending
    }

    /// The entries that are not in the file, and where they belong in it.
    pub fn encode_pending(&self) -> (u64, Bytes) {
        let mut out = BytesMut::with_capacity(self.pending.len() * ENTRY_LEN);
        for entry in &self.pending {
            out.put_i64(entry.timestamp);
            // a segment spans less than 2^31 offsets
            out.put_i32((entry.offset - self.base_offset) as i32);
        }
        (u64::from(self.written) * ENTRY_LEN as u64, out.freeze())
    }

    /// The first `entries` entries are in the file now.
    pub fn on_written(&mut self, entries: u32) {
        let count = entries.saturating_sub(self.written) as usize;
        self.pending.drain(..count.min(self.pending.len()));
        self.written = self.written.max(entries);
    }
}

/// Reads a time index up to the first entry that is cut off or out of order, and at most up to
/// offsets below `end_offset`.
pub fn parse(bytes: &[u8], base_offset: i64, end_offset: i64) -> Vec<TimeEntry> {
    let mut entries: Vec<TimeEntry> = Vec::new();
    for chunk in bytes.as_chunks::<ENTRY_LEN>().0 {
        let (timestamp, relative) = chunk.split_at(8);
        let entry = TimeEntry {
            timestamp: i64::from_be_bytes(timestamp.try_into().expect("8 bytes")),
            offset: i64::from(i32::from_be_bytes(relative.try_into().expect("4 bytes")))
                .saturating_add(base_offset),
        };
        let grows = entries
            .last()
            .is_none_or(|last| entry.timestamp > last.timestamp && entry.offset > last.offset);
        if !grows || entry.offset < base_offset || entry.offset >= end_offset {
            break;
        }
        entries.push(entry);
    }
    entries
}

/// The last entry before the first record with a timestamp of at least `timestamp`: no such record
/// stands before its offset.
pub fn entry_before(entries: &[TimeEntry], timestamp: i64) -> Option<TimeEntry> {
    let before = entries.partition_point(|entry| entry.timestamp < timestamp);
    Some(entries[before.checked_sub(1)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the naive model: the first batch, by scan, that reaches the timestamp.
        #[test]
        fn no_batch_that_reaches_a_timestamp_is_skipped(
            base in prop_oneof![Just(0i64), Just(1 << 40)],
            batches in prop::collection::vec((1i64..50, 0i64..200, 1u64..80 << 10), 1..60),
            written_every in 1usize..10,
            query in 0i64..210,
        ) {
            let mut builder = TimeIndexBuilder::new(base, 0, -1, MaxTimestamp::NONE);
            let (mut file, mut next, mut ends) = (Vec::new(), base, Vec::new());
            for (n, &(offsets, timestamp, bytes)) in batches.iter().enumerate() {
                next += offsets;
                builder.on_batch(next - 1, timestamp, bytes);
                ends.push((next - 1, timestamp));
                if n % written_every == 0 {
                    let (at, entries) = builder.encode_pending();
                    prop_assert_eq!(at as usize, file.len());
                    file.extend_from_slice(&entries);
                    builder.on_written(builder.entries());
                }
            }
            builder.close();
            file.extend_from_slice(&builder.encode_pending().1);
            let entries = parse(&file, base, next);
            prop_assert_eq!(entries.len(), builder.entries() as usize);
            let max = ends.iter().map(|e| e.1).max().unwrap();
            prop_assert_eq!(builder.max().timestamp, max);
            let first_max = ends.iter().find(|e| e.1 == max).unwrap().0;
            prop_assert_eq!(builder.max().offset, first_max);
            prop_assert_eq!(entries.last().map(|e| e.timestamp), Some(max));
            let start = entry_before(&entries, query).map_or(base, |entry| entry.offset);
            if let Some((last_offset, _)) = ends.iter().find(|e| e.1 >= query) {
                prop_assert!(start <= *last_offset);
            }
            // cut or garbled, it ends early and is still in order
            let cut = parse(&file[..file.len() / 2], base, next);
            prop_assert_eq!(&entries[..cut.len()], &cut[..]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, base: i64, end: i64) {
            let entries = parse(&bytes, base, end);
            prop_assert!(entries.windows(2).all(|w| w[0].offset < w[1].offset));
        }
    }
}
