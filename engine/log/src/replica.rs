//! A partition as one of several replicas: how far the others are, and what they fetch.
//!
//! The leader's *high watermark* is what all in-sync replicas have; followers learn it from the
//! leader. Consumers see nothing beyond it. Replicas read further: all that is written.

use ringmill_ring::planted;

use crate::config::Durability;
use crate::epochs::EpochEntry;
use crate::error::ReadError;
use crate::partition::{Partition, Phase, State};
use crate::read::{FetchSlice, Reach};
use crate::waits::Level;

impl State {
    /// Keeps the high watermark between the log's start and its end.
    pub(crate) fn clamp_high_watermark(&mut self) {
        let (start, end) = (self.log_start, self.commit.written().offset);
        let within = |hw: i64| hw.max(start).min(end.max(start));
        self.high_watermark = self.high_watermark.map(within);
    }

    /// What this replica has to do with a record before it counts.
    pub(crate) fn safe_level(&self) -> Level {
        match self.config.durability {
            Durability::Flushed if planted("ack-before-flush") => Level::Written,
            Durability::Flushed => Level::Flushed,
            Durability::Replicated | Durability::Relaxed => Level::Written,
        }
    }

    /// Something may yet be written.
    fn check_readable(&self) -> Result<(), ReadError> {
        if let Some(failure) = &self.failure {
            return Err(ReadError::Io(failure.clone()));
        }
        match self.phase {
            Phase::Closed => Err(ReadError::Closed),
            _ => Ok(()),
        }
    }
}

impl Partition {
    /// What all in-sync replicas have, as far as is known; `None` if the partition is not
    /// replicated. After a restart it is what the last checkpoint knew of it.
    pub fn high_watermark(&self) -> Option<i64> {
        self.inner.state.borrow().high_watermark
    }

    /// Moves the high watermark; `None` makes an unreplicated partition of it. No further than
    /// what is written here, and never back: a lower one changes nothing. Returns what it is now.
    /// A batch begins there, or the log ends: it is the end of a replica's log.
    pub fn set_high_watermark(&self, high_watermark: Option<i64>) -> Option<i64> {
        let now = {
            let mut state = self.inner.state.borrow_mut();
            let known = state.high_watermark;
            state.high_watermark = high_watermark.map(|hw| match known {
                Some(known) if !planted("high-watermark-goes-back") => known.max(hw),
                _ => hw,
            });
            state.clamp_high_watermark();
            state.high_watermark
        };
        self.inner.on_progress();
        now
    }

    /// As [`Partition::read`], for another replica: up to the end of what is written, visible or
    /// not, flushed or not.
    pub async fn read_for_replica(
        &self,
        offset: i64,
        max_bytes: usize,
    ) -> Result<FetchSlice, ReadError> {
        self.read_to(Reach::Written, offset, max_bytes).await
    }

    /// The offset after the last one that is in the log's files, and that replicas may read.
    pub fn written_end(&self) -> i64 {
        self.inner.state.borrow().commit.written().offset
    }

    /// Waits until something from `offset` on is written. Fails once the partition has failed or
    /// closed: nothing more will be.
    pub async fn written_beyond(&self, offset: i64) -> Result<i64, ReadError> {
        loop {
            let woken = {
                let mut state = self.inner.state.borrow_mut();
                let written = state.commit.written().offset;
                if written > offset {
                    return Ok(written);
                }
                state.check_readable()?;
                state.waits.register(Level::Written, offset + 1)
            };
            // told or dropped, it looks again
            let _ = woken.await;
        }
    }

    /// Everything before it is here for as long as the topic's durability promises: flushed, or in
    /// the page cache alone. It is what counts of this replica.
    pub fn safe_end(&self) -> i64 {
        let state = self.inner.state.borrow();
        match state.safe_level() {
            Level::Flushed => state.commit.flushed().offset,
            _ => state.commit.written().offset,
        }
    }

    /// Waits until [`Partition::safe_end`] is beyond `offset`, and has what is there flushed if
    /// that takes a flush. Fails once the partition has failed or closed.
    pub async fn safe_beyond(&self, offset: i64) -> Result<i64, ReadError> {
        loop {
            let safe = self.safe_end();
            if safe > offset {
                return Ok(safe);
            }
            self.safe_or_woken(offset + 1).await?;
        }
    }

    /// Waits until all that the log has now is safe, or taken back because the disk is full, and has
    /// it flushed if that takes a flush. Fails once the partition has failed or closed.
    pub async fn all_safe(&self) -> Result<(), ReadError> {
        let wanted = self.log_end_offset();
        loop {
            let end = self.log_end_offset().min(wanted);
            if self.safe_end() >= end {
                return Ok(());
            }
            self.safe_or_woken(end).await?;
        }
    }

    /// Waits once for [`Partition::safe_end`] to come to `end`; whoever is woken looks again.
    async fn safe_or_woken(&self, end: i64) -> Result<(), ReadError> {
        let woken = {
            let mut state = self.inner.state.borrow_mut();
            state.check_readable()?;
            let level = state.safe_level();
            if level == Level::Flushed {
                let end = state.commit.appended().offset;
                state.commit.want(end);
            }
            state.waits.register(level, end)
        };
        self.inner.schedule_pump();
        // told or dropped
        let _ = woken.await;
        Ok(())
    }

    /// This node leads the partition from now on: appends are stamped with `epoch`, and the epoch
    /// is known to begin at the log's end even before the first of them, so that followers with
    /// records of an epoch in between learn where to cut (KIP-101, Kafka's
    /// `assignEpochStartOffset`). Durable with the next checkpoint after its first record; a
    /// restart before that forgets it, as nobody leads after a restart.
    pub fn begin_leadership(&self, epoch: i32) {
        let mut state = self.inner.state.borrow_mut();
        state.leader_epoch = epoch;
        state.leads = true;
        let end = state.commit.appended().offset;
        state.epochs_dirty |= state.epochs.on_batch(epoch, end);
    }

    /// The latest leader epoch that is known, and where it begins.
    pub fn latest_epoch(&self) -> Option<EpochEntry> {
        self.inner.state.borrow().epochs.latest()
    }

    /// All leader epochs that are known, in their order.
    pub fn leader_epochs(&self) -> Vec<EpochEntry> {
        self.inner.state.borrow().epochs.entries().to_vec()
    }
}
