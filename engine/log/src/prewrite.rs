//! Zeros written ahead of the log's end, so that a flush need not commit new blocks.
//!
//! A flush of a file that grows commits its new blocks and its length to the file system's
//! journal; a flush of blocks that were written before writes them and nothing else, in half to
//! two thirds of the time. Reserving blocks (fallocate) does not help: they are converted at the
//! flush. So while appends are small and each waits for its flush, the file is filled with zeros
//! some way ahead, in the background; a stream of large writes is not worth it and ends it.
//! Recovery and readers know zeros as the unwritten end of a file. Pure.

use crate::flush::LINKED_BYTES_MAX;

/// Zeros written at a time.
pub const FILL_BYTES: u64 = 256 << 10;
/// Where a first fill begins, counted from the log's end: far enough that the next appends do
/// not run into it while it is being written.
const GAP_BYTES: u64 = 64 << 10;
/// Small writes in a row before zeros are written ahead.
const SMALL_WRITES: u32 = 16;
/// Fills begin and end at a block.
const BLOCK: u64 = 4096;

/// A part of the file to be filled with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// How far one segment's file is filled.
#[derive(Debug, Default)]
pub struct Prewrite {
    /// Zeros stand up to here, if this is behind the log's end.
    frontier: u64,
    filling: Option<Fill>,
    small_writes: u32,
    /// The disk had no room for zeros.
    off: bool,
}

impl Prewrite {
    /// A write of `bytes` has moved the log's end to `position`; `flushed` tells whether somebody
    /// waits for flushes. Returns what to fill now.
    pub fn on_written(
        &mut self,
        position: u64,
        bytes: u64,
        flushed: bool,
        limit: u64,
    ) -> Option<Fill> {
        let small = flushed && bytes <= LINKED_BYTES_MAX / 4;
        self.small_writes = if small { self.small_writes + 1 } else { 0 };
        let near = self.frontier < position + FILL_BYTES / 2;
        if self.off || self.filling.is_some() || self.small_writes < SMALL_WRITES || !near {
            return None;
        }
        let start = self
            .frontier
            .max((position + GAP_BYTES).next_multiple_of(BLOCK));
        let end = (start + FILL_BYTES).min(limit / BLOCK * BLOCK);
        if end <= start {
            return None;
        }
        let fill = Fill { start, end };
        self.filling = Some(fill);
        Some(fill)
    }

    /// Whether a write up to `end` may begin: not over zeros that are being written, which might
    /// land on top of it.
    pub fn may_write(&self, end: u64) -> bool {
        self.filling.is_none_or(|fill| end <= fill.start)
    }

    /// Zeros are being written.
    pub fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// The fill is done.
    pub fn on_filled(&mut self) {
        if let Some(fill) = self.filling.take() {
            self.frontier = self.frontier.max(fill.end);
        }
    }

    /// There was no room for the fill; some of it may be there.
    pub fn on_no_space(&mut self) {
        self.on_filled();
        self.off = true;
    }

    /// Whether zeros may stand behind the log's end.
    pub fn is_ahead_of(&self, position: u64) -> bool {
        self.frontier > position
    }

    /// The file was cut at the log's end.
    pub fn on_cut(&mut self) {
        self.frontier = 0;
        self.small_writes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 1 << 30;

    #[test]
    fn small_flushed_appends_get_zeros_ahead_and_streams_do_not() {
        let mut p = Prewrite::default();
        let mut position = 0;
        let mut fills = 0;
        for _ in 0..10_000 {
            position += 300;
            if p.on_written(position, 300, true, LIMIT).is_some() {
                fills += 1;
                p.on_filled();
            }
        }
        assert!((10..=14).contains(&fills), "{fills} fills for 3 MB of log");
        assert!(p.is_ahead_of(position));
        let mut stream = Prewrite::default();
        for n in 0..1000 {
            assert_eq!(stream.on_written(n << 20, 1 << 20, true, LIMIT), None);
        }
        let mut unflushed = Prewrite::default();
        for n in 0..1000 {
            assert_eq!(unflushed.on_written(n * 100, 100, false, LIMIT), None);
        }
    }

    #[test]
    fn a_full_disk_ends_it() {
        let mut p = Prewrite::default();
        let fill = (1..)
            .find_map(|n| p.on_written(n * 100, 100, true, LIMIT))
            .unwrap();
        assert!(!p.may_write(fill.start + 1) && p.may_write(fill.start));
        p.on_no_space();
        assert!(p.may_write(fill.start + 1));
        for n in 0..1000 {
            assert_eq!(p.on_written(n * 10_000, 100, true, LIMIT), None);
        }
    }

    proptest! {
        /// Zeros never land on the log, whatever comes when.
        #[test]
        fn zeros_and_records_never_meet(
            steps in prop::collection::vec((1u64..100_000, any::<bool>(), any::<bool>()), 1..400),
        ) {
            let mut p = Prewrite::default();
            let (mut position, mut filling): (u64, Option<Fill>) = (0, None);
            for (bytes, small, filled) in steps {
                let bytes = if small { bytes % 700 + 1 } else { bytes };
                if p.may_write(position + bytes) {
                    if let Some(fill) = filling {
                        prop_assert!(position + bytes <= fill.start);
                    }
                    position += bytes;
                    if let Some(fill) = p.on_written(position, bytes, true, LIMIT) {
                        prop_assert!(filling.is_none() && fill.start >= position);
                        prop_assert!(fill.start % BLOCK == 0 && fill.end > fill.start);
                        filling = Some(fill);
                    }
                }
                if filled {
                    p.on_filled();
                    filling = None;
                }
            }
        }
    }
}
