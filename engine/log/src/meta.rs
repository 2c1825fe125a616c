//! What is written beside the log: index cells, time entries, epochs, snapshots, the
//! checkpoint. All of it is derived from the log or small; the order in which it becomes durable
//! is what recovery relies on (FORMAT.md, "Order of writes").

use bytes::Bytes;
use ringmill_ring::{File, OpenOptions, fs};

use crate::checkpoint::{Checkpoint, FILE_LEN, Mark, Replay};
use crate::error::IoFailure;
use crate::index::{self, IndexHeader, Seal};
use crate::names::{self, Kind};
use crate::partition::Inner;

/// Snapshots kept: the last, and the one before in case it is damaged.
const SNAPSHOTS_KEPT: usize = 2;
/// And as many, at most, as are needed to have one before the high watermark.
const SNAPSHOTS_MAX: usize = 8;

/// The files beside the log. Whoever holds it may write them.
pub(crate) struct Meta {
    pub(crate) checkpoint: Option<File>,
    pub(crate) last: Checkpoint,
    /// It is on the disk. One that was read may be in the page cache alone, if the process that
    /// wrote it was killed meanwhile.
    durable: bool,
    /// The snapshots in the folder, oldest first.
    pub(crate) snapshots: Vec<i64>,
    /// The active segment's, once there is something to write.
    pub(crate) index: Option<File>,
    pub(crate) times: Option<File>,
    pub(crate) aborted: Option<File>,
    /// What was written to them and not flushed.
    pub(crate) unsynced: bool,
}

impl Meta {
    pub(crate) fn new(checkpoint: File, last: Checkpoint, snapshots: Vec<i64>) -> Self {
        Meta {
            checkpoint: Some(checkpoint),
            last,
            durable: false,
            snapshots,
            index: None,
            times: None,
            aborted: None,
            unsynced: false,
        }
    }

    /// Keeps no files: they are opened again when there is something to write.
    pub(crate) fn let_go(&mut self) {
        if !self.unsynced {
            self.checkpoint = None;
            self.on_rolled();
        }
    }

    /// A new segment has begun.
    pub(crate) fn on_rolled(&mut self) {
        self.index = None;
        self.times = None;
        self.aborted = None;
        self.unsynced = false;
    }
}

fn writable() -> OpenOptions {
    OpenOptions::new().read(true).write(true).create(true)
}

/// Opens a file for writing and cuts off what is behind `end`.
async fn open_cut(path: &std::path::Path, end: u64) -> Result<File, IoFailure> {
    let file = File::open(path, writable())
        .await
        .map_err(IoFailure::of("open", path))?;
    let len = file.len().await.map_err(IoFailure::of("look at", path))?;
    if len > end {
        file.set_len(end)
            .await
            .map_err(IoFailure::of("cut", path))?;
    }
    Ok(file)
}

/// Opens the checkpoint, or makes it with its two blocks in place.
pub(crate) async fn open_checkpoint(dir: &std::path::Path) -> Result<(File, Bytes), IoFailure> {
    let path = dir.join(names::CHECKPOINT);
    let file = File::open(&path, writable())
        .await
        .map_err(IoFailure::of("open", &path))?;
    let content = file
        .read_at(0, FILE_LEN)
        .await
        .map_err(IoFailure::of("read", &path))?;
    if content.len() < FILE_LEN {
        let missing = Bytes::from(vec![0; FILE_LEN - content.len()]);
        let written = file
            .write_at_sync(content.len() as u64, vec![missing])
            .await;
        written.map_err(IoFailure::of("write", &path))?;
        fs::sync_dir(dir)
            .await
            .map_err(IoFailure::of("flush", dir))?;
    }
    Ok((file, content))
}

impl Inner {
    /// The active segment's index, opened for writing, with nothing behind the cells that belong
    /// there: an earlier life may have left some.
    async fn index_file(&self, meta: &mut Meta, base_offset: i64) -> Result<File, IoFailure> {
        if let Some(file) = &meta.index {
            return Ok(file.clone());
        }
        let path = self.path(base_offset, Kind::Index);
        let (shift, cells) = {
            let state = self.state.borrow();
            (
                state.active.segment.shift.get(),
                state.active.index.cells_in_file(),
            )
        };
        let header = IndexHeader {
            base_offset,
            shift,
            seal: None,
        };
        let file = open_cut(&path, index::cell_position(cells)).await?;
        let written = file.write_at(0, vec![header.encode()]).await;
        written.map_err(IoFailure::of("write", &path))?;
        meta.index = Some(file.clone());
        Ok(file)
    }

    async fn times_file(&self, meta: &mut Meta, base_offset: i64) -> Result<File, IoFailure> {
        if let Some(file) = &meta.times {
            return Ok(file.clone());
        }
        let path = self.path(base_offset, Kind::TimeIndex);
        let end = self.state.borrow().active.times.encode_pending().0;
        let file = open_cut(&path, end).await?;
        meta.times = Some(file.clone());
        Ok(file)
    }

    /// Writes the active segment's aborted transactions that are in memory only.
    async fn spill_aborted(&self, meta: &mut Meta) -> Result<(), IoFailure> {
        let (base, (at, content), entries) = {
            let state = self.state.borrow();
            let (base, aborted) = (state.active.segment.base_offset, &state.active.aborted);
            (base, aborted.encode_pending(), aborted.entries())
        };
        if content.is_empty() {
            return Ok(());
        }
        let path = self.path(base, Kind::TxnIndex);
        let file = match &meta.aborted {
            Some(file) => file.clone(),
            None => open_cut(&path, at).await?,
        };
        meta.aborted = Some(file.clone());
        let written = file.write_at(at, vec![content]).await;
        written.map_err(IoFailure::of("write", &path))?;
        self.state.borrow_mut().active.aborted.on_written(entries);
        meta.unsynced = true;
        Ok(())
    }

    /// Writes what of the active segment's indexes is in memory only: cells, time entries and
    /// aborted transactions; with `sync`, makes them durable.
    pub(crate) async fn spill(&self, meta: &mut Meta, sync: bool) -> Result<(), IoFailure> {
        let (base, cells, next_cell, times, entries) = {
            let state = self.state.borrow();
            let (index, times) = (&state.active.index, &state.active.times);
            (
                state.active.segment.base_offset,
                index.encode_pending(),
                index.next_cell(),
                times.encode_pending(),
                times.entries(),
            )
        };
        if !cells.1.is_empty() {
            let file = self.index_file(meta, base).await?;
            let path = self.path(base, Kind::Index);
            let written = file.write_at(cells.0, vec![cells.1]).await;
            written.map_err(IoFailure::of("write", &path))?;
            self.state.borrow_mut().active.index.on_written(next_cell);
            meta.unsynced = true;
        }
        if !times.1.is_empty() {
            let file = self.times_file(meta, base).await?;
            let path = self.path(base, Kind::TimeIndex);
            let written = file.write_at(times.0, vec![times.1]).await;
            written.map_err(IoFailure::of("write", &path))?;
            self.state.borrow_mut().active.times.on_written(entries);
            meta.unsynced = true;
        }
        self.spill_aborted(meta).await?;
        if sync && meta.unsynced {
            self.sync_indexes(meta).await?;
        }
        Ok(())
    }

    async fn sync_indexes(&self, meta: &mut Meta) -> Result<(), IoFailure> {
        let files = [&meta.index, &meta.times, &meta.aborted];
        for file in files.into_iter().flatten() {
            let synced = file.sync_data().await;
            // whatever the reason, a lack of room too: the next flush would succeed without it
            let lost = synced.map_err(std::io::Error::other);
            lost.map_err(IoFailure::of("flush an index in", &self.dir))?;
        }
        // their names may be new
        fs::sync_dir(&self.dir)
            .await
            .map_err(IoFailure::of("flush", &self.dir))?;
        meta.unsynced = false;
        Ok(())
    }

    /// Writes the seal over the header of the active segment's index, which is complete.
    pub(crate) async fn write_seal(
        &self,
        meta: &mut Meta,
        base_offset: i64,
        seal: Seal,
    ) -> Result<(), IoFailure> {
        let file = self.index_file(meta, base_offset).await?;
        let header = IndexHeader {
            base_offset,
            shift: self.state.borrow().active.segment.shift.get(),
            seal: Some(seal),
        };
        let written = file.write_at_sync(0, vec![header.encode()]).await;
        written.map_err(IoFailure::of("seal", &self.path(base_offset, Kind::Index)))
    }

    /// Replaces the file of leader epochs if it is behind.
    pub(crate) async fn write_epochs(&self) -> Result<(), IoFailure> {
        let content = {
            let mut state = self.state.borrow_mut();
            if !std::mem::take(&mut state.epochs_dirty) {
                return Ok(());
            }
            state.epochs.encode()
        };
        let path = self.dir.join(names::EPOCHS);
        let written = fs::write_atomic(&path, vec![content]).await;
        if written.is_err() {
            self.state.borrow_mut().epochs_dirty = true;
        }
        written.map_err(IoFailure::of("write", &path))
    }

    /// Writes a snapshot.
    pub(crate) async fn put_snapshot(
        &self,
        meta: &mut Meta,
        offset: i64,
        content: Bytes,
    ) -> Result<(), IoFailure> {
        let path = self.path(offset, Kind::Snapshot);
        let written = fs::write_atomic(&path, vec![content]).await;
        written.map_err(IoFailure::of("write", &path))?;
        meta.snapshots.retain(|known| *known != offset);
        meta.snapshots.push(offset);
        meta.snapshots.sort_unstable();
        Ok(())
    }

    /// Writes the latest snapshot and removes those that are too old to be of use.
    pub(crate) async fn write_snapshot(
        &self,
        meta: &mut Meta,
        offset: i64,
        content: Bytes,
    ) -> Result<(), IoFailure> {
        self.put_snapshot(meta, offset, content).await?;
        let replicated = self.state.borrow().high_watermark.unwrap_or(i64::MAX);
        // a replica is cut at its high watermark at the deepest, by and large
        let enough = |known: &[i64]| {
            known.len() > SNAPSHOTS_KEPT && (known.len() > SNAPSHOTS_MAX || known[1] <= replicated)
        };
        while enough(&meta.snapshots) {
            let path = self.path(meta.snapshots.remove(0), Kind::Snapshot);
            if let Err(error) = fs::remove_file(&path).await {
                tracing::warn!(path = %path.display(), %error, "an old snapshot stays");
            }
        }
        Ok(())
    }

    /// Before segments go that an older checkpoint may name: sees to it that the last one is on the
    /// disk.
    pub(crate) async fn ensure_checkpoint(&self, meta: &mut Meta) -> Result<(), IoFailure> {
        if meta.durable {
            return Ok(());
        }
        // written again: a flush that failed once says nothing when it is repeated
        let Checkpoint {
            log_start_offset,
            recovery_point,
            replay,
            ..
        } = meta.last;
        self.write_checkpoint(meta, log_start_offset, recovery_point, replay)
            .await
    }

    /// Makes the checkpoint durable.
    pub(crate) async fn write_checkpoint(
        &self,
        meta: &mut Meta,
        log_start_offset: i64,
        recovery_point: Mark,
        replay: Replay,
    ) -> Result<(), IoFailure> {
        let checkpoint = Checkpoint {
            sequence: meta.last.sequence + 1,
            log_start_offset,
            recovery_point,
            replay,
            replicated: self.state.borrow().replicated(),
        };
        let file = match &meta.checkpoint {
            Some(file) => file.clone(),
            None => open_checkpoint(&self.dir).await?.0,
        };
        meta.checkpoint = Some(file.clone());
        let slot = vec![checkpoint.encode()];
        let written = file.write_at_sync(checkpoint.position(), slot).await;
        written.map_err(IoFailure::of("write", &self.dir.join(names::CHECKPOINT)))?;
        meta.last = checkpoint;
        meta.durable = true;
        self.state.borrow_mut().upkeep.replicated = checkpoint.replicated;
        Ok(())
    }
}
