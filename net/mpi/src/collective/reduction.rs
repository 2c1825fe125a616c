//! Everybody's elements, made one by an operation.
//!
//! Operations may be such that the order of the operands matters: then only schedules are used
//! that combine neighbours, the lower rank's operand to the left.

use super::{Blocks, Place, Region, Schedule, exchange};

/// From here on, an operation whose order does not matter is dealt out among the ranks.
const LONG: usize = 32 << 10;

/// The elements of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements {
    /// How many.
    pub count: usize,
    /// Packed bytes of each.
    pub width: usize,
    /// Whether the order of the operands is of no account.
    pub commutes: bool,
}

impl Elements {
    /// Bytes of all.
    pub fn len(&self) -> usize {
        self.count * self.width
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where one's own operand is.
fn operand(len: usize, in_place: bool) -> Region {
    match in_place {
        true => Region::receive(0, len),
        false => Region::send(0, len),
    }
}

/// The root gets the result. `in_place`: the root's own operand is where the result will be.
pub fn reduce(place: Place, root: usize, elements: Elements, in_place: bool) -> Schedule {
    let mut schedule = Schedule::default();
    let len = elements.len();
    let own = operand(len, in_place && place.rank == root);
    let result = match place.rank == root {
        true => Region::receive(0, len),
        false => schedule.scratch(len),
    };
    schedule.copy(own, result);
    // In order, the tree has its root at rank 0.
    let top = if elements.commutes { root } else { 0 };
    tree(&mut schedule, place, top, elements, result);
    if top != root {
        if place.rank == top {
            schedule.send(root, result);
            schedule.wait();
        } else if place.rank == root {
            schedule.receive(top, result);
            schedule.wait();
        }
    }
    schedule
}

/// A binomial tree towards `top`; `result` holds one's own operand, and at `top` the result.
fn tree(schedule: &mut Schedule, place: Place, top: usize, elements: Elements, result: Region) {
    let size = place.size;
    let relative = (place.rank + size - top) % size;
    let mut came = None;
    let mut mask = 1;
    while mask < size {
        if relative & mask != 0 {
            schedule.send((relative - mask + top) % size, result);
            schedule.wait();
            return;
        }
        if relative + mask < size {
            let from = *came.get_or_insert_with(|| schedule.scratch(result.len));
            schedule.receive((relative + mask + top) % size, from);
            schedule.wait();
            combine(schedule, elements, from, result, false);
        }
        mask <<= 1;
    }
}

/// Combines what came from a lower or higher rank with what is here.
fn combine(schedule: &mut Schedule, elements: Elements, from: Region, into: Region, lower: bool) {
    match lower || elements.commutes {
        true => schedule.reduce(from, into),
        false => schedule.reduce_right(from, into),
    }
}

/// Everybody gets the result.
pub fn all_reduce(place: Place, elements: Elements, in_place: bool) -> Schedule {
    let mut schedule = Schedule::default();
    let result = Region::receive(0, elements.len());
    schedule.copy(operand(elements.len(), in_place), result);
    let long = elements.len() >= LONG && elements.count >= place.size && place.size > 1;
    if long && elements.commutes {
        dealt_out(&mut schedule, place, elements);
    } else {
        doubling(&mut schedule, place, elements, result);
    }
    schedule
}

/// Pairs of ranks exchange what they have, then pairs of pairs. Ranks beyond a power of two first
/// give theirs to a neighbour, and get the result from it.
fn doubling(schedule: &mut Schedule, place: Place, elements: Elements, result: Region) {
    if place.size == 1 {
        return;
    }
    let power = 1 << place.size.ilog2();
    let beyond = place.size - power;
    let from = schedule.scratch(result.len);
    // The first ranks stand in pairs: the even one takes part for both.
    let paired = place.rank < 2 * beyond;
    if paired && place.rank % 2 == 1 {
        schedule.send(place.rank - 1, result);
        schedule.wait();
        schedule.receive(place.rank - 1, result);
        schedule.wait();
        return;
    }
    if paired {
        schedule.receive(place.rank + 1, from);
        schedule.wait();
        combine(schedule, elements, from, result, false);
    }
    let number = if paired {
        place.rank / 2
    } else {
        place.rank - beyond
    };
    let rank_of = |number: usize| {
        if number < beyond {
            number * 2
        } else {
            number + beyond
        }
    };
    let mut mask = 1;
    while mask < power {
        let peer = rank_of(number ^ mask);
        schedule.receive(peer, from);
        schedule.send(peer, result);
        schedule.wait();
        combine(schedule, elements, from, result, peer < place.rank);
        mask <<= 1;
    }
    if paired {
        schedule.send(place.rank + 1, result);
        schedule.wait();
    }
}

/// Everybody reduces a share of the elements, around a ring, and then all shares are gathered.
fn dealt_out(schedule: &mut Schedule, place: Place, elements: Elements) {
    let Elements { count, width, .. } = elements;
    let shares = Blocks::of((0..place.size).map(|rank| {
        let begin = count * rank / place.size;
        (count * (rank + 1) / place.size - begin) * width
    }));
    let longest = (0..place.size)
        .map(|rank| shares.len(rank))
        .max()
        .unwrap_or(0);
    let from = schedule.scratch(longest);
    for round in 0..place.size - 1 {
        let (gives, gets) = (place.minus(round + 1), place.minus(round + 2));
        let part = from.part(0, shares.len(gets));
        schedule.receive(place.minus(1), part);
        schedule.send(place.plus(1), shares.receive(gives));
        schedule.wait();
        schedule.reduce(part, shares.receive(gets));
    }
    exchange::ring(schedule, place, |rank| shares.receive(rank));
}

/// Everybody gets a part of the result: `counts` elements by rank. The operands are whole.
pub fn reduce_scatter(
    place: Place,
    counts: &[usize],
    elements: Elements,
    in_place: bool,
) -> Schedule {
    let mut schedule = Schedule::default();
    let blocks = Blocks::of(counts.iter().map(|count| count * elements.width));
    let own = operand(elements.len(), in_place);
    let of = |rank: usize| own.part(blocks.at(rank), blocks.len(rank));
    let result = Region::receive(0, blocks.len(place.rank));
    if elements.commutes {
        let mine = schedule.scratch(result.len);
        let from = schedule.scratch(result.len);
        schedule.copy(of(place.rank), mine);
        for by in 1..place.size {
            schedule.receive(place.minus(by), from);
            schedule.send(place.plus(by), of(place.plus(by)));
            schedule.wait();
            schedule.reduce(from, mine);
        }
        schedule.copy(mine, result);
        return schedule;
    }
    let whole = schedule.scratch(elements.len());
    schedule.copy(own, whole);
    tree(&mut schedule, place, 0, elements, whole);
    if place.rank == 0 {
        for rank in 1..place.size {
            schedule.send(rank, whole.part(blocks.at(rank), blocks.len(rank)));
        }
        schedule.copy(whole.part(blocks.at(0), blocks.len(0)), result);
    } else {
        schedule.receive(0, result);
    }
    schedule.wait();
    schedule
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;

    fn elements(count: usize, commutes: bool) -> Elements {
        Elements {
            count,
            width: lab::WIDTH,
            commutes,
        }
    }

    #[test]
    fn the_root_has_the_result_in_order() {
        for size in 1..=17 {
            for root in 0..size {
                for (commutes, in_place) in [(true, false), (false, false), (false, true)] {
                    let elements = elements(3, commutes);
                    let make = |rank| reduce(Place { rank, size }, root, elements, in_place);
                    let schedules = (0..size).map(make).collect();
                    let mut lab = lab::Lab::of_operands(schedules, size, 3, in_place);
                    lab.finish();
                    lab::assert_reduced(&lab.received[root], 0..size, 0..3, commutes);
                }
            }
        }
    }

    #[test]
    fn all_have_the_result_in_order() {
        for size in 1..=17 {
            for count in [0, 3, LONG / lab::WIDTH + 5] {
                for (commutes, in_place) in [(true, false), (false, true)] {
                    let make = |rank| {
                        all_reduce(Place { rank, size }, elements(count, commutes), in_place)
                    };
                    let schedules = (0..size).map(make).collect();
                    let mut lab = lab::Lab::of_operands(schedules, size, count, in_place);
                    lab.finish();
                    for row in &lab.received {
                        lab::assert_reduced(row, 0..size, 0..count, commutes);
                    }
                }
            }
        }
    }

    #[test]
    fn everybody_has_a_part_of_the_result() {
        for size in 1..=17 {
            for (commutes, in_place) in [(true, false), (false, false), (true, true), (false, true)]
            {
                let counts: Vec<usize> = (0..size).map(|rank| rank % 3).collect();
                let count = counts.iter().sum();
                let make = |rank| {
                    reduce_scatter(
                        Place { rank, size },
                        &counts,
                        elements(count, commutes),
                        in_place,
                    )
                };
                let schedules = (0..size).map(make).collect();
                let mut lab = lab::Lab::of_operands(schedules, size, count, in_place);
                lab.finish();
                let mut first = 0;
                for (row, count) in lab.received.iter().zip(&counts) {
                    let row = &row[..count * lab::WIDTH];
                    lab::assert_reduced(row, 0..size, first..first + count, commutes);
                    first += count;
                }
            }
        }
    }
}
