//! Reads from files. What is to be handed out is checked before: that batches follow each other
//! without a gap in their offsets (in a compacted segment, that offsets go up), and the CRC of
//! each. A disk that has changed a bit is found
//! out here and not by a consumer; the damage gets into the partition's list, and what is whole
//! before and behind it is served.
//!
//! A small answer is read once and checked in memory. A large one goes from the page cache to
//! the socket without passing through this process; it is read piece by piece to be checked, and
//! the pieces are let go.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmill_ring::File;
use ringmill_wire::batch::HEADER_LEN;

use crate::checkpoint::Mark;
use crate::error::{Damage, ReadError};
use crate::names::Kind;
use crate::partition::{Extent, Inner, State};
use crate::read::{COPY_BYTES_MAX, FetchData, FetchSlice, Located, Reach};
use crate::scan::{ScanEnd, ScanError, Scanned, Scanner};
use crate::segment::Segment;

/// Bytes of a large answer that are checked at a time.
const CHECK_BYTES: usize = 128 << 10;

/// What a reader asks for.
#[derive(Clone, Copy)]
struct Wanted {
    offset: i64,
    max_bytes: usize,
    /// A batch begins here, and nothing from it on is wanted.
    limit: i64,
}

/// A part of a segment's log, from a batch on, that may be handed out if it is whole.
struct Part {
    file: File,
    start: u64,
    base_offset: i64,
    /// What is wanted of it.
    len: usize,
    /// No batch from this offset on is wanted.
    limit: i64,
    /// The log can be read up to here, and the next offset there.
    end: (u64, i64),
    /// The segment was compacted: there may be gaps.
    compacted: bool,
}

/// What became of a read from one segment.
enum Found {
    Slice(FetchSlice),
    /// What is there is not whole.
    Broken,
    /// Everything from the offset on was compacted away.
    Nothing,
}

/// What a check has found: the bytes from the start on that are whole batches, and these bytes
/// themselves if they are few.
struct Whole {
    len: usize,
    next_offset: i64,
    bytes: Option<Bytes>,
}

impl State {
    /// Where a segment's log can be read up to, from an offset on, and the offset there: not into
    /// a damaged part.
    fn readable(&self, segment: &Segment, offset: i64, extent: Extent) -> (u64, i64) {
        let here = |damage: &&Damage| {
            damage.offsets.start > offset
                && damage.offsets.start < extent.end_offset
                && damage.offsets.start >= segment.base_offset
                && damage.bytes.start < extent.bytes
        };
        let next = self
            .damages
            .iter()
            .filter(here)
            .map(|damage| (damage.bytes.start, damage.offsets.start))
            .min();
        next.unwrap_or((extent.bytes, extent.end_offset))
    }
}

impl Inner {
    /// A read that the hot tail has no answer to.
    pub(crate) async fn read_file(
        self: &Rc<Self>,
        reach: Reach,
        offset: i64,
        max_bytes: usize,
    ) -> Result<FetchSlice, ReadError> {
        self.undisturbed(async || {
            let (limit, end) = {
                let state = self.state.borrow();
                state.check_range(offset)?;
                state.end_of_reach(reach)
            };
            let mut from = offset;
            // one step for each segment of which nothing is left
            while from < limit {
                let wanted = Wanted {
                    offset: from,
                    max_bytes,
                    limit,
                };
                let (found, next) = self.read_from(wanted, end).await?;
                match found {
                    Some(slice) => return Ok(slice),
                    None => from = next,
                }
            }
            Ok(FetchSlice::empty(offset, limit.max(offset)))
        })
        .await
    }

    /// Reads from the segment of an offset; if nothing is left of it, from where to go on.
    async fn read_from(
        self: &Rc<Self>,
        wanted: Wanted,
        visible: Mark,
    ) -> Result<(Option<FetchSlice>, i64), ReadError> {
        let offset = wanted.offset;
        for _ in 0..2 {
            let (segment, extent) = {
                let state = self.state.borrow();
                if let Some(damage) = state.damage_at(offset) {
                    return Err(ReadError::Damaged(damage.clone()));
                }
                let found = state.segment_of(offset, visible);
                found.ok_or_else(|| state.out_of_range(offset))?
            };
            let mends = segment.mends.get();
            let mut done = self.read_segment(&segment, wanted, extent).await;
            if let Ok(Found::Broken) = done {
                // what is wrong, and how far, shows when the whole segment is looked at
                done = self.mend(&segment, mends).await.map(|()| Found::Broken);
            }
            // deleted or closed while it was looked for
            self.state.borrow().check_range(offset)?;
            match done? {
                Found::Slice(slice) => return Ok((Some(slice), offset)),
                Found::Nothing => return Ok((None, extent.end_offset)),
                Found::Broken => {}
            }
        }
        // It reads differently each time. That is no damage to be remembered.
        let state = self.state.borrow();
        let (segment, extent) = state
            .segment_of(offset, visible)
            .ok_or_else(|| state.out_of_range(offset))?;
        Err(ReadError::Damaged(self.lost(&segment, offset, extent)))
    }

    /// Reads from a segment that reaches beyond the offset; nothing if what is there is not whole.
    async fn read_segment(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        wanted: Wanted,
        extent: Extent,
    ) -> Result<Found, ReadError> {
        let want = wanted.max_bytes.saturating_add(HEADER_LEN);
        let located = self.locate(segment, wanted.offset, extent, want).await?;
        let Some(Located {
            position,
            header,
            bytes,
        }) = located
        else {
            return Ok(Found::Nothing);
        };
        let base_offset = header.base_offset;
        if base_offset >= wanted.limit {
            // the offset itself was compacted away
            return Ok(Found::Slice(FetchSlice::empty(
                wanted.offset,
                wanted.offset,
            )));
        }
        let end = self.state.borrow().readable(segment, base_offset, extent);
        let available = end.0.saturating_sub(position) as usize;
        if header.size() > available {
            return Ok(Found::Broken);
        }
        let part = Part {
            file: self.log_file(segment).await?,
            start: position,
            base_offset,
            len: wanted.max_bytes.clamp(header.size(), available),
            limit: wanted.limit,
            end,
            compacted: segment.compacted.get(),
        };
        let whole = part.check(bytes).await;
        let whole = whole.map_err(self.failed_to("read", segment.base_offset, Kind::Log))?;
        let Some(whole) = whole else {
            return Ok(Found::Broken);
        };
        Ok(Found::Slice(FetchSlice {
            base_offset,
            len: whole.len,
            next_offset: whole.next_offset,
            data: match whole.bytes {
                Some(bytes) => FetchData::Memory(vec![bytes]),
                None => FetchData::File {
                    file: part.file,
                    position,
                },
            },
        }))
    }
}

impl Part {
    /// Checks it; `known` is what was read of it already. Nothing is whole if the first batch is
    /// not, or if offsets do not follow each other: then no batch can be trusted, since the base
    /// offset lies outside of the CRC. The next batch's header is looked at for that reason.
    async fn check(&self, known: Bytes) -> std::io::Result<Option<Whole>> {
        let available = self.end.0 - self.start;
        let look = (self.len + HEADER_LEN).min(available as usize);
        let (mut len, mut next_offset) = (0, self.base_offset);
        let visit = |position: u64, batch: Scanned<'_>| {
            if let Scanned::Whole(header, _) = batch {
                let end = (position - self.start) as usize + header.size();
                if end <= self.len && header.base_offset < self.limit {
                    (len, next_offset) = (end, header.next_offset());
                }
            }
        };
        let scanner = Scanner::new(self.start, self.base_offset);
        let mut scanner = scanner.compacted(self.compacted);
        let mut bytes = None;
        if self.len <= COPY_BYTES_MAX {
            let read = match known.get(..look) {
                Some(_) => known,
                None => self.file.read_at(self.start, look).await?,
            };
            scanner.push(&read[..look.min(read.len())], visit);
            bytes = Some(read);
        } else {
            self.check_pieces(&mut scanner, look, visit).await?;
        }
        let end = scanner.finish();
        let bytes = bytes.map(|bytes| bytes.slice(..len));
        Ok((len > 0 && self.is_in_order(&end)).then_some(Whole {
            len,
            next_offset,
            bytes,
        }))
    }

    /// Reads so many bytes to check them, in pieces that stay in the processor's cache.
    async fn check_pieces(
        &self,
        scanner: &mut Scanner,
        look: usize,
        mut visit: impl FnMut(u64, Scanned<'_>),
    ) -> std::io::Result<()> {
        let mut piece = BytesMut::with_capacity(CHECK_BYTES);
        let mut done = 0;
        while done < look {
            piece.clear();
            let len = (look - done).min(CHECK_BYTES);
            let at = self.start + done as u64;
            let (read, back) = self.file.read_into(at, piece, len).await;
            piece = back;
            if read? == 0 || !scanner.push(&piece, &mut visit) {
                break;
            }
            done += piece.len();
        }
        Ok(())
    }

    fn is_in_order(&self, end: &ScanEnd) -> bool {
        let misplaced = matches!(end.error, Some(ScanError::Offset { .. }));
        let ends_right = match self.compacted {
            true => end.next_offset <= self.end.1,
            false => end.position < self.end.0 || end.next_offset == self.end.1,
        };
        !misplaced && ends_right
    }
}
