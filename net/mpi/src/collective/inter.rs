//! Collective operations between two groups: ranks are the other group's. Plain exchanges, with
//! no messages within a group.

use super::{Blocks, Elements, Region, Schedule};

/// What a rank is in an operation with a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The root.
    Root,
    /// In the root's group, and idle.
    Idle,
    /// In the other group; the root's rank.
    Remote(usize),
}

/// Nobody goes on before all of the other group have come.
pub fn inter_barrier(remote: usize) -> Schedule {
    inter_all_to_all(remote, &Blocks::Even(0), &Blocks::Even(0))
}

/// The root's bytes for all of the other group.
pub fn inter_broadcast(role: Role, remote: usize, len: usize) -> Schedule {
    let mut schedule = Schedule::default();
    match role {
        Role::Root => (0..remote).for_each(|rank| schedule.send(rank, Region::receive(0, len))),
        Role::Idle => {}
        Role::Remote(root) => schedule.receive(root, Region::receive(0, len)),
    }
    schedule.wait();
    schedule
}

/// The root gets the parts of all of the other group.
pub fn inter_gather(role: Role, remote: usize, own: usize, blocks: &Blocks) -> Schedule {
    let mut schedule = Schedule::default();
    match role {
        Role::Root => (0..remote).for_each(|rank| schedule.receive(rank, blocks.receive(rank))),
        Role::Idle => {}
        Role::Remote(root) => schedule.send(root, Region::send(0, own)),
    }
    schedule.wait();
    schedule
}

/// The root has parts for all of the other group.
pub fn inter_scatter(role: Role, remote: usize, own: usize, blocks: &Blocks) -> Schedule {
    let mut schedule = Schedule::default();
    match role {
        Role::Root => (0..remote).for_each(|rank| schedule.send(rank, blocks.send(rank))),
        Role::Idle => {}
        Role::Remote(root) => schedule.receive(root, Region::receive(0, own)),
    }
    schedule.wait();
    schedule
}

/// Everybody has a part for everybody of the other group.
pub fn inter_all_to_all(remote: usize, sends: &Blocks, receives: &Blocks) -> Schedule {
    let mut schedule = Schedule::default();
    (0..remote).for_each(|rank| schedule.receive(rank, receives.receive(rank)));
    (0..remote).for_each(|rank| schedule.send(rank, sends.send(rank)));
    schedule.wait();
    schedule
}

/// The root gets the reduction of the other group's elements.
pub fn inter_reduce(role: Role, remote: usize, elements: Elements) -> Schedule {
    let mut schedule = Schedule::default();
    match role {
        Role::Root => collect(&mut schedule, remote, Region::receive(0, elements.len())),
        Role::Idle => {}
        Role::Remote(root) => {
            schedule.send(root, Region::send(0, elements.len()));
            schedule.wait();
        }
    }
    schedule
}

/// Everybody gets the reduction of the other group's elements.
pub fn inter_all_reduce(remote: usize, elements: Elements) -> Schedule {
    let mut schedule = Schedule::default();
    (0..remote).for_each(|rank| schedule.send(rank, Region::send(0, elements.len())));
    collect(&mut schedule, remote, Region::receive(0, elements.len()));
    schedule
}

/// Everybody gets a part of the reduction of the other group's elements: `len` bytes at `at`. How
/// the other group deals its result out, nobody here knows: all elements go to everybody.
pub fn inter_reduce_scatter(remote: usize, elements: Elements, at: usize, len: usize) -> Schedule {
    let mut schedule = Schedule::default();
    let whole = schedule.scratch(elements.len());
    (0..remote).for_each(|rank| schedule.send(rank, Region::send(0, elements.len())));
    collect(&mut schedule, remote, whole);
    schedule.copy(whole.part(at, len), Region::receive(0, len));
    schedule
}

/// Receives the elements of all of the other group and reduces them in order.
fn collect(schedule: &mut Schedule, remote: usize, result: Region) {
    let came: Vec<Region> = (1..remote).map(|_| schedule.scratch(result.len)).collect();
    schedule.receive(0, result);
    for (at, region) in came.iter().enumerate() {
        schedule.receive(at + 1, *region);
    }
    schedule.wait();
    for region in came {
        schedule.reduce_right(region, result);
    }
}

#[cfg(test)]
mod tests {
    use super::super::lab;
    use super::*;

    /// Two groups in one lab: the second group's ranks stand behind the first's.
    fn both(first: usize, second: usize, make: impl Fn(bool, usize) -> Schedule) -> Vec<Schedule> {
        let shift = |mut schedule: Schedule, by: usize| {
            for step in &mut schedule.steps {
                match step {
                    super::super::Step::Send { to, .. } => *to += by as u32,
                    super::super::Step::Receive { from, .. } => *from += by as u32,
                    _ => {}
                }
            }
            schedule
        };
        let ours = (0..first).map(|rank| shift(make(true, rank), first));
        ours.chain((0..second).map(|rank| make(false, rank)))
            .collect()
    }

    #[test]
    fn each_group_gets_the_others_result() {
        for (first, second) in [(1, 1), (1, 2), (3, 2), (5, 8)] {
            let elements = Elements {
                count: 6,
                width: lab::WIDTH,
                commutes: false,
            };
            let remote = |ours: bool| if ours { second } else { first };
            let size = first + second;
            let groups = |rank: usize| if rank < first { first..size } else { 0..first };

            let schedules = both(first, second, |ours, _| {
                inter_all_reduce(remote(ours), elements)
            });
            let mut lab = lab::Lab::of_operands(schedules, size, 6, false);
            lab.finish();
            for (rank, row) in lab.received.iter().enumerate() {
                lab::assert_reduced(row, groups(rank), 0..6, false);
            }

            // the first element for rank 0 of each group, the second for rank 1, and so on
            let schedules = both(first, second, |ours, rank| {
                let at = (rank % 6) * lab::WIDTH;
                inter_reduce_scatter(remote(ours), elements, at, lab::WIDTH)
            });
            let mut lab = lab::Lab::of_operands(schedules, size, 6, false);
            lab.finish();
            for (rank, row) in lab.received.iter().enumerate() {
                let own = if rank < first { rank } else { rank - first };
                lab::assert_reduced(
                    &row[..lab::WIDTH],
                    groups(rank),
                    own % 6..own % 6 + 1,
                    false,
                );
            }
        }
    }

    #[test]
    fn parts_cross() {
        for (first, second) in [(1, 1), (1, 3), (4, 2)] {
            let schedules = both(first, second, |ours, _| {
                let remote = if ours { second } else { first };
                inter_all_to_all(remote, &Blocks::Even(2), &Blocks::Even(2))
            });
            let size = first + second;
            let row = |rank: usize| lab::bytes(rank, 2 * if rank < first { second } else { first });
            let rows: Vec<Vec<u8>> = (0..size).map(row).collect();
            let mut lab =
                lab::Lab::new(schedules, rows.clone(), rows.iter().map(Vec::len).collect());
            lab.finish();
            for rank in 0..size {
                let (others, own) = if rank < first {
                    (first..size, rank)
                } else {
                    (0..first, rank - first)
                };
                let expected: Vec<u8> = others
                    .flat_map(|other| rows[other][2 * own..2 * own + 2].to_vec())
                    .collect();
                assert_eq!(lab.received[rank], expected);
            }
        }
    }
}
