//! The place of an offset in the log: where the batch begins that holds it, and what the segment
//! holds before it. For what ends in the middle of a log: the high watermark, a truncation.

use std::rc::Rc;

use crate::checkpoint::Mark;
use crate::error::ReadError;
use crate::names::Kind;
use crate::partition::{Extent, Inner};
use crate::segment::Segment;
use crate::time_index::MaxTimestamp;
use crate::walk::Walk;

impl Inner {
    /// The end of the log as it would be if it ended before the batch that holds `offset`; no
    /// further than what is written. Costs a lookup, and a walk over the headers since the last
    /// entry of the segment's time index.
    pub(crate) async fn mark_before(self: &Rc<Self>, offset: i64) -> Result<Mark, ReadError> {
        let (segment, extent) = {
            let state = self.state.borrow();
            let written = state.commit.written();
            if offset >= written.offset {
                return Ok(written);
            }
            let key = u64::try_from(offset).map_err(|_| state.out_of_range(offset))?;
            let found = state.segments.predecessor(key);
            let (_, segment) = found.ok_or_else(|| state.out_of_range(offset))?;
            (segment.clone(), state.extent(segment, written))
        };
        let position = match offset < extent.end_offset {
            true => {
                let located = self.locate(&segment, offset, extent, 0).await?;
                located.map_or(extent.bytes, |located| located.position)
            }
            false => extent.bytes,
        };
        let known = self.known_before(&segment, offset, extent).await?;
        let known = known.filter(|known| known.position <= position);
        let start = known.unwrap_or(Mark::start_of(segment.base_offset));
        self.mark_at(&segment, start, position).await
    }

    /// The end of the batch that the last entry of the time index before an offset tells of, if it
    /// bears the entry out. In a segment that was compacted, where the digest is needed, none.
    async fn known_before(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        offset: i64,
        extent: Extent,
    ) -> Result<Option<Mark>, ReadError> {
        if segment.compacted.get() {
            return Ok(None);
        }
        let entries = self.time_entries(segment, extent).await?;
        let before = entries.partition_point(|entry| entry.offset < offset);
        let Some(entry) = before.checked_sub(1).map(|last| entries[last]) else {
            return Ok(None);
        };
        let located = self.locate(segment, entry.offset, extent, 0).await?;
        let told = (entry.offset, entry.timestamp);
        let found = located.filter(|l| (l.header.last_offset(), l.header.max_timestamp) == told);
        Ok(found.map(|located| Mark {
            segment: segment.base_offset,
            position: located.position + located.header.size() as u64,
            offset: entry.offset + 1,
            max: MaxTimestamp {
                timestamp: entry.timestamp,
                offset: entry.offset,
            },
            digest: None,
        }))
    }

    /// Goes from a place in a segment to another, both between batches.
    async fn mark_at(
        &self,
        segment: &Rc<Segment>,
        start: Mark,
        position: u64,
    ) -> Result<Mark, ReadError> {
        let file = self.log_file(segment).await?;
        let path = self.path(segment.base_offset, Kind::Log);
        let mut walk = Walk::new(file, path, start.position..position);
        let mut mark = start;
        while let Some((_, header)) = walk.next().await? {
            if header.base_offset < mark.offset {
                break;
            }
            mark = mark.after(&header);
        }
        if mark.position == position {
            return Ok(mark);
        }
        let extent = Extent {
            bytes: position,
            end_offset: mark.offset,
        };
        Err(self.lost(segment, mark.offset, extent).into())
    }
}
