//! Error classes and codes, and what becomes of an error.

use std::ffi::c_int;

/// An error code; classes are codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub c_int);

/// What a call comes to.
pub(crate) type Outcome<T> = Result<T, Code>;

macro_rules! classes {
    ($($name:ident = $number:literal $words:literal,)*) => {
        impl Code {
            $(
                #[allow(dead_code, reason = "the table is the standard's")]
                pub(crate) const $name: Code = Code($number);
            )*
        }

        /// What a class means.
        pub(crate) fn words(class: c_int) -> Option<&'static str> {
            match class {
                0 => Some("no error"),
                $($number => Some($words),)*
                _ => None,
            }
        }
    };
}

classes! {
    BUFFER = 1 "invalid buffer pointer, or no room in the attached buffer",
    COUNT = 2 "invalid count argument",
    TYPE = 3 "invalid datatype",
    TAG = 4 "invalid tag",
    COMM = 5 "invalid communicator",
    RANK = 6 "invalid rank",
    REQUEST = 7 "invalid request",
    ROOT = 8 "invalid root",
    GROUP = 9 "invalid group",
    OP = 10 "invalid operation, or one that is not defined for the datatype",
    TOPOLOGY = 11 "invalid topology",
    DIMS = 12 "invalid dimension argument",
    ARG = 13 "invalid argument",
    UNKNOWN = 14 "unknown error",
    TRUNCATE = 15 "the message was longer than the buffer",
    OTHER = 16 "other error",
    INTERN = 17 "internal error",
    PENDING = 18 "the request is not over yet",
    IN_STATUS = 19 "the error code is in the status",
    ACCESS = 20 "permission denied",
    AMODE = 21 "invalid access mode",
    ASSERT = 22 "invalid assertion",
    BAD_FILE = 23 "invalid file name",
    BASE = 24 "invalid base address",
    CONVERSION = 25 "an error in a conversion function",
    DISP = 26 "invalid displacement",
    DUP_DATAREP = 27 "the data representation is defined already",
    FILE_EXISTS = 28 "the file exists",
    FILE_IN_USE = 29 "the file is in use",
    FILE = 30 "invalid file",
    INFO_KEY = 31 "the key is too long",
    INFO_NOKEY = 32 "no such key",
    INFO_VALUE = 33 "the value is too long",
    INFO = 34 "invalid info",
    IO = 35 "an input or output error",
    KEYVAL = 36 "invalid key of an attribute",
    LOCKTYPE = 37 "invalid type of a lock",
    NAME = 38 "no such service name",
    NO_MEM = 39 "out of memory",
    NOT_SAME = 40 "the argument differs between processes",
    NO_SPACE = 41 "no space is left",
    NO_SUCH_FILE = 42 "no such file",
    PORT = 43 "invalid port name",
    QUOTA = 44 "the quota is exceeded",
    READ_ONLY = 45 "a file that is only read",
    RMA_ATTACH = 46 "memory cannot be attached",
    RMA_CONFLICT = 47 "conflicting accesses to a window",
    RMA_RANGE = 48 "memory outside of a window",
    RMA_SHARED = 49 "memory cannot be shared",
    RMA_SYNC = 50 "wrong synchronization of a window",
    SERVICE = 51 "invalid service name",
    SIZE = 52 "invalid size",
    SPAWN = 53 "processes cannot be started",
    UNSUPPORTED_DATAREP = 54 "unsupported data representation",
    UNSUPPORTED_OPERATION = 55 "this operation is not built",
    WIN = 56 "invalid window",
    RMA_FLAVOR = 57 "wrong flavour of a window",
    PROC_ABORTED = 58 "a process of the job is gone",
    VALUE_TOO_LARGE = 59 "a value is too large for its type",
    SESSION = 60 "invalid session",
    ERRHANDLER = 61 "invalid error handler",
    ABI = 62 "an error of the ABI",
}

/// The last class of the standard's.
pub(crate) const LAST_CODE: c_int = 0x3fff;

/// A result for C.
pub(crate) fn code(outcome: Outcome<()>) -> c_int {
    match outcome {
        Ok(()) => 0,
        Err(Code(code)) => code,
    }
}
