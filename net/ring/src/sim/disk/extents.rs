//! Sparse bytes: an image of a file's content that costs nothing where nothing was written.
//!
//! Written buffers are shared, not copied, so that writing, flushing and copying a whole image
//! cost a few map operations whatever the number of bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Smaller writes are copied, so that a few bytes do not keep a large receive buffer alive.
const COPY_BELOW: usize = 4096;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Bytes by position; what was never written reads as zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents {
    /// Non-empty and without overlap, by first position.
    map: BTreeMap<u64, Bytes>,
}

impl Extents {
    /// Makes a hole.
    pub(super) fn clear(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&start, bytes)) = self.map.range(..range.start).next_back() {
            let end = start + bytes.len() as u64;
            if end > range.start {
                let tail = (end > range.end).then(|| bytes.slice((range.end - start) as usize..));
                let head = bytes.slice(..(range.start - start) as usize);
                self.map.insert(start, head);
                if let Some(tail) = tail {
                    self.map.insert(range.end, tail);
                    return;
                }
            }
        }
        while let Some((&start, bytes)) = self.map.range(range.clone()).next() {
            let end = start + bytes.len() as u64;
            let tail = (end > range.end).then(|| bytes.slice((range.end - start) as usize..));
            self.map.remove(&start);
            if let Some(tail) = tail {
                self.map.insert(range.end, tail);
            }
        }
    }

    /// Writes at `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.clear(offset..offset + bytes.len() as u64);
        self.map.insert(offset, bytes);
    }

    /// Calls `each` with the pieces of a range in order: bytes, or `None` and the length of a
    /// hole.
    fn pieces(&self, range: Range<u64>, mut each: impl FnMut(Option<Bytes>, u64)) {
        let mut at = range.start;
        let first = self
            .map
            .range(..=range.start)
            .next_back()
            .map_or(range.start, |(&s, _)| s);
        for (&start, bytes) in self.map.range(first..range.end) {
            let end = (start + bytes.len() as u64).min(range.end);
            if end <= at {
                continue;
            }
            if start > at {
                each(None, start - at);
                at = start;
            }
            each(
                Some(bytes.slice((at - start) as usize..(end - start) as usize)),
                end - at,
            );
            at = end;
        }
        if at < range.end {
            each(None, range.end - at);
        }
    }

    /// Appends the bytes of a range to `out`.
    pub(super) fn read(&self, range: Range<u64>, out: &mut BytesMut) {
        if range.is_empty() {
            return;
        }
        out.reserve((range.end - range.start) as usize);
        self.pieces(range, |bytes, len| match bytes {
            Some(bytes) => out.extend_from_slice(&bytes),
            None => out.resize(out.len() + len as usize, 0),
        });
    }

    /// The bytes of a range as shared pieces, without a copy.
    pub(super) fn slices(&self, range: Range<u64>) -> Vec<Bytes> {
        let mut slices = Vec::new();
        if range.is_empty() {
            return slices;
        }
        self.pieces(range, |bytes, len| match bytes {
            Some(bytes) => slices.push(bytes),
            None => {
                let mut left = len as usize;
                while left > 0 {
                    let part = left.min(ZEROS.len());
                    slices.push(Bytes::from_static(&ZEROS[..part]));
                    left -= part;
                }
            }
        });
        slices
    }
}

/// A buffer as it is kept: shared, or copied if it is small.
pub(super) fn keep(bytes: &Bytes) -> Bytes {
    if bytes.len() < COPY_BELOW {
        Bytes::copy_from_slice(bytes)
    } else {
        bytes.clone()
    }
}

/// A set of positions as ranges: the blocks that a file has allocated.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// First position to the one past the last; without overlap or touch.
    map: BTreeMap<u64, u64>,
    total: u64,
}

impl Ranges {
    /// How many positions the set has.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The gaps of the set within a range.
    fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self
            .map
            .range(..=range.start)
            .next_back()
            .map_or(range.start, |(&s, _)| s);
        let mut at = range.start;
        self.map
            .range(first..range.end)
            .map(|(&start, &end)| start..end)
            .chain(std::iter::once(range.end..range.end))
            .filter_map(move |held| {
                let gap = at..held.start;
                at = at.max(held.end);
                (!gap.is_empty()).then_some(gap)
            })
    }

    /// The longest beginning of `range` that adds at most `room` positions.
    pub(super) fn affordable(&self, range: Range<u64>, room: u64) -> Range<u64> {
        let mut left = room;
        for gap in self.gaps(range.clone()) {
            let len = gap.end - gap.start;
            if len > left {
                return range.start..gap.start + left;
            }
            left -= len;
        }
        range
    }

    /// Adds a range; returns how many positions are new.
    pub(super) fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let added: u64 = self
            .gaps(range.clone())
            .map(|gap| gap.end - gap.start)
            .sum();
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.map.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.map.range(start..=end).next() {
            self.map.remove(&next);
            end = end.max(next_end);
        }
        self.map.insert(start, end);
        self.total += added;
        added
    }

    /// Removes all from `end` on; returns how many positions went.
    pub(super) fn truncate(&mut self, end: u64) -> u64 {
        let mut removed = 0;
        for (start, held_end) in self.map.split_off(&end) {
            removed += held_end - start;
        }
        if let Some(mut last) = self.map.last_entry()
            && *last.get() > end
        {
            removed += *last.get() - end;
            *last.get_mut() = end;
        }
        self.total -= removed;
        removed
    }

    /// Removes what overlaps a range.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        let before = self
            .map
            .range(..range.start)
            .next_back()
            .map(|(_, &end)| end);
        let later = self.map.split_off(&range.start);
        self.truncate(range.start);
        self.total = self.map.iter().map(|(start, end)| end - start).sum();
        let crossing = before.map(|end| range.end..end);
        let rest = later
            .into_iter()
            .map(|(start, end)| start.max(range.end)..end);
        for held in crossing.into_iter().chain(rest) {
            self.insert(held);
        }
    }

    /// True if a position of the range is in the set.
    pub(super) fn touches(&self, range: Range<u64>) -> bool {
        let last = self.map.range(..range.end).next_back();
        !range.is_empty() && last.is_some_and(|(_, &end)| end > range.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPACE: usize = 64;

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0..SPACE as u64, 0..SPACE as u64).prop_map(|(a, b)| a.min(b)..a.max(b))
    }

    proptest! {
        #[test]
        fn extents_are_an_array(steps in prop::collection::vec((range(), 0u8..4), 1..60)) {
            let mut extents = Extents::default();
            let mut array = [0u8; SPACE];
            for (number, (range, kind)) in steps.into_iter().enumerate() {
                let place = range.start as usize..range.end as usize;
                if kind == 0 {
                    extents.clear(range);
                    array[place].fill(0);
                } else {
                    let byte = number as u8 + 1;
                    extents.write(range.start, Bytes::from(vec![byte; place.len()]));
                    array[place].fill(byte);
                }
                let mut all = BytesMut::new();
                extents.read(0..SPACE as u64, &mut all);
                prop_assert_eq!(&all[..], &array[..]);
            }
            for start in (0..SPACE).step_by(5) {
                for end in (start..SPACE).step_by(7) {
                    let slices = extents.slices(start as u64..end as u64);
                    prop_assert_eq!(&slices.concat()[..], &array[start..end]);
                }
            }
        }

        #[test]
        fn ranges_are_a_set(steps in prop::collection::vec((range(), 0u8..4), 1..60)) {
            let mut ranges = Ranges::default();
            let mut array = [false; SPACE];
            let count = |array: &[bool]| array.iter().filter(|held| **held).count() as u64;
            for (range, kind) in steps {
                let place = range.start as usize..range.end as usize;
                let before = count(&array);
                if kind == 0 {
                    array[range.start as usize..].fill(false);
                    prop_assert_eq!(ranges.truncate(range.start), before - count(&array));
                } else if kind == 1 {
                    array[place.clone()].fill(false);
                    ranges.remove(range.clone());
                } else {
                    let room = 5;
                    let affordable = ranges.affordable(range.clone(), room);
                    let wanted = array[place.clone()].iter().filter(|held| !**held).count();
                    let place = affordable.start as usize..affordable.end as usize;
                    let gained = array[place.clone()].iter().filter(|held| !**held).count();
                    prop_assert_eq!(gained, wanted.min(room as usize));
                    array[place].fill(true);
                    prop_assert_eq!(ranges.insert(affordable), gained as u64);
                }
                prop_assert_eq!(ranges.total(), count(&array));
                let place = range.start as usize..range.end as usize;
                prop_assert_eq!(
                    ranges.touches(range.clone()),
                    array[place].iter().any(|held| *held)
                );
            }
        }
    }
}
