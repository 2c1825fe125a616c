//! Constructors of datatypes.

use std::ffi::c_int;

use ringmill_mpi::datatype::{Block, Layout};

use super::{Count, Recipe, Type};
use crate::constants::UNDEFINED;
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Datatype, Handle};
use crate::memory::{List, Out};
use crate::state::{State, with};

const DUP: c_int = 102;
const CONTIGUOUS: c_int = 103;
const VECTOR: c_int = 104;
const HVECTOR: c_int = 105;
const INDEXED: c_int = 106;
const HINDEXED: c_int = 107;
const INDEXED_BLOCK: c_int = 108;
const HINDEXED_BLOCK: c_int = 109;
const STRUCT: c_int = 110;
const RESIZED: c_int = 116;
const F90_REAL: c_int = 113;
const F90_COMPLEX: c_int = 114;
const F90_INTEGER: c_int = 115;

impl State {
    /// A new datatype of a recipe.
    pub(super) fn derive(&mut self, layout: Layout, mut recipe: Recipe, new: Out<Datatype>) {
        let kept = recipe
            .types
            .iter()
            .filter_map(|of| self.types.get(*of).ok().cloned());
        recipe.kept = kept.collect();
        new.set(self.types.insert(Type::new(layout, recipe)));
    }

    pub(super) fn layout(&self, datatype: Datatype) -> Outcome<Layout> {
        Ok((*self.types.get(datatype)?.layout).clone())
    }
}

fn recipe(combiner: c_int, integers: Vec<i64>, counts: Vec<i64>, types: Vec<Datatype>) -> Recipe {
    Recipe {
        combiner,
        integers,
        counts,
        types,
        ..Recipe::default()
    }
}

fn contiguous<C: Count>(count: C, old: Datatype, new: Out<Datatype>) -> c_int {
    code(with(|state| {
        let layout = Layout::contiguous(count.get()?, &state.layout(old)?);
        let counts = vec![count.signed()];
        state.derive(
            layout,
            recipe(CONTIGUOUS, counts.clone(), counts, vec![old]),
            new,
        );
        Ok(())
    }))
}

/// Strides in elements, or in bytes.
fn vector<C: Count, S: Count>(
    count: C,
    length: C,
    stride: S,
    bytes: bool,
    old: Datatype,
    new: Out<Datatype>,
) -> c_int {
    code(with(|state| {
        let of = state.layout(old)?;
        let step = if bytes { 1 } else { of.extent() };
        let layout = Layout::vector(
            count.get()?,
            length.get()?,
            stride.signed() as isize * step,
            &of,
        );
        let mut integers = vec![count.signed(), length.signed()];
        let mut made = recipe(HVECTOR, integers.clone(), integers.clone(), vec![old]);
        if bytes {
            made.addresses = vec![stride.signed()];
            made.counts.push(stride.signed());
        } else {
            integers.push(stride.signed());
            made = recipe(VECTOR, integers.clone(), integers, vec![old]);
        }
        state.derive(layout, made, new);
        Ok(())
    }))
}

/// Blocks of elements of one type.
struct Indexed<C> {
    count: C,
    /// One length for all, or each block's.
    length: Option<C>,
    lengths: Option<List<C>>,
    bytes: bool,
}

fn indexed<C: Count, D: Count>(
    shape: Indexed<C>,
    displacements: List<D>,
    old: Datatype,
    new: Out<Datatype>,
) -> c_int {
    code(with(|state| {
        let count = shape.count.get()?;
        let of = state.layout(old)?;
        let lengths: Vec<C> = match (shape.length, shape.lengths) {
            (Some(length), _) => vec![length; count],
            (None, Some(lengths)) => lengths.take(count)?,
            (None, None) => return Err(Code::ARG),
        };
        let places = displacements.take(count)?;
        let step = if shape.bytes { 1 } else { of.extent() };
        let mut blocks = Vec::with_capacity(count);
        for (length, place) in lengths.iter().zip(&places) {
            let at = place.signed() as isize * step;
            blocks.push(Block {
                at,
                count: length.get()?,
                of: of.clone(),
            });
        }
        let mut integers = vec![shape.count.signed()];
        match shape.length {
            Some(length) => integers.push(length.signed()),
            None => integers.extend(lengths.iter().map(|length| length.signed())),
        }
        let places: Vec<i64> = places.iter().map(|place| place.signed()).collect();
        let counts = [&integers[..], &places].concat();
        let combiner = match (shape.length.is_some(), shape.bytes) {
            (false, false) => INDEXED,
            (false, true) => HINDEXED,
            (true, false) => INDEXED_BLOCK,
            (true, true) => HINDEXED_BLOCK,
        };
        let addresses = match shape.bytes {
            true => places,
            false => {
                integers.extend(places);
                Vec::new()
            }
        };
        let made = Recipe {
            addresses,
            ..recipe(combiner, integers, counts, vec![old])
        };
        state.derive(Layout::from_blocks(&blocks), made, new);
        Ok(())
    }))
}

fn structure<C: Count, D: Count>(
    count: C,
    lengths: List<C>,
    places: List<D>,
    types: List<Datatype>,
    new: Out<Datatype>,
) -> c_int {
    code(with(|state| {
        let number = count.get()?;
        let (lengths, places) = (lengths.take(number)?, places.take(number)?);
        let types = types.take(number)?;
        let mut blocks = Vec::with_capacity(number);
        for at in 0..number {
            let of = state.layout(types[at])?;
            let place = places[at].signed() as isize;
            blocks.push(Block {
                at: place,
                count: lengths[at].get()?,
                of,
            });
        }
        let mut integers = vec![count.signed()];
        integers.extend(lengths.iter().map(|length| length.signed()));
        let addresses: Vec<i64> = places.iter().map(|place| place.signed()).collect();
        let counts = [&integers[..], &addresses].concat();
        let made = Recipe {
            addresses,
            ..recipe(STRUCT, integers, counts, types)
        };
        state.derive(Layout::from_blocks(&blocks), made, new);
        Ok(())
    }))
}

fn resized<C: Count>(old: Datatype, lower: C, extent: C, new: Out<Datatype>) -> c_int {
    code(with(|state| {
        let bounds = vec![lower.signed(), extent.signed()];
        let layout = state
            .layout(old)?
            .resized(lower.signed() as isize, extent.signed() as isize);
        let made = Recipe {
            addresses: bounds.clone(),
            ..recipe(RESIZED, Vec::new(), bounds, vec![old])
        };
        state.derive(layout, made, new);
        Ok(())
    }))
}

fn pair(value: Datatype, index: Datatype, new: Out<Datatype>) -> Outcome<()> {
    with(|state| {
        state.types.get(value)?;
        state.types.get(index)?;
        // Those of the standard's own.
        let known = [
            (0x10, 0x28),
            (0x14, 0x29),
            (0x0a, 0x2a),
            (0x09, 0x2b),
            (0x08, 0x2c),
            (0x20, 0x2d),
        ];
        let found = known
            .iter()
            .find(|(of, _)| value.0 == 0x200 + of && index.0 == 0x209);
        new.set(found.map_or(Datatype::NULL, |(_, pair)| Datatype(0x200 + pair)));
        Ok(())
    })
}

/// A type of Fortran's by its decimal digits: kinds of reals have 6 and 15, of integers so many
/// as their bytes hold.
fn fortran(combiner: c_int, given: &[c_int], new: Out<Datatype>) -> Outcome<()> {
    let digits = given.iter().copied().max().unwrap_or(0);
    let (precision, range) = match given {
        [precision, range] => (*precision, *range),
        _ => (digits, UNDEFINED),
    };
    let wide = precision > 6 || range > 37;
    let of = match combiner {
        F90_INTEGER => match given[0] {
            ..=2 => 0x40,
            3..=4 => 0x48,
            5..=9 => 0x50,
            10..=18 => 0x58,
            _ => return Err(Code::ARG),
        },
        _ if precision > 15 || range > 307 => return Err(Code::ARG),
        F90_REAL => {
            if wide {
                0x14
            } else {
                0x10
            }
        }
        _ => {
            if wide {
                0x16
            } else {
                0x12
            }
        }
    };
    with(|state| {
        let integers: Vec<i64> = given.iter().map(|number| i64::from(*number)).collect();
        let known = state
            .fortran
            .iter()
            .find(|(kind, numbers, _)| *kind == combiner && *numbers == integers);
        if let Some((.., known)) = known {
            new.set(*known);
            return Ok(());
        }
        let layout = state.layout(Datatype(0x200 + of))?;
        let mut made = Type::new(layout, recipe(combiner, integers.clone(), vec![], vec![]));
        made.named = true;
        let made = state.types.insert(made);
        state.fortran.push((combiner, integers, made));
        new.set(made);
        Ok(())
    })
}

export! {
    fn MPI_Type_contiguous(count: c_int, old: Datatype, new: Out<Datatype>) -> c_int {
        contiguous(count, old, new)
    }
    fn MPI_Type_contiguous_c(count: i64, old: Datatype, new: Out<Datatype>) -> c_int {
        contiguous(count, old, new)
    }
    fn MPI_Type_vector(count: c_int, length: c_int, stride: c_int, old: Datatype, new: Out<Datatype>) -> c_int {
        vector(count, length, stride, false, old, new)
    }
    fn MPI_Type_vector_c(count: i64, length: i64, stride: i64, old: Datatype, new: Out<Datatype>) -> c_int {
        vector(count, length, stride, false, old, new)
    }
    fn MPI_Type_create_hvector(count: c_int, length: c_int, stride: isize, old: Datatype, new: Out<Datatype>) -> c_int {
        vector(count, length, stride, true, old, new)
    }
    fn MPI_Type_create_hvector_c(count: i64, length: i64, stride: i64, old: Datatype, new: Out<Datatype>) -> c_int {
        vector(count, length, stride, true, old, new)
    }
    fn MPI_Type_indexed(count: c_int, lengths: List<c_int>, places: List<c_int>, old: Datatype, new: Out<Datatype>) -> c_int {
        indexed(Indexed { count, length: None, lengths: Some(lengths), bytes: false }, places, old, new)
    }
    fn MPI_Type_indexed_c(count: i64, lengths: List<i64>, places: List<i64>, old: Datatype, new: Out<Datatype>) -> c_int {
        indexed(Indexed { count, length: None, lengths: Some(lengths), bytes: false }, places, old, new)
    }
    fn MPI_Type_create_hindexed(count: c_int, lengths: List<c_int>, places: List<isize>, old: Datatype, new: Out<Datatype>) -> c_int {
        indexed(Indexed { count, length: None, lengths: Some(lengths), bytes: true }, places, old, new)
    }
    fn MPI_Type_create_hindexed_c(count: i64, lengths: List<i64>, places: List<i64>, old: Datatype, new: Out<Datatype>) -> c_int {
        indexed(Indexed { count, length: None, lengths: Some(lengths), bytes: true }, places, old, new)
    }
    fn MPI_Type_create_indexed_block(count: c_int, length: c_int, places: List<c_int>, old: Datatype, new: Out<Datatype>) -> c_int {
        indexed(Indexed { count, length: Some(length), lengths: None, bytes: false }, places, old, new)
    }
    fn MPI_Type_create_indexed_block_c(count: i64, length: i64, places: List<i64>, old: Datatype, new: Out<Datatype>) -> c_int {
        indexed(Indexed { count, length: Some(length), lengths: None, bytes: false }, places, old, new)
    }
    fn MPI_Type_create_hindexed_block(count: c_int, length: c_int, places: List<isize>, old: Datatype, new: Out<Datatype>) -> c_int {
        indexed(Indexed { count, length: Some(length), lengths: None, bytes: true }, places, old, new)
    }
    fn MPI_Type_create_hindexed_block_c(count: i64, length: i64, places: List<i64>, old: Datatype, new: Out<Datatype>) -> c_int {
        indexed(Indexed { count, length: Some(length), lengths: None, bytes: true }, places, old, new)
    }
    fn MPI_Type_create_struct(count: c_int, lengths: List<c_int>, places: List<isize>, types: List<Datatype>, new: Out<Datatype>) -> c_int {
        structure(count, lengths, places, types, new)
    }
    fn MPI_Type_create_struct_c(count: i64, lengths: List<i64>, places: List<i64>, types: List<Datatype>, new: Out<Datatype>) -> c_int {
        structure(count, lengths, places, types, new)
    }
    fn MPI_Type_create_resized(old: Datatype, lower: isize, extent: isize, new: Out<Datatype>) -> c_int {
        resized(old, lower, extent, new)
    }
    fn MPI_Type_create_resized_c(old: Datatype, lower: i64, extent: i64, new: Out<Datatype>) -> c_int {
        resized(old, lower, extent, new)
    }
    fn MPI_Type_get_value_index(value: Datatype, index: Datatype, new: Out<Datatype>) -> c_int {
        code(pair(value, index, new))
    }
    fn MPI_Type_create_f90_real(precision: c_int, range: c_int, new: Out<Datatype>) -> c_int {
        code(fortran(F90_REAL, &[precision, range], new))
    }
    fn MPI_Type_create_f90_complex(precision: c_int, range: c_int, new: Out<Datatype>) -> c_int {
        code(fortran(F90_COMPLEX, &[precision, range], new))
    }
    fn MPI_Type_create_f90_integer(range: c_int, new: Out<Datatype>) -> c_int {
        code(fortran(F90_INTEGER, &[range], new))
    }
    fn MPI_Type_dup(old: Datatype, new: Out<Datatype>) -> c_int {
        let made = with(|state| {
            let layout = state.layout(old)?;
            let mut recipe = recipe(DUP, vec![], vec![], vec![old]);
            recipe.kept = vec![state.types.get(old)?.clone()];
            Ok(state.types.insert(Type::new(layout, recipe)))
        });
        code(made.and_then(|made| {
            new.set(made);
            crate::attribute::copy_all::<Datatype>(old, made)
        }))
    }
}
