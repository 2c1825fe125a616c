//! One source block as it comes in.

use bytes::Bytes;

use crate::fec::Code;
use crate::symbols::SymbolSet;

/// A block.
#[derive(Debug)]
pub(super) struct Block {
    /// Source symbols.
    len: usize,
    symbols: Vec<Option<Bytes>>,
    /// Source symbols that are not here.
    missing: usize,
    /// Parity symbols that are.
    parity: usize,
}

impl Block {
    pub(super) fn new(len: usize, parity: usize) -> Block {
        Block {
            len,
            symbols: vec![None; len + parity],
            missing: len,
            parity: 0,
        }
    }

    /// A symbol comes in; false if it was here already, or is of no use any more.
    pub(super) fn put(&mut self, symbol: usize, bytes: Bytes) -> bool {
        if self.is_complete() || self.symbols[symbol].is_some() {
            return false;
        }
        self.symbols[symbol] = Some(bytes);
        match symbol < self.len {
            true => self.missing -= 1,
            false => self.parity += 1,
        }
        if self.is_complete() {
            self.symbols.truncate(self.len);
        }
        true
    }

    /// All source symbols are here.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Decodes if that is possible now; tells how many symbols it gave back.
    pub(super) fn decode(&mut self, code: &mut Code) -> usize {
        if self.is_complete() || self.missing > self.parity {
            return 0;
        }
        let Some(found) = code.decode(self.len, &self.symbols) else {
            return 0;
        };
        let decoded = found.len();
        self.symbols.truncate(self.len);
        let holes = self.symbols.iter_mut().filter(|symbol| symbol.is_none());
        for (hole, bytes) in holes.zip(found) {
            *hole = Some(bytes);
        }
        self.missing = 0;
        decoded
    }

    /// A source symbol, if it is here.
    pub(super) fn source(&self, symbol: usize) -> Option<&Bytes> {
        self.symbols.get(symbol)?.as_ref()
    }

    fn absent(&self, range: std::ops::Range<usize>) -> SymbolSet {
        let mut set = SymbolSet::default();
        for symbol in range {
            if self.symbols.get(symbol).is_some_and(Option::is_none) {
                set.insert(symbol);
            }
        }
        set
    }

    /// What to ask for when the first `sent` source symbols were sent: those that are missing.
    pub(super) fn wish_within(&self, sent: usize) -> SymbolSet {
        self.absent(0..sent.min(self.len))
    }

    /// What to ask for when all source symbols were sent: parity, as much as can be, and
    /// of the source symbols only what no parity makes good (the last ones, as libnorm does).
    pub(super) fn wish(&self) -> SymbolSet {
        if self.is_complete() {
            return SymbolSet::default();
        }
        let needed = self.missing - self.parity;
        let parity = self.absent(self.len..self.symbols.len());
        let mut wish = SymbolSet::default();
        parity
            .iter()
            .take(needed)
            .for_each(|symbol| wish.insert(symbol));
        let source = self.absent(0..self.len);
        let spared = parity.len().min(needed) + self.parity;
        source
            .iter()
            .skip(spared)
            .for_each(|symbol| wish.insert(symbol));
        wish
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(block: &Block) -> Vec<usize> {
        block.wish().iter().collect()
    }

    #[test]
    fn parity_is_wished_for_first() {
        let mut code = Code::new(6, 2).unwrap();
        let source: Vec<Bytes> = (0u8..6).map(|i| vec![i; 4].into()).collect();
        let parity = code.encode(&source);
        let mut block = Block::new(6, 2);
        assert_eq!(wish(&block), [2, 3, 4, 5, 6, 7]);
        for symbol in [0, 2, 4] {
            assert!(block.put(symbol, source[symbol].clone()));
            assert!(!block.put(symbol, source[symbol].clone()));
        }
        assert_eq!(wish(&block), [5, 6, 7]);
        assert_eq!(block.wish_within(4).iter().collect::<Vec<_>>(), [1, 3]);
        block.put(7, parity[1].clone());
        assert_eq!(wish(&block), [5, 6]);
        block.put(5, source[5].clone());
        assert_eq!(wish(&block), [6]);
        assert_eq!(block.decode(&mut code), 0);
        block.put(6, parity[0].clone());
        assert_eq!(block.decode(&mut code), 2);
        assert!(block.is_complete() && wish(&block).is_empty());
        assert_eq!(block.source(3), Some(&source[3]));
        assert!(!block.put(7, parity[1].clone()));
    }
}
