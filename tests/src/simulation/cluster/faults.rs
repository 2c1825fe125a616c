//! What goes wrong with a cluster: each seed has some of the kinds, each of which may come again and
//! again, lasts for a while, and goes on beside the others.

use std::time::Duration;

use ringmill_ring::sim::{DiskFaults, NodeId, World};

use super::nodes::{Nodes, STOPS_WITHIN};

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
    /// A clock jumps.
    Clock,
    /// Everything is slow and lossy in a new way.
    Swarm,
}

const KINDS: [Kind; 16] = [
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
    Kind::Clock,
    Kind::Swarm,
];

/// A clock jumps so far, at most.
const CLOCKS_BACK: Duration = Duration::from_secs(60);

/// What ends a fault.
#[derive(Debug)]
enum Relief {
    Start(usize),
    /// A node that was to stop and has not is killed, and comes back.
    Restart(usize),
    Resume(usize),
    Unblock(Vec<(NodeId, NodeId)>),
    /// The disk is well again; what it has closed opens with the next start.
    Repair(usize),
}

/// The faults of one seed.
pub(super) struct Faults {
    kinds: Vec<Kind>,
    clients: Vec<NodeId>,
    reliefs: Vec<(Duration, Relief)>,
}

impl Faults {
    /// Some of the kinds.
    pub(super) fn new(world: &mut World, clients: Vec<NodeId>) -> Self {
        let odds = world.random().pick(&[2, 3, 6]);
        let mut kinds: Vec<Kind> = KINDS.to_vec();
        kinds.retain(|_| world.random().below(odds) == 0);
        if kinds.is_empty() {
            let any = world.random().pick(&KINDS);
            kinds.push(any);
        }
        Self {
            kinds,
            clients,
            reliefs: Vec::new(),
        }
    }

    /// How far clocks may have been set back: what is to happen after a while happens as much later.
    pub(super) fn clocks_back(&self) -> Duration {
        match self.kinds.contains(&Kind::Clock) {
            true => CLOCKS_BACK * 2,
            false => Duration::ZERO,
        }
    }

    /// When the next fault ends.
    pub(super) fn next_relief(&self) -> Option<Duration> {
        self.reliefs.iter().map(|(at, _)| *at).min()
    }

    /// Ends what is over by then.
    pub(super) fn relieve(&mut self, world: &mut World, nodes: &mut Nodes, then: Duration) {
        let (over, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.reliefs)
            .into_iter()
            .partition(|(at, _)| *at <= then);
        self.reliefs = rest;
        let machines = nodes.machines();
        for (_, relief) in over {
            tracing::info!(at = ?world.now(), ?relief, "something is over");
            match relief {
                Relief::Start(which) => nodes.start(world, which),
                Relief::Restart(which) => {
                    world.kill(machines[which]);
                    nodes.start(world, which);
                }
                Relief::Resume(which) => world.resume(machines[which]),
                Relief::Unblock(pairs) => {
                    let unblock = |(from, to)| world.network().unblock(from, to);
                    pairs.into_iter().for_each(unblock);
                }
                Relief::Repair(which) => {
                    *world.disk(machines[which]).faults() = DiskFaults::default();
                    world.kill(machines[which]);
                    nodes.start(world, which);
                }
            }
        }
    }

    fn after(&mut self, world: &World, time: Duration, relief: Relief) {
        self.reliefs.push((world.now() + time, relief));
    }

    fn block(&mut self, world: &World, time: Duration, pairs: Vec<(NodeId, NodeId)>) {
        for (from, to) in &pairs {
            world.network().block(*from, *to);
        }
        self.after(world, time, Relief::Unblock(pairs));
    }

    /// Something goes wrong.
    pub(super) fn strike(&mut self, world: &mut World, nodes: &Nodes) {
        let kind = world.random().pick(&self.kinds);
        let which = world.random().index(nodes.count());
        let time = some(world, Duration::from_secs(6));
        let machines = nodes.machines();
        let machine = machines[which];
        tracing::info!(at = ?world.now(), ?kind, node = which + 1, ?time, "something goes wrong");
        match kind {
            Kind::Kill => {
                world.kill(machine);
                self.after(world, time, Relief::Start(which));
            }
            Kind::PowerCut => {
                world.power_off(machine);
                self.after(world, time, Relief::Start(which));
            }
            Kind::Blackout => {
                for (which, machine) in machines.iter().enumerate() {
                    world.power_off(*machine);
                    let time = some(world, Duration::from_secs(3));
                    self.after(world, time, Relief::Start(which));
                }
            }
            Kind::Massacre => {
                for (which, machine) in machines.iter().enumerate() {
                    let apart = some(world, Duration::from_secs(1));
                    world.run_for(apart);
                    match world.random().coin() {
                        true => world.kill(*machine),
                        false => world.power_off(*machine),
                    }
                    let time = some(world, Duration::from_secs(3));
                    self.after(world, time, Relief::Start(which));
                }
            }
            Kind::Stop => {
                nodes.stop(which);
                self.after(world, time + STOPS_WITHIN / 4, Relief::Restart(which));
            }
            Kind::Pause => {
                world.pause(machine);
                self.after(world, time, Relief::Resume(which));
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
                self.after(world, time, Relief::Repair(which));
            }
            Kind::Failing => {
                let faults = DiskFaults::failing_swarm(world.random());
                *world.disk(machine).faults() = faults;
                self.after(world, time, Relief::Repair(which));
            }
            Kind::Clock => {
                let most = CLOCKS_BACK.as_millis() as u64;
                let by = world.random().below(2 * most) as i64 - most as i64;
                world.jump_wall_clock(machine, by);
            }
            Kind::Swarm => world.swarm(),
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
            Kind::CutOff => others.iter().flat_map(|m| both(one, *m)).collect(),
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

/// A random time up to this one, short ones as likely as long ones.
pub(super) fn some(world: &mut World, longest: Duration) -> Duration {
    let longest = longest.as_millis() as u64;
    let scale = world.random().pick(&[1, 10, 100]);
    let time = world.random().between(1, (longest / scale).max(1));
    Duration::from_millis(time)
}
