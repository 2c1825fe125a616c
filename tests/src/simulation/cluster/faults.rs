//! What goes wrong with a cluster: each seed has some of the kinds, each of which may come again and
//! again, lasts for a while, and goes on beside the others. Kinds that take several steps, in an order
//! that chance alone would seldom meet, are in [`super::scenarios`].

use std::time::Duration;

use ringmill_ring::sim::{DiskFaults, Latency, NodeId, World};

use super::nodes::{Nodes, STOPS_WITHIN};
use super::rot::Rot;
use super::scenarios::{SCENARIOS, Scenario};
use super::witness;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// SIGKILL of one node.
    Kill,
    /// One machine loses its power.
    PowerCut,
    /// All machines lose it at once, and come back.
    Blackout,
    /// All nodes are killed one after the other, and come back.
    Massacre,
    /// SIGTERM of one node.
    Stop,
    /// SIGSTOP of one node.
    Pause,
    /// One node, both ways, from all others.
    CutOff,
    /// One node from all others, one way.
    OneWay,
    /// The nodes in two halves.
    Split,
    /// Between two nodes alone.
    Link,
    /// A machine of clients from one node.
    Clients,
    /// A disk hangs.
    Stall,
    /// A disk is full.
    Full,
    /// A disk fails now and then.
    Failing,
    /// Bits rot on a disk.
    Rot,
    /// A clock jumps.
    Clock,
    /// Everything is slow and lossy in a new way.
    Swarm,
    /// Several steps.
    Scenario(Scenario),
}

const KINDS: [Kind; 17] = [
    Kind::Kill,
    Kind::PowerCut,
    Kind::Blackout,
    Kind::Massacre,
    Kind::Stop,
    Kind::Pause,
    Kind::CutOff,
    Kind::OneWay,
    Kind::Split,
    Kind::Link,
    Kind::Clients,
    Kind::Stall,
    Kind::Full,
    Kind::Failing,
    Kind::Rot,
    Kind::Clock,
    Kind::Swarm,
];

/// A clock jumps so far, at most.
const CLOCKS_BACK: Duration = Duration::from_secs(60);

/// A node is paused for minutes, in one of so many faults where nodes are paused at all.
const LONG_PAUSES: u64 = 60;
/// For so long at least.
const LONG_PAUSE: Duration = Duration::from_secs(70);

/// How a node ends, or is kept from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// SIGKILL.
    Kill,
    /// Its machine loses its power.
    PowerCut,
    /// SIGSTOP.
    Pause,
    /// From all other nodes, both ways; not from clients.
    CutOff,
}

pub(super) const HARMS: [Harm; 4] = [Harm::Kill, Harm::PowerCut, Harm::Pause, Harm::CutOff];

/// What is to be done at some time.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    Start(usize),
    /// A node that was to stop and has not is killed, and comes back.
    Restart(usize),
    Resume(usize),
    Unblock(Vec<(NodeId, NodeId)>),
    /// The disk is well again; what it has closed opens with the next start.
    Repair(usize),
    /// Bits rot on the disk that does.
    Rot,
    /// The disk takes no longer than it should.
    Hurry(usize),
    /// The only one that harms: to one node, for a while.
    Harm(usize, Harm, Duration),
    /// To whoever leads this partition then.
    HarmLeader(String, Harm, Duration),
    /// To whoever leads the quorum then.
    HarmQuorumLeader(Harm, Duration),
    /// No way between these any more, for a while.
    Block(Vec<(NodeId, NodeId)>, Duration),
}

impl Deed {
    fn is_relief(&self) -> bool {
        !matches!(
            self,
            Self::Rot
                | Self::Harm(..)
                | Self::HarmLeader(..)
                | Self::HarmQuorumLeader(..)
                | Self::Block(..)
        )
    }
}

/// What is done as soon as a partition has a leader of a later epoch.
#[derive(Debug, Clone)]
pub(super) struct Trap {
    pub(super) partition: String,
    pub(super) after_epoch: i32,
    /// So long after it.
    pub(super) delay: Duration,
    pub(super) deed: Deed,
}

impl Trap {
    fn springs(&self) -> bool {
        witness::leader(&self.partition).is_some_and(|(epoch, _)| epoch > self.after_epoch)
    }
}

/// The faults of one seed.
pub(super) struct Faults {
    kinds: Vec<Kind>,
    clients: Vec<NodeId>,
    agenda: Vec<(Duration, Deed)>,
    traps: Vec<Trap>,
    pub(super) rot: Rot,
}

impl Faults {
    /// Some of the kinds; in half of the seeds one scenario is among few others. Where whole disks are
    /// lost, no bits rot: what is on one of them alone would be gone.
    pub(super) fn new(world: &mut World, clients: Vec<NodeId>, loses_disks: bool) -> Self {
        let is_staged = world.random().coin();
        let odds = match is_staged {
            true => world.random().pick(&[6, 20, 1_000]),
            false => world.random().pick(&[2, 3, 6]),
        };
        let mut kinds: Vec<Kind> = KINDS.to_vec();
        kinds.retain(|_| world.random().below(odds) == 0);
        if is_staged {
            let copies = kinds.len().max(1);
            let scenario = Kind::Scenario(world.random().pick(&SCENARIOS));
            kinds.extend(std::iter::repeat_n(scenario, copies));
        }
        if kinds.is_empty() {
            let any = world.random().pick(&KINDS);
            kinds.push(any);
        }
        if loses_disks {
            let rots = kinds.iter_mut().filter(|kind| **kind == Kind::Rot);
            rots.for_each(|kind| *kind = Kind::Kill);
        }
        Self {
            kinds,
            clients,
            agenda: Vec::new(),
            traps: Vec::new(),
            rot: Rot::default(),
        }
    }

    /// Whether a scenario is among what may go wrong.
    pub(super) fn has(&self, scenario: Scenario) -> bool {
        self.kinds.contains(&Kind::Scenario(scenario))
    }

    /// How far clocks may have been set back: what is to happen after a while happens as much later.
    pub(super) fn clocks_back(&self) -> Duration {
        match self.kinds.contains(&Kind::Clock) {
            true => CLOCKS_BACK * 2,
            false => Duration::ZERO,
        }
    }

    /// When the next deed is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.agenda.iter().map(|(at, _)| *at).min()
    }

    /// Whether there is something to be done that no time was set for.
    pub(super) fn is_sprung(&self) -> bool {
        self.traps.iter().any(Trap::springs)
    }

    /// Does what is due by now.
    pub(super) fn act(&mut self, world: &mut World, nodes: &mut Nodes) {
        let now = world.now();
        let (sprung, set): (Vec<_>, Vec<_>) = std::mem::take(&mut self.traps)
            .into_iter()
            .partition(Trap::springs);
        self.traps = set;
        for trap in sprung {
            self.agenda.push((now + trap.delay, trap.deed));
        }
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.agenda)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.agenda = later;
        for (_, deed) in due {
            self.carry_out(world, nodes, deed);
        }
    }

    /// Ends all that goes on, and lets nothing more happen.
    pub(super) fn end(&mut self, world: &mut World, nodes: &mut Nodes) {
        self.traps.clear();
        for (_, deed) in std::mem::take(&mut self.agenda) {
            if deed.is_relief() {
                self.carry_out(world, nodes, deed);
            }
        }
    }

    fn carry_out(&mut self, world: &mut World, nodes: &mut Nodes, deed: Deed) {
        tracing::info!(at = ?world.now(), ?deed, "its time has come");
        let machines = nodes.machines();
        let place_of = |node: Option<i32>| node.map(|node| node as usize - 1);
        match deed {
            Deed::Start(which) => nodes.start(world, which),
            Deed::Restart(which) => {
                world.kill(machines[which]);
                nodes.start(world, which);
            }
            Deed::Resume(which) => world.resume(machines[which]),
            Deed::Unblock(pairs) => {
                let unblock = |(from, to)| world.network().unblock(from, to);
                pairs.into_iter().for_each(unblock);
            }
            Deed::Repair(which) => {
                *world.disk(machines[which]).faults() = DiskFaults::default();
                world.kill(machines[which]);
                nodes.start(world, which);
            }
            Deed::Rot => self.rot.strike(world, &machines),
            Deed::Hurry(which) => {
                let honest = DiskFaults::default();
                let disk = world.disk(machines[which]);
                let mut faults = disk.faults();
                faults.sync_latency = honest.sync_latency;
                faults.name_latency = honest.name_latency;
            }
            Deed::Harm(which, harm, time) => self.harm(world, &machines, which, harm, time),
            Deed::HarmLeader(partition, harm, time) => {
                let node = witness::leader(&partition).map(|(_, node)| node);
                if let Some(which) = place_of(node) {
                    self.harm(world, &machines, which, harm, time);
                }
            }
            Deed::HarmQuorumLeader(harm, time) => {
                if let Some(which) = place_of(witness::quorum_leader()) {
                    self.harm(world, &machines, which, harm, time);
                }
            }
            Deed::Block(pairs, time) => self.block(world, time, pairs),
        }
    }

    /// Does something later.
    pub(super) fn after(&mut self, world: &World, time: Duration, deed: Deed) {
        self.agenda.push((world.now() + time, deed));
    }

    pub(super) fn set_trap(&mut self, trap: Trap) {
        self.traps.push(trap);
    }

    pub(super) fn block(&mut self, world: &World, time: Duration, pairs: Vec<(NodeId, NodeId)>) {
        for (from, to) in &pairs {
            world.network().block(*from, *to);
        }
        self.after(world, time, Deed::Unblock(pairs));
    }

    /// Flushes of a disk, and calls for names, take at least so long.
    pub(super) fn slow_down(&self, world: &World, machine: NodeId, least: Duration) {
        let disk = world.disk(machine);
        let mut faults = disk.faults();
        faults.sync_latency = Latency::between(least, least * 2);
        faults.name_latency = Latency::between(least / 4, least / 2);
    }

    /// Harms one node, for a while.
    pub(super) fn harm(
        &mut self,
        world: &mut World,
        machines: &[NodeId],
        which: usize,
        harm: Harm,
        time: Duration,
    ) {
        let machine = machines[which];
        match harm {
            Harm::Kill => {
                world.kill(machine);
                self.after(world, time, Deed::Start(which));
            }
            Harm::PowerCut => {
                world.power_off(machine);
                self.after(world, time, Deed::Start(which));
            }
            Harm::Pause => {
                world.pause(machine);
                self.after(world, time, Deed::Resume(which));
            }
            Harm::CutOff => {
                let pairs = cut_off(machines, which);
                self.block(world, time, pairs);
            }
        }
    }

    /// Something goes wrong. Gives the time that the story is to take until the next.
    pub(super) fn strike(&mut self, world: &mut World, nodes: &Nodes) -> Duration {
        if self.kinds.contains(&Kind::Pause) && world.random().below(LONG_PAUSES) == 0 {
            let which = world.random().index(nodes.count());
            let time = LONG_PAUSE.mul_f64(1.0 + world.random().below(100) as f64 / 100.0);
            self.harm(world, &nodes.machines(), which, Harm::Pause, time);
            return time;
        }
        self.strike_for_a_while(world, nodes);
        Duration::ZERO
    }

    fn strike_for_a_while(&mut self, world: &mut World, nodes: &Nodes) {
        let kind = world.random().pick(&self.kinds);
        let which = world.random().index(nodes.count());
        let time = some(world, Duration::from_secs(6));
        let machines = nodes.machines();
        let machine = machines[which];
        tracing::info!(at = ?world.now(), ?kind, node = which + 1, ?time, "something goes wrong");
        match kind {
            Kind::Kill => self.harm(world, &machines, which, Harm::Kill, time),
            Kind::PowerCut => self.harm(world, &machines, which, Harm::PowerCut, time),
            Kind::Pause => self.harm(world, &machines, which, Harm::Pause, time),
            Kind::Blackout => {
                for which in 0..machines.len() {
                    let time = some(world, Duration::from_secs(3));
                    self.harm(world, &machines, which, Harm::PowerCut, time);
                }
            }
            Kind::Massacre => {
                for which in 0..machines.len() {
                    let apart = some(world, Duration::from_secs(1));
                    world.run_for(apart);
                    let harm = world.random().pick(&[Harm::Kill, Harm::PowerCut]);
                    let time = some(world, Duration::from_secs(3));
                    self.harm(world, &machines, which, harm, time);
                }
            }
            Kind::Stop => {
                nodes.stop(which);
                self.after(world, time + STOPS_WITHIN / 4, Deed::Restart(which));
            }
            Kind::CutOff | Kind::OneWay | Kind::Split | Kind::Link | Kind::Clients => {
                let pairs = self.cut(world, kind, which, &machines);
                self.block(world, time, pairs);
            }
            Kind::Stall => world.disk(machine).stall(time / 3),
            Kind::Full => {
                let room = world.random().pick(&[0, 4096, 1 << 20]);
                let used = world.disk(machine).used();
                world.disk(machine).faults().capacity = used + room;
                self.after(world, time, Deed::Repair(which));
            }
            Kind::Failing => {
                let faults = DiskFaults::failing_swarm(world.random());
                *world.disk(machine).faults() = faults;
                self.after(world, time, Deed::Repair(which));
            }
            Kind::Rot => self.let_rot(world, nodes, which, time),
            Kind::Clock => {
                let most = CLOCKS_BACK.as_millis() as u64;
                let by = world.random().below(2 * most) as i64 - most as i64;
                world.jump_wall_clock(machine, by);
            }
            Kind::Swarm => world.swarm(),
            Kind::Scenario(scenario) => scenario.stage(self, world, &machines),
        }
    }

    /// Bits rot, and are read from the disk soon, maybe: what is in memory is not.
    fn let_rot(&mut self, world: &mut World, nodes: &Nodes, which: usize, time: Duration) {
        let which = self.rot.which(which);
        let machines = nodes.machines();
        match world.random().below(3) {
            0 => self.rot.strike(world, &machines),
            1 => {
                self.rot.strike(world, &machines);
                let harm = world.random().pick(&[Harm::Kill, Harm::PowerCut]);
                self.harm(world, &machines, which, harm, time);
            }
            // After an orderly end the last checkpoint covers everything.
            _ => {
                let away = time + STOPS_WITHIN / 4;
                nodes.stop(which);
                self.after(world, away, Deed::Rot);
                self.after(world, away, Deed::Restart(which));
            }
        }
    }

    /// Which ways are blocked.
    fn cut(
        &self,
        world: &mut World,
        kind: Kind,
        which: usize,
        machines: &[NodeId],
    ) -> Vec<(NodeId, NodeId)> {
        let one = machines[which];
        let others: Vec<NodeId> = machines.iter().copied().filter(|m| *m != one).collect();
        let other = others[world.random().index(others.len())];
        let client = self.clients[world.random().index(self.clients.len())];
        let both = |a: NodeId, b: NodeId| [(a, b), (b, a)];
        match kind {
            Kind::CutOff => cut_off(machines, which),
            Kind::OneWay => {
                let out = world.random().coin();
                let way = |m: &NodeId| if out { (one, *m) } else { (*m, one) };
                others.iter().map(way).collect()
            }
            Kind::Link => both(one, other).to_vec(),
            Kind::Clients => both(one, client).to_vec(),
            _ => {
                let (these, those): (Vec<NodeId>, Vec<NodeId>) =
                    machines.iter().partition(|_| world.random().coin());
                let with = |a: &NodeId| those.iter().flat_map(|b| both(*a, *b)).collect::<Vec<_>>();
                these.iter().flat_map(with).collect()
            }
        }
    }
}

/// All ways between one node and the others.
pub(super) fn cut_off(machines: &[NodeId], which: usize) -> Vec<(NodeId, NodeId)> {
    let one = machines[which];
    let others = machines.iter().filter(|machine| **machine != one);
    others
        .flat_map(|other| [(one, *other), (*other, one)])
        .collect()
}

/// A random time up to this one, short ones as likely as long ones.
pub(super) fn some(world: &mut World, longest: Duration) -> Duration {
    let longest = longest.as_millis() as u64;
    let scale = world.random().pick(&[1, 10, 100]);
    let time = world.random().between(1, (longest / scale).max(1));
    Duration::from_millis(time)
}
