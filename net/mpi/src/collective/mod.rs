//! Collective operations as schedules: what one rank sends, receives, copies and reduces, in
//! which order. Pure: a schedule is a list, made from ranks and lengths alone; [`Run`] carries it
//! out over an engine.
//!
//! All lengths are of packed bytes. A schedule knows three rows of bytes: what the application
//! sends, what it receives, and scratch.

mod barrier;
mod broadcast;
mod exchange;
mod inter;
#[cfg(test)]
mod lab;
mod reduction;
mod rooted;
mod run;
mod scan;

pub use barrier::barrier;
pub use broadcast::broadcast;
pub use exchange::{all_gather, all_to_all, neighbours};
pub use inter::{
    Role, inter_all_reduce, inter_all_to_all, inter_barrier, inter_broadcast, inter_gather,
    inter_reduce, inter_reduce_scatter, inter_scatter,
};
pub use reduction::{Elements, all_reduce, reduce, reduce_scatter};
pub use rooted::{gather, scatter};
pub use run::{Job, Outcome, Reducer, Run};
pub use scan::{Scan, scan};

/// Which row of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// What the application sends.
    Send,
    /// What it receives.
    Receive,
    /// Memory of the operation's own.
    Scratch,
}

/// A part of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The row.
    pub row: Row,
    /// Where it begins.
    pub at: usize,
    /// Bytes of it.
    pub len: usize,
}

impl Region {
    /// Of what is sent.
    pub fn send(at: usize, len: usize) -> Region {
        Region {
            row: Row::Send,
            at,
            len,
        }
    }

    /// Of what is received.
    pub fn receive(at: usize, len: usize) -> Region {
        Region {
            row: Row::Receive,
            at,
            len,
        }
    }

    /// A part of it.
    pub fn part(self, at: usize, len: usize) -> Region {
        Region {
            at: self.at + at,
            len,
            ..self
        }
    }
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what the variants say of them")]
pub enum Step {
    /// Begins to send to a rank.
    Send { to: u32, region: Region },
    /// Begins to receive from a rank.
    Receive { from: u32, region: Region },
    /// Waits until all that was begun is over.
    Wait,
    /// Copies.
    Copy { from: Region, into: Region },
    /// `into = from op into`; flipped: `into = into op from`, and `from` is worth nothing then.
    Reduce {
        from: Region,
        into: Region,
        flipped: bool,
    },
}

/// What one rank does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// In this order.
    pub steps: Vec<Step>,
    /// Bytes of scratch that it needs.
    pub scratch: usize,
}

impl Schedule {
    fn scratch(&mut self, len: usize) -> Region {
        let at = self.scratch;
        self.scratch += len;
        Region {
            row: Row::Scratch,
            at,
            len,
        }
    }

    fn send(&mut self, to: usize, region: Region) {
        self.steps.push(Step::Send {
            to: to as u32,
            region,
        });
    }

    fn receive(&mut self, from: usize, region: Region) {
        self.steps.push(Step::Receive {
            from: from as u32,
            region,
        });
    }

    fn wait(&mut self) {
        self.steps.push(Step::Wait);
    }

    fn copy(&mut self, from: Region, into: Region) {
        if from.len > 0 && from != into {
            self.steps.push(Step::Copy { from, into });
        }
    }

    fn reduce(&mut self, from: Region, into: Region) {
        self.steps.push(Step::Reduce {
            from,
            into,
            flipped: false,
        });
    }

    /// The right operand is `from`.
    fn reduce_right(&mut self, from: Region, into: Region) {
        self.steps.push(Step::Reduce {
            from,
            into,
            flipped: true,
        });
    }
}

/// The parts of a row, one for each rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// All of one length.
    Even(usize),
    /// Of these lengths: where each begins, and where the last ends.
    Given(Vec<usize>),
}

impl Blocks {
    /// Of these lengths.
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Blocks {
        let mut starts = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length;
            starts.push(end);
        }
        Blocks::Given(starts)
    }

    /// Where a rank's part begins.
    pub fn at(&self, rank: usize) -> usize {
        match self {
            Blocks::Even(len) => len * rank,
            Blocks::Given(starts) => starts[rank],
        }
    }

    /// Bytes of a rank's part.
    pub fn len(&self, rank: usize) -> usize {
        match self {
            Blocks::Even(len) => *len,
            Blocks::Given(starts) => starts[rank + 1] - starts[rank],
        }
    }

    /// A rank's part of what is sent.
    pub fn send(&self, rank: usize) -> Region {
        Region::send(self.at(rank), self.len(rank))
    }

    /// A rank's part of what is received.
    pub fn receive(&self, rank: usize) -> Region {
        Region::receive(self.at(rank), self.len(rank))
    }
}

/// One rank among how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The rank.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
}

impl Place {
    /// The rank that stands `by` places further, around the end.
    fn plus(self, by: usize) -> usize {
        (self.rank + by) % self.size
    }

    /// The rank that stands `by` places before.
    fn minus(self, by: usize) -> usize {
        (self.rank + self.size - by % self.size) % self.size
    }
}
