//! Appending as a follower: batches exactly as the leader stores them.
//!
//! Offsets, epochs and timestamps are the leader's, and so is the order of sequence numbers: what
//! a client may send was the leader's to check. What is checked here is that the bytes are whole
//! and come where they are due. A leader whose log was compacted leaves offsets out: the segment is
//! marked for it before the first such batch is written ([`Turn::AllowGaps`]); in all others an
//! offset that is left out stays an error.

use bytes::Bytes;
use ringmill_ring::wall_clock_ms;
use ringmill_wire::batch::{BatchError, BatchHeader, BatchView, HEADER_LEN};
use ringmill_wire::marker::EndTxnMarker;

use crate::append::Appended;
use crate::error::AppendError;
use crate::partition::{Partition, State};
use crate::queue::Turn;
use crate::scan::{holds_its_offsets, holds_some_offsets};

/// A leader's batch, checked.
struct LeadersBatch {
    bytes: Bytes,
    header: BatchHeader,
    marker: Option<EndTxnMarker>,
}

impl State {
    /// Whether offsets may be left out: the topic is compacted, or was.
    fn may_have_gaps(&self) -> bool {
        let cleaned_end = self.cleaning.checkpoint.cleaned_end;
        self.config.compaction.is_some() || self.appending.gaps || cleaned_end > self.log_start
    }

    /// Takes a leader's batches apart and checks all of them.
    fn check_leaders(&self, bytes: &Bytes) -> Result<Vec<LeadersBatch>, AppendError> {
        if bytes.is_empty() {
            let missing = HEADER_LEN;
            return Err(BatchError::Short { missing }.into());
        }
        let (mut batches, mut at) = (Vec::new(), 0);
        let mut due = self.commit.appended().offset;
        while at < bytes.len() {
            let view = BatchView::parse(&bytes[at..])?;
            let header = *view.header();
            self.check_leaders_batch(&header, due)?;
            let batch = bytes.slice(at..at + header.size());
            let view = BatchView::parse(&batch)?;
            view.check_crc()?;
            let marker = EndTxnMarker::parse(&header, view.records_bytes());
            due = header.next_offset();
            at += header.size();
            batches.push(LeadersBatch {
                bytes: batch,
                header,
                marker,
            });
        }
        Ok(batches)
    }

    /// Whether a batch may come where an offset is due.
    fn check_leaders_batch(&self, header: &BatchHeader, due: i64) -> Result<(), AppendError> {
        let in_range = header.last_offset_delta >= 0 && header.last_offset() < i64::MAX - 1;
        if !in_range || !holds_some_offsets(header) {
            return Err(AppendError::Batch(BatchError::Offsets {
                base_offset: header.base_offset,
                last_offset_delta: header.last_offset_delta,
                records_count: header.records_count,
            }));
        }
        let sparse = header.base_offset > due || !holds_its_offsets(header);
        if header.base_offset < due || sparse && !self.may_have_gaps() {
            return Err(AppendError::Offset {
                expected: due,
                found: header.base_offset,
            });
        }
        Ok(())
    }

    fn append_replica(&mut self, bytes: &Bytes, now_ms: i64) -> Result<Appended, AppendError> {
        self.check_open()?;
        let batches = self.check_leaders(bytes)?;
        self.check_room(bytes.len())?;
        self.leads = false;
        let first = batches[0].header.base_offset;
        let mut last = None;
        for batch in batches {
            let marker = batch.marker.as_ref();
            last = Some(self.place(batch.bytes, &batch.header, None, marker, now_ms));
        }
        let last = last.expect("there is a batch");
        Ok(Appended {
            base_offset: first,
            ..last
        })
    }

    /// Offsets may be left out in the segment that appends go to.
    pub(crate) fn allow_gaps(&mut self) {
        if self.appending.gaps {
            return;
        }
        let end = self.commit.appended();
        if end.digest.is_none() {
            // of a version that kept no digest of it: only a new segment can have one
            self.plan_roll(end.offset);
        }
        self.queue.push_turn(Turn::AllowGaps);
        self.appending.gaps = true;
    }
}

impl Partition {
    /// Appends batches as the leader stores them, one or several: offsets, leader epochs and
    /// timestamps stay, and the bytes stored are these. The first must begin at the log's end, each
    /// at the end of the one before; if the topic is or was compacted, or behind it. Producers and
    /// transactions are followed, not judged. All are taken or none. The receipt is the last
    /// one's; if the disk is full, some of the first may stay in the log nevertheless.
    pub fn append_replica(&self, batches: Bytes) -> Result<Appended, AppendError> {
        let now_ms = wall_clock_ms();
        let appended = self
            .inner
            .state
            .borrow_mut()
            .append_replica(&batches, now_ms)?;
        self.inner.schedule_pump();
        Ok(appended)
    }
}
