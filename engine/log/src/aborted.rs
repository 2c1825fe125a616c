//! The aborted transactions of one segment: Kafka's `.txnindex`, in the order of their markers,
//! each in the segment that holds its marker.
//!
//! ```text
//! version i16 = 0 | producer id i64 | first offset i64 | last offset i64 | last stable offset i64
//! ```
//! Not derived from the segment alone: a transaction may begin in an earlier one. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::transactions::EndedTxn;

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 34;
const VERSION: i16 = 0;

/// A transaction whose records never happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTxn {
    /// Whose it was.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// Its marker.
    pub last_offset: i64,
    /// Up to here all others were decided when it ended: none that ends later has records before.
    pub last_stable_offset: i64,
}

impl AbortedTxn {
    /// If the transaction was aborted.
    pub fn of(ended: EndedTxn) -> Option<Self> {
        ended.aborted.then_some(AbortedTxn {
            producer_id: ended.producer_id,
            first_offset: ended.first_offset,
            last_offset: ended.last_offset,
            last_stable_offset: ended.last_stable_offset,
        })
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_i16(VERSION);
        out.put_i64(self.producer_id);
        out.put_i64(self.first_offset);
        out.put_i64(self.last_offset);
        out.put_i64(self.last_stable_offset);
    }

    fn parse(mut entry: &[u8]) -> Option<Self> {
        let version = entry.try_get_i16().ok()?;
        let txn = AbortedTxn {
            producer_id: entry.try_get_i64().ok()?,
            first_offset: entry.try_get_i64().ok()?,
            last_offset: entry.try_get_i64().ok()?,
            last_stable_offset: entry.try_get_i64().ok()?,
        };
        let sound = version == VERSION && txn.first_offset >= 0;
        (sound && txn.first_offset < txn.last_offset).then_some(txn)
    }
}

/// Makes the entries of a segment as its markers are written.
#[derive(Debug, Default)]
pub struct AbortedIndexBuilder {
    /// Entries that are in the file.
    written: u32,
    pending: Vec<AbortedTxn>,
}

impl AbortedIndexBuilder {
    /// For a segment whose first `written` entries are in the file.
    pub fn new(written: u32) -> Self {
        AbortedIndexBuilder {
            written,
            pending: Vec::new(),
        }
    }

    /// A transaction has ended so, behind all others.
    pub fn push(&mut self, txn: AbortedTxn) {
        self.pending.push(txn);
    }

    /// Entries so far.
    pub fn entries(&self) -> u32 {
        self.written + self.pending.len() as u32
    }

    /// Entries that are in the file.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// The entries that are not in the file.
    pub fn pending(&self) -> &[AbortedTxn] {
        &self.pending
    }

    /// Gives up the entries that are not in the file.
    pub fn take_pending(&mut self) -> Vec<AbortedTxn> {
        std::mem::take(&mut self.pending)
    }

    /// The entries that are not in the file, and where they belong in it.
    pub fn encode_pending(&self) -> (u64, Bytes) {
        let mut out = BytesMut::with_capacity(self.pending.len() * ENTRY_LEN);
        for txn in &self.pending {
            txn.put(&mut out);
        }
        (position(self.written), out.freeze())
    }

    /// The first `entries` entries are in the file now.
    pub fn on_written(&mut self, entries: u32) {
        let count = entries.saturating_sub(self.written) as usize;
        self.pending.drain(..count.min(self.pending.len()));
        self.written = self.written.max(entries);
    }
}

/// Where an entry stands in its file.
pub fn position(entry: u32) -> u64 {
    u64::from(entry) * ENTRY_LEN as u64
}

/// Reads entries up to the first one that is cut off, unsound or out of order.
pub fn parse(bytes: &[u8]) -> Vec<AbortedTxn> {
    let mut txns: Vec<AbortedTxn> = Vec::new();
    for entry in bytes.as_chunks::<ENTRY_LEN>().0 {
        let last = txns.last().map_or(-1, |txn| txn.last_offset);
        match AbortedTxn::parse(entry).filter(|txn| txn.last_offset > last) {
            Some(txn) => txns.push(txn),
            None => break,
        }
    }
    txns
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_read_back_in_order(
            shapes in prop::collection::vec((0i64..9, 1i64..50, 0i64..50), 0..40),
            written_every in 1usize..10,
            cut: prop::sample::Index,
        ) {
            let (mut builder, mut file, mut all) = (AbortedIndexBuilder::default(), Vec::new(), Vec::new());
            let mut next = 0;
            for (n, (producer_id, len, gap)) in shapes.into_iter().enumerate() {
                let txn = AbortedTxn {
                    producer_id,
                    first_offset: next,
                    last_offset: next + len,
                    last_stable_offset: next + len + 1,
                };
                next += len + gap;
                all.push(txn);
                builder.push(txn);
                if n % written_every == 0 {
                    let (at, entries) = builder.encode_pending();
                    prop_assert_eq!(at as usize, file.len());
                    file.extend_from_slice(&entries);
                    builder.on_written(builder.entries());
                }
            }
            file.extend_from_slice(&builder.encode_pending().1);
            prop_assert_eq!(parse(&file), all.clone());
            prop_assert_eq!(builder.entries() as usize, all.len());
            let cut = cut.index(file.len() + 1);
            prop_assert_eq!(parse(&file[..cut]), &all[..cut / ENTRY_LEN]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }

    #[test]
    fn the_layout_is_kafkas() {
        let mut builder = AbortedIndexBuilder::default();
        builder.push(AbortedTxn {
            producer_id: 1,
            first_offset: 2,
            last_offset: 3,
            last_stable_offset: 4,
        });
        let expected: Vec<u8> = 0i16
            .to_be_bytes()
            .into_iter()
            .chain((1..=4).flat_map(i64::to_be_bytes))
            .collect();
        assert_eq!(&builder.encode_pending().1[..], &expected[..]);
    }
}
