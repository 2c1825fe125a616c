//! What leaves the log at its beginning: retention by time and size, and deleted records.
//!
//! The log's start moves first, durably; what lies before it is then renamed to `….deleted` and
//! removed after a while, so that nobody who is still reading it notices, and a crash in between
//! leaves only files that the next start removes.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::{fs, sleep, spawn};

use crate::error::{ChangeError, IoFailure};
use crate::names::{self, Kind};
use crate::partition::{Inner, Partition, Phase, State};
use crate::segment::Segment;

/// After how long a file is removed that a full disk has kept.
const REMOVE_AGAIN: Duration = Duration::from_secs(30);

impl State {
    /// Where the log may start by its size and by its start: behind whole segments, but for the
    /// active one.
    fn start_by_size(&self) -> i64 {
        let written = self.commit.written();
        let mut total: u64 = self
            .segments
            .iter()
            .map(|(_, segment)| self.extent(segment, written).bytes)
            .sum();
        let mut start = self.log_start;
        for (_, segment) in self.segments.iter() {
            let extent = self.extent(segment, written);
            let too_much = self
                .config
                .retention_bytes
                .is_some_and(|limit| total - extent.bytes >= limit);
            if self.is_active(segment) || !too_much && extent.end_offset > self.log_start {
                break;
            }
            total -= extent.bytes;
            start = start.max(extent.end_offset);
        }
        start
    }

    pub(crate) fn check_change(&self) -> Result<(), ChangeError> {
        if let Some(failure) = &self.failure {
            return Err(ChangeError::Failed(failure.clone()));
        }
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Truncating => Err(ChangeError::Truncated),
            Phase::Closing | Phase::Closed => Err(ChangeError::Closed),
        }
    }
}

impl Inner {
    /// The age of a segment's newest record; of the file if records have no timestamps.
    async fn newest(&self, segment: &Segment) -> Option<i64> {
        let timestamp = match segment.seal.get() {
            Some(_) if !segment.indexed.get() => return None,
            Some(seal) => seal.max_timestamp,
            None => self.state.borrow().commit.written().max.timestamp,
        };
        if timestamp >= 0 {
            return Some(timestamp);
        }
        let path = self.path(segment.base_offset, Kind::Log);
        fs::metadata(&path)
            .await
            .ok()
            .map(|metadata| metadata.modified_ms)
    }

    /// Where the log may start by its segments' age, and whether all of them are too old, the
    /// active one included. An offset and not a number of segments: others may go meanwhile.
    async fn start_by_time(&self, now_ms: i64) -> (i64, bool) {
        let (segments, limit, mut start) = {
            let state = self.state.borrow();
            let Some(age) = state.config.retention_ms else {
                return (state.log_start, false);
            };
            let segments: Vec<_> = state.segments.iter().map(|(_, s)| s.clone()).collect();
            (segments, now_ms.saturating_sub(age), state.log_start)
        };
        for segment in &segments {
            match self.newest(segment).await {
                Some(newest) if newest < limit => {}
                _ => return (start, false),
            }
            let Some(seal) = segment.seal.get() else {
                return (start, true);
            };
            start = start.max(seal.end_offset);
        }
        (start, true)
    }

    /// Moves the log's start up to `offset`, durably, and lets the segments before it go.
    async fn move_start(self: &Rc<Self>, offset: i64) -> Result<(), ChangeError> {
        let mut meta = self.lock_meta().await?;
        let (point, replay) = (meta.last.recovery_point, meta.last.replay);
        if offset > self.state.borrow().commit.flushed().offset {
            return Err(ChangeError::Truncated);
        }
        if offset > self.state.borrow().log_start {
            let written = self
                .write_checkpoint(&mut meta, offset, point, replay)
                .await;
            written.map_err(|failure| ChangeError::Io(self.on_meta_failure(failure)))?;
            let mut state = self.state.borrow_mut();
            state.log_start = offset;
            state.clamp_high_watermark();
            state.epochs_dirty |= state.epochs.truncate_start(offset);
        }
        if self.has_segments_to_go(meta.last.recovery_point.segment) {
            self.ensure_checkpoint(&mut meta)
                .await
                .map_err(|failure| ChangeError::Io(self.on_meta_failure(failure)))?;
        }
        self.take_out_segments(meta.last.recovery_point.segment);
        self.let_segments_go().await?;
        drop(meta);
        // an idle partition keeps no files
        self.let_go();
        Ok(())
    }

    /// Whether [`Self::take_out_segments`] would take any.
    fn has_segments_to_go(&self, named: i64) -> bool {
        let state = self.state.borrow();
        let first = state.segments.first();
        first.is_some_and(|(_, segment)| {
            let seal = segment.seal.get();
            seal.is_some_and(|seal| seal.end_offset <= state.log_start)
                && segment.base_offset < named
        })
    }

    /// Takes the segments out of the log that end before its start, up to the one that the
    /// checkpoint names: without that one the next start would not know where the log ends. (It
    /// is the active one, unless a recovery found no room for its checkpoint.)
    fn take_out_segments(&self, named: i64) {
        let mut state = self.state.borrow_mut();
        while let Some((key, segment)) = state.segments.first() {
            let is_over = segment
                .seal
                .get()
                .is_some_and(|seal| seal.end_offset <= state.log_start);
            if !is_over || segment.base_offset >= named {
                break;
            }
            let base_offset = segment.base_offset;
            state.segments.remove(key);
            state.leaving.push(base_offset);
        }
        let start = state
            .segments
            .first()
            .map_or(0, |(_, segment)| segment.base_offset);
        state.damages.retain(|damage| damage.offsets.end > start);
    }

    /// Puts the files away of segments that have left the log, as far as a full disk lets it: the
    /// rest is tried again with the next change of the log's start. Called with the lock of `Meta`.
    async fn let_segments_go(&self) -> Result<(), ChangeError> {
        let leaving = std::mem::take(&mut self.state.borrow_mut().leaving);
        let delay = self.state.borrow().config.file_delete_delay;
        for base_offset in leaving {
            // a log that began anew may have come back to where it was
            let key = base_offset as u64;
            let there = self
                .state
                .borrow()
                .segments
                .predecessor(key)
                .map(|(at, _)| at);
            if there == Some(key) {
                continue;
            }
            let mut renamed = Vec::new();
            let done = self.put_away(base_offset, &mut renamed).await;
            if !renamed.is_empty() {
                spawn(remove_later(renamed, delay));
            }
            match done {
                Ok(()) => {}
                Err(failure) if failure.is_no_space() => {
                    tracing::warn!(%failure, "a deleted segment stays for now");
                    self.state.borrow_mut().leaving.push(base_offset);
                }
                Err(failure) => return Err(ChangeError::Io(self.on_meta_failure(failure))),
            }
        }
        Ok(())
    }

    /// Renames a segment's files, and adds their new names to `renamed`; those that have no room for
    /// a new name go at once.
    async fn put_away(
        &self,
        base_offset: i64,
        renamed: &mut Vec<PathBuf>,
    ) -> Result<(), IoFailure> {
        for kind in Kind::OF_SEGMENT {
            let path = self.path(base_offset, kind);
            let put_away = set_aside(&path).await;
            self.forget_file(base_offset, kind);
            renamed.extend(put_away?);
        }
        Ok(())
    }
}

/// A removed partition of more bytes is not removed at once,
const LARGE_BYTES: u64 = 32 << 20;
/// but after this time: its files are cut before they go, under the hands of whoever reads them.
const READ_TIME: Duration = Duration::from_secs(1);

/// Gives a file the name of what is to be removed, and returns it, if the file is there. On a full
/// disk, where its folder has no room for another name, the file is removed at once: whoever has it
/// open keeps it.
pub(crate) async fn set_aside(path: &Path) -> Result<Option<PathBuf>, IoFailure> {
    let deleted = names::with_suffix(path, names::DELETED);
    let failure = match fs::rename(path, &deleted).await {
        Ok(()) => return Ok(Some(deleted)),
        Err(error) => IoFailure::of("rename", path)(error),
    };
    let removed = match failure.is_no_space() {
        true => fs::remove_file(path)
            .await
            .map_err(IoFailure::of("remove", path)),
        false => Err(failure),
    };
    match removed {
        Err(failure) if failure.error.kind() != std::io::ErrorKind::NotFound => Err(failure),
        _ => Ok(None),
    }
}

/// Removes files after a while; those that a full disk keeps, after another one.
pub(crate) async fn remove_later(mut files: Vec<PathBuf>, delay: Duration) {
    sleep(delay).await;
    loop {
        let mut kept = Vec::new();
        for path in files {
            // gone with its folder, or to be removed at the next start
            match fs::remove_file_gently(&path)
                .await
                .map_err(IoFailure::of("remove", &path))
            {
                Ok(()) => {}
                Err(failure) if failure.error.kind() == std::io::ErrorKind::NotFound => {}
                Err(failure) if failure.is_no_space() => kept.push(path),
                Err(failure) => tracing::warn!(%failure, "a deleted segment stays"),
            }
        }
        if kept.is_empty() {
            return;
        }
        files = kept;
        sleep(REMOVE_AGAIN).await;
    }
}

impl Partition {
    /// Deletes what `retention.ms`, `retention.bytes` and the log's start allow to delete, and
    /// forgets idle producers. `now_ms` is the wall clock. Returns the log's start.
    pub async fn apply_retention(&self, now_ms: i64) -> Result<i64, ChangeError> {
        let inner = &self.inner;
        inner.state.borrow().check_change()?;
        let (mut by_time, all) = inner.start_by_time(now_ms).await;
        if all && inner.state.borrow().commit.written().position > 0 {
            // The active segment is over as well: as Kafka, it is ended so that it can go. It
            // may have taken younger records by then, hence the second look.
            inner.roll_now().await?;
            (by_time, _) = inner.start_by_time(now_ms).await;
        }
        let start = {
            let mut state = inner.state.borrow_mut();
            let idle_ms = state.config.producer_id_expiration_ms;
            state.producers.expire(now_ms, idle_ms);
            // never beyond what is visible
            by_time.max(state.start_by_size()).min(state.visible_end())
        };
        inner.move_start(start).await?;
        Ok(self.log_start_offset())
    }

    /// DeleteRecords (KIP-107): the log starts at `offset` from now on, durably when this
    /// returns; −1 stands for the visible end. Returns the log's start, which may be higher.
    pub async fn delete_records(&self, offset: i64) -> Result<i64, ChangeError> {
        let inner = &self.inner;
        let offset = {
            let state = inner.state.borrow();
            state.check_change()?;
            let visible_end = state.visible_end();
            let offset = if offset == -1 { visible_end } else { offset };
            if !(0..=visible_end).contains(&offset) {
                return Err(ChangeError::OutOfRange {
                    offset,
                    visible_end,
                });
            }
            offset
        };
        // a log start beyond what is flushed could not survive a crash
        inner.flushed_to(offset).await?;
        inner.move_start(offset).await?;
        Ok(self.log_start_offset())
    }

    /// A follower's log starts where its leader's does: at `offset` from now on, if that is later,
    /// durably when this returns. Not limited by what is visible here, but by the log's end; to
    /// begin beyond it, see [`Partition::reset_to`]. Returns the log's start.
    pub async fn set_log_start_offset(&self, offset: i64) -> Result<i64, ChangeError> {
        let inner = &self.inner;
        {
            let state = inner.state.borrow();
            state.check_change()?;
            let end = state.commit.appended().offset;
            if offset > end {
                return Err(ChangeError::OutOfRange {
                    offset,
                    visible_end: end,
                });
            }
        }
        inner.flushed_to(offset).await?;
        inner.move_start(offset).await?;
        inner.on_progress();
        Ok(self.log_start_offset())
    }

    /// Removes the partition with all that is in it: its folder gets another name, durably, and
    /// goes away in the background. Whoever still reads a file of it has a moment to finish.
    pub async fn remove(self) -> Result<(), ChangeError> {
        let inner = &self.inner;
        inner.state.borrow_mut().phase = Phase::Closed;
        inner.state.borrow_mut().waits.wake_all();
        inner.changed.notify_all();
        inner.room.notify_all();
        let _meta = inner.meta.lock().await;
        let suffix = format!(
            ".{:016x}{}",
            ringmill_ring::random_u64(),
            names::DELETED_FOLDER
        );
        let deleted = names::with_suffix(&inner.dir, &suffix);
        let renamed = fs::rename(&inner.dir, &deleted).await;
        inner.caches.forget_partition(inner.id);
        renamed.map_err(IoFailure::of("rename", &inner.dir))?;
        if let Some(parent) = inner.dir.parent() {
            fs::sync_dir(parent)
                .await
                .map_err(IoFailure::of("flush", parent))?;
        }
        let is_large = self.size() > LARGE_BYTES;
        spawn(async move {
            if is_large {
                sleep(READ_TIME).await;
            }
            if let Err(error) = fs::remove_dir_all(&deleted).await {
                tracing::warn!(path = %deleted.display(), %error, "a removed partition stays");
            }
        });
        Ok(())
    }
}
