//! One seed's story: nodes that live, die, are cut off and come back, and the check at the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringmill_ring::sim::{DiskFaults, NetworkFaults, NodeId, World};

use crate::history::Shared;
use crate::node::{List, Plan, live};

/// When nothing goes wrong any more, the quorum must serve within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(20);

/// What a seed came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) acknowledged: usize,
    pub(crate) terms: usize,
    pub(crate) snapshots: usize,
    trace: u64,
}

struct Story {
    world: World,
    nodes: Vec<NodeId>,
    history: Shared,
    grows: bool,
    pause: Duration,
    failing: bool,
    state: Rc<RefCell<BTreeMap<i32, Rc<List>>>>,
}

/// Lives a seed to its end.
pub(crate) fn run(seed: u64) -> Result<Summary, String> {
    let mut story = Story::new(seed);
    let steps = story.world.random().between(1, 25);
    for _ in 0..steps {
        story.trouble();
        let longest = story.world.random().pick(&[20, 200, 2_000]);
        let time = story.world.random().between(1, longest);
        story.world.run_for(Duration::from_millis(time));
    }
    story.calm_down()?;
    let history = story.history.borrow();
    Ok(Summary {
        acknowledged: history.acknowledged.len(),
        terms: history.terms(),
        snapshots: history.snapshots,
        trace: story.world.trace_hash(),
    })
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let count = world.random().pick(&[3, 3, 5]);
        let nodes = (1..=count)
            .map(|n| world.add_node(&format!("n{n}"), [10, 0, 0, n as u8].into()))
            .collect();
        let pause = world.random().pick(&[1, 5, 30]);
        let mut story = Self {
            nodes,
            history: Shared::default(),
            grows: world.random().below(2) == 0,
            pause: Duration::from_millis(pause),
            failing: world.random().below(8) == 0,
            state: Rc::default(),
            world,
        };
        story.world.swarm();
        story.bad_disks();
        for at in 0..story.nodes.len() {
            story.boot(at);
        }
        story.world.run_for(Duration::from_millis(1_500));
        story
    }

    fn bad_disks(&mut self) {
        if self.failing {
            for node in self.nodes.clone() {
                let faults = DiskFaults::failing_swarm(self.world.random());
                *self.world.disk(node).faults() = faults;
            }
        }
    }

    fn boot(&mut self, at: usize) {
        if self.world.is_running(self.nodes[at]) {
            return;
        }
        let plan = Plan {
            node: at as i32 + 1,
            nodes: self.nodes.len() as i32,
            history: Rc::clone(&self.history),
            grows: self.grows,
            pause: self.pause,
            state: Rc::clone(&self.state),
        };
        self.world.start(self.nodes[at], live(plan));
    }

    /// Something happens.
    fn trouble(&mut self) {
        let at = self.world.random().index(self.nodes.len());
        let other = self.world.random().index(self.nodes.len());
        let (node, peer) = (self.nodes[at], self.nodes[other]);
        match self.world.random().below(10) {
            0 => self.world.kill(node),
            1 | 2 => self.world.power_off(node),
            3 => self.world.pause(node),
            4 => self.world.resume(node),
            5 => self.world.network().block(node, peer),
            6 => {
                let cut = 1 + self.world.random().index(self.nodes.len() - 1);
                let (these, those) = self.nodes.split_at(cut);
                self.world.network().partition(these, those);
            }
            7 => self.world.network().heal(),
            8 => {
                self.world.swarm();
                self.bad_disks();
            }
            _ => {}
        }
        for at in 0..self.nodes.len() {
            if self.world.random().below(2) == 0 {
                self.boot(at);
            }
        }
    }

    /// Nothing goes wrong any more: the quorum serves, and every promise is kept.
    fn calm_down(&mut self) -> Result<(), String> {
        *self.world.network().faults() = NetworkFaults::default();
        self.world.network().heal();
        *self.world.cpu() = Default::default();
        for at in 0..self.nodes.len() {
            let node = self.nodes[at];
            *self.world.disk(node).faults() = DiskFaults::default();
            self.world.resume(node);
            // One that ran on a bad disk may have ended its part.
            if self.failing {
                self.world.kill(node);
            }
            self.boot(at);
        }
        let before = self.history.borrow().acknowledged.clone();
        let applied = self.history.borrow().last_applied();
        let (history, state) = (Rc::clone(&self.history), Rc::clone(&self.state));
        let count = self.nodes.len();
        let served = self.world.run_until(SERVES_WITHIN, |_| {
            let history = history.borrow();
            let states = state.borrow();
            history.acknowledged.len() > before.len() + 20
                && states.len() == count
                && states.values().all(|list| list.last_index() >= applied)
        });
        self.history.borrow().verdict()?;
        if served.is_err() {
            let history = self.history.borrow();
            let ends: Vec<_> = state
                .borrow()
                .values()
                .map(|list| list.last_index())
                .collect();
            let (acknowledged, before) = (history.acknowledged.len(), before.len());
            return Err(format!(
                "it does not serve {SERVES_WITHIN:?} after the last fault: {acknowledged} \
                 acknowledged, {before} before; applied {ends:?} of {applied}"
            ));
        }
        for (node, list) in self.state.borrow().iter() {
            // What was acknowledged since may still be on its way.
            let history = self.history.borrow();
            history.check_state(*node, &list.state(), &before)?;
        }
        Ok(())
    }
}
