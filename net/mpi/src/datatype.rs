//! Derived datatypes: where the bytes of an element stand in memory, and in which order they
//! travel. Pure: places are numbers, nothing is read.

use std::rc::Rc;

use crate::op::Scalar;

/// A run of bytes of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins, from the element's address on.
    pub at: isize,
    /// Bytes of it.
    pub len: usize,
    /// Where it begins in the packed element.
    packed: usize,
}

/// A type of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Bytes of data in an element.
    pub size: usize,
    /// Where an element begins.
    pub lower: isize,
    /// Where it ends: the next one begins at this distance from its beginning.
    pub upper: isize,
    /// What an element's address is a multiple of.
    alignment: usize,
    /// The bounds were given, and stay as they are in what is derived.
    bounded: bool,
    pieces: Rc<[Piece]>,
    /// What stands there, in runs of equal ones: to count elements of a message that was cut.
    scalars: Rc<[(Scalar, usize)]>,
}

/// Several elements of a type, in a derived one.
#[derive(Clone, Debug)]
pub struct Block {
    /// Where the first stands.
    pub at: isize,
    /// How many, one behind the other.
    pub count: usize,
    /// Their type.
    pub of: Layout,
}

impl Layout {
    /// A basic type.
    pub fn scalar(scalar: Scalar) -> Layout {
        let pieces: Vec<Piece> = match scalar.gap() {
            None => vec![Piece {
                at: 0,
                len: scalar.size(),
                packed: 0,
            }],
            Some((first, second, at)) => vec![
                Piece {
                    at: 0,
                    len: first,
                    packed: 0,
                },
                Piece {
                    at: at as isize,
                    len: second,
                    packed: first,
                },
            ],
        };
        Layout {
            size: scalar.size(),
            lower: 0,
            upper: scalar.extent() as isize,
            alignment: scalar.alignment(),
            bounded: false,
            pieces: pieces.into(),
            scalars: [(scalar, 1)].into(),
        }
    }

    /// Distance from one element to the next.
    pub fn extent(&self) -> isize {
        self.upper - self.lower
    }

    /// Where data really begins and ends.
    pub fn true_bounds(&self) -> (isize, isize) {
        let begin = self.pieces.iter().map(|piece| piece.at).min();
        let end = self
            .pieces
            .iter()
            .map(|piece| piece.at + piece.len as isize)
            .max();
        (begin.unwrap_or(0), end.unwrap_or(0))
    }

    /// Whether elements in a row are one run of bytes.
    pub fn is_contiguous(&self) -> bool {
        match &*self.pieces {
            [] => true,
            [one] => one.at == 0 && self.lower == 0 && self.extent() == one.len as isize,
            _ => false,
        }
    }

    /// The basic type, if it consists of one kind alone.
    pub fn uniform(&self) -> Option<Scalar> {
        match &*self.scalars {
            [(scalar, _)] => Some(*scalar),
            _ => None,
        }
    }

    /// Basic elements in one element.
    pub fn scalar_count(&self) -> usize {
        self.scalars.iter().map(|(_, count)| count).sum()
    }

    /// Whole basic elements in `bytes` packed bytes; `None` if one of them is cut.
    pub fn scalars_in(&self, bytes: u64) -> Option<u64> {
        let size = self.size as u64;
        if size == 0 {
            return (bytes == 0).then_some(0);
        }
        let mut count = bytes / size * self.scalar_count() as u64;
        let mut rest = bytes % size;
        for (scalar, run) in self.scalars.iter() {
            let width = scalar.size() as u64;
            let whole = (rest / width).min(*run as u64);
            count += whole;
            rest -= whole * width;
            if whole < *run as u64 {
                break;
            }
        }
        (rest == 0).then_some(count)
    }

    /// Bytes of each number in a packed element, in their order.
    pub fn number_widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for (scalar, run) in self.scalars.iter() {
            for _ in 0..*run {
                widths.extend_from_slice(scalar.number_widths());
            }
        }
        widths
    }

    /// Packed bytes of the first basic elements.
    pub fn scalar_prefix(&self, count: usize) -> usize {
        let mut left = count;
        let mut bytes = 0;
        for (scalar, run) in self.scalars.iter() {
            let take = left.min(*run);
            bytes += take * scalar.size();
            left -= take;
        }
        bytes
    }

    /// Elements in blocks, as all derived types are made.
    pub fn from_blocks(blocks: &[Block]) -> Layout {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut scalars: Vec<(Scalar, usize)> = Vec::new();
        let (mut lower, mut upper) = (isize::MAX, isize::MIN);
        let mut packed = 0;
        let mut alignment = 1;
        let mut bounded = false;
        for block in blocks.iter().filter(|block| block.count > 0) {
            let extent = block.of.extent();
            alignment = alignment.max(block.of.alignment);
            bounded |= block.of.bounded;
            if let ([(scalar, run)], true) = (&*block.of.scalars, block.of.is_contiguous()) {
                // Any number of them is one run.
                let len = block.of.size * block.count;
                lower = lower.min(block.at);
                upper = upper.max(block.at + len as isize);
                push_piece(&mut pieces, block.at, len, packed);
                packed += len;
                push_scalars(&mut scalars, *scalar, run * block.count);
                continue;
            }
            for number in 0..block.count {
                let base = block.at + extent * number as isize;
                lower = lower.min(base + block.of.lower);
                upper = upper.max(base + block.of.upper);
                for piece in block.of.pieces.iter() {
                    push_piece(&mut pieces, base + piece.at, piece.len, packed);
                    packed += piece.len;
                }
                for (scalar, run) in block.of.scalars.iter() {
                    push_scalars(&mut scalars, *scalar, *run);
                }
            }
        }
        if lower > upper {
            (lower, upper) = (0, 0);
        }
        // As in a structure of C's: the next element stands where it may.
        if !bounded {
            let extent = (upper - lower).unsigned_abs().next_multiple_of(alignment);
            upper = lower + extent.cast_signed();
        }
        Layout {
            size: packed,
            lower,
            upper,
            alignment,
            bounded,
            pieces: pieces.into(),
            scalars: scalars.into(),
        }
    }

    /// `count` elements in a row.
    pub fn contiguous(count: usize, of: &Layout) -> Layout {
        Layout::from_blocks(&[Block {
            at: 0,
            count,
            of: of.clone(),
        }])
    }

    /// `count` blocks of `length` elements, `stride` bytes apart.
    pub fn vector(count: usize, length: usize, stride: isize, of: &Layout) -> Layout {
        let block = |number: usize| Block {
            at: stride * number as isize,
            count: length,
            of: of.clone(),
        };
        Layout::from_blocks(&(0..count).map(block).collect::<Vec<_>>())
    }

    /// The same data with other bounds.
    pub fn resized(&self, lower: isize, extent: isize) -> Layout {
        Layout {
            lower,
            upper: lower + extent,
            bounded: true,
            ..self.clone()
        }
    }

    /// Elements of an array of `sizes` elements, the last index running fastest: those whose
    /// index in each dimension is in that dimension's list, in this order. The extent is the
    /// whole array's.
    pub fn of_array(sizes: &[usize], chosen: &[Vec<usize>], of: &Layout) -> Layout {
        let mut places = vec![0usize];
        for (size, indices) in sizes.iter().zip(chosen) {
            let next = places
                .iter()
                .flat_map(|place| indices.iter().map(move |index| place * size + index));
            places = next.collect();
        }
        let extent = of.extent();
        let mut blocks: Vec<Block> = Vec::new();
        let mut end = None;
        for place in places {
            match blocks.last_mut() {
                Some(last) if end == Some(place) => last.count += 1,
                _ => blocks.push(Block {
                    at: extent * place as isize,
                    count: 1,
                    of: of.clone(),
                }),
            }
            end = Some(place + 1);
        }
        let all: usize = sizes.iter().product();
        Layout::from_blocks(&blocks).resized(0, extent * all as isize)
    }

    /// Calls `run` with each run of memory (its place, its length) of the packed bytes from `at`
    /// on, `len` of them, of elements in a row.
    pub fn spans(&self, at: usize, len: usize, mut run: impl FnMut(isize, usize)) {
        if len == 0 || self.size == 0 {
            return;
        }
        let (mut element, within) = (at / self.size, at % self.size);
        let mut number = self.pieces.partition_point(|piece| piece.packed <= within) - 1;
        let mut skip = within - self.pieces[number].packed;
        let mut left = len;
        while left > 0 {
            let piece = self.pieces[number];
            let take = (piece.len - skip).min(left);
            run(
                self.extent() * element as isize + piece.at + skip as isize,
                take,
            );
            left -= take;
            skip = 0;
            number += 1;
            if number == self.pieces.len() {
                number = 0;
                element += 1;
            }
        }
    }
}

fn push_scalars(scalars: &mut Vec<(Scalar, usize)>, scalar: Scalar, run: usize) {
    match scalars.last_mut() {
        Some((last, count)) if *last == scalar => *count += run,
        _ => scalars.push((scalar, run)),
    }
}

fn push_piece(pieces: &mut Vec<Piece>, at: isize, len: usize, packed: usize) {
    match pieces.last_mut() {
        Some(last) if last.at + last.len as isize == at => last.len += len,
        _ => pieces.push(Piece { at, len, packed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn int() -> Layout {
        Layout::scalar(Scalar::I32)
    }

    fn runs(layout: &Layout, at: usize, len: usize) -> Vec<(isize, usize)> {
        let mut runs = Vec::new();
        layout.spans(at, len, |at, len| runs.push((at, len)));
        runs
    }

    #[test]
    fn a_vector_has_its_gaps() {
        let column = Layout::vector(3, 1, 16, &int());
        assert_eq!((column.size, column.extent()), (12, 36));
        assert_eq!(runs(&column, 0, 12), [(0, 4), (16, 4), (32, 4)]);
        assert_eq!(runs(&column, 6, 8), [(18, 2), (32, 4), (36, 2)]);
        assert!(!column.is_contiguous());
        assert!(Layout::vector(3, 2, 8, &int()).is_contiguous());
    }

    #[test]
    fn a_structure_counts_its_elements() {
        let block = |at, count, scalar| Block {
            at,
            count,
            of: Layout::scalar(scalar),
        };
        let mixed = Layout::from_blocks(&[block(0, 2, Scalar::I32), block(8, 1, Scalar::F64)]);
        assert_eq!(mixed.scalars_in(16), Some(3));
        assert_eq!(mixed.scalars_in(20), Some(4));
        assert_eq!(mixed.scalars_in(26), None);
        assert_eq!(mixed.scalars_in(0), Some(0));
    }

    #[test]
    fn a_structure_ends_where_the_next_may_begin_unless_its_bounds_were_given() {
        let block = |at, of| Block { at, count: 1, of };
        let (int, byte) = (Layout::scalar(Scalar::I32), Layout::scalar(Scalar::Byte));
        let padded = Layout::from_blocks(&[block(0, int.clone()), block(4, byte.clone())]);
        assert_eq!((padded.size, padded.extent()), (5, 8));
        assert!(!padded.is_contiguous());
        let packed = Layout::from_blocks(&[block(0, int.resized(0, 4)), block(4, byte)]);
        assert_eq!(packed.extent(), 5);
    }

    #[test]
    fn a_window_of_an_array() {
        let window = Layout::of_array(&[4, 5], &[vec![1, 2], vec![2, 3]], &int());
        assert_eq!(runs(&window, 0, 16), [(28, 8), (48, 8)]);
        assert_eq!(window.extent(), 80);
    }

    #[test]
    fn a_pair_with_a_gap_is_packed_without_it() {
        let pair = Layout::scalar(Scalar::F64Int);
        assert_eq!((pair.size, pair.extent()), (12, 16));
        assert_eq!(runs(&pair, 0, 24), [(0, 8), (8, 4), (16, 8), (24, 4)]);
    }

    proptest! {
        /// Packed in two parts, the runs are those of the whole.
        #[test]
        fn parts_are_the_whole(
            count in 1usize..4, length in 1usize..4, stride in 0isize..40,
            elements in 1usize..4, cut: u16,
        ) {
            let layout = Layout::vector(count, length, stride, &int());
            let all = layout.size * elements;
            let cut = cut as usize % (all + 1);
            let bytes = |runs: Vec<(isize, usize)>| -> Vec<isize> {
                runs.into_iter().flat_map(|(at, len)| at..at + len as isize).collect()
            };
            let mut parts = bytes(runs(&layout, 0, cut));
            parts.extend(bytes(runs(&layout, cut, all - cut)));
            prop_assert_eq!(parts, bytes(runs(&layout, 0, all)));
        }
    }
}
