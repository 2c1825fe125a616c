//! Functions of the application's, as C declares them: an island of `unsafe`. They are called
//! without the state, so they may call MPI.

use std::ffi::{c_int, c_void};

use crate::handle::{Comm, Datatype};
use crate::memory::{Out, Place};
use crate::status::Status;

/// A reduction: `inout = in op inout`.
pub(crate) type Reduction = extern "C" fn(*mut c_void, *mut c_void, *mut c_int, *mut Datatype);
/// The same with large counts.
pub(crate) type LargeReduction = extern "C" fn(*mut c_void, *mut c_void, *mut i64, *mut Datatype);
/// A function that copies an attribute.
pub(crate) type Copy =
    extern "C" fn(usize, c_int, *mut c_void, *mut c_void, *mut c_void, *mut c_int) -> c_int;
/// A function that is told that an attribute goes.
pub(crate) type Delete = extern "C" fn(usize, c_int, *mut c_void, *mut c_void) -> c_int;
/// An error handler; what follows the code in C is never given.
pub(crate) type Handler = extern "C" fn(*mut usize, *mut c_int);
/// Functions of generalized requests.
pub(crate) type Query = extern "C" fn(*mut c_void, *mut Status) -> c_int;
pub(crate) type Free = extern "C" fn(*mut c_void) -> c_int;
pub(crate) type Cancel = extern "C" fn(*mut c_void, c_int) -> c_int;

/// A pointer of C's to data of the application's, which is only handed back.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Extra(pub(crate) *mut c_void);

impl Extra {
    pub(crate) fn from_number(number: usize) -> Extra {
        Extra(std::ptr::without_provenance_mut(number))
    }

    pub(crate) fn number(self) -> usize {
        self.0.expose_provenance()
    }
}

/// A pointer to a function, or one of the numbers that the ABI gives a meaning.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Function(*mut c_void);

macro_rules! function {
    ($($name:ident -> $type:ty,)*) => {$(
        pub(crate) fn $name(self) -> Option<$type> {
            if self.0.addr() < 4096 {
                return None;
            }
            // SAFETY: the caller of the ABI's function that took it gave a function of this type.
            Some(unsafe { std::mem::transmute::<*mut c_void, $type>(self.0) })
        }
    )*};
}

impl Function {
    function! {
        reduction -> Reduction,
        large_reduction -> LargeReduction,
        copy -> Copy,
        delete -> Delete,
        handler -> Handler,
        query -> Query,
        free -> Free,
        cancel -> Cancel,
    }

    /// The function that copies as it is (`MPI_COMM_DUP_FN`).
    pub(crate) fn is_duplicate(self) -> bool {
        self.0.addr() == 1
    }
}

/// Calls a reduction.
pub(crate) fn reduce(f: Reduction, from: Place, into: Place, count: c_int, datatype: Datatype) {
    let (mut count, mut datatype) = (count, datatype);
    f(
        from.pointer(),
        into.pointer(),
        &raw mut count,
        &raw mut datatype,
    );
}

/// Calls one with a large count.
pub(crate) fn reduce_large(
    f: LargeReduction,
    from: Place,
    into: Place,
    count: i64,
    datatype: Datatype,
) {
    let (mut count, mut datatype) = (count, datatype);
    f(
        from.pointer(),
        into.pointer(),
        &raw mut count,
        &raw mut datatype,
    );
}

/// Asks whether and how an attribute is copied.
pub(crate) fn copy(
    f: Copy,
    object: usize,
    keyval: c_int,
    extra: Extra,
    value: usize,
) -> Result<Option<usize>, c_int> {
    let mut copied: *mut c_void = std::ptr::null_mut();
    let mut flag: c_int = 0;
    let result = f(
        object,
        keyval,
        extra.0,
        Extra::from_number(value).0,
        (&raw mut copied).cast(),
        &raw mut flag,
    );
    match result {
        0 => Ok((flag != 0).then(|| copied.expose_provenance())),
        error => Err(error),
    }
}

/// Tells that an attribute goes.
pub(crate) fn delete(f: Delete, object: usize, keyval: c_int, value: usize, extra: Extra) -> c_int {
    f(object, keyval, Extra::from_number(value).0, extra.0)
}

/// Calls an error handler of a communicator.
pub(crate) fn handle(f: Handler, object: usize, error: c_int) {
    let (mut object, mut error) = (object, error);
    f(&raw mut object, &raw mut error);
}

/// Asks for the status of a generalized request.
pub(crate) fn query(f: Query, extra: Extra, mut status: Status) -> (c_int, Status) {
    let result = f(extra.0, &raw mut status);
    (result, status)
}

/// The handle that a communicator's error handler is given.
pub(crate) fn object_of(comm: Comm) -> usize {
    comm.0
}

/// A pointer that C takes for the value itself.
pub(crate) fn tell_pointer(out: Out<usize>, value: usize) {
    out.set(value);
}
