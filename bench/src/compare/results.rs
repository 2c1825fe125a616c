//! What the rounds give together: medians, and each system beside the first.

use hdrhistogram::Histogram;
use serde_json::json;

use super::Args;
use super::work::{One, Work};
use crate::Failure;
use crate::chart::Curve;
use crate::report::{PERCENTILES, Report, grouped};

/// All rounds of one work on one system.
#[derive(Debug)]
pub(crate) struct Measured {
    system: String,
    promise: String,
    record_size: usize,
    /// None: as fast as it goes.
    rate: Option<u64>,
    rounds: Vec<One>,
}

impl Measured {
    pub(crate) fn new(system: &str, work: &Work, rate: Option<u64>) -> Self {
        Self {
            system: system.to_owned(),
            promise: work.promise.clone(),
            record_size: work.record_size,
            rate,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, one: One) {
        self.rounds.push(one);
    }

    /// Which work on which system.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.system, self.work())
    }

    fn work(&self) -> String {
        let how = match self.rate {
            None => "as fast as it goes".to_owned(),
            Some(rate) => format!("at {}/s", grouped(rate)),
        };
        format!("{} {} B {how}", self.promise, self.record_size)
    }

    fn median(&self, of: impl Fn(&One) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    pub(crate) fn records_per_second(&self) -> f64 {
        self.median(One::records_per_second)
    }

    /// Records for each CPU second of the system; nothing if its processes are not known.
    fn records_per_cpu_second(&self) -> f64 {
        self.median(|one| match one.system_cpu.is_zero() {
            true => 0.0,
            false => one.records as f64 / one.system_cpu.as_secs_f64(),
        })
    }

    fn peak_memory(&self) -> f64 {
        let peaks = self.rounds.iter().map(|one| one.peak_memory as f64);
        peaks.fold(0.0, f64::max)
    }

    /// The latencies of all rounds together.
    fn latencies(&self) -> Result<Histogram<u64>, Failure> {
        let mut all = Histogram::new(3).map_err(Failure::new)?;
        for one in &self.rounds {
            all.add(&one.latencies).map_err(Failure::new)?;
        }
        Ok(all)
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

/// A figure of a work.
struct Figure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Measured) -> f64,
}

const FIGURES: [Figure; 3] = [
    Figure {
        name: "records/s",
        unit: "",
        of: Measured::records_per_second,
    },
    Figure {
        name: "records per CPU second",
        unit: "",
        of: Measured::records_per_cpu_second,
    },
    Figure {
        name: "most memory so far",
        unit: " MiB",
        of: |measured| measured.peak_memory() / f64::from(1 << 20),
    },
];

/// The table, the JSON and the chart of latencies.
pub(crate) fn report(args: &Args, all: &[Measured]) -> Result<Report, Failure> {
    let names: Vec<&str> = args.systems.iter().map(|s| s.name.as_str()).collect();
    let title = format!(
        "compare: {}; {} partition(s), replication {}, acks=all, {} producer(s), batches of {} B, linger {} ms, medians of {} rounds of {} s",
        names.join(" and "),
        args.partitions,
        args.replication,
        args.producers,
        args.batch_size,
        args.linger.as_millis(),
        args.rounds,
        args.duration.as_secs_f64(),
    );
    let mut report = Report::new("compare", title);
    let mut json = Vec::new();
    let mut curves = Vec::new();
    for works in all.chunk_by(|a, b| a.work() == b.work()) {
        rows(&mut report, works);
        json.extend(works.iter().map(as_json));
        for measured in works.iter().filter(|m| m.rate.is_some()) {
            curves.push(curve(measured)?);
        }
    }
    report.data("measured", json!(json));
    report.curves("one record in so many", "ms", curves);
    Ok(report)
}

/// The rows of one work, all systems side by side.
fn rows(report: &mut Report, works: &[Measured]) {
    let Some(first) = works.first() else {
        return;
    };
    let mut row = |name: &str, unit: &str, of: &dyn Fn(&Measured) -> f64| {
        let one = of(first);
        let shown: Vec<String> = works
            .iter()
            .map(|measured| {
                let value = of(measured);
                let (system, shown) = (&measured.system, number(value));
                match std::ptr::eq(measured, first) || one == 0.0 {
                    true => format!("{system} {shown}{unit}"),
                    false => format!("{system} {shown}{unit} (x{:.2})", value / one),
                }
            })
            .collect();
        report.row(&format!("{}: {name}", first.work()), shown.join("   "));
    };
    match first.rate {
        None => {
            for figure in &FIGURES {
                row(figure.name, figure.unit, &figure.of);
            }
        }
        Some(_) => {
            for (name, percentile) in PERCENTILES {
                let of = |m: &Measured| m.median(|one| one.latency_ms(percentile));
                row(name, " ms", &of);
            }
        }
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => grouped(v as u64),
        v => format!("{v:.2}"),
    }
}

fn as_json(measured: &Measured) -> serde_json::Value {
    let rounds: Vec<_> = measured
        .rounds
        .iter()
        .map(|one| {
            let latencies: serde_json::Map<_, _> = PERCENTILES
                .iter()
                .map(|(name, percentile)| ((*name).to_owned(), json!(one.latency_ms(*percentile))))
                .collect();
            json!({
                "records_per_second": one.records_per_second(),
                "system_cpu_seconds": one.system_cpu.as_secs_f64(),
                "client_cpu_seconds": one.client_cpu.as_secs_f64(),
                "peak_memory_bytes": one.peak_memory,
                "latency_ms": latencies,
            })
        })
        .collect();
    json!({
        "system": measured.system,
        "promise": measured.promise,
        "record_size": measured.record_size,
        "rate": measured.rate,
        "rounds": rounds,
    })
}

/// The latency that one record in so many has, or more.
fn curve(measured: &Measured) -> Result<Curve, Failure> {
    let latencies = measured.latencies()?;
    let mut curve = Curve::new(&measured.name());
    let mut one_in = 2.0;
    while one_in <= latencies.len() as f64 && one_in <= 1e5 {
        let us = latencies.value_at_quantile(1.0 - 1.0 / one_in);
        curve.add(one_in, us as f64 / 1e3);
        one_in *= 1.5;
    }
    Ok(curve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
