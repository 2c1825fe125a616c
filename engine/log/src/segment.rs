//! One segment as the partition knows it: a few words, whatever its size.

use std::cell::Cell;

use crate::index::Seal;

/// A segment's place in the log. Its files are opened when they are needed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: i64,
    /// Of its index: the stride is `1 << shift` offsets.
    pub(crate) shift: Cell<u8>,
    /// Set once nothing more is appended to it.
    pub(crate) seal: Cell<Option<Seal>>,
    /// The index and the seal's timestamps can be used; else they are built anew first.
    pub(crate) indexed: Cell<bool>,
    /// How often the index was built anew.
    pub(crate) mends: Cell<u32>,
    /// It may have been compacted: offsets may be left out.
    pub(crate) compacted: Cell<bool>,
}

impl Segment {
    pub(crate) fn new(base_offset: i64, shift: u8, seal: Option<Seal>, indexed: bool) -> Self {
        Segment {
            base_offset,
            shift: Cell::new(shift),
            seal: Cell::new(seal),
            indexed: Cell::new(indexed),
            mends: Cell::new(0),
            compacted: Cell::new(seal.is_some_and(|seal| seal.compacted.is_some())),
        }
    }

    /// As the trie has it. Offsets are never negative.
    pub(crate) fn key(&self) -> u64 {
        self.base_offset as u64
    }
}
