//! Statuses: what a receive has received.

use std::ffi::c_int;

use ringmill_mpi::engine::{self, Fault};

use crate::constants::{ANY_SOURCE, ANY_TAG, PROC_NULL, UNDEFINED};
use crate::datatype::Count;
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::Datatype;
use crate::memory::{List, Out};
use crate::state::with;

/// The ABI's status. Of the words that are the library's, the first two are the number of bytes,
/// and the third says whether it was cancelled.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Status {
    source: c_int,
    tag: c_int,
    error: c_int,
    internal: [c_int; 5],
}

impl Status {
    /// Of what has nothing to say.
    pub(crate) fn empty() -> Status {
        Status {
            source: ANY_SOURCE,
            tag: ANY_TAG,
            error: 0,
            internal: [0; 5],
        }
    }

    /// Of a receive from nobody.
    pub(crate) fn of_nobody() -> Status {
        Status {
            source: PROC_NULL,
            ..Status::empty()
        }
    }

    pub(crate) fn of(status: &engine::Status) -> Status {
        let mut of = Status::empty();
        if let Some(source) = status.source {
            of.source = source as c_int;
            of.tag = status.tag;
        }
        of.set_bytes(status.length);
        of.internal[2] = c_int::from(status.cancelled);
        of.error = match status.fault {
            None => 0,
            Some(Fault::Truncated) => Code::TRUNCATE.0,
            Some(Fault::PeerLost) => Code::PROC_ABORTED.0,
        };
        of
    }

    pub(crate) fn error(&self) -> Outcome<()> {
        match self.error {
            0 => Ok(()),
            error => Err(Code(error)),
        }
    }

    pub(crate) fn with_error(self, error: c_int) -> Status {
        Status { error, ..self }
    }

    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.internal[0].cast_unsigned())
            | u64::from(self.internal[1].cast_unsigned()) << 32
    }

    fn set_bytes(&mut self, bytes: u64) {
        self.internal[0] = (bytes as u32).cast_signed();
        self.internal[1] = ((bytes >> 32) as u32).cast_signed();
    }
}

/// Writes a status but for its error, which only calls with several statuses set.
pub(crate) fn tell(out: Out<Status>, status: &Status) {
    if !out.is_null() {
        let error = out.get().map_or(0, |before| before.error);
        out.set(status.with_error(error));
    }
}

fn count_of(status: &Status, datatype: Datatype) -> Outcome<Option<u64>> {
    let size = with(|state| Ok(state.types.get(datatype)?.layout.size as u64))?;
    let bytes = status.bytes();
    Ok(match size {
        0 => (bytes == 0).then_some(0),
        size => bytes.is_multiple_of(size).then_some(bytes / size),
    })
}

fn elements_of(status: &Status, datatype: Datatype) -> Outcome<Option<u64>> {
    with(|state| Ok(state.types.get(datatype)?.layout.scalars_in(status.bytes())))
}

fn tell_count<C: Count>(count: Outcome<Option<u64>>, out: Out<C>) -> c_int {
    code(count.map(|count| {
        let known = count.and_then(|count| C::from_number(i64::try_from(count).ok()?));
        out.set(known.unwrap_or_else(|| C::from_number(UNDEFINED.into()).expect("it fits")));
    }))
}

fn set_elements(status: Out<Status>, datatype: Datatype, count: i64) -> Outcome<()> {
    let mut told = status.get()?;
    let layout = with(|state| Ok(state.types.get(datatype)?.layout.clone()))?;
    // Whole elements first, then basic ones of the last.
    let per = layout.scalar_count().max(1) as i64;
    let whole = count / per * layout.size as i64;
    let rest = layout.scalar_prefix((count % per) as usize) as i64;
    told.set_bytes((whole + rest).cast_unsigned());
    status.set(told);
    Ok(())
}

fn change(status: Out<Status>, change: impl FnOnce(&mut Status)) -> c_int {
    code(status.get().map(|mut told| {
        change(&mut told);
        status.set(told);
    }))
}

fn first(status: List<Status>) -> Outcome<Status> {
    status.take(1).map(|list| list[0])
}

export! {
    fn MPI_Get_count(status: List<Status>, datatype: Datatype, count: Out<c_int>) -> c_int {
        tell_count(first(status).and_then(|status| count_of(&status, datatype)), count)
    }
    fn MPI_Get_count_c(status: List<Status>, datatype: Datatype, count: Out<i64>) -> c_int {
        tell_count(first(status).and_then(|status| count_of(&status, datatype)), count)
    }
    fn MPI_Get_elements(status: List<Status>, datatype: Datatype, count: Out<c_int>) -> c_int {
        tell_count(first(status).and_then(|status| elements_of(&status, datatype)), count)
    }
    fn MPI_Get_elements_c(status: List<Status>, datatype: Datatype, count: Out<i64>) -> c_int {
        tell_count(first(status).and_then(|status| elements_of(&status, datatype)), count)
    }
    fn MPI_Get_elements_x(status: List<Status>, datatype: Datatype, count: Out<i64>) -> c_int {
        tell_count(first(status).and_then(|status| elements_of(&status, datatype)), count)
    }
    fn MPI_Status_set_elements(status: Out<Status>, datatype: Datatype, count: c_int) -> c_int {
        code(set_elements(status, datatype, count.into()))
    }
    fn MPI_Status_set_elements_c(status: Out<Status>, datatype: Datatype, count: i64) -> c_int {
        code(set_elements(status, datatype, count))
    }
    fn MPI_Status_set_elements_x(status: Out<Status>, datatype: Datatype, count: i64) -> c_int {
        code(set_elements(status, datatype, count))
    }
    fn MPI_Status_set_cancelled(status: Out<Status>, flag: c_int) -> c_int {
        change(status, |status| status.internal[2] = c_int::from(flag != 0))
    }
    fn MPI_Test_cancelled(status: List<Status>, flag: Out<c_int>) -> c_int {
        code(first(status).map(|status| flag.set(c_int::from(status.internal[2] != 0))))
    }
    fn MPI_Status_get_error(status: List<Status>, error: Out<c_int>) -> c_int {
        code(first(status).map(|status| error.set(status.error)))
    }
    fn MPI_Status_get_source(status: List<Status>, source: Out<c_int>) -> c_int {
        code(first(status).map(|status| source.set(status.source)))
    }
    fn MPI_Status_get_tag(status: List<Status>, tag: Out<c_int>) -> c_int {
        code(first(status).map(|status| tag.set(status.tag)))
    }
    fn MPI_Status_set_error(status: Out<Status>, error: c_int) -> c_int {
        change(status, |status| status.error = error)
    }
    fn MPI_Status_set_source(status: Out<Status>, source: c_int) -> c_int {
        change(status, |status| status.source = source)
    }
    fn MPI_Status_set_tag(status: Out<Status>, tag: c_int) -> c_int {
        change(status, |status| status.tag = tag)
    }
}
