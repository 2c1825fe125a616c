//! Gathers a partition's records into batches.
//!
//! Pure. A batch is open from its first record until it is full or due; then it is sealed into the
//! partition's [`Lane`]. No allocation per record: builders are shared by all partitions and reused.

use std::rc::Rc;

use ringmill_wire::batch::{Compression, HEADER_LEN};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

use super::delivery::{Delivery, Outcome};
use super::lane::{Identity, Lane};
use crate::transport::Instant;

/// Builders kept for reuse; more are dropped after use.
const MAX_IDLE_BUILDERS: usize = 64;
/// Most bytes that a record takes beyond its key, value and headers' bytes, headers aside.
const MAX_RECORD_HEAD: usize = 32;

/// A batch that takes records.
#[derive(Debug)]
struct Open {
    serial: u64,
    created: Instant,
    builder: BatchBuilder,
    /// The builder is of the usual size.
    reusable: bool,
    /// Made when somebody asks for a record's delivery.
    outcome: Option<Rc<Outcome>>,
    /// It waits for nothing any more.
    due: bool,
}

/// What all partitions of a producer share.
#[derive(Debug)]
pub(crate) struct Builders {
    idle: Vec<BatchBuilder>,
    batch_bytes: usize,
    max_request_bytes: usize,
    codec: Compression,
    next_serial: u64,
}

/// A record that no batch can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge {
    /// Bytes of a batch with this record alone.
    pub(crate) bytes: usize,
}

/// What an append did.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Bytes that the partition holds more than before; fewer, if a sealed batch shrank.
    pub(crate) grown: isize,
    /// A batch was begun with this record: its serial number.
    pub(crate) begun: Option<u64>,
    /// A batch was sealed.
    pub(crate) sealed: bool,
    /// If asked for.
    pub(crate) delivery: Option<Delivery>,
}

impl Builders {
    pub(crate) fn new(batch_bytes: usize, max_request_bytes: usize, codec: Compression) -> Self {
        Self {
            idle: Vec::new(),
            batch_bytes,
            max_request_bytes,
            codec,
            next_serial: 0,
        }
    }

    /// The serial number of the next batch.
    pub(crate) fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// An open batch with room for `needed` bytes of records.
    fn open(&mut self, now: Instant, needed: usize) -> Result<Open, TooLarge> {
        let bytes = HEADER_LEN + needed;
        let reusable = bytes <= self.batch_bytes;
        let builder = if reusable {
            let idle = self.idle.pop();
            idle.unwrap_or_else(|| BatchBuilder::new(self.batch_bytes))
        } else if bytes <= self.max_request_bytes {
            BatchBuilder::new(bytes)
        } else {
            return Err(TooLarge { bytes });
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        Ok(Open {
            serial,
            created: now,
            builder,
            reusable,
            outcome: None,
            due: false,
        })
    }

    fn give_back(&mut self, builder: BatchBuilder) {
        if self.idle.len() < MAX_IDLE_BUILDERS {
            self.idle.push(builder);
        }
    }
}

/// One partition's open batch and its lane.
#[derive(Debug)]
pub(crate) struct Batcher {
    open: Option<Open>,
    pub(crate) lane: Lane,
}

impl Batcher {
    pub(crate) fn new(identity: Option<Identity>) -> Self {
        Self {
            open: None,
            lane: Lane::new(identity),
        }
    }

    /// Appends a record, to a new batch if the open one is full.
    #[inline]
    pub(crate) fn append(
        &mut self,
        now: Instant,
        builders: &mut Builders,
        record: &NewRecord<'_>,
        tracked: bool,
    ) -> Result<Appended, TooLarge> {
        if let Some(open) = &mut self.open {
            let before = open.builder.size();
            if let Ok(index) = open.builder.append(record) {
                return Ok(Appended {
                    grown: (open.builder.size() - before) as isize,
                    begun: None,
                    sealed: false,
                    delivery: tracked.then(|| open.delivery(index)),
                });
            }
        }
        self.append_to_new(now, builders, record, tracked)
    }

    #[cold]
    fn append_to_new(
        &mut self,
        now: Instant,
        builders: &mut Builders,
        record: &NewRecord<'_>,
        tracked: bool,
    ) -> Result<Appended, TooLarge> {
        // looked at before the old batch is sealed, so that a refused record changes nothing
        let mut open = builders.open(now, first_size(record))?;
        let index = open.builder.append(record).map_err(|full| TooLarge {
            bytes: HEADER_LEN + full.needed,
        })?;
        let shrunk = self.seal(builders);
        let appended = Appended {
            grown: open.builder.size() as isize - shrunk.unwrap_or(0),
            begun: Some(open.serial),
            sealed: shrunk.is_some(),
            delivery: tracked.then(|| open.delivery(index)),
        };
        self.open = Some(open);
        Ok(appended)
    }

    /// Seals the open batch, if there is one, and returns by how many bytes that made it smaller;
    /// what does not compress grows.
    pub(crate) fn seal(&mut self, builders: &mut Builders) -> Option<isize> {
        let mut open = self.open.take()?;
        let before = open.builder.size();
        let builder = &mut open.builder;
        let (serial, created) = (open.serial, open.created);
        let codec = builders.codec;
        let after = self
            .lane
            .seal(builder, codec, serial, created, open.outcome);
        if open.reusable {
            builders.give_back(open.builder);
        }
        Some(before as isize - after as isize)
    }

    /// The open batch waits no longer for more records. False if there is none, or it was due
    /// before.
    pub(crate) fn set_due(&mut self) -> bool {
        match &mut self.open {
            Some(open) => !std::mem::replace(&mut open.due, true),
            None => false,
        }
    }

    /// Whether there is an open batch that waits no longer.
    pub(crate) fn is_due(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.due)
    }

    /// The open batch was begun at this time.
    pub(crate) fn open_since(&self) -> Option<Instant> {
        Some(self.open.as_ref()?.created)
    }
}

impl Open {
    fn delivery(&mut self, index: i32) -> Delivery {
        let outcome = self.outcome.get_or_insert_default();
        Delivery::new(outcome.clone(), index)
    }
}

/// An upper bound of a record's bytes as the first of a batch.
fn first_size(record: &NewRecord<'_>) -> usize {
    let len = |slice: Option<&[u8]>| slice.map_or(0, <[u8]>::len);
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|header| MAX_RECORD_HEAD + header.key.len() + len(header.value))
        .sum();
    MAX_RECORD_HEAD + len(record.key) + len(record.value) + headers
}

#[cfg(test)]
mod tests {
    use ringmill_wire::batch::Batches;

    use super::*;

    fn record(value: &[u8]) -> NewRecord<'_> {
        NewRecord {
            value: Some(value),
            ..NewRecord::default()
        }
    }

    fn batcher() -> (Batcher, Builders) {
        (
            Batcher::new(None),
            Builders::new(1000, 4000, Compression::None),
        )
    }

    fn append(batcher: &mut Batcher, builders: &mut Builders, bytes: usize) -> Appended {
        let value = vec![7; bytes];
        let appended = batcher.append(Instant::default(), builders, &record(&value), true);
        appended.unwrap()
    }

    #[test]
    fn a_full_batch_is_sealed_and_the_record_begins_the_next() {
        let (mut batcher, mut builders) = batcher();
        let first = append(&mut batcher, &mut builders, 500);
        assert_eq!((first.begun, first.sealed), (Some(0), false));
        let second = append(&mut batcher, &mut builders, 100);
        assert_eq!((second.begun, second.sealed), (None, false));
        let third = append(&mut batcher, &mut builders, 500);
        assert_eq!((third.begun, third.sealed), (Some(1), true));
        let sealed = batcher.lane.next(Instant::default()).unwrap();
        assert_eq!((sealed.serial, sealed.records), (0, 2));
        let held = first.grown + second.grown + third.grown;
        assert_eq!(batcher.seal(&mut builders), Some(0));
        let mut bytes = 0;
        for _ in 0..2 {
            let batch = batcher.lane.next(Instant::default()).unwrap();
            bytes += batch.bytes.len() as isize;
            assert_eq!(Batches::new(&batch.bytes).count(), 1);
            let serial = batch.serial;
            batcher.lane.on_sent(serial);
        }
        assert_eq!(held, bytes, "memory is counted as it is used");
    }

    #[test]
    fn a_large_record_has_a_batch_of_its_own_and_a_larger_one_none() {
        let (mut batcher, mut builders) = batcher();
        append(&mut batcher, &mut builders, 10);
        let large = append(&mut batcher, &mut builders, 3000);
        assert!(large.sealed);
        let value = vec![0; 5000];
        let refused = batcher.append(Instant::default(), &mut builders, &record(&value), false);
        assert!(refused.unwrap_err().bytes > 5000);
        // the refused record changed nothing
        assert_eq!(builders.next_serial(), 2);
        assert!(batcher.open_since().is_some());
    }

    #[test]
    fn compression_gives_memory_back() {
        let mut batcher = Batcher::new(None);
        let mut builders = Builders::new(1000, 4000, Compression::Lz4);
        let appended = append(&mut batcher, &mut builders, 900);
        let shrunk = batcher.seal(&mut builders).unwrap();
        let batch = batcher.lane.next(Instant::default()).unwrap();
        assert_eq!(appended.grown - shrunk, batch.bytes.len() as isize);
        assert!(shrunk > 700);
    }

    /// Or settling the batch would give back more than was ever taken.
    #[test]
    fn what_does_not_compress_is_counted_as_it_grew() {
        let mut batcher = Batcher::new(None);
        let mut builders = Builders::new(1000, 4000, Compression::Gzip);
        let appended = append(&mut batcher, &mut builders, 1);
        let shrunk = batcher.seal(&mut builders).unwrap();
        assert!(shrunk < 0);
        let batch = batcher.lane.next(Instant::default()).unwrap();
        assert_eq!(appended.grown - shrunk, batch.bytes.len() as isize);
    }

    #[test]
    fn a_new_batch_is_not_due_because_the_last_one_was() {
        let (mut batcher, mut builders) = batcher();
        assert!(!batcher.set_due());
        append(&mut batcher, &mut builders, 800);
        assert!(batcher.set_due());
        assert!(batcher.is_due() && !batcher.set_due());
        append(&mut batcher, &mut builders, 800);
        assert!(!batcher.is_due());
    }
}
