//! What programs ask of communicators.

use std::ffi::c_int;

use ringmill_mpi::group::Comparison;

use super::make::{create, create_group, duplicate, split, split_by_type};
use super::{finish, intercomm};
use crate::attribute::delete_all;
use crate::constants::{CONGRUENT, IDENT, MAX_OBJECT_NAME, SIMILAR, TAG_MAX, UNEQUAL};
use crate::error::{Code, Outcome};
use crate::export::export;
use crate::handle::{Comm, Errhandler, Group, Handle, Info, Request};
use crate::memory::{Out, Text, TextOut};
use crate::request::{Entry, Record};
use crate::state::with;
use crate::status::Status;

fn compare(one: Comm, other: Comm) -> Outcome<c_int> {
    with(|state| {
        let (first, second) = (state.comms.get(one)?, state.comms.get(other)?);
        if one == other {
            return Ok(IDENT);
        }
        if first.remote.is_some() != second.remote.is_some() {
            return Ok(UNEQUAL);
        }
        let remote = match (&first.remote, &second.remote) {
            (Some(first), Some(second)) => first.compare(second),
            _ => Comparison::Identical,
        };
        Ok(match (first.local.compare(&second.local), remote) {
            (Comparison::Unequal, _) | (_, Comparison::Unequal) => UNEQUAL,
            (Comparison::Identical, Comparison::Identical) => CONGRUENT,
            _ => SIMILAR,
        })
    })
}

fn free(comm: Out<Comm>) -> Outcome<()> {
    let handle = comm.get()?;
    if handle == Comm::WORLD || handle == Comm::SELF {
        return Err(Code::COMM);
    }
    with(|state| state.comms.get(handle).map(|_| ()))?;
    delete_all(handle)?;
    with(|state| state.comms.remove(handle))?;
    comm.set(Comm::NULL);
    Ok(())
}

fn named(new: Out<Comm>, outcome: Outcome<Comm>) -> Outcome<()> {
    outcome.map(|made| new.set(made))
}

/// A duplicate that was made at once, and a request that is over.
fn duplicated(comm: Comm, new: Out<Comm>, request: Out<Request>) -> Outcome<()> {
    named(new, duplicate(comm))?;
    let record = Record {
        entry: Entry::Over(Status::empty()),
        comm,
    };
    request.set(with(|state| state.requests.insert(record)));
    Ok(())
}

fn with_info(new: Out<Comm>, info: Info) -> Outcome<()> {
    let handle = new.get()?;
    with(|state| {
        let pairs = if info == Info::NULL {
            Default::default()
        } else {
            state.infos.get(info)?.clone()
        };
        state.comms.get_mut(handle)?.info = pairs;
        Ok(())
    })
}

export! {
    fn MPI_Comm_size(comm: Comm, size: Out<c_int>) -> c_int {
        finish(comm, with(|state| {
            size.set(state.comms.get(comm)?.local.size() as c_int);
            Ok(())
        }))
    }
    fn MPI_Comm_rank(comm: Comm, rank: Out<c_int>) -> c_int {
        finish(comm, with(|state| {
            rank.set(state.comms.get(comm)?.rank.cast_signed());
            Ok(())
        }))
    }
    fn MPI_Comm_compare(one: Comm, other: Comm, result: Out<c_int>) -> c_int {
        finish(one, compare(one, other).map(|found| result.set(found)))
    }
    fn MPI_Comm_dup(comm: Comm, new: Out<Comm>) -> c_int { finish(comm, named(new, duplicate(comm))) }
    fn MPI_Comm_dup_with_info(comm: Comm, info: Info, new: Out<Comm>) -> c_int {
        finish(comm, named(new, duplicate(comm)).and_then(|()| with_info(new, info)))
    }
    fn MPI_Comm_idup(comm: Comm, new: Out<Comm>, request: Out<Request>) -> c_int {
        finish(comm, duplicated(comm, new, request))
    }
    fn MPI_Comm_idup_with_info(comm: Comm, info: Info, new: Out<Comm>, request: Out<Request>) -> c_int {
        finish(comm, duplicated(comm, new, request).and_then(|()| with_info(new, info)))
    }
    fn MPI_Comm_split(comm: Comm, colour: c_int, key: c_int, new: Out<Comm>) -> c_int {
        finish(comm, named(new, split(comm, colour, key)))
    }
    fn MPI_Comm_split_type(comm: Comm, kind: c_int, key: c_int, info: Info, new: Out<Comm>) -> c_int {
        finish(comm, named(new, split_by_type(comm, kind, key, info)))
    }
    fn MPI_Comm_create(comm: Comm, group: Group, new: Out<Comm>) -> c_int {
        finish(comm, named(new, create(comm, group)))
    }
    fn MPI_Comm_create_group(comm: Comm, group: Group, tag: c_int, new: Out<Comm>) -> c_int {
        let valid = if (0..=TAG_MAX).contains(&tag) { Ok(()) } else { Err(Code::TAG) };
        finish(comm, valid.and_then(|()| named(new, create_group(comm, group, tag))))
    }
    fn MPI_Comm_free(comm: Out<Comm>) -> c_int { finish(Comm::WORLD, free(comm)) }
    fn MPI_Comm_disconnect(comm: Out<Comm>) -> c_int { finish(Comm::WORLD, free(comm)) }
    fn MPI_Comm_group(comm: Comm, group: Out<Group>) -> c_int {
        finish(comm, with(|state| {
            let local = state.comms.get(comm)?.local.clone();
            group.set(state.groups.insert(local));
            Ok(())
        }))
    }
    fn MPI_Comm_remote_group(comm: Comm, group: Out<Group>) -> c_int {
        finish(comm, with(|state| {
            let remote = state.comms.get(comm)?.remote.clone().ok_or(Code::COMM)?;
            group.set(state.groups.insert(remote));
            Ok(())
        }))
    }
    fn MPI_Comm_remote_size(comm: Comm, size: Out<c_int>) -> c_int {
        finish(comm, with(|state| {
            size.set(state.comms.get(comm)?.remote.as_ref().ok_or(Code::COMM)?.size() as c_int);
            Ok(())
        }))
    }
    fn MPI_Comm_test_inter(comm: Comm, flag: Out<c_int>) -> c_int {
        finish(comm, with(|state| {
            flag.set(c_int::from(state.comms.get(comm)?.remote.is_some()));
            Ok(())
        }))
    }
    fn MPI_Intercomm_create(local: Comm, local_leader: c_int, peer: Comm, remote_leader: c_int, tag: c_int, new: Out<Comm>) -> c_int {
        finish(local, named(new, intercomm::create(local, local_leader, peer, remote_leader, tag)))
    }
    fn MPI_Intercomm_merge(comm: Comm, high: c_int, new: Out<Comm>) -> c_int {
        finish(comm, named(new, intercomm::merge(comm, high != 0)))
    }
    fn MPI_Comm_set_name(comm: Comm, name: Text) -> c_int {
        finish(comm, name.get().and_then(|name| with(|state| {
            state.comms.get_mut(comm)?.name = name;
            Ok(())
        })))
    }
    fn MPI_Comm_get_name(comm: Comm, name: TextOut, length: Out<c_int>) -> c_int {
        // The null communicator has a name, too.
        if comm == Comm::NULL {
            length.set(name.set("MPI_COMM_NULL", MAX_OBJECT_NAME));
            return 0;
        }
        finish(comm, with(|state| {
            length.set(name.set(&state.comms.get(comm)?.name, MAX_OBJECT_NAME));
            Ok(())
        }))
    }
    fn MPI_Comm_set_info(comm: Comm, info: Info) -> c_int {
        finish(comm, with(|state| {
            let pairs = state.infos.get(info)?.clone();
            let known = &mut state.comms.get_mut(comm)?.info;
            for (key, value) in pairs.all() {
                known.set(key, value);
            }
            Ok(())
        }))
    }
    fn MPI_Comm_get_info(comm: Comm, info: Out<Info>) -> c_int {
        finish(comm, with(|state| {
            let pairs = state.comms.get(comm)?.info.clone();
            info.set(state.infos.insert(pairs));
            Ok(())
        }))
    }
    fn MPI_Comm_get_parent(parent: Out<Comm>) -> c_int {
        parent.set(Comm::NULL);
        0
    }
    fn MPI_Comm_set_errhandler(comm: Comm, handler: Errhandler) -> c_int {
        finish(comm, with(|state| {
            state.handlers.get(handler)?;
            state.comms.get_mut(comm)?.handler = handler;
            Ok(())
        }))
    }
    fn MPI_Comm_get_errhandler(comm: Comm, handler: Out<Errhandler>) -> c_int {
        finish(comm, with(|state| {
            handler.set(state.comms.get(comm)?.handler);
            Ok(())
        }))
    }
    fn MPI_Comm_call_errhandler(comm: Comm, error: c_int) -> c_int {
        match with(|state| state.comms.get(comm).map(|_| ())) {
            Ok(()) => {
                finish(comm, Err(Code(error)));
                0
            }
            wrong => finish(comm, wrong),
        }
    }
}
