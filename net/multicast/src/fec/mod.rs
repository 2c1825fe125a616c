//! The Reed–Solomon erasure code of NORM's schemes 5 and 129 (instance 0): bit for bit that of
//! libnorm, from its definition.
//!
//! A block's k source symbols are the values of a polynomial of degree below k at k points of
//! GF(2^8), byte by byte; its parity symbols are the same polynomial's values at further points.
//! Any k of them all give the polynomial back, and with it the missing ones: here by Lagrange's
//! interpolation, whose weights for `e` missing of `k` cost k·(k + e) products once a block, and
//! no matrix is inverted.
//!
//! The points are 0, 1, x, x², …: those of Rizzo's code (1997), which libnorm is built on. RFC
//! 5510 §8.2 begins at 1 instead, so that its own code would not decode libnorm's parity; what
//! runs in the field decides. No crate was found with these points (`reed-solomon-erasure` takes
//! 0, 1, 2, 3, …; `reed-solomon-simd` works in GF(2^16) by additive transforms), hence this one.
//!
//! A block with fewer source symbols than the code has is one whose others are zeros.

mod field;

use bytes::{Bytes, BytesMut};

use self::field::{Multiples, div, mul, power};

/// Symbols that a block can have, source and parity together.
pub const SYMBOLS_MAX: usize = 255;

/// The point of a symbol of a full block.
fn point(symbol: usize) -> u8 {
    match symbol {
        0 => 0,
        symbol => power(symbol - 1),
    }
}

/// A code: its dimension, and what it needs while it works. One serves all blocks of a sender.
#[derive(Debug)]
pub struct Code {
    /// Source symbols of a full block.
    source: usize,
    /// Parity symbols.
    parity: usize,
    multiples: Multiples,
    /// The weights of parity: row by row, one for each source symbol of a full block.
    rows: Vec<Vec<u8>>,
}

impl Code {
    /// A code of `source` and `parity` symbols; none if that is more than [`SYMBOLS_MAX`], or
    /// no source at all.
    pub fn new(source: usize, parity: usize) -> Option<Code> {
        if source == 0 || source + parity > SYMBOLS_MAX {
            return None;
        }
        let known: Vec<u8> = (0..source).map(point).collect();
        let inverse = Weights::new(&known);
        let row = |symbol| inverse.at(point(symbol));
        Some(Code {
            source,
            parity,
            multiples: Multiples::default(),
            rows: (source..source + parity).map(row).collect(),
        })
    }

    /// Source symbols of a full block.
    pub fn source(&self) -> usize {
        self.source
    }

    /// Parity symbols of a block.
    pub fn parity(&self) -> usize {
        self.parity
    }

    /// The parity of a block's source symbols (as many as there are, the rest being zeros), each
    /// as long as the longest of them; shorter ones are continued by zeros.
    pub fn encode(&mut self, source: &[Bytes]) -> Vec<Bytes> {
        assert!(source.len() <= self.source, "a block longer than its code");
        let len = source.iter().map(Bytes::len).max().unwrap_or(0);
        let mut parity = vec![BytesMut::zeroed(len); self.parity];
        for (column, segment) in source.iter().enumerate() {
            self.multiples.set(segment);
            for (row, sum) in self.rows.iter().zip(&mut parity) {
                self.multiples.add_times(row[column], sum);
            }
        }
        parity.into_iter().map(BytesMut::freeze).collect()
    }

    /// The missing source symbols of a block that has `source_len` of them, in their order, or
    /// none if too few are known. `symbols` holds what is known: the source symbols, then the
    /// parity.
    pub fn decode(&mut self, source_len: usize, symbols: &[Option<Bytes>]) -> Option<Vec<Bytes>> {
        assert!(source_len <= self.source, "a block longer than its code");
        let missing: Vec<usize> = (0..source_len)
            .filter(|&i| symbols.get(i).is_none_or(Option::is_none))
            .collect();
        let mut known: Vec<(usize, &Bytes)> = Vec::with_capacity(self.source);
        for (index, symbol) in symbols.iter().enumerate() {
            if let Some(bytes) = symbol
                && known.len() < source_len
            {
                // Behind a short block's source stand the zeros that it lacks, then parity.
                let skipped = if index < source_len {
                    0
                } else {
                    self.source - source_len
                };
                known.push((index + skipped, bytes));
            }
        }
        if known.len() < source_len {
            return None;
        }
        let zeros = source_len..self.source;
        let places = known.iter().map(|(place, _)| *place).chain(zeros);
        let points: Vec<u8> = places.map(point).collect();
        let weights = Weights::new(&points);
        let rows: Vec<Vec<u8>> = missing.iter().map(|&i| weights.at(point(i))).collect();
        let len = known.iter().map(|(_, bytes)| bytes.len()).max()?;
        let mut found = vec![BytesMut::zeroed(len); missing.len()];
        for (column, (_, bytes)) in known.iter().enumerate() {
            self.multiples.set(bytes);
            for (row, sum) in rows.iter().zip(&mut found) {
                self.multiples.add_times(row[column], sum);
            }
        }
        Some(found.into_iter().map(BytesMut::freeze).collect())
    }
}

/// Lagrange's interpolation from a set of points.
struct Weights<'a> {
    points: &'a [u8],
    /// For each point the product of its differences to all others.
    differences: Vec<u8>,
}

impl<'a> Weights<'a> {
    fn new(points: &'a [u8]) -> Self {
        let product = |(at, &p): (usize, &u8)| {
            let others = points.iter().enumerate().filter(|(other, _)| *other != at);
            others.fold(1, |product, (_, &q)| mul(product, p ^ q))
        };
        Weights {
            points,
            differences: points.iter().enumerate().map(product).collect(),
        }
    }

    /// By how much the value at each point counts for the one at `target`, which is none of them.
    fn at(&self, target: u8) -> Vec<u8> {
        let all = self.points.iter().fold(1, |all, &p| mul(all, target ^ p));
        let weight = |(&p, &difference): (&u8, &u8)| div(all, mul(target ^ p, difference));
        self.points
            .iter()
            .zip(&self.differences)
            .map(weight)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn segment(seed: usize, len: usize) -> Bytes {
        (0..len).map(|i| (seed * 31 + i * 7 + 3) as u8).collect()
    }

    #[test]
    fn a_code_of_one_source_symbol_repeats_it() {
        let mut code = Code::new(1, 3).unwrap();
        assert_eq!(code.encode(&[segment(1, 9)]), vec![segment(1, 9); 3]);
    }

    #[test]
    fn parity_is_the_polynomial_at_the_next_points() {
        // Through (0, a) and (1, b) goes a + (a + b)·p; the next points are x = 2 and x² = 4.
        let mut code = Code::new(2, 2).unwrap();
        let parity = code.encode(&[Bytes::from_static(&[5]), Bytes::from_static(&[9])]);
        assert_eq!(parity, [vec![5 ^ mul(5 ^ 9, 2)], vec![5 ^ mul(5 ^ 9, 4)]]);
    }

    #[test]
    fn parity_is_libnorms_bit_for_bit() {
        // What libnorm's encoder of 64 and 8 makes of these segments.
        let mut code = Code::new(64, 8).unwrap();
        let full: Vec<Bytes> = (0..64).map(|i| segment(i, 6)).collect();
        let expected: [[u8; 6]; 8] = [
            [0x7b, 0xd4, 0x9f, 0xae, 0x0a, 0x72],
            [0xdf, 0xcf, 0xc5, 0x5e, 0x01, 0xfd],
            [0x99, 0xf5, 0xe0, 0xcd, 0x13, 0xe6],
            [0x61, 0x2f, 0xd9, 0xbb, 0xfb, 0xea],
            [0x0a, 0x09, 0x2e, 0xcc, 0x96, 0xd3],
            [0xbf, 0x9c, 0x0f, 0x33, 0x44, 0x80],
            [0x37, 0x14, 0x35, 0xf0, 0x4a, 0x48],
            [0x2a, 0x4c, 0x8c, 0xcd, 0xb5, 0x7e],
        ];
        assert_eq!(code.encode(&full), expected.map(Bytes::from_owner));
        let short = code.encode(&full[..5]);
        assert_eq!(&short[0][..], [0xeb, 0xa3, 0x6d, 0x2d, 0xee, 0x06]);
        assert_eq!(&short[1][..], [0x79, 0x98, 0xf6, 0x71, 0x2a, 0x42]);
    }

    #[test]
    fn codes_that_cannot_be_are_refused() {
        assert!(Code::new(0, 4).is_none());
        assert!(Code::new(200, 56).is_none());
        assert!(Code::new(200, 55).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_k_symbols_give_the_block_back(
            (full, parity) in (1usize..64, 0usize..20),
            short in any::<prop::sample::Index>(),
            lens in vec(1usize..40, 64),
            order in Just((0..84).collect::<Vec<usize>>()).prop_shuffle(),
        ) {
            let mut code = Code::new(full, parity).unwrap();
            let len = short.index(full) + 1;
            let source: Vec<Bytes> = (0..len).map(|i| segment(i, lens[i])).collect();
            let longest = source.iter().map(Bytes::len).max().unwrap();
            let all: Vec<Bytes> = source.iter().cloned().chain(code.encode(&source)).collect();
            let kept: Vec<usize> = order.into_iter().filter(|i| *i < all.len()).take(len).collect();
            let symbols: Vec<Option<Bytes>> = all
                .iter()
                .enumerate()
                .map(|(i, bytes)| kept.contains(&i).then(|| bytes.clone()))
                .collect();
            let found = code.decode(len, &symbols).unwrap();
            let missing = (0..len).filter(|i| !kept.contains(i));
            for (missing, found) in missing.zip(found) {
                prop_assert_eq!(&found[..source[missing].len()], &source[missing][..]);
                prop_assert!(found[source[missing].len()..].iter().all(|b| *b == 0));
                prop_assert!(found.len() <= longest);
            }
            let mut fewer = symbols;
            fewer[kept[0]] = None;
            prop_assert!(code.decode(len, &fewer).is_none());
        }
    }
}
