//! A partition: its state, and what the broker may ask of it.
//!
//! Owned by one core; clones are handles to the same partition. What is changed by appends and
//! completions is in [`State`], borrowed for moments and never across an await. What is written
//! beside the log itself (indexes, checkpoint, snapshots) goes through [`Meta`], behind a lock
//! that is held for as long as it takes.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::lock::{Mutex, MutexGuard};
use ringmill_ring::{File, Instant, Notify};

use crate::aborted::AbortedIndexBuilder;
use crate::caches::{CoreCaches, FileKey};
use crate::checkpoint::Mark;
use crate::cleaner::Cleaning;
use crate::config::LogConfig;
use crate::epochs::Epochs;
use crate::error::{ChangeError, Damage, IoFailure, OpenError};
use crate::flush::Commit;
use crate::index::{IndexBuilder, Seal};
use crate::lanes::Lanes;
use crate::meta::Meta;
use crate::names::{self, Kind};
use crate::open::{self, RecoveryReport};
use crate::prewrite::Prewrite;
use crate::producers::{ActiveProducer, Producers};
use crate::queue::{Queue, Run};
use crate::segment::Segment;
use crate::swap::Swaps;
use crate::tail::Tail;
use crate::time_index::{MaxTimestamp, TimeIndexBuilder};
use crate::trie::OffsetTrie;
use crate::upkeep::Upkeep;
use crate::waits::Waits;

/// One partition's log. Belongs to the core that opened it; cheap to clone.
#[derive(Clone)]
pub struct Partition {
    pub(crate) inner: Rc<Inner>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition")
            .field("dir", &self.inner.dir)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    /// Tells this partition's files from others' in the caches.
    pub(crate) id: u64,
    pub(crate) caches: Rc<CoreCaches>,
    pub(crate) state: RefCell<State>,
    pub(crate) meta: Mutex<Meta>,
    /// Whoever cuts or closes the log does it alone.
    pub(crate) alone: Mutex<()>,
    /// Rings when the visible end moves, and when the partition fails or closes.
    pub(crate) changed: Notify,
    /// Rings when the queue has room again.
    pub(crate) room: Notify,
    /// Compacted segments that take their places.
    pub(crate) swaps: Swaps,
    pub(crate) report: RecoveryReport,
}

/// The segment that the next append goes to; it may still be to come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Appending {
    /// Of the segment's first batch, in milliseconds.
    pub(crate) first_timestamp: Option<i64>,
    pub(crate) shift: u8,
    /// Batches may leave offsets out.
    pub(crate) gaps: bool,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub(crate) segment: Rc<Segment>,
    /// Open while it is written to: idle partitions keep no files.
    pub(crate) file: Option<File>,
    /// The file is being opened.
    pub(crate) opening: bool,
    pub(crate) lanes: Lanes,
    pub(crate) index: IndexBuilder,
    pub(crate) times: TimeIndexBuilder,
    pub(crate) aborted: AbortedIndexBuilder,
    /// As [`Appending::first_timestamp`], of what is written.
    pub(crate) first_timestamp: Option<i64>,
}

impl Active {
    /// For a segment of which nothing is written.
    pub(crate) fn new(segment: Rc<Segment>, file: Option<File>) -> Self {
        let (base, shift) = (segment.base_offset, segment.shift.get());
        Active {
            segment,
            file,
            opening: false,
            lanes: Lanes::default(),
            index: IndexBuilder::new(base, shift, 0),
            times: TimeIndexBuilder::new(base, 0, -1, MaxTimestamp::NONE),
            aborted: AbortedIndexBuilder::default(),
            first_timestamp: None,
        }
    }

    /// A run was written.
    pub(crate) fn on_written(&mut self, run: &Run) {
        let mut position = run.end.position - run.bytes;
        for batch in &run.batches {
            if self.segment.compacted.get() {
                self.index.on_gap(batch.base_offset);
            }
            self.index.on_batch(batch.last_offset, position as u32);
            self.times
                .on_batch(batch.last_offset, batch.max_timestamp, batch.size.into());
            position += u64::from(batch.size);
            if let Some(txn) = batch.aborted {
                self.aborted.push(txn);
            }
            if batch.max_timestamp >= 0 {
                self.first_timestamp.get_or_insert(batch.max_timestamp);
            }
        }
    }
}

/// Whether the partition is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// No new appends; what was appended is still written, then the log is cut.
    Truncating,
    /// No new appends; what was appended is still written.
    Closing,
    Closed,
}

pub(crate) struct State {
    pub(crate) config: LogConfig,
    pub(crate) leader_epoch: i32,
    /// This node leads in that epoch: an epoch that begins with the next append, if none has come.
    pub(crate) leads: bool,
    pub(crate) log_start: i64,
    pub(crate) commit: Commit,
    pub(crate) queue: Queue,
    pub(crate) appending: Appending,
    pub(crate) active: Active,
    /// Of the active segment's file.
    pub(crate) prewrite: Prewrite,
    /// All of them, the active one included, by base offset.
    pub(crate) segments: OffsetTrie<Rc<Segment>>,
    /// Base offsets of segments that have left the log and whose files are still there, as the disk
    /// had no room to rename or remove them.
    pub(crate) leaving: Vec<i64>,
    pub(crate) damages: Vec<Damage>,
    pub(crate) producers: Producers,
    pub(crate) epochs: Epochs,
    pub(crate) epochs_dirty: bool,
    pub(crate) waits: Waits,
    /// The last written bytes. Another one after a truncation: the pool tells tails apart by where
    /// they are.
    pub(crate) tail: Rc<RefCell<Tail>>,
    /// Tells this partition's jitter from others'.
    pub(crate) jitter_seed: u64,
    /// How often the log was truncated.
    pub(crate) incarnation: u64,
    /// How often appends were taken back.
    pub(crate) rollbacks: u64,
    pub(crate) upkeep: Upkeep,
    pub(crate) cleaning: Cleaning,
    pub(crate) pump_scheduled: bool,
    /// `flush.ms` is watched until then.
    pub(crate) flush_timer: Option<Instant>,
    /// Index cells are being written ahead of a checkpoint.
    pub(crate) spilling: bool,
    /// The visible end that was last told to those who wait for more.
    pub(crate) told_visible: i64,
    /// What all in-sync replicas have; `None` if the partition is not replicated.
    pub(crate) high_watermark: Option<i64>,
    pub(crate) phase: Phase,
    pub(crate) failure: Option<Rc<IoFailure>>,
    /// Why a pair found no room, until all that are in flight have landed.
    pub(crate) no_space: Option<IoFailure>,
    /// When appends were taken back last, for which there was no room.
    pub(crate) taken_back: Option<Instant>,
    /// When it was told last that there is none.
    pub(crate) told_of_no_room: Option<Instant>,
}

impl State {
    /// The seal of a segment, or what would be its seal if it ended at `end`.
    pub(crate) fn extent(&self, segment: &Segment, end: Mark) -> Extent {
        match segment.seal.get() {
            Some(Seal {
                log_len,
                end_offset,
                ..
            }) => Extent {
                bytes: log_len,
                end_offset,
            },
            // a new segment of which nothing has reached that end yet
            None if end.segment != segment.base_offset => Extent {
                bytes: 0,
                end_offset: segment.base_offset,
            },
            None => Extent {
                bytes: end.position,
                end_offset: end.offset,
            },
        }
    }

    /// Consumers may read up to here: what the topic's durability demands of this node, and what
    /// the replicas have.
    pub(crate) fn visible_end(&self) -> i64 {
        let here = self.commit.visible().offset;
        self.high_watermark.map_or(here, |hw| hw.min(here))
    }

    pub(crate) fn is_active(&self, segment: &Segment) -> bool {
        self.active.segment.base_offset == segment.base_offset
    }
}

/// How far a segment reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) bytes: u64,
    pub(crate) end_offset: i64,
}

impl Inner {
    pub(crate) fn path(&self, base_offset: i64, kind: Kind) -> PathBuf {
        names::path_of(&self.dir, base_offset, kind)
    }

    /// For use in `map_err`: a segment's file is named only once something about it has failed.
    pub(crate) fn failed_to(
        &self,
        operation: &'static str,
        base_offset: i64,
        kind: Kind,
    ) -> impl FnOnce(io::Error) -> IoFailure {
        move |error| IoFailure::of(operation, &self.path(base_offset, kind))(error)
    }

    fn key(&self, base_offset: i64, kind: Kind) -> FileKey {
        (self.id, base_offset, kind)
    }

    /// Whether a segment is still a part of the log: it may have been deleted since it was
    /// looked up.
    pub(crate) fn has(&self, segment: &Rc<Segment>) -> bool {
        let state = self.state.borrow();
        let found = state.segments.predecessor(segment.key());
        found.is_some_and(|(_, found)| Rc::ptr_eq(found, segment))
    }

    /// A segment's file, for reading.
    pub(crate) async fn open_file(&self, base_offset: i64, kind: Kind) -> Result<File, IoFailure> {
        let key = self.key(base_offset, kind);
        self.caches
            .file(key, || self.path(base_offset, kind))
            .await
            .map_err(self.failed_to("open", base_offset, kind))
    }

    pub(crate) fn forget_file(&self, base_offset: i64, kind: Kind) {
        self.caches.forget(self.key(base_offset, kind));
    }

    /// The right to write what stands beside the log. Nobody has it once the partition is closed
    /// or removed: the folder may be another one's by then.
    pub(crate) async fn lock_meta(&self) -> Result<MutexGuard<'_, Meta>, ChangeError> {
        let meta = self.meta.lock().await;
        if self.state.borrow().phase == Phase::Closed {
            return Err(ChangeError::Closed);
        }
        Ok(meta)
    }

    /// Takes nothing more, for good: a write or a flush failed.
    pub(crate) fn fail(&self, failure: IoFailure) {
        tracing::error!(%failure, "the partition takes no appends any more");
        let mut state = self.state.borrow_mut();
        if state.failure.is_none() {
            state.failure = Some(Rc::new(failure));
        }
        state.commit.poison();
        state.waits.wake_all();
        drop(state);
        self.changed.notify_all();
        self.room.notify_all();
    }

    /// A failure beside the log itself: out of space is met again later, anything else is the
    /// end.
    pub(crate) fn on_meta_failure(&self, failure: IoFailure) -> Rc<IoFailure> {
        if failure.is_no_space() {
            tracing::warn!(%failure, "will try again");
            return Rc::new(failure);
        }
        self.fail(failure);
        self.state
            .borrow()
            .failure
            .clone()
            .expect("it has just failed")
    }
}

impl Partition {
    /// Opens the log in `dir`, or begins a new one there. After a clean stop nothing is read but
    /// names, checkpoint and seals; after a crash what may have been written since the last
    /// checkpoint is checked, and a torn end is cut off ([`Partition::recovery`] tells).
    pub async fn open(
        dir: impl AsRef<Path>,
        config: LogConfig,
        caches: &Rc<CoreCaches>,
    ) -> Result<Partition, OpenError> {
        let inner = open::open(dir.as_ref(), config, caches.clone()).await?;
        Ok(Partition { inner })
    }

    /// What opening it found.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The first offset that readers may have.
    pub fn log_start_offset(&self) -> i64 {
        self.inner.state.borrow().log_start
    }

    /// The offset that the next append gets. Nothing is said of what is written or flushed.
    pub fn log_end_offset(&self) -> i64 {
        self.inner.state.borrow().commit.appended().offset
    }

    /// The offset after the last one that is on the disk.
    pub fn flushed_end(&self) -> i64 {
        self.inner.state.borrow().commit.flushed().offset
    }

    /// The offset after the last one that consumers may read.
    pub fn visible_end(&self) -> i64 {
        self.inner.state.borrow().visible_end()
    }

    /// Rings whenever the visible end has moved, and when the partition has failed or closed.
    pub fn changed(&self) -> &Notify {
        &self.inner.changed
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        let state = self.inner.state.borrow();
        let written = state.commit.written();
        state
            .segments
            .iter()
            .map(|(_, segment)| state.extent(segment, written).bytes)
            .sum()
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.inner.state.borrow().segments.len()
    }

    /// The idempotent producers that wrote lately, by id; at most `max` of them.
    pub fn producers(&self, max: usize) -> Vec<ActiveProducer> {
        let state = self.inner.state.borrow();
        let active = state.producers.iter().take(max);
        active.map(ActiveProducer::of).collect()
    }

    /// What of the log cannot be read.
    pub fn damages(&self) -> Vec<Damage> {
        self.inner.state.borrow().damages.clone()
    }

    /// Why the partition takes no appends any more, if so.
    pub fn failure(&self) -> Option<Rc<IoFailure>> {
        self.inner.state.borrow().failure.clone()
    }

    /// The settings in force.
    pub fn config(&self) -> LogConfig {
        self.inner.state.borrow().config.clone()
    }

    /// Changes the settings, from the next append, flush and retention run on.
    pub fn update_config(&self, config: LogConfig) {
        {
            let mut state = self.inner.state.borrow_mut();
            state.commit.set_policy((&config).into());
            state.config = config;
        }
        // more may be visible, or due, than before
        self.inner.schedule_pump();
        self.inner.on_progress();
        self.inner.changed.notify_all();
    }

    /// The epoch that appended batches are stamped with, −1 for none.
    pub fn set_leader_epoch(&self, epoch: i32) {
        self.inner.state.borrow_mut().leader_epoch = epoch;
    }

    /// The epoch in which the record of an offset was written.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        self.inner.state.borrow().epochs.epoch_of(offset)
    }

    /// OffsetForLeaderEpoch (KIP-101): the largest known epoch that is not above `epoch`, and
    /// the offset after its last record.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let state = self.inner.state.borrow();
        state.epochs.end_of(epoch, state.commit.appended().offset)
    }

    /// Writes and flushes what was appended, then checkpoints, so that the next start has
    /// nothing to check. Appends are refused from now on; reads go on for those who hold them.
    pub async fn close(&self) -> Result<(), ChangeError> {
        let _alone = self.inner.alone.lock().await;
        let end = {
            let mut state = self.inner.state.borrow_mut();
            if state.phase == Phase::Closed {
                return Ok(());
            }
            state.phase = Phase::Closing;
            state.commit.appended().offset
        };
        self.inner.room.notify_all();
        let drained = self.inner.flushed_to(end).await;
        let result = match drained {
            Ok(()) => self.inner.settle_down().await,
            Err(error) => Err(error),
        };
        // whoever is writing beside the log comes to his end
        let meta = self.inner.meta.lock().await;
        self.inner.state.borrow_mut().phase = Phase::Closed;
        self.inner.state.borrow_mut().waits.wake_all();
        drop(meta);
        self.inner.changed.notify_all();
        self.inner.caches.forget_partition(self.inner.id);
        result
    }
}
