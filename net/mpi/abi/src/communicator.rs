//! Communicators: made, compared, divided, joined; and the error handlers that they have.

mod api;
mod intercomm;
mod make;

pub(crate) use intercomm::create_from_groups;
pub(crate) use make::{create_among, split};

use std::ffi::c_int;
use std::rc::Rc;

use ringmill_mpi::buffer::Buffer;
use ringmill_mpi::collective::{Blocks, Job, Place, Reducer, Run, Schedule, all_gather};
use ringmill_mpi::group::Group;

use crate::attribute::Attributes;
use crate::buffered::Attached;
use crate::callback;
use crate::environment::{Handler, abort};
use crate::error::{Code, Outcome, words};
use crate::handle::{Comm, Errhandler};
use crate::info::Pairs;
use crate::memory::Memory;
use crate::progress::{bytes_of, wait_for};
use crate::state::{Running, State, with};
use crate::topology::Topology;

/// Tags of collective operations are counted below this; those of calls with a tag of the
/// program's are above.
const COUNTED: i32 = 1 << 30;
/// Of those below, the ones of operations that do not wait.
const LATER: i32 = 1 << 29;

/// A communicator.
#[derive(Debug)]
pub(crate) struct Communicator {
    /// Of its messages; its collective operations have the next number.
    pub context: u32,
    /// Processes of the own group.
    pub local: Group,
    /// The own rank in it.
    pub rank: u32,
    /// Processes of the other group, if there are two.
    pub remote: Option<Group>,
    /// Those to whom messages go.
    pub peers: Rc<[u32]>,
    /// Collective operations that were begun: by calls that wait, and by others. Two numbers, so
    /// that the two kinds may be begun in another order elsewhere.
    pub begun: i32,
    pub begun_later: i32,
    pub attributes: Attributes,
    pub name: String,
    pub handler: Errhandler,
    pub info: Pairs,
    pub topology: Option<Rc<Topology>>,
    pub attached: Option<Attached>,
}

impl Communicator {
    pub(crate) fn new(
        context: u32,
        local: Group,
        rank: u32,
        remote: Option<Group>,
        handler: Errhandler,
    ) -> Self {
        let peers = remote.as_ref().unwrap_or(&local).members().into();
        Communicator {
            context,
            local,
            rank,
            remote,
            peers,
            begun: 0,
            begun_later: 0,
            attributes: Attributes::default(),
            name: String::new(),
            handler,
            info: Pairs::default(),
            topology: None,
            attached: None,
        }
    }

    /// The own place in the own group.
    pub(crate) fn place(&self) -> Place {
        Place {
            rank: self.rank as usize,
            size: self.local.size(),
        }
    }

    /// Where the messages of its next collective operation go.
    pub(crate) fn job(&mut self) -> Job {
        self.begun = (self.begun + 1) % LATER;
        self.job_of(self.begun)
    }

    /// The same for one that does not wait.
    pub(crate) fn job_later(&mut self) -> Job {
        self.begun_later = (self.begun_later + 1) % LATER;
        self.job_of(self.begun_later | LATER)
    }

    fn job_of(&self, tag: i32) -> Job {
        Job {
            context: self.context + 1,
            tag,
            rank: self.rank,
            peers: self.peers.clone(),
        }
    }
}

impl State {
    /// Begins a collective operation.
    pub(crate) fn begin_run(&mut self, run: Run<Memory>) -> usize {
        let number = self.runs.insert(Running {
            run: Some(run),
            external: None,
            over: None,
        });
        self.active.push(number);
        number
    }
}

/// Waits for the end of a collective operation.
pub(crate) fn await_run(number: usize) -> Outcome<()> {
    let over = wait_for(|state| Ok(state.runs[number].over.take()))?;
    with(|state| state.runs.remove(number));
    over
}

/// Everybody's bytes, of one length, by rank, over given processes.
pub(crate) fn gather_bytes(job: Job, bytes: Vec<u8>) -> Outcome<Vec<u8>> {
    let place = Place {
        rank: job.rank as usize,
        size: job.peers.len(),
    };
    let schedule: Schedule = all_gather(place, &Blocks::Even(bytes.len()), false);
    let received = Memory::owned(vec![0; bytes.len() * place.size]);
    let run = Run::new(
        job,
        Rc::new(schedule),
        Memory::owned(bytes),
        received.clone(),
        Reducer::None,
    );
    let number = with(|state| state.begin_run(run));
    await_run(number)?;
    Ok(bytes_of(&received))
}

/// Everybody's numbers, of any count, one behind the other.
pub(crate) fn tell_all(comm: Comm, numbers: &[c_int]) -> Outcome<Vec<c_int>> {
    let count = make::encode(&[numbers.len() as u32]);
    let counts = make::decode(&gather_bytes(make::job_of(comm)?, count)?);
    let longest = counts.iter().max().copied().unwrap_or(0) as usize;
    let mut padded: Vec<u32> = numbers
        .iter()
        .map(|number| number.cast_unsigned())
        .collect();
    padded.resize(longest, 0);
    let all = make::decode(&gather_bytes(make::job_of(comm)?, make::encode(&padded))?);
    let mut told = Vec::new();
    for (rank, count) in counts.iter().enumerate() {
        let own = &all[rank * longest..rank * longest + *count as usize];
        told.extend(own.iter().map(|number| number.cast_signed()));
    }
    Ok(told)
}

/// What a call with a communicator comes to: an error goes to the communicator's handler.
#[inline]
pub(crate) fn finish(comm: Comm, outcome: Outcome<()>) -> c_int {
    match outcome {
        Ok(()) => 0,
        Err(error) => failed(comm, error),
    }
}

#[cold]
fn failed(comm: Comm, error: Code) -> c_int {
    let (comm, handler) = with(|state| {
        let (comm, handle) = match state.comms.get(comm) {
            Ok(data) => (comm, data.handler),
            // A call without a communicator, or with a wrong one.
            Err(_) => match state.comms.get(Comm::SELF) {
                Ok(data) => (Comm::SELF, data.handler),
                Err(_) => (Comm::SELF, Errhandler::RETURN),
            },
        };
        (
            comm,
            state
                .handlers
                .get(handle)
                .copied()
                .unwrap_or(Handler::Fatal),
        )
    });
    run_handler(handler, callback::object_of(comm), error);
    error.0
}

/// An error of an object with this handler.
pub(crate) fn handle(handler: Errhandler, object: usize, error: Code) {
    let handler = with(|state| {
        state
            .handlers
            .get(handler)
            .copied()
            .unwrap_or(Handler::Fatal)
    });
    run_handler(handler, object, error);
}

fn run_handler(handler: Handler, object: usize, error: Code) {
    match handler {
        Handler::Return => {}
        Handler::Fatal | Handler::Abort => abort(error.0, &say(error)),
        Handler::User(function) => {
            if let Some(function) = function.handler() {
                callback::handle(function, object, error.0);
            }
        }
    }
}

/// What an error is, in words.
pub(crate) fn say(error: Code) -> String {
    with(|state| match state.codes.get(&error.0) {
        Some((_, text)) => text.clone(),
        None => words(error.0).unwrap_or("an unknown error code").to_owned(),
    })
}
