//! What others asked for since a receiver began to wait with its own request: what they asked for
//! it need not (RFC 5401 §3.2.3).

use std::collections::{BTreeMap, BTreeSet};

use super::object::Object;
use crate::requests::{Wish, wishes};
use crate::symbols::SymbolSet;
use crate::wire::RepairRequest;

/// Entries of each kind; what goes beyond is asked for twice, no more.
const ENTRIES_MAX: usize = 4096;

/// Others' requests.
#[derive(Debug, Default)]
pub(super) struct Overheard {
    objects: BTreeSet<u64>,
    infos: BTreeSet<u64>,
    blocks: BTreeSet<(u64, u64)>,
    symbols: BTreeMap<(u64, u64), SymbolSet>,
}

impl Overheard {
    /// A request was overheard. `near` is an object of the sender's, `objects` those that are
    /// incomplete here: others do not matter.
    pub(super) fn add(
        &mut self,
        requests: &[RepairRequest],
        near: u64,
        bits: u32,
        objects: &BTreeMap<u64, Object>,
    ) {
        for wish in wishes(requests, near) {
            match wish {
                Wish::Info(ids) => self.infos.extend(ids.take(ENTRIES_MAX)),
                Wish::Objects(ids) => self.objects.extend(ids.take(ENTRIES_MAX)),
                Wish::Blocks(id, first, last) => {
                    let Some(object) = objects.get(&id) else {
                        continue;
                    };
                    let numbers = (
                        object.block_number(first, bits),
                        object.block_number(last, bits),
                    );
                    if let (Some(first), Some(last)) = numbers {
                        let blocks = (first..=last).take(ENTRIES_MAX);
                        self.blocks.extend(blocks.map(|block| (id, block)));
                    }
                }
                Wish::Symbols(id, block, symbols) => {
                    let Some(object) = objects.get(&id) else {
                        continue;
                    };
                    if let Some(block) = object.block_number(block, bits)
                        && self.symbols.len() < ENTRIES_MAX
                    {
                        let set = self.symbols.entry((id, block)).or_default();
                        symbols
                            .take_while(|s| *s < 256)
                            .for_each(|s| set.insert(s.into()));
                    }
                }
            }
            self.bound();
        }
    }

    fn bound(&mut self) {
        if self.infos.len() + self.objects.len() + self.blocks.len() > 4 * ENTRIES_MAX {
            *self = Overheard::default();
        }
    }

    pub(super) fn has_object(&self, id: u64) -> bool {
        self.objects.contains(&id)
    }

    pub(super) fn has_info(&self, id: u64) -> bool {
        self.infos.contains(&id) || self.has_object(id)
    }

    pub(super) fn has_block(&self, id: u64, block: u64) -> bool {
        self.blocks.contains(&(id, block)) || self.has_object(id)
    }

    /// What of a wish for a block's symbols no one has asked for. Parity counts by number: any
    /// is as good as any other, and the sender sends fresh ones.
    pub(super) fn uncovered(
        &self,
        id: u64,
        block: u64,
        wish: SymbolSet,
        block_len: usize,
    ) -> SymbolSet {
        if self.has_block(id, block) {
            return SymbolSet::default();
        }
        let Some(others) = self.symbols.get(&(id, block)) else {
            return wish;
        };
        let source = SymbolSet::range(0..block_len);
        let (mine, theirs) = (wish.minus(source), others.minus(source));
        let missing = wish.within(source).minus(*others);
        match mine.len() <= theirs.len() {
            true => missing,
            false => missing.union(mine),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parity_is_covered_by_number_and_source_by_name() {
        let mut overheard = Overheard::default();
        let mut others = SymbolSet::range(1..3);
        others.insert(66);
        others.insert(67);
        overheard.symbols.insert((1, 5), others);
        let uncovered = |symbols: &[usize]| {
            let mut wish = SymbolSet::default();
            symbols.iter().for_each(|s| wish.insert(*s));
            let rest = overheard.uncovered(1, 5, wish, 64);
            rest.iter().collect::<Vec<_>>()
        };
        assert_eq!(uncovered(&[1, 2, 64, 65]), []);
        assert_eq!(uncovered(&[1, 3, 64]), [3]);
        assert_eq!(uncovered(&[64, 65, 66]), [64, 65, 66]);
        let other_block = overheard.uncovered(1, 6, SymbolSet::range(0..1), 64);
        assert_eq!(other_block.len(), 1);
    }
}
