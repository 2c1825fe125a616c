//! Builds a segment's indexes anew from its log when they are missing or wrong.
//!
//! The log is swept in bounded pieces, each of them a turn for others. What is found damaged on
//! the way is recorded ([`Damage`]) and told to whoever reads it. Runs behind the lock of
//! [`Meta`]: one at a time, and no roll meanwhile; appends and reads elsewhere go on.

use std::rc::Rc;

use bytes::Bytes;
use ringmill_ring::{File, OpenOptions, fs};

use crate::error::{Damage, DamageReason, IoFailure, ReadError};
use crate::index::{self, IndexBuilder, IndexHeader, Seal};
use crate::meta::Meta;
use crate::names::Kind;
use crate::partition::{Extent, Inner};
use crate::scan::{ScanEnd, Scanned};
use crate::segment::Segment;
use crate::sweep::{Range, sweep};
use crate::time_index::{MaxTimestamp, TimeIndexBuilder};

/// What a sweep over a whole segment yields.
struct Rebuilt {
    index: IndexBuilder,
    times: TimeIndexBuilder,
    damages: Vec<Damage>,
    /// The end of the log, if it is whole up to there.
    whole: Option<u64>,
}

impl Inner {
    /// Builds a segment's index anew, unless somebody has done so since it had been built
    /// `mends` times.
    pub(crate) async fn mend(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        mends: u32,
    ) -> Result<(), ReadError> {
        let mut meta = self.meta.lock().await;
        if segment.mends.get() != mends {
            return Ok(());
        }
        let path = self.path(segment.base_offset, Kind::Index);
        tracing::warn!(path = %path.display(), "the index is missing or wrong and is built anew");
        let done = match segment.seal.get() {
            Some(seal) => self.mend_sealed(segment, seal).await,
            None => self.mend_active(&mut meta, segment).await,
        };
        segment.mends.set(mends + 1);
        drop(meta);
        done.map_err(|failure| ReadError::Io(self.on_meta_failure(failure)))
    }

    /// The active segment's: the cells that should be in the file. Those in memory are right.
    async fn mend_active(&self, meta: &mut Meta, segment: &Segment) -> Result<(), IoFailure> {
        let (extent, cells) = {
            let state = self.state.borrow();
            let extent = state.extent(segment, state.commit.written());
            (extent, state.active.index.cells_in_file())
        };
        let rebuilt = self.rebuild(segment, extent).await?;
        self.record(rebuilt.damages);
        let (at, content) = rebuilt.index.encode_pending();
        let until = (index::cell_position(cells) - at).min(content.len() as u64) as usize;
        // a header may be what was wrong
        meta.index = None;
        let path = self.path(segment.base_offset, Kind::Index);
        let file = open_writable(&path).await?;
        let header = IndexHeader {
            base_offset: segment.base_offset,
            shift: segment.shift.get(),
            seal: None,
        };
        let bufs = vec![header.encode(), content.slice(..until)];
        file.write_at(0, bufs)
            .await
            .map_err(IoFailure::of("write", &path))?;
        let end = index::cell_position(cells);
        file.set_len(end)
            .await
            .map_err(IoFailure::of("cut", &path))?;
        meta.unsynced = true;
        self.forget_file(segment.base_offset, Kind::Index);
        segment.indexed.set(true);
        Ok(())
    }

    async fn mend_sealed(&self, segment: &Segment, old: Seal) -> Result<(), IoFailure> {
        let base = segment.base_offset;
        let extent = Extent {
            bytes: old.log_len,
            end_offset: old.end_offset,
        };
        let mut rebuilt = self.rebuild(segment, extent).await?;
        rebuilt.times.close();
        let max = rebuilt.times.max();
        let seal = Seal {
            log_len: rebuilt.whole.unwrap_or(old.log_len),
            max_timestamp: max.timestamp,
            max_timestamp_offset: max.offset,
            time_entries: rebuilt.times.entries(),
            ..old
        };
        let header = IndexHeader {
            base_offset: base,
            shift: segment.shift.get(),
            seal: Some(seal),
        };
        self.replace(
            base,
            Kind::TimeIndex,
            vec![rebuilt.times.encode_pending().1],
        )
        .await?;
        let cells = rebuilt.index.encode_pending().1;
        self.replace(base, Kind::Index, vec![header.encode(), cells])
            .await?;
        fs::sync_dir(&self.dir)
            .await
            .map_err(IoFailure::of("flush", &self.dir))?;
        self.record(rebuilt.damages);
        segment.seal.set(Some(seal));
        segment.indexed.set(true);
        Ok(())
    }

    async fn replace(&self, base: i64, kind: Kind, bufs: Vec<Bytes>) -> Result<(), IoFailure> {
        let path = self.path(base, kind);
        let written = fs::write_atomic(&path, bufs).await;
        written.map_err(IoFailure::of("write", &path))?;
        self.forget_file(base, kind);
        Ok(())
    }

    /// Sweeps the whole segment. The index in memory is at most as large as its file may be.
    async fn rebuild(&self, segment: &Segment, extent: Extent) -> Result<Rebuilt, IoFailure> {
        let base = segment.base_offset;
        let path = self.path(base, Kind::Log);
        let file = self.log_file(segment).await?;
        let mut index = IndexBuilder::new(base, segment.shift.get(), 0);
        let mut times = TimeIndexBuilder::new(base, 0, -1, MaxTimestamp::NONE);
        let mut damages = Vec::new();
        let range = Range {
            position: 0,
            offset: base,
            end: extent.bytes,
            lenient: true,
            renew_from: Range::NO_RENEWAL,
        };
        let swept = sweep(&file, range, |position, batch| {
            let header = match batch {
                Scanned::Whole(header) => header,
                Scanned::Damaged(header, error) => {
                    let damage = Damage {
                        file: path.clone(),
                        bytes: position..position + header.size() as u64,
                        offsets: header.base_offset..header.next_offset(),
                        reason: error.into(),
                    };
                    push_damage(&mut damages, damage);
                    header
                }
            };
            index.on_batch(header.last_offset(), position as u32);
            times.on_batch(
                header.last_offset(),
                header.max_timestamp,
                header.size() as u64,
            );
        });
        let end = swept.await.map_err(IoFailure::of("read", &path))?;
        let rest = self.rest(&path, &file, &end, extent).await?;
        let whole = rest.is_none().then_some(end.position);
        damages.extend(rest);
        Ok(Rebuilt {
            index,
            times,
            damages,
            whole,
        })
    }

    /// What a sweep did not reach of what should be there.
    async fn rest(
        &self,
        path: &std::path::Path,
        file: &File,
        end: &ScanEnd,
        extent: Extent,
    ) -> Result<Option<Damage>, IoFailure> {
        if end.next_offset >= extent.end_offset {
            return Ok(None);
        }
        let found = file.len().await.map_err(IoFailure::of("look at", path))?;
        let truncated = DamageReason::Truncated {
            found,
            expected: extent.bytes,
        };
        let reason = match end.error {
            _ if found < extent.bytes => truncated,
            Some(error) => error.into(),
            None => DamageReason::Unreachable,
        };
        Ok(Some(Damage {
            file: path.to_owned(),
            bytes: end.position..extent.bytes,
            offsets: end.next_offset..extent.end_offset,
            reason,
        }))
    }

    /// Damage that was found; each part of it once.
    pub(crate) fn record(&self, damages: Vec<Damage>) {
        let mut state = self.state.borrow_mut();
        for damage in damages {
            if !state
                .damages
                .iter()
                .any(|known| known.offsets == damage.offsets)
            {
                tracing::error!(%damage, "damaged log");
                push_damage(&mut state.damages, damage);
            }
        }
    }
}

/// Damaged parts that are told apart, at most; the last one takes in what comes after it.
const DAMAGES_MAX: usize = 1000;

/// Adds a damaged part of a file, to the one before it if it is next to it.
pub(crate) fn push_damage(damages: &mut Vec<Damage>, damage: Damage) {
    let full = damages.len() >= DAMAGES_MAX;
    match damages.last_mut() {
        Some(last)
            if last.file == damage.file && (full || last.offsets.end == damage.offsets.start) =>
        {
            last.bytes.end = last.bytes.end.max(damage.bytes.end);
            last.offsets.end = last.offsets.end.max(damage.offsets.end);
        }
        _ => damages.push(damage),
    }
}

async fn open_writable(path: &std::path::Path) -> Result<File, IoFailure> {
    let options = OpenOptions::new().read(true).write(true).create(true);
    File::open(path, options)
        .await
        .map_err(IoFailure::of("open", path))
}
