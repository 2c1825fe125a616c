//! From a timestamp to an offset (ListOffsets): the time index says from where on to look, the
//! batch headers say in which batch, and only that batch's records are decoded.

use std::cmp::Ordering;
use std::rc::Rc;

use bytes::Bytes;
use ringmill_wire::batch::{BatchHeader, BatchView};
use ringmill_wire::record::{Records, decoded};

use crate::checkpoint::Mark;
use crate::error::{IoFailure, ReadError};
use crate::mend::time_of;
use crate::names::Kind;
use crate::partition::{Extent, Inner, Partition, State};
use crate::segment::Segment;
use crate::time_index::{self, ENTRY_LEN, MaxTimestamp, TimeEntry};
use crate::walk::Walk;

/// A batch that decompresses to more than this is answered with its first offset instead of the
/// record's.
const DECODED_BYTES_MAX: usize = 128 << 20;

/// A record that was found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Milliseconds.
    pub timestamp: i64,
    /// The record's offset.
    pub offset: i64,
    /// The epoch of the leader that appended it, −1 if unknown.
    pub leader_epoch: i32,
}

/// What to look for in a batch.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// The first record with at least this timestamp.
    timestamp: i64,
    /// And at least this offset.
    offset: i64,
}

/// An entry of a time index is not what the log says.
struct Misled;

impl Target {
    fn may_be_in(&self, header: &BatchHeader) -> bool {
        time_of(header) >= self.timestamp && header.last_offset() >= self.offset
    }

    /// The record within the batch. Records that cannot be read count as the batch's first.
    fn find_in(&self, view: &BatchView<'_>) -> Option<TimestampOffset> {
        let header = view.header();
        let found = |timestamp, offset| TimestampOffset {
            timestamp,
            offset,
            leader_epoch: header.partition_leader_epoch,
        };
        let Ok(bytes) = decoded(view, DECODED_BYTES_MAX) else {
            return Some(found(
                header.max_timestamp,
                header.base_offset.max(self.offset),
            ));
        };
        let mut records = Records::new(header, &bytes).map_while(Result::ok);
        let record = records.find(|r| r.timestamp >= self.timestamp && r.offset >= self.offset)?;
        Some(found(record.timestamp, record.offset))
    }
}

impl State {
    /// How far a segment reaches in a log that ends at `end`, in whichever segment.
    fn extent_before(&self, segment: &Segment, end: Mark) -> Extent {
        match segment.base_offset.cmp(&end.segment) {
            Ordering::Less => self.extent(segment, end),
            Ordering::Equal => Extent {
                bytes: end.position,
                end_offset: end.offset,
            },
            Ordering::Greater => Extent {
                bytes: 0,
                end_offset: segment.base_offset,
            },
        }
    }
}

impl Inner {
    /// The end of what consumers may see.
    async fn visible_mark(self: &Rc<Self>) -> Result<Mark, ReadError> {
        let (here, end) = {
            let state = self.state.borrow();
            (state.commit.visible(), state.visible_end())
        };
        match end < here.offset {
            true => self.mark_before(end).await,
            false => Ok(here),
        }
    }

    /// The segment's largest timestamp. Builds its index anew if it is not known.
    async fn max_of(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        visible: Mark,
    ) -> Result<MaxTimestamp, ReadError> {
        if !segment.indexed.get() {
            self.mend(segment, segment.mends.get()).await?;
        }
        if segment.base_offset >= visible.segment {
            let holds_end = segment.base_offset == visible.segment;
            return Ok(if holds_end {
                visible.max
            } else {
                MaxTimestamp::NONE
            });
        }
        Ok(match segment.seal.get() {
            Some(seal) => MaxTimestamp {
                timestamp: seal.max_timestamp,
                offset: seal.max_timestamp_offset,
            },
            None => MaxTimestamp::NONE,
        })
    }

    fn all_segments(&self) -> Vec<Rc<Segment>> {
        self.state
            .borrow()
            .segments
            .iter()
            .map(|(_, segment)| segment.clone())
            .collect()
    }

    pub(crate) async fn time_entries(
        &self,
        segment: &Segment,
        extent: Extent,
    ) -> Result<Vec<TimeEntry>, IoFailure> {
        let base = segment.base_offset;
        let (in_file, pending) = {
            let state = self.state.borrow();
            match segment.seal.get() {
                Some(seal) => (seal.time_entries, Vec::new()),
                None => {
                    let times = &state.active.times;
                    let pending = times.pending().to_vec();
                    (times.entries() - pending.len() as u32, pending)
                }
            }
        };
        let mut bytes = Bytes::new();
        if in_file > 0 {
            bytes = match self.open_file(base, Kind::TimeIndex).await {
                Ok(file) => {
                    // the file may have fewer than the seal claims
                    let path = self.path(base, Kind::TimeIndex);
                    let len = file.len().await.map_err(IoFailure::of("look at", &path))?;
                    let len = len.min(u64::from(in_file) * ENTRY_LEN as u64);
                    let read = file.read_at(0, len as usize).await;
                    read.map_err(IoFailure::of("read", &path))?
                }
                // without entries the search begins at the segment's start
                Err(failure) if failure.error.kind() == std::io::ErrorKind::NotFound => bytes,
                Err(failure) => return Err(failure),
            };
        }
        let mut entries = time_index::parse(&bytes, base, extent.end_offset);
        if entries.len() == in_file as usize {
            entries.extend(pending);
        }
        Ok(entries)
    }

    /// Looks for a record in one segment.
    async fn find_in_segment(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        target: Target,
        visible: Mark,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        if self.max_of(segment, visible).await?.timestamp < target.timestamp {
            return Ok(None);
        }
        let extent = self.state.borrow().extent_before(segment, visible);
        let from = target.offset.max(segment.base_offset);
        if from >= extent.end_offset {
            return Ok(None);
        }
        let entries = self.time_entries(segment, extent).await?;
        let entry = time_index::entry_before(&entries, target.timestamp);
        let mut found = Err(Misled);
        if let Some(entry) = entry.filter(|entry| entry.offset > from) {
            found = self.search(segment, target, extent, Some(entry)).await?;
        }
        if found.is_err() {
            found = self.search(segment, target, extent, None).await?;
        }
        Ok(found.unwrap_or(None))
    }

    /// Goes over a segment from an entry of its time index or from its beginning; `Misled` if the
    /// log does not bear the entry out. Ends with an error at what is damaged: a record that is
    /// younger may be there.
    async fn search(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        target: Target,
        extent: Extent,
        entry: Option<TimeEntry>,
    ) -> Result<Result<Option<TimestampOffset>, Misled>, ReadError> {
        let mends = segment.mends.get();
        let start = target.offset.max(segment.base_offset);
        let mut due = entry.map_or(start, |entry| entry.offset);
        let Some(mut walk) = self.walk(segment, due, extent).await? else {
            return Ok(Ok(None));
        };
        let (compacted, mut is_whole) = (segment.compacted.get(), true);
        let mut first = entry;
        while let Some((position, header)) = walk.next().await? {
            if let Some(entry) = first.take() {
                let told = (entry.offset, entry.timestamp);
                if (header.last_offset(), header.max_timestamp) != told {
                    self.mend(segment, mends).await?;
                    return Ok(Err(Misled));
                }
            } else if header.base_offset > due && !compacted {
                break;
            }
            due = header.next_offset();
            if !target.may_be_in(&header) {
                continue;
            }
            let batch = walk.batch(position, &header).await?;
            let Some(view) = whole(&batch) else {
                due = header.base_offset.max(start);
                is_whole = false;
                break;
            };
            if let Some(found) = target.find_in(&view) {
                return Ok(Ok(Some(found)));
            }
        }
        if due >= extent.end_offset || compacted && is_whole && walk.is_at_end() {
            return Ok(Ok(None));
        }
        // something is in the way
        if self.state.borrow().damage_at(due).is_none() {
            self.mend(segment, mends).await?;
        }
        let known = self.state.borrow().damage_at(due).cloned();
        Err(ReadError::Damaged(
            known.unwrap_or_else(|| self.lost(segment, due, extent)),
        ))
    }

    /// The first record with the largest timestamp from `offset` on, in the segment that holds
    /// the offset: its own largest may belong to records that are deleted.
    async fn max_after(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        offset: i64,
        visible: Mark,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let extent = self.state.borrow().extent_before(segment, visible);
        let Some(mut walk) = self.walk(segment, offset, extent).await? else {
            return Ok(None);
        };
        let Some((position, header)) = walk.next().await? else {
            return Ok(None);
        };
        let batch = walk.batch(position, &header).await?;
        let max = whole(&batch).and_then(|view| max_in(&view, offset));
        let mut timestamp = max.map_or(-1, |max| max.timestamp);
        let mut later = None;
        while let Some((position, header)) = walk.next().await? {
            if time_of(&header) > timestamp {
                timestamp = header.max_timestamp;
                later = Some((position, header));
            }
        }
        let Some((position, header)) = later else {
            return Ok(max);
        };
        let batch = walk.batch(position, &header).await?;
        Ok(whole(&batch).and_then(|view| max_in(&view, offset)))
    }

    /// From the batch of an offset on; nothing if all of the segment from there on was compacted
    /// away.
    async fn walk(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        offset: i64,
        extent: Extent,
    ) -> Result<Option<Walk>, ReadError> {
        let Some(located) = self.locate(segment, offset, extent, 0).await? else {
            return Ok(None);
        };
        let file = self.log_file(segment).await?;
        let path = self.path(segment.base_offset, Kind::Log);
        Ok(Some(Walk::new(file, path, located.position..extent.bytes)))
    }
}

/// A batch that is as it was written.
fn whole(batch: &Bytes) -> Option<BatchView<'_>> {
    let view = BatchView::parse(batch).ok()?;
    view.check_crc().is_ok().then_some(view)
}

/// The first record with the largest timestamp among those from `offset` on.
fn max_in(view: &BatchView<'_>, offset: i64) -> Option<TimestampOffset> {
    let header = view.header();
    let found = |timestamp, offset| TimestampOffset {
        timestamp,
        offset,
        leader_epoch: header.partition_leader_epoch,
    };
    let Ok(bytes) = decoded(view, DECODED_BYTES_MAX) else {
        return Some(found(header.max_timestamp, header.base_offset.max(offset)));
    };
    let records = Records::new(header, &bytes).map_while(Result::ok);
    let records = records.filter(|record| record.offset >= offset);
    // of equal ones the first
    let max = records.reduce(|max, next| {
        if next.timestamp > max.timestamp {
            next
        } else {
            max
        }
    })?;
    Some(found(max.timestamp, max.offset))
}

impl Partition {
    /// The first visible record whose timestamp is not below `timestamp` (milliseconds).
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let inner = &self.inner;
        inner
            .undisturbed(async || inner.find_by_time(timestamp).await)
            .await
    }

    /// The first visible record that has the largest timestamp of all (KIP-734).
    pub async fn offset_of_max_timestamp(&self) -> Result<Option<TimestampOffset>, ReadError> {
        let inner = &self.inner;
        inner
            .undisturbed(async || inner.find_max_time().await)
            .await
    }
}

impl Inner {
    async fn find_by_time(
        self: &Rc<Self>,
        timestamp: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let inner = self;
        let visible = inner.visible_mark().await?;
        let log_start = inner.state.borrow().log_start;
        let target = Target {
            timestamp,
            offset: log_start,
        };
        for segment in inner.all_segments() {
            if inner
                .state
                .borrow()
                .extent_before(&segment, visible)
                .end_offset
                <= log_start
            {
                continue;
            }
            match inner.find_in_segment(&segment, target, visible).await {
                Ok(None) => {}
                // deleted while it was looked into
                Err(_) if !inner.has(&segment) => {}
                found => return found,
            }
        }
        Ok(None)
    }

    async fn find_max_time(self: &Rc<Self>) -> Result<Option<TimestampOffset>, ReadError> {
        let inner = self;
        let visible = inner.visible_mark().await?;
        let log_start = inner.state.borrow().log_start;
        let mut max: Option<(i64, Rc<Segment>)> = None;
        let mut first = None;
        for segment in inner.all_segments() {
            let extent = inner.state.borrow().extent_before(&segment, visible);
            if extent.end_offset <= log_start {
                continue;
            }
            let largest = if segment.base_offset < log_start {
                let found = inner.max_after(&segment, log_start, visible).await;
                found.map(|found| {
                    first = found;
                    found.map_or(-1, |found| found.timestamp)
                })
            } else {
                let max = inner.max_of(&segment, visible).await;
                max.map(|max| max.timestamp)
            };
            let timestamp = match largest {
                // deleted while it was looked into
                Err(_) if !inner.has(&segment) => continue,
                largest => largest?,
            };
            if timestamp >= 0 && max.as_ref().is_none_or(|(max, _)| timestamp > *max) {
                max = Some((timestamp, segment));
            }
        }
        let Some((timestamp, segment)) = max else {
            return Ok(None);
        };
        if segment.base_offset < log_start {
            return Ok(first);
        }
        let target = Target {
            timestamp,
            offset: log_start,
        };
        inner.find_in_segment(&segment, target, visible).await
    }
}
