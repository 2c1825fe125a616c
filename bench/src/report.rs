//! What a measure says at its end: a table for people, JSON for programs, a chart.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::broker::Used;
use crate::chart::{self, Comparison, Curve};
use crate::measure::Series;
use crate::options::Output;

/// The percentiles that are told.
pub(crate) const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
];

/// Gathers the rows of the table and the keys of the JSON.
pub(crate) struct Report {
    title: String,
    rows: Vec<(String, String)>,
    json: Map<String, Value>,
    series: Option<Series>,
    latencies: Option<Histogram<u64>>,
    comparison: Option<Comparison>,
}

impl Report {
    pub(crate) fn new(measure: &str, title: String) -> Self {
        let mut json = Map::new();
        json.insert("measure".to_owned(), json!(measure));
        json.insert("title".to_owned(), json!(title));
        Self {
            title,
            rows: Vec::new(),
            json,
            series: None,
            latencies: None,
            comparison: None,
        }
    }

    /// A key of the JSON that is no row.
    pub(crate) fn data(&mut self, key: &str, value: Value) {
        self.json.insert(key.to_owned(), value);
    }

    /// Curves to be drawn in one chart.
    pub(crate) fn curves(&mut self, x: &'static str, y: &'static str, curves: Vec<Curve>) {
        self.comparison = Some(Comparison { x, y, curves });
    }

    /// A row that is no key of the JSON.
    pub(crate) fn row(&mut self, name: &str, shown: String) {
        self.rows.push((name.to_owned(), shown));
    }

    /// The rows so far.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, &str)> {
        let rows = self.rows.iter();
        rows.map(|(name, shown)| (name.as_str(), shown.as_str()))
    }

    /// A figure: a row, and a key with the bare value.
    pub(crate) fn figure(&mut self, name: &str, key: &str, value: Value, shown: String) {
        self.rows.push((name.to_owned(), shown));
        self.json.insert(key.to_owned(), value);
    }

    /// Records and bytes per second, over all and over time.
    pub(crate) fn throughput(&mut self, series: Series) {
        let seconds = series.elapsed().as_secs_f64().max(1e-9);
        let (records, bytes) = (series.records(), series.bytes());
        let (records_s, bytes_s) = (records as f64 / seconds, bytes as f64 / seconds);
        self.figure("records", "records", json!(records), grouped(records));
        self.figure(
            "seconds",
            "seconds",
            json!(seconds),
            format!("{seconds:.2}"),
        );
        self.figure(
            "records/s",
            "records_per_second",
            json!(records_s),
            grouped(records_s as u64),
        );
        self.figure(
            "MB/s",
            "bytes_per_second",
            json!(bytes_s),
            format!("{:.1}", bytes_s / 1e6),
        );
        let points = series.points();
        let curve = points
            .iter()
            .map(|p| json!([p.seconds, p.records, p.bytes]));
        self.json.insert("over_time".to_owned(), curve.collect());
        self.series = Some(series);
    }

    /// Percentiles of times in microseconds.
    pub(crate) fn latency(&mut self, latencies: Histogram<u64>) {
        if latencies.is_empty() {
            return;
        }
        for (name, percentile) in PERCENTILES {
            let us = latencies.value_at_percentile(percentile);
            let key = format!("latency_us_{}", name.replace('.', "_"));
            self.figure(&format!("latency {name}"), &key, json!(us), millis(us));
        }
        let max = latencies.max();
        self.figure("latency max", "latency_us_max", json!(max), millis(max));
        self.latencies = Some(latencies);
    }

    /// What both processes used, for so many records.
    pub(crate) fn used(&mut self, broker: Option<Used>, client_cpu: Duration, records: u64) {
        let per_million = |cpu: Duration| cpu.as_secs_f64() * 1e6 / records.max(1) as f64;
        if let Some(used) = broker {
            let cpu = used.cpu.as_secs_f64();
            let shown = format!(
                "{cpu:.2} s, {:.3} per million records",
                per_million(used.cpu)
            );
            self.figure("broker CPU", "broker_cpu_seconds", json!(cpu), shown);
            let shown = format!("{:.1} MiB", used.peak_memory as f64 / f64::from(1 << 20));
            let peak = json!(used.peak_memory);
            self.figure(
                "broker peak memory",
                "broker_peak_memory_bytes",
                peak,
                shown,
            );
        }
        let cpu = client_cpu.as_secs_f64();
        let shown = format!(
            "{cpu:.2} s, {:.3} per million records",
            per_million(client_cpu)
        );
        self.figure("client CPU", "client_cpu_seconds", json!(cpu), shown);
    }

    /// Prints the table and writes the files that were asked for.
    pub(crate) async fn finish(self, output: &Output) -> Result<(), Failure> {
        println!("{}", self.title);
        let width = self
            .rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        for (name, value) in &self.rows {
            println!("  {name:width$}  {value:>14}");
        }
        if let Some(path) = &output.json {
            let text = format!("{:#}\n", Value::Object(self.json));
            write(path, text).await?;
        }
        if let Some(path) = &output.svg {
            let drawn = match &self.comparison {
                Some(comparison) => comparison.draw(&self.title),
                None => chart::draw(&self.title, self.series.as_ref(), self.latencies.as_ref()),
            };
            write(path, drawn.map_err(Failure)?).await?;
        }
        Ok(())
    }
}

/// Writes a file, as a whole or not at all.
pub(crate) async fn write(path: &Path, text: String) -> Result<(), Failure> {
    let content = vec![Bytes::from(text)];
    let written = ringmill_ring::fs::write_atomic(path, content).await;
    written.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

fn millis(us: u64) -> String {
    format!("{:.3} ms", us as f64 / 1e3)
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn figures_are_rows_and_keys_alike() {
        let mut latencies = Histogram::new(3).unwrap();
        for us in 1..=1000 {
            latencies.record(us).unwrap();
        }
        let mut report = Report::new("latency", "t".to_owned());
        report.latency(latencies);
        assert_eq!(report.json["latency_us_p50"], json!(500));
        assert!(report.json.contains_key("latency_us_p99_9"));
        assert!(
            report
                .rows
                .contains(&("latency p50".to_owned(), "0.500 ms".to_owned()))
        );
    }
}
