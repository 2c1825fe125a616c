//! The end of a segment and the beginning of the next.
//!
//! A segment is complete and durable before the next one takes its first byte: its log was
//! flushed before (see [`Commit`](crate::flush::Commit)); then its indexes, the epochs and the
//! producers' snapshot become durable, the new log file is made, and last the seal and the
//! checkpoint say so. Until the seal is begun, a full disk only means that the roll is tried
//! again later.

use std::rc::Rc;

use ringmill_ring::{File, OpenOptions, fs};

use crate::checkpoint::Mark;
use crate::cleaner::write_checkpoint;
use crate::cleaner_checkpoint::CleanerCheckpoint;
use crate::error::{ChangeError, IoFailure};
use crate::index::Seal;
use crate::meta::Meta;
use crate::names::Kind;
use crate::partition::{Active, Inner, Phase, State};
use crate::prewrite::Prewrite;
use crate::queue::{RollPlan, Turn};
use crate::segment::Segment;

impl State {
    /// Whoever had the lock before may have failed, or cut the log: a turn of before is none any
    /// more.
    fn is_void(&self, incarnation: u64) -> bool {
        self.failure.is_some() || self.incarnation != incarnation
    }
}

impl Inner {
    /// Carries out a turn that was begun in this incarnation of the log.
    pub(crate) async fn turn(self: Rc<Self>, turn: Turn, incarnation: u64) {
        match turn {
            Turn::Roll(plan) => self.carry_out(plan, incarnation).await,
            Turn::AllowGaps => self.allow_gaps(incarnation).await,
        }
        self.changed.notify_all();
        self.schedule_pump();
    }

    /// From here on, offsets that are left out in the active segment are not lost: its leader's
    /// log was compacted. Durable before the first such batch is written.
    async fn allow_gaps(self: &Rc<Self>, incarnation: u64) {
        let last = self.last_batch().await;
        let Ok(_meta) = self.lock_meta().await else {
            return;
        };
        let (segment, before) = {
            let state = self.state.borrow();
            if state.is_void(incarnation) {
                return;
            }
            (state.active.segment.clone(), state.cleaning.checkpoint)
        };
        let checkpoint = CleanerCheckpoint {
            cleaned_end: before.cleaned_end.max(segment.base_offset + 1),
            ..before
        };
        match write_checkpoint(&self.dir, checkpoint).await {
            Ok(()) => {
                let mut state = self.state.borrow_mut();
                state.cleaning.checkpoint = checkpoint;
                segment.compacted.set(true);
                if let Some(last) = last {
                    state.active.index.go_on_behind(last);
                }
                if state.failure.is_none() {
                    state.commit.on_turned();
                }
            }
            Err(failure) if failure.is_no_space() => self.give_up_roll(&failure),
            Err(failure) => self.fail(failure),
        }
    }

    /// Where the active segment's last batch begins, while nothing is written: after a start the
    /// index does not know.
    async fn last_batch(self: &Rc<Self>) -> Option<u32> {
        let (segment, extent) = {
            let state = self.state.borrow();
            let segment = state.active.segment.clone();
            let extent = state.extent(&segment, state.commit.written());
            (segment, extent)
        };
        if extent.bytes == 0 {
            return None;
        }
        // what cannot be read is told when somebody reads it
        let found = self
            .locate(&segment, extent.end_offset - 1, extent, 0)
            .await;
        found.ok()?.map(|located| located.position as u32)
    }

    async fn carry_out(self: &Rc<Self>, plan: RollPlan, incarnation: u64) {
        let Ok(mut meta) = self.lock_meta().await else {
            return;
        };
        if self.state.borrow().is_void(incarnation) {
            return;
        }
        let snapshot = plan.snapshot.is_some();
        let (base, shift) = (plan.base_offset, plan.shift);
        let file = match self.prepare_segment(&mut meta, plan).await {
            Ok(file) => file,
            Err(failure) if failure.is_no_space() => {
                // left behind, it would be empty, and found out at the next start
                let _ = fs::remove_file(self.path(base, Kind::Log)).await;
                self.give_up_roll(&failure);
                return;
            }
            Err(failure) => return self.fail(failure),
        };
        let segment = Rc::new(Segment::new(base, shift, None, true));
        let sealed = self
            .seal_segment(&mut meta, Active::new(segment, Some(file)), snapshot)
            .await;
        if let Err(failure) = sealed {
            self.fail(failure);
        }
    }

    /// Makes durable what belongs to the segment that ends, and makes the file of the next.
    async fn prepare_segment(&self, meta: &mut Meta, plan: RollPlan) -> Result<File, IoFailure> {
        self.trim().await?;
        {
            let active = &mut self.state.borrow_mut().active;
            active.times.close();
            if active.segment.compacted.get() {
                active.index.on_end(plan.base_offset);
            }
        }
        self.spill(meta, true).await?;
        self.write_epochs().await?;
        if let Some(content) = plan.snapshot {
            self.write_snapshot(meta, plan.base_offset, content).await?;
        }
        let path = self.path(plan.base_offset, Kind::Log);
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true);
        let file = File::open(&path, options)
            .await
            .map_err(IoFailure::of("create", &path))?;
        fs::sync_dir(&self.dir)
            .await
            .map_err(IoFailure::of("flush", &self.dir))?;
        Ok(file)
    }

    async fn seal_segment(
        &self,
        meta: &mut Meta,
        next: Active,
        snapshot: bool,
    ) -> Result<(), IoFailure> {
        let (base, seal) = {
            let state = self.state.borrow();
            let written = state.commit.written();
            let digest = written.digest.unwrap_or_default();
            let seal = Seal {
                log_len: written.position,
                end_offset: next.segment.base_offset,
                max_timestamp: written.max.timestamp,
                max_timestamp_offset: written.max.offset,
                time_entries: state.active.times.entries(),
                aborted_entries: state.active.aborted.entries(),
                compacted: state.active.segment.compacted.get().then(|| digest.get()),
            };
            (written.segment, seal)
        };
        self.write_seal(meta, base, seal).await?;
        let (log_start, next_base, replay) = {
            let mut state = self.state.borrow_mut();
            let next_base = next.segment.base_offset;
            state.active.segment.seal.set(Some(seal));
            state
                .segments
                .insert(next.segment.key(), next.segment.clone());
            state.active = next;
            state.prewrite = Prewrite::default();
            state.commit.on_rolled(next_base);
            state.upkeep.on_rolled(next_base, snapshot);
            (state.log_start, next_base, state.upkeep.replay)
        };
        meta.on_rolled();
        self.write_checkpoint(meta, log_start, Mark::start_of(next_base), replay)
            .await
    }

    /// Ends the active segment now, if there is anything in it.
    pub(crate) async fn roll_now(self: &Rc<Self>) -> Result<(), ChangeError> {
        let (base, rollbacks) = {
            let mut state = self.state.borrow_mut();
            // a log that is about to be cut has nothing in the queue
            state.check_change()?;
            let end = state.commit.appended();
            if end.position > 0 {
                state.plan_roll(end.offset);
            }
            (state.commit.appended().segment, state.rollbacks)
        };
        loop {
            let rung = self.changed.notified();
            self.schedule_pump();
            {
                let state = self.state.borrow();
                if let Some(failure) = &state.failure {
                    return Err(ChangeError::Failed(failure.clone()));
                }
                if state.phase == Phase::Closed {
                    return Err(ChangeError::Closed);
                }
                let given_up = state.rollbacks != rollbacks;
                if given_up || state.active.segment.base_offset >= base {
                    return Ok(());
                }
            }
            rung.await;
        }
    }
}
