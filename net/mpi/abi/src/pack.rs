//! Elements packed into bytes by the program itself.

use std::ffi::c_int;

use ringmill_mpi::buffer::Buffer;

use crate::communicator::finish;
use crate::datatype::Count;
use crate::error::{Code, Outcome};
use crate::export::export;
use crate::handle::{Comm, Datatype};
use crate::memory::{Memory, Out, Place, Text};
use crate::progress::bytes_of;
use crate::state::with;

/// In which order bytes of a number stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Native,
    /// The standard's external form: the highest first.
    External,
}

fn form_of(name: Text) -> Outcome<Form> {
    match name.get()?.as_str() {
        "external32" => Ok(Form::External),
        "native" | "internal" => Ok(Form::Native),
        _ => Err(Code::ARG),
    }
}

/// Turns the bytes of each basic element around.
fn turn(bytes: &mut [u8], datatype: Datatype) -> Outcome<()> {
    let widths = with(|state| Ok(state.types.get(datatype)?.layout.number_widths()))?;
    let mut at = 0;
    while at < bytes.len() {
        for width in &widths {
            if let Some(number) = bytes.get_mut(at..at + width) {
                number.reverse();
            }
            at += width;
        }
        if widths.is_empty() {
            break;
        }
    }
    Ok(())
}

fn pack<C: Count, P: Count>(
    form: Form,
    (place, count, datatype): (Place, C, Datatype),
    (out, room): (Place, P),
    position: Out<P>,
) -> Outcome<()> {
    let memory = with(|state| state.memory(place, count, datatype))?;
    let (at, room) = (position.get()?.get()?, room.get()?);
    if at + memory.len() > room {
        return Err(Code::TRUNCATE);
    }
    let mut bytes = bytes_of(&memory);
    if form == Form::External {
        turn(&mut bytes, datatype)?;
    }
    Memory::flat(out, room).write(at, &bytes);
    let end = i64::try_from(at + bytes.len())
        .ok()
        .and_then(P::from_number);
    position.set(end.ok_or(Code::VALUE_TOO_LARGE)?);
    Ok(())
}

fn unpack<C: Count, P: Count>(
    form: Form,
    (from, room): (Place, P),
    position: Out<P>,
    (place, count, datatype): (Place, C, Datatype),
) -> Outcome<()> {
    let memory = with(|state| state.memory(place, count, datatype))?;
    let (at, room) = (position.get()?.get()?, room.get()?);
    if at + memory.len() > room {
        return Err(Code::TRUNCATE);
    }
    let mut bytes = vec![0; memory.len()];
    Memory::flat(from, room).read(at, &mut bytes);
    if form == Form::External {
        turn(&mut bytes, datatype)?;
    }
    memory.write(0, &bytes);
    let end = i64::try_from(at + bytes.len())
        .ok()
        .and_then(P::from_number);
    position.set(end.ok_or(Code::VALUE_TOO_LARGE)?);
    Ok(())
}

fn size<C: Count, P: Count>(count: C, datatype: Datatype, out: Out<P>) -> Outcome<()> {
    let bytes = with(|state| Ok(state.types.get(datatype)?.layout.size * count.get()?))?;
    let known = i64::try_from(bytes).ok().and_then(P::from_number);
    out.set(known.ok_or(Code::VALUE_TOO_LARGE)?);
    Ok(())
}

macro_rules! packs {
    ($($count:ty, $far:ty: $pack:ident $unpack:ident $size:ident $pack_ext:ident $unpack_ext:ident $size_ext:ident,)*) => {$(
        export! {
            fn $pack(inbuf: Place, incount: $count, datatype: Datatype, outbuf: Place, outsize: $count, position: Out<$count>, comm: Comm) -> c_int {
                finish(comm, pack(Form::Native, (inbuf, incount, datatype), (outbuf, outsize), position))
            }
            fn $unpack(inbuf: Place, insize: $count, position: Out<$count>, outbuf: Place, outcount: $count, datatype: Datatype, comm: Comm) -> c_int {
                finish(comm, unpack(Form::Native, (inbuf, insize), position, (outbuf, outcount, datatype)))
            }
            fn $size(incount: $count, datatype: Datatype, comm: Comm, size_out: Out<$count>) -> c_int {
                finish(comm, size(incount, datatype, size_out))
            }
            fn $pack_ext(form: Text, inbuf: Place, incount: $count, datatype: Datatype, outbuf: Place, outsize: $far, position: Out<$far>) -> c_int {
                let result = form_of(form).and_then(|form| pack(form, (inbuf, incount, datatype), (outbuf, outsize), position));
                finish(Comm::SELF, result)
            }
            fn $unpack_ext(form: Text, inbuf: Place, insize: $far, position: Out<$far>, outbuf: Place, outcount: $count, datatype: Datatype) -> c_int {
                let result = form_of(form).and_then(|form| unpack(form, (inbuf, insize), position, (outbuf, outcount, datatype)));
                finish(Comm::SELF, result)
            }
            fn $size_ext(form: Text, incount: $count, datatype: Datatype, size_out: Out<$far>) -> c_int {
                finish(Comm::SELF, form_of(form).and_then(|_| size(incount, datatype, size_out)))
            }
        }
    )*};
}

packs! {
    c_int, isize: MPI_Pack MPI_Unpack MPI_Pack_size MPI_Pack_external MPI_Unpack_external MPI_Pack_external_size,
    i64, i64: MPI_Pack_c MPI_Unpack_c MPI_Pack_size_c MPI_Pack_external_c MPI_Unpack_external_c MPI_Pack_external_size_c,
}
