//! How a datatype was made, told again.

use std::ffi::c_int;

use super::{COMBINER_NAMED, Count, Recipe, Type};
use crate::attribute::Attributes;
use crate::error::{Code, code};
use crate::export::export;
use crate::handle::Datatype;
use crate::memory::Out;
use crate::state::with;

/// Writes values that fit.
fn put<C: Count + Copy>(values: impl Iterator<Item = i64>, out: Out<C>) -> Result<(), Code> {
    for (at, value) in values.enumerate() {
        out.put(at, C::from_number(value).ok_or(Code::VALUE_TOO_LARGE)?);
    }
    Ok(())
}

/// Integers that remain integers where large counts stand apart.
fn small(combiner: c_int, integers: &[i64]) -> Vec<i64> {
    match (combiner, integers) {
        // ndims and order of a subarray.
        (111, [dimensions, .., order]) => vec![*dimensions, *order],
        // All but the sizes of a distributed array.
        (112, [size, rank, dimensions, rest @ ..]) => {
            let rest = rest.iter().skip(usize::try_from(*dimensions).unwrap_or(0));
            [*size, *rank, *dimensions]
                .into_iter()
                .chain(rest.copied())
                .collect()
        }
        // What was asked of a type of Fortran's.
        (113..=115, integers) => integers.to_vec(),
        _ => Vec::new(),
    }
}

/// Places for contents, and how many each holds.
struct Places<A> {
    integers: (usize, Out<c_int>),
    addresses: (usize, Out<A>),
    types: (usize, Out<Datatype>),
}

fn check(room: usize, needed: usize) -> Result<(), Code> {
    if room < needed {
        Err(Code::COUNT)
    } else {
        Ok(())
    }
}

fn types_of(recipe: &Recipe) -> Vec<Datatype> {
    // A copy of each that is not the standard's: the caller frees it.
    let copy = |(of, kept): (&Datatype, &Type)| match kept.named {
        true => *of,
        false => with(|state| {
            state.types.insert(Type {
                attributes: Attributes::default(),
                ..kept.clone()
            })
        }),
    };
    recipe.types.iter().zip(&recipe.kept).map(copy).collect()
}

fn contents<A: Count>(
    datatype: Datatype,
    places: Places<A>,
    counts: Option<(usize, Out<i64>)>,
) -> Result<(), Code> {
    let recipe = with(|state| Ok(state.types.get(datatype)?.recipe.clone()))?;
    if recipe.combiner == COMBINER_NAMED {
        return Err(Code::TYPE);
    }
    match counts {
        None => {
            check(places.integers.0, recipe.integers.len())?;
            check(places.addresses.0, recipe.addresses.len())?;
            put(recipe.integers.iter().copied(), places.integers.1)?;
            put(recipe.addresses.iter().copied(), places.addresses.1)?;
        }
        Some((room, out)) => {
            let integers = small(recipe.combiner, &recipe.integers);
            check(places.integers.0, integers.len())?;
            check(room, recipe.counts.len())?;
            put(integers.into_iter(), places.integers.1)?;
            put(recipe.counts.iter().copied(), out)?;
        }
    }
    check(places.types.0, recipe.types.len())?;
    for (at, datatype) in types_of(&recipe).into_iter().enumerate() {
        places.types.1.put(at, datatype);
    }
    Ok(())
}

export! {
    fn MPI_Type_get_envelope(datatype: Datatype, integers: Out<c_int>, addresses: Out<c_int>, types: Out<c_int>, combiner: Out<c_int>) -> c_int {
        code(with(|state| {
            let recipe = &state.types.get(datatype)?.recipe;
            integers.set(recipe.integers.len() as c_int);
            addresses.set(recipe.addresses.len() as c_int);
            types.set(recipe.types.len() as c_int);
            combiner.set(recipe.combiner);
            Ok(())
        }))
    }
    fn MPI_Type_get_envelope_c(datatype: Datatype, integers: Out<i64>, addresses: Out<i64>, counts: Out<i64>, types: Out<i64>, combiner: Out<c_int>) -> c_int {
        code(with(|state| {
            let recipe = &state.types.get(datatype)?.recipe;
            integers.set(small(recipe.combiner, &recipe.integers).len() as i64);
            addresses.set(0);
            counts.set(recipe.counts.len() as i64);
            types.set(recipe.types.len() as i64);
            combiner.set(recipe.combiner);
            Ok(())
        }))
    }
    fn MPI_Type_get_contents(datatype: Datatype, max_integers: c_int, max_addresses: c_int, max_types: c_int, integers: Out<c_int>, addresses: Out<isize>, types: Out<Datatype>) -> c_int {
        let room = |max: c_int| usize::try_from(max).unwrap_or(0);
        let places = Places { integers: (room(max_integers), integers), addresses: (room(max_addresses), addresses), types: (room(max_types), types) };
        code(contents(datatype, places, None))
    }
    fn MPI_Type_get_contents_c(datatype: Datatype, max_integers: i64, max_addresses: i64, max_counts: i64, max_types: i64, integers: Out<c_int>, addresses: Out<isize>, counts: Out<i64>, types: Out<Datatype>) -> c_int {
        let room = |max: i64| usize::try_from(max).unwrap_or(0);
        let places = Places { integers: (room(max_integers), integers), addresses: (room(max_addresses), addresses), types: (room(max_types), types) };
        code(contents(datatype, places, Some((room(max_counts), counts))))
    }
}
