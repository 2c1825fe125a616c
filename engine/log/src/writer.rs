//! Does what [`Commit`](crate::flush::Commit) decides: writes, flushes, rolls. Each operation is
//! a task of its own that reports back and asks for the next step.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{File, now, sleep_until, spawn};

use crate::checkpoint::Mark;
use crate::config::Durability;
use crate::error::IoFailure;
use crate::flush::{Commit, Front, Step};
use crate::names::Kind;
use crate::partition::{Appending, Inner, Phase, State};
use crate::prewrite::Fill;
use crate::queue::{Fate, QUEUE_BYTES_MAX};

/// What is written ahead.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// Index cells and aborted transactions that gather in memory before they are written to the file.
const SPILL_CELLS: usize = 4 << 10;
/// That a disk has no room is not told again before.
const TELL_AFTER: Duration = Duration::from_secs(10);

impl Inner {
    /// Sees to it that the next step is taken at the end of this turn, with all that the turn
    /// has appended by then.
    pub(crate) fn schedule_pump(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if !std::mem::replace(&mut state.pump_scheduled, true) {
            let inner = self.clone();
            spawn(async move {
                inner.state.borrow_mut().pump_scheduled = false;
                inner.pump();
            });
        }
    }

    /// Takes all steps that can be taken now.
    fn pump(self: &Rc<Self>) {
        loop {
            let mut state = self.state.borrow_mut();
            let front = state.front();
            let Some(step) = state.commit.step(now(), front) else {
                break;
            };
            match step {
                Step::Write => {
                    let write = state.take_write(0);
                    state.commit.begin_write(write.end, write.bytes);
                    spawn(self.clone().write(write));
                }
                Step::Pair { lane } => {
                    let write = state.take_write(lane);
                    state.commit.begin_pair(lane, write.end, write.bytes);
                    spawn(self.clone().write_pair(write, lane));
                }
                Step::Sync => {
                    state.commit.begin_sync();
                    let file = state.active.lane(0).clone();
                    spawn(self.clone().sync(file));
                }
                Step::Roll => {
                    let turn = state.queue.take_turn();
                    state.commit.begin_roll();
                    spawn(self.clone().turn(turn, state.incarnation));
                }
            }
        }
        self.open_for_writing();
        self.widen();
        self.arm_flush_timer();
    }

    /// `flush.ms`: wakes the pump when the oldest unflushed record has become too old.
    fn arm_flush_timer(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let Some(deadline) = state.commit.flush_deadline() else {
            return;
        };
        let now = now();
        let armed = state
            .flush_timer
            .is_some_and(|at| now < at && at <= deadline);
        // a deadline that is past has been acted upon: the end of the flush pumps again
        if armed || deadline <= now {
            return;
        }
        state.flush_timer = Some(deadline);
        let inner = Rc::downgrade(self);
        spawn(async move {
            sleep_until(deadline).await;
            if let Some(inner) = inner.upgrade() {
                inner.pump();
            }
        });
    }

    async fn write(self: Rc<Self>, write: Write) {
        let result = write.file.write_at(write.position, write.parts).await;
        match result.map_err(self.failed_to("write", write.end.segment, Kind::Log)) {
            Ok(()) => self.on_landed(|commit| {
                commit.on_written(now());
                1
            }),
            Err(failure) if failure.is_no_space() => self.give_up(&failure).await,
            Err(failure) => self.fail(failure),
        }
        self.pump();
    }

    async fn write_pair(self: Rc<Self>, write: Write, lane: usize) {
        let result = write.file.write_at_sync(write.position, write.parts).await;
        match result.map_err(self.failed_to("write", write.end.segment, Kind::Log)) {
            Ok(()) => self.on_landed(|commit| commit.on_pair(lane)),
            Err(failure) if failure.is_no_space() => {
                let mut state = self.state.borrow_mut();
                if state.failure.is_none() {
                    state.no_space = Some(failure);
                    state.commit.on_pair_no_space(lane);
                }
            }
            Err(failure) => self.fail(failure),
        }
        let spoilt = self.state.borrow_mut().take_spoilt();
        if let Some(failure) = spoilt {
            self.give_up(&failure).await;
        }
        self.pump();
    }

    /// A write is done; `landed` tells the group commit, and returns how many runs are behind
    /// the log's end now.
    fn on_landed(self: &Rc<Self>, landed: impl FnOnce(&mut Commit) -> usize) {
        let mut state = self.state.borrow_mut();
        if state.failure.is_some() {
            return;
        }
        let count = landed(&mut state.commit);
        drop(state);
        for _ in 0..count {
            self.on_written();
        }
        if count > 0 {
            self.on_progress();
        }
    }

    /// The first of the runs that were taken is in the file.
    fn on_written(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let run = state.queue.land();
        run.fate.set(Fate::Written);
        state.active.on_written(&run);
        let fill = state.fill_ahead(run.bytes);
        let spill = state.is_spill_due() && !state.spilling;
        state.spilling |= spill;
        let room = state.queue.bytes() <= QUEUE_BYTES_MAX / 2;
        let tail = state.tail.clone();
        drop(state);
        if let Some((fill, file)) = fill {
            spawn(self.clone().fill(fill, file));
        }
        self.caches.tails.push(&tail, &run);
        if room {
            self.room.notify_all();
        }
        if spill {
            spawn(self.clone().spill_ahead());
        }
    }

    async fn sync(self: Rc<Self>, file: File) {
        match file.sync_data().await {
            Ok(()) => {
                let mut state = self.state.borrow_mut();
                if state.failure.is_none() {
                    state.commit.on_synced();
                    drop(state);
                    self.on_progress();
                }
            }
            Err(error) => {
                let base = self.state.borrow().active.segment.base_offset;
                let path = self.path(base, Kind::Log);
                self.fail(IoFailure::of("flush", &path)(error));
            }
        }
        self.pump();
    }

    /// An end of the log has moved: whoever waited for it is told.
    pub(crate) fn on_progress(self: &Rc<Self>) {
        let moved = {
            let mut state = self.state.borrow_mut();
            let (written, flushed) = (state.commit.written(), state.commit.flushed());
            let visible = state.visible_end();
            state
                .waits
                .on_progress(written.offset, flushed.offset, visible);
            state.producers.on_visible(visible);
            let quieting = state.phase == Phase::Truncating;
            std::mem::replace(&mut state.told_visible, visible) != visible || quieting
        };
        if moved {
            self.changed.notify_all();
        }
        self.schedule_upkeep();
    }

    /// The disk is full. What the write left behind is cut off, and all that was appended after
    /// the last good byte is taken back, as if it had never come. No write is in flight.
    async fn give_up(self: &Rc<Self>, failure: &IoFailure) {
        self.tell_of_no_room(failure);
        self.filled().await;
        let (file, end) = {
            let state = self.state.borrow();
            if state.failure.is_some() {
                return;
            }
            (state.active.lane(0).clone(), state.commit.written())
        };
        let mut cut = file.set_len(end.position).await;
        if cut.is_ok() {
            // else a power cut would bring back what was refused
            cut = file.sync_data().await;
        }
        if let Err(error) = cut {
            self.fail(IoFailure::of("cut", &self.path(end.segment, Kind::Log))(
                error,
            ));
            return;
        }
        let mut state = self.state.borrow_mut();
        if state.failure.is_none() {
            state.prewrite.on_cut();
            state.commit.on_no_space();
            state.take_back();
        }
        drop(state);
        self.room.notify_all();
        self.changed.notify_all();
    }

    /// Clients and leaders try again and again: it is said now and then.
    fn tell_of_no_room(&self, failure: &IoFailure) {
        let told = &mut self.state.borrow_mut().told_of_no_room;
        if told.is_none_or(|told| now() - told > TELL_AFTER) {
            *told = Some(now());
            tracing::warn!(%failure, "appends are refused until there is room");
        }
    }

    /// There is no room for a new segment: the last one goes on, without what was to come after.
    pub(crate) fn give_up_roll(self: &Rc<Self>, failure: &IoFailure) {
        self.tell_of_no_room(failure);
        let mut state = self.state.borrow_mut();
        if state.failure.is_none() {
            state.commit.on_roll_no_space();
            state.take_back();
        }
        drop(state);
        self.room.notify_all();
    }

    /// Writes zeros ahead of the log's end.
    async fn fill(self: Rc<Self>, fill: Fill, file: File) {
        let zeros = Bytes::from_static(&ZEROS);
        let pieces = (fill.end - fill.start).div_ceil(ZEROS.len() as u64);
        let mut bufs = vec![zeros; pieces as usize];
        let over = (pieces * ZEROS.len() as u64 - (fill.end - fill.start)) as usize;
        if let Some(last) = bufs.last_mut() {
            last.truncate(last.len() - over);
        }
        let result = file.write_at(fill.start, bufs).await;
        let base = self.state.borrow().active.segment.base_offset;
        match result.map_err(self.failed_to("write ahead in", base, Kind::Log)) {
            Ok(()) => self.state.borrow_mut().prewrite.on_filled(),
            Err(failure) if failure.is_no_space() => {
                self.state.borrow_mut().prewrite.on_no_space();
            }
            Err(failure) => {
                self.state.borrow_mut().prewrite.on_filled();
                self.fail(failure);
            }
        }
        self.changed.notify_all();
        self.pump();
    }

    /// Waits until no zeros are being written.
    async fn filled(&self) {
        loop {
            let rung = self.changed.notified();
            if !self.state.borrow().prewrite.is_filling() {
                return;
            }
            rung.await;
        }
    }

    /// Cuts off the zeros behind the log's end, durably. Nothing else is in flight.
    pub(crate) async fn trim(&self) -> Result<(), IoFailure> {
        self.filled().await;
        let end = self.state.borrow().commit.written();
        if !self.state.borrow().prewrite.is_ahead_of(end.position) {
            return Ok(());
        }
        let file = self.active_file().await?;
        let path = self.path(end.segment, Kind::Log);
        file.set_len(end.position)
            .await
            .map_err(IoFailure::of("cut", &path))?;
        file.sync_data()
            .await
            .map_err(IoFailure::of("flush", &path))?;
        self.state.borrow_mut().prewrite.on_cut();
        Ok(())
    }

    async fn spill_ahead(self: Rc<Self>) {
        loop {
            let Ok(mut meta) = self.lock_meta().await else {
                return;
            };
            let result = self.spill(&mut meta, false).await;
            drop(meta);
            let failed = result.is_err();
            if let Err(failure) = result {
                self.on_meta_failure(failure);
            }
            let mut state = self.state.borrow_mut();
            // more may have come meanwhile, all at once
            state.spilling = !failed && state.is_spill_due();
            if !state.spilling {
                break;
            }
        }
        // whoever waits for it
        self.room.notify_all();
    }
}

/// What one write puts where.
struct Write {
    file: File,
    position: u64,
    parts: Vec<Bytes>,
    /// The log's end behind it.
    end: Mark,
    bytes: u64,
}

impl State {
    /// Takes what is at the front of the queue, to be written through one of the active segment's
    /// files.
    fn take_write(&mut self, lane: usize) -> Write {
        let position = self.commit.begun().position;
        let run = self.queue.take_run();
        Write {
            file: self.active.lane(lane).clone(),
            position,
            parts: run.parts.clone(),
            end: run.end,
            bytes: run.bytes,
        }
    }

    /// So much of the indexes is in memory alone that it is to be written.
    fn is_spill_due(&self) -> bool {
        let cells = self.active.index.pending() + self.active.aborted.pending().len();
        cells >= SPILL_CELLS
    }

    /// Why the disk is full, when the last of the pairs has landed and all can be given up.
    fn take_spoilt(&mut self) -> Option<IoFailure> {
        let spoilt = self.failure.is_none() && self.commit.is_spoilt();
        spoilt.then(|| self.no_space.take()).flatten()
    }

    /// What comes next, unless it would run into zeros that are being written.
    pub(crate) fn front(&self) -> Front {
        let front = self.queue.front();
        let clear = match front {
            Front::Empty => true,
            Front::Batches { bytes } => self
                .prewrite
                .may_write(self.commit.begun().position + bytes),
            Front::Roll => !self.prewrite.is_filling(),
        };
        let clear = clear && self.active.file.is_some();
        if clear { front } else { Front::Empty }
    }

    /// A run was written: what to fill with zeros, if it is worth it.
    fn fill_ahead(&mut self, bytes: u64) -> Option<(Fill, File)> {
        let position = self.commit.begun().position;
        let flushed = self.config.durability == Durability::Flushed;
        let limit = u64::from(self.config.segment_bytes);
        let fill = self.prewrite.on_written(position, bytes, flushed, limit)?;
        Some((fill, self.active.lane(0).clone()))
    }

    /// Takes back all appends that are not written: there is no room for them.
    pub(crate) fn take_back(&mut self) {
        self.taken_back = Some(now());
        let mut undos = Vec::new();
        for run in self.queue.drain() {
            run.fate.set(Fate::Dropped);
            undos.extend(run.batches.into_iter().filter_map(|batch| batch.undo));
        }
        for undo in undos.into_iter().rev() {
            self.producers.undo(undo);
        }
        let end = self.commit.written();
        self.epochs_dirty |= self.epochs.truncate_end(end.offset);
        if self.leads {
            self.epochs_dirty |= self.epochs.on_batch(self.leader_epoch, end.offset);
        }
        self.appending = Appending {
            first_timestamp: self.active.first_timestamp,
            shift: self.active.segment.shift.get(),
            gaps: self.active.segment.compacted.get(),
        };
        self.rollbacks += 1;
        self.waits.wake_from(end.offset);
    }
}
