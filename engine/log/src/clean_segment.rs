//! The cleaner's two ends: a segment's batches, one after the other, each of them checked; and a new
//! segment under temporary names, made durable before it may take a place in the log.
//!
//! What is read is not believed: a batch that is not whole, or stands where another should, ends the
//! run, so that no damage is copied and thereby made to look like what was written.

use std::path::PathBuf;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{File, OpenOptions, fs};
use ringmill_wire::batch::{BatchHeader, BatchView};

use crate::aborted::{AbortedIndexBuilder, AbortedTxn};
use crate::cleaner::CleanError;
use crate::error::IoFailure;
use crate::index::{IndexBuilder, IndexHeader, OffsetsDigest, Seal};
use crate::mend::time_of;
use crate::names::{self, Kind};
use crate::partition::Inner;
use crate::scan::{follows, holds_its_offsets, holds_some_offsets};
use crate::segment::Segment;
use crate::swap::Compacted;
use crate::time_index::{MaxTimestamp, TimeIndexBuilder};
use crate::walk::Walk;

/// The largest batch that is compacted; a partition with a larger one is not cleaned.
const BATCH_BYTES_MAX: usize = 128 << 20;
/// Bytes that gather before they are written.
pub(crate) const WRITE_BYTES: usize = 1 << 20;

/// The batches of a sealed segment.
pub(crate) struct Reader {
    walk: Walk,
    path: PathBuf,
    seal: Seal,
    due: i64,
    digest: OffsetsDigest,
    compacted: bool,
}

impl Reader {
    pub(crate) async fn open(inner: &Inner, segment: &Segment) -> Result<Self, CleanError> {
        let base = segment.base_offset;
        let Some(seal) = segment.seal.get() else {
            return Err(CleanError::Changed);
        };
        let path = inner.path(base, Kind::Log);
        let file = inner.log_file(segment).await?;
        let walk = Walk::new(file, path.clone(), 0..seal.log_len);
        let compacted = segment.compacted.get();
        Ok(Reader {
            walk,
            path,
            seal,
            due: base,
            digest: OffsetsDigest::default(),
            compacted,
        })
    }

    fn damaged(&self, position: u64, what: impl ToString) -> CleanError {
        CleanError::Uncleanable {
            file: self.path.clone(),
            position,
            what: what.to_string(),
        }
    }

    /// The next batch; nothing at the segment's end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, CleanError> {
        let Some((position, header)) = self.walk.next().await? else {
            return self.end().await;
        };
        if header.size() > BATCH_BYTES_MAX {
            let what = format!("a batch of {} bytes is too large to clean", header.size());
            return Err(self.damaged(position, what));
        }
        let holds = match self.compacted {
            true => holds_some_offsets(&header),
            false => holds_its_offsets(&header),
        };
        let fits = follows(&header, self.due, self.compacted)
            && header.last_offset_delta >= 0
            && header.next_offset() <= self.seal.end_offset;
        if !holds || !fits {
            let what = format!(
                "offset {} is due, the batch has {} to {}",
                self.due,
                header.base_offset,
                header.last_offset()
            );
            return Err(self.damaged(position, what));
        }
        self.due = header.next_offset();
        self.digest.on_batch(header.base_offset);
        let batch = self.walk.batch(position, &header).await?;
        let checked = BatchView::parse(&batch).and_then(|view| view.check_crc());
        checked.map_err(|error| self.damaged(position, error))?;
        Ok(Some(batch))
    }

    async fn end(&mut self) -> Result<Option<Bytes>, CleanError> {
        if let Some((position, error)) = self.walk.obstacle().await? {
            return Err(self.damaged(position, error));
        }
        let end = self.seal.log_len;
        let is_right = match self.seal.compacted {
            Some(digest) => digest == self.digest.get(),
            None => self.compacted || self.due == self.seal.end_offset,
        };
        match is_right {
            true => Ok(None),
            false => Err(self.damaged(end, "its offsets are not those that were written")),
        }
    }
}

/// A compacted segment that is being made.
pub(crate) struct Output {
    base: i64,
    end_offset: i64,
    shift: u8,
    path: PathBuf,
    file: File,
    position: u64,
    buffer: BytesMut,
    index: IndexBuilder,
    times: TimeIndexBuilder,
    aborted: AbortedIndexBuilder,
    digest: OffsetsDigest,
}

impl Output {
    /// Makes the file. The lock keeps the folder this partition's own meanwhile.
    pub(crate) async fn create(
        inner: &Inner,
        (base, end_offset): (i64, i64),
        shift: u8,
    ) -> Result<Self, CleanError> {
        let _meta = inner.lock_meta().await.map_err(|_| CleanError::Closed)?;
        let path = names::with_suffix(&inner.path(base, Kind::Log), names::CLEANED);
        let options = OpenOptions::new().write(true).create(true).truncate(true);
        let file = File::open(&path, options)
            .await
            .map_err(IoFailure::of("create", &path))?;
        Ok(Output {
            base,
            end_offset,
            shift,
            path,
            file,
            position: 0,
            buffer: BytesMut::new(),
            index: IndexBuilder::new(base, shift, 0),
            times: TimeIndexBuilder::new(base, 0, -1, MaxTimestamp::NONE),
            aborted: AbortedIndexBuilder::default(),
            digest: OffsetsDigest::default(),
        })
    }

    /// Bytes of log so far.
    pub(crate) fn len(&self) -> u64 {
        self.position + self.buffer.len() as u64
    }

    /// The next batch.
    pub(crate) async fn push(&mut self, batch: &[u8]) -> Result<(), CleanError> {
        let at = self.len();
        let header = BatchHeader::parse(batch).expect("the batch was read or made");
        if at + batch.len() as u64 > i32::MAX as u64 {
            // a batch may grow by its delete horizon
            return Err(CleanError::Uncleanable {
                file: self.path.clone(),
                position: at,
                what: "compacted, it would be larger than a segment may be".to_owned(),
            });
        }
        self.index.on_gap(header.base_offset);
        self.index.on_batch(header.last_offset(), at as u32);
        let size = batch.len() as u64;
        self.times
            .on_batch(header.last_offset(), time_of(&header), size);
        self.digest.on_batch(header.base_offset);
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// A transaction that was aborted, whose marker has just been pushed.
    pub(crate) fn push_aborted(&mut self, txn: AbortedTxn) {
        self.aborted.push(txn);
    }

    async fn flush(&mut self) -> Result<(), IoFailure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.buffer.split().freeze();
        let len = bytes.len() as u64;
        let written = self.file.write_at(self.position, vec![bytes]).await;
        written.map_err(IoFailure::of("write", &self.path))?;
        self.position += len;
        Ok(())
    }

    /// Makes the segment durable under its temporary names.
    pub(crate) async fn finish(mut self, inner: &Inner) -> Result<Compacted, CleanError> {
        self.flush().await?;
        self.file
            .sync_all()
            .await
            .map_err(IoFailure::of("flush", &self.path))?;
        self.times.close();
        self.index.on_end(self.end_offset);
        let max = self.times.max();
        let seal = Seal {
            log_len: self.position,
            end_offset: self.end_offset,
            max_timestamp: max.timestamp,
            max_timestamp_offset: max.offset,
            time_entries: self.times.entries(),
            aborted_entries: self.aborted.entries(),
            compacted: Some(self.digest.get()),
        };
        let header = IndexHeader {
            base_offset: self.base,
            shift: self.shift,
            seal: Some(seal),
        };
        let cells = self.index.encode_pending().1;
        let times = self.times.encode_pending().1;
        let aborted = self.aborted.encode_pending().1;
        let _meta = inner.lock_meta().await.map_err(|_| CleanError::Closed)?;
        for (kind, content) in [
            (Kind::Index, vec![header.encode(), cells]),
            (Kind::TimeIndex, vec![times]),
            // an empty one too: it takes the place of one that may be there
            (Kind::TxnIndex, vec![aborted]),
        ] {
            write_new(inner, self.base, kind, content).await?;
        }
        fs::sync_dir(&inner.dir)
            .await
            .map_err(IoFailure::of("flush", &inner.dir))?;
        let segment = Segment::new(self.base, self.shift, Some(seal), true);
        Ok(Compacted {
            segment: Rc::new(segment),
            end_offset: self.end_offset,
        })
    }
}

async fn write_new(
    inner: &Inner,
    base: i64,
    kind: Kind,
    content: Vec<Bytes>,
) -> Result<(), IoFailure> {
    let path = names::with_suffix(&inner.path(base, kind), names::CLEANED);
    let options = OpenOptions::new().write(true).create(true).truncate(true);
    let file = File::open(&path, options)
        .await
        .map_err(IoFailure::of("create", &path))?;
    let written = file.write_at(0, content).await;
    written.map_err(IoFailure::of("write", &path))?;
    file.sync_all().await.map_err(IoFailure::of("flush", &path))
}

/// Removes what a run that was given up has made. Whatever cannot be removed is at the next start.
pub(crate) async fn discard(inner: &Inner, base: i64) {
    let Ok(_meta) = inner.lock_meta().await else {
        return;
    };
    // a swap that failed half-way needs its files at the next start
    if inner.state.borrow().failure.is_some() {
        return;
    }
    for kind in Kind::OF_SEGMENT {
        let path = names::with_suffix(&inner.path(base, kind), names::CLEANED);
        let _ = fs::remove_file(&path).await;
    }
}
