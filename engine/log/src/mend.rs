//! Builds a segment's indexes anew from its log when they are missing or wrong.
//!
//! The log is swept in bounded pieces, each of them a turn for others. What is found damaged on
//! the way is recorded ([`Damage`]) and told to whoever reads it. Runs behind the lock of
//! [`Meta`]: one at a time, and no roll meanwhile; appends and reads elsewhere go on.

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use ringmill_ring::{File, OpenOptions, fs};
use ringmill_wire::batch::{BatchHeader, HEADER_LEN, NO_TIMESTAMP, claimed_size};

use crate::checkpoint::Mark;
use crate::error::{Damage, DamageReason, IoFailure, ReadError};
use crate::index::{self, IndexBuilder, IndexHeader, OffsetsDigest, Seal};
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
    /// How many cells belong into the file of an active segment's index; the rest is in memory.
    cells: u32,
    compacted: bool,
    digest: OffsetsDigest,
}

impl Rebuilt {
    fn on_batch(&mut self, path: &Path, position: u64, batch: Scanned<'_>) {
        let header = match batch {
            Scanned::Whole(header, _) => header,
            Scanned::Damaged(header, error) => {
                let damage = Damage {
                    file: path.to_owned(),
                    bytes: position..position + header.size() as u64,
                    offsets: header.base_offset..header.next_offset(),
                    reason: error.into(),
                };
                push_damage(&mut self.damages, damage);
                header
            }
        };
        let (last, size) = (header.last_offset(), header.size() as u64);
        if self.compacted {
            self.index.on_gap(header.base_offset);
            self.digest.on_batch(header.base_offset);
        }
        self.index.on_batch(last, position as u32);
        self.times.on_batch(last, time_of(header), size);
    }
}

/// The largest timestamp of a batch's records. What compaction leaves of a batch may have none.
pub(crate) fn time_of(header: &BatchHeader) -> i64 {
    match header.records_count {
        0 => NO_TIMESTAMP,
        _ => header.max_timestamp,
    }
}

impl Inner {
    /// Builds a segment's index anew, unless somebody has done so since it had been built
    /// `mends` times.
    pub(crate) async fn mend(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        mends: u32,
    ) -> Result<(), ReadError> {
        let mut meta = self.lock_meta().await.map_err(|_| ReadError::Closed)?;
        if !self.has(segment) {
            // it was deleted meanwhile, and its files with it
            return Err(self.state.borrow().out_of_range(segment.base_offset));
        }
        if segment.mends.get() != mends {
            return Ok(());
        }
        let path = self.path(segment.base_offset, Kind::Index);
        tracing::warn!(path = %path.display(), "the index is missing or wrong and is built anew");
        // a log that cannot be read is no reason to take no appends
        let known = match segment.seal.get() {
            Some(_) => None,
            None => Some(meta.last.recovery_point),
        };
        let rebuilt = self.rebuild(segment, known).await;
        segment.mends.set(mends + 1);
        let rebuilt = rebuilt?;
        let done = match segment.seal.get() {
            Some(seal) => self.mend_sealed(segment, seal, rebuilt).await,
            None => self.mend_active(&mut meta, segment, rebuilt).await,
        };
        drop(meta);
        done.map_err(|failure| ReadError::Io(self.on_meta_failure(failure)))
    }

    /// The active segment's: the cells that should be in the file. Those in memory are right.
    async fn mend_active(
        &self,
        meta: &mut Meta,
        segment: &Segment,
        rebuilt: Rebuilt,
    ) -> Result<(), IoFailure> {
        self.record(rebuilt.damages);
        let (at, content) = rebuilt.index.encode_pending();
        let until = (index::cell_position(rebuilt.cells) - at).min(content.len() as u64) as usize;
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
        let end = index::cell_position(rebuilt.cells);
        file.set_len(end)
            .await
            .map_err(IoFailure::of("cut", &path))?;
        meta.unsynced = true;
        self.forget_file(segment.base_offset, Kind::Index);
        segment.indexed.set(true);
        Ok(())
    }

    async fn mend_sealed(
        &self,
        segment: &Segment,
        old: Seal,
        mut rebuilt: Rebuilt,
    ) -> Result<(), IoFailure> {
        let base = segment.base_offset;
        rebuilt.times.close();
        let max = rebuilt.times.max();
        let seal = Seal {
            log_len: rebuilt.whole.unwrap_or(old.log_len),
            max_timestamp: max.timestamp,
            max_timestamp_offset: max.offset,
            time_entries: rebuilt.times.entries(),
            compacted: rebuilt.compacted.then(|| rebuilt.digest.get()),
            ..old
        };
        if rebuilt.compacted {
            rebuilt.index.on_end(old.end_offset);
        }
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

    /// Sweeps the whole segment; `known` is a place where a batch begins for sure. The index in
    /// memory is at most as large as its file may be.
    async fn rebuild(&self, segment: &Segment, known: Option<Mark>) -> Result<Rebuilt, IoFailure> {
        let base = segment.base_offset;
        let known = known.filter(|known| known.segment == base);
        let (extent, cells) = {
            let state = self.state.borrow();
            let extent = state.extent(segment, state.commit.written());
            (extent, state.active.index.cells_in_file())
        };
        let path = self.path(base, Kind::Log);
        let file = self.log_file(segment).await?;
        let mut rebuilt = Rebuilt {
            index: IndexBuilder::new(base, segment.shift.get(), 0),
            times: TimeIndexBuilder::new(base, 0, -1, MaxTimestamp::NONE),
            damages: Vec::new(),
            whole: None,
            cells,
            compacted: segment.compacted.get(),
            digest: OffsetsDigest::default(),
        };
        let (mut position, mut offset) = (0, base);
        loop {
            let range = Range {
                position,
                offset,
                end: extent.bytes,
                lenient: true,
                compacted: rebuilt.compacted,
            };
            let visit = |position, batch: Scanned<'_>| rebuilt.on_batch(&path, position, batch);
            let swept = sweep(&file, range, visit).await;
            let end = swept.map_err(IoFailure::of("read", &path))?;
            // what is missing at the end of a compacted segment was cleaned away
            let at_end = rebuilt.compacted && end.error.is_none() && end.position == extent.bytes;
            if end.next_offset >= extent.end_offset || at_end {
                rebuilt.whole = rebuilt.damages.is_empty().then_some(end.position);
                return Ok(rebuilt);
            }
            let mut damage = rest(&path, &file, &end, extent).await?;
            let known = known.filter(|known| known.position > end.position);
            let next = self.resume_after(segment, &end, extent).await?;
            let next = next.or(known.map(|known| (known.position, known.offset)));
            let sooner = resume_by_length(&path, &file, &end, next, extent, rebuilt.compacted);
            let next = sooner.await?.or(next);
            if let Some((at, from)) = next {
                damage.bytes.end = at;
                damage.offsets.end = from;
            }
            push_damage(&mut rebuilt.damages, damage);
            let Some(next) = next else {
                return Ok(rebuilt);
            };
            (position, offset) = next;
        }
    }

    /// Where the log is whole again behind a broken header: the next place that the old index
    /// names and at which there is the batch that should be there. Never a place that only looks
    /// like a batch: a record's value may hold anything.
    async fn resume_after(
        &self,
        segment: &Segment,
        end: &ScanEnd,
        extent: Extent,
    ) -> Result<Option<(u64, i64)>, IoFailure> {
        let (base, shift) = (segment.base_offset, segment.shift.get());
        let file = self.log_file(segment).await?;
        let path = self.path(base, Kind::Log);
        let mut cell = i64::from(index::cell_of(base, shift, end.next_offset).unwrap_or(u32::MAX));
        for skip in 0..32 {
            cell += 1 << skip;
            let offset = base.saturating_add(cell << shift);
            if offset >= extent.end_offset {
                break;
            }
            let Some(bracket) = self.bracket(segment, offset).await? else {
                continue;
            };
            let at = u64::from(bracket.low);
            if at <= end.position || at >= extent.bytes {
                continue;
            }
            let header = file
                .read_at(at, HEADER_LEN)
                .await
                .map_err(IoFailure::of("read", &path))?;
            if let Ok(header) = BatchHeader::parse(&header)
                && header.base_offset > end.next_offset
                && header.base_offset <= offset
                && (offset <= header.last_offset() || segment.compacted.get())
            {
                return Ok(Some((at, header.base_offset)));
            }
        }
        Ok(None)
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

/// Broken headers that are stepped over by their lengths, one after the other, at most.
const STEPS_MAX: usize = 16;

/// Where the log is whole again behind a broken header, sooner than at the next place that is known,
/// or than the log's end if there is none. What of the header is broken is not known, so its length
/// is tried; it is believed if it leads to batches that are whole and follow each other to exactly
/// the known place and the offset that is due there. A batch inside of a record's value does not: the
/// record goes on behind its value.
async fn resume_by_length(
    path: &Path,
    file: &File,
    end: &ScanEnd,
    known: Option<(u64, i64)>,
    extent: Extent,
    compacted: bool,
) -> Result<Option<(u64, i64)>, IoFailure> {
    let (until, due) = known.unwrap_or((extent.bytes, extent.end_offset));
    let (mut position, mut next_offset) = (end.position, end.next_offset);
    // Where what is whole begins, up to the next broken header.
    let mut first = None;
    for _ in 0..STEPS_MAX {
        let header = file.read_at(position, HEADER_LEN).await;
        let header = header.map_err(IoFailure::of("read", path))?;
        let Some(size) = claimed_size(&header) else {
            return Ok(None);
        };
        position += size as u64;
        if position >= until {
            return Ok(None);
        }
        let header = file.read_at(position, HEADER_LEN).await;
        let header = header.map_err(IoFailure::of("read", path))?;
        let Ok(header) = BatchHeader::parse(&header) else {
            continue;
        };
        if header.base_offset <= next_offset || header.base_offset >= due {
            continue;
        }
        let range = Range {
            position,
            offset: header.base_offset,
            end: until,
            lenient: false,
            compacted,
        };
        let swept = sweep(file, range, |_, _| ()).await;
        let swept = swept.map_err(IoFailure::of("read", path))?;
        let arrives = match compacted {
            true => swept.next_offset <= due,
            false => swept.next_offset == due,
        };
        let begun = *first.get_or_insert((position, header.base_offset));
        if swept.error.is_none() {
            return Ok((swept.position == until && arrives).then_some(begun));
        }
        // Another broken header, or a length that led astray: each byte is read once.
        (position, next_offset) = (swept.position, swept.next_offset);
    }
    Ok(None)
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
            // where something unreachable should be is not known
            if !damage.bytes.is_empty() {
                last.bytes.end = last.bytes.end.max(damage.bytes.end);
            }
            last.offsets.end = last.offsets.end.max(damage.offsets.end);
        }
        _ => damages.push(damage),
    }
}

/// What a sweep did not reach of what should be there.
async fn rest(
    path: &Path,
    file: &File,
    end: &ScanEnd,
    extent: Extent,
) -> Result<Damage, IoFailure> {
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
    Ok(Damage {
        file: path.to_owned(),
        bytes: end.position..extent.bytes,
        offsets: end.next_offset..extent.end_offset,
        reason,
    })
}

async fn open_writable(path: &Path) -> Result<File, IoFailure> {
    let options = OpenOptions::new().read(true).write(true).create(true);
    File::open(path, options)
        .await
        .map_err(IoFailure::of("open", path))
}
