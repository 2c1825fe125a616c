//! Arithmetic of the platform's `long double`, which Rust has no type for: an island of `unsafe`,
//! for the processor's own instructions. Values are 16 bytes in memory, of which 10 are the number.

/// A number as it stands in memory.
pub(crate) type Number = [u8; 16];

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Add,
    Subtract,
    Multiply,
}

/// Whether there is such arithmetic here.
pub(crate) const KNOWN: bool = cfg!(target_arch = "x86_64");

#[cfg(target_arch = "x86_64")]
macro_rules! calculate {
    ($instruction:literal, $one:expr, $other:expr) => {{
        let mut result: Number = [0; 16];
        // SAFETY: reads 10 bytes of each operand and writes 10 of the result, all of which live
        // here; the two places of the coprocessor's stack that are used are declared and free again.
        unsafe {
            std::arch::asm!(
                "fld tbyte ptr [{one}]",
                "fld tbyte ptr [{other}]",
                $instruction,
                "fstp tbyte ptr [{result}]",
                one = in(reg) $one.as_ptr(),
                other = in(reg) $other.as_ptr(),
                result = in(reg) result.as_mut_ptr(),
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
        result
    }};
}

/// Calculates.
#[cfg(target_arch = "x86_64")]
pub(crate) fn calculate(act: Act, one: &Number, other: &Number) -> Number {
    match act {
        Act::Add => calculate!("faddp st(1), st", one, other),
        Act::Subtract => calculate!("fsubp st(1), st", one, other),
        Act::Multiply => calculate!("fmulp st(1), st", one, other),
    }
}

/// Whether the one is less than the other; it is not if either is no number.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_less(one: &Number, other: &Number) -> bool {
    let above: u8;
    // SAFETY: as in `calculate`, without a result in memory.
    unsafe {
        std::arch::asm!(
            "fld tbyte ptr [{one}]",
            "fld tbyte ptr [{other}]",
            "fcomip st, st(1)",
            "seta {above}",
            "fstp st(0)",
            one = in(reg) one.as_ptr(),
            other = in(reg) other.as_ptr(),
            above = out(reg_byte) above,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        );
    }
    above != 0
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn calculate(_act: Act, one: &Number, _other: &Number) -> Number {
    *one
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn is_less(_one: &Number, _other: &Number) -> bool {
    false
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// A whole number: its highest bit stands at the top of the fraction.
    fn number(value: u64) -> Number {
        let mut bytes = [0; 16];
        if value > 0 {
            let shift = value.leading_zeros();
            bytes[..8].copy_from_slice(&(value << shift).to_le_bytes());
            bytes[8..10].copy_from_slice(&(16383 + 63 - shift as u16).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn whole_numbers_beyond_a_doubles_precision() {
        let big = (1 << 60) + 1;
        assert_eq!(
            calculate(Act::Add, &number(big), &number(2)),
            number(big + 2)
        );
        assert_eq!(
            calculate(Act::Subtract, &number(big), &number(1)),
            number(big - 1)
        );
        assert_eq!(
            calculate(Act::Multiply, &number(3_000_000_019), &number(3)),
            number(9_000_000_057)
        );
        assert!(is_less(&number(big), &number(big + 1)));
        assert!(!is_less(&number(big), &number(big)));
        assert!(!is_less(&number(5), &number(4)));
    }
}
