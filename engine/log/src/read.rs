//! Reading: from the hot tail if it reaches far enough back, else as a range of a segment's
//! file.
//!
//! From an offset to its place takes a fixed number of steps: the trie names the segment, one
//! read of two index cells names two places in its log, one read of what lies between them (or
//! its first part) is walked in memory to the batch. The index is believed only if the batch it
//! led to holds the offset; otherwise it is built anew. What is handed out is checked first
//! ([`cold`](crate::cold)).

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use ringmill_ring::File;
use ringmill_wire::batch::{BatchHeader, HEADER_LEN};

use crate::checkpoint::Mark;
use crate::error::{Damage, DamageReason, IoFailure, ReadError};
use crate::index::{self, Bracket, CELL_LEN, SPAN_MAX, Walk};
use crate::names::Kind;
use crate::partition::{Extent, Inner, Partition, Phase, State};
use crate::segment::Segment;

/// A read of so many bytes at most is answered with bytes; a larger one with a range of a file.
pub(crate) const COPY_BYTES_MAX: usize = 64 << 10;
/// Places that a lookup may visit when batches have grown larger than its one read: as many as
/// there are offsets in the widest stride, and one before them in a segment that was compacted.
const STEPS_MAX: usize = (1 << index::SHIFT_MAX) + 1;

/// Where the bytes of a read are.
#[derive(Debug, Clone)]
pub enum FetchData {
    /// Nothing after the offset is visible yet.
    Empty,
    /// In memory: whole batches.
    Memory(Vec<Bytes>),
    /// In a file: whole batches.
    File {
        /// Stays readable whatever becomes of the segment.
        file: File,
        /// Where the range begins.
        position: u64,
    },
}

/// What a read gives.
#[derive(Debug, Clone)]
pub struct FetchSlice {
    /// Offset of the first batch; not above the offset asked for, unless that one was compacted away.
    pub base_offset: i64,
    /// Bytes.
    pub len: usize,
    /// The offset after the last batch.
    pub next_offset: i64,
    /// The bytes.
    pub data: FetchData,
}

impl FetchSlice {
    /// Nothing from an offset on, up to another.
    pub(crate) fn empty(offset: i64, next_offset: i64) -> Self {
        FetchSlice {
            base_offset: offset,
            len: 0,
            next_offset,
            data: FetchData::Empty,
        }
    }
}

/// Up to where somebody reads. Not an offset: a truncation may come in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// What consumers may see.
    Visible,
    /// What is decided of it.
    Stable,
    /// What is written: for other replicas.
    Written,
}

/// A batch in a segment's log.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    /// What was read of the log from `position` on.
    pub(crate) bytes: Bytes,
}

/// What became of a lookup by an index.
enum Lookup {
    Found(Located),
    /// All of the segment from the offset on was compacted away.
    Past,
    /// The index led nowhere.
    Wrong,
}

impl State {
    pub(crate) fn check_range(&self, offset: i64) -> Result<(), ReadError> {
        if self.phase == Phase::Closed {
            return Err(ReadError::Closed);
        }
        let range = self.log_start..self.commit.appended().offset;
        if offset < range.start || offset > range.end {
            return Err(ReadError::OutOfRange { offset, range });
        }
        Ok(())
    }

    /// The damage that holds an offset.
    pub(crate) fn damage_at(&self, offset: i64) -> Option<&Damage> {
        self.damages
            .iter()
            .find(|damage| damage.offsets.contains(&offset))
    }

    /// Where a log goes on behind the last known damage in front of an offset; zero if there is none.
    /// What stands before is not even looked at: a broken header may claim to hold the offset.
    fn behind_damage(&self, path: &Path, offset: i64) -> u64 {
        let damages = self.damages.iter();
        let before = damages.filter(|damage| damage.offsets.end <= offset && damage.file == path);
        // where something unreachable should be is not known
        let placed = before.filter(|damage| !damage.bytes.is_empty());
        placed.map(|damage| damage.bytes.end).max().unwrap_or(0)
    }

    /// The segment of an offset that is before the visible end, and how far it may be read.
    pub(crate) fn segment_of(&self, offset: i64, visible: Mark) -> Option<(Rc<Segment>, Extent)> {
        let (_, segment) = self.segments.predecessor(u64::try_from(offset).ok()?)?;
        let extent = self.extent(segment, visible);
        (offset < extent.end_offset).then(|| (segment.clone(), extent))
    }
}

impl Inner {
    /// The batch that holds `offset`, in a segment that is known to reach so far; the one behind it
    /// if it was compacted away, or nothing if that is in another segment. Reads at least a header,
    /// and `want` bytes if they are few.
    pub(crate) async fn locate(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        offset: i64,
        extent: Extent,
        want: usize,
    ) -> Result<Option<Located>, ReadError> {
        for attempt in 0..2 {
            let mends = segment.mends.get();
            if segment.indexed.get() {
                match self.look_up(segment, offset, extent, want).await? {
                    Lookup::Found(located) => return Ok(Some(located)),
                    Lookup::Past => return Ok(None),
                    Lookup::Wrong => {}
                }
            }
            if attempt == 0 {
                self.mend(segment, mends).await?;
                if let Some(damage) = self.state.borrow().damage_at(offset) {
                    return Err(ReadError::Damaged(damage.clone()));
                }
            }
        }
        let lost = self.lost(segment, offset, extent);
        self.record(vec![lost.clone()]);
        Err(ReadError::Damaged(lost))
    }

    /// Not even an index made anew leads to the offset. Where it should be is not known; what
    /// stands before it can be read.
    pub(crate) fn lost(&self, segment: &Segment, offset: i64, extent: Extent) -> Damage {
        Damage {
            file: self.path(segment.base_offset, Kind::Log),
            bytes: extent.bytes..extent.bytes,
            offsets: offset..offset.saturating_add(1),
            reason: DamageReason::Unreachable,
        }
    }

    /// The two places in the log between which the batch begins.
    pub(crate) async fn bracket(
        &self,
        segment: &Segment,
        offset: i64,
    ) -> Result<Option<Bracket>, IoFailure> {
        let base = segment.base_offset;
        let cell = match segment.compacted.get() {
            true => index::compacted_cell_of(base, segment.shift.get(), offset),
            false => index::cell_of(base, segment.shift.get(), offset),
        };
        let Some(cell) = cell else {
            return Ok(None);
        };
        // the neighbour of the last cell in the file may be in memory
        let (neighbour, count) = {
            let state = self.state.borrow();
            match state.is_active(segment).then_some(&state.active.index) {
                Some(index) => {
                    if let Some(bracket) = index.bracket(cell) {
                        return Ok(Some(bracket));
                    }
                    let left = index.cells_in_file().saturating_sub(cell).min(2);
                    (index.first_pending(), left as usize)
                }
                None => (None, 2),
            }
        };
        let file = match self.open_file(base, Kind::Index).await {
            Ok(file) => file,
            Err(failure) if failure.error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let cells = file
            .read_at(index::cell_position(cell), count * CELL_LEN)
            .await;
        let cells = cells.map_err(self.failed_to("read", base, Kind::Index))?;
        Ok(Bracket::parse(&cells).map(|bracket| Bracket {
            high: if count < 2 { neighbour } else { bracket.high },
            ..bracket
        }))
    }

    /// Where a segment's log goes on behind the last known damage in front of an offset.
    fn behind_damage(&self, segment: &Segment, offset: i64) -> u64 {
        let state = self.state.borrow();
        if state.damages.is_empty() {
            return 0;
        }
        let path = self.path(segment.base_offset, Kind::Log);
        state.behind_damage(&path, offset)
    }

    async fn look_up(
        &self,
        segment: &Segment,
        offset: i64,
        extent: Extent,
        want: usize,
    ) -> Result<Lookup, ReadError> {
        let compacted = segment.compacted.get();
        if compacted && extent.bytes == 0 {
            return Ok(Lookup::Past);
        }
        let Some(bracket) = self.bracket(segment, offset).await? else {
            return Ok(Lookup::Wrong);
        };
        let last = bracket
            .high
            .map_or(extent.bytes, u64::from)
            .min(extent.bytes);
        let mut due = None;
        let behind = self.behind_damage(segment, offset);
        let mut position = u64::from(bracket.low).max(behind);
        let file = self.log_file(segment).await?;
        let mut len = (last.saturating_sub(position) + HEADER_LEN as u64).min(SPAN_MAX) as usize;
        for _ in 0..STEPS_MAX {
            if compacted && position == extent.bytes && due.is_some() {
                return Ok(Lookup::Past);
            }
            // in a gap, the batch stands behind the one that the next cell names
            if position > last && !compacted || position >= extent.bytes {
                return Ok(Lookup::Wrong);
            }
            let left = (extent.bytes - position).min(usize::MAX as u64) as usize;
            // a small answer comes with the same read
            let answer = want.min(left);
            let len_here = if answer <= COPY_BYTES_MAX + HEADER_LEN {
                len.max(answer)
            } else {
                len
            }
            .min(left);
            let read = file.read_at(position, len_here).await;
            let bytes = read.map_err(self.failed_to("read", segment.base_offset, Kind::Log))?;
            let walk = match compacted {
                true => index::find_batch_or_next(&bytes, position, offset, &mut due),
                false => index::find_batch(&bytes, position, offset),
            };
            match walk {
                Walk::Found {
                    position: found,
                    header,
                } => {
                    return Ok(Lookup::Found(Located {
                        position: found,
                        header,
                        bytes: bytes.slice((found - position) as usize..),
                    }));
                }
                Walk::Further { position: next } if next > position => position = next,
                Walk::Further { .. } | Walk::Broken { .. } | Walk::Beyond => {
                    return Ok(Lookup::Wrong);
                }
            }
            len = HEADER_LEN;
        }
        Ok(Lookup::Wrong)
    }

    /// A segment's log for reading.
    pub(crate) async fn log_file(&self, segment: &Segment) -> Result<File, IoFailure> {
        {
            let state = self.state.borrow();
            let active = state.is_active(segment).then_some(&state.active.file);
            if let Some(Some(file)) = active {
                return Ok(file.clone());
            }
        }
        self.open_file(segment.base_offset, Kind::Log).await
    }
}

impl State {
    /// Where a read ends: a batch begins there, or the log ends; and how far files may be read.
    pub(crate) fn end_of_reach(&self, reach: Reach) -> (i64, Mark) {
        match reach {
            Reach::Visible => (self.visible_end(), self.commit.visible()),
            Reach::Stable => (self.last_stable(), self.commit.visible()),
            Reach::Written => (self.commit.written().offset, self.commit.written()),
        }
    }

    /// What can be answered without a look into a file.
    fn read_tail(
        &self,
        reach: Reach,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Option<FetchSlice>, ReadError> {
        self.check_range(offset)?;
        let (limit, _) = self.end_of_reach(reach);
        if offset >= limit {
            return Ok(Some(FetchSlice::empty(offset, offset)));
        }
        // the tail may hold what was compacted away since
        if offset < self.cleaning.checkpoint.cleaned_end {
            return Ok(None);
        }
        let slice = self.tail.borrow().read(offset, max_bytes, limit);
        Ok(slice.map(|slice| FetchSlice {
            base_offset: slice.base_offset,
            len: slice.len,
            next_offset: slice.next_offset,
            data: FetchData::Memory(slice.bytes),
        }))
    }

    pub(crate) fn out_of_range(&self, offset: i64) -> ReadError {
        ReadError::OutOfRange {
            offset,
            range: self.log_start..self.commit.appended().offset,
        }
    }
}

impl Partition {
    /// Reads from the batch that holds `offset`, up to `max_bytes` and not beyond the visible
    /// end; at least the whole first batch, however large. Empty at the visible end itself, and
    /// where everything up to there was compacted away.
    pub async fn read(&self, offset: i64, max_bytes: usize) -> Result<FetchSlice, ReadError> {
        self.read_to(Reach::Visible, offset, max_bytes).await
    }

    /// The same, as far as `reach` says.
    pub(crate) async fn read_to(
        &self,
        reach: Reach,
        offset: i64,
        max_bytes: usize,
    ) -> Result<FetchSlice, ReadError> {
        if let Some(slice) = self
            .inner
            .state
            .borrow()
            .read_tail(reach, offset, max_bytes)?
        {
            return Ok(slice);
        }
        self.inner.read_file(reach, offset, max_bytes).await
    }

    /// Waits until something from `offset` on is visible. Fails once the partition has failed or
    /// closed: nothing more will be.
    pub async fn visible_beyond(&self, offset: i64) -> Result<i64, ReadError> {
        loop {
            let rung = self.inner.changed.notified();
            {
                let state = self.inner.state.borrow();
                let visible = state.visible_end();
                if visible > offset {
                    return Ok(visible);
                }
                if let Some(failure) = &state.failure {
                    return Err(ReadError::Io(failure.clone()));
                }
                if state.phase == Phase::Closed {
                    return Err(ReadError::Closed);
                }
            }
            rung.await;
        }
    }
}
