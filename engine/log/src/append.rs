//! Appending: the order is fixed here, at once; what follows is waited for with the receipt.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::rc::Rc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use ringmill_ring::{planted, wall_clock_ms};
use ringmill_wire::batch::{Assignment, BatchError, BatchHeader, BatchView, TimestampType};
use ringmill_wire::marker::EndTxnMarker;

use crate::aborted::AbortedTxn;
use crate::checkpoint::Mark;
use crate::config::LogConfig;
use crate::error::{AppendError, ChangeError};
use crate::index::{self, INDEX_BYTES_MAX, SHIFT_DEFAULT};
use crate::mend::time_of;
use crate::partition::{Appending, Inner, Partition, Phase, State};
use crate::producers::{Verdict, WrittenBatch};
use crate::queue::{Fate, QUEUE_BYTES_MAX, QueuedBatch, RollPlan, Turn};
use crate::scan::holds_its_offsets;
use crate::snapshot;
use crate::transactions::VerificationGuard;
use crate::waits::Level;

/// Index cells that wait in memory because the disk has no room for them, at most.
const INDEX_PENDING_MAX: usize = 256 << 10;

/// What an append was given. The record is in the log only when a wait for the receipt says so.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The broker's time in milliseconds, if the topic has `message.timestamp.type=LogAppendTime`.
    pub append_time: Option<i64>,
    /// The first offset that readers may have.
    pub log_start_offset: i64,
    /// The batch had been appended before; the offsets are those of the first time.
    pub duplicate: bool,
    /// To wait with.
    pub receipt: Receipt,
}

/// What stands for an append in [`Partition::acknowledged`] and its like. An offset would not
/// do: if the disk is full, appends are taken back and their offsets given out again.
#[derive(Debug, Clone)]
pub struct Receipt {
    end: i64,
    /// Of the log, as of [`State::incarnation`].
    incarnation: u64,
    fate: Rc<Cell<Fate>>,
}

impl State {
    pub(crate) fn check_open(&self) -> Result<(), AppendError> {
        if let Some(failure) = &self.failure {
            return Err(AppendError::Failed(failure.clone()));
        }
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Truncating => Err(AppendError::Truncated),
            Phase::Closing | Phase::Closed => Err(AppendError::Closed),
        }
    }

    pub(crate) fn check_room(&self, size: usize) -> Result<(), AppendError> {
        if self.queue.bytes() > 0 && self.queue.bytes() + size as u64 > QUEUE_BYTES_MAX {
            return Err(AppendError::Full);
        }
        match self.active.index.pending() > INDEX_PENDING_MAX {
            // a gap makes many at once
            true if self.spilling => Err(AppendError::Full),
            true => Err(AppendError::NoSpace),
            false => Ok(()),
        }
    }

    /// Whether appends are refused until there is room.
    fn is_full(&self) -> bool {
        let spills = self.spilling && self.active.index.pending() > INDEX_PENDING_MAX;
        spills || self.queue.bytes() > QUEUE_BYTES_MAX / 2
    }

    /// How long a segment takes records: another share of the jitter for each, in this partition
    /// and in others, so that partitions do not roll together.
    fn segment_age(&self, base_offset: i64) -> i64 {
        let LogConfig {
            segment_ms,
            segment_jitter_ms,
            ..
        } = self.config;
        let chance = FixedState::with_seed(self.jitter_seed).hash_one(base_offset);
        let range = segment_jitter_ms.clamp(0, segment_ms.max(0)) as u64;
        segment_ms - chance.checked_rem(range).unwrap_or(0) as i64
    }

    /// Whether a batch, its offsets assigned, has to begin a new segment.
    fn is_roll_due(&self, header: &BatchHeader, timestamp: i64) -> bool {
        let end = self.commit.appended();
        let last_offset = header.last_offset();
        let cells = index::cells_until(end.segment, self.appending.shift, last_offset + 1);
        let too_far = last_offset - end.segment > i32::MAX.into()
            || index::cell_position(cells) > INDEX_BYTES_MAX;
        if end.position == 0 {
            // behind a gap that no segment spans
            return too_far && header.base_offset > end.segment;
        }
        let aged = self
            .appending
            .first_timestamp
            .is_some_and(|first| timestamp.saturating_sub(first) > self.segment_age(end.segment));
        let misfit =
            end.segment == self.active.segment.base_offset && self.active.index.is_misfit();
        end.position + header.size() as u64 > self.config.segment_bytes.into()
            || too_far
            || aged
            || misfit
    }

    /// Ends the segment that appends go to, as soon as all before it is flushed. The next begins
    /// at the log's end or, if the segment may have gaps, behind one.
    pub(crate) fn plan_roll(&mut self, base_offset: i64) {
        let end = self.commit.appended();
        let snapshot = self
            .upkeep
            .is_snapshot_stale()
            .then(|| snapshot::encode(&self.producers));
        let misfit =
            end.segment == self.active.segment.base_offset && self.active.index.is_misfit();
        let offsets = (end.offset - end.segment) as u64;
        self.appending = Appending {
            first_timestamp: None,
            shift: if misfit {
                0
            } else {
                index::shift_for(end.position, offsets)
            },
            gaps: false,
        };
        self.queue.push_turn(Turn::Roll(RollPlan {
            base_offset,
            shift: self.appending.shift,
            snapshot,
        }));
        self.commit.on_appended(Mark::start_of(base_offset));
    }

    fn duplicate(&self, batch: &WrittenBatch) -> Appended {
        let append_time =
            (self.config.timestamp_type == TimestampType::LogAppendTime).then_some(batch.timestamp);
        // what is written shares its fate with nothing that is in the queue
        let queued = batch.last_offset >= self.commit.written().offset;
        let fate = queued.then(|| self.queue.fate_of(batch.last_offset));
        Appended {
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset,
            append_time,
            log_start_offset: self.log_start,
            duplicate: true,
            receipt: Receipt {
                incarnation: self.incarnation,
                end: batch.last_offset + 1,
                fate: fate
                    .flatten()
                    .unwrap_or_else(|| Rc::new(Cell::new(Fate::Written))),
            },
        }
    }

    fn append(
        &mut self,
        bytes: Bytes,
        guard: Option<&VerificationGuard>,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.check_open()?;
        let view = BatchView::parse(&bytes)?;
        let header = *view.header();
        self.check_size(&header, bytes.len())?;
        if let Verdict::Duplicate(batch) = self.producers.check(&header, guard)? {
            return Ok(self.duplicate(&batch));
        }
        self.enqueue(bytes, header, None, now_ms)
    }

    fn append_marker(
        &mut self,
        marker: &EndTxnMarker,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.check_open()?;
        self.producers.check_marker(marker)?;
        let bytes = marker.seal(now_ms);
        let header = *BatchView::parse(&bytes)?.header();
        self.enqueue(bytes, header, Some(marker), now_ms)
    }

    /// Gives a batch that has passed its checks its place in the log.
    fn enqueue(
        &mut self,
        bytes: Bytes,
        mut header: BatchHeader,
        marker: Option<&EndTxnMarker>,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.check_room(bytes.len())?;
        header.base_offset = self.commit.appended().offset;
        header.partition_leader_epoch = self.leader_epoch;
        if header.last_offset() >= i64::MAX - 1 {
            return Err(AppendError::Exhausted);
        }
        let by_broker = self.config.timestamp_type == TimestampType::LogAppendTime;
        let append_time = by_broker.then_some(now_ms);
        header.max_timestamp = append_time.unwrap_or(header.max_timestamp);
        let assignment = Assignment {
            base_offset: header.base_offset,
            leader_epoch: self.leader_epoch,
            append_time,
        };
        Ok(self.place(bytes, &header, Some(assignment), marker, now_ms))
    }

    /// Puts a batch at the log's end, by the offsets, epoch and timestamps in `header`.
    pub(crate) fn place(
        &mut self,
        bytes: Bytes,
        header: &BatchHeader,
        assignment: Option<Assignment>,
        marker: Option<&EndTxnMarker>,
        now_ms: i64,
    ) -> Appended {
        let (base_offset, last_offset) = (header.base_offset, header.last_offset());
        let timestamp = if header.max_timestamp < 0 {
            now_ms
        } else {
            header.max_timestamp
        };
        if base_offset > self.commit.appended().offset {
            self.allow_gaps();
        }
        while self.is_roll_due(header, timestamp) {
            let end = self.commit.appended().offset;
            self.plan_roll(if self.appending.gaps {
                base_offset
            } else {
                end
            });
        }
        if !holds_its_offsets(header) {
            self.allow_gaps();
        }
        self.appending.first_timestamp.get_or_insert(timestamp);
        let end = self.commit.appended().after(header);
        let (undo, ended) = match assignment {
            None if planted("followers-forget-producers") => (None, None),
            _ => self.producers.on_batch(header, marker, now_ms),
        };
        if undo.is_some() {
            self.upkeep.producers_end = end.offset;
        }
        self.epochs_dirty |= self
            .epochs
            .assign(header.partition_leader_epoch, base_offset);
        let append_time = assignment.and_then(|assignment| assignment.append_time);
        let batch = QueuedBatch {
            base_offset,
            last_offset,
            max_timestamp: time_of(header),
            size: bytes.len() as u32,
            undo,
            aborted: ended.and_then(AbortedTxn::of),
        };
        let fate = self.queue.push(bytes, assignment, batch, end);
        self.commit.on_appended(end);
        Appended {
            base_offset,
            last_offset,
            append_time,
            log_start_offset: self.log_start,
            duplicate: false,
            receipt: Receipt {
                end: end.offset,
                fate,
                incarnation: self.incarnation,
            },
        }
    }

    fn check_size(&self, header: &BatchHeader, len: usize) -> Result<(), BatchError> {
        let size = header.size();
        if size != len {
            return Err(BatchError::Trailing(len - size));
        }
        let limit = self.config.max_message_bytes as usize;
        if size > limit {
            return Err(BatchError::TooLarge { size, limit });
        }
        let limit = self.config.segment_bytes as usize;
        if size > limit {
            return Err(BatchError::LargerThanSegment { size, limit });
        }
        if header.records_count <= 0 || !holds_its_offsets(header) {
            return Err(BatchError::Offsets {
                base_offset: header.base_offset,
                last_offset_delta: header.last_offset_delta,
                records_count: header.records_count,
            });
        }
        Ok(())
    }

    fn end_of(&self, level: Level) -> i64 {
        match level {
            Level::Written => self.commit.written().offset,
            Level::Flushed => self.commit.flushed().offset,
            Level::Visible => self.visible_end(),
        }
    }
}

impl Inner {
    async fn wait(self: &Rc<Self>, level: Level, receipt: &Receipt) -> Result<(), AppendError> {
        loop {
            let woken = {
                let mut state = self.state.borrow_mut();
                if receipt.fate.get() == Fate::Dropped {
                    return Err(AppendError::NoSpace);
                }
                if receipt.incarnation != state.incarnation {
                    return Err(AppendError::Truncated);
                }
                if state.end_of(level) >= receipt.end {
                    return Ok(());
                }
                if let Some(failure) = &state.failure {
                    return Err(AppendError::Failed(failure.clone()));
                }
                if state.phase == Phase::Closed {
                    return Err(AppendError::Closed);
                }
                if level == Level::Flushed {
                    state.commit.want(receipt.end);
                }
                state.waits.register(level, receipt.end)
            };
            self.schedule_pump();
            // told or dropped, it looks again
            let _ = woken.await;
        }
    }

    /// Waits until everything that was appended before `end` is flushed, for the partition's own
    /// purposes.
    pub(crate) async fn flushed_to(self: &Rc<Self>, end: i64) -> Result<(), ChangeError> {
        let wanted = end;
        let rollbacks = self.state.borrow().rollbacks;
        loop {
            let woken = {
                let mut state = self.state.borrow_mut();
                // what was taken back needs no waiting for
                let end = if state.rollbacks == rollbacks {
                    wanted
                } else {
                    state.commit.appended().offset.min(wanted)
                };
                if state.end_of(Level::Flushed) >= end {
                    return Ok(());
                }
                if let Some(failure) = &state.failure {
                    return Err(ChangeError::Failed(failure.clone()));
                }
                if state.phase == Phase::Closed {
                    return Err(ChangeError::Closed);
                }
                state.commit.want(end);
                state.waits.register(Level::Flushed, end)
            };
            self.schedule_pump();
            let _ = woken.await;
        }
    }
}

impl Partition {
    /// Appends a batch that [`produced_batch`](ringmill_wire::batch::produced_batch) has
    /// accepted: gives it its offsets, leader epoch and, if the topic says so, timestamp, and
    /// queues it. The order of appends is fixed when this returns; nothing else is: wait with
    /// the receipt. A batch that an idempotent producer has sent before gets its first offsets.
    ///
    /// The first batch of a transaction needs [`Partition::append_verified`].
    pub fn append(&self, batch: Bytes) -> Result<Appended, AppendError> {
        self.append_with(batch, None)
    }

    /// As [`Partition::append`], for a batch that may begin a transaction which the coordinator
    /// knows of: taken only as long as no marker has come since the guard was given out (KIP-890).
    pub fn append_verified(
        &self,
        batch: Bytes,
        guard: &VerificationGuard,
    ) -> Result<Appended, AppendError> {
        self.append_with(batch, Some(guard))
    }

    fn append_with(
        &self,
        batch: Bytes,
        guard: Option<&VerificationGuard>,
    ) -> Result<Appended, AppendError> {
        let now_ms = wall_clock_ms();
        let mut state = self.inner.state.borrow_mut();
        let appended = state.append(batch, guard, now_ms)?;
        drop(state);
        self.inner.schedule_pump();
        Ok(appended)
    }

    /// Appends the end of a transaction. A marker that was appended before is appended again, and
    /// changes nothing.
    pub fn append_marker(&self, marker: EndTxnMarker) -> Result<Appended, AppendError> {
        let now_ms = wall_clock_ms();
        let appended = self
            .inner
            .state
            .borrow_mut()
            .append_marker(&marker, now_ms)?;
        self.inner.schedule_pump();
        Ok(appended)
    }

    /// Begins to verify a producer's first batch in a transaction.
    pub fn begin_verification(&self, producer_id: i64, producer_epoch: i16) -> VerificationGuard {
        let mut state = self.inner.state.borrow_mut();
        state
            .producers
            .begin_verification(producer_id, producer_epoch)
    }

    /// Whether no marker has come since the guard was given out.
    pub fn is_valid(&self, guard: &VerificationGuard) -> bool {
        self.inner.state.borrow().producers.is_valid(guard)
    }

    /// Whether the producer has a transaction open here in this epoch: its batches need no
    /// verification.
    pub fn has_open_transaction(&self, producer_id: i64, producer_epoch: i16) -> bool {
        let state = self.inner.state.borrow();
        state
            .producers
            .has_open_transaction(producer_id, producer_epoch)
    }

    /// Waits until the append may be acknowledged as far as this node goes: it is flushed or
    /// written, as the topic's durability demands.
    pub async fn acknowledged(&self, receipt: &Receipt) -> Result<(), AppendError> {
        let level = self.inner.state.borrow().safe_level();
        self.inner.wait(level, receipt).await
    }

    /// Waits until the append may be acknowledged to whoever asked for all replicas (`acks=all`):
    /// the high watermark has passed it, and this node has done what the topic's durability
    /// demands. Without a high watermark the same as [`Partition::acknowledged`].
    pub async fn committed(&self, receipt: &Receipt) -> Result<(), AppendError> {
        self.inner.wait(Level::Visible, receipt).await
    }

    /// Waits until the append is in the page cache: it survives this process, not a power cut.
    pub async fn written(&self, receipt: &Receipt) -> Result<(), AppendError> {
        self.inner.wait(Level::Written, receipt).await
    }

    /// Waits until the append is on the disk, whatever the topic's durability is.
    pub async fn flushed(&self, receipt: &Receipt) -> Result<(), AppendError> {
        self.inner.wait(Level::Flushed, receipt).await
    }

    /// Waits until appends are taken again after [`AppendError::Full`].
    pub async fn room(&self) {
        loop {
            let rung = self.inner.room.notified();
            {
                let state = self.inner.state.borrow();
                if !state.is_full() || state.check_open().is_err() {
                    return;
                }
            }
            rung.await;
        }
    }
}

/// The stride of the first segment.
pub(crate) const FIRST_SHIFT: u8 = SHIFT_DEFAULT;
