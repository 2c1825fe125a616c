//! `cargo xtask ci`: what must hold before a change lands, beyond `cargo test --workspace`.
//! Every step runs even if an earlier one failed; the summary names each with its time.

use std::time::{Duration, Instant};

use crate::conformance;
use crate::fuzz;
use crate::process::{Failure, cargo, run};
use crate::report::table;

/// Seeds of the simulation that one check runs (DESIGN: at least ten thousand).
const SIM_SEEDS: u64 = 10_000;

/// Seeds of a mixed load that one check runs, and the virtual minutes of each; a day of them is
/// `cargo xtask sim --mixed`.
const MIXED_SEEDS: u64 = 6;
const MIXED_MINUTES: u64 = 4;

/// Seeds of a whole cluster that one check runs: what two idle cores get through in four minutes.
const CLUSTER_SEEDS: u64 = 2_000;

/// How long each fuzz target runs; longer runs are `cargo xtask fuzz NAME --seconds N`.
const FUZZ_SMOKE_SECONDS: u64 = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these steps (fmt, clippy, docs, fuzz, counts, sim, mixed, cluster, interop, conformance); all if none is named
    #[arg(value_parser = step_names())]
    steps: Vec<String>,
}

struct Step {
    name: &'static str,
    run: fn() -> Result<(), Failure>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        run: || run(cargo().args(["fmt", "--all", "--check"])),
    },
    Step {
        name: "clippy",
        run: || {
            run(cargo().args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]))
        },
    },
    Step {
        name: "docs",
        run: || {
            run(cargo().env("RUSTDOCFLAGS", "-D warnings").args([
                "doc",
                "--workspace",
                "--no-deps",
            ]))
        },
    },
    Step {
        name: "fuzz",
        run: || fuzz::fuzz_all(FUZZ_SMOKE_SECONDS),
    },
    Step {
        name: "counts",
        run: || crate::counts::counts(&crate::counts::Args::default()),
    },
    Step {
        name: "sim",
        run: || crate::sim(SIM_SEEDS, 1),
    },
    Step {
        name: "mixed",
        run: || crate::mixed(MIXED_SEEDS, 1, MIXED_MINUTES),
    },
    Step {
        name: "cluster",
        run: || crate::cluster(CLUSTER_SEEDS, 1, None),
    },
    Step {
        name: "interop",
        run: crate::interop::interop_in_ci,
    },
    Step {
        name: "conformance",
        run: conformance::checked_clients,
    },
];

fn step_names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

/// Runs the steps in order and prints the summary.
pub(crate) fn ci(args: &Args) -> Result<(), Failure> {
    let wanted = |step: &&Step| args.steps.is_empty() || args.steps.iter().any(|s| s == step.name);
    let mut results: Vec<(&str, Duration, Result<(), Failure>)> = Vec::new();
    for step in STEPS.iter().filter(wanted) {
        println!("\n== {}", step.name);
        let started = Instant::now();
        let outcome = (step.run)();
        if let Err(failure) = &outcome {
            println!("xtask: {failure}");
        }
        results.push((step.name, started.elapsed(), outcome));
    }
    println!("\n{}", summary(&results));
    let failed: Vec<&str> = results
        .iter()
        .filter(|(_, _, outcome)| outcome.is_err())
        .map(|(name, _, _)| *name)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure(format!("failed: {}", failed.join(", "))))
    }
}

fn summary(results: &[(&str, Duration, Result<(), Failure>)]) -> String {
    let mut rows = vec![vec!["step".into(), "seconds".into(), "result".into()]];
    for (name, took, outcome) in results {
        rows.push(vec![
            (*name).to_owned(),
            format!("{:.1}", took.as_secs_f64()),
            match outcome {
                Ok(()) => "ok".to_owned(),
                Err(failure) => format!("FAILED: {failure}"),
            },
        ]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_failed() {
        let text = summary(&[
            ("fmt", Duration::from_millis(1500), Ok(())),
            ("sim", Duration::from_secs(2), Err(Failure("seed 7".into()))),
        ]);
        assert!(text.contains("fmt") && text.contains("1.5"), "{text}");
        assert!(text.contains("FAILED: seed 7"), "{text}");
    }
}
