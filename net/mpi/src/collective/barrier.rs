//! Nobody goes on before all have come.

use super::{Place, Region, Schedule};

/// Dissemination: in round k, everybody tells the rank 2^k places further. After log2(n) rounds,
/// everybody has heard of everybody.
pub fn barrier(place: Place) -> Schedule {
    let mut schedule = Schedule::default();
    let mut distance = 1;
    while distance < place.size {
        schedule.receive(place.minus(distance), Region::receive(0, 0));
        schedule.send(place.plus(distance), Region::send(0, 0));
        schedule.wait();
        distance *= 2;
    }
    schedule
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;

    #[test]
    fn nobody_leaves_before_the_last_has_come() {
        for size in 1..=17 {
            for late in 0..size {
                let schedules = (0..size)
                    .map(|rank| barrier(Place { rank, size }))
                    .collect();
                let mut lab = lab::Lab::new(schedules, vec![Vec::new(); size], vec![0; size]);
                lab.hold(late);
                lab.run();
                let through = (0..size).filter(|rank| lab.is_done(*rank)).count();
                assert_eq!(through, 0, "{late} of {size} has not come");
                lab.release(late);
                lab.run();
                assert!((0..size).all(|rank| lab.is_done(rank)));
            }
        }
    }
}
