//! The batches that are appended and not yet written, put together into runs: what one vectored
//! write takes.
//!
//! Small batches are copied into one buffer, so that a turn's worth of them is one piece of
//! memory, to the kernel and to readers of the tail; large ones stay where they are, except for
//! their header where the bytes are shared. A run belongs to one segment. What becomes of it is
//! told to all who appended to it through its [`Fate`]: offsets that were given out and taken
//! back (no space) are given out again, so that an offset alone does not say whose record it
//! was. Pure; bounded by [`QUEUE_BYTES_MAX`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmill_wire::batch::{self, Assignment, BatchView, HEADER_LEN};

use crate::aborted::AbortedTxn;
use crate::checkpoint::Mark;
use crate::flush::Front;
use crate::producers::Undo;

/// Bytes that may wait to be written. Past it appends are refused until there is room.
pub(crate) const QUEUE_BYTES_MAX: u64 = 16 << 20;
/// A run takes no more batches once it has so many bytes.
const RUN_BYTES_MAX: u64 = 4 << 20;
/// A run takes no more batches once it has so many pieces (the kernel takes 1024, `IOV_MAX`).
const RUN_PARTS_MAX: usize = 512;
/// Batches up to this size are copied. A memory copy of this size costs about a microsecond;
/// a piece of its own costs the kernel as much, and would keep alive the whole network buffer
/// that it was received into.
const COPY_BYTES_MAX: usize = 8 << 10;
/// The buffer that small batches are copied into grows up to this size.
const GATHER_CAPACITY_MAX: usize = 64 << 10;

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in the queue.
    Pending,
    /// It is in the file, at its offset for good.
    Written,
    /// It was taken back: there was no space.
    Dropped,
}

/// A batch in a run.
#[derive(Debug)]
pub(crate) struct QueuedBatch {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) size: u32,
    pub(crate) undo: Option<Undo>,
    /// The transaction that it aborts, as a marker.
    pub(crate) aborted: Option<AbortedTxn>,
}

/// What one write takes.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) fate: Rc<Cell<Fate>>,
    /// The log's end behind it.
    pub(crate) end: Mark,
    pub(crate) bytes: u64,
    pub(crate) parts: Vec<Bytes>,
    pub(crate) batches: Vec<QueuedBatch>,
    gather: BytesMut,
}

impl Run {
    fn new(end: Mark) -> Self {
        Run {
            fate: Rc::new(Cell::new(Fate::Pending)),
            end,
            bytes: 0,
            parts: Vec::new(),
            batches: Vec::new(),
            gather: BytesMut::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= RUN_BYTES_MAX || self.parts.len() >= RUN_PARTS_MAX
    }

    /// Adds a batch's bytes with its assignment set, if it has one; else as they are.
    fn put(&mut self, batch: Bytes, assignment: Option<Assignment>) {
        self.bytes += batch.len() as u64;
        if batch.len() > COPY_BYTES_MAX {
            let Some(assignment) = assignment else {
                self.close_gather();
                self.parts.push(batch);
                return;
            };
            match batch.try_into_mut() {
                Ok(owned) => self.put_owned(owned, assignment),
                Err(shared) => self.put_shared(&shared, assignment),
            }
            return;
        }
        let start = self.gather_room(batch.len());
        self.gather.extend_from_slice(&batch);
        if let Some(assignment) = assignment {
            assign(&mut self.gather[start..], assignment);
        }
    }

    fn put_owned(&mut self, mut batch: BytesMut, assignment: Assignment) {
        assign(&mut batch, assignment);
        self.close_gather();
        self.parts.push(batch.freeze());
    }

    fn put_shared(&mut self, batch: &Bytes, assignment: Assignment) {
        let view = BatchView::parse(batch).expect("the append has checked it");
        let header = batch::assigned_header(&view, assignment);
        self.gather_room(HEADER_LEN);
        self.gather.extend_from_slice(&header);
        self.close_gather();
        self.parts.push(batch.slice(HEADER_LEN..));
    }

    /// Makes room in the gathering buffer without ever moving what is in it. Returns where the
    /// next bytes go.
    fn gather_room(&mut self, len: usize) -> usize {
        let free = self.gather.capacity() - self.gather.len();
        if free < len {
            let next = (self.gather.capacity() * 2).clamp(len, GATHER_CAPACITY_MAX.max(len));
            self.close_gather();
            self.gather = BytesMut::with_capacity(next);
        }
        self.gather.len()
    }

    fn close_gather(&mut self) {
        if !self.gather.is_empty() {
            self.parts.push(self.gather.split().freeze());
        }
    }

    /// No batch is added any more.
    fn close(&mut self) {
        self.close_gather();
        self.gather = BytesMut::new();
    }
}

fn assign(batch: &mut [u8], assignment: Assignment) {
    batch::set_base_offset(batch, assignment.base_offset);
    batch::set_leader_epoch(batch, assignment.leader_epoch);
    if let Some(timestamp) = assignment.append_time {
        batch::set_append_time(batch, timestamp);
    }
}

/// The end of a segment in the queue: what must be on the disk before the next one begins.
#[derive(Debug)]
pub(crate) struct RollPlan {
    pub(crate) base_offset: i64,
    /// The new segment's index stride.
    pub(crate) shift: u8,
    /// The producers as they were at `base_offset`, if they changed since the last snapshot.
    pub(crate) snapshot: Option<Bytes>,
}

/// What happens between two runs while nothing is written, once all before it is flushed.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The segment ends, and the next begins.
    Roll(RollPlan),
    /// The segment goes on with batches that may leave offsets out.
    AllowGaps,
}

#[derive(Debug)]
enum Item {
    Run(Run),
    Turn(Turn),
}

/// Runs and rolls in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: VecDeque<Item>,
    bytes: u64,
    /// The runs that are being written.
    taken: VecDeque<Run>,
}

impl Queue {
    /// Bytes that wait; a run that was taken for its write counts until it has landed.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What comes next.
    pub(crate) fn front(&self) -> Front {
        match self.items.front() {
            None => Front::Empty,
            Some(Item::Run(run)) => Front::Batches { bytes: run.bytes },
            Some(Item::Turn(_)) => Front::Roll,
        }
    }

    /// Adds a batch, after which the log ends at `end`. Returns the fate that it shares.
    pub(crate) fn push(
        &mut self,
        bytes: Bytes,
        assignment: Option<Assignment>,
        batch: QueuedBatch,
        end: Mark,
    ) -> Rc<Cell<Fate>> {
        self.bytes += bytes.len() as u64;
        let open = matches!(self.items.back(), Some(Item::Run(run)) if !run.is_full());
        if !open {
            self.items.push_back(Item::Run(Run::new(end)));
        }
        let Some(Item::Run(run)) = self.items.back_mut() else {
            unreachable!("a run is open")
        };
        run.put(bytes, assignment);
        run.batches.push(batch);
        run.end = end;
        run.fate.clone()
    }

    /// Adds the end of a segment, or of what has no gaps in it.
    pub(crate) fn push_turn(&mut self, turn: Turn) {
        self.items.push_back(Item::Turn(turn));
    }

    /// Takes the run at the front, to be written. It stays here until it has landed.
    pub(crate) fn take_run(&mut self) -> &Run {
        match self.items.pop_front() {
            Some(Item::Run(mut run)) => {
                run.close();
                self.taken.push_back(run);
            }
            other => unreachable!("a run was at the front, not {other:?}"),
        }
        self.taken.back().expect("it was just put there")
    }

    /// The first of the runs that were taken is in the file.
    pub(crate) fn land(&mut self) -> Run {
        let run = self.taken.pop_front().expect("a run was taken");
        self.bytes -= run.bytes;
        run
    }

    /// Takes the turn at the front, to be carried out.
    pub(crate) fn take_turn(&mut self) -> Turn {
        match self.items.pop_front() {
            Some(Item::Turn(turn)) => turn,
            other => unreachable!("a turn was at the front, not {other:?}"),
        }
    }

    /// Gives back the memory of an empty queue.
    pub(crate) fn give_back(&mut self) {
        if self.items.is_empty() && self.taken.is_empty() {
            *self = Self::default();
        }
    }

    /// Gives up everything: the runs, in the order of the log, those included that were taken.
    pub(crate) fn drain(&mut self) -> Vec<Run> {
        let runs = self.items.drain(..).filter_map(|item| match item {
            Item::Run(run) => Some(run),
            Item::Turn(_) => None,
        });
        let runs = self.taken.drain(..).chain(runs).collect();
        self.bytes = 0;
        runs
    }

    /// The fate of the batch that holds an offset, for one that is not known to be written.
    pub(crate) fn fate_of(&self, offset: i64) -> Option<Rc<Cell<Fate>>> {
        let queued = self.items.iter().filter_map(|item| match item {
            Item::Run(run) => Some(run),
            Item::Turn(_) => None,
        });
        let mut runs = self.taken.iter().chain(queued);
        let found = runs.find(|run| offset < run.end.offset);
        found.map(|run| run.fate.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringmill_wire::batch::{Compression, ProducerStamp};
    use ringmill_wire::builder::{BatchBuilder, NewRecord};

    fn batch(value_len: usize) -> Bytes {
        let mut builder = BatchBuilder::new(1 << 20);
        let value = vec![7; value_len];
        let record = NewRecord {
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
        builder.seal(Compression::None, ProducerStamp::NONE)
    }

    proptest! {
        /// Copied, patched in place or split: the bytes of the write are those of the batches
        /// with their assignments, and nobody else's copy changes.
        #[test]
        fn a_run_holds_the_batches_as_assigned(
            shapes in prop::collection::vec((prop_oneof![1usize..300, 8_000usize..30_000], any::<bool>()), 1..60),
            append_time in prop::option::of(0i64..1 << 40),
        ) {
            let mut queue = Queue::default();
            let (mut expected, mut kept, mut end) = (Vec::new(), Vec::new(), Mark::start_of(100));
            for (value_len, shared) in shapes {
                let bytes = batch(value_len);
                let assignment = Assignment { base_offset: end.offset, leader_epoch: 9, append_time };
                let mut model = bytes.to_vec();
                assign(&mut model, assignment);
                expected.extend_from_slice(&model);
                if shared {
                    kept.push((bytes.clone(), bytes.to_vec()));
                }
                end = end.plus(1, bytes.len() as u64);
                let queued = QueuedBatch {
                    base_offset: end.offset - 1,
                    last_offset: end.offset - 1,
                    max_timestamp: 0,
                    size: bytes.len() as u32,
                    undo: None,
                    aborted: None,
                };
                queue.push(bytes, Some(assignment), queued, end);
            }
            prop_assert_eq!(queue.bytes(), expected.len() as u64);
            let mut found = Vec::new();
            while let Front::Batches { bytes } = queue.front() {
                queue.take_run();
                let run = queue.land();
                prop_assert_eq!(run.bytes, bytes);
                prop_assert_eq!(run.parts.iter().map(|p| p.len() as u64).sum::<u64>(), bytes);
                prop_assert!(run.parts.len() <= RUN_PARTS_MAX + 2);
                run.parts.iter().for_each(|part| found.extend_from_slice(part));
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(queue.bytes(), 0);
            for (bytes, before) in kept {
                prop_assert_eq!(&bytes[..], &before[..]);
            }
        }
    }

    #[test]
    fn small_batches_share_one_piece() {
        let mut queue = Queue::default();
        let mut end = Mark::start_of(0);
        for _ in 0..100 {
            let bytes = batch(100);
            end = end.plus(1, bytes.len() as u64);
            let assignment = Assignment {
                base_offset: end.offset - 1,
                leader_epoch: 0,
                append_time: None,
            };
            let queued = QueuedBatch {
                base_offset: end.offset - 1,
                last_offset: end.offset - 1,
                max_timestamp: 0,
                size: bytes.len() as u32,
                undo: None,
                aborted: None,
            };
            queue.push(bytes, Some(assignment), queued, end);
        }
        assert!(queue.take_run().parts.len() < 10);
    }
}
