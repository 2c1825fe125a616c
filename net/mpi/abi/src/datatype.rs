//! Datatypes: the standard's by their handles, and those that programs derive.

mod api;
mod array;
mod contents;
mod derive;

use std::ffi::c_int;
use std::rc::Rc;

use ringmill_mpi::datatype::Layout;
use ringmill_mpi::op::Scalar;

use crate::attribute::Attributes;
use crate::error::{Code, Outcome};
use crate::handle::{Datatype, Table};

/// Numbers of elements, in either width of the ABI's.
pub(crate) trait Count: Copy {
    /// The number.
    fn get(self) -> Outcome<usize>;
    /// The number, whatever its sign.
    fn signed(self) -> i64;
    /// From a number, if it fits.
    fn from_number(number: i64) -> Option<Self>;
}

macro_rules! count {
    ($($type:ty)*) => {$(
        impl Count for $type {
            #[inline]
            fn get(self) -> Outcome<usize> {
                usize::try_from(self).map_err(|_| Code::COUNT)
            }
            fn signed(self) -> i64 {
                self as i64
            }
            fn from_number(number: i64) -> Option<Self> {
                number.try_into().ok()
            }
        }
    )*};
}

count! { c_int i64 isize }

/// How a datatype was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipe {
    pub combiner: c_int,
    /// Numbers, as `MPI_Type_get_contents` gives them.
    pub integers: Vec<i64>,
    /// Of these, the ones that are large counts in the large version.
    pub counts: Vec<i64>,
    pub addresses: Vec<i64>,
    pub types: Vec<Datatype>,
    /// Those types, as they were: their handles may be gone.
    pub kept: Vec<Type>,
}

/// A datatype.
#[derive(Clone, Debug)]
pub(crate) struct Type {
    pub layout: Rc<Layout>,
    /// Bytes of an element, if elements in a row are one run.
    pub flat: Option<usize>,
    pub recipe: Rc<Recipe>,
    pub name: String,
    pub attributes: Attributes,
    /// One of the standard's.
    pub named: bool,
}

pub(crate) const COMBINER_NAMED: c_int = 101;

impl Type {
    pub(crate) fn new(layout: Layout, recipe: Recipe) -> Type {
        Type {
            flat: layout.is_contiguous().then_some(layout.size),
            layout: Rc::new(layout),
            recipe: Rc::new(recipe),
            name: String::new(),
            attributes: Attributes::default(),
            named: false,
        }
    }
}

/// Datatypes of the standard's: their handles' distance from the null one, names and kinds.
pub(crate) const NAMED: &[(usize, &str, Scalar)] = &[
    (0x01, "MPI_AINT", Scalar::I64),
    (0x02, "MPI_COUNT", Scalar::I64),
    (0x03, "MPI_OFFSET", Scalar::I64),
    (0x07, "MPI_PACKED", Scalar::Char),
    (0x08, "MPI_SHORT", Scalar::I16),
    (0x09, "MPI_INT", Scalar::I32),
    (0x0a, "MPI_LONG", Scalar::I64),
    (0x0b, "MPI_LONG_LONG", Scalar::I64),
    (0x0c, "MPI_UNSIGNED_SHORT", Scalar::U16),
    (0x0d, "MPI_UNSIGNED", Scalar::U32),
    (0x0e, "MPI_UNSIGNED_LONG", Scalar::U64),
    (0x0f, "MPI_UNSIGNED_LONG_LONG", Scalar::U64),
    (0x10, "MPI_FLOAT", Scalar::F32),
    (0x12, "MPI_C_FLOAT_COMPLEX", Scalar::C32),
    (0x13, "MPI_CXX_FLOAT_COMPLEX", Scalar::C32),
    (0x14, "MPI_DOUBLE", Scalar::F64),
    (0x16, "MPI_C_DOUBLE_COMPLEX", Scalar::C64),
    (0x17, "MPI_CXX_DOUBLE_COMPLEX", Scalar::C64),
    (0x18, "MPI_LOGICAL", Scalar::Logical),
    (0x19, "MPI_INTEGER", Scalar::I32),
    (0x1a, "MPI_REAL", Scalar::F32),
    (0x1b, "MPI_COMPLEX", Scalar::C32),
    (0x1c, "MPI_DOUBLE_PRECISION", Scalar::F64),
    (0x1d, "MPI_DOUBLE_COMPLEX", Scalar::C64),
    (0x1e, "MPI_CHARACTER", Scalar::Char),
    (0x20, "MPI_LONG_DOUBLE", Scalar::F80),
    (0x24, "MPI_C_LONG_DOUBLE_COMPLEX", Scalar::C80),
    (0x25, "MPI_CXX_LONG_DOUBLE_COMPLEX", Scalar::C80),
    (0x28, "MPI_FLOAT_INT", Scalar::F32Int),
    (0x29, "MPI_DOUBLE_INT", Scalar::F64Int),
    (0x2a, "MPI_LONG_INT", Scalar::I64Int),
    (0x2b, "MPI_2INT", Scalar::I32Int),
    (0x2c, "MPI_SHORT_INT", Scalar::I16Int),
    (0x2d, "MPI_LONG_DOUBLE_INT", Scalar::F80Int),
    (0x30, "MPI_2REAL", Scalar::F32Pair),
    (0x31, "MPI_2DOUBLE_PRECISION", Scalar::F64Pair),
    (0x32, "MPI_2INTEGER", Scalar::I32Int),
    (0x38, "MPI_C_BOOL", Scalar::Bool),
    (0x39, "MPI_CXX_BOOL", Scalar::Bool),
    (0x3c, "MPI_WCHAR", Scalar::Wide),
    (0x40, "MPI_INT8_T", Scalar::I8),
    (0x41, "MPI_UINT8_T", Scalar::U8),
    (0x43, "MPI_CHAR", Scalar::Char),
    (0x44, "MPI_SIGNED_CHAR", Scalar::I8),
    (0x45, "MPI_UNSIGNED_CHAR", Scalar::U8),
    (0x47, "MPI_BYTE", Scalar::Byte),
    (0x48, "MPI_INT16_T", Scalar::I16),
    (0x49, "MPI_UINT16_T", Scalar::U16),
    (0x50, "MPI_INT32_T", Scalar::I32),
    (0x51, "MPI_UINT32_T", Scalar::U32),
    (0x58, "MPI_INT64_T", Scalar::I64),
    (0x59, "MPI_UINT64_T", Scalar::U64),
    (0xc0, "MPI_LOGICAL1", Scalar::Bool),
    (0xc1, "MPI_INTEGER1", Scalar::I8),
    (0xc9, "MPI_INTEGER2", Scalar::I16),
    (0xd0, "MPI_LOGICAL4", Scalar::Logical),
    (0xd1, "MPI_INTEGER4", Scalar::I32),
    (0xd2, "MPI_REAL4", Scalar::F32),
    (0xd9, "MPI_INTEGER8", Scalar::I64),
    (0xda, "MPI_REAL8", Scalar::F64),
    (0xdb, "MPI_COMPLEX8", Scalar::C32),
    (0xe3, "MPI_COMPLEX16", Scalar::C64),
];

/// Puts the standard's datatypes into their places.
pub(crate) fn fix(types: &mut Table<Datatype, Type>) {
    for (number, name, scalar) in NAMED {
        let recipe = Recipe {
            combiner: COMBINER_NAMED,
            ..Recipe::default()
        };
        let mut named = Type::new(Layout::scalar(*scalar), recipe);
        (*name).clone_into(&mut named.name);
        named.named = true;
        types.fix(Datatype(0x200 + number), named);
    }
}
