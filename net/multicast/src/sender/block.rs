//! One source block as its sender keeps it: what is to be sent of it, and what was asked for.

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::Instant;

use crate::fec::Code;
use crate::symbols::SymbolSet;

/// A block: first filled, then sent, then kept for repair.
#[derive(Debug)]
pub(super) struct Block {
    source: Vec<Bytes>,
    /// Source symbols when it is full.
    len: usize,
    /// Made when it is first asked for.
    parity: Vec<Bytes>,
    pending: SymbolSet,
    sent: SymbolSet,
    /// Asked for, and to become pending when the round of asking ends.
    asked: SymbolSet,
    /// Parity symbols, from the first, that earlier rounds have used up.
    parity_used: usize,
    /// And this one, behind those.
    parity_asked: usize,
    /// When something of it was last sent or asked for.
    pub(super) touched: Instant,
    /// When something of it was last sent again.
    repaired: Option<Instant>,
}

impl Block {
    pub(super) fn new(now: Instant, len: usize) -> Block {
        Block {
            source: Vec::with_capacity(len),
            len,
            parity: Vec::new(),
            pending: SymbolSet::default(),
            sent: SymbolSet::default(),
            asked: SymbolSet::default(),
            parity_used: 0,
            parity_asked: 0,
            touched: now,
            repaired: None,
        }
    }

    /// The next source symbol; with the last one, `auto_parity` symbols are due as well.
    pub(super) fn push(&mut self, segment: Bytes, auto_parity: usize) {
        assert!(!self.is_full(), "a full block is not added to");
        self.pending.insert(self.source.len());
        self.source.push(segment);
        if self.is_full() {
            let unasked = SymbolSet::range(self.len..self.len + auto_parity);
            self.pending = self.pending.union(unasked);
            self.parity_used = auto_parity;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.source.len() == self.len
    }

    /// Source symbols when it is full.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The next symbol to send.
    pub(super) fn next_pending(&self) -> Option<usize> {
        self.pending.first()
    }

    /// Nothing of it is to be sent or was asked for.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.is_empty() && self.asked.is_empty()
    }

    /// Takes a pending symbol to send it; tells whether it was sent before.
    pub(super) fn take(&mut self, now: Instant, symbol: usize, code: &mut Code) -> (Bytes, bool) {
        self.pending.remove(symbol);
        let again = self.sent.contains(symbol);
        self.sent.insert(symbol);
        self.touched = now;
        if again || symbol >= self.len {
            self.repaired = Some(now);
        }
        if self.pending.is_empty() {
            self.parity_used = (self.parity_used + self.parity_asked).min(code.parity());
            self.parity_asked = 0;
        }
        if symbol < self.len {
            return (self.source[symbol].clone(), again);
        }
        if self.parity.is_empty() {
            self.parity = code.encode(&self.source);
        }
        (self.parity[symbol - self.len].clone(), again)
    }

    /// A receiver wants symbols `first` to `last`, having wanted `before` of this block already
    /// in the same breath. A wish for parity is a wish for so many symbols: fresh ones serve all
    /// who miss anything; only when there are none are the very same sent again.
    pub(super) fn ask(&mut self, first: usize, last: usize, before: usize, parity: usize) {
        for symbol in first..=last.min(self.source.len().saturating_sub(1)) {
            if self.sent.contains(symbol) && !self.pending.contains(symbol) {
                self.asked.insert(symbol);
            }
        }
        if !self.is_full() || last < self.len {
            return;
        }
        let first = first.max(self.len);
        let last = last.min(self.len + parity - 1);
        let wanted = before + (last + 1).saturating_sub(first);
        let fresh = parity - self.parity_used;
        let explicit_too = self.asked.first().is_some_and(|symbol| symbol < self.len);
        if wanted <= fresh && !explicit_too {
            let base = self.len + self.parity_used;
            self.parity_asked = self.parity_asked.max(wanted);
            let wanted = SymbolSet::range(base..base + self.parity_asked);
            self.asked = self.asked.union(wanted.minus(self.pending));
        } else {
            let the_same = SymbolSet::range(first..last + 1);
            self.asked = self.asked.union(the_same.minus(self.pending));
        }
    }

    /// Repair of it is under way: who asks now may not have seen it yet.
    pub(super) fn is_under_repair(&self, now: Instant, grtt: Duration) -> bool {
        self.repaired.is_some_and(|at| now - at < grtt)
    }

    /// A receiver wants all of it.
    pub(super) fn ask_all(&mut self) {
        let source = SymbolSet::range(0..self.source.len());
        self.asked = self
            .asked
            .union(source.within(self.sent).minus(self.pending));
    }

    /// What is asked for at present.
    pub(super) fn asked(&self) -> SymbolSet {
        self.asked
    }

    /// What was asked for is to be sent; true if there was anything.
    pub(super) fn activate(&mut self) -> bool {
        let any = !self.asked.is_empty();
        self.pending = self.pending.union(std::mem::take(&mut self.asked));
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_block(code: &mut Code) -> Block {
        let now = Instant::default();
        let mut block = Block::new(now, 4);
        (0u8..4).for_each(|i| block.push(vec![i; 8].into(), 0));
        while let Some(symbol) = block.next_pending() {
            block.take(now, symbol, code);
        }
        block
    }

    fn round(block: &mut Block, code: &mut Code) -> Vec<usize> {
        block.activate();
        let mut symbols = Vec::new();
        while let Some(symbol) = block.next_pending() {
            block.take(Instant::default(), symbol, code);
            symbols.push(symbol);
        }
        symbols
    }

    #[test]
    fn parity_serves_those_who_miss_different_symbols() {
        let mut code = Code::new(4, 3).unwrap();
        let mut block = sent_block(&mut code);
        block.ask(4, 4, 0, 3);
        block.ask(4, 5, 0, 3);
        assert_eq!(round(&mut block, &mut code), [4, 5]);
        // Fresh parity for the next round, whichever number was asked for.
        block.ask(4, 4, 0, 3);
        assert_eq!(round(&mut block, &mut code), [6]);
        // None is left: the very same.
        block.ask(5, 5, 0, 3);
        assert_eq!(round(&mut block, &mut code), [5]);
        assert!(block.is_quiet());
    }

    #[test]
    fn explicit_requests_are_met_to_the_letter() {
        let mut code = Code::new(4, 2).unwrap();
        let mut block = sent_block(&mut code);
        block.ask(1, 1, 0, 2);
        block.ask(4, 5, 1, 2);
        assert_eq!(round(&mut block, &mut code), [1, 4, 5]);
        block.ask_all();
        assert_eq!(round(&mut block, &mut code), [0, 1, 2, 3]);
        block.ask(200, 250, 0, 2);
        assert!(round(&mut block, &mut code).is_empty());
    }
}
