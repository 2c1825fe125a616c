//! How an object of known size is cut into blocks (RFC 5052 §9.1): as evenly as can be, longer
//! ones first.

use std::ops::Range;

/// The blocks of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    size: u64,
    segment: u64,
    /// Segments of the longer blocks.
    large: u64,
    /// How many of those there are.
    larges: u64,
    /// How many blocks there are.
    blocks: u64,
}

impl Partition {
    /// Of an object of `size` bytes, segments of `segment` and blocks of at most `block_len`,
    /// neither of them 0.
    pub(crate) fn new(size: u64, segment: u16, block_len: u16) -> Partition {
        let segment = u64::from(segment);
        let segments = size.div_ceil(segment);
        let blocks = segments.div_ceil(block_len.into());
        let large = if blocks == 0 {
            0
        } else {
            segments.div_ceil(blocks)
        };
        Partition {
            size,
            segment,
            large,
            larges: segments - (large.saturating_sub(1)) * blocks,
            blocks,
        }
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Segments of a block.
    pub(crate) fn block_len(&self, block: u64) -> usize {
        let short = u64::from(block >= self.larges);
        self.large.saturating_sub(short) as usize
    }

    /// The bytes of a segment.
    pub(crate) fn segment(&self, block: u64, segment: usize) -> Range<usize> {
        let before = block * self.large - block.saturating_sub(self.larges);
        let start = (before + segment as u64) * self.segment;
        start as usize..(start + self.segment).min(self.size) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_even_and_leave_nothing_out() {
        for size in (0..2_000).chain([100_000, 100_001]) {
            let partition = Partition::new(size, 10, 16);
            let mut at = 0;
            for block in 0..partition.blocks() {
                let len = partition.block_len(block);
                assert!((1..=16).contains(&len), "{size}: {len}");
                assert!(partition.block_len(0) - len <= 1);
                for segment in 0..len {
                    let range = partition.segment(block, segment);
                    assert_eq!(range.start, at);
                    assert!(!range.is_empty());
                    at = range.end;
                }
            }
            assert_eq!(at as u64, size);
        }
    }
}
