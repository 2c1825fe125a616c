//! Faults of several steps: the orders of events in which rules of replication have been broken
//! before, here or elsewhere. Chance alone would meet them seldom; who, when and how long is up to it.

use std::time::Duration;

use ringmill_ring::sim::{NodeId, World};

use super::faults::{Deed, Faults, HARMS, Harm, Trap, cut_off, some};
use super::witness;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// Disks are slow, then all machines lose their power at once. One disk may be fast: what only
    /// its node has flushed is as good as gone if it comes back last.
    LightsOut,
    /// A leader is kept from the others while its clients still reach it, and comes back with a slow
    /// disk; then the next leader goes as well.
    Deposed,
    /// A node comes back, and when it is about to be in sync a leader goes.
    Joining,
    /// Whoever leads the quorum goes while it is changing the metadata.
    Quorum,
    /// Leader after leader goes, each as soon as it is elected.
    Heirs,
    /// What a node sends reaches another only after both have been told of a new leader.
    Late,
    /// A follower is kept from its leader alone, until it is out of sync; then the leader goes.
    Lagging,
}

pub(super) const SCENARIOS: [Scenario; 7] = [
    Scenario::LightsOut,
    Scenario::Deposed,
    Scenario::Joining,
    Scenario::Quorum,
    Scenario::Heirs,
    Scenario::Late,
    Scenario::Lagging,
];

/// A partition, and which node leads it in which epoch.
struct Target {
    partition: String,
    epoch: i32,
    leader: usize,
}

impl Target {
    /// Any that has been led.
    fn any(world: &mut World) -> Option<Self> {
        let mut all = witness::partitions();
        if all.is_empty() {
            return None;
        }
        let partition = all.swap_remove(world.random().index(all.len()));
        let (epoch, node) = witness::leader(&partition)?;
        Some(Self {
            partition,
            epoch,
            leader: node as usize - 1,
        })
    }
}

/// A time between half of this and all of it.
fn about(world: &mut World, time: Duration) -> Duration {
    let most = time.as_millis() as u64;
    Duration::from_millis(world.random().between(most / 2, most.max(1)))
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl Scenario {
    /// Begins it, and puts the rest of it on the agenda.
    pub(super) fn stage(self, faults: &mut Faults, world: &mut World, machines: &[NodeId]) {
        let Some(target) = Target::any(world) else {
            return;
        };
        match self {
            Self::LightsOut => lights_out(faults, world, machines, &target),
            Self::Deposed if world.random().coin() => restarted(faults, world, machines, target),
            Self::Deposed => deposed(faults, world, machines, target),
            Self::Joining => joining(faults, world, machines, target),
            Self::Quorum => quorum(faults, world, machines),
            Self::Heirs => heirs(faults, world, target),
            Self::Late => late(faults, world, machines),
            Self::Lagging => lagging(faults, world, machines, target),
        }
    }
}

/// Slows disks down until the end of a time.
fn slow(faults: &mut Faults, world: &mut World, machines: &[NodeId], which: usize, time: Duration) {
    let least = Duration::from_millis(world.random().pick(&[20, 100, 400]));
    faults.slow_down(world, machines[which], least);
    faults.after(world, time, Deed::Hurry(which));
}

fn lights_out(faults: &mut Faults, world: &mut World, machines: &[NodeId], target: &Target) {
    let at = some(world, secs(2));
    let fast = world.random().coin().then_some(target.leader);
    for which in 0..machines.len() {
        let mut off = some(world, secs(2));
        if Some(which) == fast {
            off += about(world, secs(6));
        } else {
            slow(faults, world, machines, which, at + off);
        }
        faults.after(world, at, Deed::Harm(which, Harm::PowerCut, off));
    }
}

fn deposed(faults: &mut Faults, world: &mut World, machines: &[NodeId], target: Target) {
    let which = target.leader;
    let away = about(world, secs(4));
    let harm = world
        .random()
        .pick(&[Harm::CutOff, Harm::CutOff, Harm::Pause]);
    faults.harm(world, machines, which, harm, away);
    if world.random().coin() {
        slow(faults, world, machines, which, away + secs(2));
    }
    // of two followers, one may be kept from the next leader, and be out of sync
    let other = (which + 1 + world.random().index(machines.len() - 1)) % machines.len();
    if world.random().coin() {
        slow(faults, world, machines, other, away + secs(2));
    }
    let harm = world.random().pick(&HARMS);
    let soon = some(world, Duration::from_millis(800));
    let off = about(world, secs(4));
    faults.after(
        world,
        away + soon,
        Deed::HarmLeader(target.partition, harm, off),
    );
}

/// As [`deposed`], by a quick restart: what it has and nobody else is longer than what comes next.
fn restarted(faults: &mut Faults, world: &mut World, machines: &[NodeId], target: Target) {
    let which = target.leader;
    if world.random().coin() {
        slow(faults, world, machines, which, secs(3));
    }
    let harm = world.random().pick(&HARMS);
    let off = about(world, secs(4));
    faults.set_trap(Trap {
        partition: target.partition.clone(),
        after_epoch: target.epoch,
        delay: some(world, Duration::from_millis(500)),
        deed: Deed::HarmLeader(target.partition, harm, off),
    });
    // not for so long that the others notice it
    let away = about(world, Duration::from_millis(450));
    faults.harm(world, machines, which, Harm::CutOff, away);
    let off = some(world, Duration::from_millis(200));
    faults.after(world, away, Deed::Harm(which, Harm::Kill, off));
}

fn joining(faults: &mut Faults, world: &mut World, machines: &[NodeId], target: Target) {
    let which = (target.leader + 1 + world.random().index(machines.len() - 1)) % machines.len();
    let off = some(world, secs(2));
    let harm = world.random().pick(&HARMS);
    faults.harm(world, machines, which, harm, off);
    if world.random().coin() {
        slow(faults, world, machines, which, off + secs(2));
    }
    let soon = some(world, secs(2));
    let harm = world.random().pick(&HARMS);
    let away = about(world, secs(4));
    faults.after(
        world,
        off + soon,
        Deed::HarmLeader(target.partition, harm, away),
    );
}

fn quorum(faults: &mut Faults, world: &mut World, machines: &[NodeId]) {
    let time = about(world, secs(4));
    for which in 0..machines.len() {
        slow(faults, world, machines, which, time);
    }
    let which = world.random().index(machines.len());
    let off = about(world, secs(2));
    let harm = world.random().pick(&HARMS);
    faults.harm(world, machines, which, harm, off);
    // the others notice it after a session's time-out, and let it in again when it comes back
    let noticed = Duration::from_millis(world.random().pick(&[500, 2_000]));
    let then = world.random().pick(&[noticed, off]) + some(world, Duration::from_millis(600));
    let harm = world.random().pick(&HARMS);
    let away = about(world, secs(2));
    faults.after(world, then, Deed::HarmQuorumLeader(harm, away));
}

fn heirs(faults: &mut Faults, world: &mut World, target: Target) {
    for generation in 0..world.random().between(1, 3) as i32 {
        let harm = world.random().pick(&HARMS);
        let off = about(world, secs(4));
        faults.set_trap(Trap {
            partition: target.partition.clone(),
            after_epoch: target.epoch + generation,
            delay: some(world, Duration::from_millis(400)),
            deed: Deed::HarmLeader(target.partition.clone(), harm, off),
        });
    }
    let harm = world.random().pick(&HARMS);
    let off = about(world, secs(4));
    faults.after(
        world,
        Duration::ZERO,
        Deed::HarmLeader(target.partition, harm, off),
    );
}

fn late(faults: &mut Faults, world: &mut World, machines: &[NodeId]) {
    let which = world.random().index(machines.len());
    let other = (which + 1 + world.random().index(machines.len() - 1)) % machines.len();
    // first one way alone, then all of them
    let alone = about(world, Duration::from_millis(1_500));
    let away = about(world, secs(4));
    let pairs = vec![(machines[which], machines[other])];
    faults.block(world, alone + away, pairs);
    let then = match world.random().coin() {
        true => Deed::Block(cut_off(machines, which), away),
        // its kernel goes on sending, and what arrives late is not taken back
        false => Deed::Harm(which, Harm::Pause, away + secs(1)),
    };
    faults.after(world, alone, then);
}

fn lagging(faults: &mut Faults, world: &mut World, machines: &[NodeId], target: Target) {
    let leader = target.leader;
    let which = (leader + 1 + world.random().index(machines.len() - 1)) % machines.len();
    let time = about(world, secs(4));
    let harm = world
        .random()
        .pick(&[Harm::Kill, Harm::PowerCut, Harm::CutOff]);
    match world.random().below(3) {
        0 => {
            let ends = [machines[leader], machines[which]];
            let pairs = vec![(ends[0], ends[1]), (ends[1], ends[0])];
            faults.block(world, time, pairs);
        }
        1 => slow(faults, world, machines, which, time),
        _ => world.disk(machines[which]).stall(time),
    }
    let off = about(world, secs(5));
    let about_then = some(world, Duration::from_millis(500));
    let then = (time + about_then).saturating_sub(Duration::from_millis(250));
    faults.after(world, then, Deed::HarmLeader(target.partition, harm, off));
}
