//! What the rounds give together: medians, each system beside the first, and all of them beside what
//! the machine does at most.

use hdrhistogram::Histogram;
use serde_json::json;

use super::plan::{Kind, Work};
use super::work::One;
use crate::Failure;
use crate::limits::Limits;
use crate::report::{PERCENTILES, grouped};

/// All rounds of one work on one system.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) system: String,
    pub(crate) work: Work,
    /// None: as fast as it goes.
    pub(crate) rate: Option<u64>,
    pub(crate) rounds: Vec<One>,
}

/// A figure of a work.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) of: fn(&Measured) -> f64,
}

const fn figure(name: &'static str, unit: &'static str, of: fn(&Measured) -> f64) -> Figure {
    Figure { name, unit, of }
}

const RATES: [Figure; 2] = [
    figure("records/s", "", Measured::records_per_second),
    figure("MB/s", "", Measured::megabytes_per_second),
];
const COSTS: [Figure; 4] = [
    figure("records per CPU second of the system", "", |m| {
        m.records_per_cpu_second()
    }),
    figure("CPU seconds per GB", " s", Measured::cpu_per_gigabyte),
    figure("CPU seconds per GB, client", " s", |m| {
        m.client_cpu_per_gigabyte()
    }),
    figure("most memory", " MiB", Measured::peak_memory),
];
const WRITTEN: Figure = figure("bytes written per byte", "", Measured::amplification);
const LATENCIES: [Figure; 5] = [
    figure("p50", " ms", |m| m.latency(50.0)),
    figure("p90", " ms", |m| m.latency(90.0)),
    figure("p99", " ms", |m| m.latency(99.0)),
    figure("p99.9", " ms", |m| m.latency(99.9)),
    figure("p99.99", " ms", |m| m.latency(99.99)),
];
const BEFORE: [Figure; 2] = [
    figure("p99 before anybody read", " ms", Measured::p99_before),
    figure("p99 while somebody read", " ms", |m| m.latency(99.0)),
];

impl Measured {
    pub(crate) fn new(system: &str, work: &Work, rate: Option<u64>) -> Self {
        Self {
            system: system.to_owned(),
            work: work.clone(),
            rate,
            rounds: Vec::new(),
        }
    }

    /// Which work, and how fast it was done.
    pub(crate) fn title(&self) -> String {
        let rate = match self.work.kind {
            Kind::Produce => self.rate,
            Kind::EndToEnd | Kind::CatchUp => Some(self.work.calm_rate()),
            Kind::Consume | Kind::Single | Kind::Program => None,
        };
        let how = match rate {
            None => String::new(),
            Some(rate) => format!(", at {}/s", grouped(rate)),
        };
        format!("{}{how}", self.work.name())
    }

    /// What is told of it.
    pub(crate) fn figures(&self) -> Vec<&'static Figure> {
        let (rates, costs) = (RATES.iter(), COSTS.iter());
        match (self.work.kind, self.rate) {
            (Kind::Produce, None) => rates.chain(costs).chain([&WRITTEN]).collect(),
            (Kind::Produce, Some(_)) => LATENCIES.iter().chain(&COSTS[..1]).collect(),
            (Kind::Consume | Kind::Program, _) => rates.chain(costs).collect(),
            (Kind::EndToEnd, _) => LATENCIES.iter().chain(&COSTS[..1]).collect(),
            (Kind::Single, _) => RATES[..1]
                .iter()
                .chain(&LATENCIES)
                .chain(&COSTS[..1])
                .collect(),
            (Kind::CatchUp, _) => rates.chain(&BEFORE).chain(&COSTS[1..2]).collect(),
        }
    }

    fn median(&self, of: impl Fn(&One) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    pub(crate) fn records_per_second(&self) -> f64 {
        self.median(One::records_per_second)
    }

    fn bytes(&self, one: &One) -> f64 {
        one.records as f64 * self.work.record_size as f64
    }

    fn megabytes_per_second(&self) -> f64 {
        self.median(|one| self.bytes(one) / one.seconds.max(1e-9) / 1e6)
    }

    /// Nothing if the system's processes are not known.
    pub(crate) fn records_per_cpu_second(&self) -> f64 {
        self.median(|one| match one.spent.cpu.is_zero() {
            true => 0.0,
            false => one.records as f64 / one.spent.cpu.as_secs_f64(),
        })
    }

    fn cpu_per_gigabyte(&self) -> f64 {
        self.median(|one| one.spent.cpu.as_secs_f64() * 1e9 / self.bytes(one).max(1.0))
    }

    fn client_cpu_per_gigabyte(&self) -> f64 {
        self.median(|one| one.client_cpu.as_secs_f64() * 1e9 / self.bytes(one).max(1.0))
    }

    /// The most of all rounds, in MiB.
    pub(crate) fn peak_memory(&self) -> f64 {
        let peaks = self.rounds.iter().map(|one| one.spent.peak_memory as f64);
        peaks.fold(0.0, f64::max) / f64::from(1 << 20)
    }

    fn amplification(&self) -> f64 {
        self.median(|one| one.spent.written as f64 / self.bytes(one).max(1.0))
    }

    /// In milliseconds.
    fn latency(&self, percentile: f64) -> f64 {
        self.median(|one| one.latency_ms(percentile))
    }

    fn p99_before(&self) -> f64 {
        let p99 = |one: &One| {
            let before = one.before.as_ref();
            before.map_or(0.0, |before| before.value_at_percentile(99.0) as f64 / 1e3)
        };
        self.median(p99)
    }

    /// The latencies of all rounds together, if it is they that are told of it.
    pub(crate) fn latencies(&self) -> Result<Option<Histogram<u64>>, Failure> {
        let tells = match self.work.kind {
            Kind::Produce => self.rate.is_some(),
            Kind::EndToEnd | Kind::Single => true,
            Kind::Consume | Kind::CatchUp | Kind::Program => false,
        };
        if !tells {
            return Ok(None);
        }
        let mut all = Histogram::new(3).map_err(Failure::new)?;
        for one in &self.rounds {
            all.add(&one.latencies).map_err(Failure::new)?;
        }
        Ok(Some(all))
    }

    /// Whether it is told how many records it makes in a second.
    pub(crate) fn is_race(&self) -> bool {
        match self.work.kind {
            Kind::Produce => self.rate.is_none(),
            Kind::Consume | Kind::Single | Kind::Program => true,
            Kind::EndToEnd | Kind::CatchUp => false,
        }
    }

    /// What the machine would allow at most, by its name and in records per second.
    pub(crate) fn bound(&self, limits: &Limits) -> Option<(String, f64)> {
        let size = self.work.record_size as f64;
        let copies = f64::from(self.work.replication);
        match self.work.kind {
            Kind::Produce if self.rate.is_none() => {
                let (name, bytes) = match limits.written / copies < limits.streamed {
                    true => ("the disk", limits.written / copies),
                    false => ("loopback", limits.streamed),
                };
                Some((name.to_owned(), bytes / size))
            }
            Kind::Consume => Some((
                "the page cache to a socket".to_owned(),
                limits.sent_from_file / size,
            )),
            Kind::Single => {
                let mut flushes = limits.flushes.iter();
                let found = flushes.find(|f| f.writers as u64 == self.work.producers)?;
                let bound = format!("write and fdatasync by {}", found.writers);
                Some((bound, found.rate))
            }
            _ => None,
        }
    }

    pub(crate) fn as_json(&self) -> serde_json::Value {
        let rounds: Vec<_> = self
            .rounds
            .iter()
            .map(|one| {
                let latencies: serde_json::Map<_, _> = PERCENTILES
                    .iter()
                    .map(|(name, percentile)| {
                        ((*name).to_owned(), json!(one.latency_ms(*percentile)))
                    })
                    .collect();
                json!({
                    "records": one.records,
                    "records_per_second": one.records_per_second(),
                    "system_cpu_seconds": one.spent.cpu.as_secs_f64(),
                    "client_cpu_seconds": one.client_cpu.as_secs_f64(),
                    "peak_memory_bytes": one.spent.peak_memory,
                    "written_bytes": one.spent.written,
                    "latency_ms": latencies,
                })
            })
            .collect();
        json!({
            "system": self.system,
            "work": self.title(),
            "promise": self.work.promise,
            "record_size": self.work.record_size,
            "rate": self.rate,
            "rounds": rounds,
        })
    }
}

/// The middle one; of an even number, the mean of both.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = values.len() / 2;
    match (values.len(), values.len() % 2) {
        (0, _) => 0.0,
        (_, 1) => values[at],
        _ => f64::midpoint(values[at - 1], values[at]),
    }
}

/// As tables show it.
pub(crate) fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => grouped(v as u64),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn numbers_have_as_many_digits_as_tell_something() {
        let shown = [1234.5, 123.4, 12.34, 1.234, 0.0].map(number);
        assert_eq!(shown, ["1,234", "123", "12.3", "1.23", "0.00"]);
    }
}
