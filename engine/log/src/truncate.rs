//! Cutting the log at its end, as a follower does whose leader knows other records from there on
//! (KIP-101), and beginning it anew at another offset.
//!
//! Appends are refused meanwhile, everything that writes comes to its end, and the files are changed
//! behind the lock of [`Meta`]: in an order in which every moment leaves a log that a start
//! recovers, the old one or a part of it that reaches the cut ([`cut`](Inner::cut)). Then the folder
//! is read as a start would, and what was read takes the place of what was known: handles stay
//! valid, receipts and whatever else was begun before do not.

use std::rc::Rc;

use futures_channel::oneshot;
use futures_util::lock::MutexGuard;
use ringmill_ring::{File, OpenOptions, fs, spawn, wall_clock_ms};

use crate::checkpoint::{Mark, Replay};
use crate::cleaner::write_checkpoint;
use crate::cleaner_checkpoint::CleanerCheckpoint;
use crate::error::{ChangeError, IoFailure, OpenError, ReadError};
use crate::flush::Front;
use crate::meta::Meta;
use crate::names::Kind;
use crate::open;
use crate::partition::{Inner, Partition, Phase, State};
use crate::producers::Producers;
use crate::reset;
use crate::scan::Scanned;
use crate::segment::Segment;
use crate::snapshot;
use crate::sweep::{Range, sweep};

impl State {
    /// Nothing is written or flushed, nor is about to be.
    fn is_quiet(&self) -> bool {
        self.queue.front() == Front::Empty
            && self.queue.bytes() == 0
            && self.commit.is_idle()
            && self.commit.flushed().offset == self.commit.written().offset
            && !self.prewrite.is_filling()
            && !self.active.opening
            && !self.cleaning.is_running
    }

    /// Takes the place of the state of the same log before it was cut.
    fn succeed(&mut self, old: &mut State) {
        self.config = old.config.clone();
        self.commit.set_policy((&old.config).into());
        self.leader_epoch = old.leader_epoch;
        self.jitter_seed = old.jitter_seed;
        self.incarnation = old.incarnation + 1;
        self.rollbacks = old.rollbacks + 1;
        self.pump_scheduled = old.pump_scheduled;
        self.cleaning.is_given_up = old.cleaning.is_given_up;
        if old.phase == Phase::Closed {
            self.phase = Phase::Closed;
        }
        let end = self.commit.appended().offset;
        // what the last checkpoint knew of it may be old
        self.high_watermark = old.high_watermark;
        self.clamp_high_watermark();
        self.told_visible = self.visible_end();
        let known = std::mem::take(&mut old.damages);
        for damage in known.into_iter().filter(|d| d.offsets.end <= end) {
            if self.damages.iter().all(|d| d.offsets != damage.offsets) {
                self.damages.push(damage);
            }
        }
        old.waits.wake_all();
    }
}

/// What a read could not find out, as the reason why a log cannot be cut there.
fn unreadable(error: ReadError) -> ChangeError {
    match error {
        ReadError::Closed => ChangeError::Closed,
        ReadError::Io(failure) => ChangeError::Io(failure),
        ReadError::OutOfRange { offset, range } => ChangeError::OutOfRange {
            offset,
            visible_end: range.end,
        },
        ReadError::Damaged(damage) => IoFailure {
            operation: "truncate",
            path: damage.file.clone(),
            error: std::io::Error::other(damage.to_string()),
        }
        .into(),
    }
}

impl Inner {
    /// Refuses appends, and waits until nothing is written or flushed any more.
    async fn quiesce(self: &Rc<Self>) -> Result<(), ChangeError> {
        {
            let mut state = self.state.borrow_mut();
            state.check_change()?;
            state.phase = Phase::Truncating;
        }
        self.room.notify_all();
        self.quiet().await
    }

    /// Waits until everything that was begun has come to its end.
    async fn quiet(self: &Rc<Self>) -> Result<(), ChangeError> {
        loop {
            let rung = self.changed.notified();
            {
                let mut state = self.state.borrow_mut();
                if let Some(failure) = &state.failure {
                    return Err(ChangeError::Failed(failure.clone()));
                }
                if state.phase == Phase::Closed {
                    return Err(ChangeError::Closed);
                }
                if state.is_quiet() {
                    return Ok(());
                }
                let end = state.commit.appended().offset;
                state.commit.want(end);
            }
            self.schedule_pump();
            rung.await;
        }
    }

    /// The lock of [`Meta`] while nothing is about to be written: what has begun since the log was
    /// quiet may wait for the lock itself.
    async fn lock_quiet(self: &Rc<Self>) -> Result<MutexGuard<'_, Meta>, ChangeError> {
        loop {
            let meta = self.lock_meta().await?;
            {
                let state = self.state.borrow();
                if let Some(failure) = &state.failure {
                    return Err(ChangeError::Failed(failure.clone()));
                }
                if state.is_quiet() {
                    return Ok(meta);
                }
            }
            drop(meta);
            self.quiet().await?;
        }
    }

    /// Takes appends again, unless the log was closed meanwhile.
    fn resume(self: &Rc<Self>) {
        {
            let mut state = self.state.borrow_mut();
            if state.phase == Phase::Truncating {
                state.phase = Phase::Open;
            }
        }
        self.on_progress();
        self.changed.notify_all();
        self.room.notify_all();
        self.schedule_pump();
    }

    async fn truncate(self: &Rc<Self>, offset: i64) -> Result<i64, ChangeError> {
        let _alone = self.alone.lock().await;
        {
            let state = self.state.borrow();
            state.check_change()?;
            let end = state.commit.appended().offset;
            if offset >= end {
                return Ok(end);
            }
        }
        let done = match self.quiesce().await {
            Ok(()) => self.truncate_quiet(offset).await,
            Err(error) => Err(error),
        };
        self.resume();
        done
    }

    async fn truncate_quiet(self: &Rc<Self>, offset: i64) -> Result<i64, ChangeError> {
        loop {
            let end = self.state.borrow().commit.written().offset;
            if offset >= end {
                return Ok(end);
            }
            let first = self.first_segment();
            if offset < first {
                return self.reset_quiet(offset).await;
            }
            let found = self.state_before(offset).await;
            let meta = self.lock_quiet().await?;
            // retention may have come in between, and taken away what was to be read
            if self.first_segment() != first {
                continue;
            }
            let (mark, producers) = found?;
            return self.cut(meta, mark, producers).await;
        }
    }

    /// Where the log's first segment begins.
    fn first_segment(&self) -> i64 {
        let state = self.state.borrow();
        let first = state.segments.first();
        first.map_or(0, |(_, segment)| segment.base_offset)
    }

    /// Where the log is to be cut for an offset, and the producers there.
    async fn state_before(self: &Rc<Self>, offset: i64) -> Result<(Mark, Producers), ChangeError> {
        let mark = self.mark_before(offset).await.map_err(unreadable)?;
        Ok((mark, self.producers_at(mark).await?))
    }

    /// The producers as the batches before `mark` have left them: from the newest snapshot that is
    /// not beyond it, and what the log holds behind that.
    async fn producers_at(self: &Rc<Self>, mark: Mark) -> Result<Producers, ChangeError> {
        let snapshots = self.lock_meta().await?.snapshots.clone();
        let (start, nobody_before) = {
            let state = self.state.borrow();
            if state.upkeep.producers_end <= mark.offset {
                return Ok(state.producers.clone());
            }
            let first = state.segments.first();
            let replay = state.upkeep.replay;
            let nobody = replay.snapshot.is_none() && !state.upkeep.unsaved;
            let start = first.map_or(0, |(_, segment)| segment.base_offset);
            (start, nobody.then_some(replay.offset))
        };
        let (mut producers, mut from) = (Producers::new(), start);
        if let Some(none_before) = nobody_before {
            from = from.max(none_before.min(mark.offset));
        }
        for known in snapshots
            .into_iter()
            .rev()
            .filter(|known| *known <= mark.offset)
        {
            if let Some(restored) = open::read_snapshot(&self.dir, known).await? {
                (producers, from) = (restored, known);
                break;
            }
        }
        self.replay(&mut producers, from, mark).await?;
        Ok(producers)
    }

    /// Follows the producers from an offset on to the end.
    async fn replay(
        self: &Rc<Self>,
        producers: &mut Producers,
        from: i64,
        end: Mark,
    ) -> Result<(), ChangeError> {
        let segments: Vec<Rc<Segment>> = {
            let state = self.state.borrow();
            let all = state.segments.iter().map(|(_, segment)| segment.clone());
            all.collect()
        };
        let now_ms = wall_clock_ms();
        for segment in segments {
            let extent = self.state.borrow().extent(&segment, end);
            let base = segment.base_offset;
            if extent.end_offset <= from || base > end.segment {
                continue;
            }
            let (mut position, mut offset) = (0, base);
            if base < from {
                let located = self.locate(&segment, from, extent, 0).await;
                if let Some(located) = located.map_err(unreadable)? {
                    (position, offset) = (located.position, located.header.base_offset);
                }
            }
            let range = Range {
                position,
                offset,
                end: if base == end.segment {
                    end.position
                } else {
                    extent.bytes
                },
                lenient: true,
                compacted: segment.compacted.get(),
            };
            let file = self.log_file(&segment).await?;
            let swept = sweep(&file, range, |_, batch| {
                if let Scanned::Whole(header, marker) = batch
                    && header.base_offset >= from
                {
                    producers.on_batch(header, marker.as_ref(), now_ms);
                }
            });
            let path = self.path(base, Kind::Log);
            swept.await.map_err(IoFailure::of("read", &path))?;
        }
        Ok(())
    }

    /// Cuts the log at `mark`, which is before its end. First all that a recovery from there needs
    /// is made durable, then the checkpoint that names it: from there on a start finds what is left
    /// behind it. Then the files go from the last to the first, each before the next.
    async fn cut(
        self: &Rc<Self>,
        mut meta: MutexGuard<'_, Meta>,
        mark: Mark,
        producers: Producers,
    ) -> Result<i64, ChangeError> {
        let content = snapshot::encode(&producers);
        let prepared = async {
            self.lower_first_dirty(mark.offset).await?;
            self.spill(&mut meta, true).await?;
            self.write_epochs().await?;
            self.put_snapshot(&mut meta, mark.offset, content).await
        };
        prepared
            .await
            .map_err(|failure| ChangeError::Io(self.on_meta_failure(failure)))?;
        let _cutting = self.swaps.begin();
        let done = self.cut_files(&mut meta, mark).await;
        done.map_err(|failure| self.broken(failure))?;
        self.take_over(meta).await
    }

    /// A failure half-way: the next start finds a part of the log. What is known here is not what
    /// is there, and nobody may write it down or read by it.
    fn broken(&self, failure: IoFailure) -> ChangeError {
        self.fail(failure);
        let mut state = self.state.borrow_mut();
        state.phase = Phase::Closed;
        state.waits.wake_all();
        self.caches.forget_partition(self.id);
        ChangeError::Failed(state.failure.clone().expect("it has just failed"))
    }

    /// What comes where the log is cut was never compacted. Durable before it is cut: a start in
    /// between must not take for compacted what is appended after it.
    async fn lower_first_dirty(&self, end: i64) -> Result<(), IoFailure> {
        let before = self.state.borrow().cleaning.checkpoint;
        if before.first_dirty <= end {
            return Ok(());
        }
        let lowered = CleanerCheckpoint {
            first_dirty: end,
            ..before
        };
        write_checkpoint(&self.dir, lowered).await?;
        self.state.borrow_mut().cleaning.checkpoint = lowered;
        Ok(())
    }

    async fn cut_files(&self, meta: &mut Meta, mark: Mark) -> Result<(), IoFailure> {
        let (log_start, cleaner, later) = {
            let mut state = self.state.borrow_mut();
            let hw = state.high_watermark;
            state.high_watermark = hw.map(|hw| hw.min(mark.offset));
            let later = state.segments.iter().map(|(_, s)| s.base_offset);
            let later: Vec<i64> = later.filter(|base| *base > mark.segment).collect();
            (state.log_start, state.cleaning.checkpoint, later)
        };
        let replay = Replay {
            snapshot: Some(mark.offset),
            position: mark.position,
            offset: mark.offset,
        };
        // both slots: neither may tell of what is cut
        for _ in 0..2 {
            self.write_checkpoint(meta, log_start.min(mark.offset), mark, replay)
                .await?;
        }
        let beyond = meta.snapshots.iter().copied();
        let beyond: Vec<i64> = beyond.filter(|offset| *offset > mark.offset).collect();
        for offset in beyond {
            self.remove_file(offset, Kind::Snapshot).await?;
        }
        self.sync_names().await?;
        for base in later.into_iter().rev() {
            // the log last: as long as it is there, it is a part of what a start finds
            for kind in Kind::OF_SEGMENT.into_iter().rev() {
                self.remove_file(base, kind).await?;
            }
            self.sync_names().await?;
        }
        self.cut_log(mark).await?;
        // until then a start may find gaps up to the old end
        let kept = CleanerCheckpoint {
            cleaned_end: cleaner.cleaned_end.min(mark.offset),
            ..cleaner
        };
        if kept != cleaner {
            write_checkpoint(&self.dir, kept).await?;
        }
        Ok(())
    }

    async fn cut_log(&self, mark: Mark) -> Result<(), IoFailure> {
        let path = self.path(mark.segment, Kind::Log);
        let options = OpenOptions::new().read(true).write(true);
        let file = File::open(&path, options)
            .await
            .map_err(IoFailure::of("open", &path))?;
        file.set_len(mark.position)
            .await
            .map_err(IoFailure::of("cut", &path))?;
        file.sync_all().await.map_err(IoFailure::of("flush", &path))
    }

    async fn remove_file(&self, offset: i64, kind: Kind) -> Result<(), IoFailure> {
        let path = self.path(offset, kind);
        match fs::remove_file(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(IoFailure::of("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    async fn sync_names(&self) -> Result<(), IoFailure> {
        let synced = fs::sync_dir(&self.dir).await;
        synced.map_err(IoFailure::of("flush", &self.dir))
    }

    /// Reads the folder as a start does, and goes on with what it says.
    async fn take_over(
        self: &Rc<Self>,
        mut meta: MutexGuard<'_, Meta>,
    ) -> Result<i64, ChangeError> {
        let config = self.state.borrow().config.clone();
        let (mut state, read) = match open::read(&self.dir, config).await {
            Ok(read) => read,
            Err(OpenError::Io(failure)) => return Err(self.broken(failure)),
            Err(error) => {
                let error = std::io::Error::other(error.to_string());
                return Err(self.broken(IoFailure::of("read", &self.dir)(error)));
            }
        };
        let end = state.commit.appended().offset;
        {
            let mut old = self.state.borrow_mut();
            state.succeed(&mut old);
            *old = state;
        }
        *meta = read;
        self.caches.forget_partition(self.id);
        Ok(end)
    }

    async fn reset(self: &Rc<Self>, offset: i64) -> Result<i64, ChangeError> {
        let _alone = self.alone.lock().await;
        let done = match self.quiesce().await {
            Ok(()) => self.reset_quiet(offset).await,
            Err(error) => Err(error),
        };
        self.resume();
        done
    }

    async fn reset_quiet(self: &Rc<Self>, offset: i64) -> Result<i64, ChangeError> {
        let meta = self.lock_quiet().await?;
        if let Err(failure) = reset::begin(&self.dir, offset).await {
            // it must not be carried out by the next start
            reset::withdraw(&self.dir)
                .await
                .map_err(|failure| self.broken(failure))?;
            return Err(ChangeError::Io(self.on_meta_failure(failure)));
        }
        let _cutting = self.swaps.begin();
        let done = reset::finish(&self.dir, offset).await;
        done.map_err(|failure| self.broken(failure))?;
        self.take_over(meta).await
    }
}

/// Does the work to its end, whether or not somebody waits for it: half-way is no place to stop.
async fn carry_out(
    work: impl Future<Output = Result<i64, ChangeError>> + 'static,
) -> Result<i64, ChangeError> {
    let (done, waiting) = oneshot::channel();
    spawn(async move {
        // whoever does not wait any more need not know
        let _ = done.send(work.await);
    });
    waiting.await.unwrap_or(Err(ChangeError::Closed))
}

impl Partition {
    /// Cuts the log so that it ends at `offset`, or at the beginning of the batch that holds it;
    /// durably when this returns, and so that nothing of what was cut comes back. Returns the log's
    /// end. The high watermark and the log's start are not beyond it; if the log begins behind
    /// `offset`, it is emptied and begins there.
    ///
    /// Appends are refused meanwhile; receipts given out before are answered with
    /// [`AppendError::Truncated`](crate::AppendError::Truncated), whether their records are gone or
    /// not. It costs what is cut and a bounded rest, and is done even if nobody waits for it. On a
    /// full disk nothing may be cut. After any other failure the partition is closed, and has to be
    /// opened again.
    pub async fn truncate_to(&self, offset: i64) -> Result<i64, ChangeError> {
        self.check_offset(offset)?;
        let inner = self.inner.clone();
        carry_out(async move { inner.truncate(offset).await }).await
    }

    /// Empties the log, which begins at `offset` from now on (Kafka's `truncateFullyAndStartAt`),
    /// durably when this returns. As with [`Partition::truncate_to`], handles stay valid and
    /// receipts do not. Returns `offset`.
    pub async fn reset_to(&self, offset: i64) -> Result<i64, ChangeError> {
        self.check_offset(offset)?;
        let inner = self.inner.clone();
        carry_out(async move { inner.reset(offset).await }).await
    }

    fn check_offset(&self, offset: i64) -> Result<(), ChangeError> {
        match offset {
            // as far as appends go
            0..=0x7fff_ffff_ffff_fff0 => Ok(()),
            _ => Err(ChangeError::OutOfRange {
                offset,
                visible_end: self.visible_end(),
            }),
        }
    }
}
