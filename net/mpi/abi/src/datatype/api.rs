//! What programs ask of datatypes.

use std::ffi::c_int;

use ringmill_mpi::op::Scalar;

use super::{Count, NAMED};
use crate::attribute;
use crate::constants::{MAX_OBJECT_NAME, UNDEFINED};
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Datatype, Handle, Win};
use crate::memory::{Out, Place, Text, TextOut};
use crate::state::with;

/// Writes a number, or that it does not fit.
fn tell<C: Count>(out: Out<C>, number: i64) {
    let undefined = C::from_number(UNDEFINED.into()).expect("it fits");
    out.set(C::from_number(number).unwrap_or(undefined));
}

fn size<C: Count>(datatype: Datatype, out: Out<C>) -> c_int {
    code(with(|state| {
        tell(out, state.types.get(datatype)?.layout.size as i64);
        Ok(())
    }))
}

fn extent<C: Count>(datatype: Datatype, lower: Out<C>, extent: Out<C>) -> c_int {
    code(with(|state| {
        let layout = &state.types.get(datatype)?.layout;
        tell(lower, layout.lower as i64);
        tell(extent, layout.extent() as i64);
        Ok(())
    }))
}

fn true_extent<C: Count>(datatype: Datatype, lower: Out<C>, extent: Out<C>) -> c_int {
    code(with(|state| {
        let (begin, end) = state.types.get(datatype)?.layout.true_bounds();
        tell(lower, begin as i64);
        tell(extent, (end - begin) as i64);
        Ok(())
    }))
}

/// The standard's datatype of a class and a size.
fn match_size(class: c_int, size: c_int) -> Outcome<Datatype> {
    let wanted: &[Scalar] = match class {
        191 => &[Scalar::Bool, Scalar::Logical],
        192 => &[Scalar::I8, Scalar::I16, Scalar::I32, Scalar::I64],
        193 => &[Scalar::F32, Scalar::F64],
        194 => &[Scalar::C32, Scalar::C64],
        _ => return Err(Code::ARG),
    };
    let fits = |scalar: &Scalar| scalar.size() as c_int == size && wanted.contains(scalar);
    let found = NAMED.iter().rev().find(|(_, _, scalar)| fits(scalar));
    found
        .map(|(number, ..)| Datatype(0x200 + number))
        .ok_or(Code::ARG)
}

export! {
    fn MPI_Type_commit(datatype: Out<Datatype>) -> c_int {
        code(datatype.get().and_then(|datatype| with(|state| state.types.get(datatype).map(|_| ()))))
    }
    fn MPI_Type_free(datatype: Out<Datatype>) -> c_int {
        code(datatype.get().and_then(|handle| {
            with(|state| match state.types.get(handle)?.named {
                true => Err(Code::TYPE),
                false => Ok(()),
            })?;
            attribute::delete_all::<Datatype>(handle)?;
            with(|state| state.types.remove(handle))?;
            datatype.set(Datatype::NULL);
            Ok(())
        }))
    }
    fn MPI_Type_size(datatype: Datatype, out: Out<c_int>) -> c_int { size(datatype, out) }
    fn MPI_Type_size_c(datatype: Datatype, out: Out<i64>) -> c_int { size(datatype, out) }
    fn MPI_Type_size_x(datatype: Datatype, out: Out<i64>) -> c_int { size(datatype, out) }
    fn MPI_Type_get_extent(datatype: Datatype, lower: Out<isize>, whole: Out<isize>) -> c_int {
        extent(datatype, lower, whole)
    }
    fn MPI_Type_get_extent_c(datatype: Datatype, lower: Out<i64>, whole: Out<i64>) -> c_int {
        extent(datatype, lower, whole)
    }
    fn MPI_Type_get_extent_x(datatype: Datatype, lower: Out<i64>, whole: Out<i64>) -> c_int {
        extent(datatype, lower, whole)
    }
    fn MPI_Type_get_true_extent(datatype: Datatype, lower: Out<isize>, whole: Out<isize>) -> c_int {
        true_extent(datatype, lower, whole)
    }
    fn MPI_Type_get_true_extent_c(datatype: Datatype, lower: Out<i64>, whole: Out<i64>) -> c_int {
        true_extent(datatype, lower, whole)
    }
    fn MPI_Type_get_true_extent_x(datatype: Datatype, lower: Out<i64>, whole: Out<i64>) -> c_int {
        true_extent(datatype, lower, whole)
    }
    fn MPI_Type_get_name(datatype: Datatype, name: TextOut, length: Out<c_int>) -> c_int {
        // The null datatype has a name, too.
        if datatype == Datatype::NULL {
            length.set(name.set("MPI_DATATYPE_NULL", MAX_OBJECT_NAME));
            return 0;
        }
        code(with(|state| {
            length.set(name.set(&state.types.get(datatype)?.name, MAX_OBJECT_NAME));
            Ok(())
        }))
    }
    // The null window is the only one, and has a name.
    fn MPI_Win_get_name(win: Win, name: TextOut, length: Out<c_int>) -> c_int {
        if win != Win::NULL {
            return Code::WIN.0;
        }
        length.set(name.set("MPI_WIN_NULL", MAX_OBJECT_NAME));
        0
    }
    fn MPI_Type_set_name(datatype: Datatype, name: Text) -> c_int {
        code(name.get().and_then(|name| with(|state| {
            state.types.get_mut(datatype)?.name = name;
            Ok(())
        })))
    }
    fn MPI_Type_match_size(class: c_int, size: c_int, datatype: Out<Datatype>) -> c_int {
        code(match_size(class, size).map(|found| datatype.set(found)))
    }
    fn MPI_Get_address(location: Place, address: Out<isize>) -> c_int {
        address.set(location.address().cast_signed());
        0
    }
    fn MPI_Aint_add(base: isize, by: isize) -> isize { base.wrapping_add(by) }
    fn MPI_Aint_diff(one: isize, other: isize) -> isize { one.wrapping_sub(other) }
}
