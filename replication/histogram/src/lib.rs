//! Histograms of openraft's own statistics, in place of the crate `base2histogram`: that one fills
//! tables of 27 MiB for all sixteen precisions that it knows when the first histogram is made, of which
//! openraft uses one. This was nine tenths of what an idle node took (`ringmill-bench idle`).
//!
//! A histogram counts values by their powers of two. It offers what openraft asks for and no more.
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// A value is counted by the number of its bits, 0 to 64.
const BUCKETS: usize = u64::BITS as usize + 1;

/// Counts of values. `T` is of no consequence here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    total: u64,
    kind: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
            kind: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += times;
        self.total += times;
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The least value that could be counted with the one below which `permille` of all are; 0 if there
    /// is none.
    fn at(&self, permille: u64) -> u64 {
        let rank = (u128::from(self.total) * u128::from(permille))
            .div_ceil(1000)
            .max(1);
        let mut seen = 0;
        for (bits, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank {
                return match bits {
                    0 => 0,
                    _ => 1 << (bits - 1),
                };
            }
        }
        0
    }

    /// The usual percentiles, each a power of two.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.at(1),
            p1: self.at(10),
            p5: self.at(50),
            p10: self.at(100),
            p50: self.at(500),
            p90: self.at(900),
            p99: self.at(990),
            p99_9: self.at(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// How many values there are, and up to where which share of them goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            p50,
            p90,
            p99,
            p99_9,
            ..
        } = self;
        write!(
            f,
            "[samples: {samples}, p50: {p50}, p90: {p90}, p99: {p99}, p99.9: {p99_9}]"
        )
    }
}

/// Several histograms, a line for each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0 {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_powers_of_two_below() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        for value in 1..=1000 {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, histogram.total()), (1000, 1000));
        assert_eq!(
            (stats.p0_1, stats.p10, stats.p50, stats.p99_9),
            (1, 64, 256, 512)
        );
        let mut ends = Histogram::<()>::default();
        ends.record(0);
        ends.record(u64::MAX);
        let stats = ends.percentile_stats();
        assert_eq!((stats.p1, stats.p99), (0, 1 << 63));
    }

    #[test]
    fn a_chart_has_a_line_for_each() {
        let mut histogram = Histogram::new();
        histogram.record(5);
        let chart = AsciiChart::new()
            .add("a", histogram.clone())
            .add("b", histogram);
        let shown = chart.to_string();
        assert_eq!(shown.lines().count(), 2);
        assert!(shown.starts_with("a: [samples: 1, p50: 4,"));
    }
}
