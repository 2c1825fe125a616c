//! How processes end, and machines go and come.

use super::{Kernel, OpenDescriptor};
use crate::sim::network::{Effects, OpKey};
use crate::sim::random::{Purpose, Random};

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum End {
    /// By itself: what is in flight is drained.
    Exit,
    /// SIGKILL: what is in flight may or may not happen, peers may or may not get a reset.
    Kill,
    /// With its machine: nothing is heard of it.
    PowerCut,
}

impl Kernel {
    /// A process ends. Its cores may still be dropped: nothing they ask for happens any more.
    pub(in crate::sim) fn end_process(&mut self, process: u32, how: End) {
        self.close_dropped();
        let facts = [5, u64::from(process), how as u64];
        self.trace.note(
            self.now,
            &facts,
            format_args!("process {process} ends: {how:?}"),
        );
        for core in &mut self.cores {
            core.alive &= core.process != process;
        }
        let flights: Vec<OpKey> = self
            .in_flight
            .keys()
            .copied()
            .filter(|key| self.core(key.core).process == process)
            .collect();
        for key in flights {
            if let Some(flight) = self.in_flight.remove(&key) {
                self.last_words(key, flight, how);
            }
        }
        let mine = |open: &OpenDescriptor| open.process == process;
        let open: Vec<u32> = self
            .open
            .iter()
            .filter(|(_, open)| mine(open))
            .map(|(number, _)| *number)
            .collect();
        for number in open {
            let abort = how == End::Kill && self.death.coin();
            if how == End::PowerCut {
                self.open.remove(&number);
                self.locks.retain(|_, holder| *holder != number);
            } else {
                self.close(number, abort);
            }
        }
        for core in &mut self.cores {
            if core.process == process {
                core.ready.clear();
            }
        }
    }

    /// The power of a machine goes. Its process must have ended.
    pub(in crate::sim) fn power_cut(&mut self, node: usize) {
        let mut effects = Effects::default();
        self.network.host_down(self.now, node, &mut effects);
        self.settle(effects);
        self.nodes[node].disk.power_cut();
        let words = format_args!("{}: loses its power", self.nodes[node].name);
        self.trace.note(self.now, &[6, node as u64], words);
    }

    /// The power of a machine comes again.
    pub(in crate::sim) fn power_on(&mut self, node: usize) {
        if !self.network.host_up(node) {
            return;
        }
        let salt = (node as u64) << 32 ^ self.now;
        let mut random = Random::new(self.seed, Purpose::Clock, salt);
        self.nodes[node].clock.boot(self.now, &mut random);
        let words = format_args!("{}: starts", self.nodes[node].name);
        self.trace.note(self.now, &[7, node as u64], words);
    }
}
