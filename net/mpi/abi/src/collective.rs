//! Collective calls: each at once, later, and again and again, with both widths of counts.

use std::ffi::c_int;
use std::rc::Rc;

use ringmill_mpi::collective::{self, Job, Run, Scan};

use crate::communicator::{await_run, finish};
use crate::constants::PROC_NULL;
use crate::datatype::Count;
use crate::error::{Code, Outcome};
use crate::export::export;
use crate::handle::{Comm, Datatype, Info, Op, Request};
use crate::memory::{List, Memory, Out, Place};
use crate::plan::{self, Even, Mixed, Plan, Ragged, Reduction, Shares};
use crate::progress::{code_of, wait_for};
use crate::request::{Entry, Persistent, Record};
use crate::state::{State, with};

fn make(plan: Plan, job: Job) -> Run<Memory> {
    Run::new(
        job,
        Rc::new(plan.schedule),
        plan.send,
        plan.receive,
        plan.reducer,
    )
}

fn begin(state: &mut State, plan: Plan, job: Job) -> usize {
    let external = plan.external;
    let number = state.begin_run(make(plan, job));
    state.runs[number].external = external;
    number
}

/// Calls that wait.
fn now(comm: Comm, plan: impl FnOnce(&State) -> Outcome<Plan>) -> c_int {
    enum Begun {
        /// Nothing but this call moves it on.
        Here(Box<Run<Memory>>),
        /// The application reduces: without the state.
        There(usize),
    }
    let begun = with(|state| {
        let plan = plan(state)?;
        let job = state.comms.get_mut(comm)?.job();
        Ok(match plan.external {
            None => Begun::Here(Box::new(make(plan, job))),
            Some(_) => Begun::There(begin(state, plan, job)),
        })
    });
    let done = begun.and_then(|begun| match begun {
        Begun::There(number) => await_run(number),
        Begun::Here(mut run) => wait_for(|state| {
            let endpoint = state.endpoint()?;
            match run.advance(&mut endpoint.engine, &mut endpoint.ways) {
                collective::Outcome::Waiting => Ok(None),
                collective::Outcome::Done => Ok(Some(())),
                collective::Outcome::Failed(fault) => Err(code_of(fault)),
                collective::Outcome::Reduce { .. } => Err(Code::INTERN),
            }
        }),
    });
    finish(comm, done)
}

fn later(comm: Comm, request: Out<Request>, plan: impl FnOnce(&State) -> Outcome<Plan>) -> c_int {
    let begun = with(|state| {
        let plan = plan(state)?;
        let job = state.comms.get_mut(comm)?.job_later();
        let number = begin(state, plan, job);
        request.set(state.requests.insert(Record {
            entry: Entry::Run(number),
            comm,
        }));
        Ok(())
    });
    crate::progress::look_around();
    finish(comm, begun)
}

fn again(comm: Comm, request: Out<Request>, plan: impl FnOnce(&State) -> Outcome<Plan>) -> c_int {
    let made = with(|state| {
        let plan = plan(state)?;
        let job = state.comms.get_mut(comm)?.job_later();
        let (tag, external) = (job.tag, plan.external);
        let what = Persistent::Collective {
            run: Box::new(make(plan, job)),
            tag,
            external,
        };
        request.set(state.requests.insert(Record {
            entry: Entry::Persistent(what, None),
            comm,
        }));
        Ok(())
    });
    finish(comm, made)
}

/// The six calls of an operation: at once, later and again, with each width of counts. The
/// arguments have the types of the first width or, behind a bar, of the second.
macro_rules! collective {
    ($($now:ident $later:ident $again:ident, $now_c:ident $later_c:ident $again_c:ident
        ($($arg:ident: $small:ty $(| $large:ty)?),*) $plan:expr;)*) => {$(
        collective!(@three $now $later $again ($($arg: $small),*) $plan);
        collective!(@three $now_c $later_c $again_c ($($arg: collective!(@wide $small $(| $large)?)),*) $plan);
    )*};
    (@wide $small:ty | $large:ty) => { $large };
    (@wide $small:ty) => { $small };
    (@three $now:ident $later:ident $again:ident ($($arg:ident: $type:ty),*) $plan:expr) => {
        export! {
            fn $now($($arg: $type,)* comm: Comm) -> c_int {
                now(comm, |state| $plan(state, comm, $($arg),*))
            }
            fn $later($($arg: $type,)* comm: Comm, request: Out<Request>) -> c_int {
                later(comm, request, |state| $plan(state, comm, $($arg),*))
            }
            fn $again($($arg: $type,)* comm: Comm, _info: Info, request: Out<Request>) -> c_int {
                again(comm, request, |state| $plan(state, comm, $($arg),*))
            }
        }
    };
}

fn even<C: Count>(place: Place, count: C, datatype: Datatype) -> Even<C> {
    Even {
        place,
        count,
        datatype,
    }
}

fn ragged<C, D>(
    place: Place,
    counts: List<C>,
    displacements: List<D>,
    datatype: Datatype,
) -> Ragged<C, D> {
    Ragged {
        place,
        counts,
        displacements,
        datatype,
    }
}

fn mixed<C, D>(
    place: Place,
    counts: List<C>,
    displacements: List<D>,
    datatypes: List<Datatype>,
) -> Mixed<C, D> {
    Mixed {
        place,
        counts,
        displacements,
        datatypes,
    }
}

export! {
    fn MPI_Barrier(comm: Comm) -> c_int { now(comm, |state| plan::barrier(state, comm)) }
    fn MPI_Ibarrier(comm: Comm, request: Out<Request>) -> c_int {
        later(comm, request, |state| plan::barrier(state, comm))
    }
    fn MPI_Barrier_init(comm: Comm, _info: Info, request: Out<Request>) -> c_int {
        again(comm, request, |state| plan::barrier(state, comm))
    }
}

collective! {
    MPI_Bcast MPI_Ibcast MPI_Bcast_init, MPI_Bcast_c MPI_Ibcast_c MPI_Bcast_init_c
        (buffer: Place, count: c_int | i64, datatype: Datatype, root: c_int)
        |s: &State, comm, buffer, count, datatype, root| {
            plan::broadcast(s, comm, even(buffer, count, datatype), root)
        };
    MPI_Gather MPI_Igather MPI_Gather_init, MPI_Gather_c MPI_Igather_c MPI_Gather_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcount: c_int | i64, recvtype: Datatype, root: c_int)
        |s: &State, comm, sb, sc, st, rb, rc, rt, root| {
            plan::gather(s, comm, even(sb, sc, st), even(rb, rc, rt), root)
        };
    MPI_Gatherv MPI_Igatherv MPI_Gatherv_init, MPI_Gatherv_c MPI_Igatherv_c MPI_Gatherv_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcounts: List<c_int> | List<i64>, displs: List<c_int> | List<isize>, recvtype: Datatype, root: c_int)
        |s: &State, comm, sb, sc, st, rb, rc, rd, rt, root| {
            plan::gather(s, comm, even(sb, sc, st), ragged(rb, rc, rd, rt), root)
        };
    MPI_Scatter MPI_Iscatter MPI_Scatter_init, MPI_Scatter_c MPI_Iscatter_c MPI_Scatter_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcount: c_int | i64, recvtype: Datatype, root: c_int)
        |s: &State, comm, sb, sc, st, rb, rc, rt, root| {
            plan::scatter(s, comm, even(sb, sc, st), even(rb, rc, rt), root)
        };
    MPI_Scatterv MPI_Iscatterv MPI_Scatterv_init, MPI_Scatterv_c MPI_Iscatterv_c MPI_Scatterv_init_c
        (sendbuf: Place, sendcounts: List<c_int> | List<i64>, displs: List<c_int> | List<isize>, sendtype: Datatype, recvbuf: Place, recvcount: c_int | i64, recvtype: Datatype, root: c_int)
        |s: &State, comm, sb, sc, sd, st, rb, rc, rt, root| {
            plan::scatter(s, comm, ragged(sb, sc, sd, st), even(rb, rc, rt), root)
        };
    MPI_Allgather MPI_Iallgather MPI_Allgather_init, MPI_Allgather_c MPI_Iallgather_c MPI_Allgather_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcount: c_int | i64, recvtype: Datatype)
        |s: &State, comm, sb, sc, st, rb, rc, rt| {
            plan::all_gather(s, comm, even(sb, sc, st), even(rb, rc, rt))
        };
    MPI_Allgatherv MPI_Iallgatherv MPI_Allgatherv_init, MPI_Allgatherv_c MPI_Iallgatherv_c MPI_Allgatherv_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcounts: List<c_int> | List<i64>, displs: List<c_int> | List<isize>, recvtype: Datatype)
        |s: &State, comm, sb, sc, st, rb, rc, rd, rt| {
            plan::all_gather(s, comm, even(sb, sc, st), ragged(rb, rc, rd, rt))
        };
    MPI_Alltoall MPI_Ialltoall MPI_Alltoall_init, MPI_Alltoall_c MPI_Ialltoall_c MPI_Alltoall_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcount: c_int | i64, recvtype: Datatype)
        |s: &State, comm, sb, sc, st, rb, rc, rt| {
            plan::all_to_all(s, comm, even(sb, sc, st), even(rb, rc, rt))
        };
    MPI_Alltoallv MPI_Ialltoallv MPI_Alltoallv_init, MPI_Alltoallv_c MPI_Ialltoallv_c MPI_Alltoallv_init_c
        (sendbuf: Place, sendcounts: List<c_int> | List<i64>, sdispls: List<c_int> | List<isize>, sendtype: Datatype, recvbuf: Place, recvcounts: List<c_int> | List<i64>, rdispls: List<c_int> | List<isize>, recvtype: Datatype)
        |s: &State, comm, sb, sc, sd, st, rb, rc, rd, rt| {
            plan::all_to_all(s, comm, ragged(sb, sc, sd, st), ragged(rb, rc, rd, rt))
        };
    MPI_Alltoallw MPI_Ialltoallw MPI_Alltoallw_init, MPI_Alltoallw_c MPI_Ialltoallw_c MPI_Alltoallw_init_c
        (sendbuf: Place, sendcounts: List<c_int> | List<i64>, sdispls: List<c_int> | List<isize>, sendtypes: List<Datatype>, recvbuf: Place, recvcounts: List<c_int> | List<i64>, rdispls: List<c_int> | List<isize>, recvtypes: List<Datatype>)
        |s: &State, comm, sb, sc, sd, st, rb, rc, rd, rt| {
            plan::all_to_all(s, comm, mixed(sb, sc, sd, st), mixed(rb, rc, rd, rt))
        };
    MPI_Neighbor_allgather MPI_Ineighbor_allgather MPI_Neighbor_allgather_init, MPI_Neighbor_allgather_c MPI_Ineighbor_allgather_c MPI_Neighbor_allgather_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcount: c_int | i64, recvtype: Datatype)
        |s: &State, comm, sb, sc, st, rb, rc, rt| {
            plan::neighbour_gather(s, comm, even(sb, sc, st), even(rb, rc, rt))
        };
    MPI_Neighbor_allgatherv MPI_Ineighbor_allgatherv MPI_Neighbor_allgatherv_init, MPI_Neighbor_allgatherv_c MPI_Ineighbor_allgatherv_c MPI_Neighbor_allgatherv_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcounts: List<c_int> | List<i64>, displs: List<c_int> | List<isize>, recvtype: Datatype)
        |s: &State, comm, sb, sc, st, rb, rc, rd, rt| {
            plan::neighbour_gather(s, comm, even(sb, sc, st), ragged(rb, rc, rd, rt))
        };
    MPI_Neighbor_alltoall MPI_Ineighbor_alltoall MPI_Neighbor_alltoall_init, MPI_Neighbor_alltoall_c MPI_Ineighbor_alltoall_c MPI_Neighbor_alltoall_init_c
        (sendbuf: Place, sendcount: c_int | i64, sendtype: Datatype, recvbuf: Place, recvcount: c_int | i64, recvtype: Datatype)
        |s: &State, comm, sb, sc, st, rb, rc, rt| {
            plan::neighbour_all_to_all(s, comm, even(sb, sc, st), even(rb, rc, rt))
        };
    MPI_Neighbor_alltoallv MPI_Ineighbor_alltoallv MPI_Neighbor_alltoallv_init, MPI_Neighbor_alltoallv_c MPI_Ineighbor_alltoallv_c MPI_Neighbor_alltoallv_init_c
        (sendbuf: Place, sendcounts: List<c_int> | List<i64>, sdispls: List<c_int> | List<isize>, sendtype: Datatype, recvbuf: Place, recvcounts: List<c_int> | List<i64>, rdispls: List<c_int> | List<isize>, recvtype: Datatype)
        |s: &State, comm, sb, sc, sd, st, rb, rc, rd, rt| {
            plan::neighbour_all_to_all(s, comm, ragged(sb, sc, sd, st), ragged(rb, rc, rd, rt))
        };
    MPI_Neighbor_alltoallw MPI_Ineighbor_alltoallw MPI_Neighbor_alltoallw_init, MPI_Neighbor_alltoallw_c MPI_Ineighbor_alltoallw_c MPI_Neighbor_alltoallw_init_c
        (sendbuf: Place, sendcounts: List<c_int> | List<i64>, sdispls: List<isize>, sendtypes: List<Datatype>, recvbuf: Place, recvcounts: List<c_int> | List<i64>, rdispls: List<isize>, recvtypes: List<Datatype>)
        |s: &State, comm, sb, sc, sd, st, rb, rc, rd, rt| {
            plan::neighbour_all_to_all(s, comm, mixed(sb, sc, sd, st), mixed(rb, rc, rd, rt))
        };
    MPI_Reduce MPI_Ireduce MPI_Reduce_init, MPI_Reduce_c MPI_Ireduce_c MPI_Reduce_init_c
        (sendbuf: Place, recvbuf: Place, count: c_int | i64, datatype: Datatype, op: Op, root: c_int)
        |s: &State, comm, sb, rb, count, datatype, op, root| {
            if root == PROC_NULL {
                return plan::idle(s, comm);
            }
            plan::reduce(s, comm, sb, rb, &Reduction::new(s, Count::get(count)?, datatype, op)?, root)
        };
    MPI_Allreduce MPI_Iallreduce MPI_Allreduce_init, MPI_Allreduce_c MPI_Iallreduce_c MPI_Allreduce_init_c
        (sendbuf: Place, recvbuf: Place, count: c_int | i64, datatype: Datatype, op: Op)
        |s: &State, comm, sb, rb, count, datatype, op| {
            plan::all_reduce(s, comm, sb, rb, &Reduction::new(s, Count::get(count)?, datatype, op)?)
        };
    MPI_Scan MPI_Iscan MPI_Scan_init, MPI_Scan_c MPI_Iscan_c MPI_Scan_init_c
        (sendbuf: Place, recvbuf: Place, count: c_int | i64, datatype: Datatype, op: Op)
        |s: &State, comm, sb, rb, count, datatype, op| {
            let what = Reduction::new(s, Count::get(count)?, datatype, op)?;
            plan::scan(s, comm, Scan::Inclusive, sb, rb, &what)
        };
    MPI_Exscan MPI_Iexscan MPI_Exscan_init, MPI_Exscan_c MPI_Iexscan_c MPI_Exscan_init_c
        (sendbuf: Place, recvbuf: Place, count: c_int | i64, datatype: Datatype, op: Op)
        |s: &State, comm, sb, rb, count, datatype, op| {
            let what = Reduction::new(s, Count::get(count)?, datatype, op)?;
            plan::scan(s, comm, Scan::Exclusive, sb, rb, &what)
        };
    MPI_Reduce_scatter MPI_Ireduce_scatter MPI_Reduce_scatter_init, MPI_Reduce_scatter_c MPI_Ireduce_scatter_c MPI_Reduce_scatter_init_c
        (sendbuf: Place, recvbuf: Place, recvcounts: List<c_int> | List<i64>, datatype: Datatype, op: Op)
        |s: &State, comm, sb, rb, counts, datatype, op| {
            plan::reduce_scatter(s, comm, (sb, rb), &Shares::Given(counts), (datatype, op))
        };
    MPI_Reduce_scatter_block MPI_Ireduce_scatter_block MPI_Reduce_scatter_block_init, MPI_Reduce_scatter_block_c MPI_Ireduce_scatter_block_c MPI_Reduce_scatter_block_init_c
        (sendbuf: Place, recvbuf: Place, recvcount: c_int | i64, datatype: Datatype, op: Op)
        |s: &State, comm, sb, rb, count, datatype, op| {
            plan::reduce_scatter(s, comm, (sb, rb), &Shares::Even(count), (datatype, op))
        };
}
