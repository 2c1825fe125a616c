//! `sim --seeds N --seed S [--mixed --minutes M | --cluster --nodes N]`: lives of nodes in simulated
//! worlds, one for each seed from S on.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringmill_tests::simulation::{self, Summary, cluster, mixed};

const USAGE: &str = "sim [--seeds N] [--seed S] [--threads T] [--mixed [--minutes M] [--bug NAME] | --cluster [--nodes 3|5]]";

/// What is lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One node, and records alone.
    Records,
    /// One node, and everything that clients do.
    Mixed,
    /// Several nodes.
    Cluster,
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// What is to be lived.
#[derive(Clone, Copy)]
struct Args {
    seeds: u64,
    first: u64,
    kind: Kind,
    /// Virtual minutes of a mixed load in each seed.
    minutes: u64,
    bug: Option<mixed::Bug>,
    /// Nodes of a cluster; as the seed says if not given.
    nodes: Option<usize>,
    /// Worlds that live at a time, one on each thread.
    threads: usize,
}

impl Args {
    fn parse() -> Option<Self> {
        let mut parsed = Self {
            seeds: 100,
            first: 1,
            kind: Kind::Records,
            minutes: 20,
            bug: None,
            nodes: None,
            threads: processors(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            match name.as_str() {
                "--mixed" => parsed.kind = Kind::Mixed,
                "--cluster" => parsed.kind = Kind::Cluster,
                _ => {}
            }
            if name == "--mixed" || name == "--cluster" {
                continue;
            }
            let value = args.next()?;
            match name.as_str() {
                "--seeds" => parsed.seeds = value.parse().ok()?,
                "--seed" => parsed.first = value.parse().ok()?,
                "--nodes" => parsed.nodes = Some(value.parse().ok().filter(|n| *n >= 3)?),
                "--threads" => parsed.threads = value.parse().ok().filter(|n| *n >= 1)?,
                "--minutes" => parsed.minutes = value.parse().ok()?,
                "--bug" => {
                    let all = mixed::Bug::ALL.into_iter();
                    parsed.bug = Some(all.into_iter().find(|bug| format!("{bug:?}") == value)?);
                }
                _ => return None,
            }
        }
        Some(parsed)
    }

    fn live(self, seed: u64) -> Result<Total, String> {
        match self.kind {
            Kind::Records => simulation::run(seed).map(|lived| Total {
                records: lived,
                ..Total::default()
            }),
            Kind::Cluster => cluster::run(seed, self.nodes).map(|lived| Total {
                cluster: lived,
                ..Total::default()
            }),
            Kind::Mixed => {
                let time = Duration::from_secs(self.minutes * 60);
                mixed::run(seed, time, self.bug).map(|lived| Total {
                    mixed: lived,
                    ..Total::default()
                })
            }
        }
    }

    fn replay(self, seed: u64) -> String {
        let more = match (self.kind, self.nodes) {
            (Kind::Records, _) => String::new(),
            (Kind::Mixed, _) => format!(" --mixed --minutes {}", self.minutes),
            (Kind::Cluster, None) => " --cluster".to_owned(),
            (Kind::Cluster, Some(nodes)) => format!(" --cluster --nodes {nodes}"),
        };
        format!("cargo xtask sim --seed {seed} --seeds 1{more}")
    }
}

/// What all seeds came to.
#[derive(Default)]
struct Total {
    records: Summary,
    mixed: mixed::Summary,
    cluster: cluster::Summary,
    failed: u64,
    done: u64,
}

impl Total {
    fn add(&mut self, other: &Self) {
        self.records.acknowledged += other.records.acknowledged;
        self.records.unknown += other.records.unknown;
        self.records.events += other.records.events;
        self.records.trace ^= other.records.trace;
        self.mixed.add(&other.mixed);
        self.cluster.add(&other.cluster);
    }

    fn words(&self, kind: Kind) -> String {
        let hours = |time: Duration| time.as_secs_f64() / 3600.0;
        if kind == Kind::Records {
            let lived = &self.records;
            return format!(
                "{} batches acknowledged, {} unknown, {} events, trace {:016x}",
                lived.acknowledged, lived.unknown, lived.events, lived.trace
            );
        }
        if kind == Kind::Cluster {
            let lived = &self.cluster;
            return format!(
                "{:.2} virtual hours, {} nodes, {} faults, {} leaderships, {} disks lost, {} nodes \
                 joined, {} left, {} of them back, {} snapshots sent; {} batches acknowledged, \
                 {} unknown, {} fetches; {} events, trace {:016x}",
                hours(lived.time),
                lived.nodes,
                lived.faults,
                lived.elections,
                lived.moves.lost,
                lived.moves.joined,
                lived.moves.left,
                lived.moves.returned,
                lived.snapshots,
                lived.acknowledged,
                lived.unknown,
                lived.looks,
                lived.events,
                lived.trace
            );
        }
        let lived = &self.mixed;
        format!(
            "{:.2} virtual hours, {:.2} under load, {} lives of nodes; {} batches acknowledged, {} \
             unknown, {} transactions, {} commits of offsets, {} claims on partitions, {} fetches; \
             {} events, trace {:016x}",
            hours(lived.time),
            hours(lived.loaded),
            lived.lives,
            lived.acknowledged,
            lived.unknown,
            lived.transactions,
            lived.commits,
            lived.claims,
            lived.looks,
            lived.events,
            lived.trace
        )
    }
}

/// Looks for each planted bug, or for one of them, and tells which seed finds it.
#[cfg(feature = "mutations")]
fn find_mutations(name: Option<String>, threads: usize) -> ExitCode {
    use cluster::mutations::{ALL, find};
    let wanted = |mutation: &&cluster::mutations::Mutation| {
        name.as_ref().is_none_or(|name| mutation.name == name)
    };
    let (next, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    let wanted: Vec<_> = ALL.iter().filter(wanted).collect();
    println!("| bug | the engine | found by seed | as |");
    println!("|---|---|---|---|");
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutation) = wanted.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    let found = find(mutation, mutation.within);
                    missed.fetch_add(u64::from(found.is_none()), Ordering::Relaxed);
                    let (seed, how) = found.map_or_else(
                        || (format!("none of {}", mutation.within), String::new()),
                        |(seed, how)| (seed.to_string(), how),
                    );
                    let how = how.replace('|', "/");
                    println!("| {} | {} | {seed} | {how} |", mutation.name, mutation.does);
                }
            });
        }
    });
    match missed.into_inner() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn main() -> ExitCode {
    #[cfg(feature = "mutations")]
    if let Some("--mutations") = std::env::args().nth(1).as_deref() {
        let mut more = std::env::args().skip(2);
        let (name, threads) = (more.next(), more.next());
        let name = name.filter(|name| name != "all");
        let threads = threads.and_then(|threads| threads.parse().ok());
        return find_mutations(name, threads.unwrap_or_else(processors));
    }
    let Some(args) = Args::parse() else {
        eprintln!("sim: usage: {USAGE}");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let next = AtomicU64::new(args.first);
    let total = Mutex::new(Total::default());
    // Each world lives on one thread; two processors run two worlds.
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| work(args, &next, &total, began));
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} seeds from {}: {} failed; {}, {:.1} s",
        args.seeds,
        args.first,
        total.failed,
        total.words(args.kind),
        began.elapsed().as_secs_f64()
    );
    if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Lives seeds until there are no more.
fn work(args: Args, next: &AtomicU64, total: &Mutex<Total>, began: Instant) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= args.first + args.seeds {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| args.live(seed)));
        let result = result.unwrap_or_else(|_| Err("panicked".to_owned()));
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(lived) => total.add(&lived),
            Err(violation) => {
                total.failed += 1;
                println!("seed {seed}: {violation}");
                println!("  replay: {}", args.replay(seed));
                println!(
                    "  with every event: RINGMILL_SIM_TRACE=1 {}",
                    args.replay(seed)
                );
            }
        }
        total.done += 1;
        show(&total, args, began);
    }
}

/// The bar, where somebody looks at it; elsewhere a line for each tenth.
fn show(total: &Total, args: Args, began: Instant) {
    const WIDTH: u64 = 30;
    let often =
        args.kind == Kind::Mixed || total.done.is_multiple_of(50) || total.done == args.seeds;
    let tenths = |done: u64| done * 10 / args.seeds.max(1);
    if !std::io::stdout().is_terminal() {
        if tenths(total.done) > tenths(total.done - 1) {
            let (done, failed) = (total.done, total.failed);
            println!("{done} of {} seeds, {failed} failed", args.seeds);
        }
        return;
    }
    if !often {
        return;
    }
    let full = (total.done * WIDTH / args.seeds.max(1)) as usize;
    let bar = "#".repeat(full) + &"-".repeat(WIDTH as usize - full);
    let took = began.elapsed().as_secs_f64();
    let left = took / total.done as f64 * (args.seeds - total.done) as f64;
    print!(
        "\r[{bar}] {} of {} seeds, {} failed, {left:.0} s left ",
        total.done, args.seeds, total.failed
    );
    if total.done == args.seeds {
        println!();
    }
    let _ = std::io::stdout().flush();
}
