//! Parts that one rank gathers, or deals out.

use super::{Blocks, Place, Region, Schedule};

/// The root gets everybody's part: directly, so that parts may have any lengths and nobody but the
/// root needs to know them. `own` is the length of one's own part.
pub fn gather(place: Place, root: usize, own: usize, blocks: &Blocks, in_place: bool) -> Schedule {
    let mut schedule = Schedule::default();
    if place.rank != root {
        schedule.send(root, Region::send(0, own));
        schedule.wait();
        return schedule;
    }
    for rank in (0..place.size).filter(|rank| *rank != root) {
        schedule.receive(rank, blocks.receive(rank));
    }
    if !in_place {
        schedule.copy(Region::send(0, own), blocks.receive(root));
    }
    schedule.wait();
    schedule
}

/// The root has a part for everybody.
pub fn scatter(place: Place, root: usize, own: usize, blocks: &Blocks, in_place: bool) -> Schedule {
    let mut schedule = Schedule::default();
    if place.rank != root {
        schedule.receive(root, Region::receive(0, own));
        schedule.wait();
        return schedule;
    }
    for rank in (0..place.size).filter(|rank| *rank != root) {
        schedule.send(rank, blocks.send(rank));
    }
    if !in_place {
        schedule.copy(blocks.send(root), Region::receive(0, own));
    }
    schedule.wait();
    schedule
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;

    #[test]
    fn parts_come_to_their_places() {
        for size in 1..=17 {
            for root in 0..size {
                let len = |rank: usize| rank * 5 % 7;
                let blocks = Blocks::of((0..size).map(len));
                let total = blocks.at(size - 1) + blocks.len(size - 1);
                let rows: Vec<Vec<u8>> =
                    (0..size).map(|rank| lab::bytes(rank, len(rank))).collect();
                let make = |rank| gather(Place { rank, size }, root, len(rank), &blocks, false);
                let mut lab = lab::Lab::new(
                    (0..size).map(make).collect(),
                    rows.clone(),
                    vec![total; size],
                );
                lab.finish();
                assert_eq!(lab.received[root], rows.concat());

                let make = |rank| scatter(Place { rank, size }, root, len(rank), &blocks, false);
                let mut sent = vec![Vec::new(); size];
                sent[root] = rows.concat();
                let lengths = (0..size).map(len).collect();
                let mut lab = lab::Lab::new((0..size).map(make).collect(), sent, lengths);
                lab.finish();
                assert_eq!(lab.received, rows);
            }
        }
    }
}
