//! Communicators of two groups.

use std::ffi::c_int;
use std::rc::Rc;

use ringmill_mpi::buffer::Buffer;
use ringmill_mpi::collective::{Blocks, Job, Reducer, Run, inter_all_to_all};
use ringmill_mpi::engine::{Destination, Mode};
use ringmill_mpi::group::{self, Group};
use ringmill_mpi::matching::Pattern;

use super::make::{decode, encode, job_of, take_context};
use super::{COUNTED, Communicator, await_run, gather_bytes};
use crate::error::{Code, Outcome};
use crate::handle::{Comm, Errhandler, Handle};
use crate::memory::Memory;
use crate::message::await_started;
use crate::progress::bytes_of;
use crate::state::with;

/// Where a leader finds the other group's leader: the messages' context, the own rank there, the
/// other's rank there and in the job, and a tag.
struct Line {
    context: u32,
    rank: u32,
    leader: u32,
    peer: u32,
    tag: c_int,
}

fn line_of(peer_comm: Comm, leader: c_int, tag: c_int) -> Outcome<Line> {
    with(|state| {
        let data = state.comms.get(peer_comm)?;
        let at = usize::try_from(leader).map_err(|_| Code::RANK)?;
        let peer = *data.peers.get(at).ok_or(Code::RANK)?;
        Ok(Line {
            context: data.context + 1,
            rank: data.rank,
            leader: leader.cast_unsigned(),
            peer,
            tag,
        })
    })
}

/// Numbers that a leader and the other group's leader tell each other: first how many.
fn swap(line: &Line, numbers: &[u32]) -> Outcome<Vec<u32>> {
    let Line {
        context,
        rank,
        leader,
        peer,
        ..
    } = *line;
    let tag = COUNTED | line.tag;
    let one = |bytes: Vec<u8>, expected: usize| -> Outcome<Vec<u8>> {
        let received = Memory::owned(vec![0; expected]);
        let to = Destination {
            peer,
            context,
            rank,
            tag,
        };
        let pattern = Pattern {
            context,
            source: Some(leader),
            tag: Some(tag),
        };
        let (got, sent) = with(|state| {
            let endpoint = state.endpoint()?;
            let got = endpoint.engine.receive(pattern, received.clone());
            let buffer = Memory::owned(bytes);
            Ok((
                got,
                endpoint
                    .engine
                    .send(&mut endpoint.ways, &to, Mode::Standard, &buffer),
            ))
        })?;
        await_started(got)?;
        await_started(sent)?;
        Ok(bytes_of(&received))
    };
    let count = decode(&one(encode(&[numbers.len() as u32]), 4)?)[0];
    Ok(decode(&one(encode(numbers), count as usize * 4)?))
}

/// One process's numbers for all of a communicator; the others give none.
fn spread(comm: Comm, root: c_int, numbers: Vec<u32>) -> Outcome<Vec<u32>> {
    let count = decode(&gather_bytes(
        job_of(comm)?,
        encode(&[numbers.len() as u32]),
    )?);
    let root = usize::try_from(root).map_err(|_| Code::RANK)?;
    let length = *count.get(root).ok_or(Code::RANK)? as usize;
    let mut padded = numbers;
    padded.resize(length, 0);
    let all = decode(&gather_bytes(job_of(comm)?, encode(&padded))?);
    Ok(all[root * length..(root + 1) * length].to_vec())
}

/// Joins two groups whose leaders can reach each other.
pub(super) fn create(
    local: Comm,
    local_leader: c_int,
    peer: Comm,
    remote_leader: c_int,
    tag: c_int,
) -> Outcome<Comm> {
    let (group, rank, handler) = with(|state| {
        let data = state.comms.get(local)?;
        match &data.remote {
            Some(_) => Err(Code::COMM),
            None => Ok((data.local.clone(), data.rank, data.handler)),
        }
    })?;
    let own = with(|state| state.next_context);
    let told = decode(&gather_bytes(job_of(local)?, encode(&[own]))?);
    let lowest = told.into_iter().max().unwrap_or(0);
    let mut other = Vec::new();
    if rank.cast_signed() == local_leader {
        let mut numbers = vec![lowest];
        numbers.extend(group.members());
        other = swap(&line_of(peer, remote_leader, tag)?, &numbers)?;
    }
    let other = spread(local, local_leader, other)?;
    let (theirs, members) = other.split_first().ok_or(Code::INTERN)?;
    let remote = Group::new(members);
    with(|state| {
        let context = take_context(state, [lowest, *theirs].into_iter());
        let new = Communicator::new(context, group, rank, Some(remote), handler);
        Ok(state.comms.insert(new))
    })
}

/// Joins two groups without a communicator: their messages have this context, and a tag by which
/// both find together.
pub(crate) fn create_from_groups(
    (local, local_leader): (Group, c_int),
    (remote, remote_leader): (Group, c_int),
    (context, tag): (u32, c_int),
    handler: Errhandler,
) -> Outcome<Comm> {
    let own_rank = with(|state| state.rank);
    let Some(rank) = local.rank_of(own_rank) else {
        return Ok(Comm::NULL);
    };
    let within = super::create_among(local.clone(), context, tag, handler)?;
    let at = |leader: c_int, group: &Group| {
        let at = usize::try_from(leader).map_err(|_| Code::RANK)?;
        group.members().get(at).copied().ok_or(Code::RANK)
    };
    let (ours, theirs) = (at(local_leader, &local)?, at(remote_leader, &remote)?);
    let own = with(|state| state.next_context);
    let told = decode(&gather_bytes(job_of(within)?, encode(&[own]))?);
    let lowest = told.into_iter().max().unwrap_or(0);
    let mut other = Vec::new();
    if own_rank == ours {
        // Between leaders, ranks are those of the job.
        let line = Line {
            context,
            rank: own_rank,
            leader: theirs,
            peer: theirs,
            tag,
        };
        other = swap(&line, &[lowest])?;
    }
    let other = spread(within, local_leader, other)?;
    with(|state| {
        state.comms.remove(within)?;
        let context = take_context(state, [lowest].into_iter().chain(other));
        let new = Communicator::new(context, local, rank, Some(remote), handler);
        Ok(state.comms.insert(new))
    })
}

/// Numbers of one length from everybody to everybody of the other group.
fn cross(comm: Comm, numbers: &[u32]) -> Outcome<Vec<u32>> {
    let (job, remote) = with(|state| {
        let data = state.comms.get_mut(comm)?;
        let remote = data.remote.as_ref().ok_or(Code::COMM)?.size();
        Ok((data.job(), remote))
    })?;
    let bytes = encode(numbers);
    let received = Memory::owned(vec![0; bytes.len() * remote]);
    // The same part for everybody.
    let sends = Memory::owned(bytes.repeat(remote));
    let blocks = Blocks::Even(bytes.len());
    let schedule = Rc::new(inter_all_to_all(remote, &blocks, &blocks));
    let run: Run<Memory> = Run::new(job, schedule, sends, received.clone(), Reducer::None);
    let number = with(|state| state.begin_run(run));
    await_run(number)?;
    Ok(decode(&bytes_of(&received)))
}

/// Where messages within the own group go.
fn within(comm: Comm) -> Outcome<Job> {
    with(|state| {
        let data = state.comms.get_mut(comm)?;
        let mut job = data.job();
        // The other group's ranks have the same numbers: a tag apart.
        job.tag |= COUNTED;
        job.peers = data.local.members().into();
        Ok(job)
    })
}

/// The highest of the contexts that both groups tell; both sides take it.
fn agree(comm: Comm) -> Outcome<u32> {
    let own = with(|state| state.next_context);
    let ours = decode(&gather_bytes(within(comm)?, encode(&[own]))?);
    let lowest = ours.into_iter().max().unwrap_or(0);
    let theirs = cross(comm, &[lowest])?;
    Ok(with(|state| {
        take_context(state, theirs.into_iter().chain([lowest]))
    }))
}

pub(super) fn duplicate(comm: Comm) -> Outcome<Comm> {
    let context = agree(comm)?;
    with(|state| {
        let old = state.comms.get(comm)?;
        let new = Communicator::new(
            context,
            old.local.clone(),
            old.rank,
            old.remote.clone(),
            old.handler,
        );
        Ok(state.comms.insert(new))
    })
}

/// One communicator of both groups, the low one first.
pub(super) fn merge(comm: Comm, high: bool) -> Outcome<Comm> {
    let told = cross(comm, &[u32::from(high)])?;
    let theirs = told.first().copied().unwrap_or(0) != 0;
    let context = agree(comm)?;
    with(|state| {
        let data = state.comms.get(comm)?;
        let remote = data.remote.clone().ok_or(Code::COMM)?;
        let first = match (high, theirs) {
            (false, true) => true,
            (true, false) => false,
            // Both say the same: whoever has the lowest process.
            _ => data.local.members().iter().min() < remote.members().iter().min(),
        };
        let all = match first {
            true => data.local.union(&remote),
            false => remote.union(&data.local),
        };
        let rank = all.rank_of(state.rank).ok_or(Code::INTERN)?;
        let new = Communicator::new(context, all, rank, None, data.handler);
        Ok(state.comms.insert(new))
    })
}

/// Those of one colour of both groups; null where a side has none.
pub(super) fn split(comm: Comm, colour: c_int, key: c_int) -> Outcome<Comm> {
    let offer = [colour.cast_unsigned(), key.cast_unsigned()];
    let ours = decode(&gather_bytes(within(comm)?, encode(&offer))?);
    let theirs = cross(comm, &offer)?;
    let context = agree(comm)?;
    let offers = |told: &[u32]| -> Vec<(Option<u32>, i32)> {
        let offer = |offer: &[u32]| {
            (
                u32::try_from(offer[0].cast_signed()).ok(),
                offer[1].cast_signed(),
            )
        };
        told.chunks_exact(2).map(offer).collect()
    };
    let (ours, theirs) = (offers(&ours), offers(&theirs));
    with(|state| {
        let data = state.comms.get(comm)?;
        let remote = data.remote.clone().ok_or(Code::COMM)?;
        let Some(local) = group::split(&ours, data.rank as usize) else {
            return Ok(Comm::NULL);
        };
        let like_us = theirs
            .iter()
            .position(|(of, _)| of.is_some_and(|of| of.cast_signed() == colour));
        let Some(chosen) = like_us.and_then(|at| group::split(&theirs, at)) else {
            return Ok(Comm::NULL);
        };
        let local = data.local.include(&local).ok_or(Code::INTERN)?;
        let remote = remote.include(&chosen).ok_or(Code::INTERN)?;
        let rank = local.rank_of(state.rank).ok_or(Code::INTERN)?;
        let new = Communicator::new(context, local, rank, Some(remote), data.handler);
        Ok(state.comms.insert(new))
    })
}

/// Parts of both groups; each side gives its own.
pub(super) fn create_part(comm: Comm, group: crate::handle::Group) -> Outcome<Comm> {
    let chosen = with(|state| {
        let members = state.groups.get(group)?;
        Ok(members.rank_of(state.rank))
    })?;
    let colour = if chosen.is_some() {
        0
    } else {
        crate::constants::UNDEFINED
    };
    split(comm, colour, chosen.map_or(0, u32::cast_signed))
}
