//! The beginning and the end, versions, errors, and what else a program asks of its surroundings.

mod errors;
mod facts;

use std::ffi::c_int;

use ringmill_mpi::endpoint::Endpoint;
use ringmill_mpi::group::Group as Members;
use ringmill_mpi::job::Job;
use ringmill_mpi::shm::end_process;

use crate::attribute::delete_all;
use crate::callback::Function;
use crate::collective::MPI_Barrier;
use crate::communicator::{Communicator, finish};
use crate::constants::{
    APPNUM, HOST, IO, PROC_NULL, TAG_MAX, TAG_UB, THREAD_MULTIPLE, THREAD_SERIALIZED,
    THREAD_SINGLE, UNIVERSE_SIZE, WTIME_IS_GLOBAL,
};
use crate::error::{Code, Outcome};
use crate::export::export;
use crate::handle::{Comm, Errhandler, Table};
use crate::memory::Out;
use crate::state::{Phase, State, set_threaded, with};

/// The level of programs that call from one thread only, whichever calls first.
const THREAD_FUNNELED: c_int = 1024;

/// What becomes of an error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Handler {
    /// The job ends.
    Fatal,
    /// The processes of the communicator end: here, the job.
    Abort,
    /// The call tells it.
    Return,
    /// A function of the application's is called.
    User(Function),
}

pub(crate) fn fix(handlers: &mut Table<Errhandler, Handler>) {
    handlers.fix(Errhandler::FATAL, Handler::Fatal);
    handlers.fix(Errhandler::ABORT, Handler::Abort);
    handlers.fix(Errhandler::RETURN, Handler::Return);
}

/// Ends the job: the launcher sees it by the exit code.
pub(crate) fn abort(code: c_int, why: &str) -> ! {
    let rank = with(|state| state.rank);
    eprintln!("ringmill-mpi: rank {rank} ends the job: {why} (code {code})");
    end_process(if code & 0xff == 0 { 1 } else { code })
}

impl State {
    /// Joins the job, if nobody has yet.
    pub(crate) fn join(&mut self) -> Outcome<()> {
        self.users += 1;
        if self.endpoint.is_some() {
            return Ok(());
        }
        if self.phase == Phase::After {
            return Err(Code::OTHER);
        }
        let joined = Job::from_environment().and_then(|job| Ok((Endpoint::join(&job)?, job)));
        match joined {
            Ok((endpoint, job)) => {
                self.rank = job.rank;
                self.size = job.size();
                self.near = job.near();
                self.endpoint = Some(endpoint);
                self.main_thread = Some(std::thread::current().id());
                Ok(())
            }
            Err(error) => {
                eprintln!("ringmill-mpi: {error}");
                end_process(1)
            }
        }
    }

    fn open_world(&mut self) {
        let (rank, size) = (self.rank, self.size);
        let all = Members::new((0..size).collect::<Vec<u32>>());
        let mut world = Communicator::new(0, all, rank, None, Errhandler::FATAL);
        "MPI_COMM_WORLD".clone_into(&mut world.name);
        let mut alone = Communicator::new(2, Members::new([rank]), 0, None, Errhandler::FATAL);
        "MPI_COMM_SELF".clone_into(&mut alone.name);
        self.comms.fix(Comm::WORLD, world);
        self.comms.fix(Comm::SELF, alone);
        let facts = [
            (TAG_UB, TAG_MAX),
            (IO, PROC_NULL),
            (HOST, PROC_NULL),
            (WTIME_IS_GLOBAL, 0),
            (APPNUM, 0),
            (UNIVERSE_SIZE, size.cast_signed()),
        ];
        for (key, value) in facts {
            self.attributes.insert(key, Box::new(value));
        }
        self.tell_last_code();
    }

    /// The level that is given: with connections, only the thread that joined may call.
    pub(crate) fn give_level(&mut self, required: c_int) -> c_int {
        let bound = self
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.ways.is_bound_to_its_thread());
        let most = if bound {
            THREAD_FUNNELED
        } else {
            THREAD_MULTIPLE
        };
        self.thread_level = required.clamp(THREAD_SINGLE, most).max(self.thread_level);
        if self.thread_level > THREAD_SERIALIZED {
            set_threaded();
        }
        self.thread_level
    }

    /// One user less; the last one leaves the job.
    pub(crate) fn leave(&mut self) -> Outcome<()> {
        self.users = self.users.saturating_sub(1);
        if self.users > 0 {
            return Ok(());
        }
        let left = match &mut self.endpoint {
            Some(endpoint) => endpoint.leave(),
            None => Ok(()),
        };
        self.endpoint = None;
        left.map_err(|error| {
            eprintln!("ringmill-mpi: rank {}: {error}", self.rank);
            Code::PROC_ABORTED
        })
    }
}

fn init(required: c_int, provided: Out<c_int>) -> Outcome<()> {
    with(|state| {
        if state.phase != Phase::Before {
            return Err(Code::OTHER);
        }
        state.join()?;
        state.open_world();
        state.phase = Phase::Running;
        provided.set(state.give_level(required));
        Ok(())
    })
}

fn finalize() -> Outcome<()> {
    if with(|state| state.phase) != Phase::Running {
        return Err(Code::OTHER);
    }
    // The first thing that happens: what programs have hung on themselves goes.
    delete_all(Comm::SELF)?;
    // Nobody goes while another may still want something.
    MPI_Barrier(Comm::WORLD);
    with(|state| {
        state.phase = Phase::After;
        state.leave()
    })
}

export! {
    fn MPI_Init(_argc: usize, _argv: usize) -> c_int {
        let level = Out::nowhere();
        finish(Comm::WORLD, init(THREAD_SINGLE, level))
    }
    fn MPI_Init_thread(_argc: usize, _argv: usize, required: c_int, provided: Out<c_int>) -> c_int {
        finish(Comm::WORLD, init(required, provided))
    }
    fn MPI_Finalize() -> c_int { finish(Comm::WORLD, finalize()) }
    fn MPI_Initialized(flag: Out<c_int>) -> c_int {
        flag.set(c_int::from(with(|state| state.phase) != Phase::Before));
        0
    }
    fn MPI_Finalized(flag: Out<c_int>) -> c_int {
        flag.set(c_int::from(with(|state| state.phase) == Phase::After));
        0
    }
    fn MPI_Abort(_comm: Comm, error: c_int) -> c_int { abort(error, "MPI_Abort was called") }
    fn MPI_Query_thread(provided: Out<c_int>) -> c_int {
        provided.set(with(|state| state.thread_level));
        0
    }
    fn MPI_Is_thread_main(flag: Out<c_int>) -> c_int {
        let main = with(|state| state.main_thread) == Some(std::thread::current().id());
        flag.set(c_int::from(main));
        0
    }
}
