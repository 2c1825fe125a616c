//! Carries a schedule out over an engine. Pure: it asks the engine, and never waits.

use std::rc::Rc;

use super::{Region, Row, Schedule, Step};
use crate::buffer::Buffer;
use crate::engine::{Destination, Engine, Fault, Mode, Outlet, RequestId, Started};
use crate::matching::Pattern;
use crate::op::{self, Op, Scalar};

/// What reduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reducer {
    /// The schedule has no reductions.
    None,
    /// An operation of the standard's, on elements of one basic type.
    Basic(Op, Scalar),
    /// Code of the application's.
    External,
}

/// How far a run is.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are what the variant says of them")]
pub enum Outcome<B> {
    /// It waits for messages.
    Waiting,
    /// It is over.
    Done,
    /// Something went wrong with a message.
    Failed(Fault),
    /// The caller is to do `into = from op into`, or if it is flipped `into = into op from`, and
    /// then to go on.
    Reduce { from: B, into: B, flipped: bool },
}

/// Where the messages of an operation go.
#[derive(Clone, Debug)]
pub struct Job {
    /// The context of the communicator's collective operations.
    pub context: u32,
    /// The operation's number in it.
    pub tag: i32,
    /// Our own rank.
    pub rank: u32,
    /// The processes by rank.
    pub peers: Rc<[u32]>,
}

/// A schedule that is carried out.
#[derive(Debug)]
pub struct Run<B> {
    job: Job,
    schedule: Rc<Schedule>,
    next: usize,
    begun: Vec<RequestId>,
    fault: Option<Fault>,
    rows: [B; 3],
    reducer: Reducer,
}

impl<B: Buffer> Run<B> {
    /// Begins nothing yet.
    pub fn new(job: Job, schedule: Rc<Schedule>, send: B, receive: B, reducer: Reducer) -> Run<B> {
        let scratch = B::owned(vec![0; schedule.scratch]);
        Run {
            job,
            schedule,
            next: 0,
            begun: Vec::new(),
            fault: None,
            rows: [send, receive, scratch],
            reducer,
        }
    }

    /// The same schedule once more.
    pub fn again(&self, tag: i32) -> Run<B> {
        let [send, receive, _] = self.rows.clone();
        let job = Job {
            tag,
            ..self.job.clone()
        };
        Run::new(job, self.schedule.clone(), send, receive, self.reducer)
    }

    fn region(&self, region: Region) -> B {
        let row = match region.row {
            Row::Send => &self.rows[0],
            Row::Receive => &self.rows[1],
            Row::Scratch => &self.rows[2],
        };
        row.part(region.at, region.len)
    }

    /// Goes on as far as it can.
    pub fn advance(&mut self, engine: &mut Engine<B>, out: &mut impl Outlet<B>) -> Outcome<B> {
        while let Some(step) = self.schedule.steps.get(self.next).copied() {
            match step {
                Step::Wait => {
                    if !self.collect(engine) {
                        return Outcome::Waiting;
                    }
                    if let Some(fault) = self.fault {
                        self.next = self.schedule.steps.len();
                        return Outcome::Failed(fault);
                    }
                }
                Step::Send { to, region } => {
                    let to = Destination {
                        peer: self.job.peers[to as usize],
                        context: self.job.context,
                        rank: self.job.rank,
                        tag: self.job.tag,
                    };
                    let started = engine.send(out, &to, Mode::Standard, &self.region(region));
                    self.started(started);
                }
                Step::Receive { from, region } => {
                    let pattern = Pattern {
                        context: self.job.context,
                        source: Some(from),
                        tag: Some(self.job.tag),
                    };
                    let started = engine.receive(pattern, self.region(region));
                    self.started(started);
                }
                Step::Copy { from, into } => copy(&self.region(from), &self.region(into)),
                Step::Reduce {
                    from,
                    into,
                    flipped,
                } => {
                    let (from, into) = (self.region(from), self.region(into));
                    match self.reducer {
                        Reducer::Basic(op, scalar) => reduce(op, scalar, &from, &into, flipped),
                        _ => {
                            self.next += 1;
                            return Outcome::Reduce {
                                from,
                                into,
                                flipped,
                            };
                        }
                    }
                }
            }
            self.next += 1;
        }
        Outcome::Done
    }

    fn started(&mut self, started: Started) {
        match started {
            Started::Done(status) => self.fault = self.fault.or(status.fault),
            Started::Pending(id) => self.begun.push(id),
        }
    }

    /// Takes the outcomes of what is over; true if all is.
    fn collect(&mut self, engine: &mut Engine<B>) -> bool {
        while let Some(id) = self.begun.last() {
            let Some(status) = engine.take(*id) else {
                return false;
            };
            self.begun.pop();
            self.fault = self.fault.or(status.fault);
        }
        true
    }
}

fn copy<B: Buffer>(from: &B, into: &B) {
    into.combine(from, &mut |from, into| into.copy_from_slice(from));
}

/// Operations of the standard's, the locations among them, give the same whichever side an
/// operand stands on, but for the last two.
fn reduce<B: Buffer>(op: Op, scalar: Scalar, from: &B, into: &B, flipped: bool) {
    let op = match (op, flipped) {
        (Op::Keep, true) => Op::Replace,
        (Op::Replace, true) => Op::Keep,
        (op, _) => op,
    };
    into.combine(from, &mut |from, into| {
        // Whether there is such an operation was asked before the run began.
        let _ = op::apply(op, scalar, from, into);
    });
}
