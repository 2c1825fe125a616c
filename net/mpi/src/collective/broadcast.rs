//! One rank's bytes for all.

use super::{Blocks, Place, Region, Row, Schedule};

/// From here on, the bytes are dealt out and then gathered by all, so that no rank sends all of
/// them more than once.
const LONG: usize = 256 << 10;

/// The bytes stand in the row of what is received, at the root as well.
pub fn broadcast(place: Place, root: usize, len: usize) -> Schedule {
    let mut schedule = Schedule::default();
    if len >= LONG && place.size > 2 {
        deal_and_gather(&mut schedule, place, root, len);
    } else {
        tree(&mut schedule, place, root, Region::receive(0, len));
    }
    schedule
}

/// A binomial tree: who has it tells the rank half of the remaining distance away.
pub(super) fn tree(schedule: &mut Schedule, place: Place, root: usize, region: Region) {
    let size = place.size;
    let relative = (place.rank + size - root) % size;
    let mut mask = 1;
    while mask < size && relative & mask == 0 {
        mask <<= 1;
    }
    if relative != 0 {
        schedule.receive((relative - mask + root) % size, region);
        schedule.wait();
    }
    mask >>= 1;
    let mut sends = false;
    while mask > 0 {
        if relative + mask < size {
            schedule.send((relative + mask + root) % size, region);
            sends = true;
        }
        mask >>= 1;
    }
    if sends {
        schedule.wait();
    }
}

fn deal_and_gather(schedule: &mut Schedule, place: Place, root: usize, len: usize) {
    let size = place.size;
    let share = len.div_ceil(size);
    let shares = Blocks::of((0..size).map(|rank| {
        let begin = (share * rank).min(len);
        (share * (rank + 1)).min(len) - begin
    }));
    let part = |rank: usize| Region {
        row: Row::Receive,
        ..shares.receive(rank)
    };
    if place.rank == root {
        for rank in (0..size).filter(|rank| *rank != root) {
            schedule.send(rank, part(rank));
        }
    } else {
        schedule.receive(root, part(place.rank));
    }
    schedule.wait();
    super::exchange::ring(schedule, place, part);
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;

    #[test]
    fn all_have_the_roots_bytes() {
        for len in [0, 5, LONG + 3] {
            for size in 1..=17 {
                for root in (0..size).filter(|root| len < LONG || *root % 5 == 0) {
                    let schedules =
                        (0..size).map(|rank| broadcast(Place { rank, size }, root, len));
                    let mut lab =
                        lab::Lab::new(schedules.collect(), vec![Vec::new(); size], vec![len; size]);
                    let bytes = lab::bytes(root, len);
                    lab.received[root].clone_from(&bytes);
                    lab.finish();
                    assert!(
                        lab.received.iter().all(|row| *row == bytes),
                        "{size} {root} {len}"
                    );
                }
            }
        }
    }
}
