//! What happens to a cluster.

use std::fmt;
use std::str::FromStr;

use super::network::nodes_after;

/// A fault, or what an administrator does; most of them to the node that leads the first partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGTERM, and a new start.
    Shutdown,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// Its network is down, and up again.
    Isolation,
    /// What it sends to the other nodes does not arrive; clients reach it.
    Mute,
    /// What the other nodes send to it does not arrive; clients reach it.
    Deaf,
    /// It and the other nodes do not reach each other; clients reach them all.
    Split,
    /// All nodes one after the other: SIGTERM, and a new start.
    Roll,
    /// Its disk has no room left, and then has again.
    Full,
    /// It loses its power, and with it what its disk was not told to keep; then it starts anew.
    PowerCut,
    /// All nodes lose their power at once.
    Blackout,
    /// Its wall clock is two hours ahead, that of the next node two hours late; then both are right.
    Clocks,
    /// SIGKILL, all its data is gone, and it starts anew under its own number.
    Emptied,
    /// SIGKILL for good; a new node with another number takes its place.
    Replaced,
    /// SIGKILL of two nodes of five, and new starts.
    Pair,
    /// A fourth node joins, and half of the partitions move to it.
    Grown,
}

/// Each one's name, and what a reader of the results is to know of it.
const NAMES: [(Fault, &str, &str); 16] = [
    (Fault::Kill, "kill", "SIGKILL, and a new start"),
    (Fault::Shutdown, "shutdown", "SIGTERM, and a new start"),
    (Fault::Pause, "pause", "SIGSTOP, and SIGCONT"),
    (
        Fault::Isolation,
        "isolation",
        "its network is down, and up again",
    ),
    (
        Fault::Mute,
        "mute",
        "what it sends to other nodes does not arrive; clients reach it",
    ),
    (
        Fault::Deaf,
        "deaf",
        "what other nodes send to it does not arrive; clients reach it",
    ),
    (
        Fault::Split,
        "split",
        "it and the other nodes do not reach each other; clients reach them all",
    ),
    (
        Fault::Roll,
        "roll",
        "all nodes one after the other: SIGTERM, and a new start",
    ),
    (
        Fault::Full,
        "full",
        "its disk has no room left, and then has again",
    ),
    (
        Fault::PowerCut,
        "power-cut",
        "its file system stops as it is on the disk: what was not flushed is gone; then SIGKILL and a new start",
    ),
    (Fault::Blackout, "blackout", "the same of all nodes at once"),
    (
        Fault::Clocks,
        "clocks",
        "its wall clock jumps two hours ahead, the next node's two hours back; then both are right",
    ),
    (
        Fault::Emptied,
        "emptied",
        "SIGKILL, all its data is removed, and it starts under its own number",
    ),
    (
        Fault::Replaced,
        "replaced",
        "SIGKILL and its data is removed; a node with a new number joins, gets its copies, and it leaves the cluster",
    ),
    (
        Fault::Pair,
        "pair",
        "five nodes: SIGKILL of two at once, and new starts",
    ),
    (
        Fault::Grown,
        "grown",
        "no fault: a fourth node joins, and half of the partitions move to it",
    ),
];

impl Fault {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(fault, ..)| *fault)
    }

    fn named(self) -> (&'static str, &'static str) {
        let found = NAMES.iter().find(|(fault, ..)| *fault == self);
        found.map_or(("", ""), |(_, name, what)| (*name, *what))
    }

    /// What happens, in words.
    pub fn what(self) -> &'static str {
        self.named().1
    }

    /// Nodes of the cluster that it happens to.
    pub fn nodes(self) -> u8 {
        match self {
            Self::Pair => 5,
            _ => 3,
        }
    }

    /// Machines that it takes: nodes may join.
    pub fn machines(self) -> u8 {
        match self {
            Self::Replaced | Self::Grown => self.nodes() + 1,
            _ => self.nodes(),
        }
    }

    /// Each node's data is in a file system of its own.
    pub fn has_disks(self) -> bool {
        matches!(self, Self::Full | Self::PowerCut | Self::Blackout)
    }

    /// The nodes that it strikes, if it begins with `first`.
    pub fn struck(self, first: u8) -> Vec<u8> {
        match self {
            Self::Roll | Self::Blackout => (1..=self.nodes()).collect(),
            Self::Pair | Self::Clocks => nodes_after(first, self.nodes()).take(2).collect(),
            _ => vec![first],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.named().0)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::all().find(|fault| fault.named().0 == name);
        found.ok_or_else(|| format!("there is no fault {name:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name() {
        for fault in Fault::all() {
            assert_eq!(fault.to_string().parse(), Ok(fault));
            assert!(!fault.what().is_empty());
        }
        assert!("none".parse::<Fault>().is_err());
    }

    #[test]
    fn two_of_five_are_struck_around_the_corner() {
        assert_eq!(Fault::Pair.struck(5), [5, 1]);
        assert_eq!(Fault::Roll.struck(2), [1, 2, 3]);
        assert_eq!(Fault::Kill.struck(2), [2]);
    }
}
