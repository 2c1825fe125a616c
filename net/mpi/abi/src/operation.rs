//! Reductions: the standard's, and those that programs make.

use std::ffi::c_int;

use ringmill_mpi::buffer::Buffer;
use ringmill_mpi::collective::Reducer;
use ringmill_mpi::op::{self, Op as Basic};

use crate::callback::{self, Function};
use crate::communicator::finish;
use crate::datatype::Count;
use crate::error::{Code, Outcome, code};
use crate::export::export;
use crate::handle::{Comm, Datatype, Handle, Op, Table};
use crate::memory::{Memory, Out, Place};
use crate::progress::bytes_of;
use crate::state::{State, with};

/// A reduction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Basic(Basic),
    /// The application's; whether the order of its operands is of no account.
    External {
        function: Function,
        large: bool,
        commutes: bool,
    },
}

/// The standard's, by the distance of their handles from the null one.
const BASIC: &[(usize, Basic)] = &[
    (0x1, Basic::Sum),
    (0x2, Basic::Min),
    (0x3, Basic::Max),
    (0x4, Basic::Product),
    (0x8, Basic::BitAnd),
    (0x9, Basic::BitOr),
    (0xa, Basic::BitXor),
    (0x10, Basic::And),
    (0x11, Basic::Or),
    (0x12, Basic::Xor),
    (0x18, Basic::MinLocation),
    (0x19, Basic::MaxLocation),
    (0x1c, Basic::Replace),
    (0x1d, Basic::Keep),
];

pub(crate) fn fix(ops: &mut Table<Op, Operation>) {
    for (number, basic) in BASIC {
        ops.fix(Op(Op::NULL.0 + number), Operation::Basic(*basic));
    }
}

impl State {
    /// What reduces elements of a datatype, and whether their order is of no account.
    pub(crate) fn reducer(&self, op: Op, datatype: Datatype) -> Outcome<(Reducer, bool)> {
        let layout = &self.types.get(datatype)?.layout;
        match self.ops.get(op)? {
            Operation::External { commutes, .. } => Ok((Reducer::External, *commutes)),
            Operation::Basic(basic) => {
                let scalar = layout
                    .uniform()
                    .filter(|_| layout.scalar_count() == 1)
                    .ok_or(Code::OP)?;
                match op::is_defined(*basic, scalar) {
                    true => Ok((
                        Reducer::Basic(*basic, scalar),
                        !matches!(basic, Basic::Replace | Basic::Keep),
                    )),
                    false => Err(Code::OP),
                }
            }
        }
    }
}

/// Packed elements as they stand in memory: where the application's function reads them.
struct Elements {
    memory: Memory,
    /// Memory of their own, if they have gaps or are not in one run; it is to be given back.
    own: Option<(Place, Memory)>,
}

impl Elements {
    fn of(memory: &Memory, datatype: Datatype, count: usize) -> Outcome<Elements> {
        let layout = with(|state| Ok(state.types.get(datatype)?.layout.clone()))?;
        if layout.is_contiguous() && memory.pointer().is_some() {
            return Ok(Elements {
                memory: memory.clone(),
                own: None,
            });
        }
        let (begin, end) = layout.true_bounds();
        let extent = layout.extent().unsigned_abs();
        let bytes = extent * count.saturating_sub(1) + (end - begin).unsigned_abs();
        let place = Place::allocate(bytes);
        if place.is_null() {
            return Err(Code::NO_MEM);
        }
        let first = place.offset(-begin);
        let elements = Memory::elements(first, count, &layout);
        elements.write(0, &bytes_of(memory));
        Ok(Elements {
            memory: memory.clone(),
            own: Some((first, elements)),
        })
    }

    fn place(&self) -> Place {
        match &self.own {
            Some((place, _)) => *place,
            None => Place::from_pointer(self.memory.pointer().unwrap_or(std::ptr::null_mut())),
        }
    }

    /// Puts what was changed back.
    fn put_back(&self) {
        if let Some((_, elements)) = &self.own {
            self.memory.write(0, &bytes_of(elements));
        }
    }

    fn release(self, datatype: Datatype) {
        if let Some((place, _)) = self.own {
            let begin = with(|state| {
                state
                    .types
                    .get(datatype)
                    .map_or(0, |t| t.layout.true_bounds().0)
            });
            place.offset(begin).release();
        }
    }
}

/// Calls the application's reduction: `into = from op into`, or flipped.
pub(crate) fn reduce_external(
    op: Op,
    datatype: Datatype,
    from: &Memory,
    into: &Memory,
    flipped: bool,
) -> Outcome<()> {
    let (operation, size) =
        with(|state| Ok((*state.ops.get(op)?, state.types.get(datatype)?.layout.size)))?;
    let Operation::External {
        function, large, ..
    } = operation
    else {
        return Err(Code::OP);
    };
    let count = from.len().checked_div(size).unwrap_or(0);
    let (first, second) = (
        Elements::of(from, datatype, count)?,
        Elements::of(into, datatype, count)?,
    );
    let (left, right) = if flipped {
        (&second, &first)
    } else {
        (&first, &second)
    };
    if large {
        let f = function.large_reduction().ok_or(Code::OP)?;
        callback::reduce_large(f, left.place(), right.place(), count as i64, datatype);
    } else {
        let f = function.reduction().ok_or(Code::OP)?;
        let count = c_int::try_from(count).map_err(|_| Code::COUNT)?;
        callback::reduce(f, left.place(), right.place(), count, datatype);
    }
    right.put_back();
    first.release(datatype);
    second.release(datatype);
    if flipped {
        into.write(0, &bytes_of(from));
    }
    Ok(())
}

fn reduce_here<C: Count>(
    from: Place,
    into: Place,
    count: C,
    datatype: Datatype,
    op: Op,
) -> Outcome<()> {
    let (from, into, reducer) = with(|state| {
        let (reducer, _) = state.reducer(op, datatype)?;
        Ok((
            state.memory(from, count, datatype)?,
            state.memory(into, count, datatype)?,
            reducer,
        ))
    })?;
    match reducer {
        Reducer::Basic(basic, scalar) => {
            let mut known = Ok(());
            into.combine(&from, &mut |from, into| {
                known = op::apply(basic, scalar, from, into)
            });
            known.map_err(|_| Code::OP)
        }
        _ => reduce_external(op, datatype, &from, &into, false),
    }
}

fn create(function: Function, large: bool, commute: c_int, op: Out<Op>) -> c_int {
    let operation = Operation::External {
        function,
        large,
        commutes: commute != 0,
    };
    op.set(with(|state| state.ops.insert(operation)));
    0
}

export! {
    fn MPI_Op_create(function: Function, commute: c_int, op: Out<Op>) -> c_int {
        create(function, false, commute, op)
    }
    fn MPI_Op_create_c(function: Function, commute: c_int, op: Out<Op>) -> c_int {
        create(function, true, commute, op)
    }
    fn MPI_Op_free(op: Out<Op>) -> c_int {
        code(op.get().and_then(|handle| with(|state| state.ops.remove(handle))).map(|_| op.set(Op::NULL)))
    }
    fn MPI_Op_commutative(op: Op, commute: Out<c_int>) -> c_int {
        code(with(|state| {
            commute.set(match state.ops.get(op)? {
                Operation::Basic(basic) => c_int::from(!matches!(basic, Basic::Replace | Basic::Keep)),
                Operation::External { commutes, .. } => c_int::from(*commutes),
            });
            Ok(())
        }))
    }
    fn MPI_Reduce_local(from: Place, into: Place, count: c_int, datatype: Datatype, op: Op) -> c_int {
        finish(Comm::SELF, reduce_here(from, into, count, datatype, op))
    }
    fn MPI_Reduce_local_c(from: Place, into: Place, count: i64, datatype: Datatype, op: Op) -> c_int {
        finish(Comm::SELF, reduce_here(from, into, count, datatype, op))
    }
}
