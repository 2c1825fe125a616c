//! The offset index of one segment: from an offset to a file position in one read of eight bytes.
//!
//! The file is a header and a flat array of cells. Cell `i` holds the position of the first batch
//! whose last offset is not below `base + i * stride`, so that the batch of any offset begins
//! between the positions in cell `offset / stride` and in the cell after it: arithmetic instead
//! of a search. The stride is a power of two, chosen by [`shift_for`] from the size of the
//! records, so that what lies between two neighbours is small enough for one read of the log
//! ([`SPAN_MAX`]); [`find_batch`] then walks it in memory.
//!
//! In a segment that was compacted offsets are missing. Cell `i` then holds the position of the last
//! batch whose base offset is not above `base + i * stride`, or of the first batch; where no offset
//! is missing, that is the same one. The walk from there meets the batch of the offset or the first
//! one behind it, and has seen that nothing stands between.
//!
//! The index is derived from the log and is never trusted: whoever uses it checks that the batch
//! it led to holds the offset, and rebuilds it if not. The header doubles as the *seal* of a
//! segment that is complete ([`Seal`]). Byte by byte: FORMAT.md. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::batch::{self, BatchError, BatchHeader};

use crate::scan::follows;

/// Bytes before the first cell.
pub const HEADER_LEN: usize = 64;
/// Bytes of a cell.
pub const CELL_LEN: usize = 4;
/// Two neighbouring cells should lead to places in the log no further apart than this; a log
/// whose records have grown too large for the stride gets a new segment with a finer one.
pub const SPAN_MAX: u64 = 1 << 20;
/// What the choice of a stride aims at.
const SPAN_TARGET: u64 = 64 << 10;
/// The widest stride is 64 offsets.
pub const SHIFT_MAX: u8 = 6;
/// Stride of 16 for a log that has seen no records yet.
pub const SHIFT_DEFAULT: u8 = 4;

const MAGIC: &[u8; 4] = b"RMIX";
const VERSION: u16 = 1;
const SEALED: u8 = 1;
const COMPACTED: u8 = 2;
const CRC_AT: usize = 60;

/// What is known of a segment for good once nothing more is appended to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Bytes of the log file.
    pub log_len: u64,
    /// The offset after the last one.
    pub end_offset: i64,
    /// Largest timestamp of all batches; −1 if there is none.
    pub max_timestamp: i64,
    /// Last offset of the first batch that has it.
    pub max_timestamp_offset: i64,
    /// Entries of the time index.
    pub time_entries: u32,
    /// Entries of the index of aborted transactions.
    pub aborted_entries: u32,
    /// Of a segment that was compacted: the digest of its batches' offsets ([`OffsetsDigest`]).
    pub compacted: Option<u32>,
}

/// A CRC-32C over the base offsets of a segment's batches. They lie outside of the batches' own
/// CRCs; where each follows the one before, that tells enough, but in a segment with gaps it does
/// not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OffsetsDigest(u32);

impl OffsetsDigest {
    /// After one more batch.
    pub fn on_batch(&mut self, base_offset: i64) {
        self.0 = crc32c::crc32c_append(self.0, &base_offset.to_be_bytes());
    }

    /// One that goes on.
    pub fn of(digest: u32) -> Self {
        OffsetsDigest(digest)
    }

    /// The digest.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// The header of an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexHeader {
    /// As in the file's name.
    pub base_offset: i64,
    /// The stride is `1 << shift` offsets.
    pub shift: u8,
    /// Present once the segment is sealed.
    pub seal: Option<Seal>,
}

impl IndexHeader {
    /// The file's first [`HEADER_LEN`] bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_LEN);
        out.put_slice(MAGIC);
        out.put_u16(VERSION);
        out.put_u8(self.shift);
        let compacted = self.seal.and_then(|seal| seal.compacted);
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        out.put_u8(flag(self.seal.is_some(), SEALED) | flag(compacted.is_some(), COMPACTED));
        out.put_i64(self.base_offset);
        if let Some(seal) = self.seal {
            out.put_u64(seal.log_len);
            out.put_i64(seal.end_offset);
            out.put_i64(seal.max_timestamp);
            out.put_i64(seal.max_timestamp_offset);
            out.put_u32(seal.time_entries);
            out.put_u32(seal.aborted_entries);
            out.put_u32(seal.compacted.unwrap_or(0));
        }
        out.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out.freeze()
    }

    /// Reads a header; `None` if it is not one of a file for `base_offset`, for whatever reason:
    /// the index is then built anew.
    pub fn parse(bytes: &[u8], base_offset: i64) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let (content, crc) = header.split_at(CRC_AT);
        let at = |range: std::ops::Range<usize>| content[range].try_into().ok();
        let i64_at = |start: usize| at(start..start + 8).map(i64::from_be_bytes);
        let sound = crc == crc32c::crc32c(content).to_be_bytes()
            && content[..4] == *MAGIC
            && content[4..6] == VERSION.to_be_bytes()
            && content[6] <= SHIFT_MAX
            && i64_at(8)? == base_offset;
        if !sound {
            return None;
        }
        let seal = if content[7] & SEALED == 0 {
            None
        } else {
            Some(Seal {
                log_len: u64::try_from(i64_at(16)?).ok()?,
                end_offset: i64_at(24)?,
                max_timestamp: i64_at(32)?,
                max_timestamp_offset: i64_at(40)?,
                time_entries: u32::from_be_bytes(content[48..52].try_into().ok()?),
                aborted_entries: u32::from_be_bytes(content[52..56].try_into().ok()?),
                compacted: (content[7] & COMPACTED != 0)
                    .then_some(u32::from_be_bytes(content[56..60].try_into().ok()?)),
            })
        };
        Some(IndexHeader {
            base_offset,
            shift: content[6],
            seal,
        })
    }
}

/// The stride's exponent for records that take `bytes` for `offsets` of them.
pub fn shift_for(bytes: u64, offsets: u64) -> u8 {
    match bytes.checked_div(offsets) {
        None => SHIFT_DEFAULT,
        Some(each) => ((SPAN_TARGET / each.max(1)).max(1).ilog2() as u8).min(SHIFT_MAX),
    }
}

/// Where a cell stands in the index file.
pub fn cell_position(cell: u32) -> u64 {
    HEADER_LEN as u64 + u64::from(cell) * CELL_LEN as u64
}

/// The cell to look into for an offset; `None` if no segment reaches so far.
pub fn cell_of(base_offset: i64, shift: u8, offset: i64) -> Option<u32> {
    let relative = offset.checked_sub(base_offset)?;
    u32::try_from(relative >> shift).ok()
}

/// The same in a segment that was compacted: of the cells that its end has, maybe, the last one
/// stands for all offsets behind it.
pub fn compacted_cell_of(base_offset: i64, shift: u8, offset: i64) -> Option<u32> {
    cell_of(base_offset, shift, offset).map(|cell| cell.min(END_CELLS_MAX - 1))
}

/// How many cells belong to a segment that ends before `end_offset`.
pub fn cells_until(base_offset: i64, shift: u8, end_offset: i64) -> u32 {
    if end_offset <= base_offset {
        return 0;
    }
    cell_of(base_offset, shift, end_offset - 1).map_or(u32::MAX, |cell| cell.saturating_add(1))
}

/// Where in the log the batch of an offset begins: not before `low`, not after `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bracket {
    /// A batch begins here.
    pub low: u32,
    /// A batch begins here; `None` if the index ends, and with it the segment.
    pub high: Option<u32>,
}

impl Bracket {
    /// From the bytes of a cell and of its neighbour, as far as the file has them. `None` if they
    /// cannot be right.
    pub fn parse(cells: &[u8]) -> Option<Self> {
        let (low, rest) = cells.split_first_chunk::<CELL_LEN>()?;
        let low = u32::from_be_bytes(*low).checked_sub(1)?;
        let high = rest
            .first_chunk::<CELL_LEN>()
            .map(|c| u32::from_be_bytes(*c));
        // an unwritten cell is zero
        let high = high.and_then(|stored| stored.checked_sub(1));
        high.is_none_or(|high| low <= high)
            .then_some(Bracket { low, high })
    }
}

/// Makes the cells of a segment as its batches are written, and keeps those that are not in the
/// index file yet.
#[derive(Debug)]
pub struct IndexBuilder {
    base_offset: i64,
    shift: u8,
    /// The number of the first cell in `pending`.
    first: u32,
    /// Cells as stored: a position plus one.
    pending: Vec<u32>,
    /// Where the last batch begins.
    previous: u32,
    /// Where the batch begins that made the last cell, and how many batches came after it.
    last_position: u32,
    batches_since: u32,
    misfit: bool,
}

/// Cells of one segment, at most: many times what appends make before they roll, and a bound on
/// what a file costs whose batches lie about their offsets.
const CELLS_MAX: u32 = 1 << 24;
/// An index takes so many bytes at most before its segment ends (Kafka's `segment.index.bytes`); a log
/// of very many very small records rolls before its segments are full.
pub(crate) const INDEX_BYTES_MAX: u64 = 10 << 20;
/// Cells that are made for what is missing at the end of a compacted segment reach up to here. No more
/// batches begin behind them; the last one stands for all offsets from there on.
const END_CELLS_MAX: u32 = ((INDEX_BYTES_MAX - HEADER_LEN as u64) / CELL_LEN as u64) as u32;

impl IndexBuilder {
    /// For a segment whose first `cells` cells are in the file.
    pub fn new(base_offset: i64, shift: u8, cells: u32) -> Self {
        assert!(shift <= SHIFT_MAX);
        IndexBuilder {
            base_offset,
            shift,
            first: cells,
            pending: Vec::new(),
            previous: 0,
            last_position: 0,
            batches_since: 0,
            misfit: false,
        }
    }

    /// The last batch of those whose cells are in the file begins here.
    pub fn go_on_behind(&mut self, position: u32) {
        self.previous = position;
    }

    /// A batch that ends with `last_offset` stands at `position`. Batches come in their order.
    pub fn on_batch(&mut self, last_offset: i64, position: u32) {
        let until = cells_until(self.base_offset, self.shift, last_offset.saturating_add(1));
        // what lies beyond is not found by this index, and is told as damage
        self.previous = position;
        // what lies beyond CELLS_MAX is not found by this index, and is told as damage
        if self.fill(until, position) {
            self.last_position = position;
            self.batches_since = 0;
            return;
        }
        self.batches_since += 1;
        let span = u64::from(position.saturating_sub(self.last_position));
        self.misfit |= self.batches_since > 1 && span > SPAN_MAX;
    }

    /// All offsets before `until` that no batch has had yet were cleaned away: their cells lead to
    /// the batch before them, from which the walk goes on and sees that nothing was left out.
    pub fn on_gap(&mut self, until: i64) {
        let until = cells_until(self.base_offset, self.shift, until);
        self.fill(until, self.previous);
    }

    /// The same at the end of the segment, which may be thousands of millions of offsets behind the
    /// last batch: up to a bound, and not at all if there is no batch.
    pub fn on_end(&mut self, end_offset: i64) {
        if self.next_cell() > 0 {
            let until = cells_until(self.base_offset, self.shift, end_offset);
            self.fill(until.min(END_CELLS_MAX), self.previous);
        }
    }

    /// Makes the cells before `until` that are not made yet; returns whether there were any.
    fn fill(&mut self, until: u32, position: u32) -> bool {
        let more = until.min(CELLS_MAX).saturating_sub(self.next_cell());
        self.pending
            .resize(self.pending.len() + more as usize, position + 1);
        more > 0
    }

    /// The first cell that no batch has made yet.
    pub fn next_cell(&self) -> u32 {
        self.first + self.pending.len() as u32
    }

    /// The records have grown too large for this stride: [`SPAN_MAX`] does not hold any more.
    pub fn is_misfit(&self) -> bool {
        self.misfit
    }

    /// How many cells are in the file.
    pub fn cells_in_file(&self) -> u32 {
        self.first
    }

    /// How many cells are not in the file.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The cells that are not in the file, and where they belong in it.
    pub fn encode_pending(&self) -> (u64, Bytes) {
        let mut out = BytesMut::with_capacity(self.pending.len() * CELL_LEN);
        for cell in &self.pending {
            out.put_u32(*cell);
        }
        (cell_position(self.first), out.freeze())
    }

    /// All cells below `next_cell` are in the file now.
    pub fn on_written(&mut self, next_cell: u32) {
        let count = next_cell.saturating_sub(self.first) as usize;
        self.pending.drain(..count.min(self.pending.len()));
        self.first = self.first.max(next_cell);
    }

    /// The bracket of a cell, if it is all in memory.
    pub fn bracket(&self, cell: u32) -> Option<Bracket> {
        let at = cell.checked_sub(self.first)? as usize;
        let low = self.pending.get(at)?.checked_sub(1)?;
        let high = self.pending.get(at + 1).map(|stored| stored - 1);
        Some(Bracket { low, high })
    }

    /// The position in the first cell that is not in the file: the upper end of the bracket of
    /// the last cell that is.
    pub fn first_pending(&self) -> Option<u32> {
        self.pending.first().map(|stored| stored - 1)
    }
}

/// What a walk over batch headers came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// The batch that holds the offset.
    Found {
        /// Where it begins.
        position: u64,
        /// Its header.
        header: BatchHeader,
    },
    /// The walk goes on at this position, which the bytes do not reach.
    Further {
        /// Where the next batch begins.
        position: u64,
    },
    /// The walk began beyond the offset: the index is wrong.
    Beyond,
    /// There is no batch here.
    Broken {
        /// Where one should begin.
        position: u64,
        /// What is there.
        error: BatchError,
    },
}

/// Looks for the batch that holds `offset` in `bytes` of a log, which stand at `position`, where
/// a batch begins.
pub fn find_batch(bytes: &[u8], position: u64, offset: i64) -> Walk {
    walk(bytes, position, offset, None)
}

/// The same in a segment that was compacted: where no batch holds the offset, the first one behind
/// it. `due` is the offset after the batch before `position`, once the walk has come by one.
pub fn find_batch_or_next(bytes: &[u8], position: u64, offset: i64, due: &mut Option<i64>) -> Walk {
    walk(bytes, position, offset, Some(due))
}

fn walk(bytes: &[u8], position: u64, offset: i64, compacted: Option<&mut Option<i64>>) -> Walk {
    let mut at = 0usize;
    let has_gaps = compacted.is_some();
    // batches follow each other; the base offset is outside of their CRC
    let mut none = None;
    let due = compacted.unwrap_or(&mut none);
    loop {
        let here = position + at as u64;
        let header = match bytes.get(at..).map(BatchHeader::parse) {
            Some(Ok(header)) => header,
            None | Some(Err(BatchError::Short { .. })) => return Walk::Further { position: here },
            Some(Err(_)) if bytes.len() - at < batch::HEADER_LEN => {
                return Walk::Further { position: here };
            }
            Some(Err(error)) => {
                return Walk::Broken {
                    position: here,
                    error,
                };
            }
        };
        let follows = due.is_none_or(|due| follows(&header, due, has_gaps));
        if !follows || header.last_offset_delta < 0 {
            let error = BatchError::Offsets {
                base_offset: header.base_offset,
                last_offset_delta: header.last_offset_delta,
                records_count: header.records_count,
            };
            return Walk::Broken {
                position: here,
                error,
            };
        }
        let is_first = due.replace(header.next_offset()).is_none();
        if header.last_offset() >= offset {
            // the first batch of a segment that was compacted has nothing before it
            let starts_here = has_gaps && here == 0;
            if is_first && !starts_here && header.base_offset > offset {
                return Walk::Beyond;
            }
            return Walk::Found {
                position: here,
                header,
            };
        }
        at = at.saturating_add(header.size());
    }
}

#[cfg(test)]
#[path = "index_test.rs"]
mod tests;
