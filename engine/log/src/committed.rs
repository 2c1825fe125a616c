//! What readers of committed records may see (`isolation.level=read_committed`, KIP-98): the log
//! up to the last stable offset, and which transactions in it were aborted.

use std::rc::Rc;

use crate::aborted::{self, AbortedTxn};
use crate::error::{Damage, DamageReason, IoFailure, ReadError};
use crate::names::Kind;
use crate::partition::{Inner, Partition, Phase, State};
use crate::read::{FetchSlice, Reach};
use crate::segment::Segment;

/// Entries of an index of aborted transactions that are read at a time.
const ENTRIES_READ: u32 = 1024;

impl State {
    /// Before it, all transactions are decided, and their ends visible.
    pub(crate) fn last_stable(&self) -> i64 {
        let visible = self.visible_end();
        let first = self.producers.first_unstable();
        first.map_or(visible, |first| first.max(self.log_start).min(visible))
    }
}

impl Partition {
    /// The last stable offset: before it, all transactions are decided. Never beyond the visible
    /// end.
    pub fn last_stable_offset(&self) -> i64 {
        self.inner.state.borrow().last_stable()
    }

    /// As [`Partition::read`], up to the last stable offset.
    pub async fn read_committed(
        &self,
        offset: i64,
        max_bytes: usize,
    ) -> Result<FetchSlice, ReadError> {
        self.read_to(Reach::Stable, offset, max_bytes).await
    }

    /// The aborted transactions that have records from `from` on and before `until`, in the order
    /// of their markers. What is before `until` must be decided.
    pub async fn aborted(&self, from: i64, until: i64) -> Result<Vec<AbortedTxn>, ReadError> {
        self.inner.all_aborted(from, until).await
    }
}

impl Inner {
    pub(crate) async fn all_aborted(
        &self,
        from: i64,
        until: i64,
    ) -> Result<Vec<AbortedTxn>, ReadError> {
        self.undisturbed(async || self.find_aborted(from, until).await)
            .await
    }

    async fn find_aborted(&self, from: i64, until: i64) -> Result<Vec<AbortedTxn>, ReadError> {
        let segments: Vec<_> = {
            let state = self.state.borrow();
            if state.phase == Phase::Closed {
                return Err(ReadError::Closed);
            }
            let first = u64::try_from(from).ok();
            let first = first.and_then(|from| state.segments.predecessor(from));
            let first = first.map_or(0, |(key, _)| key);
            let all = state.segments.iter();
            let later = all.skip_while(|(key, _)| *key < first);
            later.map(|(_, segment)| segment.clone()).collect()
        };
        let mut found = Vec::new();
        for segment in segments {
            let done = self.aborted_in(&segment, from, until, &mut found);
            if done.await? {
                break;
            }
        }
        Ok(found)
    }

    /// Adds those of one segment; returns whether none that ends later can have a part in the
    /// range.
    async fn aborted_in(
        &self,
        segment: &Rc<Segment>,
        from: i64,
        until: i64,
        found: &mut Vec<AbortedTxn>,
    ) -> Result<bool, ReadError> {
        let mut entry = self.first_aborted(segment, from).await?;
        loop {
            let txns = self.read_aborted(segment, entry).await?;
            if txns.is_empty() {
                return Ok(false);
            }
            entry += txns.len() as u32;
            for txn in txns {
                if txn.first_offset < until && txn.last_offset >= from {
                    found.push(txn);
                }
                if txn.last_stable_offset >= until {
                    return Ok(true);
                }
            }
        }
    }

    /// The first entry whose marker is at `from` or later: their markers go up.
    async fn first_aborted(&self, segment: &Rc<Segment>, from: i64) -> Result<u32, ReadError> {
        let (mut low, mut high) = (0, self.aborted_entries(segment).0);
        while high - low > ENTRIES_READ {
            let middle = low + (high - low) / 2;
            let txns = self.read_entries(segment, middle, 1).await?;
            if txns.first().is_some_and(|txn| txn.last_offset < from) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// How many entries a segment has in its file, and how many in all.
    fn aborted_entries(&self, segment: &Segment) -> (u32, u32) {
        let state = self.state.borrow();
        if state.is_active(segment) {
            let aborted = &state.active.aborted;
            return (aborted.written(), aborted.entries());
        }
        let sealed = segment.seal.get().map_or(0, |seal| seal.aborted_entries);
        (sealed, sealed)
    }

    /// The next entries of a segment; none at its end.
    async fn read_aborted(
        &self,
        segment: &Rc<Segment>,
        entry: u32,
    ) -> Result<Vec<AbortedTxn>, ReadError> {
        let (in_file, all) = self.aborted_entries(segment);
        if entry >= all {
            return Ok(Vec::new());
        }
        if entry < in_file {
            let count = (in_file - entry).min(ENTRIES_READ);
            return self.read_entries(segment, entry, count).await;
        }
        let state = self.state.borrow();
        let skip = (entry - state.active.aborted.written()) as usize;
        Ok(state.active.aborted.pending()[skip..].to_vec())
    }

    /// Entries that are in the file.
    async fn read_entries(
        &self,
        segment: &Segment,
        entry: u32,
        count: u32,
    ) -> Result<Vec<AbortedTxn>, ReadError> {
        let base = segment.base_offset;
        let path = self.path(base, Kind::TxnIndex);
        let len = aborted::position(count) as usize;
        let bytes = match self.open_file(base, Kind::TxnIndex).await {
            Ok(file) => file.read_at(aborted::position(entry), len).await,
            Err(failure) => Err(failure.error),
        };
        let bytes = match bytes {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(IoFailure::of("read", &path)(error).into());
            }
            found => found.unwrap_or_default(),
        };
        let txns = aborted::parse(&bytes);
        if txns.len() == count as usize {
            return Ok(txns);
        }
        // without it, aborted records would pass for committed ones
        Err(ReadError::Damaged(Damage {
            file: path,
            bytes: aborted::position(entry)..aborted::position(entry + count),
            offsets: base..segment.seal.get().map_or(base + 1, |seal| seal.end_offset),
            reason: DamageReason::Missing,
        }))
    }
}
