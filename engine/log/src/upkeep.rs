//! The recovery point moves on: what is flushed is written down, so that the next start need
//! not look at it again, and the producers' state with it.
//!
//! A checkpoint is due [`RECOVERY_POINT_INTERVAL`] after the first flush that it does not cover,
//! or when [`RECOVERY_POINT_BYTES`] have been flushed; an idle partition is thus soon covered in
//! full, and a busy one costs a start a bounded scan. Snapshots of the producers are larger than
//! checkpoints and due less often.

use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{Instant, now, sleep, spawn};

use crate::checkpoint::{Mark, Replay, Replicated};
use crate::error::{ChangeError, IoFailure};
use crate::meta::Meta;
use crate::partition::{Inner, Phase, State};
use crate::snapshot;

/// How long flushed batches may stay behind the recovery point.
pub(crate) const RECOVERY_POINT_INTERVAL: Duration = Duration::from_secs(5);
/// How many flushed bytes may.
pub(crate) const RECOVERY_POINT_BYTES: u64 = 32 << 20;
/// How long batches of idempotent producers may have no snapshot after them.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);
/// How many bytes of log may.
const SNAPSHOT_BYTES: u64 = 128 << 20;

/// What is not written down yet.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// The end of the last batch of an idempotent producer.
    pub(crate) producers_end: i64,
    /// The last snapshot, and where to go on after it: in the active segment.
    pub(crate) replay: Replay,
    /// The producers' state is in no file that a checkpoint could name (after some crashes): the
    /// next one needs a snapshot.
    pub(crate) unsaved: bool,
    snapshot_at: Instant,
    /// Flushed up to here at the last checkpoint.
    pub(crate) point: Mark,
    /// As in the last checkpoint.
    pub(crate) replicated: Option<Replicated>,
    scheduled: bool,
    running: bool,
    /// The last attempt found no room; the next one waits for its time.
    failed: bool,
}

/// A snapshot that is taken and not yet in a file.
struct Taken {
    content: Bytes,
    end: Mark,
    /// As of the state then.
    rollbacks: u64,
}

impl Upkeep {
    pub(crate) fn new(point: Mark, replay: Replay, producers_end: i64) -> Self {
        Upkeep {
            producers_end,
            replay,
            unsaved: false,
            snapshot_at: now(),
            point,
            replicated: None,
            scheduled: false,
            running: false,
            failed: false,
        }
    }

    /// The producers have written since the last snapshot.
    pub(crate) fn is_snapshot_stale(&self) -> bool {
        self.unsaved || self.producers_end > self.replay.offset
    }

    /// Where the producers' state has to be built from, with a recovery point at `point`.
    fn replay_for(&self, point: &Mark) -> Replay {
        // nobody has written since the snapshot: it is as good as one from here
        if !self.is_snapshot_stale() {
            return Replay {
                position: point.position,
                offset: point.offset,
                ..self.replay
            };
        }
        self.replay
    }

    /// A new segment has begun, with a snapshot at its start if one was due.
    pub(crate) fn on_rolled(&mut self, base_offset: i64, snapshot: bool) {
        self.replay = Replay {
            snapshot: if snapshot {
                Some(base_offset)
            } else {
                self.replay.snapshot
            },
            position: 0,
            offset: base_offset,
        };
        if snapshot {
            self.snapshot_at = now();
        }
        self.unsaved = false;
        self.point = Mark::start_of(base_offset);
    }
}

impl State {
    /// Flushed bytes behind the recovery point.
    fn bytes_behind(&self) -> u64 {
        let (flushed, point) = (self.commit.flushed(), self.upkeep.point);
        if flushed.segment == point.segment {
            flushed.position - point.position
        } else {
            flushed.position
        }
    }

    /// What the next checkpoint is to say of the replicas.
    pub(crate) fn replicated(&self) -> Option<Replicated> {
        Some(Replicated {
            high_watermark: self.high_watermark?,
            first_undecided: self.producers.first_ended(),
        })
    }

    /// Nothing is to be written down.
    fn is_settled(&self, forced: bool) -> bool {
        self.commit.flushed().offset == self.upkeep.point.offset
            && self.replicated() == self.upkeep.replicated
            && !self.epochs_dirty
            && !self.is_snapshot_due(forced)
    }

    fn is_snapshot_due(&self, forced: bool) -> bool {
        let upkeep = &self.upkeep;
        let written = self.commit.written();
        let long = now() - upkeep.snapshot_at >= SNAPSHOT_INTERVAL;
        let much = written.position.saturating_sub(upkeep.replay.position) >= SNAPSHOT_BYTES;
        upkeep.is_snapshot_stale() && (forced || long || much || upkeep.unsaved)
    }
}

impl Inner {
    /// Something was flushed: sees to it that the recovery point follows.
    pub(crate) fn schedule_upkeep(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.failure.is_some() || state.upkeep.running || state.phase != Phase::Open {
            return;
        }
        if state.bytes_behind() >= RECOVERY_POINT_BYTES && !state.upkeep.failed {
            state.upkeep.running = true;
            let inner = self.clone();
            spawn(async move { inner.run_upkeep().await });
            return;
        }
        let behind = state.commit.flushed().offset > state.upkeep.point.offset
            || state.replicated() != state.upkeep.replicated;
        if state.upkeep.scheduled || !(behind || state.upkeep.is_snapshot_stale()) {
            return;
        }
        state.upkeep.scheduled = true;
        let inner = Rc::downgrade(self);
        spawn(wait_then_upkeep(inner));
    }

    async fn run_upkeep(self: &Rc<Self>) {
        // a failure was told by whoever met it
        let failed = self.checkpoint(false).await.is_err();
        self.let_go();
        {
            let mut state = self.state.borrow_mut();
            state.upkeep.running = false;
            state.upkeep.failed = failed;
        }
        self.schedule_upkeep();
    }

    /// Writes down what is flushed by now: indexes, epochs, a snapshot if one is due or
    /// `forced`, and the recovery point.
    pub(crate) async fn checkpoint(self: &Rc<Self>, forced: bool) -> Result<(), ChangeError> {
        if self.state.borrow().is_settled(forced) {
            return Ok(());
        }
        let taken = self.take_snapshot(forced).await?;
        self.write_checked(taken).await
    }

    /// Before a clean stop: all is flushed, and nothing more is appended.
    pub(crate) async fn settle_down(self: &Rc<Self>) -> Result<(), ChangeError> {
        if let Err(failure) = self.trim().await {
            return Err(ChangeError::Io(self.on_meta_failure(failure)));
        }
        self.checkpoint(true).await
    }

    /// After a recovery: writes down what was found, whether it looks like news or not.
    pub(crate) async fn checkpoint_anew(self: &Rc<Self>) -> Result<(), ChangeError> {
        let taken = self.take_snapshot(true).await?;
        self.write_checked(taken).await
    }

    /// Writes it down, unless the partition has failed: what the flush of an index has lost counts
    /// as written, and would not be written again before a checkpoint says that it is on the disk.
    async fn write_checked(self: &Rc<Self>, taken: Option<Taken>) -> Result<(), ChangeError> {
        let mut meta = self.lock_meta().await?;
        if let Some(failure) = &self.state.borrow().failure {
            return Err(ChangeError::Failed(failure.clone()));
        }
        let result = self.write_down(&mut meta, taken).await;
        result.map_err(|failure| ChangeError::Io(self.on_meta_failure(failure)))
    }

    /// Takes a snapshot if one is due, and waits until all it tells of is flushed: a snapshot
    /// must not know of batches that a crash takes back. Before the lock, since a flush may
    /// have to wait for a roll, which takes the lock.
    async fn take_snapshot(self: &Rc<Self>, forced: bool) -> Result<Option<Taken>, ChangeError> {
        let (taken, rollbacks) = {
            let state = self.state.borrow();
            if !state.is_snapshot_due(forced) {
                return Ok(None);
            }
            let taken = Taken {
                content: snapshot::encode(&state.producers),
                end: state.commit.appended(),
                rollbacks: state.rollbacks,
            };
            (taken, state.rollbacks)
        };
        self.flushed_to(taken.end.offset).await?;
        let state = self.state.borrow();
        // taken back meanwhile, or a roll has made a later one
        let usable =
            state.rollbacks == rollbacks && taken.end.segment == state.commit.flushed().segment;
        Ok(usable.then_some(taken))
    }

    async fn write_down(&self, meta: &mut Meta, taken: Option<Taken>) -> Result<(), IoFailure> {
        let (point, rollbacks) = {
            let state = self.state.borrow();
            (state.commit.flushed(), state.rollbacks)
        };
        let taken = taken.filter(|taken| taken.rollbacks == rollbacks);
        self.spill(meta, true).await?;
        self.write_epochs().await?;
        if let Some(taken) = taken.filter(|taken| taken.end.segment == point.segment) {
            self.write_snapshot(meta, taken.end.offset, taken.content)
                .await?;
            let mut state = self.state.borrow_mut();
            state.upkeep.snapshot_at = now();
            state.upkeep.unsaved = false;
            state.upkeep.replay = Replay {
                snapshot: Some(taken.end.offset),
                position: taken.end.position,
                offset: taken.end.offset,
            };
        }
        let (log_start, replay) = {
            let state = self.state.borrow();
            (state.log_start, state.upkeep.replay_for(&point))
        };
        self.write_checkpoint(meta, log_start, point, replay)
            .await?;
        self.state.borrow_mut().upkeep.point = point;
        Ok(())
    }
}

async fn wait_then_upkeep(inner: Weak<Inner>) {
    sleep(RECOVERY_POINT_INTERVAL).await;
    let Some(inner) = inner.upgrade() else {
        return;
    };
    {
        let mut state = inner.state.borrow_mut();
        state.upkeep.scheduled = false;
        if state.upkeep.running || state.failure.is_some() || state.phase != Phase::Open {
            return;
        }
        state.upkeep.running = true;
    }
    // apart: what waits here for its time is small
    Box::pin(inner.run_upkeep()).await;
}
