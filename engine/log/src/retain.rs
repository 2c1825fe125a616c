//! What leaves the log at its beginning: retention by time and size, and deleted records.
//!
//! The log's start moves first, durably; what lies before it is then renamed to `….deleted` and
//! removed after a while, so that nobody who is still reading it notices, and a crash in between
//! leaves only files that the next start removes.

use std::path::PathBuf;
use std::rc::Rc;

use ringmill_ring::{fs, sleep, spawn};

use crate::error::{ChangeError, IoFailure};
use crate::names::{self, Kind};
use crate::partition::{Inner, Partition, Phase, State};
use crate::segment::Segment;

impl State {
    /// How many segments at the log's beginning have to go, by size and by the log's start.
    fn expired_by_size(&self) -> usize {
        let written = self.commit.written();
        let sizes: Vec<(u64, i64)> = self
            .segments
            .iter()
            .map(|(_, segment)| {
                let extent = self.extent(segment, written);
                (extent.bytes, extent.end_offset)
            })
            .collect();
        let mut total: u64 = sizes.iter().map(|(bytes, _)| bytes).sum();
        let mut count = 0;
        // the active segment stays
        for (bytes, end_offset) in &sizes[..sizes.len() - 1] {
            let too_much = self
                .config
                .retention_bytes
                .is_some_and(|limit| total - bytes >= limit);
            if !too_much && *end_offset > self.log_start {
                break;
            }
            total -= bytes;
            count += 1;
        }
        count
    }

    /// The visible part of the log starts there after the first `count` segments have gone.
    fn start_after(&self, count: usize) -> i64 {
        let next = self.segments.iter().nth(count);
        next.map_or(self.log_start, |(_, segment)| {
            segment.base_offset.max(self.log_start)
        })
    }

    fn check_change(&self) -> Result<(), ChangeError> {
        if let Some(failure) = &self.failure {
            return Err(ChangeError::Failed(failure.clone()));
        }
        if self.phase != Phase::Open {
            return Err(ChangeError::Closed);
        }
        Ok(())
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

    /// How many segments at the log's beginning have to go by their age, the active one too.
    async fn expired_by_time(&self, now_ms: i64) -> usize {
        let (segments, limit) = {
            let state = self.state.borrow();
            let Some(age) = state.config.retention_ms else {
                return 0;
            };
            let segments: Vec<_> = state.segments.iter().map(|(_, s)| s.clone()).collect();
            (segments, now_ms.saturating_sub(age))
        };
        let mut count = 0;
        for segment in &segments {
            match self.newest(segment).await {
                Some(newest) if newest < limit => count += 1,
                _ => break,
            }
        }
        count
    }

    /// Moves the log's start up to `offset`, durably, and lets the segments before it go.
    async fn move_start(self: &Rc<Self>, offset: i64) -> Result<(), ChangeError> {
        let mut meta = self.meta.lock().await;
        let (point, replay) = (meta.last.recovery_point, meta.last.replay);
        if offset > self.state.borrow().log_start {
            let written = self
                .write_checkpoint(&mut meta, offset, point, replay)
                .await;
            written.map_err(|failure| ChangeError::Io(self.on_meta_failure(failure)))?;
            let mut state = self.state.borrow_mut();
            state.log_start = offset;
            state.epochs_dirty |= state.epochs.truncate_start(offset);
        }
        let gone = self.take_out_segments();
        for segment in gone {
            let renamed = self.rename_deleted(&segment).await;
            let files =
                renamed.map_err(|failure| ChangeError::Io(self.on_meta_failure(failure)))?;
            spawn(remove_later(
                files,
                self.state.borrow().config.file_delete_delay,
            ));
        }
        Ok(())
    }

    /// Takes the segments out of the log that end before its start.
    fn take_out_segments(&self) -> Vec<Rc<Segment>> {
        let mut state = self.state.borrow_mut();
        let mut gone = Vec::new();
        while let Some((key, segment)) = state.segments.first() {
            let is_over = segment
                .seal
                .get()
                .is_some_and(|seal| seal.end_offset <= state.log_start);
            if !is_over {
                break;
            }
            gone.push(segment.clone());
            state.segments.remove(key);
        }
        let start = state
            .segments
            .first()
            .map_or(0, |(_, segment)| segment.base_offset);
        state.damages.retain(|damage| damage.offsets.end > start);
        gone
    }

    async fn rename_deleted(&self, segment: &Segment) -> Result<Vec<PathBuf>, IoFailure> {
        let mut files = Vec::new();
        for kind in Kind::OF_SEGMENT {
            self.forget_file(segment.base_offset, kind);
            let path = self.path(segment.base_offset, kind);
            let deleted = names::with_suffix(&path, names::DELETED);
            match fs::rename(&path, &deleted).await {
                Ok(()) => files.push(deleted),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(IoFailure::of("rename", &path)(error)),
            }
        }
        Ok(files)
    }
}

async fn remove_later(files: Vec<PathBuf>, delay: std::time::Duration) {
    sleep(delay).await;
    for path in files {
        // gone with its folder, or to be removed at the next start
        if let Err(error) = fs::remove_file(&path).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a deleted segment stays");
        }
    }
}

impl Partition {
    /// Deletes what `retention.ms`, `retention.bytes` and the log's start allow to delete, and
    /// forgets idle producers. `now_ms` is the wall clock. Returns the log's start.
    pub async fn apply_retention(&self, now_ms: i64) -> Result<i64, ChangeError> {
        let inner = &self.inner;
        inner.state.borrow().check_change()?;
        let by_time = inner.expired_by_time(now_ms).await;
        let (segments, written) = {
            let state = inner.state.borrow();
            (state.segments.len(), state.commit.written())
        };
        if by_time == segments && written.position > 0 {
            // the active segment is over as well: as Kafka, it is ended so that it can go
            inner.roll_now().await?;
        }
        let start = {
            let mut state = inner.state.borrow_mut();
            let idle_ms = state.config.producer_id_expiration_ms;
            state.producers.expire(now_ms, idle_ms);
            let sealed = state.segments.len() - 1;
            let count = by_time.min(sealed).max(state.expired_by_size());
            // never beyond what is visible
            state.start_after(count).min(state.commit.visible().offset)
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
            let visible_end = state.commit.visible().offset;
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

    /// Removes the partition with all that is in it: its folder gets another name, durably, and
    /// goes away in the background. Whoever still reads a file of it may finish.
    pub async fn remove(self) -> Result<(), ChangeError> {
        let inner = &self.inner;
        inner.state.borrow_mut().phase = Phase::Closed;
        inner.state.borrow_mut().waits.wake_all();
        inner.changed.notify_all();
        inner.room.notify_all();
        let _meta = inner.meta.lock().await;
        inner.caches.forget_partition(inner.id);
        let suffix = format!(
            ".{:016x}{}",
            ringmill_ring::random_u64(),
            names::DELETED_FOLDER
        );
        let deleted = names::with_suffix(&inner.dir, &suffix);
        let renamed = fs::rename(&inner.dir, &deleted).await;
        renamed.map_err(IoFailure::of("rename", &inner.dir))?;
        if let Some(parent) = inner.dir.parent() {
            fs::sync_dir(parent)
                .await
                .map_err(IoFailure::of("flush", parent))?;
        }
        spawn(async move {
            if let Err(error) = fs::remove_dir_all(&deleted).await {
                tracing::warn!(path = %deleted.display(), %error, "a removed partition stays");
            }
        });
        Ok(())
    }
}
