//! New communicators: their processes agree on a context that none of them uses yet.

use std::ffi::c_int;

use ringmill_mpi::collective::Job;
use ringmill_mpi::group::{self, Group};

use super::{COUNTED, Communicator, gather_bytes};
use crate::attribute::copy_all;
use crate::constants::{TYPE_SHARED, UNDEFINED};
use crate::error::{Code, Outcome};
use crate::handle::{Comm, Errhandler, Handle, Info};
use crate::state::{State, with};

/// Numbers that processes tell each other.
pub(super) fn encode(numbers: &[u32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

pub(super) fn decode(bytes: &[u8]) -> Vec<u32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .collect()
}

/// The lowest context that is free for all who have told theirs; it is taken then.
pub(super) fn take_context(state: &mut State, told: impl Iterator<Item = u32>) -> u32 {
    let context = told.max().unwrap_or(0).max(state.next_context);
    state.next_context = context + 2;
    context
}

/// Where the messages of an internal operation of a communicator go.
pub(super) fn job_of(comm: Comm) -> Outcome<Job> {
    with(|state| {
        let data = state.comms.get_mut(comm)?;
        if data.remote.is_some() {
            return Err(Code::COMM);
        }
        Ok(data.job())
    })
}

fn handler_of(comm: Comm) -> Outcome<Errhandler> {
    with(|state| Ok(state.comms.get(comm)?.handler))
}

/// A context for the processes of a job; all of them call this.
fn agree(job: Job) -> Outcome<u32> {
    let own = with(|state| state.next_context);
    let told = decode(&gather_bytes(job, encode(&[own]))?);
    Ok(with(|state| take_context(state, told.into_iter())))
}

/// The same processes in the same order, with what wants to be copied.
pub(crate) fn duplicate(comm: Comm) -> Outcome<Comm> {
    let new = with(|state| Ok(state.comms.get(comm)?.remote.is_some()))?;
    let new = match new {
        true => super::intercomm::duplicate(comm)?,
        false => {
            let context = agree(job_of(comm)?)?;
            with(|state| {
                let old = state.comms.get(comm)?;
                let mut new =
                    Communicator::new(context, old.local.clone(), old.rank, None, old.handler);
                new.topology.clone_from(&old.topology);
                Ok(state.comms.insert(new))
            })?
        }
    };
    copy_all(comm, new)?;
    Ok(new)
}

/// Those of one colour, by key and rank.
pub(crate) fn split(comm: Comm, colour: c_int, key: c_int) -> Outcome<Comm> {
    if colour < 0 && colour != UNDEFINED {
        return Err(Code::ARG);
    }
    if with(|state| Ok(state.comms.get(comm)?.remote.is_some()))? {
        return super::intercomm::split(comm, colour, key);
    }
    let job = job_of(comm)?;
    let rank = job.rank as usize;
    let own = with(|state| state.next_context);
    let told = gather_bytes(
        job,
        encode(&[own, colour.cast_unsigned(), key.cast_unsigned()]),
    )?;
    let told = decode(&told);
    let offers: Vec<(Option<u32>, i32)> = told
        .chunks_exact(3)
        .map(|offer| {
            (
                u32::try_from(offer[1].cast_signed()).ok(),
                offer[2].cast_signed(),
            )
        })
        .collect();
    let context = with(|state| take_context(state, told.chunks_exact(3).map(|offer| offer[0])));
    let Some(chosen) = group::split(&offers, rank) else {
        return Ok(Comm::NULL);
    };
    let handler = handler_of(comm)?;
    with(|state| {
        let members: Option<Group> = state.comms.get(comm)?.local.include(&chosen);
        let members = members.ok_or(Code::INTERN)?;
        let own = members.rank_of(state.rank).ok_or(Code::INTERN)?;
        Ok(state
            .comms
            .insert(Communicator::new(context, members, own, None, handler)))
    })
}

/// Those that share memory, for one kind; those that say what they are, for others.
pub(crate) fn split_by_type(comm: Comm, kind: c_int, key: c_int, info: Info) -> Outcome<Comm> {
    // The one resource that has a name: what shares memory.
    let wanted = with(|state| match state.infos.get(info) {
        Ok(pairs) => pairs.get("mpi_hw_resource_type") == Some("mpi_shared_memory"),
        Err(_) => false,
    });
    let colour = match kind {
        UNDEFINED => UNDEFINED,
        TYPE_SHARED => shared(),
        223 | 224 if wanted => shared(),
        //(|state| state.near.first().copied().unwrap_or(0).cast_signed()),
        // Parts of the hardware are not told apart.
        222..=224 => UNDEFINED,
        _ => return Err(Code::ARG),
    };
    split(comm, colour, key)
}

/// What is the same for all ranks of one host, and for no others.
fn shared() -> c_int {
    with(|state| state.near.first().copied().unwrap_or(0).cast_signed())
}

/// A part of a communicator's group; all of the communicator call this.
pub(crate) fn create(comm: Comm, group: crate::handle::Group) -> Outcome<Comm> {
    if with(|state| Ok(state.comms.get(comm)?.remote.is_some()))? {
        return super::intercomm::create_part(comm, group);
    }
    let handler = handler_of(comm)?;
    let members = with(|state| state.groups.get(group).cloned())?;
    let context = agree(job_of(comm)?)?;
    with(|state| {
        let Some(rank) = members.rank_of(state.rank) else {
            return Ok(Comm::NULL);
        };
        Ok(state
            .comms
            .insert(Communicator::new(context, members, rank, None, handler)))
    })
}

/// A part of a communicator's group; only those of the part call this.
pub(crate) fn create_group(comm: Comm, group: crate::handle::Group, tag: c_int) -> Outcome<Comm> {
    let (members, context, handler) = with(|state| {
        let data = state.comms.get(comm)?;
        Ok((
            state.groups.get(group)?.clone(),
            data.context + 1,
            data.handler,
        ))
    })?;
    create_among(members, context, tag, handler)
}

/// A communicator of a group whose processes all call this; their messages have this context.
pub(crate) fn create_among(
    members: Group,
    context: u32,
    tag: c_int,
    handler: Errhandler,
) -> Outcome<Comm> {
    let rank = with(|state| members.rank_of(state.rank));
    let Some(rank) = rank else {
        return Ok(Comm::NULL);
    };
    let job = Job {
        context,
        tag: COUNTED | tag,
        rank,
        peers: members.members().into(),
    };
    let context = agree(job)?;
    Ok(with(|state| {
        state
            .comms
            .insert(Communicator::new(context, members, rank, None, handler))
    }))
}
