//! The basic types of elements, and the reductions that need no code of the application's. Pure.

use thiserror::Error;

use crate::long_double::{self, Act, Number};

/// A basic type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Scalar {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
    /// The platform's `long double`.
    F80,
    C32,
    C64,
    /// Two `long double`.
    C80,
    /// A truth value of one byte.
    Bool,
    /// A truth value of Fortran's, of four bytes.
    Logical,
    /// A character: no arithmetic.
    Char,
    /// A wide character.
    Wide,
    /// Bytes: only bits.
    Byte,
    F32Int,
    F64Int,
    I64Int,
    I32Int,
    I16Int,
    F80Int,
    /// Two values of Fortran's, of one type.
    F32Pair,
    F64Pair,
}

impl Scalar {
    /// Bytes of data.
    pub fn size(self) -> usize {
        match self {
            Scalar::I8 | Scalar::U8 | Scalar::Bool | Scalar::Char | Scalar::Byte => 1,
            Scalar::I16 | Scalar::U16 => 2,
            Scalar::I32 | Scalar::U32 | Scalar::F32 | Scalar::Wide | Scalar::Logical => 4,
            Scalar::I64 | Scalar::U64 | Scalar::F64 | Scalar::C32 => 8,
            Scalar::F80 | Scalar::C64 | Scalar::F64Pair => 16,
            Scalar::C80 => 32,
            Scalar::I16Int => 6,
            Scalar::F32Int | Scalar::I32Int | Scalar::F32Pair => 8,
            Scalar::F64Int | Scalar::I64Int => 12,
            Scalar::F80Int => 20,
        }
    }

    /// Bytes in memory, with what C leaves free.
    pub fn extent(self) -> usize {
        match self {
            Scalar::I16Int => 8,
            Scalar::F64Int | Scalar::I64Int => 16,
            Scalar::F80Int => 32,
            _ => self.size(),
        }
    }

    /// Bytes of each number that it consists of.
    pub(crate) fn number_widths(self) -> &'static [usize] {
        match self {
            Scalar::I8 | Scalar::U8 | Scalar::Bool | Scalar::Char | Scalar::Byte => &[1],
            Scalar::I16 | Scalar::U16 => &[2],
            Scalar::I32 | Scalar::U32 | Scalar::F32 | Scalar::Wide | Scalar::Logical => &[4],
            Scalar::I64 | Scalar::U64 | Scalar::F64 => &[8],
            Scalar::C32 | Scalar::F32Int | Scalar::I32Int | Scalar::F32Pair => &[4, 4],
            Scalar::C64 | Scalar::F64Pair => &[8, 8],
            Scalar::F80 => &[16],
            Scalar::C80 => &[16, 16],
            Scalar::I16Int => &[2, 4],
            Scalar::F64Int | Scalar::I64Int => &[8, 4],
            Scalar::F80Int => &[16, 4],
        }
    }

    /// What its address is a multiple of.
    pub(crate) fn alignment(self) -> usize {
        self.number_widths().iter().max().copied().unwrap_or(1)
    }

    /// The parts of a pair: bytes of the first and of the second, and where that begins.
    pub(crate) fn gap(self) -> Option<(usize, usize, usize)> {
        match self {
            Scalar::I16Int => Some((2, 4, 4)),
            Scalar::F64Int | Scalar::I64Int => Some((8, 4, 8)),
            Scalar::F80Int => Some((16, 4, 16)),
            _ => None,
        }
    }
}

/// A reduction of the standard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Op {
    Sum,
    Product,
    Min,
    Max,
    BitAnd,
    BitOr,
    BitXor,
    And,
    Or,
    Xor,
    MinLocation,
    MaxLocation,
    /// The left operand.
    Replace,
    /// The right one.
    Keep,
}

/// The standard does not define this reduction for this type, or it is not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not defined for elements of {1:?}")]
pub struct Undefined(pub Op, pub Scalar);

macro_rules! each {
    ($type:ty, $from:expr, $into:expr, $combine:expr) => {{
        const WIDTH: usize = size_of::<$type>();
        let combine: fn($type, $type) -> $type = $combine;
        let (from, _) = $from.as_chunks::<WIDTH>();
        let (into, _) = $into.as_chunks_mut::<WIDTH>();
        for (from, into) in from.iter().zip(into) {
            let result = combine(<$type>::from_ne_bytes(*from), <$type>::from_ne_bytes(*into));
            *into = result.to_ne_bytes();
        }
        true
    }};
}

macro_rules! integer {
    ($type:ty, $op:expr, $from:expr, $into:expr) => {
        match $op {
            Op::Sum => each!($type, $from, $into, |a, b| a.wrapping_add(b)),
            Op::Product => each!($type, $from, $into, |a, b| a.wrapping_mul(b)),
            Op::Min => each!($type, $from, $into, |a, b| a.min(b)),
            Op::Max => each!($type, $from, $into, |a, b| a.max(b)),
            Op::BitAnd => each!($type, $from, $into, |a, b| a & b),
            Op::BitOr => each!($type, $from, $into, |a, b| a | b),
            Op::BitXor => each!($type, $from, $into, |a, b| a ^ b),
            Op::And => each!($type, $from, $into, |a, b| (a != 0 && b != 0) as $type),
            Op::Or => each!($type, $from, $into, |a, b| (a != 0 || b != 0) as $type),
            Op::Xor => each!($type, $from, $into, |a, b| ((a != 0) != (b != 0)) as $type),
            _ => false,
        }
    };
}

macro_rules! float {
    ($type:ty, $op:expr, $from:expr, $into:expr) => {
        match $op {
            Op::Sum => each!($type, $from, $into, |a, b| a + b),
            Op::Product => each!($type, $from, $into, |a, b| a * b),
            Op::Min => each!($type, $from, $into, |a, b| if a < b { a } else { b }),
            Op::Max => each!($type, $from, $into, |a, b| if a > b { a } else { b }),
            // The standard leaves these out; what others build takes them as truth values.
            Op::And => each!($type, $from, $into, |a, b| (a != 0.0 && b != 0.0) as u8
                as $type),
            Op::Or => each!($type, $from, $into, |a, b| (a != 0.0 || b != 0.0) as u8
                as $type),
            Op::Xor => each!($type, $from, $into, |a, b| ((a != 0.0) != (b != 0.0)) as u8
                as $type),
            _ => false,
        }
    };
}

macro_rules! complex {
    ($type:ty, $op:expr, $from:expr, $into:expr) => {{
        const WIDTH: usize = size_of::<$type>();
        let product = $op == Op::Product;
        if product || $op == Op::Sum {
            let (from, _) = $from.as_chunks::<WIDTH>();
            let (into, _) = $into.as_chunks_mut::<WIDTH>();
            for (from, into) in from.chunks_exact(2).zip(into.chunks_exact_mut(2)) {
                let a = (
                    <$type>::from_ne_bytes(from[0]),
                    <$type>::from_ne_bytes(from[1]),
                );
                let b = (
                    <$type>::from_ne_bytes(into[0]),
                    <$type>::from_ne_bytes(into[1]),
                );
                let result = match product {
                    true => (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0),
                    false => (a.0 + b.0, a.1 + b.1),
                };
                into[0] = result.0.to_ne_bytes();
                into[1] = result.1.to_ne_bytes();
            }
            true
        } else {
            false
        }
    }};
}

macro_rules! pair {
    ($value:ty, $index:ty, $op:expr, $from:expr, $into:expr) => {{
        const FIRST: usize = size_of::<$value>();
        const WIDTH: usize = FIRST + size_of::<$index>();
        let wants_less = $op == Op::MinLocation;
        if wants_less || $op == Op::MaxLocation {
            for (from, into) in $from.chunks_exact(WIDTH).zip($into.chunks_exact_mut(WIDTH)) {
                let read = |bytes: &[u8]| {
                    let (mut value, mut index) = ([0; FIRST], [0; WIDTH - FIRST]);
                    value.copy_from_slice(&bytes[..FIRST]);
                    index.copy_from_slice(&bytes[FIRST..]);
                    (
                        <$value>::from_ne_bytes(value),
                        <$index>::from_ne_bytes(index),
                    )
                };
                let (a, b) = (read(from), read(into));
                let wins = if wants_less { a.0 < b.0 } else { a.0 > b.0 };
                if wins || (a.0 == b.0 && a.1 < b.1) {
                    into.copy_from_slice(from);
                }
            }
            true
        } else {
            false
        }
    }};
}

/// Long doubles; the index of a pair has 4 bytes behind it.
fn long(op: Op, from: &[u8], into: &mut [u8]) -> bool {
    let (from, _) = from.as_chunks::<16>();
    let (into, _) = into.as_chunks_mut::<16>();
    let truth = |number: &Number| number[..8] != [0; 8];
    for (from, into) in from.iter().zip(into) {
        *into = match op {
            Op::Sum => long_double::calculate(Act::Add, from, into),
            Op::Product => long_double::calculate(Act::Multiply, from, into),
            Op::Min if long_double::is_less(from, into) => *from,
            Op::Max if long_double::is_less(into, from) => *from,
            Op::Min | Op::Max => *into,
            Op::And => long_truth(truth(from) && truth(into)),
            Op::Or => long_truth(truth(from) || truth(into)),
            Op::Xor => long_truth(truth(from) != truth(into)),
            _ => return false,
        };
    }
    matches!(
        op,
        Op::Sum | Op::Product | Op::Min | Op::Max | Op::And | Op::Or | Op::Xor
    )
}

fn long_truth(truth: bool) -> Number {
    let mut number = [0; 16];
    if truth {
        number[7] = 0x80;
        number[8..10].copy_from_slice(&16383u16.to_le_bytes());
    }
    number
}

/// Complex numbers of two long doubles.
fn long_complex(op: Op, from: &[u8], into: &mut [u8]) -> bool {
    let (from, _) = from.as_chunks::<16>();
    let (into, _) = into.as_chunks_mut::<16>();
    let (from, _) = from.as_chunks::<2>();
    let (into, _) = into.as_chunks_mut::<2>();
    let times = |one: &Number, other: &Number| long_double::calculate(Act::Multiply, one, other);
    for ([a, b], into) in from.iter().zip(into) {
        let [c, d] = *into;
        *into = match op {
            Op::Sum => [
                long_double::calculate(Act::Add, a, &c),
                long_double::calculate(Act::Add, b, &d),
            ],
            Op::Product => [
                long_double::calculate(Act::Subtract, &times(a, &c), &times(b, &d)),
                long_double::calculate(Act::Add, &times(a, &d), &times(b, &c)),
            ],
            _ => return false,
        };
    }
    matches!(op, Op::Sum | Op::Product)
}

/// Long doubles with their indices.
fn long_pair(op: Op, from: &[u8], into: &mut [u8]) -> bool {
    let wants_less = op == Op::MinLocation;
    if !wants_less && op != Op::MaxLocation {
        return false;
    }
    let (from, _) = from.as_chunks::<20>();
    let (into, _) = into.as_chunks_mut::<20>();
    let read = |pair: &[u8; 20]| {
        let (mut number, mut index) = ([0; 16], [0; 4]);
        number.copy_from_slice(&pair[..16]);
        index.copy_from_slice(&pair[16..]);
        (number, i32::from_ne_bytes(index))
    };
    for (from, into) in from.iter().zip(into) {
        let (a, b) = (read(from), read(into));
        let (less, more) = (
            long_double::is_less(&a.0, &b.0),
            long_double::is_less(&b.0, &a.0),
        );
        let wins = if wants_less { less } else { more };
        if wins || (!less && !more && a.1 < b.1) {
            *into = *from;
        }
    }
    true
}

/// `into = from op into`, element by element of packed bytes.
///
/// # Errors
/// If there is no such reduction.
pub fn apply(op: Op, scalar: Scalar, from: &[u8], into: &mut [u8]) -> Result<(), Undefined> {
    let known = match (op, scalar) {
        (Op::Keep, _) => true,
        (Op::Replace, _) => {
            into.copy_from_slice(from);
            true
        }
        (_, Scalar::I8) => integer!(i8, op, from, into),
        (_, Scalar::I16) => integer!(i16, op, from, into),
        (_, Scalar::I32) => integer!(i32, op, from, into),
        (_, Scalar::I64) => integer!(i64, op, from, into),
        (_, Scalar::U8) => integer!(u8, op, from, into),
        (_, Scalar::U16) => integer!(u16, op, from, into),
        (_, Scalar::U32) => integer!(u32, op, from, into),
        (_, Scalar::U64) => integer!(u64, op, from, into),
        (_, Scalar::F32) => float!(f32, op, from, into),
        (_, Scalar::F64) => float!(f64, op, from, into),
        (_, Scalar::C32) => complex!(f32, op, from, into),
        (_, Scalar::C64) => complex!(f64, op, from, into),
        (Op::And | Op::Or | Op::Xor, Scalar::Bool) => integer!(u8, op, from, into),
        (Op::And | Op::Or | Op::Xor, Scalar::Logical) => integer!(i32, op, from, into),
        (Op::BitAnd | Op::BitOr | Op::BitXor, Scalar::Byte) => integer!(u8, op, from, into),
        (_, Scalar::F80) if long_double::KNOWN => long(op, from, into),
        (_, Scalar::C80) if long_double::KNOWN => long_complex(op, from, into),
        (_, Scalar::F80Int) if long_double::KNOWN => long_pair(op, from, into),
        (_, Scalar::F32Int) => pair!(f32, i32, op, from, into),
        (_, Scalar::F64Int) => pair!(f64, i32, op, from, into),
        (_, Scalar::I64Int) => pair!(i64, i32, op, from, into),
        (_, Scalar::I32Int) => pair!(i32, i32, op, from, into),
        (_, Scalar::I16Int) => pair!(i16, i32, op, from, into),
        (_, Scalar::F32Pair) => pair!(f32, f32, op, from, into),
        (_, Scalar::F64Pair) => pair!(f64, f64, op, from, into),
        _ => false,
    };
    if known {
        Ok(())
    } else {
        Err(Undefined(op, scalar))
    }
}

/// Whether there is such a reduction.
pub fn is_defined(op: Op, scalar: Scalar) -> bool {
    apply(op, scalar, &[], &mut []).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(op: Op, a: [i32; 3], b: [i32; 3]) -> Vec<i32> {
        let bytes = |values: [i32; 3]| {
            values
                .iter()
                .flat_map(|v| v.to_ne_bytes())
                .collect::<Vec<_>>()
        };
        let mut into = bytes(b);
        apply(op, Scalar::I32, &bytes(a), &mut into).unwrap();
        into.as_chunks()
            .0
            .iter()
            .map(|c| i32::from_ne_bytes(*c))
            .collect()
    }

    #[test]
    fn integers() {
        assert_eq!(ints(Op::Sum, [1, 2, i32::MAX], [4, 5, 1]), [5, 7, i32::MIN]);
        assert_eq!(ints(Op::Min, [1, 9, -3], [4, 5, 1]), [1, 5, -3]);
        assert_eq!(ints(Op::Xor, [1, 0, 3], [4, 0, 0]), [0, 0, 1]);
        assert_eq!(ints(Op::Replace, [1, 2, 3], [4, 5, 6]), [1, 2, 3]);
        assert_eq!(ints(Op::Keep, [1, 2, 3], [4, 5, 6]), [4, 5, 6]);
    }

    #[test]
    fn of_equal_values_the_lower_index_wins() {
        let pair =
            |value: f64, index: i32| [&value.to_ne_bytes()[..], &index.to_ne_bytes()].concat();
        let mut into = pair(2.0, 5);
        apply(Op::MinLocation, Scalar::F64Int, &pair(2.0, 3), &mut into).unwrap();
        assert_eq!(into, pair(2.0, 3));
        apply(Op::MaxLocation, Scalar::F64Int, &pair(7.0, 9), &mut into).unwrap();
        assert_eq!(into, pair(7.0, 9));
    }

    #[test]
    fn what_is_not_defined_is_an_error() {
        assert!(!is_defined(Op::BitAnd, Scalar::F64));
        assert!(!is_defined(Op::Sum, Scalar::Byte));
        assert!(!is_defined(Op::Min, Scalar::C64));
        assert!(is_defined(Op::Product, Scalar::C32));
    }
}
