//! A set of a block's symbols.

use std::ops::Range;

/// Symbols by number, below 256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SymbolSet([u64; 4]);

impl SymbolSet {
    /// All of a range.
    pub(crate) fn range(range: Range<usize>) -> SymbolSet {
        let mut set = SymbolSet::default();
        range.for_each(|symbol| set.insert(symbol));
        set
    }

    /// Adds one; whoever counts higher than a code can is wrong.
    pub(crate) fn insert(&mut self, symbol: usize) {
        self.0[symbol / 64] |= 1 << (symbol % 64);
    }

    /// Takes one away.
    pub(crate) fn remove(&mut self, symbol: usize) {
        self.0[symbol / 64] &= !(1 << (symbol % 64));
    }

    /// Whether it is in.
    pub(crate) fn contains(&self, symbol: usize) -> bool {
        self.0[symbol / 64] >> (symbol % 64) & 1 == 1
    }

    /// Whether none is in.
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// How many are in.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The lowest.
    pub(crate) fn first(&self) -> Option<usize> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(word * 64 + self.0[word].trailing_zeros() as usize)
    }

    /// In order.
    pub(crate) fn iter(mut self) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let first = self.first()?;
            self.remove(first);
            Some(first)
        })
    }

    /// Those of both.
    pub(crate) fn union(self, other: SymbolSet) -> SymbolSet {
        self.merge(other, |a, b| a | b)
    }

    /// Those that are not in the other.
    pub(crate) fn minus(self, other: SymbolSet) -> SymbolSet {
        self.merge(other, |a, b| a & !b)
    }

    /// Those that are in both.
    pub(crate) fn within(self, other: SymbolSet) -> SymbolSet {
        self.merge(other, |a, b| a & b)
    }

    fn merge(self, other: SymbolSet, with: impl Fn(u64, u64) -> u64) -> SymbolSet {
        SymbolSet(std::array::from_fn(|i| with(self.0[i], other.0[i])))
    }

    /// Runs of neighbours, both ends included.
    pub(crate) fn runs(self) -> impl Iterator<Item = (usize, usize)> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let first = rest.first()?;
            let mut last = first;
            rest.remove(first);
            while last < 255 && rest.contains(last + 1) {
                last += 1;
                rest.remove(last);
            }
            Some((first, last))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set() {
        let mut set = SymbolSet::range(60..70);
        assert_eq!(set.len(), 10);
        set.remove(64);
        set.insert(255);
        assert_eq!(set.first(), Some(60));
        assert_eq!(
            set.runs().collect::<Vec<_>>(),
            [(60, 63), (65, 69), (255, 255)]
        );
        assert!(!set.contains(64) && set.contains(255));
        let low = SymbolSet::range(0..62);
        assert_eq!(set.within(low).iter().collect::<Vec<_>>(), [60, 61]);
        assert_eq!(set.minus(low).union(low).len(), 62 + 8);
        assert!(set.minus(set).is_empty());
    }
}
