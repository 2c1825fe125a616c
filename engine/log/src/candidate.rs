//! A segment at the end of the log while it is recovered: what its index files still know, what
//! the sweep has found, and what becomes of it: sealed, renewed, or written to again.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ringmill_ring::{File, OpenOptions, fs};
use ringmill_wire::batch::{BatchHeader, HEADER_LEN};

use crate::aborted::{self, AbortedIndexBuilder, AbortedTxn};
use crate::append::FIRST_SHIFT;
use crate::checkpoint::Mark;
use crate::error::IoFailure;
use crate::index::{self, Bracket, CELL_LEN, IndexBuilder, IndexHeader, Seal};
use crate::lanes::Lanes;
use crate::mend::time_of;
use crate::names::{self, Kind};
use crate::partition::Active;
use crate::segment::Segment;
use crate::time_index::{self, ENTRY_LEN, MaxTimestamp, TimeIndexBuilder};
use crate::walk::Walk;

/// Aborted transactions read at a time.
const ENTRIES_READ: u32 = 2048;

/// A segment that may become the active one.
pub(crate) struct Candidate {
    pub(crate) base: i64,
    /// Of the log file as it was found.
    pub(crate) len: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) shift: u8,
    /// It may have gaps: it was compacted, or its leader's log was.
    pub(crate) compacted: bool,
    pub(crate) index: IndexBuilder,
    pub(crate) times: TimeIndexBuilder,
    pub(crate) aborted: AbortedIndexBuilder,
    /// Everything before it is known to be on the disk.
    pub(crate) durable: Mark,
    /// The end of what is whole, as far as is known.
    pub(crate) mark: Mark,
}

impl Candidate {
    /// Opens a segment. In the recovery point's, indexes that have all that belongs before the
    /// point are gone on with; otherwise they are built from the segment's beginning. Segments that
    /// begin before `cleaned_end` may have gaps.
    pub(crate) async fn open(
        dir: &Path,
        (base, len): (i64, u64),
        point: Mark,
        cleaned_end: i64,
    ) -> Result<Self, IoFailure> {
        let path = names::path_of(dir, base, Kind::Log);
        let options = OpenOptions::new().read(true).write(true);
        let file = File::open(&path, options)
            .await
            .map_err(IoFailure::of("open", &path))?;
        let durable = if base == point.segment {
            point
        } else {
            Mark::start_of(base)
        };
        let mut candidate = Candidate {
            base,
            len,
            path,
            file,
            shift: FIRST_SHIFT,
            compacted: base < cleaned_end,
            index: IndexBuilder::new(base, FIRST_SHIFT, 0),
            times: TimeIndexBuilder::new(base, 0, -1, MaxTimestamp::NONE),
            aborted: AbortedIndexBuilder::default(),
            durable,
            mark: Mark::start_of(base),
        };
        candidate.aborted = candidate.known_aborted(dir).await?;
        // too short for what is known of it, it is read from its beginning; so it is if a digest
        // is needed that a checkpoint of an earlier version does not have
        let digested = !candidate.compacted || durable.digest.is_some();
        if durable.position > 0 && len >= durable.position && digested {
            candidate.take_known(dir).await?;
        }
        Ok(candidate)
    }

    /// Takes over the indexes as far as they go before the recovery point.
    async fn take_known(&mut self, dir: &Path) -> Result<(), IoFailure> {
        let path = names::path_of(dir, self.base, Kind::Index);
        let Some((file, len)) = open_existing(&path).await? else {
            return Ok(());
        };
        let bytes = file.read_at(0, index::HEADER_LEN).await;
        let bytes = bytes.map_err(IoFailure::of("read", &path))?;
        let Some(header) = IndexHeader::parse(&bytes, self.base) else {
            return Ok(());
        };
        let cells = index::cells_until(self.base, header.shift, self.durable.offset);
        let end = index::cell_position(cells);
        if len < end {
            return Ok(());
        }
        // cells of batches that may not be there any more
        cut(&file, &path, len, end).await?;
        if header.seal.is_some() {
            // what follows was cut off: it is written to again
            let header = IndexHeader {
                seal: None,
                ..header
            };
            let written = file.write_at(0, vec![header.encode()]).await;
            written.map_err(IoFailure::of("write", &path))?;
        }
        self.shift = header.shift;
        self.index = IndexBuilder::new(self.base, header.shift, cells);
        if self.compacted && cells > 0 {
            let last = self.last_batch(&file, cells - 1).await?;
            self.index.go_on_behind(last);
        }
        self.times = self.known_times(dir).await?;
        self.mark = self.durable;
        Ok(())
    }

    /// Where the last batch before the recovery point begins: a few headers behind the place that the
    /// last cell names.
    async fn last_batch(&self, index: &File, cell: u32) -> Result<u32, IoFailure> {
        let stored = index.read_at(index::cell_position(cell), CELL_LEN).await;
        let stored = stored.map_err(IoFailure::of("read", &self.path))?;
        let named = Bracket::parse(&stored).map_or(0, |bracket| bracket.low.into());
        let (mut last, end) = (self.durable.position.min(named), self.durable.position);
        let mut walk = Walk::new(self.file.clone(), self.path.clone(), last..end);
        while let Some((position, _)) = walk.next().await? {
            last = position;
        }
        Ok(last as u32)
    }

    /// The aborted transactions whose markers stand before the recovery point.
    async fn known_aborted(&self, dir: &Path) -> Result<AbortedIndexBuilder, IoFailure> {
        let path = names::path_of(dir, self.base, Kind::TxnIndex);
        let Some((file, len)) = open_existing(&path).await? else {
            return Ok(AbortedIndexBuilder::default());
        };
        let (mut known, mut last) = (0, -1);
        let piece = aborted::position(ENTRIES_READ);
        loop {
            let bytes = file.read_at(aborted::position(known), piece as usize).await;
            let bytes = bytes.map_err(IoFailure::of("read", &path))?;
            let txns = aborted::parse(&bytes);
            let in_order = txns.first().is_some_and(|txn| txn.last_offset > last);
            let before = txns.partition_point(|txn| txn.last_offset < self.durable.offset);
            if !in_order || before == 0 {
                break;
            }
            last = txns[before - 1].last_offset;
            known += before as u32;
        }
        cut(&file, &path, len, aborted::position(known)).await?;
        Ok(AbortedIndexBuilder::new(known))
    }

    async fn known_times(&self, dir: &Path) -> Result<TimeIndexBuilder, IoFailure> {
        let path = names::path_of(dir, self.base, Kind::TimeIndex);
        let Some((file, len)) = open_existing(&path).await? else {
            return Ok(TimeIndexBuilder::new(self.base, 0, -1, self.durable.max));
        };
        // bounded: an entry for every interval of the log, and one for each life
        let limit = 2 * (self.durable.position / time_index::INTERVAL + 1) * ENTRY_LEN as u64;
        let bytes = file.read_at(0, len.min(limit) as usize).await;
        let bytes = bytes.map_err(IoFailure::of("read", &path))?;
        let entries = time_index::parse(&bytes, self.base, self.durable.offset);
        cut(&file, &path, len, (entries.len() * ENTRY_LEN) as u64).await?;
        let last = entries.last().map_or(-1, |entry| entry.timestamp);
        let count = entries.len() as u32;
        Ok(TimeIndexBuilder::new(
            self.base,
            count,
            last,
            self.durable.max,
        ))
    }

    /// A whole batch was found at `position`; it may have aborted a transaction.
    pub(crate) fn on_batch(
        &mut self,
        position: u64,
        header: &BatchHeader,
        aborted: Option<AbortedTxn>,
    ) {
        // those before the recovery point are in the file
        let news = aborted.filter(|txn| txn.last_offset >= self.durable.offset);
        news.into_iter().for_each(|txn| self.aborted.push(txn));
        let (last, size) = (header.last_offset(), header.size() as u64);
        if self.compacted {
            self.index.on_gap(header.base_offset);
        }
        self.index.on_batch(last, position as u32);
        self.times.on_batch(last, time_of(header), size);
        self.mark = Mark {
            position,
            ..self.mark
        }
        .after(header);
    }

    /// Makes the segment complete up to `end`, with `next` the offset of the next one. What is
    /// known to be durable before, or was flushed by whoever made the next one, is flushed again
    /// for good measure.
    pub(crate) async fn seal(
        mut self,
        dir: &Path,
        end: Mark,
        next: i64,
    ) -> Result<Rc<Segment>, IoFailure> {
        let log_len = end.position.min(self.len);
        cut(&self.file, &self.path, self.len, log_len).await?;
        self.file
            .sync_data()
            .await
            .map_err(IoFailure::of("flush", &self.path))?;
        if end == self.mark {
            self.times.close();
        }
        self.times.truncate(end.offset);
        let mut seal = Seal {
            log_len,
            end_offset: next,
            max_timestamp: end.max.timestamp,
            max_timestamp_offset: end.max.offset,
            time_entries: self.times.entries(),
            aborted_entries: self.aborted.entries(),
            compacted: self.compacted.then(|| end.digest.unwrap_or_default().get()),
        };
        if self.compacted {
            self.index.on_end(next);
        }
        let entries = self.times.encode_pending();
        match write_part(dir, self.base, Kind::TimeIndex, entries, None).await {
            // lookups by time begin at the last entry that is there
            Err(failure) if failure.is_no_space() => {
                seal.time_entries -= self.times.pending().len() as u32;
            }
            written => written?,
        }
        let aborted = self.aborted.encode_pending();
        if !aborted.1.is_empty() {
            write_part(dir, self.base, Kind::TxnIndex, aborted, None).await?;
        }
        let header = IndexHeader {
            base_offset: self.base,
            shift: self.shift,
            seal: Some(seal),
        };
        let (at, cells) = self.index.encode_pending();
        let end_offset = if self.compacted { next } else { end.offset };
        let until = index::cell_position(index::cells_until(self.base, self.shift, end_offset));
        let until = (until.saturating_sub(at) as usize).min(cells.len());
        let cells = (at, cells.slice(..until));
        let indexed = match write_part(dir, self.base, Kind::Index, cells, Some(header)).await {
            // a full disk must not keep the log from being opened: built anew when there is room
            Err(failure) if failure.is_no_space() => false,
            written => written.map(|()| true)?,
        };
        Ok(Rc::new(Segment::new(
            self.base,
            self.shift,
            Some(seal),
            indexed,
        )))
    }

    /// Writes to it again.
    pub(crate) async fn into_active(self) -> Result<Active, IoFailure> {
        let mut first_timestamp = None;
        if self.mark.position > 0 {
            let header = self.file.read_at(0, HEADER_LEN).await;
            let header = header.map_err(IoFailure::of("read", &self.path))?;
            let first = BatchHeader::parse(&header)
                .ok()
                .map(|header| header.max_timestamp);
            first_timestamp = first.filter(|timestamp| *timestamp >= 0);
        }
        let segment = Segment::new(self.base, self.shift, None, true);
        segment.compacted.set(self.compacted);
        Ok(Active {
            segment: Rc::new(segment),
            file: None,
            opening: false,
            lanes: Lanes::default(),
            index: self.index,
            times: self.times,
            aborted: self.aborted,
            first_timestamp,
        })
    }
}

/// A segment that begins now.
pub(crate) async fn new_active(dir: &Path, base: i64, shift: u8) -> Result<Active, IoFailure> {
    let path = names::path_of(dir, base, Kind::Log);
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true);
    File::open(&path, options)
        .await
        .map_err(IoFailure::of("create", &path))?;
    fs::sync_dir(dir)
        .await
        .map_err(IoFailure::of("flush", dir))?;
    Ok(Active::new(
        Rc::new(Segment::new(base, shift, None, true)),
        None,
    ))
}

async fn open_existing(path: &Path) -> Result<Option<(File, u64)>, IoFailure> {
    match File::open(path, OpenOptions::new().read(true).write(true)).await {
        Ok(file) => {
            let len = file.len().await.map_err(IoFailure::of("look at", path))?;
            Ok(Some((file, len)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IoFailure::of("open", path)(error)),
    }
}

/// Cuts a file that is longer, durably: what a crash took back would else come back with the next
/// one, and be believed when the recovery point has passed it.
async fn cut(file: &File, path: &Path, len: u64, end: u64) -> Result<(), IoFailure> {
    if len <= end {
        return Ok(());
    }
    file.set_len(end)
        .await
        .map_err(IoFailure::of("cut", path))?;
    file.sync_data().await.map_err(IoFailure::of("flush", path))
}

/// Writes the part of an index that is not in its file, and a header, and makes both durable.
async fn write_part(
    dir: &Path,
    base: i64,
    kind: Kind,
    (position, content): (u64, Bytes),
    header: Option<IndexHeader>,
) -> Result<(), IoFailure> {
    let path = names::path_of(dir, base, kind);
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = File::open(&path, options)
        .await
        .map_err(IoFailure::of("open", &path))?;
    file.set_len(position)
        .await
        .map_err(IoFailure::of("cut", &path))?;
    file.write_at(position, vec![content])
        .await
        .map_err(IoFailure::of("write", &path))?;
    if let Some(header) = header {
        let written = file.write_at(0, vec![header.encode()]).await;
        written.map_err(IoFailure::of("write", &path))?;
    }
    file.sync_all().await.map_err(IoFailure::of("flush", &path))
}
