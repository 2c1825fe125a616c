//! Numbers of the ABI that stand for something.

use std::ffi::c_int;

pub(crate) const ANY_SOURCE: c_int = -1;
pub(crate) const ANY_TAG: c_int = -2;
pub(crate) const PROC_NULL: c_int = -3;
pub(crate) const ROOT: c_int = -4;
pub(crate) const UNDEFINED: c_int = -32766;

pub(crate) const THREAD_SINGLE: c_int = 0;
pub(crate) const THREAD_SERIALIZED: c_int = 2048;
pub(crate) const THREAD_MULTIPLE: c_int = 4096;

pub(crate) const ORDER_C: c_int = 12;
pub(crate) const ORDER_FORTRAN: c_int = 15;
pub(crate) const DISTRIBUTE_NONE: c_int = 16;
pub(crate) const DISTRIBUTE_BLOCK: c_int = 17;
pub(crate) const DISTRIBUTE_CYCLIC: c_int = 18;
pub(crate) const DISTRIBUTE_DFLT_DARG: c_int = 19;

pub(crate) const IDENT: c_int = 201;
pub(crate) const CONGRUENT: c_int = 202;
pub(crate) const SIMILAR: c_int = 203;
pub(crate) const UNEQUAL: c_int = 204;

pub(crate) const CART: c_int = 211;
pub(crate) const GRAPH: c_int = 212;
pub(crate) const DIST_GRAPH: c_int = 213;

pub(crate) const TYPE_SHARED: c_int = 221;

pub(crate) const TAG_UB: c_int = 501;
pub(crate) const IO: c_int = 502;
pub(crate) const HOST: c_int = 503;
pub(crate) const WTIME_IS_GLOBAL: c_int = 504;
pub(crate) const APPNUM: c_int = 505;
pub(crate) const LASTUSEDCODE: c_int = 506;
pub(crate) const UNIVERSE_SIZE: c_int = 507;

/// The largest tag of a message.
pub(crate) const TAG_MAX: c_int = 0x3fff_ffff;
pub(crate) const BSEND_OVERHEAD: usize = 512;

pub(crate) const MAX_ERROR_STRING: usize = 512;
pub(crate) const MAX_INFO_KEY: usize = 256;
pub(crate) const MAX_INFO_VAL: usize = 1024;
pub(crate) const MAX_OBJECT_NAME: usize = 128;
pub(crate) const MAX_PROCESSOR_NAME: usize = 256;
pub(crate) const MAX_LIBRARY_VERSION: usize = 8192;
