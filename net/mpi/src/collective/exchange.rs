//! Everybody's bytes for everybody.

use super::{Blocks, Place, Region, Schedule};

/// Up to here, all parts of an exchange travel at once.
const SHORT: usize = 8 << 10;
/// How many at most.
const AT_ONCE: usize = 64;

/// A ring: everybody passes on what came last. `part` says where a rank's part stands; one's own
/// is there already.
pub(super) fn ring(schedule: &mut Schedule, place: Place, part: impl Fn(usize) -> Region) {
    for round in 1..place.size {
        schedule.receive(place.minus(1), part(place.minus(round)));
        schedule.send(place.plus(1), part(place.minus(round - 1)));
        schedule.wait();
    }
}

/// Everybody gets everybody's part; `blocks` are those of what is received. One's own part is
/// sent from the row of what is sent, unless it is `in_place`.
pub fn all_gather(place: Place, blocks: &Blocks, in_place: bool) -> Schedule {
    let mut schedule = Schedule::default();
    let own = blocks.receive(place.rank);
    if !in_place {
        schedule.copy(Region::send(0, own.len), own);
    }
    let longest = (0..place.size)
        .map(|rank| blocks.len(rank))
        .max()
        .unwrap_or(0);
    let power = place.size.is_power_of_two();
    match blocks {
        Blocks::Even(len) if power && *len <= SHORT => doubling(&mut schedule, place, *len),
        _ if longest <= SHORT && place.size <= AT_ONCE => {
            for by in 1..place.size {
                schedule.receive(place.minus(by), blocks.receive(place.minus(by)));
            }
            for by in 1..place.size {
                schedule.send(place.plus(by), own);
            }
            schedule.wait();
        }
        _ => ring(&mut schedule, place, |rank| blocks.receive(rank)),
    }
    schedule
}

/// Pairs, then pairs of pairs, exchange all that they have.
fn doubling(schedule: &mut Schedule, place: Place, len: usize) {
    let mut have = 1;
    while have < place.size {
        let peer = place.rank ^ have;
        let first = |rank: usize| rank & !(have - 1);
        schedule.receive(peer, Region::receive(first(peer) * len, have * len));
        schedule.send(peer, Region::receive(first(place.rank) * len, have * len));
        schedule.wait();
        have *= 2;
    }
}

/// Everybody has a part for everybody. Sent from what is received, if it is `in_place`: through
/// scratch.
pub fn all_to_all(place: Place, sends: &Blocks, receives: &Blocks, in_place: bool) -> Schedule {
    let mut schedule = Schedule::default();
    let total = receives.at(place.size - 1) + receives.len(place.size - 1);
    let kept = match in_place {
        true => {
            let kept = schedule.scratch(total);
            schedule.copy(Region::receive(0, total), kept);
            Some(kept)
        }
        false => None,
    };
    let from = |rank: usize| match kept {
        Some(kept) => kept.part(receives.at(rank), receives.len(rank)),
        None => sends.send(rank),
    };
    schedule.copy(from(place.rank), receives.receive(place.rank));
    let longest = (0..place.size)
        .map(|rank| receives.len(rank).max(from(rank).len))
        .max();
    let at_once = longest.unwrap_or(0) <= SHORT && place.size <= AT_ONCE;
    if at_once {
        for by in 1..place.size {
            schedule.receive(place.minus(by), receives.receive(place.minus(by)));
        }
        for by in 1..place.size {
            schedule.send(place.plus(by), from(place.plus(by)));
        }
        schedule.wait();
        return schedule;
    }
    for by in 1..place.size {
        schedule.receive(place.minus(by), receives.receive(place.minus(by)));
        schedule.send(place.plus(by), from(place.plus(by)));
        schedule.wait();
    }
    schedule
}

/// Parts to and from given ranks: the neighbours in a topology; none stands for no rank.
pub fn neighbours(
    sources: &[Option<u32>],
    destinations: &[Option<u32>],
    sends: &Blocks,
    receives: &Blocks,
    one_for_all: bool,
) -> Schedule {
    let mut schedule = Schedule::default();
    for (at, source) in sources.iter().enumerate() {
        if let Some(source) = source {
            schedule.receive(*source as usize, receives.receive(at));
        }
    }
    for (at, destination) in destinations.iter().enumerate() {
        if let Some(destination) = destination {
            let part = if one_for_all {
                sends.send(0)
            } else {
                sends.send(at)
            };
            schedule.send(*destination as usize, part);
        }
    }
    schedule.wait();
    schedule
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;

    fn lengths(size: usize, base: usize) -> Vec<usize> {
        (0..size)
            .map(|rank| (rank * 7 + base) % (base + 3))
            .collect()
    }

    #[test]
    fn all_gather_puts_everybodys_part_into_its_place() {
        for size in 1..=17 {
            for (blocks, in_place) in [
                (Blocks::Even(5), false),
                (Blocks::Even(SHORT + 1), true),
                (Blocks::of(lengths(size, 9)), true),
                (Blocks::of(lengths(size, SHORT)), false),
                (Blocks::Even(0), false),
            ] {
                let make = |rank| all_gather(Place { rank, size }, &blocks, in_place);
                let total = blocks.at(size - 1) + blocks.len(size - 1);
                let rows = (0..size).map(|rank| lab::bytes(rank, blocks.len(rank)));
                let rows: Vec<Vec<u8>> = rows.collect();
                let mut lab = lab::Lab::new(
                    (0..size).map(make).collect(),
                    rows.clone(),
                    vec![total; size],
                );
                if in_place {
                    for (rank, row) in rows.iter().enumerate() {
                        let at = blocks.at(rank);
                        lab.received[rank][at..at + row.len()].copy_from_slice(row);
                    }
                }
                lab.finish();
                assert!(
                    lab.received.iter().all(|row| *row == rows.concat()),
                    "{size} {blocks:?}"
                );
            }
        }
    }

    #[test]
    fn all_to_all_transposes() {
        for size in 1..=17 {
            for (base, in_place) in [(3, false), (3, true), (SHORT + 9, false)] {
                // symmetric, as a replacement in place demands
                let len = |a: usize, b: usize| base + (a + b) % 3;
                let blocks = |rank| Blocks::of((0..size).map(|to| len(rank, to)));
                let row = |rank: usize| -> Vec<u8> {
                    (0..size)
                        .flat_map(|to| lab::bytes(rank * 31 + to, len(rank, to)))
                        .collect()
                };
                let make =
                    |rank| all_to_all(Place { rank, size }, &blocks(rank), &blocks(rank), in_place);
                let rows: Vec<Vec<u8>> = (0..size).map(row).collect();
                let lengths = rows.iter().map(Vec::len).collect();
                let mut lab = lab::Lab::new((0..size).map(make).collect(), rows.clone(), lengths);
                if in_place {
                    lab.received = rows;
                }
                lab.finish();
                for rank in 0..size {
                    let expected =
                        (0..size).flat_map(|of| lab::bytes(of * 31 + rank, len(of, rank)));
                    assert_eq!(lab.received[rank], expected.collect::<Vec<u8>>());
                }
            }
        }
    }
}
