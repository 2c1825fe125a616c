//! Arithmetic of GF(2^8) over 1 + x^2 + x^3 + x^4 + x^8 (RFC 5510 §8.1), on bytes and on whole
//! segments.

/// What x^8 is, less the x^8: the field's polynomial.
const REDUCTION: u8 = 0x1d;

const fn times_x(a: u8) -> u8 {
    a << 1 ^ (if a & 0x80 != 0 { REDUCTION } else { 0 })
}

/// Powers of x, twice over, so that the sum of two logarithms needs no reduction.
const EXP: [u8; 510] = {
    let mut table = [0; 510];
    let (mut power, mut i) = (1, 0);
    while i < 255 {
        table[i] = power;
        table[i + 255] = power;
        power = times_x(power);
        i += 1;
    }
    table
};

/// Logarithms to the base x; that of 0 means nothing.
const LOG: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 255 {
        table[EXP[i] as usize] = i as u8;
        i += 1;
    }
    table
};

/// x to a power below 255.
pub(super) fn power(exponent: usize) -> u8 {
    EXP[exponent]
}

/// The product.
pub(super) fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    EXP[usize::from(LOG[usize::from(a)]) + usize::from(LOG[usize::from(b)])]
}

/// The quotient; `b` is not 0.
pub(super) fn div(a: u8, b: u8) -> u8 {
    assert!(b != 0, "a division by zero in GF(256)");
    if a == 0 {
        return 0;
    }
    EXP[usize::from(LOG[usize::from(a)]) + 255 - usize::from(LOG[usize::from(b)])]
}

/// A segment times 1, x, x^2, … x^7. Its product with any number is the sum of those that the
/// number's bits name: plain exclusive-or, which the compiler turns into vector instructions.
/// Made once for each segment, it serves all rows of a code.
#[derive(Debug, Default)]
pub(super) struct Multiples {
    planes: [Vec<u8>; 8],
}

impl Multiples {
    /// Of another segment.
    pub(super) fn set(&mut self, segment: &[u8]) {
        self.planes[0].clear();
        self.planes[0].extend_from_slice(segment);
        for bit in 1..8 {
            let (below, above) = self.planes.split_at_mut(bit);
            above[0].clear();
            above[0].extend(below[bit - 1].iter().map(|&a| {
                // Without a branch: the sign bit, spread over the byte, selects the reduction.
                a << 1 ^ (((a as i8) >> 7) as u8 & REDUCTION)
            }));
        }
    }

    /// Adds the segment times `factor` to `sum`, which is at least as long.
    pub(super) fn add_times(&self, factor: u8, sum: &mut [u8]) {
        for (bit, plane) in self.planes.iter().enumerate() {
            if factor >> bit & 1 == 1 {
                sum.iter_mut().zip(plane).for_each(|(s, p)| *s ^= p);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: a polynomial product, reduced.
    fn slow_mul(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            if b & 1 == 1 {
                product ^= a;
            }
            a = times_x(a);
            b >>= 1;
        }
        product
    }

    #[test]
    fn products_and_quotients_are_those_of_the_definition() {
        for a in 0..=255 {
            for b in 0..=255 {
                let product = slow_mul(a, b);
                assert_eq!(mul(a, b), product, "{a} * {b}");
                if b != 0 {
                    assert_eq!(div(product, b), a, "{product} / {b}");
                }
            }
        }
    }

    #[test]
    fn segments_are_multiplied_byte_by_byte() {
        let segment: Vec<u8> = (0..=255).collect();
        let mut multiples = Multiples::default();
        multiples.set(&[9; 300]);
        multiples.set(&segment);
        for factor in 0..=255 {
            let mut sum = vec![7; 300];
            multiples.add_times(factor, &mut sum);
            for (&a, &s) in segment.iter().zip(&sum) {
                assert_eq!(s, 7 ^ slow_mul(a, factor));
            }
            assert_eq!(sum[256..], [7; 44]);
        }
    }
}
