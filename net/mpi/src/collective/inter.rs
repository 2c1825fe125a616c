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
        Role::Root => collect(&mut schedule, remote, elements),
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
    collect(&mut schedule, remote, elements);
    schedule
}

/// Everybody gets a part of the reduction of the other group's elements: `theirs` are the parts of
/// that group's ranks, and one's own has the length of `elements`.
pub fn inter_reduce_scatter(remote: usize, theirs: &Blocks, elements: Elements) -> Schedule {
    let mut schedule = Schedule::default();
    (0..remote).for_each(|rank| schedule.send(rank, theirs.send(rank)));
    collect(&mut schedule, remote, elements);
    schedule
}

/// Receives the elements of all of the other group and reduces them in order.
fn collect(schedule: &mut Schedule, remote: usize, elements: Elements) {
    let result = Region::receive(0, elements.len());
    let came: Vec<Region> = (1..remote)
        .map(|_| schedule.scratch(elements.len()))
        .collect();
    schedule.receive(0, result);
    for (at, region) in came.iter().enumerate() {
        schedule.receive(at + 1, *region);
    }
    schedule.wait();
    for region in came {
        schedule.reduce_right(region, result);
    }
}
