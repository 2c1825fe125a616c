//! The one door for chores: people and the continuous check run the same commands.
//!
//! `cargo xtask` builds in seconds because it only starts other programs; it links none of the
//! engine. Every command prints what it runs, so that a chore can be repeated by hand.
#![forbid(unsafe_code)]

mod broker;
mod ci;
mod clients;
mod compare;
mod conformance;
mod counts;
mod differential;
mod fuzz;
mod interop;
mod matrix;
mod mover;
mod mpi;
mod nats;
mod norm;
mod peer;
mod process;
mod report;
mod rpc_bench;
mod tla;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::{Failure, cargo, run};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the Ringmill repository")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything that must hold before a change lands, beyond `cargo test --workspace`
    Ci(ci::Args),
    /// The style test (tests/tests/tidy.rs), with its warnings
    Tidy {
        /// Bring the file lists of docs/ARCHITECTURE.md up to date first
        #[arg(long)]
        fix_map: bool,
    },
    /// Run seeds of the deterministic simulation; each failure prints the seed that replays it
    Sim(SimArgs),
    /// Kill a loaded node in rounds (SIGKILL) and check every promise it made
    Crash {
        /// How many kills
        #[arg(long, default_value_t = 200)]
        rounds: u64,
        /// Decides load and moments
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Kill a node and its clients in the middle of transactions, in rounds (SIGKILL): every record
    /// comes out exactly once
    Transactions {
        /// How many kills
        #[arg(long, default_value_t = 100)]
        rounds: u64,
        /// Decides load and moments
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Fuzz one target (or all) with libFuzzer and the address sanitizer
    Fuzz(fuzz::Args),
    /// Unmodified Kafka clients against a broker: a table client × feature
    Conformance(conformance::Args),
    /// Real nodes in network namespaces, each fault with each client: nothing lost, how long silent
    Matrix(matrix::Args),
    /// The model of replication (docs/tla) before TLC, as it is and with each rule taken away
    Tla(tla::Args),
    /// Calls both ways: the published cases of gRPC with grpcio and grpc-go, remote objects with
    /// pycapnp and capnproto
    Interop,
    /// Unary calls of net/rpc beside tonic on tokio, in turn: calls per second per core, and p99
    RpcBench(rpc_bench::Args),
    /// MPI beside MPICH: the same binaries by the standard ABI on both in turn, and mpi4py's own tests
    Mpi(mpi::Args),
    /// The same seeded requests to Ringmill and to Apache Kafka: their answers, field by field
    Differential(differential::Args),
    /// Ringmill beside Apache Kafka, of one node or several: `ringmill-bench compare` on both
    Compare(compare::Args),
    /// Instructions and allocations of each piece of the engine, against what they were
    Counts(counts::Args),
    /// Start another system to compare with, in the foreground
    Peer(peer::Args),
    /// `ringmill-bench` in release, arguments passed on
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

#[derive(clap::Args)]
struct SimArgs {
    /// How many seeds to run; of a mixed load, as many as the hours take if not given
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Everything that clients do at once: groups, transactions, compaction, administration, …
    #[arg(long)]
    mixed: bool,
    /// A whole cluster, of three or five nodes as the seed says, and clients that follow its leaders
    #[arg(long, conflicts_with = "mixed")]
    cluster: bool,
    /// With `--cluster`: so many nodes in each seed
    #[arg(long, requires = "cluster")]
    nodes: Option<usize>,
    /// Plant each known bug into the engine, and look which seed of a cluster finds it; a table
    #[arg(long, conflicts_with_all = ["mixed", "cluster"])]
    mutations: bool,
    /// Virtual minutes of a mixed load in each seed
    #[arg(long, default_value_t = MIXED_MINUTES)]
    minutes: u64,
    /// Virtual hours of a mixed load in all
    #[arg(long, default_value_t = 24)]
    hours: u64,
}

/// Virtual minutes of a mixed load in each seed.
const MIXED_MINUTES: u64 = 20;

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Ci(args) => ci::ci(&args),
        Chore::Tidy { fix_map } => tidy(fix_map),
        Chore::Sim(args) if args.mixed => {
            let seeds = (args.hours * 60).div_ceil(args.minutes.max(1));
            mixed(args.seeds.unwrap_or(seeds), args.seed, args.minutes)
        }
        Chore::Sim(args) if args.mutations => mutations(),
        Chore::Sim(args) if args.cluster => {
            cluster(args.seeds.unwrap_or(1_000), args.seed, args.nodes)
        }
        Chore::Sim(args) => sim(args.seeds.unwrap_or(1_000), args.seed),
        Chore::Crash { rounds, seed } => kill("crash", rounds, seed),
        Chore::Transactions { rounds, seed } => kill("transactions", rounds, seed),
        Chore::Fuzz(args) => fuzz::fuzz(&args),
        Chore::Conformance(args) => conformance::conformance(&args),
        Chore::Matrix(args) => matrix::matrix(&args),
        Chore::Tla(args) => tla::tla(&args),
        Chore::Interop => interop::interop(),
        Chore::RpcBench(args) => rpc_bench::rpc_bench(&args),
        Chore::Mpi(args) => mpi::mpi(&args),
        Chore::Differential(args) => differential::differential(&args),
        Chore::Compare(args) => compare::compare(&args),
        Chore::Counts(args) => counts::counts(&args),
        Chore::Peer(args) => peer::peer(&args),
        Chore::Bench { args } => bench(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn tidy(fix_map: bool) -> Result<(), Failure> {
    let mut command = cargo();
    command.args([
        "test",
        "-p",
        "ringmill-tests",
        "--test",
        "tidy",
        "--",
        "--show-output",
    ]);
    if fix_map {
        command.env("TIDY_FIX_MAP", "1");
    }
    run(&mut command)
}

fn sim(seeds: u64, seed: u64) -> Result<(), Failure> {
    simulate(seeds, seed, &[])
}

/// A mixed load for so many virtual minutes in each seed.
fn mixed(seeds: u64, seed: u64, minutes: u64) -> Result<(), Failure> {
    simulate(seeds, seed, &["--mixed", "--minutes", &minutes.to_string()])
}

/// Lives of whole clusters.
fn cluster(seeds: u64, seed: u64, nodes: Option<usize>) -> Result<(), Failure> {
    match nodes {
        Some(nodes) => simulate(seeds, seed, &["--cluster", "--nodes", &nodes.to_string()]),
        None => simulate(seeds, seed, &["--cluster"]),
    }
}

/// Each bug that can be planted into the engine, and the seed that finds it.
fn mutations() -> Result<(), Failure> {
    let mut command = cargo();
    command.args(["run", "--release", "-p", "ringmill-tests", "--bin", "sim"]);
    command.args(["--features", "mutations", "--", "--mutations"]);
    run(&mut command)
}

fn simulate(seeds: u64, seed: u64, more: &[&str]) -> Result<(), Failure> {
    let mut command = cargo();
    command.args([
        "run",
        "--release",
        "-p",
        "ringmill-tests",
        "--bin",
        "sim",
        "--",
    ]);
    command.args(["--seeds", &seeds.to_string(), "--seed", &seed.to_string()]);
    command.args(more);
    run(&mut command)
}

/// Rounds of SIGKILL, by one of the programs of `tests`.
fn kill(program: &str, rounds: u64, seed: u64) -> Result<(), Failure> {
    let mut build = cargo();
    build.args(["build", "--release", "-p", "ringmill"]);
    run(&mut build)?;
    let mut command = cargo();
    command.args(["run", "--release", "-p", "ringmill-tests", "--bin", program]);
    command.args(["--", "--rounds", &rounds.to_string()]);
    command.args(["--seed", &seed.to_string()]);
    run(&mut command)
}

fn bench(args: &[String]) -> Result<(), Failure> {
    let mut command = cargo();
    command
        .args(["run", "--release", "-p", "ringmill-bench", "--"])
        .args(args);
    run(&mut command)
}
