//! Groups of processes.

use std::ffi::c_int;

use ringmill_mpi::group::{Comparison, Group as Members};

use crate::communicator::finish;
use crate::constants::{IDENT, PROC_NULL, SIMILAR, UNDEFINED, UNEQUAL};
use crate::error::{Code, Outcome};
use crate::export::export;
use crate::handle::{Comm, Group, Handle};
use crate::memory::{List, Out};
use crate::state::{State, with};

fn on_group(call: impl FnOnce(&mut State) -> Outcome<()>) -> c_int {
    finish(Comm::WORLD, with(call))
}

impl State {
    /// The handle of a new group; one handle stands for all that are empty.
    fn give_group(&mut self, members: Members, new: Out<Group>) {
        new.set(match members.size() {
            0 => Group::EMPTY,
            _ => self.groups.insert(members),
        });
    }
}

fn combine(
    one: Group,
    other: Group,
    new: Out<Group>,
    f: impl FnOnce(&Members, &Members) -> Members,
) -> c_int {
    on_group(|state| {
        let members = f(state.groups.get(one)?, state.groups.get(other)?);
        state.give_group(members, new);
        Ok(())
    })
}

fn ranks_of(count: c_int, ranks: List<c_int>) -> Outcome<Vec<u32>> {
    let count = usize::try_from(count).map_err(|_| Code::ARG)?;
    ranks
        .take(count)?
        .into_iter()
        .map(|rank| u32::try_from(rank).map_err(|_| Code::RANK))
        .collect()
}

fn choose(group: Group, ranks: Outcome<Vec<u32>>, keeps: bool, new: Out<Group>) -> c_int {
    on_group(|state| {
        let members = state.groups.get(group)?;
        let ranks = ranks?;
        let chosen = if keeps {
            members.include(&ranks)
        } else {
            members.exclude(&ranks)
        };
        let chosen = chosen.ok_or(Code::RANK)?;
        state.give_group(chosen, new);
        Ok(())
    })
}

fn range(group: Group, count: c_int, ranges: List<[c_int; 3]>) -> Outcome<Vec<u32>> {
    let count = usize::try_from(count).map_err(|_| Code::ARG)?;
    let ranges = ranges.take(count)?;
    with(|state| state.groups.get(group)?.range(&ranges).ok_or(Code::RANK))
}

export! {
    fn MPI_Group_size(group: Group, size: Out<c_int>) -> c_int {
        on_group(|state| {
            size.set(state.groups.get(group)?.size() as c_int);
            Ok(())
        })
    }
    fn MPI_Group_rank(group: Group, rank: Out<c_int>) -> c_int {
        on_group(|state| {
            let own = state.groups.get(group)?.rank_of(state.rank);
            rank.set(own.map_or(UNDEFINED, u32::cast_signed));
            Ok(())
        })
    }
    fn MPI_Group_translate_ranks(one: Group, count: c_int, ranks: List<c_int>, other: Group, translated: Out<c_int>) -> c_int {
        on_group(|state| {
            let (from, into) = (state.groups.get(one)?, state.groups.get(other)?);
            let count = usize::try_from(count).map_err(|_| Code::ARG)?;
            for (at, rank) in ranks.take(count)?.into_iter().enumerate() {
                if rank == PROC_NULL {
                    translated.put(at, PROC_NULL);
                    continue;
                }
                let known = usize::try_from(rank).ok().and_then(|rank| from.members().get(rank));
                let found = into.rank_of(*known.ok_or(Code::RANK)?);
                translated.put(at, found.map_or(UNDEFINED, u32::cast_signed));
            }
            Ok(())
        })
    }
    fn MPI_Group_compare(one: Group, other: Group, result: Out<c_int>) -> c_int {
        on_group(|state| {
            result.set(match state.groups.get(one)?.compare(state.groups.get(other)?) {
                Comparison::Identical => IDENT,
                Comparison::Similar => SIMILAR,
                Comparison::Unequal => UNEQUAL,
            });
            Ok(())
        })
    }
    fn MPI_Group_union(one: Group, other: Group, new: Out<Group>) -> c_int {
        combine(one, other, new, Members::union)
    }
    fn MPI_Group_intersection(one: Group, other: Group, new: Out<Group>) -> c_int {
        combine(one, other, new, Members::intersection)
    }
    fn MPI_Group_difference(one: Group, other: Group, new: Out<Group>) -> c_int {
        combine(one, other, new, Members::difference)
    }
    fn MPI_Group_incl(group: Group, count: c_int, ranks: List<c_int>, new: Out<Group>) -> c_int {
        choose(group, ranks_of(count, ranks), true, new)
    }
    fn MPI_Group_excl(group: Group, count: c_int, ranks: List<c_int>, new: Out<Group>) -> c_int {
        choose(group, ranks_of(count, ranks), false, new)
    }
    fn MPI_Group_range_incl(group: Group, count: c_int, ranges: List<[c_int; 3]>, new: Out<Group>) -> c_int {
        choose(group, range(group, count, ranges), true, new)
    }
    fn MPI_Group_range_excl(group: Group, count: c_int, ranges: List<[c_int; 3]>, new: Out<Group>) -> c_int {
        choose(group, range(group, count, ranges), false, new)
    }
    fn MPI_Group_free(group: Out<Group>) -> c_int {
        on_group(|state| {
            let handle = group.get()?;
            if handle != Group::EMPTY {
                state.groups.remove(handle)?;
            }
            group.set(Group::NULL);
            Ok(())
        })
    }
}
