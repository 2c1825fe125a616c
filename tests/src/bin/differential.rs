//! `differential --ours ADDR --theirs ADDR --seeds N --seed S`: the same seeded requests to Ringmill
//! and to Apache Kafka, their answers compared field by field.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use ringmill_tests::differential::{Found, Pair};

/// What the command line says.
struct Args {
    ours: SocketAddr,
    theirs: SocketAddr,
    seeds: u64,
    seed: u64,
    loud: bool,
}

fn args() -> Option<Args> {
    let mut words = std::env::args().skip(1);
    let (mut ours, mut theirs, mut seeds, mut seed, mut loud) = (None, None, 100, 1, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--ours" => ours = Some(words.next()?.parse().ok()?),
            "--theirs" => theirs = Some(words.next()?.parse().ok()?),
            "--seeds" => seeds = words.next()?.parse().ok()?,
            "--seed" => seed = words.next()?.parse().ok()?,
            "--loud" => loud = true,
            _ => return None,
        }
    }
    Some(Args {
        ours: ours?,
        theirs: theirs?,
        seeds,
        seed,
        loud,
    })
}

fn main() -> ExitCode {
    let Some(args) = args() else {
        eprintln!(
            "differential: usage: differential --ours ADDR --theirs ADDR [--seeds N] [--seed S] [--loud]"
        );
        return ExitCode::from(2);
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every seed came out alike.
fn run(args: &Args) -> io::Result<bool> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH);
    let began_ms = began.map_or(0, |since| since.as_millis() as i64);
    let mut pair = Pair::new(args.ours, args.theirs, (std::process::id(), began_ms));
    pair.warm_up()?;
    pair.loud = args.loud;
    let (mut alike, mut explained) = (0, 0);
    let mut kinds: BTreeMap<String, (u64, Found)> = BTreeMap::new();
    for seed in args.seed..args.seed + args.seeds {
        let report = pair
            .run(seed)
            .map_err(|error| io::Error::other(format!("seed {seed}: {error}")))?;
        alike += report.alike;
        explained += report.explained;
        if let Some(found) = report.found {
            let api = found.api.split(' ').next().unwrap_or_default();
            let first = &found.differences[0];
            let kind = format!(
                "{api} {}: {} and not {}",
                first.path, first.ours, first.theirs
            );
            kinds.entry(kind).or_insert((0, found)).0 += 1;
        }
        print!(
            "\r{} of {} seeds, {alike} answers alike, {} kinds of difference ",
            seed + 1 - args.seed,
            args.seeds,
            kinds.len()
        );
        io::stdout().flush()?;
    }
    println!();
    for (kind, (times, found)) in &kinds {
        println!("\n== {times} × {kind}");
        tell(found);
    }
    println!(
        "{} seeds from {}: {alike} answers alike, {explained} with a reason (docs/DIFFERENCES.md), {} differences",
        args.seeds,
        args.seed,
        kinds.len()
    );
    Ok(kinds.is_empty())
}

fn tell(found: &Found) {
    println!("seed {}, request {}: {}", found.seed, found.step, found.api);
    println!("request {}", found.request);
    println!("ours    {}", found.ours);
    println!("theirs  {}", found.theirs);
    for difference in &found.differences {
        println!(
            "differs {}: {} and not {}",
            difference.path, difference.ours, difference.theirs
        );
    }
}
