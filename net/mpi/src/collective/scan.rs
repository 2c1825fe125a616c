//! Everybody gets the reduction of the lower ranks' elements.

use super::{Elements, Place, Region, Schedule};

/// Whether one's own operand counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// It does.
    Inclusive,
    /// It does not; rank 0 gets nothing.
    Exclusive,
}

/// In round k, everybody tells the rank 2^k further what the last 2^k ranks come to.
pub fn scan(place: Place, kind: Scan, elements: Elements, in_place: bool) -> Schedule {
    let mut schedule = Schedule::default();
    let len = elements.len();
    let result = Region::receive(0, len);
    let own = if in_place {
        result
    } else {
        Region::send(0, len)
    };
    // The reduction of the ranks up to this one that are known, and of those before it.
    let partial = schedule.scratch(len);
    let from = schedule.scratch(len);
    let kept = schedule.scratch(len);
    schedule.copy(own, partial);
    if kind == Scan::Inclusive {
        schedule.copy(own, result);
    }
    let mut begun = kind == Scan::Inclusive;
    let mut distance = 1;
    while distance < place.size {
        let lower = place.rank >= distance;
        if lower {
            schedule.receive(place.rank - distance, from);
        }
        if place.rank + distance < place.size {
            schedule.send(place.rank + distance, partial);
        }
        schedule.wait();
        if lower {
            schedule.copy(from, kept);
            if begun {
                schedule.reduce(from, result);
            } else {
                schedule.copy(from, result);
                begun = true;
            }
            schedule.reduce(kept, partial);
        }
        distance *= 2;
    }
    schedule
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;

    #[test]
    fn everybody_has_what_the_lower_ranks_come_to() {
        for size in 1..=17 {
            for (kind, in_place) in [
                (Scan::Inclusive, false),
                (Scan::Inclusive, true),
                (Scan::Exclusive, false),
                (Scan::Exclusive, true),
            ] {
                let elements = Elements {
                    count: 2,
                    width: lab::WIDTH,
                    commutes: false,
                };
                let make = |rank| scan(Place { rank, size }, kind, elements, in_place);
                let schedules = (0..size).map(make).collect();
                let mut lab = lab::Lab::of_operands(schedules, size, 2, in_place);
                lab.finish();
                for (rank, row) in lab.received.iter().enumerate() {
                    match kind {
                        Scan::Inclusive => lab::assert_reduced(row, 0..rank + 1, 0..2, false),
                        Scan::Exclusive if rank == 0 => {}
                        Scan::Exclusive => lab::assert_reduced(row, 0..rank, 0..2, false),
                    }
                }
            }
        }
    }
}
