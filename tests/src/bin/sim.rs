//! `sim --seeds N --seed S`: lives of a node in simulated worlds, one for each seed from S on.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ringmill_tests::simulation::{Summary, run};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut seeds, mut first) = (100, 1);
    while let Some(name) = args.next() {
        match (
            name.as_str(),
            args.next().and_then(|value| value.parse::<u64>().ok()),
        ) {
            ("--seeds", Some(n)) => seeds = n,
            ("--seed", Some(n)) => first = n,
            _ => {
                eprintln!("sim: usage: sim [--seeds N] [--seed S]");
                return ExitCode::from(2);
            }
        }
    }
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let total = Mutex::new((Summary::default(), 0_u64));
    // Each world lives on one thread; two processors run two worlds.
    let workers = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&next, first + seeds, &total));
        }
    });
    let (total, failed) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{seeds} seeds from {first}: {failed} failed; {} batches acknowledged, {} unknown, {} events, \
         trace {:016x}, {:.1} s",
        total.acknowledged,
        total.unknown,
        total.events,
        total.trace,
        began.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Lives seeds until there are no more.
fn work(next: &AtomicU64, end: u64, total: &Mutex<(Summary, u64)>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
        let result = result.unwrap_or_else(|_| Err("panicked".to_owned()));
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(summary) => {
                total.0.acknowledged += summary.acknowledged;
                total.0.unknown += summary.unknown;
                total.0.events += summary.events;
                total.0.trace ^= summary.trace;
            }
            Err(violation) => {
                total.1 += 1;
                println!("seed {seed}: {violation}");
                println!("  replay: cargo xtask sim --seed {seed} --seeds 1");
            }
        }
        if std::io::stdout().is_terminal() && seed.is_multiple_of(50) {
            print!("\rseed {seed} of {end}");
            let _ = std::io::stdout().flush();
        }
    }
}
