//! Seeded mutations of inputs, for the smoke: cheap and blind, but the same for the same seed.

/// Numbers that lengths and counts go wrong at.
const EDGES: [i64; 12] = [
    0,
    1,
    -1,
    -2,
    i8::MAX as i64,
    i16::MAX as i64,
    i16::MIN as i64,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    i64::MAX,
    i64::MIN,
];

/// Most changes to one input.
const CHANGES_MAX: u64 = 4;
/// Longest stretch that is moved about.
const STRETCH_MAX: usize = 64;

/// Makes inputs out of seeds.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// The same seed gives the same inputs.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// splitmix64
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// An input somewhat like one of `seeds`.
    pub fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = match seeds.len() {
            0 => Vec::new(),
            count => seeds[self.below(count)].clone(),
        };
        for _ in 0..=self.next() % CHANGES_MAX {
            self.change(&mut input, seeds);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let stretch = self.below(STRETCH_MAX).min(input.len() - at);
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.next() as u8,
            2 => input.truncate(at),
            3 => drop(input.drain(at..at + stretch)),
            4 => {
                let copy = input[at..at + stretch].to_vec();
                input.splice(at..at, copy);
            }
            5 => {
                let bytes: Vec<u8> = (0..=self.below(8)).map(|_| self.next() as u8).collect();
                input.splice(at..at, bytes);
            }
            6 => self.overwrite(input, at),
            _ if !seeds.is_empty() => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {}
        }
    }

    /// Puts an edge number of some width over what stands at `at`.
    fn overwrite(&mut self, input: &mut [u8], at: usize) {
        let edge = EDGES[self.below(EDGES.len())].to_be_bytes();
        let width = [1, 2, 4, 8][self.below(4)];
        for (byte, value) in input[at..].iter_mut().zip(&edge[8 - width..]) {
            *byte = *value;
        }
    }
}
