//! Parts of arrays as datatypes.

use std::ffi::c_int;

use ringmill_mpi::datatype::Layout;

use super::{Count, Recipe};
use crate::constants::{
    DISTRIBUTE_BLOCK, DISTRIBUTE_CYCLIC, DISTRIBUTE_DFLT_DARG, DISTRIBUTE_NONE, ORDER_C,
    ORDER_FORTRAN,
};
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::Datatype;
use crate::memory::{List, Out};
use crate::state::with;

const SUBARRAY: c_int = 111;
const DARRAY: c_int = 112;

/// The layout of chosen indices; in Fortran's order, the first index runs fastest.
fn layout(
    order: c_int,
    sizes: Vec<usize>,
    chosen: Vec<Vec<usize>>,
    of: &Layout,
) -> Outcome<Layout> {
    match order {
        ORDER_C => Ok(Layout::of_array(&sizes, &chosen, of)),
        ORDER_FORTRAN => {
            let sizes: Vec<usize> = sizes.into_iter().rev().collect();
            let chosen: Vec<Vec<usize>> = chosen.into_iter().rev().collect();
            Ok(Layout::of_array(&sizes, &chosen, of))
        }
        _ => Err(Code::ARG),
    }
}

fn numbers<C: Count>(values: &[C]) -> Outcome<Vec<usize>> {
    values.iter().map(|value| value.get()).collect()
}

fn signed<C: Count>(values: &[C]) -> impl Iterator<Item = i64> {
    values.iter().map(|value| value.signed())
}

fn subarray<C: Count>(
    dimensions: c_int,
    [sizes, parts, starts]: [List<C>; 3],
    order: c_int,
    old: Datatype,
    new: Out<Datatype>,
) -> c_int {
    code(with(|state| {
        let count = dimensions.get()?;
        let (sizes, parts, starts) = (sizes.take(count)?, parts.take(count)?, starts.take(count)?);
        let (all, some, from) = (numbers(&sizes)?, numbers(&parts)?, numbers(&starts)?);
        let mut chosen = Vec::with_capacity(count);
        for at in 0..count {
            if some[at] == 0 || from[at] + some[at] > all[at] {
                return Err(Code::ARG);
            }
            chosen.push((from[at]..from[at] + some[at]).collect());
        }
        let of = state.layout(old)?;
        let layout = layout(order, all, chosen, &of)?;
        let mut counts: Vec<i64> = signed(&sizes).collect();
        counts.extend(signed(&parts).chain(signed(&starts)));
        let mut integers = vec![dimensions.into()];
        integers.extend(&counts);
        integers.push(order.into());
        let recipe = Recipe {
            combiner: SUBARRAY,
            integers,
            counts,
            types: vec![old],
            ..Recipe::default()
        };
        state.derive(layout, recipe, new);
        Ok(())
    }))
}

/// One dimension of a distributed array.
struct Dimension {
    size: usize,
    distribution: c_int,
    argument: c_int,
    processes: usize,
    coordinate: usize,
}

impl Dimension {
    /// The indices that are the process's.
    fn chosen(&self) -> Outcome<Vec<usize>> {
        let default = self.argument == DISTRIBUTE_DFLT_DARG;
        let block = match self.distribution {
            DISTRIBUTE_NONE => return Ok((0..self.size).collect()),
            DISTRIBUTE_BLOCK if default => self.size.div_ceil(self.processes),
            DISTRIBUTE_CYCLIC if default => 1,
            DISTRIBUTE_BLOCK | DISTRIBUTE_CYCLIC => self.argument.get()?,
            _ => return Err(Code::ARG),
        };
        if block == 0
            || (self.distribution == DISTRIBUTE_BLOCK && block * self.processes < self.size)
        {
            return Err(Code::ARG);
        }
        let own = |index: &usize| index / block % self.processes == self.coordinate;
        Ok((0..self.size).filter(own).collect())
    }
}

/// The lists of a distributed array, by dimension.
struct Lists<C> {
    sizes: List<C>,
    distributions: List<c_int>,
    arguments: List<c_int>,
    processes: List<c_int>,
}

fn distributed<C: Count>(
    size: c_int,
    rank: c_int,
    dimensions: c_int,
    lists: Lists<C>,
    order: c_int,
    old: Datatype,
    new: Out<Datatype>,
) -> c_int {
    code(with(|state| {
        let count = dimensions.get()?;
        let sizes = lists.sizes.take(count)?;
        let distributions = lists.distributions.take(count)?;
        let arguments = lists.arguments.take(count)?;
        let processes = lists.processes.take(count)?;
        let grid = numbers(&processes)?;
        if grid.iter().product::<usize>() != size.get()? || !(0..size).contains(&rank) {
            return Err(Code::ARG);
        }
        let mut chosen = vec![Vec::new(); count];
        let mut rest = rank.get()?;
        for at in (0..count).rev() {
            let dimension = Dimension {
                size: sizes[at].get()?,
                distribution: distributions[at],
                argument: arguments[at],
                processes: grid[at],
                coordinate: rest % grid[at],
            };
            rest /= grid[at];
            chosen[at] = dimension.chosen()?;
        }
        let of = state.layout(old)?;
        let layout = layout(order, numbers(&sizes)?, chosen, &of)?;
        let mut integers: Vec<i64> = vec![size.into(), rank.into(), dimensions.into()];
        integers.extend(signed(&sizes));
        integers.extend(
            signed(&distributions)
                .chain(signed(&arguments))
                .chain(signed(&processes)),
        );
        integers.push(order.into());
        let counts = signed(&sizes).collect();
        let recipe = Recipe {
            combiner: DARRAY,
            integers,
            counts,
            types: vec![old],
            ..Recipe::default()
        };
        state.derive(layout, recipe, new);
        Ok(())
    }))
}

export! {
    fn MPI_Type_create_subarray(ndims: c_int, sizes: List<c_int>, subsizes: List<c_int>, starts: List<c_int>, order: c_int, old: Datatype, new: Out<Datatype>) -> c_int {
        subarray(ndims, [sizes, subsizes, starts], order, old, new)
    }
    fn MPI_Type_create_subarray_c(ndims: c_int, sizes: List<i64>, subsizes: List<i64>, starts: List<i64>, order: c_int, old: Datatype, new: Out<Datatype>) -> c_int {
        subarray(ndims, [sizes, subsizes, starts], order, old, new)
    }
    fn MPI_Type_create_darray(size: c_int, rank: c_int, ndims: c_int, sizes: List<c_int>, distributions: List<c_int>, arguments: List<c_int>, processes: List<c_int>, order: c_int, old: Datatype, new: Out<Datatype>) -> c_int {
        distributed(size, rank, ndims, Lists { sizes, distributions, arguments, processes }, order, old, new)
    }
    fn MPI_Type_create_darray_c(size: c_int, rank: c_int, ndims: c_int, sizes: List<i64>, distributions: List<c_int>, arguments: List<c_int>, processes: List<c_int>, order: c_int, old: Datatype, new: Out<Datatype>) -> c_int {
        distributed(size, rank, ndims, Lists { sizes, distributions, arguments, processes }, order, old, new)
    }
}
