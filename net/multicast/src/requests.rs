//! Repair requests from wishes, and wishes from repair requests.

use std::ops::RangeInclusive;

use crate::place::unwrap;
use crate::symbols::SymbolSet;
use crate::wire::{
    FecId, Form, PayloadId, REQUEST_HEAD, RepairItem, RepairRequest, item_len, repair_flags,
};

/// Builds the requests of one message, within its size.
#[derive(Debug)]
pub(crate) struct Requests {
    fec: FecId,
    room: usize,
    list: Vec<RepairRequest>,
    full: bool,
}

impl Requests {
    /// For a message whose requests may have so many bytes.
    pub(crate) fn new(fec: FecId, room: usize) -> Requests {
        Requests {
            fec,
            room,
            list: Vec::new(),
            full: false,
        }
    }

    /// Something did not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// What was wished for.
    pub(crate) fn finish(self) -> Vec<RepairRequest> {
        self.list
    }

    /// An object's INFO.
    pub(crate) fn info(&mut self, object: u64) {
        let item = self.item(object, 0, 0, 0);
        self.add(repair_flags::INFO, item, item);
    }

    /// A whole object.
    pub(crate) fn object(&mut self, object: u64) {
        let item = self.item(object, 0, 0, 0);
        self.add(repair_flags::OBJECT, item, item);
    }

    /// Whole blocks, from and to.
    pub(crate) fn blocks(&mut self, object: u64, first: u64, last: u64, block_len: usize) {
        let first = self.item(object, first, 0, block_len);
        let last = self.item(object, last, 0, block_len);
        self.add(repair_flags::BLOCK, first, last);
    }

    /// Symbols of a block.
    pub(crate) fn symbols(&mut self, object: u64, block: u64, block_len: usize, set: SymbolSet) {
        for (first, last) in set.runs() {
            let first = self.item(object, block, first, block_len);
            let last = self.item(object, block, last, block_len);
            self.add(repair_flags::SEGMENT, first, last);
        }
    }

    fn item(&self, object: u64, block: u64, symbol: usize, block_len: usize) -> RepairItem {
        RepairItem {
            fec: self.fec,
            object: object as u16,
            id: PayloadId {
                block: (block & ((1 << self.fec.block_bits()) - 1)) as u32,
                symbol: symbol as u16,
                block_len: match self.fec {
                    FecId::SmallBlock => block_len as u16,
                    _ => 0,
                },
            },
        }
    }

    fn add(&mut self, flags: u8, first: RepairItem, last: RepairItem) {
        let (form, items) = match first == last {
            true => (Form::Items, vec![first]),
            false => (Form::Ranges, vec![first, last]),
        };
        let goes_on = |request: &RepairRequest| (request.form, request.flags) == (form, flags);
        let joins = self.list.last().is_some_and(goes_on);
        let head = if joins { 0 } else { REQUEST_HEAD };
        let len = head + items.len() * item_len(self.fec);
        if self.full || len > self.room {
            self.full = true;
            return;
        }
        self.room -= len;
        match self.list.last_mut().filter(|_| joins) {
            Some(request) => request.items.extend(items),
            None => self.list.push(RepairRequest { form, flags, items }),
        }
    }
}

/// What one item or range of a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The INFO of objects.
    Info(RangeInclusive<u64>),
    /// Whole objects.
    Objects(RangeInclusive<u64>),
    /// Whole blocks of an object, numbered as on the wire.
    Blocks(u64, u32, u32),
    /// Symbols of an object's block, numbered as on the wire.
    Symbols(u64, u32, RangeInclusive<u16>),
}

/// The wishes of a message. Objects are those nearest to `near`. Erasure counts (which neither
/// libnorm nor we send) and ranges across objects or blocks are not wishes that can be met.
pub(crate) fn wishes(requests: &[RepairRequest], near: u64) -> impl Iterator<Item = Wish> + '_ {
    let known = requests.iter().filter(|r| r.form != Form::Erasures);
    known.flat_map(move |request| {
        let flags = request.flags;
        let both = request.spans().flat_map(move |(first, last)| {
            let (Some(from), Some(to)) = (
                unwrap(near, first.object.into(), 16),
                unwrap(near, last.object.into(), 16),
            ) else {
                return [None, None];
            };
            let asks_for = |flag| flags & flag != 0;
            let info = asks_for(repair_flags::INFO).then_some(Wish::Info(from..=to));
            let main = if asks_for(repair_flags::SEGMENT) {
                let within = from == to && first.id.block == last.id.block;
                let symbols = first.id.symbol..=last.id.symbol;
                within.then_some(Wish::Symbols(from, first.id.block, symbols))
            } else if asks_for(repair_flags::BLOCK) {
                (from == to).then_some(Wish::Blocks(from, first.id.block, last.id.block))
            } else if asks_for(repair_flags::OBJECT) {
                Some(Wish::Objects(from..=to))
            } else {
                None
            };
            [info, main]
        });
        both.flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_survive_the_wire() {
        let mut requests = Requests::new(FecId::Rs8, 1400);
        let mut set = SymbolSet::range(3..6);
        set.insert(9);
        requests.symbols(65_540, 7, 64, set);
        requests.blocks(65_540, 9, 12, 64);
        requests.object(65_541);
        requests.info(65_542);
        let list = requests.finish();
        let found: Vec<Wish> = wishes(&list, 65_536).collect();
        let expected = [
            Wish::Symbols(65_540, 7, 3..=5),
            Wish::Symbols(65_540, 7, 9..=9),
            Wish::Blocks(65_540, 9, 12),
            Wish::Objects(65_541..=65_541),
            Wish::Info(65_542..=65_542),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let mut requests = Requests::new(FecId::SmallBlock, 60);
        for block in 0..10 {
            requests.symbols(1, block, 64, SymbolSet::range(0..1));
        }
        assert!(requests.is_full());
        let list = requests.finish();
        assert_eq!(list.iter().map(RepairRequest::wire_len).sum::<usize>(), 52);
        assert_eq!(list.len(), 1);
    }
}
