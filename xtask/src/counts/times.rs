//! Times of the pieces on this machine: the benches run, and what criterion wrote of them read.

use std::path::Path;

use serde_json::Value;

use crate::process::{Failure, cargo, run, target_dir};

/// The benches that measure pieces: crate and name.
const BENCHES: [(&str, &str); 3] = [
    ("ringmill-wire", "wire"),
    ("ringmill-log", "pieces"),
    ("ringmill-ring", "executor"),
];

/// One figure of a bench.
#[derive(Debug, PartialEq)]
pub(super) struct Time {
    pub(super) name: String,
    /// Nanoseconds: the median, and the bounds that it is within with 95 in 100.
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Runs the benches; all that they measured, by name.
pub(super) fn measure() -> Result<Vec<Time>, Failure> {
    let results = target_dir().join("criterion");
    // what was measured before may be of a bench that is gone
    if results.exists() {
        std::fs::remove_dir_all(&results)?;
    }
    for (package, name) in BENCHES {
        let mut bench = cargo();
        bench.args(["bench", "--profile", "counts", "-p", package]);
        bench.args(["--bench", name, "--"]);
        run(bench.args(["--warm-up-time", "1", "--measurement-time", "2"]))?;
    }
    let mut times = Vec::new();
    gather(&results, &mut times)?;
    times.sort_by(|a, b| a.name.cmp(&b.name));
    if times.is_empty() {
        return Err(Failure(format!("no result in {}", results.display())));
    }
    Ok(times)
}

/// Criterion keeps each result in a folder `new` below those of its group and name.
fn gather(folder: &Path, times: &mut Vec<Time>) -> Result<(), Failure> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "new") {
            let read = |name: &str| -> Result<Value, Failure> {
                let text = std::fs::read_to_string(path.join(name))?;
                serde_json::from_str(&text).map_err(|error| Failure(error.to_string()))
            };
            let (bench, estimates) = (read("benchmark.json")?, read("estimates.json")?);
            let time = time(&bench, &estimates);
            let reason = || Failure(format!("not a result: {}", path.display()));
            times.push(time.ok_or_else(reason)?);
        } else if path.is_dir() {
            gather(&path, times)?;
        }
    }
    Ok(())
}

fn time(bench: &Value, estimates: &Value) -> Option<Time> {
    let median = &estimates["median"];
    let bounds = &median["confidence_interval"];
    Some(Time {
        name: bench["full_id"].as_str()?.to_owned(),
        median: median["point_estimate"].as_f64()?,
        low: bounds["lower_bound"].as_f64()?,
        high: bounds["upper_bound"].as_f64()?,
    })
}

/// Nanoseconds in the unit that suits them.
pub(super) fn shown(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_of_criterion_is_read_and_anything_else_is_none() {
        let bench = serde_json::json!({ "full_id": "trie/1024" });
        let estimates = serde_json::json!({ "median": {
            "point_estimate": 12.5,
            "confidence_interval": { "lower_bound": 12.0, "upper_bound": 13.0 },
        } });
        let read = time(&bench, &estimates).unwrap();
        assert_eq!((read.name.as_str(), read.median), ("trie/1024", 12.5));
        assert_eq!((read.low, read.high), (12.0, 13.0));
        assert_eq!(time(&estimates, &bench), None);
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        assert_eq!(shown(12.34), "12.3 ns");
        assert_eq!(shown(1_500.0), "1.50 µs");
        assert_eq!(shown(2_500_000.0), "2.50 ms");
    }
}
