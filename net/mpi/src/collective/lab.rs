//! Schedules of all ranks, carried out in one place, in an order that is unkind: always the
//! highest rank first that can go on.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::{Region, Row, Schedule, Step};

/// Bytes of the elements that [`Lab::of_operands`] makes: the first and last rank whose operands
/// are in it, and its number.
pub(super) const WIDTH: usize = 6;

/// Bytes that tell a rank's from another's.
pub(super) fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seed * 37 + at * 11 + 5) as u8).collect()
}

/// All ranks.
pub(super) struct Lab {
    schedules: Vec<Schedule>,
    next: Vec<usize>,
    held: Vec<bool>,
    sent: Vec<Vec<u8>>,
    pub(super) received: Vec<Vec<u8>>,
    scratch: Vec<Vec<u8>>,
    /// Messages by (from, to).
    ways: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    waiting: Vec<Vec<(usize, Region)>>,
}

impl Lab {
    pub(super) fn new(schedules: Vec<Schedule>, sent: Vec<Vec<u8>>, lengths: Vec<usize>) -> Lab {
        let size = schedules.len();
        Lab {
            next: vec![0; size],
            held: vec![false; size],
            sent,
            received: lengths.into_iter().map(|len| vec![0; len]).collect(),
            scratch: schedules.iter().map(|s| vec![0; s.scratch]).collect(),
            ways: BTreeMap::new(),
            waiting: vec![Vec::new(); size],
            schedules,
        }
    }

    /// Everybody has `count` elements that say whose they are.
    pub(super) fn of_operands(
        schedules: Vec<Schedule>,
        size: usize,
        count: usize,
        in_place: bool,
    ) -> Lab {
        let row = |rank: usize| -> Vec<u8> {
            let element = |number: usize| {
                [rank as u16, rank as u16, number as u16]
                    .map(u16::to_le_bytes)
                    .concat()
            };
            (0..count).flat_map(element).collect()
        };
        let rows: Vec<Vec<u8>> = (0..size).map(row).collect();
        let mut lab = Lab::new(schedules, rows.clone(), vec![count * WIDTH; size]);
        if in_place {
            lab.received = rows;
        }
        lab
    }

    pub(super) fn hold(&mut self, rank: usize) {
        self.held[rank] = true;
    }

    pub(super) fn release(&mut self, rank: usize) {
        self.held[rank] = false;
    }

    pub(super) fn is_done(&self, rank: usize) -> bool {
        !self.held[rank] && self.next[rank] == self.schedules[rank].steps.len()
    }

    /// Goes on as far as possible.
    pub(super) fn run(&mut self) {
        while let Some(rank) = (0..self.schedules.len())
            .rev()
            .find(|rank| self.can_go(*rank))
        {
            self.step(rank);
        }
    }

    /// To the end of all.
    pub(super) fn finish(&mut self) {
        self.run();
        for rank in 0..self.schedules.len() {
            assert!(
                self.is_done(rank),
                "rank {rank} hangs: {:?}",
                self.schedules[rank]
            );
        }
        assert!(
            self.ways.values().all(VecDeque::is_empty),
            "a message for nobody"
        );
    }

    fn can_go(&self, rank: usize) -> bool {
        if self.held[rank] || self.next[rank] == self.schedules[rank].steps.len() {
            return false;
        }
        if self.schedules[rank].steps[self.next[rank]] != Step::Wait {
            return true;
        }
        let mut wanted: BTreeMap<usize, usize> = BTreeMap::new();
        for (from, _) in &self.waiting[rank] {
            *wanted.entry(*from).or_default() += 1;
        }
        wanted
            .into_iter()
            .all(|(from, count)| self.ways.get(&(from, rank)).map_or(0, VecDeque::len) >= count)
    }

    fn row(&mut self, rank: usize, row: Row) -> &mut Vec<u8> {
        match row {
            Row::Send => &mut self.sent[rank],
            Row::Receive => &mut self.received[rank],
            Row::Scratch => &mut self.scratch[rank],
        }
    }

    fn read(&mut self, rank: usize, region: Region) -> Vec<u8> {
        self.row(rank, region.row)[region.at..region.at + region.len].to_vec()
    }

    fn write(&mut self, rank: usize, region: Region, bytes: &[u8]) {
        self.row(rank, region.row)[region.at..region.at + region.len].copy_from_slice(bytes);
    }

    fn step(&mut self, rank: usize) {
        let step = self.schedules[rank].steps[self.next[rank]];
        self.next[rank] += 1;
        match step {
            Step::Send { to, region } => {
                let bytes = self.read(rank, region);
                self.ways
                    .entry((rank, to as usize))
                    .or_default()
                    .push_back(bytes);
            }
            Step::Receive { from, region } => self.waiting[rank].push((from as usize, region)),
            Step::Wait => {
                for (from, region) in std::mem::take(&mut self.waiting[rank]) {
                    let bytes = self
                        .ways
                        .get_mut(&(from, rank))
                        .and_then(VecDeque::pop_front);
                    self.write(rank, region, &bytes.unwrap());
                }
            }
            Step::Copy { from, into } => {
                let bytes = self.read(rank, from);
                self.write(rank, into, &bytes);
            }
            Step::Reduce {
                from,
                into,
                flipped,
            } => {
                let (left, right) = (self.read(rank, from), self.read(rank, into));
                let (left, right) = if flipped {
                    (right, left)
                } else {
                    (left, right)
                };
                self.write(rank, into, &join(&left, &right));
            }
        }
    }
}

/// Neighbours become one; others become what says so: the operands' number in the last place.
fn join(left: &[u8], right: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    for (left, right) in left.chunks_exact(WIDTH).zip(right.chunks_exact(WIDTH)) {
        let read = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(read(left, 4), read(right, 4), "elements of one number");
        let in_order = read(left, 2).wrapping_add(1) == read(right, 0);
        // Without order, only the number of operands is kept.
        let fields = match in_order {
            true => [read(left, 0), read(right, 2), read(left, 4)],
            false => {
                let operands = |bytes| 1 + read(bytes, 2).wrapping_sub(read(bytes, 0));
                [
                    u16::MAX / 2,
                    u16::MAX / 2 + operands(left) + operands(right) - 1,
                    read(left, 4),
                ]
            }
        };
        joined.extend(fields.map(u16::to_le_bytes).concat());
    }
    joined
}

/// The elements hold the operands of these ranks, in order if the order matters.
pub(super) fn assert_reduced(
    row: &[u8],
    ranks: Range<usize>,
    numbers: Range<usize>,
    commutes: bool,
) {
    assert_eq!(row.len(), numbers.len() * WIDTH);
    for (element, number) in row.chunks_exact(WIDTH).zip(numbers) {
        let read = |at: usize| u16::from_le_bytes([element[at], element[at + 1]]) as usize;
        assert_eq!(read(4), number);
        assert_eq!(read(2) + 1 - read(0), ranks.len(), "operands");
        if !commutes {
            assert_eq!(
                (read(0), read(2) + 1),
                (ranks.start, ranks.end),
                "the order"
            );
        }
    }
}
