//! How calls wait: everything moves while they do, and functions of the application's are called
//! in between.

use ringmill_mpi::buffer::Buffer;
use ringmill_mpi::collective;
use ringmill_mpi::endpoint::{Broken, Idle};

use crate::error::{Code, Outcome};
use crate::handle::{Datatype, Op};
use crate::memory::Memory;
use crate::operation;
use crate::state::{State, is_threaded, with};

/// Looks around before the state is given to other threads.
const LOOKS: usize = 64;

/// A reduction that the application is to do.
pub(crate) struct Work {
    run: usize,
    kept: collective::Run<Memory>,
    from: Memory,
    into: Memory,
    flipped: bool,
    op: Op,
    datatype: Datatype,
}

impl Work {
    fn perform(self) {
        let Work {
            run,
            kept,
            from,
            into,
            flipped,
            op,
            datatype,
        } = self;
        let result = operation::reduce_external(op, datatype, &from, &into, flipped);
        with(|state| {
            let running = &mut state.runs[run];
            running.run = Some(kept);
            if result.is_err() {
                running.over = Some(result);
            } else {
                state.active.push(run);
            }
        });
    }
}

enum Step<T> {
    Ready(T),
    Perform(Box<Work>),
    Again,
}

impl State {
    /// Moves what can be moved; true if something came, and a reduction if one is due.
    #[inline]
    pub(crate) fn advance(&mut self) -> (bool, Option<Box<Work>>) {
        let Some(endpoint) = &mut self.endpoint else {
            return (false, None);
        };
        let moved = match endpoint.progress() {
            Ok(moved) => moved,
            Err(broken) => {
                self.give_up(&broken);
                true
            }
        };
        if self.active.is_empty() {
            return (moved, None);
        }
        self.advance_runs(moved)
    }

    fn advance_runs(&mut self, mut moved: bool) -> (bool, Option<Box<Work>>) {
        let Some(endpoint) = &mut self.endpoint else {
            return (moved, None);
        };
        let mut at = 0;
        while let Some(&number) = self.active.get(at) {
            let running = &mut self.runs[number];
            let Some(run) = &mut running.run else {
                self.active.swap_remove(at);
                continue;
            };
            match run.advance(&mut endpoint.engine, &mut endpoint.ways) {
                collective::Outcome::Waiting => {
                    at += 1;
                    continue;
                }
                collective::Outcome::Done => running.over = Some(Ok(())),
                collective::Outcome::Failed(fault) => running.over = Some(Err(code_of(fault))),
                collective::Outcome::Reduce {
                    from,
                    into,
                    flipped,
                } => {
                    self.active.swap_remove(at);
                    let (Some((op, datatype)), Some(kept)) = (running.external, running.run.take())
                    else {
                        running.over = Some(Err(Code::INTERN));
                        continue;
                    };
                    let work = Work {
                        run: number,
                        kept,
                        from,
                        into,
                        flipped,
                        op,
                        datatype,
                    };
                    return (true, Some(Box::new(work)));
                }
            }
            moved = true;
            self.active.swap_remove(at);
        }
        (moved, None)
    }

    /// The job is broken: whoever waits for the peer is told, and so is the user.
    fn give_up(&mut self, broken: &Broken) {
        eprintln!("ringmill-mpi: rank {}: {broken}", self.rank);
        let Some(endpoint) = &mut self.endpoint else {
            return;
        };
        match broken {
            Broken::Lost(peer) | Broken::Violation(peer, _) => endpoint.engine.lost(*peer),
            Broken::Ring(_) => (0..self.size).for_each(|peer| endpoint.engine.lost(peer)),
        }
    }

    /// An error if a peer is gone: for calls that wait for anybody.
    pub(crate) fn check_peers(&mut self) -> Outcome<()> {
        match self.endpoint()?.engine.has_lost() {
            Some(_) => Err(Code::PROC_ABORTED),
            None => Ok(()),
        }
    }
}

pub(crate) fn code_of(fault: ringmill_mpi::engine::Fault) -> Code {
    match fault {
        ringmill_mpi::engine::Fault::Truncated => Code::TRUNCATE,
        ringmill_mpi::engine::Fault::PeerLost => Code::PROC_ABORTED,
    }
}

/// Moves things until `look` has found what it looks for.
#[inline]
pub(crate) fn wait_for<T>(mut look: impl FnMut(&mut State) -> Outcome<Option<T>>) -> Outcome<T> {
    let mut idle = Idle::default();
    loop {
        let step = with(|state| -> Outcome<Step<T>> {
            for _ in 0..LOOKS {
                if let Some(found) = look(state)? {
                    return Ok(Step::Ready(found));
                }
                let (moved, work) = state.advance();
                if let Some(work) = work {
                    return Ok(Step::Perform(work));
                }
                if moved {
                    idle = Idle::default();
                } else if is_threaded() {
                    std::hint::spin_loop();
                } else if let Some(endpoint) = &mut state.endpoint
                    && let Err(broken) = endpoint.pause(&mut idle)
                {
                    state.give_up(&broken);
                }
            }
            Ok(Step::Again)
        })?;
        match step {
            Step::Ready(found) => return Ok(found),
            Step::Perform(work) => work.perform(),
            // Whoever has the state asleep would keep other threads out.
            Step::Again if is_threaded() => std::thread::yield_now(),
            Step::Again => {}
        }
    }
}

/// Moves things once.
pub(crate) fn look_around() {
    let (_, work) = with(State::advance);
    if let Some(work) = work {
        work.perform();
    }
}

/// The bytes of memory of one's own.
pub(crate) fn bytes_of(memory: &Memory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len()];
    memory.read(0, &mut bytes);
    bytes
}
