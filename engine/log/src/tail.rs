//! The hot tail: the last written bytes of each partition, kept in memory for the consumers that
//! are up to date, so that they never touch the file.
//!
//! All tails of a core share one budget ([`TailPool`]): when it is spent, the oldest piece of
//! any of them goes, so that busy partitions have long tails and idle ones none. The pieces are
//! the very buffers that were written. Pure.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use crate::queue::Run;

/// What a piece costs beside its bytes: the entries here and in the allocator.
const PIECE_OVERHEAD: usize = 128;

#[derive(Debug)]
struct Piece {
    at: u64,
    bytes: Bytes,
}

#[derive(Debug, Clone, Copy)]
struct TailBatch {
    base_offset: i64,
    next_offset: i64,
    at: u64,
}

/// What a tail has for a reader: whole batches, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TailSlice {
    pub(crate) bytes: Vec<Bytes>,
    pub(crate) len: usize,
    pub(crate) base_offset: i64,
    pub(crate) next_offset: i64,
}

/// The tail of one partition. Places (`at`) count the bytes ever pushed.
#[derive(Debug)]
pub(crate) struct Tail {
    pieces: VecDeque<Piece>,
    batches: VecDeque<TailBatch>,
    end: u64,
}

impl Tail {
    pub(crate) fn new() -> Self {
        Tail {
            pieces: VecDeque::new(),
            batches: VecDeque::new(),
            end: 0,
        }
    }

    fn push(&mut self, run: &Run) {
        let mut at = self.end;
        for batch in &run.batches {
            self.batches.push_back(TailBatch {
                base_offset: batch.base_offset,
                next_offset: batch.last_offset + 1,
                at,
            });
            at += u64::from(batch.size);
        }
        for part in &run.parts {
            self.pieces.push_back(Piece {
                at: self.end,
                bytes: part.clone(),
            });
            self.end += part.len() as u64;
        }
        assert_eq!(at, self.end, "the batches of a run are its bytes");
    }

    /// Drops the oldest piece and the batches that began in it.
    fn drop_oldest(&mut self) {
        self.pieces.pop_front();
        let start = self.pieces.front().map_or(self.end, |piece| piece.at);
        while self.batches.front().is_some_and(|batch| batch.at < start) {
            self.batches.pop_front();
        }
    }

    /// Whole batches from the one that holds `offset` on, up to `visible_end` and `max_bytes`,
    /// yet at least one if there is one. `None` if the tail does not reach so far back.
    ///
    /// The search is over this bounded list in memory alone.
    pub(crate) fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        visible_end: i64,
    ) -> Option<TailSlice> {
        let after = self
            .batches
            .partition_point(|batch| batch.base_offset <= offset);
        let mut first = after.checked_sub(1)?;
        if self.batches[first].next_offset <= offset {
            // the leader's log was compacted: no batch holds the offset
            first += 1;
            self.batches.get(first)?;
        }
        let start = self.batches[first].at;
        let visible = self
            .batches
            .partition_point(|batch| batch.base_offset < visible_end);
        if visible <= first {
            return None;
        }
        let limit = start.saturating_add(max_bytes as u64);
        let end_of = |n: usize| self.batches.get(n).map_or(self.end, |batch| batch.at);
        // the first batch that begins beyond the limit ends one that does not fit, unless it
        // begins right at it
        let fitting = self.batches.partition_point(|batch| batch.at <= limit);
        let last = if fitting == self.batches.len() && self.end <= limit {
            fitting
        } else {
            fitting - 1
        };
        let last = last.clamp(first + 1, visible);
        let (end, next_offset) = (end_of(last), self.batches[last - 1].next_offset);
        Some(TailSlice {
            bytes: self.slice(start, end),
            len: (end - start) as usize,
            base_offset: self.batches[first].base_offset,
            next_offset,
        })
    }

    fn slice(&self, start: u64, end: u64) -> Vec<Bytes> {
        let first = self.pieces.partition_point(|piece| piece.at <= start) - 1;
        let mut out = Vec::new();
        for piece in self.pieces.range(first..) {
            if piece.at >= end {
                break;
            }
            let from = start.saturating_sub(piece.at) as usize;
            let to = ((end - piece.at) as usize).min(piece.bytes.len());
            out.push(piece.bytes.slice(from..to));
        }
        out
    }
}

#[derive(Debug, Default)]
struct Order {
    pieces: VecDeque<(Weak<RefCell<Tail>>, usize)>,
    bytes: usize,
}

/// The memory that the tails of one core share.
#[derive(Debug)]
pub(crate) struct TailPool {
    order: RefCell<Order>,
    limit: usize,
}

impl TailPool {
    /// A pool of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        TailPool {
            order: RefCell::new(Order::default()),
            limit,
        }
    }

    /// Bytes in use, bookkeeping included.
    pub(crate) fn bytes(&self) -> usize {
        self.order.borrow().bytes
    }

    /// Adds a run that was written to its partition's tail, and drops what is too much: the
    /// oldest of all tails.
    pub(crate) fn push(&self, tail: &Rc<RefCell<Tail>>, run: &Run) {
        tail.borrow_mut().push(run);
        let mut order = self.order.borrow_mut();
        for part in &run.parts {
            let cost = part.len() + PIECE_OVERHEAD;
            order.pieces.push_back((Rc::downgrade(tail), cost));
            order.bytes += cost;
        }
        while order.bytes > self.limit {
            let Some((oldest, cost)) = order.pieces.pop_front() else {
                break;
            };
            order.bytes -= cost;
            if let Some(tail) = oldest.upgrade() {
                tail.borrow_mut().drop_oldest();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Mark;
    use crate::queue::{Queue, QueuedBatch};
    use proptest::prelude::*;
    use ringmill_wire::batch::{Assignment, BatchHeader, Compression, ProducerStamp};
    use ringmill_wire::builder::{BatchBuilder, NewRecord};

    /// A log in memory, next to its tail.
    struct Model {
        tail: Rc<RefCell<Tail>>,
        log: Vec<u8>,
        /// Base offset and start of each batch.
        batches: Vec<(i64, usize)>,
        end: Mark,
    }

    impl Model {
        fn new() -> Self {
            Model {
                tail: Rc::new(RefCell::new(Tail::new())),
                log: Vec::new(),
                batches: Vec::new(),
                end: Mark::start_of(0),
            }
        }

        fn append(&mut self, pool: &TailPool, shapes: &[(usize, usize)]) {
            let mut queue = Queue::default();
            for &(records, value_len) in shapes {
                let mut builder = BatchBuilder::new(1 << 20);
                let value = vec![self.batches.len() as u8; value_len];
                for _ in 0..records {
                    let record = NewRecord {
                        value: Some(&value),
                        ..NewRecord::default()
                    };
                    builder.append(&record).unwrap();
                }
                let bytes = builder.seal(Compression::None, ProducerStamp::NONE);
                let base_offset = self.end.offset;
                self.end = self.end.plus(records as i64, bytes.len() as u64);
                let batch = QueuedBatch {
                    base_offset,
                    last_offset: self.end.offset - 1,
                    max_timestamp: 0,
                    size: bytes.len() as u32,
                    undo: None,
                    aborted: None,
                };
                let assignment = Assignment {
                    base_offset,
                    leader_epoch: 0,
                    append_time: None,
                };
                self.batches.push((base_offset, self.log.len()));
                let start = self.log.len();
                self.log.extend_from_slice(&bytes);
                ringmill_wire::batch::set_base_offset(&mut self.log[start..], base_offset);
                ringmill_wire::batch::set_leader_epoch(&mut self.log[start..], 0);
                queue.push(bytes, Some(assignment), batch, self.end);
            }
            while queue.bytes() > 0 {
                queue.take_run();
                let run = queue.land();
                pool.push(&self.tail, &run);
            }
        }

        /// What a scan of the whole log answers: start and end.
        fn expected(&self, offset: i64, max_bytes: usize, visible: i64) -> (usize, usize) {
            let starts = |n: usize| self.batches.get(n).map_or(self.log.len(), |b| b.1);
            let first = self.batches.iter().rposition(|b| b.0 <= offset).unwrap();
            let mut last = first;
            while last + 1 < self.batches.len()
                && self.batches[last + 1].0 < visible
                && starts(last + 2) - starts(first) <= max_bytes
            {
                last += 1;
            }
            (starts(first), starts(last + 1))
        }
    }

    proptest! {
        #[test]
        fn a_tail_answers_as_the_whole_log_would(
            turns in prop::collection::vec(prop::collection::vec((1usize..6, prop_oneof![0usize..200, 9_000usize..12_000]), 1..6), 1..20),
            limit in prop_oneof![0usize..20_000, Just(1 << 20)],
            queries in prop::collection::vec((any::<prop::sample::Index>(), 0usize..30_000, any::<prop::sample::Index>()), 1..20),
        ) {
            let pool = TailPool::new(limit);
            let mut model = Model::new();
            for shapes in turns {
                model.append(&pool, &shapes);
                prop_assert!(pool.bytes() <= limit);
            }
            let batches = &model.batches;
            for (offset, max_bytes, visible) in queries {
                let offset = offset.index(model.end.offset as usize) as i64;
                // visible ends lie between batches
                let visible = visible.index(batches.len() + 1);
                let visible = batches.get(visible).map_or(model.end.offset, |b| b.0);
                let found = model.tail.borrow().read(offset, max_bytes, visible);
                let (start, end) = model.expected(offset, max_bytes, visible);
                let Some(found) = found else {
                    let base = BatchHeader::parse(&model.log[start..]).unwrap().base_offset;
                    let oldest = model.tail.borrow().batches.front().map(|b| b.base_offset);
                    prop_assert!(base >= visible || oldest.is_none_or(|o| o > offset));
                    continue;
                };
                prop_assert_eq!(found.bytes.concat(), &model.log[start..end]);
                prop_assert_eq!(found.len, end - start);
                prop_assert!(found.base_offset <= offset && offset < found.next_offset);
                prop_assert!(found.next_offset <= visible);
            }
        }
    }

    #[test]
    fn the_oldest_piece_of_any_partition_goes_first() {
        let pool = TailPool::new(30_000);
        let (mut idle, mut busy) = (Model::new(), Model::new());
        idle.append(&pool, &[(1, 10_000)]);
        busy.append(&pool, &[(1, 10_000)]);
        assert!(idle.tail.borrow().read(0, 1, 1).is_some());
        busy.append(&pool, &[(1, 10_000)]);
        assert!(idle.tail.borrow().read(0, 1, 1).is_none());
        assert!(busy.tail.borrow().read(0, 1, 2).is_some());
        drop(busy.tail);
        idle.append(&pool, &[(1, 10_000), (1, 10_000)]);
        assert!(pool.bytes() <= 30_000, "the dead are forgotten");
    }
}
