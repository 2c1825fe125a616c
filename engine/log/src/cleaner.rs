//! The log cleaner: of a log that is compacted, the last record of every key stays
//! (`cleanup.policy=compact`).
//!
//! A run reads the part that was never compacted and learns each key's last offset
//! ([`OffsetMap`]), as far as the map's memory goes; then it writes all segments up to there anew,
//! without what is overtaken ([`Filter`]), and lets each take its place ([`swap`](crate::swap)). It
//! reads and writes through the ring in bounded pieces, gives way between batches, keeps to a rate,
//! and holds no lock but for the moments in which names change. It never touches the active
//! segment, nor what consumers may not see yet. What it cannot read whole it leaves alone, for good:
//! the partition is then not cleaned until somebody has looked at it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::{fs, now, random_u64, sleep_until, yield_now};
use ringmill_wire::batch::{BatchHeader, BatchView, HEADER_LEN};
use thiserror::Error;

use crate::aborted::AbortedTxn;
use crate::clean_plan::{self, Cleanable, Sealed};
use crate::clean_segment::{Output, Reader, WRITE_BYTES, discard};
use crate::clean_txns::CleanedTxns;
use crate::cleaner_checkpoint::CleanerCheckpoint;
use crate::config::CompactionConfig;
use crate::error::IoFailure;
use crate::filter::{Counts, Filter, Horizon, Kept, map_batch};
use crate::index;
use crate::names::{self, Kind};
use crate::offset_map::OffsetMap;
use crate::partition::{Inner, Partition, Phase, State};
use crate::segment::Segment;
use crate::sweep::PIECE_BYTES;
use crate::throttle::Throttle;

/// After so many bytes that were looked at, others have their turn.
const TURN_BYTES: usize = 128 << 10;
/// A log with more aborted transactions than this is not cleaned.
const ABORTED_MAX: usize = 1 << 20;

/// What a run takes for reading and writing, beside the memory for the keys: what is read ahead, and
/// the piece before it; what gathers to be written, in a buffer that doubles, and what is being
/// written. To this comes one batch in three forms (as it was read, decompressed, and as it will
/// be), the index of the segment that is being made (10 MiB at most), and what is known of aborted
/// transactions (a log with more than a million of them is left alone).
pub const CLEANER_BUFFER_BYTES: usize = 2 * PIECE_BYTES + 3 * WRITE_BYTES;

/// What the cleaner of one core may use. Belongs to that core, which runs it for one partition at a
/// time.
#[derive(Debug)]
pub struct Cleaner {
    map_bytes: usize,
    throttle: RefCell<Throttle>,
}

impl Cleaner {
    /// `map_bytes` of memory for the keys (`log.cleaner.dedupe.buffer.size`), and so many bytes per
    /// second, read and written (`log.cleaner.io.max.bytes.per.second`).
    pub fn new(map_bytes: usize, bytes_per_second: f64) -> Self {
        Cleaner {
            map_bytes,
            throttle: RefCell::new(Throttle::new(bytes_per_second)),
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleaned {
    /// Everything before it is compacted now.
    pub first_dirty: i64,
    /// Segments that were rewritten, and those that they became.
    pub segments: (usize, usize),
    /// Bytes of log that were read, for the map and to be rewritten.
    pub bytes_read: u64,
    /// Bytes of the segments before.
    pub bytes_before: u64,
    /// Bytes of log that were written.
    pub bytes_written: u64,
    /// Records, and what became of them.
    pub records: Counts,
    /// Keys in the map, and the memory that it took.
    pub keys: usize,
    /// See `keys`.
    pub map_bytes: usize,
    /// How long it took.
    pub took: Duration,
}

/// Why a log was not cleaned.
#[derive(Debug, Error)]
pub enum CleanError {
    /// The disk is full: later, maybe.
    #[error(transparent)]
    NoSpace(IoFailure),
    /// The disk does not give or take it. The partition is not cleaned any more.
    #[error(transparent)]
    Io(IoFailure),
    /// Something is not as it should be. The partition is not cleaned any more.
    #[error("{} at byte {position}: {what}", file.display())]
    Uncleanable {
        /// Where.
        file: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// Segments were deleted meanwhile: again, later.
    #[error("the log has changed meanwhile")]
    Changed,
    /// The partition was closed or removed, or has failed.
    #[error("the log is closed or has failed")]
    Closed,
}

impl From<IoFailure> for CleanError {
    fn from(failure: IoFailure) -> Self {
        match failure.is_no_space() {
            true => CleanError::NoSpace(failure),
            false => CleanError::Io(failure),
        }
    }
}

/// What a partition knows of its own cleaning.
#[derive(Debug, Default)]
pub(crate) struct Cleaning {
    pub(crate) checkpoint: CleanerCheckpoint,
    /// It goes on.
    pub(crate) is_running: bool,
    /// It has failed, and is not tried again before the next start.
    pub(crate) is_given_up: bool,
}

impl Cleaning {
    pub(crate) fn new(checkpoint: CleanerCheckpoint) -> Self {
        Cleaning {
            checkpoint,
            ..Cleaning::default()
        }
    }
}

/// Reads how far a log was compacted. Without the file, all of it is compacted again.
pub(crate) async fn read_checkpoint(dir: &Path) -> Result<CleanerCheckpoint, IoFailure> {
    let path = dir.join(names::CLEANER);
    let content = match fs::read(&path).await {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(CleanerCheckpoint::default());
        }
        Err(error) => return Err(IoFailure::of("read", &path)(error)),
    };
    let parsed = CleanerCheckpoint::parse(&content);
    if parsed.is_none() {
        tracing::warn!(path = %path.display(), "it is not sound: the log is compacted anew");
    }
    Ok(parsed.unwrap_or_default())
}

/// What the checkpoint says of a log whose active segment begins at `active` and that ends at `end`:
/// nothing of what is still to come. If it said more, it is written down again before anything can
/// be appended, which later starts would take for compacted.
pub(crate) async fn limit_checkpoint(
    dir: &Path,
    known: CleanerCheckpoint,
    (active, end): (i64, i64),
) -> Result<CleanerCheckpoint, IoFailure> {
    let limited = CleanerCheckpoint {
        first_dirty: known.first_dirty.min(end),
        cleaned_end: known.cleaned_end.min(active.saturating_add(1)),
    };
    if limited == known {
        return Ok(known);
    }
    match write_checkpoint(dir, limited).await {
        // a full disk must not keep the log from being read
        Err(failure) if failure.is_no_space() => {
            tracing::warn!(%failure, "the next start tries again")
        }
        written => written?,
    }
    Ok(limited)
}

/// Makes it durable.
pub(crate) async fn write_checkpoint(
    dir: &Path,
    checkpoint: CleanerCheckpoint,
) -> Result<(), IoFailure> {
    let path = dir.join(names::CLEANER);
    let written = fs::write_atomic(&path, vec![checkpoint.encode()]).await;
    written.map_err(IoFailure::of("write", &path))
}

impl State {
    /// The segments that may be cleaned, as far as the checkpoint allows: without the one that it
    /// names, the next start would not know where the log ends.
    fn sealed(&self) -> Vec<(Rc<Segment>, Sealed)> {
        let named = self.upkeep.point.segment;
        let sealed = self.segments.iter().filter_map(|(_, segment)| {
            let seal = segment.seal.get()?;
            let sealed = Sealed {
                base_offset: segment.base_offset,
                end_offset: seal.end_offset,
                bytes: seal.log_len,
                max_timestamp: seal.max_timestamp,
            };
            (seal.end_offset <= named).then(|| (segment.clone(), sealed))
        });
        sealed.collect()
    }

    fn first_dirty(&self) -> i64 {
        let first_dirty = self.cleaning.checkpoint.first_dirty;
        let end = self.active.segment.base_offset;
        if first_dirty > end {
            return self.log_start;
        }
        first_dirty.max(self.log_start)
    }
}

impl Inner {
    /// The timestamp of the first record that was never compacted.
    async fn oldest_dirty(&self, first_dirty: i64) -> Option<i64> {
        let segment = {
            let state = self.state.borrow();
            let (_, segment) = state.segments.predecessor(first_dirty as u64)?;
            segment.clone()
        };
        let file = self.log_file(&segment).await.ok()?;
        let header = file.read_at(0, HEADER_LEN).await.ok()?;
        let header = BatchHeader::parse(&header).ok()?;
        (!header.has_delete_horizon() && header.base_timestamp >= 0)
            .then_some(header.base_timestamp)
    }
}

/// A run that goes on.
struct Run<'a> {
    inner: &'a Rc<Inner>,
    cleaner: &'a Cleaner,
    now_ms: i64,
    config: CompactionConfig,
    done: Cleaned,
    /// By first offsets.
    aborted: Vec<AbortedTxn>,
    /// The same by their markers.
    by_marker: BTreeMap<i64, AbortedTxn>,
    /// Bytes since others had their turn.
    since: usize,
}

impl Run<'_> {
    /// So much was looked at, and so much read or written.
    async fn pace(&mut self, bytes: usize) -> Result<(), CleanError> {
        let until = self
            .cleaner
            .throttle
            .borrow_mut()
            .on_bytes(bytes as u64, now());
        self.since += bytes;
        if let Some(until) = until {
            self.since = 0;
            sleep_until(until).await;
        } else if self.since >= TURN_BYTES {
            self.since = 0;
            yield_now().await;
        }
        let state = self.inner.state.borrow();
        match state.phase == Phase::Open && state.failure.is_none() {
            true => Ok(()),
            false => Err(CleanError::Closed),
        }
    }

    fn record_error(&self, segment: &Segment, error: impl ToString) -> CleanError {
        CleanError::Uncleanable {
            file: self.inner.path(segment.base_offset, Kind::Log),
            position: 0,
            what: error.to_string(),
        }
    }

    /// Learns the keys of the part that was never compacted, as far as they fit.
    async fn build_map(
        &mut self,
        segments: &[Rc<Segment>],
        first_dirty: i64,
        end: i64,
    ) -> Result<OffsetMap, CleanError> {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&random_u64().to_ne_bytes());
        key[8..].copy_from_slice(&random_u64().to_ne_bytes());
        let entries = (end - first_dirty) as u64;
        let mut map = OffsetMap::new(self.cleaner.map_bytes, entries, first_dirty, key);
        let is_clean = |segment: &&Rc<Segment>| {
            let seal = segment.seal.get();
            seal.is_some_and(|seal| seal.end_offset <= first_dirty)
        };
        let mut dirty = segments.iter().skip_while(is_clean).peekable();
        // what ended before is not met here, and must not be taken for going on
        let start = dirty.peek().map_or(end, |segment| segment.base_offset);
        let mut aborted = self.aborted.clone();
        aborted.retain(|txn| txn.last_offset >= start);
        let mut txns = CleanedTxns::new(&aborted);
        for segment in dirty {
            let mut reader = Reader::open(self.inner, segment).await?;
            while let Some(batch) = reader.next().await? {
                let view = BatchView::parse(&batch).expect("it was checked");
                let put = map_batch(&mut map, &mut txns, &view, first_dirty)
                    .map_err(|error| self.record_error(segment, error))?;
                self.done.bytes_read += batch.len() as u64;
                if !put {
                    return Ok(map);
                }
                self.pace(batch.len()).await?;
            }
            map.reach(segment.seal.get().map_or(0, |seal| seal.end_offset));
        }
        Ok(map)
    }

    /// Writes a group of segments anew, as one.
    async fn rewrite(
        &mut self,
        group: &[Rc<Segment>],
        filter: &mut Filter<'_>,
    ) -> Result<(), CleanError> {
        let seals = group.iter().filter_map(|segment| segment.seal.get());
        let (bytes, end) = seals.fold((0, 0), |(bytes, _), seal| {
            (bytes + seal.log_len, seal.end_offset)
        });
        let base = group[0].base_offset;
        let shift = index::shift_for(bytes, (end - base) as u64);
        let mut output = Output::create(self.inner, (base, end), shift).await?;
        let written = match self.fill(group, filter, &mut output).await {
            Ok(()) => {
                let len = output.len();
                let finished = output.finish(self.inner).await;
                match finished {
                    Ok(new) => self.inner.swap(group, new).await.map(|()| len),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(len) => {
                self.done.bytes_before += bytes;
                self.done.bytes_written += len;
                self.done.segments.0 += group.len();
                self.done.segments.1 += 1;
                Ok(())
            }
            Err(error) => {
                discard(self.inner, base).await;
                Err(error)
            }
        }
    }

    async fn fill(
        &mut self,
        group: &[Rc<Segment>],
        filter: &mut Filter<'_>,
        output: &mut Output,
    ) -> Result<(), CleanError> {
        for segment in group {
            let mut reader = Reader::open(self.inner, segment).await?;
            while let Some(batch) = reader.next().await? {
                let view = BatchView::parse(&batch).expect("it was checked");
                let is_last = self.inner.state.borrow().producers.is_last(view.header());
                let kept = filter
                    .keep(&view, is_last)
                    .map_err(|error| self.record_error(segment, error))?;
                let before = output.len();
                match &kept {
                    Kept::Nothing => {}
                    Kept::Whole => output.push(&batch).await?,
                    Kept::Changed(new) => output.push(new).await?,
                }
                if kept != Kept::Nothing && is_marker(view.header()) {
                    self.keep_aborted(view.header(), output);
                }
                self.done.bytes_read += batch.len() as u64;
                let moved = batch.len() as u64 + output.len() - before;
                self.pace(moved as usize).await?;
            }
        }
        Ok(())
    }

    /// As long as a marker stays, it is known what it has ended: whoever has read records of the
    /// transaction before they went is still to be told.
    fn keep_aborted(&self, marker: &BatchHeader, output: &mut Output) {
        if let Some(txn) = self.by_marker.get(&marker.last_offset()) {
            output.push_aborted(*txn);
        }
    }

    /// The transactions that were aborted, up to the end of what is cleaned.
    async fn find_aborted(&self, end: i64) -> Result<Vec<AbortedTxn>, CleanError> {
        let found = self.inner.all_aborted(0, end).await;
        let mut found = found.map_err(|error| CleanError::Uncleanable {
            file: self.inner.dir.clone(),
            position: 0,
            what: error.to_string(),
        })?;
        if found.len() > ABORTED_MAX {
            return Err(CleanError::Uncleanable {
                file: self.inner.dir.clone(),
                position: 0,
                what: format!("{} transactions were aborted", found.len()),
            });
        }
        found.sort_unstable_by_key(|txn| txn.first_offset);
        Ok(found)
    }

    /// Writes down how far the log is compacted, or may be from now on.
    async fn checkpoint(&self, checkpoint: CleanerCheckpoint) -> Result<(), CleanError> {
        let inner = self.inner;
        let _meta = inner.lock_meta().await.map_err(|_| CleanError::Closed)?;
        let before = inner.state.borrow().cleaning.checkpoint;
        // a leader's compacted log may have come meanwhile
        let checkpoint = CleanerCheckpoint {
            cleaned_end: before.cleaned_end.max(checkpoint.cleaned_end),
            ..checkpoint
        };
        if before == checkpoint {
            return Ok(());
        }
        write_checkpoint(&inner.dir, checkpoint).await?;
        inner.state.borrow_mut().cleaning.checkpoint = checkpoint;
        Ok(())
    }

    async fn carry_out(&mut self) -> Result<Option<Cleaned>, CleanError> {
        let started = now();
        let (segments, sealed, first_dirty, found) = self.look();
        if found.dirty_bytes == 0 {
            return Ok(None);
        }
        let count = sealed.partition_point(|sealed| sealed.end_offset <= found.end);
        let segments = &segments[..count];
        self.check_damage(found.end)?;
        for segment in segments {
            if !segment.indexed.get() {
                // what is told of it by its index must be right
                let mended = self.inner.mend(segment, segment.mends.get()).await;
                mended.map_err(|error| self.record_error(segment, error))?;
            }
        }
        self.check_damage(found.end)?;
        self.aborted = self.find_aborted(found.end).await?;
        let by_marker = self.aborted.iter().map(|txn| (txn.last_offset, *txn));
        self.by_marker = by_marker.collect();
        let map = self.build_map(segments, first_dirty, found.end).await?;
        self.done.keys = map.len();
        self.done.map_bytes = map.memory();
        let count = sealed.partition_point(|sealed| sealed.base_offset < map.end());
        let (segments, sealed) = (&segments[..count.min(segments.len())], &sealed[..count]);
        let before = self.inner.state.borrow().cleaning.checkpoint;
        let reached = sealed.last().map_or(0, |sealed| sealed.end_offset);
        let may = CleanerCheckpoint {
            cleaned_end: before.cleaned_end.max(reached),
            ..before
        };
        self.checkpoint(may).await?;
        let aborted = self.aborted.clone();
        let horizon = Horizon {
            now_ms: self.now_ms,
            delete_retention_ms: self.config.delete_retention_ms,
        };
        let mut filter = Filter::new(&map, CleanedTxns::new(&aborted), horizon);
        let groups = clean_plan::groups(sealed, &self.inner.state.borrow().config);
        let mut rest = segments;
        for count in groups {
            let (group, after) = rest.split_at(count);
            self.rewrite(group, &mut filter).await?;
            rest = after;
        }
        self.done.first_dirty = map.end();
        self.done.records = filter.counts();
        let reached = CleanerCheckpoint {
            first_dirty: map.end(),
            ..may
        };
        self.checkpoint(reached).await?;
        self.done.took = now().saturating_duration_since(started);
        Ok(Some(self.done))
    }

    fn look(&self) -> (Vec<Rc<Segment>>, Vec<Sealed>, i64, Cleanable) {
        let state = self.inner.state.borrow();
        let (segments, sealed): (Vec<_>, Vec<_>) = state.sealed().into_iter().unzip();
        let first_dirty = state.first_dirty();
        let bound = state.last_stable();
        let dirty = (first_dirty, None);
        let now_ms = self.now_ms;
        let found = clean_plan::cleanable(&sealed, dirty, bound, &self.config, now_ms);
        (segments, sealed, first_dirty, found)
    }

    /// Nothing is cleaned in which something is known to be broken or lost.
    fn check_damage(&self, end: i64) -> Result<(), CleanError> {
        let state = self.inner.state.borrow();
        let damage = state.damages.iter().find(|d| d.offsets.start < end);
        match damage {
            None => Ok(()),
            Some(damage) => Err(CleanError::Uncleanable {
                file: damage.file.clone(),
                position: damage.bytes.start,
                what: damage.reason.to_string(),
            }),
        }
    }
}

impl Partition {
    /// How much of the log may be compacted now (`now_ms` is the wall clock); nothing if it is not to
    /// be compacted, or has been found unfit for it. No further than the last stable offset.
    pub async fn cleanable(&self, now_ms: i64) -> Option<Cleanable> {
        let inner = &self.inner;
        let (config, first_dirty) = {
            let state = inner.state.borrow();
            let config = state.config.compaction?;
            let is_open = state.phase == Phase::Open && state.failure.is_none();
            if !is_open || state.cleaning.is_running || state.cleaning.is_given_up {
                return None;
            }
            (config, state.first_dirty())
        };
        let oldest = match config.max_compaction_lag_ms {
            i64::MAX => None,
            _ => inner.oldest_dirty(first_dirty).await,
        };
        let state = inner.state.borrow();
        let sealed: Vec<_> = state.sealed().into_iter().map(|(_, s)| s).collect();
        let bound = state.last_stable();
        let dirty = (first_dirty, oldest);
        Some(clean_plan::cleanable(
            &sealed, dirty, bound, &config, now_ms,
        ))
    }

    /// How far the log was compacted.
    pub fn cleaner_checkpoint(&self) -> CleanerCheckpoint {
        self.inner.state.borrow().cleaning.checkpoint
    }

    /// Whether the cleaner has given the partition up until its next start.
    pub fn is_uncleanable(&self) -> bool {
        self.inner.state.borrow().cleaning.is_given_up
    }

    /// Compacts the log, whether or not it is due; nothing comes back if there was nothing to do.
    /// Reads and appends go on meanwhile.
    pub async fn clean(
        &self,
        cleaner: &Cleaner,
        now_ms: i64,
    ) -> Result<Option<Cleaned>, CleanError> {
        let inner = &self.inner;
        let config = {
            let mut state = inner.state.borrow_mut();
            let Some(config) = state.config.compaction else {
                return Ok(None);
            };
            if state.phase != Phase::Open || state.failure.is_some() {
                return Err(CleanError::Closed);
            }
            if state.cleaning.is_given_up || state.cleaning.is_running {
                return Ok(None);
            }
            state.cleaning.is_running = true;
            config
        };
        let mut run = Run {
            inner,
            cleaner,
            now_ms,
            config,
            done: Cleaned {
                first_dirty: 0,
                segments: (0, 0),
                bytes_read: 0,
                bytes_before: 0,
                bytes_written: 0,
                records: Counts::default(),
                keys: 0,
                map_bytes: 0,
                took: Duration::ZERO,
            },
            aborted: Vec::new(),
            by_marker: BTreeMap::new(),
            since: 0,
        };
        let running = Running(inner);
        let done = run.carry_out().await;
        drop(running);
        if let Err(CleanError::Io(failure)) = &done
            && failure.error.kind() == std::io::ErrorKind::NotFound
        {
            // a segment that was deleted before it was read is no fault
            return Err(CleanError::Changed);
        }
        if let Err(CleanError::Uncleanable { file, .. }) = &done {
            inner.look_into(file).await;
        }
        if let Err(error @ (CleanError::Io(_) | CleanError::Uncleanable { .. })) = &done {
            let dir = inner.dir.display();
            tracing::warn!(%dir, %error, "the log is not compacted any more until the next start");
            inner.state.borrow_mut().cleaning.is_given_up = true;
        }
        done
    }
}

/// A run is over, however it ends.
struct Running<'a>(&'a Rc<Inner>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().cleaning.is_running = false;
        // a truncation may wait for it
        self.0.changed.notify_all();
    }
}

/// A control batch that still has its record.
fn is_marker(header: &BatchHeader) -> bool {
    header.is_control() && header.records_count > 0
}
