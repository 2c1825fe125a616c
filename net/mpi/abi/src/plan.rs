//! From the arguments of a collective call to its schedule and the rows of bytes that it works on.

mod row;

use std::ffi::c_int;

use ringmill_mpi::buffer::Buffer;
use ringmill_mpi::collective::{
    self, Blocks, Elements, Place as Rank, Reducer, Role, Scan, Schedule,
};

use crate::constants::{PROC_NULL, ROOT};
use crate::datatype::Count;
use crate::error::{Code, Outcome};
use crate::handle::{Comm, Datatype, Op};
use crate::memory::{List, Memory, Place};
use crate::state::State;
pub(crate) use row::{Even, Mixed, Ragged, Runs};

/// A collective operation, ready to begin.
pub(crate) struct Plan {
    pub schedule: Schedule,
    pub send: Memory,
    pub receive: Memory,
    pub reducer: Reducer,
    /// The application's reduction and the datatype.
    pub external: Option<(Op, Datatype)>,
}

impl Plan {
    fn moving(schedule: Schedule, send: Memory, receive: Memory) -> Plan {
        Plan {
            schedule,
            send,
            receive,
            reducer: Reducer::None,
            external: None,
        }
    }

    fn reducing(schedule: Schedule, send: Memory, receive: Memory, reduction: &Reduction) -> Plan {
        let external =
            (reduction.reducer == Reducer::External).then_some((reduction.op, reduction.datatype));
        Plan {
            schedule,
            send,
            receive,
            reducer: reduction.reducer,
            external,
        }
    }
}

/// The ranks of a communicator, as a call sees them.
enum Ranks {
    One(Rank),
    /// How many there are in the other group.
    Two(usize),
}

fn ranks(state: &State, comm: Comm) -> Outcome<Ranks> {
    let data = state.comms.get(comm)?;
    Ok(match &data.remote {
        None => Ranks::One(data.place()),
        Some(remote) => Ranks::Two(remote.size()),
    })
}

/// The root, in one group.
fn root_of(root: c_int, size: usize) -> Outcome<usize> {
    usize::try_from(root)
        .ok()
        .filter(|root| *root < size)
        .ok_or(Code::ROOT)
}

/// One's own part in an operation of two groups.
fn role_of(root: c_int, remote: usize) -> Outcome<Role> {
    match root {
        ROOT => Ok(Role::Root),
        PROC_NULL => Ok(Role::Idle),
        root => Ok(Role::Remote(root_of(root, remote)?)),
    }
}

pub(crate) fn barrier(state: &State, comm: Comm) -> Outcome<Plan> {
    let schedule = match ranks(state, comm)? {
        Ranks::One(place) => collective::barrier(place),
        Ranks::Two(remote) => collective::inter_barrier(remote),
    };
    Ok(Plan::moving(schedule, Memory::none(), Memory::none()))
}

pub(crate) fn broadcast<C: Count>(
    state: &State,
    comm: Comm,
    data: Even<C>,
    root: c_int,
) -> Outcome<Plan> {
    match ranks(state, comm)? {
        Ranks::One(place) => {
            let root = root_of(root, place.size)?;
            let row = data.one(state)?;
            let schedule = collective::broadcast(place, root, row.len());
            Ok(Plan::moving(schedule, Memory::none(), row))
        }
        Ranks::Two(remote) => {
            let role = role_of(root, remote)?;
            let row = if role == Role::Idle {
                Memory::none()
            } else {
                data.one(state)?
            };
            let schedule = collective::inter_broadcast(role, remote, row.len());
            Ok(Plan::moving(schedule, Memory::none(), row))
        }
    }
}

pub(crate) fn gather<C: Count>(
    state: &State,
    comm: Comm,
    own: Even<C>,
    all: impl Runs,
    root: c_int,
) -> Outcome<Plan> {
    let empty = Blocks::Even(0);
    match ranks(state, comm)? {
        Ranks::One(place) => {
            let root = root_of(root, place.size)?;
            let in_place = own.place.is_in_place();
            let send = if in_place {
                Memory::none()
            } else {
                own.one(state)?
            };
            if place.rank != root {
                let schedule = collective::gather(place, root, send.len(), &empty, false);
                return Ok(Plan::moving(schedule, send, Memory::none()));
            }
            let (receive, blocks) = all.row(state, place.size)?;
            let schedule = collective::gather(
                place,
                root,
                send.len().min(blocks.len(root)),
                &blocks,
                in_place,
            );
            Ok(Plan::moving(schedule, send, receive))
        }
        Ranks::Two(remote) => match role_of(root, remote)? {
            Role::Root => {
                let (receive, blocks) = all.row(state, remote)?;
                let schedule = collective::inter_gather(Role::Root, remote, 0, &blocks);
                Ok(Plan::moving(schedule, Memory::none(), receive))
            }
            Role::Idle => Ok(Plan::moving(
                Schedule::default(),
                Memory::none(),
                Memory::none(),
            )),
            role => {
                let send = own.one(state)?;
                let schedule = collective::inter_gather(role, remote, send.len(), &empty);
                Ok(Plan::moving(schedule, send, Memory::none()))
            }
        },
    }
}

pub(crate) fn scatter<C: Count>(
    state: &State,
    comm: Comm,
    all: impl Runs,
    own: Even<C>,
    root: c_int,
) -> Outcome<Plan> {
    let empty = Blocks::Even(0);
    match ranks(state, comm)? {
        Ranks::One(place) => {
            let root = root_of(root, place.size)?;
            let in_place = own.place.is_in_place();
            let receive = if in_place {
                Memory::none()
            } else {
                own.one(state)?
            };
            if place.rank != root {
                let schedule = collective::scatter(place, root, receive.len(), &empty, false);
                return Ok(Plan::moving(schedule, Memory::none(), receive));
            }
            let (send, blocks) = all.row(state, place.size)?;
            let len = blocks.len(root);
            if !in_place && len > receive.len() {
                return Err(Code::TRUNCATE);
            }
            let schedule = collective::scatter(place, root, len, &blocks, in_place);
            Ok(Plan::moving(schedule, send, receive))
        }
        Ranks::Two(remote) => match role_of(root, remote)? {
            Role::Root => {
                let (send, blocks) = all.row(state, remote)?;
                let schedule = collective::inter_scatter(Role::Root, remote, 0, &blocks);
                Ok(Plan::moving(schedule, send, Memory::none()))
            }
            Role::Idle => Ok(Plan::moving(
                Schedule::default(),
                Memory::none(),
                Memory::none(),
            )),
            role => {
                let receive = own.one(state)?;
                let schedule = collective::inter_scatter(role, remote, receive.len(), &empty);
                Ok(Plan::moving(schedule, Memory::none(), receive))
            }
        },
    }
}

pub(crate) fn all_gather<C: Count>(
    state: &State,
    comm: Comm,
    own: Even<C>,
    all: impl Runs,
) -> Outcome<Plan> {
    match ranks(state, comm)? {
        Ranks::One(place) => {
            let in_place = own.place.is_in_place();
            let send = if in_place {
                Memory::none()
            } else {
                own.one(state)?
            };
            let (receive, blocks) = all.row(state, place.size)?;
            if !in_place && send.len() < blocks.len(place.rank) {
                return Err(Code::TRUNCATE);
            }
            let schedule = collective::all_gather(place, &blocks, in_place);
            Ok(Plan::moving(schedule, send, receive))
        }
        Ranks::Two(remote) => {
            let send = own.one(state)?;
            let (receive, blocks) = all.row(state, remote)?;
            // One part for everybody: the same region many times.
            let mut schedule =
                collective::inter_all_to_all(remote, &Blocks::Even(send.len()), &blocks);
            for step in &mut schedule.steps {
                if let collective::Step::Send { region, .. } = step {
                    region.at = 0;
                }
            }
            Ok(Plan::moving(schedule, send, receive))
        }
    }
}

pub(crate) fn all_to_all(
    state: &State,
    comm: Comm,
    sends: impl Runs,
    receives: impl Runs,
) -> Outcome<Plan> {
    match ranks(state, comm)? {
        Ranks::One(place) => {
            let (receive, blocks) = receives.row(state, place.size)?;
            if sends.place().is_in_place() {
                let schedule = collective::all_to_all(place, &blocks, &blocks, true);
                return Ok(Plan::moving(schedule, Memory::none(), receive));
            }
            let (send, parts) = sends.row(state, place.size)?;
            if parts.len(place.rank) != blocks.len(place.rank) {
                return Err(Code::TRUNCATE);
            }
            let schedule = collective::all_to_all(place, &parts, &blocks, false);
            Ok(Plan::moving(schedule, send, receive))
        }
        Ranks::Two(remote) => {
            let (send, parts) = sends.row(state, remote)?;
            let (receive, blocks) = receives.row(state, remote)?;
            let schedule = collective::inter_all_to_all(remote, &parts, &blocks);
            Ok(Plan::moving(schedule, send, receive))
        }
    }
}

/// What is reduced.
pub(crate) struct Reduction {
    pub op: Op,
    pub datatype: Datatype,
    reducer: Reducer,
    elements: Elements,
}

impl Reduction {
    pub(crate) fn new(
        state: &State,
        count: usize,
        datatype: Datatype,
        op: Op,
    ) -> Outcome<Reduction> {
        let (reducer, commutes) = state.reducer(op, datatype)?;
        let width = state.types.get(datatype)?.layout.size;
        Ok(Reduction {
            op,
            datatype,
            reducer,
            elements: Elements {
                count,
                width,
                commutes,
            },
        })
    }

    fn row(&self, state: &State, place: Place) -> Outcome<Memory> {
        state.memory(place, self.elements.count as i64, self.datatype)
    }

    fn operand(&self, state: &State, place: Place) -> Outcome<Memory> {
        if place.is_in_place() {
            Ok(Memory::none())
        } else {
            self.row(state, place)
        }
    }
}

pub(crate) fn reduce(
    state: &State,
    comm: Comm,
    from: Place,
    into: Place,
    what: &Reduction,
    root: c_int,
) -> Outcome<Plan> {
    match ranks(state, comm)? {
        Ranks::One(place) => {
            let root = root_of(root, place.size)?;
            let send = what.operand(state, from)?;
            let receive = if place.rank == root {
                what.row(state, into)?
            } else {
                Memory::none()
            };
            let schedule = collective::reduce(place, root, what.elements, from.is_in_place());
            Ok(Plan::reducing(schedule, send, receive, what))
        }
        Ranks::Two(remote) => {
            let role = role_of(root, remote)?;
            let send = if matches!(role, Role::Remote(_)) {
                what.row(state, from)?
            } else {
                Memory::none()
            };
            let receive = if role == Role::Root {
                what.row(state, into)?
            } else {
                Memory::none()
            };
            let schedule = collective::inter_reduce(role, remote, what.elements);
            Ok(Plan::reducing(schedule, send, receive, what))
        }
    }
}

/// Of a rank that has no part in an operation of two groups: what else it says is of no account.
pub(crate) fn idle(state: &State, comm: Comm) -> Outcome<Plan> {
    match ranks(state, comm)? {
        Ranks::One(_) => Err(Code::ROOT),
        Ranks::Two(_) => Ok(Plan::moving(
            Schedule::default(),
            Memory::none(),
            Memory::none(),
        )),
    }
}

pub(crate) fn all_reduce(
    state: &State,
    comm: Comm,
    from: Place,
    into: Place,
    what: &Reduction,
) -> Outcome<Plan> {
    let schedule = match ranks(state, comm)? {
        Ranks::One(place) => collective::all_reduce(place, what.elements, from.is_in_place()),
        Ranks::Two(remote) => collective::inter_all_reduce(remote, what.elements),
    };
    Ok(Plan::reducing(
        schedule,
        what.operand(state, from)?,
        what.row(state, into)?,
        what,
    ))
}

pub(crate) fn scan(
    state: &State,
    comm: Comm,
    kind: Scan,
    from: Place,
    into: Place,
    what: &Reduction,
) -> Outcome<Plan> {
    let Ranks::One(place) = ranks(state, comm)? else {
        return Err(Code::COMM);
    };
    let schedule = collective::scan(place, kind, what.elements, from.is_in_place());
    Ok(Plan::reducing(
        schedule,
        what.operand(state, from)?,
        what.row(state, into)?,
        what,
    ))
}

/// The counts of a reduction whose result is dealt out.
pub(crate) enum Shares<C> {
    Even(C),
    Given(List<C>),
}

pub(crate) fn reduce_scatter<C: Count>(
    state: &State,
    comm: Comm,
    (from, into): (Place, Place),
    shares: &Shares<C>,
    (datatype, op): (Datatype, Op),
) -> Outcome<Plan> {
    let data = state.comms.get(comm)?;
    let (place, size) = (data.place(), data.local.size());
    let counts: Outcome<Vec<usize>> = match shares {
        Shares::Even(count) => Ok(vec![count.get()?; size]),
        Shares::Given(list) => list.take(size)?.iter().map(|count| count.get()).collect(),
    };
    let counts = counts?;
    let total = counts.iter().sum();
    let whole = Reduction::new(state, total, datatype, op)?;
    let part = Reduction::new(state, counts[place.rank], datatype, op)?;
    match ranks(state, comm)? {
        Ranks::One(place) => {
            let in_place = from.is_in_place();
            let schedule = collective::reduce_scatter(place, &counts, whole.elements, in_place);
            let receive = if in_place {
                whole.row(state, into)?
            } else {
                part.row(state, into)?
            };
            Ok(Plan::reducing(
                schedule,
                whole.operand(state, from)?,
                receive,
                &whole,
            ))
        }
        Ranks::Two(remote) => {
            let before: usize = counts[..place.rank].iter().sum();
            let width = whole.elements.width;
            let (at, len) = (before * width, counts[place.rank] * width);
            let schedule = collective::inter_reduce_scatter(remote, whole.elements, at, len);
            Ok(Plan::reducing(
                schedule,
                whole.row(state, from)?,
                part.row(state, into)?,
                &whole,
            ))
        }
    }
}

pub(crate) fn neighbour_gather<C: Count>(
    state: &State,
    comm: Comm,
    own: Even<C>,
    all: impl Runs,
) -> Outcome<Plan> {
    let (sources, destinations) = neighbours(state, comm)?;
    let send = own.one(state)?;
    let (receive, blocks) = all.row(state, sources.len())?;
    let sends = Blocks::Even(send.len());
    let schedule = collective::neighbours(&sources, &destinations, &sends, &blocks, true);
    Ok(Plan::moving(schedule, send, receive))
}

pub(crate) fn neighbour_all_to_all(
    state: &State,
    comm: Comm,
    sends: impl Runs,
    receives: impl Runs,
) -> Outcome<Plan> {
    let (sources, destinations) = neighbours(state, comm)?;
    let (send, parts) = sends.row(state, destinations.len())?;
    let (receive, blocks) = receives.row(state, sources.len())?;
    let schedule = collective::neighbours(&sources, &destinations, &parts, &blocks, false);
    Ok(Plan::moving(schedule, send, receive))
}

/// Ranks; none stands for nobody.
type Neighbours = Vec<Option<u32>>;

fn neighbours(state: &State, comm: Comm) -> Outcome<(Neighbours, Neighbours)> {
    let data = state.comms.get(comm)?;
    let topology = data.topology.as_ref().ok_or(Code::TOPOLOGY)?;
    Ok(topology.neighbours(data.rank))
}
