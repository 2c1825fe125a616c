//! The judge's network: each datagram goes to each other node by a link of its own, which loses
//! in bursts, doubles, delays and reorders.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::backoff::Chance;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// The fraction that is lost.
    pub(super) loss: f64,
    /// Datagrams that are lost in a row, on average.
    pub(super) burst: f64,
    pub(super) duplicate: f64,
    /// The fraction that is overtaken by later ones.
    pub(super) reorder: f64,
    /// Nanoseconds from one node to another, and how much more at most.
    pub(super) delay: (u64, u64),
}

/// A datagram that arrives.
pub(super) struct Delivery {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) bytes: Bytes,
}

pub(super) struct Network {
    pub(super) faults: Faults,
    chance: Chance,
    /// Links that are losing at present.
    bad: BTreeMap<(usize, usize), bool>,
    /// Nodes that are cut off from all others.
    pub(super) cut: BTreeSet<usize>,
    on_the_way: BTreeMap<(u64, u64), Delivery>,
    count: u64,
}

impl Network {
    pub(super) fn new(faults: Faults, seed: u64) -> Network {
        Network {
            faults,
            chance: Chance::new(seed ^ 0x6e65_7477_6f72_6b00),
            bad: BTreeMap::new(),
            cut: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            count: 0,
        }
    }

    fn strikes(&mut self, fraction: f64) -> bool {
        self.chance.fraction() < fraction
    }

    fn loses(&mut self, link: (usize, usize)) -> bool {
        let Faults { loss, burst, .. } = self.faults;
        if loss == 0.0 {
            return false;
        }
        let bad = self.bad.get(&link).copied().unwrap_or(false);
        let turns = match bad {
            true => 1.0 / burst,
            false => loss / (burst * (1.0 - loss)),
        };
        let bad = bad != self.strikes(turns);
        self.bad.insert(link, bad);
        bad
    }

    pub(super) fn send(&mut self, now: u64, from: usize, to: usize, bytes: &Bytes) {
        if self.cut.contains(&from) || self.cut.contains(&to) || self.loses((from, to)) {
            return;
        }
        let copies = 1 + u64::from(self.strikes(self.faults.duplicate));
        for _ in 0..copies {
            let (least, more) = self.faults.delay;
            let mut at = now + least + (more as f64 * self.chance.fraction()) as u64;
            if self.strikes(self.faults.reorder) {
                at += 3 * (least + more);
            }
            self.count += 1;
            let bytes = bytes.clone();
            self.on_the_way
                .insert((at, self.count), Delivery { from, to, bytes });
        }
    }

    pub(super) fn next_time(&self) -> Option<u64> {
        self.on_the_way.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn take(&mut self, now: u64) -> Option<Delivery> {
        let first = self.on_the_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
